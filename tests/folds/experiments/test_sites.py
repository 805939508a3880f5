"""What a new site would see: made prediction files of a run by person and of one that left sites out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folds.config.command_settings import Settings
from folds.config.files import to_toml
from folds.config.recipe import Recipe
from folds.errors import EnsembleError
from folds.experiments.sites import find_new_sites, left_out_by, new_sites
from folds.metrics.classification import METRICS
from folds.metrics.intervals import interval_over_people
from folds.predictions.files import PredictionMetadata, SampleRows, oof_file, read_sidecar, write_prediction
from folds.utils.files import write_atomic, write_json

CLASSES, SITES = ("cat", "dog"), ("berlin", "lyon", "oslo", "porto", "riga", "turin")
N = 360


def rows() -> SampleRows:
    at = np.arange(N)
    return SampleRows(
        np.array([f"i{i:03}" for i in at]),
        np.array(CLASSES)[at // 3 % 2],
        np.array([f"p{i // 3}" for i in at]),
        {"hospital": np.array(SITES)[at // 3 % 6]},
    )


def predictions(right: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    truth = np.arange(N) // 3 % 2
    hit = rng.random(N) < right + 0.1 * rng.normal(size=6)[np.arange(N) // 3 % 6]
    return (np.eye(2)[np.where(hit, truth, 1 - truth)] * 0.8 + 0.1).astype(np.float32)


def write(
    name: str,
    values: np.ndarray,
    fold: np.ndarray,
    recipe: Recipe | None = None,
    kept: np.ndarray | None = None,
    **folds: Any,
) -> None:
    """Write what a run publishes."""
    kept = np.arange(N) if kept is None else kept
    given = PredictionMetadata("probability", "oof", CLASSES, rows().take(kept), fold=fold[kept], run=name)
    write_prediction(oof_file(Path("runs"), name), values[kept], given)
    resolved = {"table_sha": "t" * 64, "folds_sha": name, "amp": "off", "threads": 1}
    settings = Settings(name=name, k=int(fold.max()) + 1, arch=("resnet18",))
    write_atomic(Path("runs", name, "config.toml"), to_toml(settings, recipe or Recipe(), resolved).encode())
    write_json(Path("runs", name, "folds.json"), {"schema": 1, "k": settings.k, "sha": "", **folds})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    person = np.arange(N) // 3
    write("plain", predictions(0.85, 0), person % 5)
    write("balanced", predictions(0.86, 1), person // 6 % 5, group_within="hospital")
    write("other", predictions(0.9, 2), person % 5, Recipe(epochs=3))
    write("left", predictions(0.7, 3), person % 6, leave_out="hospital", names=list(SITES))
    return tmp_path


def test_a_run_that_left_sites_out_stands_beside_the_same_run_by_person(here: Path) -> None:
    (found,) = find_new_sites()
    assert (found.run, found.by_person, found.column, found.k) == ("left", "balanced", "hospital", 5)
    labels, person = np.arange(N) // 3 % 2, np.arange(N) // 3
    metric = METRICS["macro_f1"]
    known = interval_over_people(metric, labels, predictions(0.86, 1), person)
    assert found.known is not None
    assert found.gap is not None
    assert found.known.text() == known.text()
    assert found.score.value == pytest.approx(metric(labels, predictions(0.7, 3)))
    assert found.gap.difference.value == pytest.approx(found.score.value - known.value)
    assert found.score.low < interval_over_people(metric, labels, predictions(0.7, 3), person).low
    text = found.text()
    assert text.startswith(
        f"macro F1: your 5-fold says {known.text()} (balanced), a new hospital would see {found.score.text()}"
    )
    assert "(left; 95% CI over 6 sites and their people); gap -0." in text
    assert found.lines()[1].startswith("single sites, left out: from 0.")
    assert [one.site for one in found.sites] == list(SITES)
    assert "balanced" in str(found.to_dict()["by_person"])
    assert len(found.table().rows) == 6


def test_without_a_run_by_person_the_score_stands_alone_and_the_next_step_is_said(here: Path) -> None:
    write("left", predictions(0.7, 3), np.arange(N) // 3 % 6, Recipe(epochs=9), leave_out="hospital", names=list(SITES))
    (found,) = find_new_sites()
    assert (found.by_person, found.known, found.gap) == (None, None, None)
    assert "your" not in found.text()
    assert "`group_within=hospital`" in found.lines()[-1]
    assert found.to_dict()["gap"] is None


def test_only_results_of_the_named_runs_are_returned(here: Path) -> None:
    assert [one.run for one in find_new_sites(names=["balanced"])] == ["left"]
    assert [one.run for one in find_new_sites(names=["left"])] == ["left"]
    assert find_new_sites(names=["other"]) == []


def test_folds_that_are_not_trained_yet_are_left_out_of_both_scores(here: Path) -> None:
    person = np.arange(N) // 3
    write(
        "left",
        predictions(0.7, 3),
        person % 6,
        kept=np.flatnonzero(person % 6 < 4),
        leave_out="hospital",
        names=list(SITES),
    )
    (found,) = find_new_sites()
    assert found.rows == N * 4 // 6
    assert [one.site for one in found.sites] == list(SITES[:4])
    assert any("compared on the 240 samples" in note for note in found.notes)


def test_scored_by_person_a_person_counts_once(here: Path) -> None:
    (found,) = find_new_sites(per_person=True, metric="accuracy")
    assert (found.rows, found.people, found.metric) == (N // 3, N // 3, "accuracy")
    assert {one.rows for one in found.sites} == {N // 18}


def test_a_run_by_person_is_no_run_of_sites_and_a_damaged_record_is_passed_over(here: Path) -> None:
    assert left_out_by("plain") is None
    with pytest.raises(EnsembleError, match="the folds of plain are not the values of a column"):
        new_sites("plain")
    Path("runs/left/folds.json").write_text("{")
    assert find_new_sites() == []


def test_the_score_at_new_sites_is_that_of_the_positive_class(here: Path) -> None:
    path = oof_file(Path("runs"), "left")
    sidecar = read_sidecar(path)
    assert sidecar is not None
    labels = [{"cat": "positive", "dog": "negative"}[name] for name in np.asarray(sidecar.rows.labels).tolist()]
    told = replace(sidecar, classes=("positive", "negative"), rows=replace(sidecar.rows, labels=np.array(labels)))
    write_prediction(path, np.load(path), told)
    metric, values = METRICS["average_precision"], predictions(0.7, 3)
    truth = (np.arange(N) // 3 % 2 == 0).astype(int)
    assert new_sites("left", metric="average_precision").score.value == pytest.approx(metric(truth, values[:, ::-1]))
