"""The fast forms of a model give the values of the plain one, and are only taken if they do."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble as en
from ensemble.prediction import engine, verification
from ensemble.prediction import prediction_formats as formats
from ensemble.prediction.prediction_formats import BF16, EXACT_WAY, FUSED, _decide
from folds.errors import UsageError
from tests.conftest import Called

ROWS = np.arange(40)

TEST = "people/eval"


@pytest.fixture
def fused_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure also for few images, and let the forms be as fast as they are expected to be."""
    order = {EXACT_WAY: 1.0, FUSED: 2.0, BF16: 3.0}
    monkeypatch.setattr(formats, "_WORTH_MEASURING", 0)
    monkeypatch.setattr(formats, "_rates", lambda timed, images: {way: order[way] for way in timed})


def predicted(values: dict[str, np.ndarray]) -> Callable[[str, np.ndarray], np.ndarray]:
    return lambda way, rows: values[way][: len(rows)]


def scores(changed: int = 0, by: float = 0.0) -> np.ndarray:
    values = np.tile([0.6, 0.4], (len(ROWS), 1)) + by
    values[:changed] = values[:changed, ::-1]
    return values


def test_the_fused_form_has_the_values_of_the_plain_one(two_blends: Path, fused_is_fastest: None) -> None:
    plain = en.predict("views", TEST, precision="fp32", progress=False)
    fast = en.predict("views", TEST, progress=False)
    assert {one["way"] for one in fast.formats.values()} == {FUSED}
    assert {one["way"] for one in plain.formats.values()} == {EXACT_WAY}
    np.testing.assert_allclose(fast.probabilities, plain.probabilities, atol=1e-6)
    assert fast.passes == plain.passes


