"""A run has one format for all its folds, decided once: by its record, by what the machine remembers, or by measuring."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.config.sweep import RequestedRecipe
from folds.errors import EnsembleError
from folds.execution.placement import DevicePlan, Execution
from folds.models.checkpoint import load_checkpoint
from folds.models.inference import PixelSource, predict_logits
from folds.runs import run_formats as module
from folds.runs.open import prepare_jobs
from folds.runs.plan import Plan, build_plan
from folds.runs.run_formats import decide_format, decide_formats, formats_line, recorded_amps
from folds.training.job import Job
from folds.training.measured_formats import Format, Rates
from folds.training.trainer import train_fold
from folds.utils.numeric import softmax
from tests.conftest import Logged, start_over

FAST = Rates(True, {"fp32": 10, "bf16": 20, "bf16 contiguous": 30}, {"off": 10, "bf16": 60, "fused": 20})
CHOSEN = Format("bf16", False, False, "bf16", "off")


class Measured:
    """Stands for the measurement, and counts."""

    def __init__(self) -> None:
        self.rates, self.compiled, self.count = FAST, (0.0, 0.0), 0

    def __call__(self, *what: Any) -> Rates:
        self.count += 1
        return self.rates


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measured:
    """A machine with bf16, on which any training is worth measuring, and that remembers nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "has_bf16", lambda: True)
    monkeypatch.setattr(module, "_WORTH_MEASURING", 0)
    made = Measured()
    monkeypatch.setattr(module, "measure", made)
    monkeypatch.setattr(module, "measure_compiled", lambda *what: made.compiled)
    return made


@pytest.fixture
def plan(drawn: Path) -> Callable[..., Plan]:
    """Makes the plan of two folds of a tiny run."""

    def make(
        execution: Execution | None = None,
        sweep: Sequence[dict[str, Any]] = (),
        seeds: int = 1,
        name: str = "run",
        **more: Any,
    ) -> Plan:
        baseline = more.pop("baseline", None)
        recipe = Recipe(**{"epochs": 2, "img_size": "32", "pretrained": False} | more)
        settings = Settings(data=drawn, arch=("test_resnet",), k=3, name=name, seeds=seeds)
        variants = [RequestedRecipe(str(i), replace(recipe, **one)) for i, one in enumerate(sweep)]
        plan = build_plan(settings, recipe, folds=[0, 1], execution=execution, variants=variants, resume=True)
        return replace(plan, runs=tuple(replace(run, baseline=baseline or run.baseline) for run in plan.runs))

    return make


def resolved() -> dict[str, Any]:
    return tomllib.loads(Path("runs/run/config.toml").read_text())["resolved"]


def of(job: Job) -> Format:
    return Format(job.amp, job.channels_last, job.compiled, job.validation, job.stored)


def test_all_folds_have_the_measured_format_also_later(
    measured: Measured, plan: Callable[..., Plan], logged: Logged
) -> None:
    jobs = prepare_jobs(plan())
    assert [of(job) for job in jobs] == [CHOSEN] * 2
    said = "bf16 contiguous trains 30 images/s against 10 in fp32 (measured); validation in bf16, stored predictions in"
    assert any(said in line for line in logged.notes)
    found = {key: resolved()[key] for key in ("amp", "memory_format", "validation", "stored")}
    assert found == {"amp": "bf16", "memory_format": "contiguous", "validation": "bf16", "stored": "off"}
    assert said in resolved()["format"]
    measured.rates = Rates(True, {"fp32": 10}, {"off": 10})  # a resume does not measure, and another folder need not
    assert [of(job) for job in prepare_jobs(plan(), resume=True)] == [CHOSEN] * 2
    shutil.rmtree("runs")
    assert of(prepare_jobs(plan())[0]) == CHOSEN
    assert measured.count == 1
    shutil.rmtree("cache")
    assert decide_format(plan(), plan().runs[0], anew=True) == Format()


def test_a_run_of_an_earlier_version_stays_as_it_was(measured: Measured, plan: Callable[..., Plan]) -> None:
    prepare_jobs(plan())
    path = Path("runs/run/config.toml")
    later = ("memory_format", "validation", "stored", "format")
    lines = [line for line in path.read_text().splitlines() if not line.startswith(later)]
    path.write_text("\n".join(lines).replace('amp = "bf16"', 'amp = "off"'))
    assert of(prepare_jobs(plan(), resume=True)[0]) == Format("off", validation="", stored="")


@pytest.mark.parametrize("line", ['validation = "fp8"', 'memory_format = "rows"', 'compiled = "yes"', "stored = 1"])
def test_a_damaged_record_is_an_error(measured: Measured, plan: Callable[..., Plan], line: str) -> None:
    prepare_jobs(plan())
    path = Path("runs/run/config.toml")
    key = line.split()[0]
    lines = [old for old in path.read_text().splitlines() if not old.startswith(f"{key} =")]
    path.write_text("\n".join([*lines, line, ""]))
    with pytest.raises(EnsembleError, match=f"{key} must be one of"):
        prepare_jobs(plan(), resume=True)


