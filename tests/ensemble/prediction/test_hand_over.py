"""Blends in which a number is handed over to grades: new images, exported models and servers; random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ensemble as en
from ensemble.decisions.decision import Decision
from ensemble.export.onnx_pools import CombinationModule
from ensemble.learning.cumulative import NumberToGrades
from ensemble.model_files.reading import read_record
from ensemble.model_files.record import CASCADE, to_text
from ensemble.model_files.record_reading import from_text
from ensemble.pooling.bags import Bags
from ensemble.pooling.pooling import Pooling
from ensemble.prediction.arrays import LoadedModels, columns_difference, numbered
from ensemble.prediction.combine import combine_members, member_key
from ensemble.prediction.models import check_one_task
from ensemble.prediction.source import load_source
from ensemble.serving.load import SourceModel, open_model
from ensemble.serving.model import split_answers
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import ORDINAL, REGRESSION
from folds.models.checkpoint import load_checkpoint, save_checkpoint
from folds.predictions.files import read_array
from tests.ensemble.column_runs import write_run, write_table

TEST = "test.csv"
GRADES = ("0", "1", "2")
AGES = "runs/age.*.npy"


@pytest.fixture(scope="module")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of grades and one of an age, which makes the grades; the blend ``both``, and ``model``, its export."""
    root = tmp_path_factory.mktemp("grades")
    write_table(root)
    for name in ("train.csv", TEST):
        header, *lines = (root / name).read_text().split()
        ages = [float(line.split(",")[4]) for line in lines]
        grades = [max(sum(age > cut for cut in (30, 45)) - at % 3 // 2, 0) for at, age in enumerate(ages)]
        rows = [f"{line},{grade}" for line, grade in zip(lines, grades, strict=True)]
        (root / name).write_text("\n".join([f"{header},grade", *rows, ""]))
    write_run(root, ORDINAL, "grades", names=GRADES, label="grade")
    write_run(root, REGRESSION, "age", names=("age",))
    made = en.blend([root / "runs/grades.*.npy", root / AGES])
    made.save("both", root=root)
    en.export("both", root / "model", root=root)
    return root


@pytest.fixture
def root(_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(_root)
    return _root


def blended(name: str) -> np.ndarray:
    return np.array(read_array(Path(f"runs/blends/{name}/test.npy")))


def test_new_images_get_the_test_predictions_of_the_blend(root: Path) -> None:
    found = en.predict("both", TEST, progress=False, verify=True)
    np.testing.assert_allclose(found.probabilities, blended("both"), atol=1e-6)
    assert found.verification is not None
    assert found.verification.holds
    assert (found.predictions.metadata.task, found.predictions.metadata.kind) == (ORDINAL, "probability")
    assert found.classes == GRADES
    assert found.predictions.labels is not None
    assert found.predictions.labels.tolist() == ["2", "2", "1"]  # the columns of the grades, not those of the number
    assert found.predictions.persons is not None
    # By hand: each model's number through the map, then the folds, then the runs.
    source = load_source("both")
    fit = next(run.hand_over for run in source.runs if run.hand_over is not None)
    ages = [read_array(Path(f"runs/age.fold{i}.test.npy"))[:, 0] for i in range(2)]
    own = [read_array(Path(f"runs/grades.fold{i}.test.npy")) for i in range(2)]
    expected = (np.mean([fit.probabilities(one) for one in ages], axis=0) + np.mean(own, axis=0)) / 2
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert fit.points == pytest.approx([cut / fit.slope for cut in fit.cuts])


def test_each_model_of_a_number_votes_for_a_grade(root: Path) -> None:
    en.blend([Path("runs/grades.*.npy"), Path(AGES)], method="hard").save("hard", force=True)
    np.testing.assert_allclose(en.predict("hard", TEST, progress=False).probabilities, blended("hard"), atol=1e-6)


def test_a_blend_of_the_number_alone_predicts_grades(root: Path) -> None:
    made = en.blend([Path("runs/grades.*.npy"), Path(AGES)], weights="grades=0,age=1")
    made.save("alone", force=True)
    assert made.combination is not None
    assert made.combination.runs == ("age",)
    found = en.predict("alone", TEST, progress=False)
    np.testing.assert_allclose(found.probabilities, blended("alone"), atol=1e-6)
    assert found.predictions.metadata.task == ORDINAL


def test_views_of_the_number_are_merged_before_it_is_handed_over(root: Path) -> None:
    places = {"data": "train.csv", "test": TEST, "device": "cpu", "progress": False}
    en.tta("age", views="hflip", **places)  # type: ignore[arg-type]
    en.blend([Path("runs/grades.*.npy"), Path("runs/tta/age.*.npy")]).save("views", force=True)
    found = en.predict("views", TEST, progress=False)
    assert [len(run.merge.views) for run in found.source.runs if run.hand_over is not None] == [2]
    np.testing.assert_allclose(found.probabilities, blended("views"), atol=1e-6)


def test_models_of_all_people_take_the_map_of_the_folds(root: Path) -> None:
    for name in ("grades", "age"):
        folder = Path("checkpoints") / name
        source = load_source(name)
        shas = {str(model.checkpoint.fold): model.sha for model in source.models}
        refit = {"epochs": 1, "fold_epochs": {"0": 1, "1": 1}, "folds": shas}
        one = load_checkpoint(folder / "fold0.pt")
        save_checkpoint(folder / "all.pt", replace(one, fold=2, refit=refit, validation_hashes=()))
    found = en.predict("both", TEST, refit=True, progress=False)
    fit = next(run.hand_over for run in found.source.runs if run.hand_over is not None)
    age, own = read_array(Path("runs/age.fold0.test.npy"))[:, 0], read_array(Path("runs/grades.fold0.test.npy"))
    np.testing.assert_allclose(found.probabilities, (fit.probabilities(age) + own) / 2, atol=1e-6)


def test_images_of_a_person_are_pooled_as_grades(root: Path) -> None:
    source = load_source("both")
    pooling = Pooling("max", ordered=True)
    people = replace(source, combination=replace(source.combination, pooling=pooling))
    model = SourceModel(people, LoadedModels(people, "cpu"))
    images = [model.decode(Path(f"img/p8_{at}.png").read_bytes(), 10_000) for at in range(3)]
    found = model.combined(model.outputs(images), {}, "p8")
    fit, bags = next(run.hand_over for run in source.runs if run.hand_over is not None), Bags(np.zeros(3, np.int64), 1)
    ages = [fit.probabilities(read_array(Path(f"runs/age.fold{i}.test.npy"))[:, 0]) for i in range(2)]
    own = [np.array(read_array(Path(f"runs/grades.fold{i}.test.npy"))) for i in range(2)]
    alone = {"age": [pooling.apply("age", one, bags) for one in ages]}
    alone["grades"] = [pooling.apply("grades", one, bags) for one in own]
    expected = (np.mean(alone["age"], axis=0) + np.mean(alone["grades"], axis=0)) / 2
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert found.members is not None  # the models of the number too, of which the disagreement is
    of_runs = np.concatenate([alone[run.name] for run in source.runs])
    np.testing.assert_allclose(found.members[:, 0], of_runs[:, 0], atol=1e-6)


def test_an_exported_model_has_the_map(root: Path, tmp_path: Path) -> None:
    loaded = en.load("model")
    np.testing.assert_allclose(loaded.predict_proba(TEST), blended("both"), atol=1e-6)
    assert loaded.task == ORDINAL
    found = en.predict("./model", TEST, progress=False, verify=True)
    np.testing.assert_allclose(found.probabilities, blended("both"), atol=1e-6)
    assert "The number age of age becomes probabilities of the grades" in Path("model/README.md").read_text()
    runs = {run.name: run.hand_over for run in load_source("both").runs}
    assert {run.name: run.hand_over for run in loaded._source.runs} == runs
    again = en.export("./model", tmp_path / "again", half=True)
    assert [run.hand_over for run in again.record.runs] == [run.hand_over for run in loaded.record.runs]
    assert again.record.half_difference < 1e-2  # type: ignore[operator]  # of probabilities, not of years


@pytest.mark.parametrize("method", ["soft", "hard", "geometric"])
def test_a_graph_has_the_map(root: Path, method: str) -> None:
    source = load_source("both")
    source = replace(source, combination=replace(source.combination, pool=method))
    members = {}
    for run in source.runs:
        for model in run.models:
            path = Path(f"runs/{run.name}.fold{model.checkpoint.fold}.test.npy")
            members[member_key(run, model)] = np.array(read_array(path))
    graph = CombinationModule(source)([torch.from_numpy(one).double() for one in members.values()]).numpy()
    np.testing.assert_allclose(graph, combine_members(source, members, numbered(3)), atol=1e-7)


def test_a_server_answers_with_grades_and_counts_every_model(root: Path) -> None:
    model = open_model("both", "cpu", Path())
    answers = model.answer([model.decode(Path("img/p8_0.png").read_bytes(), 10_000)])
    assert answers.members is not None
    assert answers.members.shape == (4, 1, 3)
    np.testing.assert_allclose(answers.members.sum(axis=2), 1, atol=1e-6)
    (one,) = split_answers(answers, model.classes, 1)
    record = one.to_dict()
    np.testing.assert_allclose([record["probabilities"][name] for name in GRADES], blended("both")[0], atol=1e-6)
    assert set(record["uncertainty"]) == {"entropy", "margin", "disagreement"}


def test_differences_of_a_number_are_relative_to_it(root: Path) -> None:
    source = load_source("both")
    stored = np.concatenate([np.full((3, len(run.classes)), 0.25) for run in source.runs for _ in run.models], axis=1)
    at = [len(run.classes) == 1 for run in source.runs for _ in run.models for _ in run.classes]
    stored[:, at] = 50
    changed = stored + np.where(at, 0.5, 0.002)
    assert columns_difference(source, changed, stored) == pytest.approx(0.01)
    assert np.isnan(columns_difference(source, changed * np.nan, stored))


def test_rules_are_fitted_to_the_grades(root: Path) -> None:
    found = en.predict("both", TEST, threshold="0=0.9", progress=False)
    assert isinstance(found.decision, Decision)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"cascade": "exact"}, "a cascade does not support both, whose run age"),
        ({"cascade": 0.01}, "a cascade does not support both, whose run age"),
        ({"precision": "bf16"}, "precision=bf16.*regression"),
        ({"metric": "mae"}, "mae.*ordinal"),
    ],
)
def test_what_a_number_does_not_support_is_refused_by_name(root: Path, given: dict[str, object], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        en.predict("both", TEST, progress=False, **given)  # type: ignore[arg-type]


def test_costs_are_refused_by_name(root: Path) -> None:
    with pytest.raises(UsageError, match="a comparison of costs does not support both, whose run age"):
        en.costs("both")


def test_columns_of_a_changed_file_are_taken_by_name_or_refused(root: Path) -> None:
    source = load_source("both")
    members = {}
    for run in source.runs:
        for model in run.models:
            path = Path(f"runs/{run.name}.fold{model.checkpoint.fold}.test.npy")
            members[member_key(run, model)] = np.array(read_array(path))
    found = combine_members(source, members, numbered(3))
    turned = {key: values[:, ::-1] for key, values in members.items()}
    runs = tuple(run if run.hand_over else replace(run, classes=run.classes[::-1]) for run in source.runs)
    assert (combine_members(replace(source, runs=runs), turned, numbered(3)) == found).all()
    with pytest.raises(EnsembleError, match=r"hands a number to the grades 2, 1, 0, and .*in the order 0, 1, 2"):
        check_one_task(replace(source, classes=GRADES[::-1]))


def test_a_blend_for_people_hands_over_each_image(root: Path, tmp_path: Path) -> None:
    made = en.blend([Path("runs/grades.*.npy"), Path(AGES)], pool="max", metric="quadratic_kappa")
    made.save("people", force=True)
    found = en.predict("people", TEST, per_person=True, threshold="2=0.4", progress=False)
    np.testing.assert_allclose(found.probabilities, blended("people"), atol=1e-6)
    assert found.ids.tolist() == ["p8"]
    assert isinstance(found.decision, Decision)
    assert found.decision.unit == "person"
    en.export("people", tmp_path / "model")
    loaded = en.load(tmp_path / "model")
    images = [Path(f"img/p8_{at}.png") for at in range(3)]
    np.testing.assert_allclose(loaded.predict_proba(images, persons=["p8"] * 3), blended("people"), atol=1e-6)
    model = open_model(tmp_path / "model", "cpu", Path())
    outputs = model.outputs([model.decode(one.read_bytes(), 10_000) for one in images])
    answers = model.combined(outputs, {}, "p8")
    np.testing.assert_allclose(answers.probabilities, blended("people"), atol=1e-6)
    assert answers.members is not None
    assert answers.members.shape == (4, 1, 3)  # the models of the number, too


def test_only_one_number_is_handed_over(root: Path) -> None:
    source = load_source("both")
    plain = replace(source, runs=tuple(replace(run, hand_over=None) for run in source.runs))
    with pytest.raises(EnsembleError, match=r"different tasks \(ordinal, regression\)"):
        check_one_task(plain)
    fit = NumberToGrades(1.0, (30.0, 45.0))
    every = replace(source, runs=tuple(replace(run, hand_over=fit) for run in source.runs))
    with pytest.raises(EnsembleError, match=r"one number of run 'grades' is handed over .* of the task ordinal"):
        check_one_task(every)
    assert plain.sha != source.sha


@pytest.mark.parametrize(
    ("hand_over", "found"),
    [
        ((1.0, 45.0, 30.0), "'hand_over' must be a slope and 2 ascending cuts"),
        ((1.0, 30.0), "'hand_over' must be a slope and 2 ascending cuts"),
        ((), "'task' is None, and that of the models 'ordinal', 'regression'"),
    ],
)
def test_a_record_with_another_map_is_refused(root: Path, hand_over: tuple[float, ...], found: str) -> None:
    record = read_record(Path("model"))
    runs = tuple(replace(run, hand_over=hand_over) if run.hand_over else run for run in record.runs)
    with pytest.raises(EnsembleError, match=found):
        from_text(to_text(replace(record, runs=runs)).encode(), Path("model"))


def test_a_record_that_hands_over_something_else_is_refused(root: Path) -> None:
    record = read_record(Path("model"))
    numbers = next(run for run in record.runs if run.hand_over)
    grades = next(run for run in record.runs if not run.hand_over)
    changed = {
        "models of one number": (replace(grades, hand_over=numbers.hand_over), numbers),
        "'task' is": (replace(numbers, hand_over=(), name="again"), grades, numbers),
        "combined as ordinal": (grades, numbers, replace(numbers, name="again")),
    }
    for found, runs in changed.items():
        with pytest.raises(EnsembleError, match=found):
            from_text(to_text(replace(record, runs=runs)).encode(), Path("model"))
    with pytest.raises(EnsembleError, match="combined as ordinal"):
        from_text(to_text(replace(record, task="classes")).encode(), Path("model"))
    table = {CASCADE: {"steps": []}}
    with pytest.raises(EnsembleError, match=r"is not for a model with \[cascade\]"):
        from_text(to_text(replace(record, extras=table)).encode(), Path("model"))
