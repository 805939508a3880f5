"""Votes on grades: the weighted median by hand, ties, and from files that say that their classes are grades."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ensemble as en
from ensemble.voting.vote import method_for, vote
from folds.errors import EnsembleError, UsageError
from folds.predictions.files import PredictionMetadata, SampleRows, read_sidecar, write_prediction
from tests.ensemble.small_runs import answer_run, probability_run, split_of

GRADES = ("none", "mild", "moderate", "severe")


def test_the_median_wins_by_its_depth() -> None:
    votes = [np.array([grade, other]) for grade, other in ((0, 3), (1, 3), (3, 3))]
    result = vote(split_of(*(answer_run(f"r{i}", one, 4) for i, one in enumerate(votes)), n=2), "grades")
    depth = np.array([1, 2, 1, 1]) / 3  # the smaller of the votes at or below, and at or above
    np.testing.assert_allclose(result.probabilities, [depth / depth.sum(), [0, 0, 0, 1]], atol=1e-6)
    assert result.ties == 0


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_weighted_median_of_the_votes(seed: int) -> None:
    random = np.random.default_rng(seed)
    votes, weights = random.integers(0, 5, (3, 40)), random.integers(1, 4, 3) * 2 - 1  # odd in all: no tie
    weights[0] += 1 - weights.sum() % 2
    runs = [answer_run(f"r{i}", one, 5) for i, one in enumerate(votes)]
    found = vote(split_of(*runs, n=40), "grades", {f"r{i}": float(w) for i, w in enumerate(weights)})
    expected = [int(np.median(np.repeat(votes[:, row], weights))) for row in range(40)]
    assert found.probabilities.argmax(1).tolist() == expected


def test_halves_are_settled_by_the_mean_probability() -> None:
    low, high = np.array([[0.6, 0.3, 0.1, 0.0]]), np.array([[0.0, 0.35, 0.25, 0.4]])
    found = vote(split_of(probability_run("a", low), probability_run("b", high), n=1), "grades")
    assert found.probabilities.argmax() == 1  # between 0 and 3, the most probable
    assert found.ties == 1
    assert method_for("hard", "ordinal") == "grades"
    assert (method_for("hard", "classes"), method_for("soft", "ordinal")) == ("hard", "soft")


def saved(folder: Path, name: str, seed: int, order: tuple[str, ...] = GRADES, task: str = "ordinal") -> Path:
    """Out-of-fold predictions of grades, whose names are not in alphabetical order."""
    random = np.random.default_rng(seed)
    truth = np.random.default_rng(0).integers(0, 4, 60)
    rows = SampleRows(
        np.array([f"i{i:02d}" for i in range(60)]),
        np.array(GRADES)[truth],
        np.array([f"p{i // 3}" for i in range(60)]),
    )
    values = random.dirichlet(np.ones(4), 60) * 0.6 + 0.4 * np.eye(4)[truth]
    columns = [GRADES.index(one) for one in order]
    sidecar = PredictionMetadata("probability", "oof", order, rows, fold=np.arange(60) // 3 % 4, run=name, task=task)
    return write_prediction(folder / f"{name}.oof.npy", values[:, columns].astype(np.float32), sidecar)


def test_files_of_grades_keep_their_order_through_a_blend(tmp_path: Path) -> None:
    files = [saved(tmp_path, name, seed) for seed, name in enumerate("abc", 1)]
    assert '"task": "ordinal"' in files[0].with_suffix(".json").read_text()
    made = en.blend(files, method="hard", metric="quadratic_kappa")
    assert (made.classes, made.method) == (GRADES, "grades")
    folder = made.save("grades", root=tmp_path)
    sidecar = read_sidecar(folder / "oof.npy")
    assert sidecar is not None
    assert (sidecar.task, sidecar.classes) == ("ordinal", GRADES)
    codes = np.stack([np.load(file).argmax(1) for file in files])
    assert np.load(folder / "oof.npy").argmax(1).tolist() == np.median(codes, axis=0).astype(int).tolist()
    report = en.decide(folder / "oof.npy", threshold="rounder")
    assert report.decision.classes == GRADES
    # A member that says nothing about its classes joins those that do.
    mixed = en.blend([files[0], saved(tmp_path, "d", 4, tuple(sorted(GRADES)), "classes")], method="soft")
    assert mixed.classes == GRADES


def test_orders_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    files = [saved(tmp_path, "a", 1), saved(tmp_path, "b", 2, GRADES[::-1])]
    with pytest.raises(EnsembleError, match="have the same grades in different orders"):
        en.blend(files)


def test_classes_without_an_order_have_no_median_and_no_rounder(tmp_path: Path) -> None:
    file = saved(tmp_path, "a", 1, task="classes")
    assert "task" not in file.with_suffix(".json").read_text()
    with pytest.raises(UsageError, match="method=grades needs grades in order"):
        en.blend([file], method="grades")
    with pytest.raises(UsageError, match="threshold=rounder needs grades in order"):
        en.decide(file, threshold="rounder")