@pytest.mark.parametrize(("amp", "validation"), [("off", "off"), ("bf16", "bf16")])
def test_an_explicit_format_is_not_measured(
    measured: Measured, plan: Callable[..., Plan], amp: str, validation: str
) -> None:
    assert of(prepare_jobs(plan(amp=amp))[0]) == Format(amp, None, False, validation, "off")
    assert measured.count == 0


SLOW = Rates(True, {"fp32": 10, "bf16": 11}, {"off": 10})


@pytest.fixture
def unstable(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> Measured:
    """A machine on which only the first measurement favors bf16."""

    def measure(*what: Any) -> Rates:
        measured.count += 1
        return FAST if measured.count == 1 else SLOW

    monkeypatch.setattr(module, "measure", measure)
    return measured


def test_runs_that_are_compared_have_one_format(unstable: Measured, plan: Callable[..., Plan]) -> None:
    made = plan(sweep=[{"opt": "adamw"}, {"opt": "sgd"}, {"grad_checkpointing": True, "epochs": 1}], seeds=2)
    assert list(decide_formats(made).values()) == [CHOSEN] * 6
    assert [of(job) for job in prepare_jobs(made)] == [CHOSEN] * 12
    assert unstable.count == 1


def test_the_longest_run_decides_for_short_ones(
    measured: Measured, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(sweep=[{"epochs": 1}, {"epochs": 4}])
    work = [module._trained_images(made, run) * 32 * 32 * run.parameters for run in made.runs]
    monkeypatch.setattr(module, "_WORTH_MEASURING", sum(work) / 2)
    assert decide_format(made, made.runs[0]) == Format()  # alone it is too short
    assert set(decide_formats(made).values()) == {CHOSEN}


def test_runs_of_other_batches_may_differ_and_a_line_says_so(
    unstable: Measured, plan: Callable[..., Plan], logged: Logged
) -> None:
    made = plan(sweep=[{"batch_size": 8}, {"batch_size": 8, "lr": 1e-3}, {"batch_size": 16}])
    prepare_jobs(made)
    line = "trained in bf16: run-0, run-1; in fp32: run-2"
    assert line in logged.notes
    assert formats_line(recorded_amps(made.runs)) == line
    assert formats_line(recorded_amps(made.runs[:2])) == ""


def test_what_a_recipe_gives_stays_its_own(measured: Measured, plan: Callable[..., Plan]) -> None:
    found = decide_formats(plan(sweep=[{}, {"channels_last": True}, {"amp": "off"}]))
    assert list(found.values()) == [CHOSEN, replace(CHOSEN, channels_last=None), Format("off", stored="off")]


def test_new_seeds_follow_the_runs_that_were_started(unstable: Measured, plan: Callable[..., Plan]) -> None:
    prepare_jobs(plan())
    shutil.rmtree("cache")  # the next measurement is another one
    made = plan(seeds=2)
    formats = decide_formats(made)
    assert list(formats.values()) == [CHOSEN] * 2
    assert formats["run-s1"].reason == "bf16, as the run run"
    assert list(decide_formats(made, anew=True).values()) == [Format()] * 2


def test_a_run_follows_a_baseline_of_another_command(
    unstable: Measured, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_jobs(plan(batch_size=8))
    assert decide_formats(plan(batch_size=8, name="new", opt="sgd", baseline="run")) == {"new": CHOSEN}
    assert unstable.count == 1
    assert decide_formats(plan(batch_size=16, name="new", baseline="run")) == {"new": Format()}
    monkeypatch.setattr(module, "has_bf16", lambda: False)
    assert decide_formats(plan(batch_size=8, name="new", baseline="run")) == {"new": Format()}


def test_what_cannot_be_measured_is_fp32_with_its_reason(
    measured: Measured, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan()
    run = made.runs[0]

    def broken(*what: Any) -> Rates:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(module, "measure", broken)
    assert decide_format(made, run).reason.endswith("could not be measured: no kernel")
    cluster = replace(made, execution=Execution(backend="ray", address="head:1"))
    cluster = replace(cluster, placement=replace(made.placement, backend="ray"))
    assert "cluster may differ" in decide_format(cluster, run).reason
    monkeypatch.setattr(module, "_WORTH_MEASURING", float("inf"))
    assert "too short" in decide_format(made, run).reason
    monkeypatch.setattr(module, "has_bf16", lambda: False)
    assert "no bf16" in decide_format(made, run).reason
    assert {decide_format(made, run), decide_format(cluster, run)} == {Format()}


def test_a_compiled_run_continues_without_a_compiler(
    measured: Measured, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "has_compiler", lambda: True)
    monkeypatch.setattr(module, "_WORTH_COMPILING", 0.0)
    measured.compiled = (1e9, 0.001)
    assert of(prepare_jobs(plan())[0]).compiled
    monkeypatch.setattr(module, "has_compiler", lambda: False)
    assert not of(prepare_jobs(plan(), resume=True)[0]).compiled
    assert "no C++ compiler" in caplog.text


def test_a_long_training_is_compiled_if_that_pays(
    measured: Measured, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan()
    run = made.runs[0]
    monkeypatch.setattr(module, "has_compiler", lambda: True)
    measured.compiled = (300.0, 1.0)
    assert not decide_format(made, run).compiled  # too short
    monkeypatch.setattr(module, "_WORTH_COMPILING", 0.0)
    assert "compiled 300 images/s, after 1 s" in decide_format(made, run).reason
    measured.compiled = (1e9, 1e9)
    assert decide_format(made, run).compiled  # as remembered
    for compiled in ((30.0 * 1.1, 0.0), (300.0, 1e6), (0.0, 0.0)):  # not clearly faster, too slow to compile, failed
        shutil.rmtree("cache")
        measured.compiled = compiled
        assert decide_format(made, run) == CHOSEN
    monkeypatch.setattr(module, "has_compiler", lambda: False)
    shutil.rmtree("cache")
    measured.compiled = (300.0, 1.0)
    assert decide_format(made, run) == CHOSEN


def test_stored_predictions_are_those_of_full_precision(measured: Measured, plan: Callable[..., Plan]) -> None:
    measured.rates = replace(FAST, predict={"off": 10, "bf16": 60})
    job = prepare_jobs(plan())[0]
    done = train_fold(job)
    assert (done["amp"], job.channels_last) == ("bf16", False)
    checkpoint = load_checkpoint(Path(job.checkpoint))
    model, channels_last = checkpoint.build_on("cpu")
    assert channels_last
    pixels, rows = PixelSource.of(Path(job.pixels), "cpu"), plan().assignment.validation_index(job.fold)
    shape = checkpoint.architecture
    again = softmax(predict_logits(model, pixels, rows, shape.mean, shape.std, device="cpu", channels_last=True)[0])
    stored = np.load(job.fold_dir / "oof.npy")
    assert np.array_equal(stored, again.astype(np.float32))


class Stop(Exception):
    """Stands for a process that is gone."""


@pytest.mark.parametrize("stop_at", [1, 2])
def test_a_resumed_training_in_other_formats_ends_with_the_same_bytes(
    measured: Measured, plan: Callable[..., Plan], stop_at: int
) -> None:
    names = ("oof.npy", "test.npy")
    whole = prepare_jobs(plan(ema=0.9))[0]
    train_fold(whole)
    expected = [(whole.fold_dir / name).read_bytes() for name in names]
    start_over()
    stopped = prepare_jobs(plan(ema=0.9))[0]

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == stop_at:
            raise Stop

    with pytest.raises(Stop):
        train_fold(stopped, stop)
    again = prepare_jobs(plan(ema=0.9), resume=True)[0]
    assert of(again) == CHOSEN
    train_fold(again)
    assert [(again.fold_dir / name).read_bytes() for name in names] == expected


def test_apples_gpu_measures_once_and_keeps_the_usual_memory_format(
    measured: Measured, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def rates(architecture: Any, recipe: Any, outputs: int, device: str) -> dict[str, float]:
        asked.append(device)
        return {"fp32": 100.0, "fp16": 150.0}

    monkeypatch.setattr(module, "measure_numbers", rates)
    monkeypatch.setattr(module, "device_name", lambda device: "Apple M9")

    def on_mac(**recipe: Any) -> Plan:
        return replace(plan(**recipe), placement=DevicePlan(("mps",), 2, ""))

    job = prepare_jobs(on_mac())[0]
    assert of(job) == Format("fp16", channels_last=False, validation="", stored="")
    assert (resolved()["device"], resolved()["amp"], resolved()["memory_format"]) == ("mps", "fp16", "contiguous")
    assert of(prepare_jobs(on_mac(), resume=True)[0]) == of(job)
    shutil.rmtree("runs")
    assert of(prepare_jobs(on_mac())[0]) == of(job)
    assert (asked, measured.count) == (["mps"], 0)
    shutil.rmtree("runs")
    asked_for = prepare_jobs(on_mac(amp="off", channels_last=True))[0]
    assert of(asked_for) == Format("off", None, validation="", stored="")
    monkeypatch.setattr(module, "_WORTH_MEASURING", float("inf"))
    shutil.rmtree("runs")
    made = on_mac()
    assert "too short" in decide_format(made, made.runs[0], anew=True).reason
