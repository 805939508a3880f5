from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ensemble
from folds.metrics.classification import METRICS
from folds.metrics.intervals import difference_over_people


def draw(n: int = 300, **skill: float) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Three-class probabilities that are right in a share of the rows, labels, and people of five rows each."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, n)
    runs = {}
    for name, share in skill.items():
        guess = np.where(rng.random(n) < share, y, rng.integers(0, 3, n))
        runs[name] = 0.7 * np.eye(3)[guess] + 0.1
    return runs, y, np.arange(n) // 5


def test_a_plain_vote_is_compared_with_its_best_run() -> None:
    runs, y, people = draw(bad=0.2, good=0.9)
    made = ensemble.blend(runs, y=y, groups=people, weights=[0.9, 0.1], progress=False)
    found = made.over_best_single
    assert found is not None
    assert (found.run, found.split, found.among) == ("good", "oof", 2)
    metric = METRICS["macro_f1"]
    wanted = difference_over_people(metric, y, runs["good"].astype(np.float32), made.votes["oof"].probabilities, people)
    assert found.difference.difference.value == pytest.approx(wanted.difference.value)
    assert "significantly worse: good alone is better" in made.verdict[0]
    assert made.record()["over_best_single"]["run"] == "good"


def test_a_vote_of_equals_is_better_than_each() -> None:
    runs, y, people = draw(n=900, a=0.6, b=0.6, c=0.6)
    made = ensemble.blend(runs, y=y, groups=people, progress=False)
    assert made.verdict[0].startswith("soft vote vs the best single run, ")
    assert made.verdict[0].endswith(", significantly better")
    brier = ensemble.blend(runs, y=y, groups=people, metric="brier", progress=False)
    assert "Brier score" in brier.verdict[0]
    assert brier.verdict[0].endswith(", significantly better")


def test_one_run_or_no_labels_have_no_comparison() -> None:
    runs, y, people = draw(a=0.6, b=0.6)
    assert ensemble.blend({"a": runs["a"]}, y=y, groups=people, progress=False).verdict == []
    assert ensemble.blend(runs, progress=False).over_best_single is None


def test_underconfident_runs_are_named_with_the_way_out() -> None:
    runs, y, people = draw(sure=0.7, unsure=0.9)
    runs["unsure"] = 0.3 * runs["unsure"] + 0.7 / 3
    made = ensemble.blend(runs, y=y, groups=people, progress=False)
    said = next(note for note in made.notes if "underconfident" in note)
    assert said.startswith("underconfident: unsure (mean confidence 0.47, accuracy 0.9")
    assert said.endswith("calibrate the runs first, `calibrate=before:temperature`")
    assert "sure (" not in said.replace("unsure (", "")
    hard = ensemble.blend(runs, y=y, groups=people, method="hard", progress=False)
    calibrated = ensemble.blend(runs, y=y, groups=people, calibrate="before:temperature", progress=False)
    assert not [note for note in [*hard.notes, *calibrated.notes] if "confident" in note]
