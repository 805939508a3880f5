"""Blends of several labels, of numbers, and of a number with grades: from files and arrays to what is written."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ensemble as en
from ensemble.blending.blend import Blend, make_blend
from ensemble.blending.check import check_blend
from ensemble.blending.column_details import ColumnDetails
from ensemble.blending.labeled_predictions import read_labeled_predictions
from ensemble.blending.recipe import read_recipe
from ensemble.blending.request import BlendConfig
from ensemble.cli.reports.blend import blend_report
from ensemble.learning.apply import apply_combination
from ensemble.learning.columns.registry import methods_of
from ensemble.serving.model import Answers, split_answers
from folds.errors import EnsembleError, UsageError
from folds.metrics.tasks import metric_for_task
from folds.predictions.files import PredictionMetadata, SampleRows, read_sidecar, write_prediction
from folds.predictions.links import answers_of
from folds.predictions.predictions import read_predictions
from tests.ensemble.label_worlds import LABELS, labels_of, probabilities_of, write_columns

TRUTH, PERSONS = labels_of(3, 60)
TRUTH[::17, 1] = np.nan
VALUES = probabilities_of(np.nan_to_num(TRUTH), PERSONS, 4, (1.2, 0.8, 0.4))
RANDOM = np.random.default_rng(6)
AGES = RANDOM.normal(40, 10, (60, 1))[PERSONS] + RANDOM.normal(0, 1, (120, 1))
YEARS = np.stack([AGES + RANDOM.normal(i, 4 + 3 * i, AGES.shape) for i in range(2)])
GRADES = ("young", "middle", "old")
CODES = np.digitize(AGES[:, 0], [35, 45])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("columns")
    for i, values in enumerate(VALUES):
        write_columns(made / f"l{i}.oof.npy", values, "multilabel", LABELS, TRUTH, PERSONS)
        write_columns(made / f"l{i}.test.npy", values[:20], "multilabel", LABELS)
    for i, numbers in enumerate(YEARS):
        write_columns(made / f"y{i}.oof.npy", numbers, "regression", ("age",), AGES, PERSONS)
        write_columns(made / f"y{i}.test.npy", numbers[:20], "regression", ("age",))
    p = 0.25 * np.eye(3)[CODES] + 0.75 * RANDOM.dirichlet(np.ones(3), 120)
    for split, rows in (("oof", 120), ("test", 20)):
        ids = np.array([f"{split}{i}" for i in range(rows)])
        labeled = split == "oof"
        persons = np.array([f"p{one}" for one in PERSONS]) if labeled else None
        about = SampleRows(ids, np.array(GRADES)[CODES] if labeled else None, persons)
        meta = PredictionMetadata("probability", split, GRADES, about, run="grades", task="ordinal")
        meta = meta if not labeled else PredictionMetadata(
            "probability", split, GRADES, about, fold=PERSONS % 5, run="grades", task="ordinal"
        )  # fmt: skip
        write_prediction(made / f"grades.{split}.npy", p[:rows], meta)
    return made


def blended(folder: Path, pattern: str, method: str = "soft", **options: Any) -> Blend:
    weights = "l0=.5,l1=.3,l2=.2" if method == "weighted" and pattern[0] == "l" else None
    weights = "y0=.7,y1=.3" if method == "weighted" and pattern[0] == "y" else weights
    return make_blend([folder / pattern], BlendConfig(method, weights=weights, **options))


EVERY = [("l*.npy", name) for name in methods_of("multilabel")] + [
    ("y*.npy", name) for name in methods_of("regression")
]


@pytest.mark.parametrize(("pattern", "method"), EVERY)
def test_every_method_is_scored_written_and_applied(folder: Path, tmp_path: Path, pattern: str, method: str) -> None:
    made = blended(folder, pattern, method)
    task = "multilabel" if pattern[0] == "l" else "regression"
    truth = TRUTH if task == "multilabel" else AGES
    assert made.nested is not None
    assert made.oof is not None
    assert made.test is not None
    assert made.nested.value == pytest.approx(metric_for_task(None, task)(truth, made.oof.probabilities))
    home = made.save("one", root=tmp_path)
    sidecar = read_sidecar(home / "test.npy")
    assert sidecar is not None
    assert (sidecar.task, sidecar.kind) == (task, "probability" if task[0] == "m" else "number")
    recipe = read_recipe(home / "blend.toml")
    assert recipe.task == task
    again = apply_combination(made.splits["test"], recipe.combination).probabilities
    np.testing.assert_allclose(again, made.test.probabilities, rtol=1e-5, atol=1e-5)
    if method != "rank":  # ranks are those among the given samples
        fresh = {
            name: value[:20] for name, value in zip(made.weights, (VALUES if task[0] == "m" else YEARS), strict=True)
        }
        np.testing.assert_allclose(made.predict_proba(fresh), made.test.probabilities, rtol=1e-4, atol=1e-4)


def test_columns_are_aligned_by_name(folder: Path, tmp_path: Path) -> None:
    turned = [2, 0, 1]
    names = tuple(LABELS[i] for i in turned)
    write_columns(tmp_path / "l1.oof.npy", VALUES[1][:, turned], "multilabel", names, TRUTH[:, turned], PERSONS)
    files = [folder / "l0.oof.npy", tmp_path / "l1.oof.npy"]
    made = make_blend(files, BlendConfig())
    expected = make_blend([folder / "l0.oof.npy", folder / "l1.oof.npy"], BlendConfig())
    np.testing.assert_array_equal(made.votes["oof"].probabilities, expected.votes["oof"].probabilities)
    write_columns(tmp_path / "l2.oof.npy", VALUES[1][:, :2], "multilabel", LABELS[:2], TRUTH[:, :2], PERSONS)
    with pytest.raises(EnsembleError, match="different labels: only the first has beard"):
        make_blend([folder / "l0.oof.npy", tmp_path / "l2.oof.npy"], BlendConfig())


def test_logits_become_probabilities_of_each_label(folder: Path, tmp_path: Path) -> None:
    logits = np.log(VALUES[0] / (1 - VALUES[0]))
    path = write_columns(tmp_path / "l0.oof.npy", logits, "multilabel", LABELS, TRUTH, PERSONS, logit=True)
    made = make_blend([path], BlendConfig())
    np.testing.assert_allclose(made.votes["oof"].probabilities, VALUES[0], atol=1e-6)


def test_copies_and_leaks_are_found_as_for_classes(folder: Path, tmp_path: Path) -> None:
    write_columns(tmp_path / "copy.oof.npy", VALUES[0], "multilabel", LABELS, TRUTH, PERSONS)
    made = make_blend([folder / "l0.oof.npy", tmp_path / "copy.oof.npy"], BlendConfig())
    assert list(made.runs) == ["l0"]
    rows = SampleRows(np.array([f"oof{i}" for i in range(120)]), None, np.array([f"p{one}" for one in PERSONS]))
    meta = PredictionMetadata("number", "oof", ("age",), rows, fold=np.arange(120) % 5, run="bad", task="regression")
    write_prediction(tmp_path / "bad.oof.npy", AGES, meta)
    with pytest.raises(EnsembleError, match="is in folds"):
        make_blend([tmp_path / "bad.oof.npy"], BlendConfig())


def test_members_of_different_tasks_are_refused_in_one_line(folder: Path) -> None:
    files = [folder / name for name in ("l0.oof.npy", "y0.oof.npy")]
    with pytest.raises(UsageError, match="members of different tasks are not blended"):
        make_blend(files, BlendConfig())
    with pytest.raises(UsageError, match=r"is of the task ordinal, .* of multilabel"):
        make_blend([folder / "grades.oof.npy", folder / "l0.oof.npy"], BlendConfig())
    with pytest.raises(UsageError, match="task=multilabel, but"):
        make_blend([folder / "y0.oof.npy"], BlendConfig(task="multilabel"))


@pytest.mark.parametrize(
    ("pattern", "options", "message"),
    [
        ("l*.npy", {"method": "nnls"}, "method=nnls does not combine predictions of the task multilabel"),
        ("y*.npy", {"method": "geometric"}, "does not combine predictions of the task regression"),
        ("y*.npy", {"metric": "macro_f1"}, "metric=macro_f1 does not fit task=regression"),
        ("grades*.npy", {"metric": "mae"}, "metric=mae does not fit"),
        ("grades*.npy", {"method": "nnls"}, "method=nnls combines numbers"),
        ("l*.npy", {"max_members": 2}, "max_members does not support the task multilabel"),
        ("l*.npy", {"by": "attribute"}, "by does not support the task multilabel"),
        ("l*.npy", {"positive": "hat"}, "positive does not support the task multilabel"),
        ("y*.npy", {"calibrate": "temperature"}, "calibrate does not support the task regression"),
        (
            "l*.npy",
            {"method": "greedy", "calibrate": "temperature"},
            "method=greedy is not calibrated for each label",
        ),
    ],
)
def test_what_does_not_fit_a_task_is_refused_by_name(
    folder: Path, pattern: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        make_blend([folder / pattern], BlendConfig(**options))
    assert message in str(caught.value)


def test_calibration_is_fitted_for_each_label(folder: Path) -> None:
    sharp = probabilities_of(np.nan_to_num(TRUTH), PERSONS, 4, (1.2, 0.8, 0.4), sharp=6.0)
    given = {"a": sharp[0]}
    about: dict[str, Any] = {
        "y": TRUTH,
        "groups": PERSONS,
        "classes": LABELS,
        "task": "multilabel",
        "metric": "log_loss",
    }
    plain, made = en.blend(given, **about), en.blend(given, calibrate="after:temperature", **about)
    assert made.nested is not None
    assert plain.nested is not None
    assert made.nested.value < plain.nested.value - 0.05
    assert made.weights == pytest.approx(plain.weights)


def test_the_score_of_people_takes_the_means_of_their_images(folder: Path) -> None:
    made = blended(folder, "y0*.npy", per_person=True)
    means = [abs(YEARS[0][one == PERSONS].mean() - AGES[one == PERSONS].mean()) for one in range(60)]
    assert made.nested is not None
    assert made.nested.value == pytest.approx(np.mean(means), rel=1e-5)
    assert blended(folder, "l*.npy", per_person=True, method="greedy").nested is not None


def test_the_breakdown_has_a_row_for_each_label_and_number(folder: Path) -> None:
    made = blended(folder, "l*.npy", detail=True, metric="macro_f1")
    found = made.details["oof"]
    assert isinstance(found, ColumnDetails)
    assert made.nested is not None
    assert np.mean([one.score.value for one in found.columns]) == pytest.approx(made.nested.value)
    glasses = found.columns[1]
    known = ~np.isnan(TRUTH[:, 1])
    assert (glasses.name, glasses.rows, glasses.share) == ("glasses", known.sum(), TRUTH[known, 1].mean())
    assert "out of fold, by label" in blend_report(made)
    numbers = blended(folder, "y*.npy", detail=True)
    (age,) = numbers.record()["details"]["oof"]["columns"]
    of_numbers = numbers.details["oof"]
    assert isinstance(of_numbers, ColumnDetails)
    assert of_numbers.columns[0].score == numbers.nested
    assert age["mean"] - age["true_mean"] == pytest.approx((YEARS.mean(0) - AGES).mean(), abs=1e-5)
    assert "by number" in blend_report(numbers)


def test_the_answers_are_labels_and_numbers(folder: Path) -> None:
    rows = list(csv.reader(io.StringIO(blended(folder, "l*.npy").csv().decode())))
    p = VALUES[:, 0].mean(axis=0)
    expected = ";".join(name for name, value in zip(LABELS, p, strict=True) if value > 0.5) or "-"
    assert rows[0] == ["ImageID", "ans"]
    assert rows[1] == ["test0", expected]
    number = list(csv.reader(io.StringIO(blended(folder, "y*.npy").csv().decode())))
    assert number[0] == ["id", "age"]
    assert float(number[1][1]) == pytest.approx(YEARS[:, 0, 0].mean(), rel=1e-6)
    wide = list(csv.reader(io.StringIO(blended(folder, "l*.npy").csv(form="probabilities").decode())))
    assert wide[0] == ["id", "prob_hat", "prob_glasses", "prob_beard"]
    assert [float(cell) for cell in wide[1][1:]] == pytest.approx(p.tolist(), rel=1e-5)
    named = list(csv.reader(io.StringIO(blended(folder, "l*.npy").csv(columns=["id", "x"]).decode())))
    assert named == [["id", "x"], *rows[1:]]
    with pytest.raises(UsageError, match="form=probabilities is not for the task regression"):
        blended(folder, "y*.npy").csv(form="probabilities")


def test_a_sample_submission_gets_numbers_and_answers(folder: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample.csv"
    sample.write_text("name,years\ntest3,0\ntest1,0\n")
    rows = list(csv.reader(io.StringIO(blended(folder, "y*.npy").csv(like=sample).decode())))
    assert [row[0] for row in rows] == ["name", "test3", "test1"]
    expected = YEARS[:, [3, 1], 0].mean(axis=0)
    assert [float(row[1]) for row in rows[1:]] == pytest.approx(expected.tolist(), rel=1e-6)
    sample.write_text("name,labels\ntest3,-\ntest1,-\n")
    made = blended(folder, "l*.npy")
    answers = dict(csv.reader(io.StringIO(made.csv().decode())))
    rows = list(csv.reader(io.StringIO(made.csv(like=sample).decode())))
    assert rows == [["name", "labels"], ["test3", answers["test3"]], ["test1", answers["test1"]]]


def test_tables_and_arrays_of_others_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    ids = [f"oof{i}" for i in range(120)]
    turned = ["beard", "hat", "glasses"]
    frame = pd.DataFrame({"id": ids} | {f"prob_{name}": VALUES[0][:, LABELS.index(name)] for name in turned})
    frame.sample(frac=1, random_state=0).to_csv("one.csv", index=False)
    np.save("two.npy", VALUES[1][:, [LABELS.index(name) for name in turned]])
    truth = pd.DataFrame({"id": ids, "person": PERSONS} | {name: TRUTH[:, i] for i, name in enumerate(LABELS)})
    truth.to_csv("train.csv", index=False)
    command = ["blend", "one.csv", "two.npy", "--task", "multilabel", "--labels", "train.csv", "--ids", "train.csv"]
    assert call(*command).code == 0
    made = make_blend(
        ["one.csv", "two.npy"],
        BlendConfig(task="multilabel", labels=Path("train.csv"), ids=(Path("train.csv"),), metric="average_precision"),
    )
    order = [made.splits["oof"].classes.index(name) for name in LABELS]
    by_id = dict(zip(made.splits["oof"].rows.ids.tolist(), made.votes["oof"].probabilities[:, order], strict=True))
    np.testing.assert_allclose([by_id[one] for one in ids], VALUES[:2].mean(axis=0), atol=1e-6)
    assert any("columns without names are taken for beard, hat, glasses" in note for note in made.notes)
    truth.fillna(-1).to_csv("uncertain.csv", index=False)
    config = {"labels": Path("uncertain.csv"), "ids": (Path("train.csv"),), "uncertain": "unknown"}
    again = make_blend(["one.csv", "two.npy"], BlendConfig(task="multilabel", **config))  # type: ignore[arg-type]
    assert again.splits["oof"].rows.labels is not None
    assert again.splits["oof"].rows.labels.tolist() == made.splits["oof"].rows.labels.tolist()  # type: ignore[union-attr]
    with pytest.raises(UsageError, match=r"how the table of .?labels.? is read"):
        make_blend(["one.csv"], BlendConfig(uncertain="unknown"))
    found = check_blend(["one.csv"], BlendConfig(task="multilabel", labels=Path("train.csv")))
    assert "3 labels" in found.plan
    assert found.error is None


def test_a_number_in_a_table_joins_by_its_only_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ids = [f"i{i}" for i in range(120)]
    for i, numbers in enumerate(YEARS):
        pd.DataFrame({"id": ids, f"pred{i}": numbers[:, 0]}).to_csv(f"y{i}.csv", index=False)
    pd.DataFrame({"id": ids, "person": PERSONS, "age": AGES[:, 0]}).to_csv("train.csv", index=False)
    request = BlendConfig("nnls", task="regression", labels=Path("train.csv"), metric="rmse")
    made = make_blend(["y0.csv", "y1.csv"], request)
    assert made.classes == ("age",)
    assert made.nested is not None
    assert 2 < made.nested.value < 5


def test_arrays_in_python_have_labels_numbers_and_refusals() -> None:
    given = dict(zip("abc", VALUES, strict=True))
    made = en.blend(given, y=TRUTH, groups=PERSONS, classes=LABELS, task="multilabel", method="greedy")
    assert made.oof is not None
    assert made.oof.metadata.task == "multilabel"
    assert made.classes == LABELS
    framed = en.blend(
        {name: pd.DataFrame(value, columns=LABELS) for name, value in given.items()},
        y=pd.DataFrame(TRUTH[:, ::-1], columns=LABELS[::-1]), groups=PERSONS, task="multilabel", method="greedy",
    )  # fmt: skip
    np.testing.assert_array_equal(framed.oof.probabilities, made.oof.probabilities)  # type: ignore[union-attr]
    numbers = en.blend({"a": YEARS[0][:, 0], "b": YEARS[1]}, y=AGES[:, 0], groups=PERSONS, task="regression")
    assert numbers.oof is not None
    assert numbers.oof.metadata.kind == "number"
    assert numbers.display_table() is not None
    assert len(numbers.methods()) == 1
    assert "<svg" in str(made.display_parts()[0])
    for wrong, message in (
        ({"y": TRUTH + 3}, "y must be 0, 1, or nan"),
        ({"task": "many"}, "unknown task 'many'"),
        ({"task": "ordinal"}, "is stated by its files"),
        ({"classes": ["a"]}, "must be numbers, \\(samples, 1\\)"),
    ):
        with pytest.raises(UsageError, match=message):
            en.blend(given, **({"y": TRUTH, "task": "multilabel"} | wrong))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'a' has 2 in row 0, column 0, expected a probability"):
        en.blend({"a": np.full((4, 2), 2.0)}, task="multilabel")
    with pytest.raises(UsageError, match="cost do not support the task multilabel"):
        made.pareto()


@pytest.mark.parametrize("method", ["soft", "greedy"])
def test_what_a_run_contributes_is_the_score_with_it_minus_without(folder: Path, method: str) -> None:
    for pattern, sign in (("l*.oof.npy", 1), ("y*.oof.npy", -1)):
        made = make_blend([folder / pattern], BlendConfig(method, contributions=True))
        table = made.contributions()
        assert set(table.index) == {run.name for run in made.splits["oof"].runs}
        assert table["weight"].sum() == pytest.approx(1)
        assert "leave-one-out" in blend_report(made)
        if method == "soft":
            values = np.stack(VALUES) if sign > 0 else np.stack(YEARS)
            truth, metric = (TRUTH, "roc_auc") if sign > 0 else (AGES, "mae")
            score = metric_for_task(metric, "multilabel" if sign > 0 else "regression")
            all_runs, rest = score(truth, values.mean(axis=0)), score(truth, values[1:].mean(axis=0))
            assert table["gain"].iloc[0] == pytest.approx(sign * (all_runs - rest), abs=1e-5)
        else:
            assert np.isfinite(table["gain"]).all()
        errors = np.corrcoef((np.stack(YEARS) - AGES)[..., 0])[0, 1]
        if sign < 0:
            assert table["error_correlation"].iloc[0] == pytest.approx(errors, abs=1e-4)


def test_a_number_is_handed_over_to_grades(folder: Path, tmp_path: Path) -> None:
    alone = make_blend([folder / "grades.*.npy"], BlendConfig(metric="quadratic_kappa"))
    files = [folder / "grades.*.npy", folder / "y0.*.npy"]
    made = make_blend(files, BlendConfig("simplex", metric="quadratic_kappa"))
    assert made.nested is not None
    assert alone.nested is not None
    assert made.nested.value > alone.nested.value
    note = next(note for note in made.notes if "handed over" in note)
    assert "cumulative logistic fit, for each person on others" in note
    assert "young, middle, old" in note
    points = made.hand_overs["y0"].points
    assert points == pytest.approx([35, 45], abs=3)
    home = made.save("both", root=tmp_path)
    recipe = read_recipe(home / "blend.toml")
    assert [len(run.hand_over) for run in recipe.runs] == [0, 3]
    grades = np.load(folder / "grades.test.npy")
    fresh = made.predict_proba({"grades": grades, "y0": YEARS[0][:20, 0]})
    np.testing.assert_allclose(fresh, made.test.probabilities, atol=1e-5)  # type: ignore[union-attr]


def test_a_number_is_handed_over_to_the_lower_of_two_grades(folder: Path, tmp_path: Path) -> None:
    """The positive grade is the last column of a blend, also if it is the lower one."""
    two = np.stack([np.load(folder / "grades.oof.npy")[:, 0], np.load(folder / "grades.oof.npy")[:, 1:].sum(1)], axis=1)
    for split, rows in (("oof", 120), ("test", 20)):
        meta = read_sidecar(folder / f"grades.{split}.npy")
        assert meta is not None
        labels = np.where(CODES == 0, "young", "other") if split == "oof" else None
        about = SampleRows(meta.rows.ids, labels, meta.rows.persons)
        made = replace(meta, classes=("young", "other"), rows=about, samples_sha=None)
        write_prediction(tmp_path / f"grades.{split}.npy", two[:rows], made)
    files = [tmp_path / "grades.*.npy", folder / "y0.*.npy"]
    blend = make_blend(files, BlendConfig(positive="young"))
    assert blend.splits["test"].classes == ("other", "young")
    assert blend.test is not None
    fresh = blend.predict_proba({"grades": two[:20, ::-1], "y0": YEARS[0][:20, 0]})
    np.testing.assert_allclose(fresh, blend.test.probabilities, atol=1e-6)
    ascending = make_blend(files, BlendConfig()).hand_overs["y0"]
    assert blend.hand_overs["y0"].points == pytest.approx(ascending.points)
    assert blend.hand_overs["y0"].slope < 0 < ascending.slope


def test_the_grades_of_a_person_do_not_change_their_own_handed_over_number(folder: Path, tmp_path: Path) -> None:
    """The probabilities of a fold come from fits without it: other grades there do not change them."""
    changed = np.where(PERSONS % 5 == 1, 2 - CODES, CODES)
    meta = read_sidecar(folder / "grades.oof.npy")
    assert meta is not None
    rows = SampleRows(meta.rows.ids, np.array(GRADES)[changed], meta.rows.persons)
    other = PredictionMetadata("probability", "oof", GRADES, rows, fold=PERSONS % 5, run="grades", task="ordinal")
    write_prediction(tmp_path / "grades.oof.npy", np.load(folder / "grades.oof.npy"), other)
    inside = np.flatnonzero(PERSONS % 5 == 1)
    found = []
    for path in (folder, tmp_path):
        made = make_blend([path / "grades.oof.npy", folder / "y0.oof.npy"], BlendConfig())
        run = next(one for one in made.splits["oof"].runs if one.name == "y0")
        found.append(run.probabilities(0, 120))
    np.testing.assert_array_equal(found[0][inside], found[1][inside])
    assert not np.allclose(np.delete(found[0], inside, 0), np.delete(found[1], inside, 0))


def test_a_number_without_grades_to_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EnsembleError, match="found none"):
        make_blend([folder / "grades.test.npy", folder / "y0.test.npy"], BlendConfig())
    two = write_columns(tmp_path / "two.oof.npy", np.hstack([AGES, AGES]), "regression", ("age", "size"))
    with pytest.raises(UsageError, match="has 2 numbers"):
        make_blend([folder / "grades.oof.npy", two], BlendConfig())


def test_a_half_is_no_in_scores_and_in_answers(tmp_path: Path) -> None:
    values = np.array([[0.5, 0.9, 0.1], [0.5, 0.5, np.nextafter(np.float32(0.5), np.float32(1))]], np.float32)
    made = make_blend([write_columns(tmp_path / "a.test.npy", values, "multilabel", LABELS)], BlendConfig())
    assert [line.split(",")[1] for line in made.csv().decode().split()[1:]] == ["glasses", "beard"]
    assert answers_of("multilabel", values, LABELS).tolist() == ["glasses", "beard"]
    assert metric_for_task("accuracy", "multilabel")(np.array([[0, 1, 0], [0, 0, 1]]), values) == 1
    for row, there in zip(
        split_answers(Answers(values, task="multilabel"), LABELS, 2), ("glasses", "beard"), strict=True
    ):
        assert row.to_dict()["labels"] == [there]


PAIRS = np.concatenate([YEARS, RANDOM.normal(170, 6, (2, 120, 1)) + 3 * RANDOM.normal(size=(2, 120, 1))], axis=2)
PAIR, TWO = np.concatenate([AGES, PAIRS[0, :, 1:] + RANDOM.normal(0, 2, (120, 1))], axis=1), ("age", "height")


def write_split(home: Path, split: str, task: str, turned: list[int]) -> None:
    """Write the files of one split with the columns in another order."""
    values, names, truth = (VALUES, LABELS, TRUTH) if task == "multilabel" else (PAIRS, TWO, PAIR)
    columns = tuple(names[i] for i in turned)
    for i, one in enumerate(values):
        path = home / f"m{i}.{split}.npy"
        if split == "oof":
            write_columns(path, one[:, turned], task, columns, truth[:, turned], PERSONS)
        else:
            write_columns(path, one[:20][:, turned], task, columns)


@pytest.mark.parametrize(
    ("task", "method"),
    [("regression", "nnls"), ("regression", "stacking"), ("multilabel", "bias"), ("multilabel", "stacking")],
)
def test_a_fit_is_applied_by_the_names_of_the_columns(tmp_path: Path, task: str, method: str) -> None:
    order = [1, 0] if task == "regression" else [2, 0, 1]
    straight = list(range(len(order)))
    made = {}
    for name, columns in (("same", straight), ("turned", order)):
        home = tmp_path / name
        home.mkdir()
        write_split(home, "oof", task, straight)
        write_split(home, "test", task, columns)
        made[name] = make_blend([home / "*.npy"], BlendConfig(method))
    same, turned = made["same"], made["turned"]
    assert same.test is not None
    assert turned.test is not None
    assert turned.test.classes == same.test.classes
    np.testing.assert_array_equal(turned.test.probabilities, same.test.probabilities)
    home = turned.save("turned", root=tmp_path)
    combination = read_recipe(home / "blend.toml").combination
    # Also when a split, or what is given in memory, has another order than the combination.
    split = replace(turned.splits["test"], classes=tuple(turned.classes[i] for i in order))
    runs = [replace(run, parts=tuple(replace(part, columns=None) for part in run.parts)) for run in split.runs]
    again = apply_combination(replace(split, runs=tuple(runs)), combination).probabilities
    np.testing.assert_allclose(again, same.test.probabilities[:, order], rtol=1e-5, atol=1e-5)
    with pytest.raises(EnsembleError, match="cannot be applied to"):
        apply_combination(replace(split, classes=tuple(f"x{i}" for i in order)), combination)
    values, names = (VALUES, LABELS) if task == "multilabel" else (PAIRS, TWO)
    frames = {
        f"m{i}": pd.DataFrame(one[:20][:, order], columns=[names[j] for j in order]) for i, one in enumerate(values)
    }
    np.testing.assert_allclose(made["same"].predict_proba(frames), same.test.probabilities, rtol=1e-5, atol=1e-5)
    given: dict[str, Any] = {name: read_predictions(tmp_path / "turned" / f"{name}.test.npy") for name in frames}
    np.testing.assert_allclose(made["same"].predict_proba(given), same.test.probabilities, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["hard", "stacking", "soft"])
def test_arrays_of_grades_are_combined_in_the_order_of_the_grades(folder: Path, method: str) -> None:
    """Alphabetically, `GRADES` are middle, old, young."""
    made = make_blend([folder / "grades.*.npy", folder / "y0.*.npy"], BlendConfig(method, metric="quadratic_kappa"))
    assert made.test is not None
    assert made.classes == GRADES
    fresh = made.predict_proba({"grades": np.load(folder / "grades.test.npy"), "y0": YEARS[0][:20, 0]})
    np.testing.assert_allclose(fresh, made.test.probabilities, atol=1e-5)
    named = {name: read_predictions(folder / f"{name}.test.npy") for name in ("grades", "y0")}
    np.testing.assert_allclose(made.predict_proba(named), made.test.probabilities, atol=1e-5)


def test_stated_classes_turn_the_grades_of_a_number_too(folder: Path) -> None:
    oof = {name: read_predictions(folder / f"{name}.oof.npy") for name in ("grades", "y0")}
    made = en.blend(oof, method="simplex", metric="quadratic_kappa", classes=GRADES[::-1])
    straight = en.blend(oof, method="simplex", metric="quadratic_kappa")
    grades, number = np.load(folder / "grades.test.npy"), YEARS[0][:20, 0]
    turned = made.predict_proba({"grades": grades[:, ::-1], "y0": number})
    assert made.classes == GRADES[::-1]
    np.testing.assert_allclose(turned[:, ::-1], straight.predict_proba({"grades": grades, "y0": number}), atol=1e-6)


def test_true_values_with_names_of_their_own_are_refused() -> None:
    frames = {"a": pd.DataFrame(VALUES[0], columns=LABELS)}
    with pytest.raises(UsageError, match="y has the columns cap, glasses, beard, the predictions hat"):
        en.blend(frames, y=pd.DataFrame(TRUTH, columns=["cap", "glasses", "beard"]), task="multilabel")


def test_the_members_of_a_blend_with_a_number_are_read_again(folder: Path, tmp_path: Path) -> None:
    made = make_blend([folder / "grades.*.npy", folder / "y0.*.npy"], BlendConfig(metric="quadratic_kappa"))
    made.save("both", root=tmp_path)
    found = read_labeled_predictions(["both"], runs=tmp_path / "runs")
    assert set(found.rows.members) == {"grades", "y0"}
    assert not [note for note in found.notes if "not there any more" in note]
