"""The learning curve over people, and its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from folds.config.recipe import Recipe
from folds.errors import EnsembleError, UsageError
from folds.features.curve_files import write_curve
from folds.features.learning_curve import CurvePoint, LearningCurve, _extrapolated, _point, learning_curve
from folds.metrics.classification import METRICS
from folds.runs.learning_curves import check_learning_curve
from folds.runs.trained_curve import _curve
from folds.splits.assignment import FoldAssignment, read_folds, save_folds
from folds.training.job import Job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A run of 120 people with two images each, and features from which their class can be learned."""
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(120), 2)
    labels = people % 3
    centers = random.normal(size=(3, 24)) * 0.7
    features = (centers[labels] + random.normal(size=(240, 24)) + random.normal(size=(120, 24))[people])[:, None]
    np.save(tmp_path / "features.npy", features.astype(np.float16))
    names = np.array([f"image{i}" for i in range(240)])
    classes = np.array(["a", "b", "c"])
    assignment = FoldAssignment(names, classes[labels], np.array([f"p{one}" for one in people]), people // 3 % 3, 3, 0)
    save_folds(tmp_path / "run" / "folds.csv", assignment)
    return Job(
        run="run",
        fold=0,
        k=3,
        folder=str(tmp_path / "run"),
        checkpoint="",
        pixels="",
        test_pixels=None,
        architecture={},
        recipe=vars(Recipe(features=True)),
        images={},
        data={},
        classes=("a", "b", "c"),
        class_attributes={},
        folds_sha="",
        features={"train": str(tmp_path / "features.npy"), "test": None, "weights": ""},
    )


def test_more_people_give_a_better_score(job: Job, tmp_path: Path) -> None:
    curve = learning_curve(job, shares=(0.125, 0.5, 1.0), draws=2)
    assert [point.people for point in curve.points] == pytest.approx([10, 40, 80], abs=1)
    assert [len(point.scores) for point in curve.points] == [2, 2, 1]
    first, last = curve.points[0], curve.points[-1]
    assert first.score < last.score
    assert all(point.low < point.score < point.high for point in curve.points)
    assert curve.doubled is not None
    assert last.score < curve.doubled[0] < curve.doubled[1] < 1
    assert learning_curve(job, shares=(0.125,), draws=2).points == curve.points[:1]
    path = write_curve(tmp_path / "run", curve)
    assert path.read_text().count("<circle") == 3
    assert json.loads((tmp_path / "run/learning_curve.json").read_text())["points"][0]["score"] == first.score
    assert (tmp_path / "run/learning_curve.csv").read_text().splitlines()[0] == "share,people,images,score,low,high"


def test_curves_of_labeled_persons_are_scored_by_person(job: Job, tmp_path: Path) -> None:
    """Both kinds of curves, of predictions made up: the mean of a person's two images is scored."""
    assignment, random = read_folds(tmp_path / "run" / "folds.csv"), np.random.default_rng(0)
    scored = np.concatenate([assignment.validation_index(fold) for fold in range(3)])
    labels = np.array([job.classes.index(name) for name in assignment.labels.tolist()])
    people = np.unique(assignment.persons)
    truth = np.array([labels[assignment.persons == person][0] for person in people])
    expected, parts = {}, {}
    for share, skill in ((0.25, 0.5), (0.5, 1.0), (1.0, 1.4)):
        values = random.dirichlet(np.ones(3), 240) + skill * random.random((240, 1)) * np.eye(3)[labels]
        values /= values.sum(axis=1, keepdims=True)
        means = np.array([values[assignment.persons == person].mean(axis=0) for person in people])
        expected[share] = METRICS["macro_f1"](truth, means)
        assert expected[share] != METRICS["macro_f1"](labels, values)
        parts[share] = [tmp_path / f"{share}.{fold}.npy" for fold in range(3)]
        for fold, path in enumerate(parts[share]):
            np.save(path, values[assignment.validation_index(fold)])
    about = {"assignment": assignment, "recipe": Recipe(metric="macro_f1"), "name": "run", "runs": tmp_path}
    about["target"] = SimpleNamespace(encode_scored=np.asarray, task="classes")
    run = SimpleNamespace(**about)
    rows = {0.25: 40, 0.5: 80, 1.0: 240}
    learned = {share: [assignment.training_index(fold)[:most] for fold in range(3)] for share, most in rows.items()}
    found = _curve(run, job, parts, learned, True)  # type: ignore[arg-type]
    assert {one.share: one.score for one in found.points} == pytest.approx(expected)
    assert [(one.people, one.images) for one in found.points] == [(20, 40), (40, 80), (80, 160)]
    assert found.doubled is not None
    assert expected[1.0] < found.doubled[0] <= found.doubled[1]
    data = SimpleNamespace(**about, labels=labels, scored=scored, by_person=True)
    draw = [(np.load(path), 80, 160) for path in parts[1.0]]
    point = _point(data, 1.0, [draw])  # type: ignore[arg-type]
    last = found.points[-1]
    assert (point.score, point.low, point.high) == pytest.approx((last.score, last.low, last.high))
    assert (point.people, point.images) == (last.people, last.images) == (80, 160)


def test_heads_learn_changed_labels_and_are_scored_on_those_of_the_table(job: Job, tmp_path: Path) -> None:
    """Two classes are exchanged for the training, so the heads predict each for the other."""
    rows = read_folds(Path(job.folder) / "folds.csv")
    exchanged = {"a": "b", "b": "a", "c": "c"}
    lines = [f"{one},{exchanged[label]}" for one, label in zip(rows.ids.tolist(), rows.labels.tolist(), strict=True)]
    (tmp_path / "trained.csv").write_text("\n".join(["id,label", *lines]) + "\n")
    changed = replace(job, training_labels=str(tmp_path / "trained.csv"), recipe=job.recipe | {"metric": "accuracy"})
    plain = replace(job, recipe=job.recipe | {"metric": "accuracy"})
    (right,), (wrong,) = (learning_curve(one, shares=(1.0,)).points for one in (plain, changed))
    assert right.score > 0.6
    assert wrong.score < 0.45  # class c, a third of the images


def test_heads_do_not_learn_dropped_images(job: Job, tmp_path: Path) -> None:
    rows = read_folds(Path(job.folder) / "folds.csv")
    dropped = rows.ids[np.isin(rows.persons, [f"p{one}" for one in range(30)])].tolist()
    (tmp_path / "dropped.csv").write_text("\n".join(["id", *dropped]) + "\n")
    fewer = replace(job, dropped=str(tmp_path / "dropped.csv"))
    half, whole = learning_curve(fewer, shares=(0.5, 1.0), draws=2).points
    # 30 of 120 people are dropped, as many of each fold; all are scored.
    assert (half.people, half.images, whole.people, whole.images) == (30, 60, 60, 120)
    assert learning_curve(job, shares=(1.0,)).points[0].people == 80


def test_a_curve_that_does_not_rise_is_not_extrapolated() -> None:
    points = [CurvePoint(share, 80 * share, 160 * share, 0.5, 0.4, 0.6, (0.5,)) for share in (0.25, 0.5, 1.0)]
    assert _extrapolated(points, True) is None
    rising = [CurvePoint(one.share, one.people, 1.0, 0.9 - one.people**-0.5, 0.4, 0.9, (0.5,)) for one in points]
    found = _extrapolated(rising, True)
    assert found is not None
    assert found[0] <= 0.9 - 160**-0.5 <= found[1]
    assert "0.5" in str(LearningCurve("run", "accuracy", tuple(points), None).to_dict())


def test_a_curve_needs_features_and_one_target(job: Job) -> None:
    with pytest.raises(EnsembleError, match="are not computed"):
        learning_curve(replace(job, features=None))
    attributes = {"a": {"x": "1", "y": "1"}, "b": {"x": "1", "y": "2"}, "c": {"x": "2", "y": "1"}}
    with pytest.raises(UsageError, match="one target"):
        learning_curve(replace(job, class_attributes=attributes, recipe=job.recipe | {"target": "x+y"}))


@pytest.mark.parametrize(
    ("recipe", "named"), [({"init_run": "other"}, "init_run"), ({"normalise": "data"}, "normalize")]
)
def test_a_curve_needs_the_same_features_for_all_folds(recipe: dict[str, str], named: str) -> None:
    run = SimpleNamespace(name="run", recipe=Recipe(features=True, **recipe), target=SimpleNamespace(joined=False))
    with pytest.raises(UsageError, match=named):
        check_learning_curve(SimpleNamespace(runs=[run]))  # type: ignore[arg-type]