def test_bf16_is_taken_only_if_the_classes_agree(
    two_blends: Path,
    fused_is_fastest: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(formats, "AGREEMENT", 0.0)
    monkeypatch.setattr(formats, "SCORE_CHANGE", 1.0)  # 14 images of a model that was hardly trained
    plain = en.predict("test_resnet", TEST, precision="fp32", progress=False)
    reduced = en.predict("test_resnet", TEST, precision="fastest", progress=False)
    assert reduced.formats["test_resnet"]["way"] == BF16
    difference = np.abs(plain.probabilities - reduced.probabilities).max()
    assert 1e-7 < difference < 0.02
    assert "out-of-fold images changes by 0." in reduced.formats["test_resnet"]["reason"]
    monkeypatch.setattr(formats, "AGREEMENT", 1.1)
    refused = en.predict("test_resnet", TEST, precision="fastest", progress=False)
    assert refused.formats["test_resnet"]["way"] == FUSED
    assert "bf16 fused was rejected" in refused.formats["test_resnet"]["reason"]


def test_verify_compares_the_reduced_format_that_was_used(
    two_blends: Path,
    fused_is_fastest: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    call: Callable[..., Called],
) -> None:
    for module in (formats, verification):
        monkeypatch.setattr(module, "AGREEMENT", 0.0)
    monkeypatch.setattr(formats, "SCORE_CHANGE", 1.0)
    found = en.predict("test_resnet", TEST, precision="bf16", verify=True, progress=False)
    stored = en.load_run("test_resnet").test
    assert stored is not None
    found_, stored_ = found.probabilities, stored.probabilities
    verified = found.verification
    assert verified is not None
    assert (verified.ways, verified.number_format, verified.limit) == ((BF16,), "bf16", 8e-2)
    assert verified.difference == found.difference == float(np.abs(found_ - stored_).max())
    assert verified.difference > 1e-6
    assert verified.same_class == (found_.argmax(1) == stored_.argmax(1)).mean()
    assert verified.holds
    assert "equal within 8e-02, the tolerance of bf16); same class for" in found.display_table().text(300)
    monkeypatch.setattr(verification, "AGREEMENT", 1.1)
    words = ["predict", "test_resnet", TEST, "--precision", "bf16", "--verify", "-o", tmp_path / "p.npy"]
    done = call(*words, "--json")
    assert done.code == 1
    assert json.loads(done.out)["verification"] == verified.to_dict() | {"holds": False}
    assert "NOT equal within 8e-02, the tolerance of bf16" in done.err


def test_an_exported_model_is_verified_in_the_form_that_was_used(
    two_blends: Path,
    fused_is_fastest: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    call: Callable[..., Called],
) -> None:
    monkeypatch.setattr(formats, "AGREEMENT", 0.0)
    monkeypatch.setattr(formats, "SCORE_CHANGE", 1.0)
    en.export("test_resnet", tmp_path / "model")
    plain = en.predict(tmp_path / "model", TEST, precision="fp32", verify=True, progress=False).verification
    reduced = en.predict(tmp_path / "model", TEST, precision="bf16", verify=True, progress=False).verification
    assert plain is not None
    assert reduced is not None
    assert (plain.ways, plain.number_format, plain.limit) == ((), "fp32", 1e-4)
    assert (reduced.ways, reduced.number_format, reduced.limit) == ((BF16,), "bf16", 8e-2)
    assert plain.difference < 1e-6 < reduced.difference < 8e-2
    fuse = formats.fused

    def wrong(network: Any, dtype: Any, example: Any) -> tuple[Any, Any]:
        made, rest = fuse(network, dtype, example)
        return (lambda images: 1000 * made(images)), rest

    monkeypatch.setattr(formats, "fused", wrong)
    done = call(
        *("predict", tmp_path / "model", TEST, "--precision", "bf16", "--verify", "-o", tmp_path / "p.npy", "--json")
    )
    assert done.code == 1
    assert not json.loads(done.out)["verification"]["holds"]
    assert "computed like these predictions as bf16 fused (NOT equal" in done.err


def test_a_form_whose_values_differ_is_rejected_with_the_reason() -> None:
    rates = {EXACT_WAY: 1.0, FUSED: 2.0}
    near = _decide(predicted({EXACT_WAY: scores(), FUSED: scores(by=1e-6)}), ROWS, rates, {}, "auto", 1e-5)
    far = _decide(predicted({EXACT_WAY: scores(), FUSED: scores(by=1e-4)}), ROWS, rates, {}, "auto", 1e-5)
    assert (near.way, far.way) == (FUSED, EXACT_WAY)
    assert "differs by 1e-04" in far.reason
    wrong = _decide(predicted({EXACT_WAY: scores(), FUSED: scores() * np.nan}), ROWS, rates, {}, "auto", 1e-5)
    assert wrong.way == EXACT_WAY


def test_a_slower_form_is_not_taken() -> None:
    values = {EXACT_WAY: scores(), FUSED: scores(), BF16: scores()}
    rates = {EXACT_WAY: 3.0, FUSED: 2.0, BF16: 1.0}
    assert _decide(predicted(values), ROWS, rates, {}, "fastest", 1e-5).way == EXACT_WAY
    assert _decide(predicted(values), ROWS, rates, {}, "bf16", 1e-5).way == BF16


def test_one_changed_class_of_forty_rejects_bf16() -> None:
    rates = {EXACT_WAY: 1.0, FUSED: 2.0, BF16: 3.0}
    values = {EXACT_WAY: scores(), FUSED: scores(), BF16: scores(changed=1)}
    choice = _decide(predicted(values), ROWS, rates, {}, "fastest", 1e-5)
    assert choice.way == FUSED
    assert "same class for 97.5% of 40 images" in choice.reason


def test_a_changed_out_of_fold_score_rejects_bf16() -> None:
    rates = {EXACT_WAY: 1.0, FUSED: 2.0, BF16: 3.0}
    predict = predicted(dict.fromkeys(rates, scores()))
    for change, way in ((0.0009, BF16), (0.0011, FUSED), (None, BF16)):
        choice = _decide(predict, ROWS, rates, {}, "fastest", 1e-5, lambda reference, it=change: (it, "macro F1"))
        assert choice.way == way
        assert "macro F1" in choice.reason


def test_bf16_is_compared_with_the_plain_values_if_fusing_is_wrong() -> None:
    rates = {EXACT_WAY: 1.0, FUSED: 2.0, BF16: 3.0}
    broken = scores(changed=len(ROWS))
    values = {EXACT_WAY: scores(), FUSED: broken, BF16: broken}
    assert _decide(predicted(values), ROWS, rates, {}, "fastest", 1e-5).way == EXACT_WAY


def test_verify_computes_again_as_in_the_training(
    two_blends: Path,
    fused_is_fastest: None,
    monkeypatch: pytest.MonkeyPatch,
    logged,
) -> None:
    build = engine.built

    def off(model, device, choice):
        network, channels_last = build(model, device, choice)
        return (network if choice.is_exact else lambda images: 1.001 * network(images)), channels_last

    monkeypatch.setattr(engine, "built", off)
    found = en.predict("soft", TEST, verify=True, progress=False)
    assert found.difference is not None
    assert found.difference <= 1e-6
    assert {one["way"] for one in found.formats.values()} == {EXACT_WAY}
    assert any("computed again as in the training" in note for note in logged.notes)


def test_the_format_is_printed_and_recorded_in_the_sidecar(
    two_blends: Path,
    fused_is_fastest: None,
    tmp_path: Path,
    call: Callable[..., Called],
) -> None:
    done = call("predict", "test_resnet", TEST, "-o", tmp_path / "p.npy", "--resume")
    assert done.code == 0, done.err
    assert "test_resnet is computed in fp32 fused: the fastest here" in done.err
    sidecar = json.loads((tmp_path / "p.json").read_text())
    assert sidecar["formats"]["test_resnet"]["way"] == FUSED
    assert set(sidecar["formats"]["test_resnet"]["rates"]) == {EXACT_WAY, FUSED}
    metadata = en.read_predictions(tmp_path / "p.npy").metadata
    assert metadata.formats is not None
    assert metadata.formats["test_resnet"]["way"] == FUSED


def test_few_images_are_computed_without_measuring(two_blends: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    image = next((two_blends / TEST / "images").rglob("*.jpg"))
    found = en.predict("test_resnet", image, progress=False)
    assert "too few to measure" in found.formats["test_resnet"]["reason"]
    assert not any("is computed in" in record.getMessage() for record in caplog.records)


def test_an_unknown_precision_is_refused(two_blends: Path) -> None:
    with pytest.raises(UsageError, match="precision"):
        en.predict("test_resnet", TEST, precision="int4", progress=False)
    assert en.predict("test_resnet", TEST, precision="off", progress=False).formats["test_resnet"]["way"] == EXACT_WAY
