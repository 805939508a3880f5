"""A blend for people, from files to files: what it is of, what it writes, and what it refuses."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ensemble as en
from ensemble.blending.recipe import read_recipe, recipe_of, to_text
from ensemble.blending.request import BlendConfig
from ensemble.cli.reports.blend import blend_report
from ensemble.learning.combination import Combination
from folds.errors import EnsembleError, UsageError
from folds.metrics.intervals import interval_over_people
from folds.predictions.files import PredictionMetadata, write_prediction
from folds.predictions.rows import SampleRows

CLASSES = ("no", "yes")


def people(n: int, seed: int, prefix: str) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    counts = random.integers(1, 5, n)
    codes, labels = np.repeat(np.arange(n), counts), (np.arange(n) % 3 == 0).astype(int)
    shows = np.zeros(len(codes))
    shows[(np.cumsum(counts) - counts)[labels == 1]] = 1
    age = np.where(random.random(n) < 0.2, "", np.round(50 + 15 * labels + random.normal(size=n), 1).astype(str))
    site = random.choice(["A", "B"], n)
    persons = np.array([f"{prefix}{i:02d}" for i in range(n)])
    rows = SampleRows(
        np.array([f"{prefix}{i:03d}.jpg" for i in range(len(codes))]),
        np.array(CLASSES)[labels][codes],
        persons[codes],
        {"age": age[codes], "site": site[codes]},
    )
    values = []
    for _ in range(2):
        p = 1 / (1 + np.exp(2 - 3 * shows - random.normal(size=len(codes))))
        values.append(np.stack([1 - p, p], axis=1).astype(np.float32))
    return {"rows": rows, "values": values, "codes": codes, "labels": labels, "persons": persons}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: out-of-fold predictions of 45 people in 5 folds, and test predictions of 12 people by 2 folds."""
    folder = tmp_path_factory.mktemp("runs")
    train, test = people(45, 0, "p"), people(12, 1, "q")
    for run in range(2):
        for split, world, fold in (("oof", train, train["codes"] % 5), ("test", test, 0), ("test", test, 1)):
            part = "oof" if split == "oof" else f"fold{fold}.test"
            meaning = PredictionMetadata("probability", split, CLASSES, world["rows"], fold=fold, run=f"r{run}")
            values = world["values"][(run + (1 if isinstance(fold, int) and fold else 0)) % 2]
            write_prediction(folder / f"r{run}.{part}.npy", values, meaning, world["rows"])
    return folder


def blended(files: Path, **options: Any) -> en.Blend:
    return en.blend(str(files / "*.npy"), progress=False, **options)


