"""Runs of which only persons are labeled: every score is one of people, and it is said; made prediction files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble.cli.reports.compare import diff_tables
from folds.config.command_settings import Settings
from folds.config.files import to_toml
from folds.config.recipe import Recipe
from folds.experiments.comparison import compare_runs
from folds.experiments.ledger import append, read_ledger
from folds.experiments.listing import BY_PERSON, list_runs, with_metric
from folds.experiments.record import entry_from_files
from folds.experiments.run_columns import column
from folds.experiments.sites import new_sites
from folds.experiments.summary import summarize_run
from folds.metrics.custom import find_metric, metric_of
from folds.metrics.report import score_predictions
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.predictions.files import PredictionMetadata, SampleRows, oof_file, write_prediction
from folds.predictions.label_columns import label_texts
from folds.runs.results import list_runs as frame_of_runs
from folds.utils.files import write_atomic, write_json

PEOPLE, IMAGES = 16, 3
PERSON = np.arange(PEOPLE * IMAGES) // IMAGES
LEDGER = Path("runs/ledger.jsonl")


def write(name: str, task: str, seed: int, label_of: str | None = "person") -> tuple[np.ndarray, np.ndarray]:
    """Write what a run publishes; return the labels and the mean predictions of people."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(9).integers(0, 2, (PEOPLE, 2)).astype(float)
    values = np.clip(0.3 + 0.4 * truth[PERSON] + rng.normal(0, 0.4, (len(PERSON), 2)), 0.01, 0.99).astype(np.float32)
    names = ("a", "b")
    rows = SampleRows(
        np.arange(len(PERSON)).astype(str),
        label_texts(truth[PERSON], names, task),
        np.char.add("p", PERSON.astype(str)),
    )
    kind = "number" if task == REGRESSION else "probability"
    fold = PERSON % 2
    sidecar = PredictionMetadata(kind, "oof", names, rows, run=name, fold=fold, label_of=label_of, task=task)
    write_prediction(oof_file(Path("runs"), name), values, sidecar)
    resolved = {"table_sha": "t" * 64, "folds_sha": name, "amp": "off", "threads": 1}
    settings = Settings(name=name, k=2, arch=("resnet18",))
    write_atomic(Path("runs", name, "config.toml"), to_toml(settings, Recipe(), resolved).encode())
    for one in (0, 1):
        done = {"checkpoint_sha": f"c{one}", "seconds": 1.0, "images": 8, "epochs": 1, "task": task}
        write_json(Path("runs", name, f"fold{one}", "done.json"), done)
    return truth, values.astype(np.float64).reshape(PEOPLE, IMAGES, 2).mean(axis=1)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("task", "metric"), [(MULTILABEL, "log_loss"), (REGRESSION, "mae")])
def test_the_ledger_the_list_and_the_summary_score_people(task: str, metric: str) -> None:
    truth, means = write("weak", task, 0)
    expected = find_metric(metric)(truth, means)
    entry = entry_from_files("weak")
    assert entry is not None
    assert (entry["oof"]["rows"], entry["oof"]["people"], entry["oof"]["by_person"]) == (PEOPLE, PEOPLE, True)
    assert entry["oof"][metric]["score"] == pytest.approx(expected)
    append(LEDGER, "run", entry)
    ledger = read_ledger(LEDGER)
    assert ledger.damaged == ()
    (one,) = list_runs(ledger)
    assert BY_PERSON in one.flags
    other = "balanced_accuracy" if task == MULTILABEL else "median_ae"  # not in the line: from the predictions
    (again,) = with_metric([one], other)
    assert again.score is not None
    assert again.score["score"] == pytest.approx(find_metric(other)(truth, means))
    done = {fold: {"seconds": 1.0, "task": task} for fold in (0, 1)}
    found = summarize_run("weak", done, 2, metric=metric)
    assert (found.oof.rows, found.oof.interval.value) == (PEOPLE, pytest.approx(expected))
    own = [find_metric(metric)(truth[:, [i]], means[:, [i]]) for i in (0, 1)]
    assert [one.value for one in found.columns.values()] == pytest.approx(own)
    halves = [find_metric(metric)(truth[fold::2], means[fold::2]) for fold in (0, 1)]
    assert found.scores == pytest.approx(halves)


def test_runs_of_images_stay_so() -> None:
    write("plain", MULTILABEL, 0, None)
    entry = entry_from_files("plain")
    assert entry is not None
    assert entry["oof"]["rows"] == len(PERSON)
    assert "by_person" not in entry["oof"]


def test_comparisons_and_sites_score_people_and_say_the_unit() -> None:
    truth, _ = write("a", REGRESSION, 0)
    _, second = write("b", REGRESSION, 1)
    found = compare_runs("a", "b")
    assert (found.rows, found.by_person) == (PEOPLE, True)
    # numbers of 0 and 1 have a mean, and errors of people
    assert found.differences["mae"].second == pytest.approx(find_metric("mae")(truth, second))
    assert f"on {PEOPLE} people" in diff_tables(found, "people" if found.by_person else "images")
    write_json(Path("runs", "b", "folds.json"), {"schema": 1, "k": 2, "leave_out": "site", "names": ["x", "y"]})
    sites = new_sites("b", "a")
    assert (sites.rows, sites.people) == (PEOPLE, PEOPLE)
    assert sites.title.endswith("(lower is better)")
    assert sites.score.value == pytest.approx(find_metric("mae")(truth, second))


def test_a_persons_zero_and_one_numbers_are_averaged_for_any_metric() -> None:
    labels, persons = np.array([[0.0], [1.0], [1.0], [1.0]]), np.array([0, 0, 1, 1])
    values = np.array([[0.5], [0.5], [1.0], [1.0]])

    def error(truth: np.ndarray, predicted: np.ndarray) -> float:
        return float(np.abs(truth - predicted).mean())

    found = score_predictions(labels, values, persons, find_metric("mae"), True, task=REGRESSION)
    assert found.interval.value == 0
    own = score_predictions(labels, values, persons, metric_of(error), True, task=REGRESSION)
    assert own.interval.value == 0
    assert np.isnan(own.accuracy)


def test_lists_name_the_metric_of_the_task() -> None:
    write("numbers", REGRESSION, 0)
    entry = entry_from_files("numbers")
    assert entry is not None
    append(LEDGER, "run", entry | {"test": entry["oof"]})
    (one,) = list_runs(read_ledger(LEDGER))
    title, cell = column("test", [one])
    assert title == "test mean absolute error (lower is better)"
    assert cell(one) == f"{entry['oof']['mae']['score']:.3f}"
    assert column("test_interval", [one])[1](one).startswith("[")
    row = frame_of_runs().iloc[0]
    assert (row["task"], row["metric"], row["score"]) == (REGRESSION, "mae", entry["oof"]["mae"]["score"])
    assert row["low"] < row["score"] < row["high"]
