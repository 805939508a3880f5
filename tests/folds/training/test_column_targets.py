"""Pseudo-labels, soft labels and teachers of several labels and of numbers: their values, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from folds.config.checks import check
from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.data.table import SampleTable
from folds.data.targets import Target, resolve_target
from folds.errors import EnsembleError, UsageError
from folds.models.architecture import Architecture
from folds.models.checkpoint import Checkpoint, hash_ids, load_checkpoint, save_checkpoint
from folds.optim.column_losses import CellCounts, build_column_loss
from folds.optim.losses import LossForm
from folds.predictions.files import PredictionMetadata, write_prediction
from folds.predictions.label_columns import label_texts
from folds.predictions.links import kind_of
from folds.predictions.predictions import Predictions
from folds.splits.assignment import FoldAssignment
from folds.training.criterion import SoftTargets, at_temperature, build_criterion
from folds.training.examples import examples_of
from folds.training.job import Job
from folds.training.pseudo_labels import PseudoLabels, pseudo_labels_of
from folds.training.soft_labels import soft_labels_of
from folds.utils.csv_table import csv_text

NAMES = ("hat", "beard")
NAN = np.nan
FOLD = np.array([0, 0, 1, 1, 0, 1])
PERSONS = np.array(["p0", "p0", "p1", "p1", "p2", "p3"])
LABELS = np.array([[1, 0], [1, NAN], [0, 1], [0, 0], [1, 1], [0, 0]])
NUMBERS = np.array([[10.0, 1], [20, 2], [30, 3], [50, NAN], [40, 5], [70, 9]])
# Probabilities of the test images, the first of which is of p0.
PREDICTED = np.array(
    [[[0.95, 0.5], [0.2, 0.97], [0.99, 0.02], [0.6, 0.4]], [[0.92, 0.06], [0.05, 0.3], [0.8, 0.7], [0, 1]]]
)


def table_of(task: str, **attributes: Any) -> SampleTable:
    values = LABELS if task == "multilabel" else NUMBERS
    ids = np.array([f"i{row}" for row in range(6)])
    return SampleTable(
        *("t.csv", ids, None, label_texts(values, NAMES, task), PERSONS, NAMES),
        {name: np.array(cells) for name, cells in attributes.items()},
        *({}, [f"t.csv row {row + 2}" for row in range(6)], task),
    )


def unlabeled() -> SampleTable:
    ids, persons = np.array(["x0", "x1", "x2", "x3"]), np.array(["p0", "n", "n", "m"])
    return SampleTable("test.csv", ids, None, None, persons, NAMES, {}, {}, [""] * 4)


@pytest.fixture
def assignment() -> FoldAssignment:
    table = table_of("multilabel")
    assert table.labels is not None
    return FoldAssignment(table.ids, table.labels, PERSONS, FOLD, 2, 0)


def write_teacher(
    root: Path,
    assignment: FoldAssignment,
    task: str,
    values: np.ndarray,
    name: str = "teacher",
    seen: int | None = None,
) -> None:
    """Write the test predictions (2, images, columns) of a run and the checkpoints that show whom its models have seen.

    Parameters
    ----------
    seen : a row of the table that the model of fold 0 has seen as well.
    """
    test = unlabeled()
    for fold in range(2):
        training = np.flatnonzero(fold != FOLD).tolist() + ([seen] if seen is not None and fold == 0 else [])
        checkpoint = Checkpoint(
            *(
                name,
                fold,
                2,
                Architecture("test_resnet", "test_resnet.r160_in1k", 32, 32, (0.5,) * 3, (0.5,) * 3, {}),
                {"w": torch.zeros(1)},
            ),
            *(NAMES, {}, "label", {"height": 32, "width": 32, "fit": "squash", "window": None}),
            *({"path": "path", "label": "x", "person": "p"}, {"task": task}, "off"),
            *(hash_ids(assignment.ids[training].tolist()), hash_ids(assignment.ids[fold == FOLD].tolist())),
            *(assignment.sha, {}),
        )
        sha = save_checkpoint(root / "checkpoints" / name / f"fold{fold}.pt", checkpoint)
        described = PredictionMetadata(
            kind_of(task), "test", NAMES[::-1], test.rows(), fold=fold, run=name, folds_sha=assignment.sha
        )
        path = root / "runs" / f"{name}.fold{fold}.test.npy"
        write_prediction(path, values[fold][:, ::-1], replace(described, task=task, checkpoint_sha=sha))


def pseudo_of(root: Path, assignment: FoldAssignment, task: str, **settings: Any) -> PseudoLabels:
    recipe = Recipe(**{"pseudo": "teacher", "task": task, **settings})
    found = pseudo_labels_of(recipe, assignment, table_of(task), unlabeled(), root)
    assert found is not None
    return found


def test_an_answer_that_is_not_confident_is_an_unknown_cell(tmp_path: Path, assignment: FoldAssignment) -> None:
    write_teacher(tmp_path, assignment, "multilabel", PREDICTED)
    found = pseudo_of(tmp_path, assignment, "multilabel", pseudo_confidence=0.9)
    # Image 0 is of p0, whom fold 0 is scored on.
    expected = [[[NAN, NAN], [NAN, 1], [1, 0], [NAN, NAN]], [[1, 0], [0, NAN], [NAN, NAN], [0, 1]]]
    np.testing.assert_array_equal(found.values[:2], expected)
    mean = PREDICTED.mean(axis=0)
    refit = np.where(np.maximum(mean, 1 - mean) >= 0.9, mean > 0.5, NAN)
    np.testing.assert_array_equal(found.values[2], refit)
    assert found.note(False).endswith("2 to 3 of 4 test images a fold, 3 to 5 of 8 labels")
    soft = pseudo_of(tmp_path, assignment, "multilabel", pseudo_confidence=0.9, pseudo_soft=True)
    np.testing.assert_allclose(soft.values[1], np.where(np.isnan(found.values[1]), NAN, PREDICTED[1]), atol=1e-7)
    # One cell of each answer of each label, the most confident one.
    capped = pseudo_of(tmp_path, assignment, "multilabel", pseudo_confidence=0.5, pseudo_per_class=1)
    np.testing.assert_array_equal(capped.values[1], [[1, 0], [NAN, NAN], [NAN, NAN], [0, 1]])
    write_teacher(tmp_path, assignment, "multilabel", np.clip(PREDICTED, 0.01, 0.99))
    with pytest.raises(EnsembleError, match=r"no test image has an answer for a label of probability 0.995 or more"):
        pseudo_of(tmp_path, assignment, "multilabel", pseudo_confidence=0.995)


def test_numbers_on_which_teachers_differ_are_unknown(tmp_path: Path, assignment: FoldAssignment) -> None:
    first = np.array([[[30.0, 2], [40, 3], [50, 4], [60, 5]]] * 2)
    second = first + np.array([[[0, 0], [5, 0], [10, 1], [20, 4]], [[40, 8]] * 4])
    write_teacher(tmp_path, assignment, "regression", first)
    write_teacher(tmp_path, assignment, "regression", second, "second")
    alone = pseudo_of(tmp_path, assignment, "regression").values
    np.testing.assert_array_equal(alone[0], [[NAN, NAN], *first[0, 1:]])
    np.testing.assert_array_equal(alone[2], first[0])
    both = pseudo_of(tmp_path, assignment, "regression", pseudo="teacher,second", pseudo_spread=0.5).values
    scale = np.nanstd(NUMBERS[FOLD == 1], axis=0)  # the people whom fold 0 learns from: 16.3 and 3
    expected = np.where(second[0] - first[0] <= 0.5 * scale, (first[0] + second[0]) / 2, NAN)
    expected[0] = NAN
    assert np.isnan(expected[1:]).tolist() == [[False, False], [True, False], [True, True]]
    np.testing.assert_array_equal(both[0], expected.astype(np.float32))
    assert np.isnan(both[1]).all()
    of_both = (second[0] + second[1] - first[0] - first[1]) / 2 <= 0.5 * np.nanstd(NUMBERS, axis=0)
    np.testing.assert_array_equal(~np.isnan(both[2]), of_both)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("multilabel", {"pseudo_spread": 1.0}, "pseudo_spread=1 is for numbers"),
        ("regression", {"pseudo_spread": 1.0}, "compares several teachers, found pseudo=teacher"),
        ("regression", {}, "predictions of the task multilabel with the columns beard, hat, expected regression"),
    ],
)
def test_a_teacher_of_another_task_or_a_rule_without_sense_is_refused(
    tmp_path: Path, assignment: FoldAssignment, task: str, settings: dict[str, Any], message: str
) -> None:
    write_teacher(tmp_path, assignment, "multilabel", PREDICTED)
    with pytest.raises(EnsembleError, match=message):
        pseudo_of(tmp_path, assignment, task, **settings)


def test_a_teacher_that_saw_a_scored_person_is_refused(tmp_path: Path, assignment: FoldAssignment) -> None:
    write_teacher(tmp_path, assignment, "multilabel", PREDICTED, seen=4)
    with pytest.raises(EnsembleError, match=r"trained on 1 of the 2 people that fold 0 is scored on, e.g. 'p2'"):
        pseudo_of(tmp_path, assignment, "multilabel", pseudo_confidence=0.5)
    damaged = PREDICTED + 0.5
    write_teacher(tmp_path, assignment, "multilabel", damaged)
    with pytest.raises(EnsembleError, match=r"expected probabilities from 0 to 1, found 1.45 for 'hat' of 'x0'"):
        pseudo_of(tmp_path, assignment, "multilabel")
    assert load_checkpoint(tmp_path / "checkpoints/teacher/fold0.pt").task == "multilabel"


def job_of(folder: Path, **files: Any) -> Job:
    shown: dict[str, Any] = {"run": "r", "fold": 1, "k": 2, "folder": str(folder), "checkpoint": "", "pixels": ""}
    shown |= {key: {} for key in ("architecture", "recipe", "images", "data", "class_attributes")}
    return Job(**shown, test_pixels=None, classes=NAMES, folds_sha="", **files)


def test_pseudo_labels_are_rows_after_the_table(tmp_path: Path, assignment: FoldAssignment) -> None:
    write_teacher(tmp_path, assignment, "multilabel", PREDICTED)
    values = pseudo_of(tmp_path, assignment, "multilabel", pseudo_confidence=0.9, pseudo_soft=True).values
    values[1, 2] = NAN
    np.save(tmp_path / "pseudo.npy", values)
    test = unlabeled()
    (tmp_path / "pseudo.csv").write_text(csv_text({"id": test.ids.tolist(), "person": test.persons.tolist()}))  # type: ignore[union-attr]
    soft = np.linspace(0, 1, 12, dtype=np.float32).reshape(6, 2)
    np.save(tmp_path / "soft.npy", soft)
    target, recipe = resolve_target("label", NAMES, {}, (), "multilabel"), Recipe(pseudo_soft=True, pseudo_weight=0.25)
    job = job_of(tmp_path, pseudo=str(tmp_path / "pseudo.npy"), soft_labels=str(tmp_path / "soft.npy"))
    found = examples_of(job, recipe, target, assignment, np.flatnonzero(FOLD == 0), LABELS)
    assert found.rows.tolist() == [0, 1, 4, 6, 7, 9]
    assert found.pseudo_ids == ("x0", "x1", "x3")
    np.testing.assert_array_equal(found.codes, np.concatenate([LABELS, values[1]]))
    np.testing.assert_array_equal(found.soft_labels, np.concatenate([soft, values[1]]))  # type: ignore[arg-type]
    assert found.weights is not None
    np.testing.assert_array_equal(found.weights, [1] * 6 + [0.25] * 4)
    assert found.targets is None


TARGETS = torch.tensor([[1.0, 0], [0, NAN], [NAN, 1], [1, 1], [NAN, NAN]])
SOFT = torch.tensor([[0.7, 0.1], [NAN, 0.4], [0.2, 0.9], [0.5, NAN], [NAN, NAN]])
OUTPUTS = torch.tensor([[1.5, -1], [0.3, 2], [-2, 0.7], [0.1, -0.4], [3, -3]])


def target_of(task: str) -> Target:
    return resolve_target("label", NAMES, {}, (), task)


@pytest.mark.parametrize(("weight", "temperature"), [(0.3, 1.0), (0.6, 2.5), (1.0, 2.0)])
def test_the_loss_of_labels_is_the_mixture_of_both_parts(weight: float, temperature: float) -> None:
    made = build_criterion(
        target_of("multilabel"), "bce", {}, 0.2, CellCounts.of(TARGETS, SOFT), 1.0, SoftTargets(weight, temperature)
    )
    tempered = at_temperature(target_of("multilabel"), SOFT, temperature)
    by_logit = torch.sigmoid(torch.logit(SOFT) / temperature)
    assert torch.allclose(tempered, by_logit, equal_nan=True, atol=1e-6)
    ends = torch.tensor([[0.0, 1, 0.5, 1e-6]])
    sharp = at_temperature(target_of("multilabel"), ends, 1e-3)  # where powers underflow to 0 / 0
    assert sharp.tolist() == [[0, 1, 0.5, 0]]
    outputs = OUTPUTS.clone().requires_grad_()
    found = made(outputs, torch.cat([TARGETS, tempered], 1))
    known, softly = ~TARGETS.isnan(), ~SOFT.isnan()
    hard = binary_cross_entropy_with_logits(OUTPUTS[known], 0.8 * TARGETS[known] + 0.1)
    soft = binary_cross_entropy_with_logits(OUTPUTS[softly] / temperature, by_logit[softly])
    assert found.item() == pytest.approx(float((1 - weight) * hard + weight * temperature**2 * soft), rel=1e-5)
    found.backward()
    assert outputs.grad is not None
    assert ((outputs.grad != 0) == (softly | (known if weight < 1 else False))).all()


@pytest.mark.parametrize("loss", ["mse", "huber", "gaussian"])
def test_numbers_of_a_teacher_have_the_loss_of_numbers(loss: str) -> None:
    outputs = torch.cat([OUTPUTS, OUTPUTS.flip(0) / 3], 1) if loss == "gaussian" else OUTPUTS
    counts = CellCounts.of(TARGETS, SOFT)
    made = build_criterion(target_of("regression"), loss, {}, 0.0, counts, 1.0, SoftTargets(0.3, 1.0))
    of_table = build_column_loss("regression", loss, 0.0, counts)(outputs, TARGETS)
    of_teacher = build_column_loss("regression", loss, 0.0, CellCounts.of(SOFT))(outputs, SOFT)
    found = made(outputs, torch.cat([TARGETS, SOFT], 1))
    assert float(found) == pytest.approx(float(0.7 * of_table + 0.3 * of_teacher), rel=1e-6)


def test_both_parts_have_the_weights_of_images_and_of_the_labels_of_the_table() -> None:
    counts, form = CellCounts.of(TARGETS, SOFT), LossForm(True, True)
    made = build_criterion(
        target_of("multilabel"), "bce:weights=inverse", {}, 0.0, counts, 1.0, SoftTargets(0.5, 1.0), form
    )
    weights = torch.tensor([2.0, 0.5, 1, 1, 0.5])[:, None]
    labels = torch.cat([TARGETS, torch.ones(5, 1), SOFT], 1) * weights  # as a training puts them together
    found = made(OUTPUTS, labels)
    # Of `hat` one of three known cells is absent, of `beard` one of three: 1/images each, their mean over cells is 1.
    of_answer = torch.tensor([[1.5, 0.75], [1.5, 0.75]])  # (label, absent or present)

    def mean(values: torch.Tensor) -> torch.Tensor:
        known = ~values.isnan()
        y = values.nan_to_num()
        cells = y * of_answer[:, 1] * -torch.sigmoid(OUTPUTS).log()
        cells = cells + (1 - y) * of_answer[:, 0] * -torch.sigmoid(-OUTPUTS).log()
        return (cells * weights)[known].sum() / known.sum()

    assert float(found) == pytest.approx(float((mean(TARGETS) + mean(SOFT)) / 2), rel=1e-5)


def test_shares_of_a_table_are_soft_labels_with_unknown_cells() -> None:
    table = table_of("multilabel", p_hat=["0.5", "", "1", "0", "0.25", "nan"], p_beard=["0", "1", "", "0", "1", "0.5"])
    found = soft_labels_of(Recipe(soft_columns="p_"), table, target_of("multilabel"))
    assert found is not None
    expected = [[0.5, 0], [NAN, 1], [1, NAN], [0, 0], [0.25, 1], [NAN, 0.5]]
    np.testing.assert_array_equal(found.values, np.array(expected, np.float32))
    assert found.annotated
    wrong = table_of("multilabel", p_hat=["0.5", "", "1.2", "0", "0.25", ""], p_beard=["0"] * 6)
    with pytest.raises(EnsembleError, match=r"from 0 to 1, found 1.2 in column 'p_hat' of t.csv row 4"):
        soft_labels_of(Recipe(soft_columns="p_"), wrong, target_of("multilabel"))
    named = table_of("multilabel", p_hat=["0.5", "", "yes", "0", "0", ""], p_beard=["0"] * 6)
    with pytest.raises(EnsembleError, match=r"must have finite numbers, found 'yes' in t.csv row 4"):
        soft_labels_of(Recipe(soft_columns="p_"), named, target_of("multilabel"))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_a_teachers_predictions_are_joined_by_id_and_column(tmp_path: Path, task: str) -> None:
    table = table_of(task)
    values = np.linspace(0.05, 0.95, 12).reshape(6, 2) * (1 if task == "multilabel" else 40)
    made = Predictions.from_array(values[::-1, ::-1], ids=table.ids[::-1], classes=NAMES[::-1], run="t", task=task)
    path = made.save(tmp_path / "t.oof.npy")
    found = soft_labels_of(Recipe(soft_labels=path), table, target_of(task))
    assert found is not None
    np.testing.assert_allclose(found.values, values, rtol=1e-6)
    assert (found.teacher, found.annotated) == ("t", False)
    of_people = replace(made, metadata=replace(made.metadata, unit="person")).save(tmp_path / "people.oof.npy")
    with pytest.raises(EnsembleError, match="are predictions of people, not of the images"):
        soft_labels_of(Recipe(soft_labels=of_people), table, target_of(task))
    other = table_of("regression" if task == "multilabel" else "multilabel")
    with pytest.raises(EnsembleError, match=f"predictions of the task {task} with the columns beard, hat, expected"):
        soft_labels_of(Recipe(soft_labels=path), other, target_of(other.task))
    classes = replace(table, classes=("a", "b"), task="classes", labels=np.array(["a", "b"] * 3))
    with pytest.raises(EnsembleError, match=f"predictions of the task {task} with .* expected classes with a, b"):
        soft_labels_of(Recipe(soft_labels=path), classes, resolve_target("label", ("a", "b"), {}))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"soft_columns": "p_"}, "soft_columns=p_ is for multilabel.*: a number is soft by nature"),
    ({"soft_labels": Path("x.npy"), "soft_temperature": 2.0}, "soft_temperature=2.0 is for multilabel"),
    ({"pseudo": "t", "pseudo_confidence": 0.8}, "pseudo_confidence=0.8 is for multilabel.*pseudo_spread"),
    ({"pseudo": "t", "pseudo_per_class": 3}, "pseudo_per_class=3 is for multilabel"),
    ({"pseudo": "t", "pseudo_soft": True}, "pseudo_soft=True is for multilabel.*: a number is soft by nature"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_settings_of_probabilities_are_refused_for_numbers(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(Settings(), Recipe(task="regression", **settings))


def test_the_record_of_a_run_of_numbers_is_valid_again() -> None:
    both = {"soft_labels": Path("x.npy"), "pseudo": "t"}

    def made(task: str) -> Recipe:
        return Recipe(task=task, label_smoothing=0.0, **both).completed({})[0]  # type: ignore[arg-type]

    assert (made("regression").pseudo_confidence, made("regression").soft_temperature) == (None, 1.0)
    assert (made("multilabel").pseudo_confidence, made("classes").pseudo_confidence) == (0.9, 0.9)
    check(Settings(), made("regression"))
    check(Settings(), made("multilabel"))
    with pytest.raises(UsageError, match=r"pseudo_spread=1.0 is for regression"):
        check(Settings(), Recipe(task="multilabel", pseudo="t", pseudo_spread=1.0))


def test_nothing_of_pseudo_labels_changes_for_classes() -> None:
    values = np.array([[[0, 1], [0, 0]], [[1, 0], [0, 1]], [[0, 0], [0, 0]]], np.float32)
    note = PseudoLabels(values, "", ("t",), False).note(False)
    assert note == "pseudo-labels of t: 1 to 2 of 2 test images a fold"
