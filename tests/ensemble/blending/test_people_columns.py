"""A blend for people of several labels, or of numbers, from files to files and to new people."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ensemble as en
from ensemble.blending.recipe import read_recipe
from ensemble.blending.request import BlendConfig
from ensemble.learning.columns.combination import ColumnCombination
from ensemble.pooling.bags import Bags
from ensemble.prediction.combine import combine_members
from folds.errors import EnsembleError, UsageError
from folds.metrics.intervals import interval_over_people
from folds.predictions.files import PredictionMetadata, write_prediction
from folds.predictions.label_columns import label_texts
from folds.predictions.links import kind_of
from folds.predictions.rows import SampleRows

NAMES = ("hat", "beard")
MULTILABEL, REGRESSION = "multilabel", "regression"


def people(task: str, n: int, seed: int, prefix: str) -> dict[str, Any]:
    """Images that show a label differ from their person's; some cells are unknown."""
    random = np.random.default_rng(seed)
    counts = random.integers(1, 5, n)
    codes = np.repeat(np.arange(n), counts)
    shape = (len(codes), 2)
    if task == MULTILABEL:
        labels = (random.random((n, 2)) < 0.5)[codes] * (random.random(shape) < 0.6).astype(float)
        values = [1 / (1 + np.exp(2 - 4 * labels - random.normal(size=shape))) for _ in range(2)]
    else:
        labels = random.normal(40, 10, (n, 2))[codes] + random.normal(size=shape)
        values = [20 + 0.5 * labels + random.normal(size=shape) for _ in range(2)]
    labels[codes % 7 == 3, 0] = np.nan
    persons = np.array([f"{prefix}{i:02d}" for i in range(n)])
    ids = np.array([f"{prefix}{i:03d}.jpg" for i in range(len(codes))])
    rows = SampleRows(ids, label_texts(labels, NAMES, task), persons[codes])
    made = [one.astype(np.float32) for one in values]
    return {"rows": rows, "values": made, "codes": codes, "labels": labels, "persons": persons}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two runs of each task: out-of-fold predictions of 40 people in 5 folds, test predictions of 9 by 2 folds."""
    found = {}
    for task in (MULTILABEL, REGRESSION):
        found[task] = tmp_path_factory.mktemp(task)
        train, test = people(task, 40, 0, "p"), people(task, 9, 1, "q")
        for run in range(2):
            for split, world, fold in (("oof", train, train["codes"] % 5), ("test", test, 0), ("test", test, 1)):
                part = "oof" if split == "oof" else f"fold{fold}.test"
                rows, kind = world["rows"], kind_of(task)
                meaning = PredictionMetadata(kind, split, NAMES, rows, fold=fold, run=f"r{run}", task=task)
                values = world["values"][(run + (1 if isinstance(fold, int) and fold else 0)) % 2]
                write_prediction(found[task] / f"r{run}.{part}.npy", values, meaning, rows)
    return found


def blended(folder: Path, **options: Any) -> en.Blend:
    return en.blend(str(folder / "*.npy"), progress=False, **options)


def by_person(world: dict[str, Any], values: NDArray[Any], how: Any) -> NDArray[np.float64]:
    codes = world["codes"]
    return np.array([how(values[codes == person]) for person in range(codes.max() + 1)])


def any_known(labels: NDArray[np.float64]) -> NDArray[np.float64]:
    known = ~np.isnan(labels)
    return np.where(known.any(axis=0), (labels == 1).any(axis=0), np.nan)


def mean_known(labels: NDArray[np.float64]) -> NDArray[np.float64]:
    known = ~np.isnan(labels)
    return np.where(
        known.any(axis=0), np.where(known, labels, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1), np.nan
    )


@pytest.mark.parametrize(("task", "label"), [(MULTILABEL, any_known), (REGRESSION, mean_known)])
def test_people_are_scored_by_their_own_labels_and_numbers(
    files: dict[str, Path], task: str, label: Any, tmp_path: Path
) -> None:
    train, test = people(task, 40, 0, "p"), people(task, 9, 1, "q")
    made = blended(files[task], pool="max")
    assert made.oof is not None
    assert made.test is not None
    truth = by_person(train, train["labels"], label)
    assert np.isnan(truth).any()
    own = np.mean([by_person(train, one, lambda some: some.max(axis=0)) for one in train["values"]], axis=0)
    assert made.oof.ids.tolist() == train["persons"].tolist()
    np.testing.assert_allclose(made.oof.probabilities, own, rtol=1e-5)
    known = ~np.isnan(truth).all(axis=1)
    expected = interval_over_people(
        made.request.scored, truth[known], own[known].astype(np.float32), np.arange(known.sum())
    )
    assert made.nested is not None
    assert (made.nested.value, made.nested.low) == pytest.approx((expected.value, expected.low), abs=1e-5)
    own = np.mean([by_person(test, one, lambda some: some.max(axis=0)) for one in test["values"]], axis=0)
    np.testing.assert_allclose(made.test.probabilities, own, rtol=1e-5)
    different = sum(np.nanmax(np.ptp(train["labels"][train["codes"] == i], axis=0)) > 0 for i in range(40))
    assert any(f"the images of {different} oof people have different" in note for note in made.notes)
    assert (any("asks for the largest numbers" in one for one in made.warnings)) == (task == REGRESSION)
    folder = made.save("persons", root=tmp_path)
    assert en.read_predictions(folder / "oof.npy").metadata.unit == "person"
    combination = read_recipe(folder / "blend.toml").combination
    assert combination.pooling is not None
    assert combination.pooling.as_record() == {"rule": "max"}


@pytest.mark.parametrize(("task", "rule"), [(MULTILABEL, "log-odds"), (REGRESSION, "learned")])
def test_new_people_are_pooled_and_combined_as_written(
    files: dict[str, Path], task: str, rule: str, tmp_path: Path
) -> None:
    made = blended(files[task], pool=rule, method="greedy")
    assert made.test is not None
    folder, test = made.save("fitted", root=tmp_path), people(task, 9, 1, "q")
    recipe = read_recipe(folder / "blend.toml")
    assert (recipe.task, recipe.combination.runs) == (task, ("r0", "r1"))
    text = (folder / "blend.toml").read_text()
    assert f'task = "{task} of people"' in text  # versions that know no people of this task refuse it
    record = recipe.combination.as_record() | {"task": task}
    with pytest.raises(EnsembleError, match="'pooling' must be there if the task is of people"):
        ColumnCombination.of_record(record, NAMES, "blend.toml")
    arrays = dict(zip(("r0", "r1"), test["values"], strict=True))
    new = made.predict_proba(arrays, groups=test["rows"].persons)
    turned = dict(zip(("r0", "r1"), test["values"][::-1], strict=True))
    other = made.predict_proba(turned, groups=test["rows"].persons)
    assert new.shape == (9, 2)
    # `predict --per person` pools the images of each fold model by itself, as the blend's own test predictions.
    models = [SimpleNamespace(path=Path("x"), sha="", checkpoint=SimpleNamespace(fold=fold)) for fold in (0, 1)]
    of_run = {"models": models, "classes": NAMES, "folds": (0, 1), "joined": (), "hand_over": None}
    runs = [SimpleNamespace(name=name, **of_run) for name in ("r0", "r1")]
    about = {"task": task, "classes": NAMES, "target": "label", "class_attributes": {}, "ranking": ["r0", "r1"]}
    source: Any = SimpleNamespace(runs=runs, combination=recipe.combination, **about)
    values = {f"r{run} {fold}": test["values"][(run + fold) % 2] for run in (0, 1) for fold in (0, 1)}
    predicted = combine_members(source, values, test["rows"])
    np.testing.assert_allclose(predicted, made.test.probabilities, rtol=1e-4)
    combination, bags = recipe.combination, Bags(test["codes"], 9)
    assert combination.pooling is not None
    assert combination.weights is not None
    order = (("r0", (0, 1)), ("r1", (1, 0)))
    pooled = [
        np.mean([combination.pooling.apply(name, test["values"][at], bags) for at in both], axis=0)
        for name, both in order
    ]
    np.testing.assert_allclose(predicted, np.tensordot(combination.weights, pooled, 1), rtol=1e-4)
    assert (other != new).any()
    with pytest.raises(EnsembleError, match="needs the persons of the test samples"):
        made.predict_proba(arrays)


def test_rules_that_make_no_sense_of_numbers_are_refused_by_name() -> None:
    for rule in ("noisy-or", "log-odds:damping=.5"):
        with pytest.raises(UsageError, match=f"pool={rule.split(':')[0]} does not support the task regression"):
            BlendConfig(pool=rule).for_task(REGRESSION)
        assert BlendConfig(pool=rule).for_task(MULTILABEL).pool == rule


def test_thresholds_of_labels_are_fitted_for_people(files: dict[str, Path]) -> None:
    made = blended(files[MULTILABEL], pool="max")
    assert en.decide(made, threshold="macro_f1").unit == "person"  # type: ignore[union-attr]


def test_auto_chooses_a_rule_inside_the_score(files: dict[str, Path]) -> None:
    made = blended(files[REGRESSION], pool="auto")
    assert made.fitted is not None
    assert made.fitted.chosen == "soft, learned"  # the images show a number too near the mean
    assert made.combination is not None
    assert made.combination.pooling is not None
    assert not made.combination.pooling.majority
