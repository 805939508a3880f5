from __future__ import annotations

from typing import Any

import pytest

from folds.config.sweep import parse_sweep
from folds.errors import UsageError, without_marks


def test_every_combination_the_first_values_first() -> None:
    variants = parse_sweep(["loss=ce,focal", "batch-size = 8, 16"])
    assert [dict(variant.values) for variant in variants] == [
        {"loss": "ce", "batch_size": "8"},
        {"loss": "ce", "batch_size": "16"},
        {"loss": "focal", "batch_size": "8"},
        {"loss": "focal", "batch_size": "16"},
    ]
    assert [variant.suffix for variant in variants] == [
        "ce-batch_size-8",
        "ce-batch_size-16",
        "focal-batch_size-8",
        "focal-batch_size-16",
    ]


@pytest.mark.parametrize(
    ("text", "values", "suffixes"),
    [
        ("compile=true,false", ["true", "false"], ["compile-true", "compile-false"]),
        ('window=["0,255", "0,4095"]', ["0,255", "0,4095"], ["window-0,255", "window-0,4095"]),
        (
            "model_args=[{}, {drop_rate = 0.1}]",
            [{}, {"drop_rate": 0.1}],
            ["model_args-{}", 'model_args-{"drop_rate": 0.1}'],
        ),
        ("lr=[1e-3, 3e-4]", [0.001, 0.0003], ["lr-0.001", "lr-0.0003"]),
        ("loss=ce,", ["ce"], None),
    ],
)
def test_values_with_commas_and_tables_are_toml(text: str, values: list[Any], suffixes: list[str] | None) -> None:
    if suffixes is None:
        with pytest.raises(UsageError, match="expected two values or more"):
            parse_sweep([text])
        return
    variants = parse_sweep([text])
    assert [next(iter(variant.values.values())) for variant in variants] == values
    assert [variant.suffix for variant in variants] == suffixes


@pytest.mark.parametrize(
    ("texts", "said", "hint"),
    [
        (["los=ce,focal"], "sweep los: unknown setting; did you mean loss", "known: epochs"),
        (["arch=swin,resnet18"], "sweep arch: not a setting of a recipe", "arch=A,B"),
        (["seed=0,1"], "sweep seed: not a setting of a recipe", "seeds=N"),
        (["k=3,5"], "sweep k: it decides the data or the folds", "name"),
        (["loss"], "sweep loss: expected two values or more", "sweep loss=V1,V2"),
        (["loss=ce"], "sweep loss=ce: expected two values or more", "sweep loss=V1,V2"),
        (["loss=ce,focal,ce"], "ce is given twice", "once"),
        (["loss=ce,focal", "loss=ldam,f1"], "sweep loss is given twice", "sweep loss=ce,focal,ldam,f1"),
        (["window=[0,255"], "not a TOML array", "sweep 'window="),
        (["=a,b"], "unknown setting", "known: "),
    ],
)
def test_what_cannot_be_swept_is_refused_with_what_can(texts: list[str], said: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_sweep(texts)
    assert said in str(raised.value)
    assert hint in without_marks(str(raised.value.hint))


def test_both_spellings_of_a_swept_setting_are_equivalent() -> None:
    old, new = parse_sweep(["fit=squash,crop"]), parse_sweep(["resize=squash,crop"])
    assert old == new
    assert [dict(one.values) for one in new] == [{"fit": "squash"}, {"fit": "crop"}]
    assert parse_sweep(["random-erasing=0,.5"])[1].suffix == "erase-.5"
    with pytest.raises(UsageError, match=r"^sweep resize is given twice"):
        parse_sweep(["fit=squash,crop", "resize=squash,crop"])
    with pytest.raises(UsageError, match="did you mean freeze_epochs"):
        parse_sweep(["freeze-epoch=0,1"])
