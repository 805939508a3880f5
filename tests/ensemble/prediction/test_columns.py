"""Several labels and numbers: views, predictions, exported models and servers, of runs with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import ensemble as en
from ensemble.decisions.decision import Decision
from ensemble.decisions.label_decision import LabelDecision, read_decision
from ensemble.decisions.number_decision import DecidedNumbers
from ensemble.decisions.number_report import NumberIntervals
from ensemble.export.onnx_pools import CombinationModule
from ensemble.export.scores import Knowledge
from ensemble.export.write import build_bundle, finished, write_bundle
from ensemble.learning.combination import Combination
from ensemble.model_files.record import to_text
from ensemble.model_files.record_reading import from_text
from ensemble.prediction.arrays import numbered
from ensemble.prediction.combine import combine_members, member_key
from ensemble.prediction.decisions import DecisionOptions, decision_for
from ensemble.prediction.source import PredictionSource, RunModels, load_source
from ensemble.serving.load import open_model
from ensemble.serving.model import split_answers
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.predictions.files import read_array, read_sidecar
from folds.predictions.predictions import mean_of_folds
from folds.utils.numeric import sigmoid
from tests.conftest import Called
from tests.ensemble.column_runs import NAMES, write_run, write_table

RUNS = {MULTILABEL: "labels", REGRESSION: "numbers"}
TEST = "test.csv"
PLACES: dict[str, Any] = {"data": "train.csv", "test": TEST, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def _columns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("columns")
    write_table(root)
    for task, name in RUNS.items():
        write_run(root, task, name)
        write_run(root, task, f"{name}2", seed=1)
    write_run(root, REGRESSION, "age", names=("age",))
    return root


@pytest.fixture
def columns(_columns: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(_columns)
    return _columns


def written(task: str) -> np.ndarray:
    found = mean_of_folds(sorted(Path("runs").glob(f"{RUNS[task]}.fold*.test.npy")))
    assert found is not None
    return found.probabilities


@pytest.mark.parametrize("task", RUNS)
def test_new_images_get_the_mean_of_the_folds(columns: Path, task: str) -> None:
    found = en.predict(RUNS[task], TEST, progress=False, verify=True)
    np.testing.assert_allclose(found.probabilities, written(task), rtol=1e-6)
    assert found.verification is not None
    assert found.verification.holds
    metadata = found.predictions.metadata
    assert (metadata.task, metadata.kind) == (task, "number" if task == REGRESSION else "probability")
    assert found.score is not None
    assert found.score.metric == ("mae" if task == REGRESSION else "roc_auc")
    text = found.display_table().text(100)
    assert "accuracy" not in text
    assert ("highest" if task == REGRESSION else "mean probability") in text
    assert found.to_dict()["task"] == task


def test_the_csv_has_labels_probabilities_or_numbers(columns: Path) -> None:
    labels, numbers = (en.predict(name, TEST, progress=False) for name in RUNS.values())
    first = labels.probabilities[0]
    names = ";".join(name for name, value in zip(labels.classes, first, strict=True) if value > 0.5) or "-"
    assert labels.csv().decode().splitlines()[:2] == ["id,label", f"img/p8_0.png,{names}"]
    assert labels.labels[0] == names
    assert labels.csv("probabilities").decode().splitlines()[0] == "id,prob_hat,prob_glasses"
    cells = numbers.csv().decode().splitlines()
    assert cells[0] == "id,age,weight"
    np.testing.assert_allclose([float(cell) for cell in cells[1].split(",")[1:]], numbers.probabilities[0], rtol=1e-6)
    Path("like.csv").write_text("image,weight,age\np8_2,0,0\np8_0,0,0\n")
    cells = numbers.csv(like="like.csv").decode().splitlines()
    assert cells[0] == "image,weight,age"
    np.testing.assert_allclose(
        [float(cell) for cell in cells[2].split(",")[1:]], numbers.probabilities[0, ::-1], rtol=1e-6
    )
    with pytest.raises(UsageError, match="form=probabilities is not for the task regression"):
        numbers.csv("probabilities")
    with pytest.raises(EnsembleError, match=r"expected one for each number \(age, weight\) after 'image'"):
        numbers.csv(like=_one_column())
    assert labels.csv(like=_one_column()).decode().splitlines()[1] == f"p8_0,{names}"


def _one_column() -> Path:
    Path("one.csv").write_text("image,answer\np8_0,x\n")
    return Path("one.csv")


@pytest.mark.parametrize("task", RUNS)
def test_people_get_the_mean_of_their_images(columns: Path, task: str) -> None:
    found = en.predict(RUNS[task], TEST, per_person=True, progress=False).by_person()
    np.testing.assert_allclose(found.probabilities[0], written(task).mean(axis=0), rtol=1e-6)
    assert found.predictions.labels is not None
    assert found.predictions.labels.tolist() == (["glasses"] if task == MULTILABEL else ["age=60.5;weight=69"])


@pytest.mark.parametrize("task", RUNS)
def test_an_exported_model_keeps_the_task(columns: Path, tmp_path: Path, task: str) -> None:
    made = en.export(RUNS[task], tmp_path / "model")
    assert made.record.task == task
    assert made.record.score["metric"] == ("mae" if task == REGRESSION else "roc_auc")
    loaded = en.load(tmp_path / "model")
    if task == MULTILABEL:
        np.testing.assert_allclose(loaded.predict_proba(TEST), written(task), atol=1e-6)
        assert (loaded.predict(TEST, threshold={"hat": 0.1})[:, 0] == 1).all()
        assert loaded.predict(TEST).tolist() == (written(task) > 0.5).astype(int).tolist()
    else:
        np.testing.assert_allclose(loaded.predict(TEST), written(task), rtol=1e-5)
        with pytest.raises(UsageError, match="no probabilities"):
            loaded.predict_proba(TEST)
    columns_of_frame = loaded.predict_frame(TEST).columns.tolist()
    assert columns_of_frame == ["id", *(["prediction"] if task == MULTILABEL else []), *NAMES[task]]
    card = (tmp_path / "model/README.md").read_text()
    assert "accuracy" not in card
    assert ("Predicts the numbers age, weight" if task == REGRESSION else "for each of 2 labels") in card
    again = en.predict(tmp_path / "model", TEST, progress=False, verify=True)
    assert again.predictions.metadata.task == task
    text = (tmp_path / "model/model.toml").read_text()
    assert f'task = "{task}"' in text


@pytest.mark.parametrize("task", RUNS)
def test_a_server_answers_with_labels_or_numbers(columns: Path, task: str) -> None:
    model = open_model(RUNS[task], "cpu", Path())
    file = Path("img/p8_0.png")
    (one,) = split_answers(model.answer([model.decode(file.read_bytes(), 10_000)]), model.classes, 1)
    record = json.loads(json.dumps(one.to_dict()))
    assert model.describe()["task"] == task
    assert set(record) == (
        {"values", "uncertainty"} if task == REGRESSION else {"labels", "probabilities", "uncertainty"}
    )
    found = record["values" if task == REGRESSION else "probabilities"]
    np.testing.assert_allclose([found[name] for name in NAMES[task]], written(task)[0], rtol=1e-5)
    folds = [read_array(Path(f"runs/{RUNS[task]}.fold{i}.test.npy"))[0] for i in range(2)]
    np.testing.assert_allclose(record["uncertainty"]["spread"], np.std(folds, axis=0).max(), atol=1e-5)


@pytest.mark.parametrize("task", RUNS)
@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"cascade": "exact"}, "a cascade"),
        ({"abstain_label": "open"}, "abstain_label"),
        ({"precision": "bf16"}, "precision=bf16"),
        ({"metric": "quadratic_kappa"}, "metric=quadratic_kappa"),
    ],
)
def test_what_is_for_classes_is_refused_by_name(columns: Path, task: str, given: dict[str, str], what: str) -> None:
    with pytest.raises(UsageError, match=f"{what}.*{task}"):
        en.predict(RUNS[task], TEST, progress=False, **given)  # type: ignore[arg-type]


def between(column: int) -> float:
    """Return a threshold that the lowest of the test predictions of a label does not reach."""
    low, high = np.sort(written(MULTILABEL)[:, column])[:2]
    return round(float(low + high) / 2, 6)


def texts_of(given: np.ndarray) -> list[str]:
    return [";".join(np.array(NAMES[MULTILABEL])[row]) or "-" for row in given]


def test_thresholds_are_those_of_the_out_of_fold_predictions(columns: Path) -> None:
    found = en.predict("labels", TEST, threshold="macro_f1", progress=False)
    expected = en.decide("labels", threshold="macro_f1").decision
    assert isinstance(expected, LabelDecision)
    assert found.decision is not None
    assert found.decision.to_dict() == expected.to_dict()
    assert expected.source.basis == "cross-fitted"
    limits = np.array(expected.thresholds)
    assert (limits != 0.5).all()
    assert found.labels.tolist() == texts_of(found.probabilities >= limits)
    assert read_decision(found.predictions.metadata.decision).to_dict() == expected.to_dict()
    text = found.display_table().text(100)
    assert "a label is given from a probability on: hat" in text
    assert "macro F1 at 0.5" in text
    assert "on the labels of these images" in text
    of_fold = decision_for(load_source("checkpoints/labels/fold1.pt"), Path(), DecisionOptions(threshold="youden"))
    assert isinstance(of_fold, LabelDecision)
    oof = en.read_predictions("runs/labels.oof.npy")
    assert oof.fold is not None
    alone = en.decide(oof.take(oof.fold == 1), threshold="youden").decision
    assert isinstance(alone, LabelDecision)
    assert (of_fold.source.basis, of_fold.source.images) == ("one model", int((oof.fold == 1).sum()))
    assert of_fold.thresholds == alone.thresholds


def test_a_csv_has_the_labels_by_the_thresholds(columns: Path) -> None:
    found = en.predict("labels", TEST, threshold=[f"hat={between(0)}", f"glasses={between(1)}"], progress=False)
    given = found.probabilities >= [between(0), between(1)]
    assert given.sum(axis=0).tolist() == [2, 2]
    lines = [line.split(",") for line in found.csv("decisions").decode().splitlines()]
    assert lines[0] == ["id", "hat", "glasses"]
    assert lines[1:] == [[name, *map(str, row)] for name, row in zip(found.ids.tolist(), given * 1, strict=True)]
    texts = [line.split(",")[1] for line in found.csv().decode().splitlines()[1:]]
    assert texts == texts_of(given)
    Path("two.csv").write_text("image,Glasses,Hat\np8_2,0,0\np8_0,0,0\n")
    cells = found.csv("decisions", like="two.csv").decode().splitlines()
    assert cells == ["image,Glasses,Hat", *(f"p8_{at},{given[at, 1]:d},{given[at, 0]:d}" for at in (2, 0))]
    plain = found.csv(like="two.csv").decode().splitlines()[1].split(",")
    np.testing.assert_allclose([float(cell) for cell in plain[1:]], found.probabilities[2, ::-1], rtol=1e-6)
    assert found.to_dict()["decided"] == {"hat": 2, "glasses": 2}
    assert found.frame()["decision"].tolist() == texts
    with pytest.raises(UsageError, match="form=decisions is not for the task regression"):
        en.predict("age", TEST, progress=False).csv("decisions")


def test_an_exported_model_answers_by_its_thresholds(columns: Path, tmp_path: Path) -> None:
    limit = between(0)
    made = en.export("labels", tmp_path / "model", threshold=f"hat={limit}")
    given = np.stack([written(MULTILABEL)[:, 0] >= limit, written(MULTILABEL)[:, 1] > 0.5], axis=1)
    assert given[:, 0].tolist() != (written(MULTILABEL)[:, 0] > 0.5).tolist()
    loaded = en.load(tmp_path / "model")
    assert isinstance(loaded.decision, LabelDecision)
    assert loaded.predict(TEST).tolist() == (given * 1).tolist()
    assert loaded.decide(TEST).frame()["hat"].tolist() == (given[:, 0] * 1).tolist()
    assert loaded.predict_frame(TEST)["prediction"].tolist() == texts_of(given)
    assert loaded.predict(TEST, threshold=0.999).sum() == 0
    assert en.predict(tmp_path / "model", TEST, progress=False).labels.tolist() == texts_of(given)
    card = (tmp_path / "model/README.md").read_text()
    assert f"from a probability on: hat {limit:.4g}; above 0.5: glasses" in card
    assert "F1 of hat" in card
    model = open_model(tmp_path / "model", "cpu", Path())
    images = [model.decode(Path(f"img/p8_{at}.png").read_bytes(), 10_000) for at in range(3)]
    answers = split_answers(model.answer(images), model.classes, 3)
    assert [";".join(one.to_dict()["labels"]) or "-" for one in answers] == texts_of(given)
    with pytest.raises(EnsembleError, match="is missing"):  # a version that knows only rules of classes
        Decision.from_json(made.record.extras["decision"], made.record.classes)
    of_classes = Decision(made.record.classes, threshold=0.1, error=0.1).to_dict()
    wrong = to_text(replace(made.record, extras={"decision": of_classes}))
    with pytest.raises(EnsembleError, match="is for exclusive classes, and the task is multilabel"):
        from_text(wrong.encode(), tmp_path / "model")


def test_thresholds_for_people_need_their_persons(columns: Path, tmp_path: Path) -> None:
    en.export("labels", tmp_path / "model", threshold=f"hat={between(0)}", per_person=True)
    loaded = en.load(tmp_path / "model")
    with pytest.raises(UsageError, match="rules of labels are for people"):
        loaded.predict(TEST)
    decided = loaded.decide(TEST, persons=["p8"] * 3)
    assert decided.persons is not None
    assert decided.persons.tolist() == ["p8"]
    expected = written(MULTILABEL).astype(float).mean(axis=0) >= [between(0), 0.5]
    assert decided.labels.tolist() == texts_of(expected[None])
    frame = pd.DataFrame({"path": [f"img/p8_{at}.png" for at in range(3)], "person": ["a", "b", "b"]})
    with pytest.raises(UsageError, match="images and persons have different indexes"):
        loaded.decide(frame, frame["person"].sort_index(ascending=False))
    with pytest.raises(UsageError, match="are for people"):
        en.predict(tmp_path / "model", TEST, progress=False)
    server = open_model(tmp_path / "model", "cpu", Path())  # which takes all images of a person
    images = [server.decode(Path(f"img/p8_{at}.png").read_bytes(), 10_000) for at in range(3)]
    (one,) = split_answers(server.combined(server.outputs(images), {}, "p8"), server.classes, 1)
    assert server.needs.of_people
    assert one.to_dict()["labels"] == [name for name, has in zip(NAMES[MULTILABEL], expected, strict=True) if has]
    by_person = en.predict(tmp_path / "model", TEST, per_person=True, progress=False).by_person()
    assert by_person.labels.tolist() == decided.labels.tolist()


def test_without_out_of_fold_predictions_only_given_thresholds_apply(columns: Path, tmp_path: Path) -> None:
    source = replace(load_source("labels"), kind="model")
    with pytest.raises(EnsembleError, match="no out-of-fold predictions") as error:
        decision_for(source, Path(), DecisionOptions(threshold="macro_f1"))
    assert "threshold=LABEL=VALUE" in str(error.value.hint)
    found = decision_for(source, Path(), DecisionOptions(threshold="hat=0.3"), per_person=True)
    assert isinstance(found, LabelDecision)
    assert (found.thresholds, found.unit, found.totals) == ((0.3, 0.5), "person", ())
    with pytest.raises(UsageError, match="with one of the classes hat, glasses"):
        decision_for(source, Path(), DecisionOptions(threshold="scarf=0.3"))


def test_predictions_have_intervals_that_were_fitted_out_of_fold(columns: Path) -> None:
    found = en.predict("numbers", TEST, sets=0.6, progress=False)
    made = en.decide("numbers", sets=0.6)
    assert isinstance(made, NumberIntervals)
    assert found.decision is not None
    assert found.decision.to_dict() == made.decision.to_dict()
    lines = found.csv().decode().splitlines()
    assert lines[0] == "id,age,age_low,age_high,weight,weight_low,weight_high"
    cells = np.array([line.split(",")[1:] for line in lines[1:]], float)
    half = np.array(list(made.limits.values()))
    np.testing.assert_allclose(cells[:, ::3], found.probabilities, rtol=1e-6)
    np.testing.assert_allclose(cells[:, 1::3], found.probabilities - half, rtol=1e-6)
    np.testing.assert_allclose(cells[:, 2::3], found.probabilities + half, rtol=1e-6)
    assert found.csv("numbers").decode().splitlines()[0] == "id,age,weight"
    np.testing.assert_allclose(found.frame()["age_low"], cells[:, 1], rtol=1e-6)
    assert read_decision(found.predictions.metadata.decision).to_dict() == made.decision.to_dict()
    assert "mean width" in found.display_table().text(100)
    by_person = replace(found, decision=replace(found.decision, unit="person")).by_person()
    assert by_person.decided is not None
    with pytest.raises(UsageError, match="form=intervals needs intervals of numbers"):
        replace(found, decision=None).csv("intervals")
    with pytest.raises(UsageError, match="like is for predictions"):
        found.csv("intervals", like="two.csv")


def test_a_blend_has_widths_by_the_spread_of_its_runs_wherever_it_predicts(
    columns: Path, tmp_path: Path, call: Callable[..., Called]
) -> None:
    runs = [*sorted(Path("runs").glob("numbers.*.npy")), *sorted(Path("runs").glob("numbers2.*.npy"))]
    assert call("blend", *map(str, runs), "-o", "widths").code == 0
    rules: dict[str, Any] = {"sets": 0.6, "set_score": "spread"}
    found = en.predict("widths", TEST, progress=False, max_width="weight=0.1", **rules)
    decided = found.decided
    assert isinstance(decided, DecidedNumbers)
    folds = [
        np.stack([read_array(Path(f"runs/{name}.fold{i}.test.npy")) for name in ("numbers", "numbers2")])
        for i in (0, 1)
    ]
    spread = np.mean([one.astype(float).std(axis=0) for one in folds], axis=0)
    decision = decided.decision
    half = np.array(decision.limits) * (spread + np.array(decision.floors))
    np.testing.assert_allclose(decided.high - decided.low, 2 * half, rtol=1e-4)
    assert decided.asked.tolist() == [[False, True]] * 3
    assert found.csv().decode().splitlines()[1].split(",")[4] == ""
    en.export("widths", tmp_path / "model", max_width="weight=0.1", **rules)
    loaded = en.load(tmp_path / "model").decide(TEST)
    assert isinstance(loaded, DecidedNumbers)
    np.testing.assert_allclose(loaded.low, decided.low, rtol=1e-5)
    numbers = en.load(tmp_path / "model", verify=False).predict(TEST)
    np.testing.assert_allclose(numbers, np.where(decided.asked, np.nan, found.probabilities), rtol=1e-5)
    server = open_model(tmp_path / "model", "cpu", Path())
    image = server.decode(Path("img/p8_0.png").read_bytes(), 10_000)
    (one,) = split_answers(server.answer([image]), server.classes, 1)
    answer = one.to_dict()["decision"]
    assert answer["unanswered"] == ["weight"]
    np.testing.assert_allclose(answer["intervals"]["age"]["low"], decided.low[0, 0], rtol=1e-5)


def test_labels_that_stay_open_are_empty_cells(columns: Path) -> None:
    costs = "hat:fn=1,fp=1,ask=0.001;glasses:fn=1,fp=1"
    found = en.predict("labels", TEST, cost_matrix=costs, progress=False)
    cells = [line.split(",") for line in found.csv("decisions").decode().splitlines()[1:]]
    assert [one[1] for one in cells] == ["", "", ""]
    assert [one[2] for one in cells] == [f"{value >= 0.5:d}" for value in found.probabilities[:, 1]]
    assert all("?hat" in text for text in found.labels)
    assert "unsure" in found.display_table().text(100)
    unfit = decision_for(
        replace(load_source("labels"), kind="model"), Path(), DecisionOptions(cost_matrix="hat:fn=3,fp=1")
    )
    assert isinstance(unfit, LabelDecision)
    assert (unfit.thresholds, unfit.lows) == ((0.25, 0.5), (0.25, 0.5))
    with pytest.raises(EnsembleError, match="no out-of-fold predictions"):
        decision_for(replace(load_source("labels"), kind="model"), Path(), DecisionOptions(abstain=0.1))


def test_decide_names_the_command_that_applies_the_thresholds(columns: Path, call: Callable[..., Called]) -> None:
    done = call("decide", "labels", "--threshold", "hat:sensitivity>=.9", "--confidence", "0", "--score-by", "person")
    assert done.code == 0, done.err
    line = done.err.rstrip().splitlines()[-1]
    rules = "--threshold 'hat:sensitivity>=.9' --confidence 0 --per person"
    assert line == f"next: ensemble predict labels IMAGES {rules} --csv answers.csv"
    done = call("decide", "runs/labels.oof.npy", "--threshold", "f1")
    assert (done.code, "next:" in done.err) == (0, False)


def test_a_comparison_of_costs_is_refused_by_name(columns: Path) -> None:
    with pytest.raises(UsageError, match="does not support the task multilabel"):
        en.costs("labels")


@pytest.mark.parametrize("task", RUNS)
def test_views_are_merged_and_scored_by_the_metric_of_the_task(columns: Path, task: str) -> None:
    made = en.tta(RUNS[task], views="hflip", merge="auto", **PLACES)
    metric = "mae" if task == REGRESSION else "roc_auc"
    frame = made.frame()
    assert metric in frame.columns
    assert "accuracy" not in frame.columns
    assert made.gain is not None
    assert "accuracy" not in made.display_table().text(100)
    views = [read_array(Path(f"runs/tta/{RUNS[task]}/views/{name}.oof.npy")) for name in ("none", "hflip")]
    plain = en.read_predictions(f"runs/{RUNS[task]}.oof.npy")
    outputs = views[0] if task == REGRESSION else sigmoid(views[0])
    np.testing.assert_allclose(outputs, plain.probabilities, rtol=1e-5)
    made = en.tta(RUNS[task], views="hflip", **PLACES)
    of_views = views if task == REGRESSION else [sigmoid(one) for one in views]
    np.testing.assert_allclose(made.oof.probabilities, np.mean(of_views, axis=0), rtol=1e-5)
    assert made.oof.metadata.task == task
    assert read_sidecar(Path(f"runs/tta/{RUNS[task]}/views/hflip.oof.npy")).kind == (  # type: ignore[union-attr]
        "number" if task == REGRESSION else "logit"
    )
    assert frame[frame.view == "none"][metric].iloc[0] == pytest.approx(plain.score().value, abs=1e-6)


@pytest.mark.parametrize(
    ("task", "given", "found"),
    [
        (MULTILABEL, {"merge": "classwise"}, "merge=classwise is not for the task multilabel"),
        (MULTILABEL, {"merge": "median"}, "merge=median is not for the task multilabel"),
        (REGRESSION, {"merge": "geometric"}, "merge=geometric is not for the task regression"),
        (REGRESSION, {"adaptive": True}, "adaptive.* does not support the task regression"),
    ],
)
def test_merges_of_other_tasks_are_refused(columns: Path, task: str, given: dict[str, str], found: str) -> None:
    with pytest.raises(UsageError, match=found):
        en.tta(RUNS[task], progress=False, **given)  # type: ignore[arg-type]


METHODS = [(MULTILABEL, name) for name in ("geometric", "hard", "stacking")]
METHODS += [(REGRESSION, name) for name in ("median", "stacking")]


@pytest.mark.parametrize(("task", "method"), METHODS)
def test_a_blend_predicts_its_own_test_predictions_also_as_a_graph(
    columns: Path, tmp_path: Path, task: str, method: str
) -> None:
    files = sorted(Path("runs").glob(f"{RUNS[task]}*.npy"))
    made = en.blend([*files], method=method)
    name = f"{task}-{method}"
    made.save(name)
    found = en.predict(name, TEST, progress=False)
    assert made.test is not None
    np.testing.assert_allclose(found.probabilities, made.test.probabilities, atol=1e-6, rtol=1e-6)
    assert found.predictions.metadata.task == task
    en.export(name, tmp_path / "model")
    source = load_source(tmp_path / "model")
    assert source.task == task
    members = {}
    for run in source.runs:
        for model in run.models:
            path = Path(f"runs/{run.name}.fold{model.checkpoint.fold}.test.npy")
            members[member_key(run, model)] = np.array(read_array(path))
    expected = combine_members(source, members, numbered(3))
    graph = CombinationModule(source)([torch.from_numpy(one).double() for one in members.values()]).numpy()
    np.testing.assert_allclose(graph, expected, rtol=1e-6)
    np.testing.assert_allclose(expected, made.test.probabilities, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("recipe", "positive", "task"), [({}, "y", "binary"), ({"task": "classes"}, None, "classes")])
def test_an_export_keeps_what_was_said_about_two_classes(
    columns: Path, tmp_path: Path, recipe: dict[str, str], positive: str | None, task: str
) -> None:
    run = load_source("labels").runs[0]
    models = [replace(one, checkpoint=replace(one.checkpoint, recipe=recipe, classes=("x", "y"))) for one in run.models]
    runs = (RunModels("r", tuple(models), ("x", "y")),)
    source = PredictionSource("b", "blend", ("x", "y"), "label", Combination(("r",)), runs, positive=positive)
    write_bundle(finished(build_bundle(source, Knowledge())), tmp_path / "model")
    for one in (source, load_source(tmp_path / "model")):
        assert (one.task, one.exclusive) == (task, task == "classes")
    found = en.predict(tmp_path / "model", ["img/p8_0.png"], progress=False).predictions.metadata
    assert (found.task, found.exclusive) == (task, task == "classes")


def test_a_record_of_another_task_than_its_models_is_refused(columns: Path, tmp_path: Path) -> None:
    made = en.export("labels", tmp_path / "model").record
    text = to_text(replace(made, task="regression"))
    with pytest.raises(EnsembleError, match="'task' is 'regression', and that of the models 'multilabel'"):
        from_text(text.encode(), tmp_path / "model")
    turned = tuple(replace(run, classes=run.classes[::-1]) for run in made.runs)
    with pytest.raises(EnsembleError, match="'classes' are not those of the model, in their order"):
        from_text(to_text(replace(made, runs=turned)).encode(), tmp_path / "model")


def test_a_single_number_is_one_column(columns: Path, tmp_path: Path) -> None:
    found = en.predict("age", TEST, progress=False)
    assert found.csv().decode().splitlines()[0] == "id,age"
    assert found.csv(like=_one_column()).decode().splitlines()[0] == "image,answer"
    loaded = en.load(en.export("age", tmp_path / "model").path)
    np.testing.assert_allclose(loaded.predict(TEST), found.probabilities[:, 0], rtol=1e-5)
    model = open_model(tmp_path / "model", "cpu", Path())
    (one,) = split_answers(model.answer([model.decode(Path("img/p8_0.png").read_bytes(), 10_000)]), ("age",), 1)
    assert one.to_dict()["values"] == {"age": pytest.approx(float(found.probabilities[0, 0]), rel=1e-5)}
