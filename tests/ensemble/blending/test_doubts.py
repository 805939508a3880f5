"""Implausible members and labels are doubted with the likely cause; plausible ones are not."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from ensemble.alignment.split import RunPredictions
from ensemble.blending.agreement import agreement
from ensemble.blending.blend import Blend, make_blend
from ensemble.blending.request import BlendConfig

RUN = RunPredictions("a", (), 3)
N, CLASSES = 240, ("ant", "bee", "cow")
TRUTH = np.random.default_rng(0).integers(0, 3, N)
IDS = [f"im{i}" for i in np.random.default_rng(1).permutation(N)]


def draw(seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(N, 3)) + 2 * np.eye(3)[TRUTH]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def blended(folder: Path, members: dict[str, np.ndarray], labeled: bool = True, truth: np.ndarray = TRUTH) -> Blend:
    for name, values in members.items():
        np.save(folder / f"{name}.npy", values)
    with open(folder / "y.csv", "w", newline="") as file:
        csv.writer(file).writerows([["id", "label"], *([name, CLASSES[c]] for name, c in zip(IDS, truth, strict=True))])
    files = [folder / f"{name}.npy" for name in members]
    classes = None if labeled else CLASSES
    config = BlendConfig(labels=folder / "y.csv" if labeled else None, classes=classes, allow_duplicates=True)
    return make_blend(files, config if labeled else BlendConfig(ids=(folder / "y.csv",), classes=classes))


@pytest.mark.parametrize("labeled", [True, False])
def test_plausible_members_are_not_doubted(tmp_path: Path, labeled: bool) -> None:
    assert not blended(tmp_path, {"a": draw(1), "b": draw(2), "c": draw(3)}, labeled).warnings
    weak = 0.7 / 3 + 0.3 * draw(4)
    assert not blended(tmp_path, {"a": draw(1), "b": draw(2), "weak": weak}, labeled).warnings


@pytest.mark.parametrize("labeled", [True, False])
@pytest.mark.parametrize(
    ("order", "cause"),
    [
        (np.argsort(IDS), "if its rows were in the order of sorted ids"),
        (np.argsort([int(name[2:]) for name in IDS]), "if its rows were in the order of ids sorted by their numbers"),
        (np.arange(N)[::-1], "if its rows were in the order of the reversed ids"),
        (np.random.default_rng(5).permutation(N), "rows or classes in another order, or predicts other samples"),
    ],
)
def test_permuted_rows_are_doubted(tmp_path: Path, labeled: bool, order: np.ndarray, cause: str) -> None:
    (found,) = blended(tmp_path, {"a": draw(1), "b": draw(2), "c": draw(3)[order]}, labeled).warnings
    assert "c.npy" in found
    assert cause in found


@pytest.mark.parametrize("labeled", [True, False])
def test_permuted_classes_are_doubted(tmp_path: Path, labeled: bool) -> None:
    (found,) = blended(tmp_path, {"a": draw(1), "b": draw(2), "c": np.roll(draw(3), 1, axis=1)}, labeled).warnings
    assert "if its classes were in another order: 'ant' is 'cow', 'bee' is 'ant', 'cow' is 'bee'" in found


def test_two_members_that_contradict_each_other_are_doubted_once(tmp_path: Path) -> None:
    order = np.random.default_rng(5).permutation(N)
    (found,) = blended(tmp_path, {"a": draw(1), "b": draw(2)[order]}, labeled=False).warnings
    assert "one of them probably has its rows or classes in another order" in found


def test_members_of_which_most_are_wrong_are_doubted_together(tmp_path: Path) -> None:
    order = np.random.default_rng(5).permutation(N)
    members = {"a": draw(1), "b": draw(2)[order], "c": draw(3)[order[::-1]]}
    (found,) = blended(tmp_path, members, labeled=False).warnings
    assert "no member (test) agrees with the others better than chance" in found


def test_the_truth_among_the_members_is_doubted(tmp_path: Path) -> None:
    (found,) = blended(tmp_path, {"a": draw(1), "b": np.eye(3)[TRUTH]}).warnings
    assert "b.npy (oof) is right in all 240 rows: are its predictions the true labels?" in found


def test_constant_members_and_labels_are_doubted(tmp_path: Path) -> None:
    (found,) = blended(tmp_path, {"a": draw(1), "b": np.full((N, 3), 1 / 3)}).warnings
    assert "b.npy: all rows are equal, as in a sample submission" in found
    made = make_blend(
        [tmp_path / "a.npy"], BlendConfig(labels=_labels(tmp_path / "z.csv", np.zeros(N, int)), classes=CLASSES)
    )
    assert any("all 240 oof labels are 'ant', as in a sample submission" in text for text in made.warnings)


def test_a_class_that_never_occurs_is_doubted(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", draw(1))
    path = _labels(tmp_path / "y.csv", np.where(TRUTH == 2, 0, TRUTH))
    made = make_blend([tmp_path / "a.npy"], BlendConfig(labels=path, classes=CLASSES))
    assert "cow never occurs among the 240 oof labels: check that the classes are right" in made.warnings


def _labels(path: Path, truth: np.ndarray) -> Path:
    path.write_text("id,label\n" + "".join(f"{name},{CLASSES[c]}\n" for name, c in zip(IDS, truth, strict=True)))
    return path


def correct(seed: int, share: float) -> np.ndarray:
    """Return probabilities whose class is right in a share of the rows."""
    rng = np.random.default_rng(seed)
    codes = np.where(rng.permutation(N) < share * N, TRUTH, (TRUTH + rng.integers(1, 3, N)) % 3)
    return 0.1 + 0.7 * np.eye(3)[codes]


def test_a_weak_member_is_not_called_permuted(tmp_path: Path) -> None:
    weak = correct(4, 0.44)
    (found,) = blended(tmp_path, {"a": draw(1), "b": draw(2), "weak": weak}).warnings
    assert "weak.npy" in found
    assert "it is weak, or has its rows or classes in another order" in found
    assert "probably" not in found


def test_rows_of_one_person_are_no_independent_evidence() -> None:
    rng = np.random.default_rng(0)
    people, classes = np.repeat(np.arange(10), 24), np.arange(10) % 3
    reference = np.repeat(classes, 24)
    codes = np.repeat(np.where(np.arange(10) < 6, classes, (classes + 1) % 3), 24)  # right for 6 of 10 people
    alone = agreement(RUN, codes, reference, 3)
    grouped = agreement(RUN, codes, reference, 3, people.astype(str))
    assert grouped.accuracy == alone.accuracy
    assert grouped.standard_error == pytest.approx(alone.standard_error * np.sqrt(24))
    shuffled = agreement(RUN, codes, reference, 3, rng.permutation(240).astype(str))
    assert shuffled.standard_error == alone.standard_error
    assert alone.above_chance
    assert not grouped.above_chance


def test_only_the_permuted_member_is_doubted(tmp_path: Path) -> None:
    for place in range(3):
        members = {name: draw(i + 1) for i, name in enumerate("abc")}
        name = "abc"[place]
        members[name] = np.eye(3)[members[name].argmax(1)][:, [1, 2, 0]] * 0.98 + 0.02 / 3  # it outvotes the others
        (found,) = blended(tmp_path, members, labeled=False).warnings
        assert f"{name}.npy" in found
        assert "if its classes were in another order: 'ant' is 'bee', 'bee' is 'cow', 'cow' is 'ant'" in found
