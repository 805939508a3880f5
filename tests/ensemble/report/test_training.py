"""Training: the fold that is off and convergence by their rules, tables, curves, and damaged histories."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.report.evidence.evidence import RunRecord
from ensemble.report.page.blocks import Figure, Missing, Section, Table
from ensemble.report.training.training import fold_off, is_rising, training_section
from tests.ensemble.report.evidence_worlds import draw_evidence
from tests.ensemble.report.section_parts import text_of


def record(
    name: str = "run0",
    k: int = 5,
    epochs: int = 12,
    off: int | None = None,
    pace: float = 2.0,
    config: Mapping[str, Any] | None = None,
    lengths: Sequence[int] | None = None,
) -> RunRecord:
    random = np.random.default_rng(0)
    history = {
        fold: [
            {
                "epoch": float(epoch + 1),
                "loss": math.exp(-epoch / pace) + 0.1 + random.uniform(0, 0.01),
                "lr": 1e-3 * (1 - epoch / epochs),
                "seconds": 2.0 + random.uniform(),
                "validation_macro_f1": 0.8
                - 0.5 * math.exp(-epoch / pace)
                - 0.2 * (fold == off)
                + random.normal(0, 0.004),
            }
            for epoch in range(epochs if lengths is None else lengths[fold])
        ]
        for fold in range(k)
    }
    return RunRecord(name, Path(name), k, history, {}, {"keep": "last", "metric": "macro_f1", **(config or {})})


def section_of(*runs: RunRecord) -> Section:
    return training_section(draw_evidence(runs={run.name: run for run in runs}))


def table(section: Section, name: str) -> dict[Any, dict[str, Any]]:
    found = next(block for block in section.blocks if isinstance(block, Table) and block.name == name)
    return {tuple(row[:2]): dict(zip(found.header, row, strict=True)) for row in found.rows}


def test_a_fold_far_from_the_others_is_off() -> None:
    assert fold_off({0: 0.70, 1: 0.71, 2: 0.69, 3: 0.70, 4: 0.40}) == 4
    assert fold_off({0: 0.70, 1: 0.71, 2: 0.69, 3: 0.70, 4: 0.72}) is None
    assert fold_off({0: 0.70, 1: 0.71, 2: 0.69, 3: 0.70, 4: math.nan}) is None


def test_equal_folds_and_few_folds_are_not_off() -> None:
    assert fold_off({0: 0.700, 1: 0.700, 2: 0.700, 3: 0.700, 4: 0.701}) is None
    assert fold_off({0: 0.7, 1: 0.7, 2: 0.1}) is None
    assert fold_off({}) is None
    assert fold_off({0: 0.7, 1: 0.7, 2: 0.7, 3: 0.7, 4: 0.6}) == 4


def test_the_rule_calls_few_equal_folds_off() -> None:
    random = np.random.default_rng(0)
    called = [fold_off(dict(enumerate(random.normal(0.7, 0.05, 5).tolist()))) is not None for _ in range(600)]
    assert 0.02 <= np.mean(called) <= 0.08  # the level is 5%


def test_a_score_that_grows_until_the_end_has_not_converged() -> None:
    epochs = np.arange(20)
    noise = np.random.default_rng(0).normal(0, 0.003, 20)
    assert is_rising((0.3 + 0.02 * epochs + noise).tolist()) is True
    assert is_rising((0.8 - 0.5 * np.exp(-epochs / 2) + noise).tolist()) is False
    assert is_rising((0.8 - 0.02 * epochs + noise).tolist()) is False
    assert is_rising((1.0 - 0.02 * epochs + noise).tolist(), greater_is_better=False) is True
    assert is_rising((0.3 + 0.02 * epochs[:7]).tolist()) is None
    assert is_rising([math.nan] * 20) is None


def test_noise_without_a_trend_rarely_counts_as_rising() -> None:
    random = np.random.default_rng(0)
    assert np.mean([is_rising(random.normal(0.7, 0.02, 15).tolist()) is True for _ in range(400)]) <= 0.05


def test_the_sections_names_the_fold_and_the_run() -> None:
    section = section_of(record("good"), record("bad", off=3), record("slow", pace=10))
    text, runs = text_of(section), table(section, "training-runs")
    assert runs["good", "5 of 5"]["fold off"] == "none"
    assert runs["bad", "5 of 5"]["fold off"] == "fold 3"
    assert "fold 3 is off" in text
    assert runs["good", "5 of 5"]["converged"] == "yes"
    assert runs["slow", "5 of 5"]["converged"] == "no"
    folds = table(section, "training-folds")
    assert [key for key, row in folds.items() if row["remark"]] == [("bad", 3)]


def test_the_score_is_that_of_the_epoch_that_is_kept() -> None:
    run = record(config={"keep": "best"})
    for one in run.history.values():
        one[4]["validation_macro_f1"] = 0.99  # type: ignore[index]
    folds = table(section_of(run), "training-folds")
    assert {row["validation score"] for row in folds.values()} == {"macro F1 0.990"}
    last = table(section_of(record()), "training-folds")
    assert last["run0", 0]["validation score"] == f"macro F1 {record().history[0][-1]['validation_macro_f1']:.3f}"


def test_there_is_a_curve_of_each_kind_and_one_learning_rate() -> None:
    figures = {one.name: one for one in section_of(record()).blocks if isinstance(one, Figure)}
    assert list(figures) == [f"training-1-{kind}" for kind in ("loss", "score", "rate", "time")]
    assert figures["training-1-loss"].svg.count('class="line s') == 2 * 5  # and in the legend
    assert figures["training-1-rate"].svg.count('class="line s') == 1
    assert figures["training-1-rate"].description == "The same in all folds."


def test_stopped_early_counts_as_converged() -> None:
    run = record(pace=10, config={"patience": 3}, lengths=[12, 9, 12, 12, 12])
    assert table(section_of(run), "training-runs")["run0", "5 of 5"]["converged"] == "yes"


def test_few_folds_and_epochs_are_said_to_be_too_few() -> None:
    section = section_of(record(k=3, epochs=3))
    assert "too few folds to tell" in text_of(section)
    assert "too few epochs to tell" in text_of(section)


def test_another_metric_is_shown_where_the_wanted_one_is_not_recorded() -> None:
    run = record()
    section = training_section(draw_evidence(metric="kappa", runs={"run0": run}))
    assert "validation macro F1" in text_of(section)


@pytest.mark.parametrize(
    "history",
    [
        {},
        {0: []},
        {0: [{}]},
        {0: ["x"]},
        {0: [{"epoch": float("nan")}]},
    ],
)
def test_without_a_history_the_section_says_how_to_get_it(history: Any) -> None:
    run = RunRecord("run0", Path("run0"), 5, history, {}, {})
    section = section_of(run)
    assert [type(block) for block in section.blocks] == [Missing]
    assert [type(block) for block in training_section(draw_evidence()).blocks] == [Missing]


@pytest.mark.parametrize(
    "epoch",
    [
        {"epoch": 1.0},
        {"epoch": 1.0, "loss": float("inf"), "validation_macro_f1": float("nan")},
        {"epoch": 1.0, "loss": "low", "seconds": None, "lr": True},
        {"epoch": 1.0, "loss": 0.0, "validation_macro_f1": 0.5, "lr": 0.0, "seconds": 0.0},
    ],
)
def test_damaged_epochs_are_left_out(epoch: Any) -> None:
    run = RunRecord("run0", Path("run0"), 1, {0: [epoch]}, {}, {"keep": "best"})
    section = section_of(run, record("other"))
    assert "run0: 1 fold" in text_of(section)
    assert all("nan" not in block.svg for block in section.blocks if isinstance(block, Figure))


def test_a_run_of_one_fold_without_history_is_named() -> None:
    empty = RunRecord("imported", Path("imported"), 5, {}, {}, {})
    assert "Without a history of their training: imported." in text_of(section_of(record(), empty))
