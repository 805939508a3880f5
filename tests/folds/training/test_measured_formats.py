"""How a training on a CPU is computed: rates are measured, and a default is left only for a clear gain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from folds.config.recipe import Recipe
from folds.data.targets import resolve_target
from folds.models import timing as shared
from folds.models.factory import create_model
from folds.models.inference import PixelSource
from folds.models.model_names import resolve
from folds.training import measured_formats as formats
from folds.training import predictor as predicting
from folds.training.measured_formats import (
    Amount,
    Format,
    Rates,
    choose,
    choose_number,
    measure,
    measure_numbers,
    rate_of,
)
from folds.training.predictor import Predictor
from folds.utils.numeric import softmax

AMOUNT = Amount(trained=10_000, predicted=100)


def rates(train: dict[str, float], predict: dict[str, float] | None = None, **other: Any) -> Rates:
    return Rates(**({"convolutional": True, "train": train, "predict": predict or {"off": 30}} | other))


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"fp32": 10}, Format()),
        ({"fp32": 10, "bf16": 11.9}, Format()),
        ({"fp32": 10, "bf16": 12.1}, Format("bf16")),
        ({"fp32": 10, "bf16": 20, "bf16 contiguous": 22}, Format("bf16")),
        ({"fp32": 10, "bf16": 20, "bf16 contiguous": 24}, Format("bf16", channels_last=False)),
        ({"fp32": 10, "bf16": 8, "fp32 contiguous": 12}, Format(channels_last=False)),
        # Only a layout of the number format that is taken counts.
        ({"fp32": 10, "bf16": 11, "bf16 contiguous": 30}, Format()),
    ],
)
def test_a_default_is_left_only_for_a_clear_gain(train: dict[str, float], expected: Format) -> None:
    chosen = choose(rates(train), AMOUNT)
    assert chosen == expected
    assert rate_of(rates(train), chosen) in train.values()


def test_the_reason_has_the_rates_of_both() -> None:
    chosen = choose(rates({"fp32": 10.4, "bf16": 26}, {"off": 30, "bf16": 110}), AMOUNT)
    assert chosen.reason == (
        "bf16 channels-last trains 26 images/s against 10 in fp32 (measured); validation in bf16, stored predictions "
        "in fp32"
    )


@pytest.mark.parametrize(
    ("predict", "preparing", "validation"),
    [
        ({"off": 10, "bf16": 30}, 0.0, "bf16"),
        ({"off": 10, "bf16": 21, "fused": 20}, 0.0, "fused"),
        ({"off": 10, "bf16": 30, "fused": 20}, 1.0, "bf16"),
        # 100 images take 10 s, fused 5 s and the fusing.
        ({"off": 10, "bf16": 11, "fused": 20}, 4.0, "off"),
    ],
)
def test_predictions_have_formats_of_their_own(predict: dict[str, float], preparing: float, validation: str) -> None:
    chosen = choose(rates({"fp32": 10}, predict, preparing=preparing), AMOUNT)
    assert (chosen.validation, chosen.stored) == (validation, "off")


def test_what_was_measured_can_be_read_again() -> None:
    made = rates({"fp32": 10, "bf16": 20}, {"off": 3.5}, preparing=0.25, compiled=(40.0, 60.0))
    assert Rates.from_record(vars(made)) == made
    for broken in (
        {},
        vars(made) | {"train": {"fp32": "fast"}},
        vars(made) | {"predict": {}},
        vars(made) | {"predict": {"off": 1, "fused": 0}},
        vars(made) | {"train": 3},
    ):
        assert Rates.from_record(broken) is None


def test_a_model_is_measured_in_every_format_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "has_bf16", lambda: True)
    recipe = Recipe(batch_size=4)
    before = torch.get_rng_state()
    measured = measure(resolve("test_resnet", (32, 32)), recipe, 3, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert {name.split()[0] for name in measured.train} == {"fp32", "bf16"}
    assert len(measured.train) == 3
    assert set(measured.predict) == {"off", "bf16", "fused"}
    assert min([*measured.train.values(), *measured.predict.values()]) > 0
    vit = measure(resolve("test_vit", (32, 32)), recipe, 3, 1)
    assert set(vit.train) == {"fp32", "bf16"}  # the memory format is of convolutions
    given = measure(resolve("test_resnet", (32, 32)), Recipe(batch_size=4, channels_last=False), 3, 1)
    assert (set(given.train), given.convolutional) == ({"fp32", "bf16"}, False)


def test_without_instructions_there_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "has_bf16", lambda: False)
    measured = measure(resolve("test_vit", (32, 32)), Recipe(batch_size=2), 3, 1)
    assert set(measured.train) == {"fp32"}
    assert "bf16" not in measured.predict


@pytest.mark.parametrize(("flags", "expected"), [("sse2 avx512_bf16", True), ("sse2 avx512f", False)])
def test_the_instructions_are_read_from_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nmodel name\t: A CPU\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t: other\n")
    monkeypatch.setattr(shared, "_CPU_INFO", info)
    shared._cpu_info.cache_clear()
    try:
        assert shared.has_bf16() is expected
        assert "A CPU" in shared.processor()
    finally:
        shared._cpu_info.cache_clear()


def test_a_measurement_is_kept_for_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert shared.recall({"batch": 32}) is None
    shared.remember({"batch": 32}, {"rate": 1.5})
    assert shared.recall({"batch": 32}) == {"rate": 1.5}
    assert shared.recall({"batch": 16}) is None
    monkeypatch.setattr(shared, "processor", lambda: "another one")
    assert shared.recall({"batch": 32}) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"measured": 3}', " " * (1 << 17)])
def test_a_damaged_memory_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shared.remember({}, {})
    next(tmp_path.rglob("*.json")).write_text(text)
    assert shared.recall({}) is None


def test_a_home_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ensemble").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shared.remember({}, {"rate": 1.0})
    assert shared.recall({}) is None


def test_ways_are_timed_in_turn_and_the_best_time_counts() -> None:
    order: list[str] = []
    times = {"a": iter([9.0, 3.0, 2.0]), "b": iter([1.0, 5.0, 7.0])}

    def timed(name: str) -> float:
        order.append(name)
        return next(times[name])

    found = shared.fastest_seconds({name: lambda name=name: timed(name) for name in "ab"})
    assert found == {"a": 2.0, "b": 5.0}  # the first pass does not count
    assert order == ["a", "b"] * 3


@pytest.mark.parametrize(("second", "rounds"), [(4.0, 1), (9.5, 1), (8.0, 2), (6.1, 2)])
def test_ways_are_timed_again_only_near_the_limit(second: float, rounds: int) -> None:
    order: list[str] = []

    def timed(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    ways = {"a": lambda: timed("a", 9.0), "b": lambda: timed("b", second)}  # b is taken if it is 1.2 times as fast
    assert shared.fastest_seconds(ways, gain=1.2, warm={"a"}) == {"a": 9.0, "b": second}
    assert order == ["b"] + ["a", "b"] * rounds  # only b is run once before it counts


def test_folded_batch_norms_predict_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    architecture = resolve("test_resnet", (32, 32))
    model = create_model(architecture, 3)
    target = resolve_target("label", ("a", "b", "c"), {})
    pixels = PixelSource(np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8), "cpu")
    predictor, rows = Predictor(model, target, architecture, "cpu"), np.arange(9)
    plain = predictor.logits(pixels, rows, "off", True)
    folded = predictor.logits(pixels, rows, "fused", True)
    assert np.abs(softmax(folded) - softmax(plain)).max() <= 1e-5
    assert not np.array_equal(folded, plain)
    monkeypatch.setattr(predicting, "_EQUAL", -1.0)  # as if they differed by too much
    assert np.array_equal(predictor.logits(pixels, rows, "fused", True), plain)


@pytest.mark.parametrize(
    ("measured", "amp", "said"),
    [
        ({"fp32": 100.0}, "off", "fp32 trains 100 images/s; torch trains in nothing else here (measured)"),
        ({"fp32": 100.0, "fp16": 119.0, "bf16": 90.0}, "off", "nothing else clearly more (fp16 119, bf16 90)"),
        ({"fp32": 100.0, "fp16": 130.0, "bf16": 125.0}, "fp16", "fp16 trains 130 images/s against 100 in fp32"),
        ({"fp32": 100.0, "bf16": 121.0}, "bf16", "bf16 trains 121"),
    ],
)
def test_a_number_format_of_apples_gpu_must_pay(measured: dict[str, float], amp: str, said: str) -> None:
    chosen = choose_number(measured)
    assert chosen == Format(amp, validation="", stored="")
    assert said in chosen.reason


def test_formats_are_measured_on_the_device_if_torch_can_train_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is a stand-in: the CPU by the name that torch gives to it with a number."""
    waited: list[str] = []
    monkeypatch.setattr(formats, "synchronize", waited.append)
    monkeypatch.setattr(formats, "scales_gradients", lambda kind: False)
    monkeypatch.setattr(formats, "computes_in", lambda kind, amp: True)
    found = measure_numbers(resolve("test_resnet", (32, 32)), Recipe(batch_size=2, opt="adamw"), 3, "cpu:0")
    assert set(found) == {"fp32", "bf16"}  # fp16 loses gradients without scaling
    assert all(rate > 0 for rate in found.values())
    assert set(waited) == {"cpu:0"}