def largest(values: NDArray[np.float32], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.array([values[codes == person, 1].max() for person in range(codes.max() + 1)])


def test_a_blend_of_people_is_scored_and_written_by_person(files: Path, tmp_path: Path) -> None:
    train, test = people(45, 0, "p"), people(12, 1, "q")
    made = blended(files, pool="max", metric="log_loss")
    assert made.oof is not None
    assert made.test is not None
    assert made.oof.ids.tolist() == train["persons"].tolist()
    assert made.oof.labels is not None
    assert made.oof.labels.tolist() == np.array(CLASSES)[train["labels"]].tolist()
    own = np.mean([largest(values, train["codes"]) for values in train["values"]], axis=0)
    assert made.oof.probabilities[:, 1] == pytest.approx(own, abs=1e-6)
    expected = interval_over_people(made.request.scored, train["labels"], made.oof.probabilities, np.arange(45))
    assert made.nested is not None
    assert (made.nested.value, made.nested.low) == pytest.approx((expected.value, expected.low), abs=1e-6)
    # Test images: each fold model is pooled by itself, then they are averaged.
    own = np.mean([largest(values, test["codes"]) for values in test["values"]], axis=0)
    assert made.test.probabilities[:, 1] == pytest.approx(own, abs=1e-6)
    folder = made.save("persons", root=tmp_path)
    again = en.read_predictions(folder / "oof.npy")
    assert again.persons is not None
    assert again.persons.tolist() == again.ids.tolist() == train["persons"].tolist()
    combination = read_recipe(folder / "blend.toml").combination
    assert combination.pooling is not None
    assert combination.pooling.as_record() == {"rule": "max"}
    assert [row[0] for row in csv.reader(made.csv().decode().splitlines())][1:] == test["persons"].tolist()


@pytest.mark.parametrize("pool", ["learned", "log-odds"])
def test_a_fitted_rule_is_applied_to_test_people_as_written(files: Path, pool: str, tmp_path: Path) -> None:
    test = people(12, 1, "q")
    made = blended(files, pool=pool, method="simplex", metric="log_loss", runs=["r0", "r1"])
    assert made.test is not None
    recipe = recipe_of(made)
    assert recipe is not None
    path = tmp_path / "blend.toml"
    path.write_text(to_text(recipe, "x"))
    combination = read_recipe(path).combination
    assert combination.pooling is not None
    pooled = []
    for name, order in (("r0", (0, 1)), ("r1", (1, 0))):
        bags = en_bags(test)
        pooled.append(np.mean([combination.pooling.apply(name, test["values"][at], bags) for at in order], axis=0))
    assert combination.weights is not None
    expected = np.einsum("r,rpc->pc", combination.weights / combination.weights.sum(), pooled)
    assert made.test.probabilities == pytest.approx(expected, abs=2e-6)
    assert made.in_sample is not None
    assert any("learned and scored on people" in note for note in made.notes)


def en_bags(world: dict[str, Any]) -> Any:
    from ensemble.pooling.bags import Bags

    return Bags(world["codes"], len(world["persons"]))


def test_nothing_changes_without_the_options(files: Path) -> None:
    plain = blended(files, per_person=True)
    assert plain.oof is not None
    assert len(plain.oof) == len(people(45, 0, "p")["codes"])
    record = plain.record()
    assert "pool" not in record
    assert "pooling" not in record["combination"]
    same, mean = blended(files, per_person=True, metric="log_loss"), blended(files, pool="mean", metric="log_loss")
    assert same.nested is not None
    assert mean.nested is not None
    assert mean.nested.value == pytest.approx(same.nested.value, abs=1e-6)


def test_columns_beside_the_runs_are_used_for_test_people(files: Path) -> None:
    made = blended(files, method="stacking", extra=["age", "site"], pool="max", metric="log_loss")
    without = blended(files, method="stacking", pool="max", metric="log_loss")
    assert made.nested is not None
    assert without.nested is not None
    assert made.nested.value < without.nested.value
    assert made.combination is not None
    assert made.combination.extra is not None
    assert made.combination.extra.names == ("age", "site")
    read = Combination.from_record(made.combination.as_record(), 2, "x")
    test = people(12, 1, "q")
    first = np.unique(test["codes"], return_index=True)[1]
    columns = {name: test["rows"].attributes[name][first] for name in ("age", "site")}
    assert read.extra is not None
    assert read.extra.logits(columns, 12).shape == (12, 2)
    assert any("age (number" in note and "site (category: 2)" in note for note in made.notes)


def test_arrays_have_groups_and_columns() -> None:
    world = people(45, 0, "p")
    arrays = dict(zip("ab", world["values"], strict=True))
    rows = world["rows"]
    extra = {"age": [float(one) if one else None for one in rows.attributes["age"].tolist()]}
    made = en.blend(
        arrays,
        y=rows.labels,
        groups=rows.persons,
        classes=CLASSES,
        pool="max",
        method="stacking",
        extra=extra,
        progress=False,
    )
    new = made.predict_proba(arrays, groups=rows.persons, extra=extra)
    assert new.shape == (45, 2)
    with pytest.raises(EnsembleError, match="needs the persons of the test samples"):
        made.predict_proba(arrays, extra=extra)
    with pytest.raises(EnsembleError, match="uses the column 'age' of the table, and the test samples have no such"):
        made.predict_proba(arrays, groups=rows.persons)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"pool": "maximum"}, "rule of `pool`"),
        ({"pool": "auto", "method": "auto"}, "chooses a rule for one method"),
        ({"pool": "learned", "weights": ".5,.5"}, "takes no `weights`"),
        ({"pool": "learned", "max_members": 1, "method": "greedy"}, "cannot be combined with `max_members`"),
        ({"pool": "auto", "contributions": True}, "`contributions` are not available"),
        ({"extra": ["age"]}, "uses no columns"),
        ({"extra": ["agee"], "method": "stacking"}, "column of `extra`"),
        ({"pool": "max", "by": "attribute"}, "only with `by=class`"),
    ],
)
def test_options_that_do_not_fit_are_refused(files: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as error:
        blended(files, **options)
    assert expected in error.value.message
    assert "\n" not in error.value.message


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_columns_beside_other_tasks_are_refused_by_name(task: str) -> None:
    with pytest.raises(UsageError, match=f"does not support the task {task}"):
        BlendConfig(method="stacking", extra=("age",)).for_task(task)
    BlendConfig().for_task(task)


def test_runs_without_test_persons_are_blended_out_of_fold(files: Path, tmp_path: Path) -> None:
    for path in files.glob("*.npy"):
        found = en.read_predictions(path)
        rows = SampleRows(found.ids, found.labels, found.persons if found.split == "oof" else None)
        fold = found.metadata.fold
        meaning = PredictionMetadata("probability", found.split, CLASSES, rows, fold=fold, run=found.run)
        write_prediction(tmp_path / path.name, found.probabilities, meaning, rows)
    made = blended(tmp_path, pool="max")
    assert list(made.splits) == ["oof"]
    assert any("persons of the test samples are unknown" in note for note in made.notes)


def test_contributions_are_refused_by_the_property_as_by_the_option(files: Path) -> None:
    with pytest.raises(UsageError, match="not available with a rule of pool that is fitted"):
        blended(files, pool="learned").contributions()
    with pytest.raises(UsageError, match="not available with a rule of pool that is fitted"):
        blended(files, pool="learned", contributions=True)


def test_contributions_with_columns_are_of_runs_and_columns(files: Path) -> None:
    made = blended(files, method="stacking", extra=["age"], pool="max", metric="log_loss", contributions=True)
    worth = made.record()["worth"]
    assert [one["name"] for one in worth["columns"]["groups"]] == ["the runs", "age"]
    assert worth["columns"]["method"] == "shapley"
    assert made.nested is not None
    gains = sum(one["gain"]["score"] for one in worth["columns"]["groups"])
    assert gains == pytest.approx(worth["columns"]["empty"] - made.nested.value, abs=1e-6)
    assert worth["refitted"]
    assert worth["pareto"] is None
    assert "the runs" in blend_report(made)
    assert "exact Shapley values" in blend_report(made)


def mixed(folder: Path, classes: tuple[str, ...]) -> list[str]:
    """Write out-of-fold predictions of 30 people with three images each, one of which shows the last class in 10."""
    random = np.random.default_rng(0)
    labels = np.zeros(90, np.int64)
    labels[:30:3] = len(classes) - 1
    codes = np.repeat(np.arange(30), 3)
    rows = SampleRows(
        np.array([f"i{i:02d}" for i in range(90)]), np.array(classes)[labels], np.array([f"p{i:02d}" for i in codes])
    )
    names = []
    for run in range(2):
        values = random.dirichlet(np.ones(len(classes)), 90) + 2 * np.eye(len(classes))[labels]
        meaning = PredictionMetadata("probability", "oof", classes, rows, fold=codes % 5, run=f"m{run}")
        values = (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
        names.append(str(write_prediction(folder / f"m{run}.oof.npy", values, meaning, rows)))
    return names


def test_rules_of_any_image_are_scored_on_people_with_any_positive_image(tmp_path: Path) -> None:
    paths = mixed(tmp_path, CLASSES)
    for pool, positive in (("max", 10), ("noisy-or", 10), ("mean", 0), ("auto", 0)):
        made = en.blend(paths, pool=pool, metric="accuracy", progress=False)
        assert made.oof is not None
        assert made.oof.labels is not None
        assert (made.oof.labels == "yes").sum() == positive
        said = "are yes if any image is, as `pool" if positive else "count with their most frequent one"
        assert any(f"10 oof people have several labels and {said}" in note for note in made.notes)
        assert made.combination is not None
        assert made.combination.pooling is not None
        rule = made.combination.pooling
        assert rule.takes_highest(2) == bool(positive)  # new people are scored with the same labels


def test_without_an_order_a_rule_of_any_image_warns(tmp_path: Path) -> None:
    paths = mixed(tmp_path, ("cat", "dog", "owl"))
    made = en.blend(paths, pool="max", progress=False)
    assert [one for one in made.warnings if "`pool=max` asks whether any image shows a class" in one]
    assert not any("pool" in one for one in en.blend(paths, pool="mean", progress=False).warnings)


def test_rows_that_are_people_are_not_taken_for_images(files: Path, tmp_path: Path) -> None:
    made = blended(files, pool="max")
    folder = made.save("persons", root=tmp_path)
    found = en.read_predictions(folder / "oof.npy")
    assert found.metadata.unit == "person"
    assert made.oof is not None
    assert made.oof.metadata.unit == "person"
    for what in (made, str(folder / "oof.npy")):
        for look in (en.mistakes, en.labels):
            with pytest.raises(UsageError, match="predicts people, each pooled from images"):
                look(what, progress=False)
        report = en.decide(found if what is made else what, threshold="yes=.5")
        assert report.decision.unit == "person"  # type: ignore[union-attr]
    plain = blended(files, per_person=True).save("images", root=tmp_path)
    assert "unit" not in (plain / "oof.json").read_text()
