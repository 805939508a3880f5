"""Choose pseudo-labels of test images, so that no fold learns from a model that has seen its people.

Fold i of a run learns what the models of fold i of other runs, its teachers, predict for the test images. They were
trained on the same folds, so without the people that fold i is scored on: their predictions, and what the student
learns from them, know nothing about these people. A mean over folds does, and so does a model of other folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.config.recipe import Recipe
from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, MULTILABEL, REGRESSION
from folds.models.checkpoint import Checkpoint, hash_ids, load_checkpoint
from folds.models.number_head import units_of_numbers
from folds.predictions.files import LABEL, fold_files, oof_file
from folds.predictions.label_columns import COLUMN_NAMES
from folds.predictions.named import is_blend
from folds.predictions.predictions import Predictions, read_predictions
from folds.predictions.reading import rows_by_id
from folds.splits.assignment import FoldAssignment
from folds.training.column_targets import chosen_labels, chosen_numbers, predicted_columns
from folds.training.examples import is_learned
from folds.utils.files import sha256_bytes, sha256_file


@dataclass(frozen=True)
class PseudoLabels:
    """The pseudo-labels of the test images, for each fold.

    Attributes
    ----------
    values : float32 (k + 1, images, classes): of each fold, last of the model of all people, the target of each image;
        0 in all classes for an image that is not used. Of several labels and numbers (k + 1, images, columns), nan in
        cells that are not used.
    sha : hash of `values`.
    teachers : the runs that predicted them.
    optimistic : whether the score of a teacher is optimistic, which makes that of the student optimistic too.
    task : task of the table.
    """

    values: NDArray[np.float32]
    sha: str
    teachers: tuple[str, ...]
    optimistic: bool
    task: str = CLASSES

    def record(self) -> dict[str, str]:
        """Return what a run and its checkpoints record."""
        return {"pseudo_sha": self.sha, "pseudo_teacher": ",".join(self.teachers)}

    def note(self, labeled: bool) -> str:
        """Return one line: how many images are learned.

        Parameters
        ----------
        labeled : whether the labels of the test images are known.
        """
        images, columns = self.values.shape[1:]
        each = _range(is_learned(self.values, self.task).sum(axis=1)[:-1])
        text = f"pseudo-labels of {', '.join(self.teachers)}: {each} of {images:,} test images a fold"
        if self.task in COLUMN_TASKS:
            cells = _range((~np.isnan(self.values)).sum(axis=(1, 2))[:-1])
            text += f", {cells} of {images * columns:,} {COLUMN_NAMES[self.task]}"
        return f"{text}; without their labels, but their score is not one of new images" if labeled else text


def _range(counts: NDArray[np.integer]) -> str:
    return f"{counts.min():,}" if counts.min() == counts.max() else f"{counts.min():,} to {counts.max():,}"


def pseudo_labels_of(
    recipe: Recipe,
    assignment: FoldAssignment,
    table: SampleTable,
    test: SampleTable | None,
    root: Path = Path(),
) -> PseudoLabels | None:
    """Return the pseudo-labels of a recipe for the folds of a run; None without them.

    Parameters
    ----------
    root : folder with ``runs`` and ``checkpoints``, in which the teachers are.

    Raises
    ------
    EnsembleError : there are no test images; a teacher has seen people of the fold that would learn from it, or which
        people it has seen cannot be known; its predictions lack an image; or no image is confident enough.
    UsageError : `pseudo_spread` without numbers or several teachers.
    """
    if recipe.pseudo is None:
        return None
    if test is None:
        raise EnsembleError("`pseudo` labels the test images, and there are none", hint="`test=PATH` names them")
    teachers = tuple(dict.fromkeys(_teacher(name.strip(), root / "runs") for name in recipe.pseudo.split(",")))
    _check_spread(recipe, table.task, len(teachers))
    chosen, predicted, optimistic = [], [], False
    for fold in range(assignment.k):
        found = [_of_fold(name, fold, assignment, table, test, root) for name in teachers]
        predicted.append(np.stack([of_teacher for of_teacher, _ in found]))
        optimistic |= any(is_optimistic for _, is_optimistic in found)
        may, people = _of_other_people(assignment, fold, test), assignment.training_index(fold)
        chosen.append(_targets(predicted[-1], may, recipe, table, people))
    # The model of all people is scored on no person, so every model may teach it.
    all_images, all_rows = np.ones(len(test), bool), np.arange(len(table))
    chosen.append(_targets(_mean_of_folds(predicted, table.task), all_images, recipe, table, all_rows))
    targets = np.stack(chosen)
    if not is_learned(targets, table.task).any():
        raise _none_chosen(predicted, recipe, table.task)
    return PseudoLabels(targets, sha256_bytes(targets.tobytes()), teachers, optimistic, table.task)


def _mean_of_folds(predicted: Sequence[NDArray[np.float64]], task: str) -> NDArray[np.float64]:
    """Return (teachers, images, columns) the mean over the folds; not of numbers, one row for all teachers."""
    total = np.zeros_like(predicted[0] if task == REGRESSION else predicted[0][:1])
    for of_fold in predicted:
        total += of_fold if task == REGRESSION else np.mean(of_fold, axis=0, keepdims=True)
    return total / len(predicted)


def _targets(
    of_teachers: NDArray[np.float64],
    may: NDArray[np.bool_],
    recipe: Recipe,
    table: SampleTable,
    rows: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return (images, columns) the targets that predictions (teachers, images, columns) give.

    Parameters
    ----------
    may : (images,) those that may be learned.
    rows : of the table, the training part, in whose standard deviations numbers are compared.
    """
    if table.task == REGRESSION:
        largest = None
        if recipe.pseudo_spread is not None:
            scale = units_of_numbers(table.label_values()[rows], table.classes).scale
            largest = recipe.pseudo_spread * scale.astype(np.float64)
        return chosen_numbers(of_teachers, may, largest)
    values = np.mean(of_teachers, axis=0)
    if table.task == MULTILABEL:
        soft = bool(recipe.pseudo_soft)
        return chosen_labels(values, may, recipe.pseudo_confidence or 0.0, recipe.pseudo_per_class, soft)
    return _chosen(values, may, recipe)


def _check_spread(recipe: Recipe, task: str, teachers: int) -> None:
    if recipe.pseudo_spread is None:
        return
    spread = f"`pseudo_spread={recipe.pseudo_spread:g}`"
    if task != REGRESSION:
        raise UsageError(f"{spread} is for numbers", hint="`pseudo_confidence` chooses by the probability")
    if teachers < 2:
        raise UsageError(
            f"{spread} compares several teachers, found `pseudo={recipe.pseudo}`",
            hint="`pseudo=RUN,RUN`, or leave it out: all predicted numbers are learned",
        )


def _none_chosen(predicted: Sequence[NDArray[np.float64]], recipe: Recipe, task: str) -> EnsembleError:
    """Return the error for predictions (teachers, images, columns) of each fold of which none is used."""
    if task == REGRESSION:  # without `pseudo_spread` all are used
        return EnsembleError(
            f"`pseudo`: the teachers differ by more than {recipe.pseudo_spread:g} standard deviations in every number",
            hint="a larger `pseudo_spread`, or better teachers",
        )
    means = np.stack([of_fold.mean(axis=0) for of_fold in predicted])
    highest = float((np.maximum(means, 1 - means) if task == MULTILABEL else means).max())
    what = "an answer for a label" if task == MULTILABEL else "a class"
    return EnsembleError(
        f"`pseudo`: no test image has {what} of probability {recipe.pseudo_confidence:g} or more; the largest "
        f"probability is {highest:.3f}",
        hint=f"`pseudo_confidence={max(highest - 0.05, 0.5 if task == MULTILABEL else 0):.2f}`, or better teachers",
    )


def pseudo_warnings(pseudo: PseudoLabels, test: SampleTable) -> list[str]:
    """Return why the out-of-fold score of a run with pseudo-labels is or may be optimistic, a line each."""
    lines = []
    if test.persons is None:
        lines.append(
            "`pseudo`: the people of the test images are not known; if some of them are in the table, a fold learns "
            "from images of people it is scored on (without their labels), and its score is optimistic"
        )
    if pseudo.optimistic:
        lines.append(
            f"`pseudo`: something about the models of {', '.join(pseudo.teachers)} was chosen on the people they are "
            "scored on, or they learned from models that have seen them: the score of this run is optimistic too"
        )
    return lines


def _teacher(name: str, runs: Path) -> str:
    """Return the run that a name or a file of predictions stands for.

    Raises
    ------
    EnsembleError : it is a blend or a mean over folds, out-of-fold predictions, or no run.
    """
    path, source = Path(name), f"`pseudo={name}`"
    if path.suffix == ".npy" and path.is_file():
        found = read_predictions(path).metadata
        if found.split == "oof":
            raise EnsembleError(
                f"{source} are out-of-fold predictions: of the labeled images, not of the test images",
                hint="`soft_labels=FILE` learns out-of-fold predictions (docs/distill.md); `pseudo=RUN` names a run",
            )
        if not isinstance(found.fold, int):
            raise _of_no_fold(source)
        if path.resolve().parent != runs.resolve():
            raise EnsembleError(
                f"{source} is not in {runs}, and its checkpoint is looked for beside that folder",
                hint="`pseudo=RUN` names a run of this folder",
            )
        name = path.name.removesuffix(f".fold{found.fold}.test.npy")
    if is_blend(name, runs) or name.startswith("tta/"):
        raise _of_no_fold(source)
    if not fold_files(runs, name):
        known = ", ".join(sorted({one.name.split(".fold")[0] for one in runs.glob("*.fold*.test.npy")}))
        raise EnsembleError(
            f"{source}: there are no test predictions of the folds of a run '{name}' in {runs}"
            + (", only out-of-fold ones" if oof_file(runs, name).is_file() else ""),
            hint=f"runs with test predictions: {known}"
            if known
            else "train the teacher with the same images in `test` first",
        )
    return name


def _of_no_fold(source: str) -> EnsembleError:
    return EnsembleError(
        f"{source} is a mean over models of several folds: for every fold, some of them have seen the people it is "
        "scored on",
        hint="name the runs themselves, which predict by fold: `pseudo=RUN,RUN`",
    )


def _of_fold(
    name: str, fold: int, assignment: FoldAssignment, table: SampleTable, test: SampleTable, root: Path
) -> tuple[NDArray[np.float64], bool]:
    """Return (test images, classes) what the model of a fold predicts, and whether its score is optimistic."""
    path = fold_files(root / "runs", name).get(fold)
    if path is None:
        raise EnsembleError(
            f"`pseudo={name}`: the model of fold {fold} has not predicted the test images",
            hint=f"ensemble kfold --resume {name} trains the missing folds",
        )
    found = read_predictions(path)
    checkpoint = _proof(name, fold, found, path, root)
    _check_people(name, fold, checkpoint, found, assignment)
    return _joined(found, path, table, test), checkpoint.selected_on_validation


def _proof(name: str, fold: int, found: Predictions, path: Path, root: Path) -> Checkpoint:
    """Return the checkpoint that made predictions.

    Raises
    ------
    EnsembleError : it is not there or another one, so whom the model was trained on cannot be known.
    """
    file = root / "checkpoints" / name / f"fold{fold}.pt"
    expected = found.metadata.checkpoint_sha
    if not file.is_file() or not isinstance(expected, str) or sha256_file(file) != expected:
        what = "does not exist" if not file.is_file() else "is not the model that predicted them"
        raise EnsembleError(
            f"`pseudo={name}`: whom the model behind {path} was trained on cannot be known: {file} {what}",
            hint="pseudo-labels need the checkpoints of their teachers, which record their training images",
        )
    return load_checkpoint(file)


def _check_people(name: str, fold: int, checkpoint: Checkpoint, found: Predictions, assignment: FoldAssignment) -> None:
    """Raise EnsembleError if a teacher was trained on people whom the fold is scored on, or on other folds."""
    trained = set(checkpoint.training_hashes)
    known = np.array([one in trained for one in hash_ids(assignment.ids.tolist())])
    people = np.unique(assignment.persons[assignment.validation_index(fold)])
    leaked = np.intersect1d(people, np.unique(assignment.persons[known]))
    if len(leaked):
        raise EnsembleError(
            f"`pseudo={name}`: its model of fold {fold} was trained on {len(leaked):,} of the {len(people):,} people "
            f"that fold {fold} is scored on, e.g. '{leaked[0]}': the score would be invalid",
            hint=f"use its folds (`folds=runs/{name}/folds.csv`), or train a teacher on these folds",
        )
    same = {checkpoint.folds_sha, found.metadata.folds_sha} == {assignment.sha}
    if not same or checkpoint.fold != fold or found.metadata.fold != fold or checkpoint.refit is not None:
        raise EnsembleError(
            f"`pseudo={name}`: its model of fold {fold} was trained on other folds",
            hint=f"use its folds: `folds=runs/{name}/folds.csv`",
        )


def _joined(found: Predictions, path: Path, table: SampleTable, test: SampleTable) -> NDArray[np.float64]:
    """Return the predictions of the test images by id, with a column for each class of the table."""
    source, images, hint = f"`pseudo`: {path}", "test images", "the teacher must have predicted the same `test` images"
    if table.has_columns or found.metadata.has_columns:
        return predicted_columns(found, test.ids, table, source, images, hint=hint)
    if found.metadata.target != LABEL or set(found.classes) != set(table.classes):
        raise EnsembleError(
            f"`pseudo`: {path} predicts {found.metadata.target} with the classes {', '.join(found.classes[:10])}, "
            f"expected the label with the classes {', '.join(table.classes[:10])}",
            hint="a teacher predicts all classes of the label",
        )
    values = rows_by_id(found, test.ids, source, images, hint=hint)
    columns = [found.classes.index(name) for name in table.classes]
    values = values[:, columns]
    return values / values.sum(1, keepdims=True)


def _of_other_people(assignment: FoldAssignment, fold: int, test: SampleTable) -> NDArray[np.bool_]:
    """Return (test images,) whether an image is of none of the people whom a fold is scored on."""
    if test.persons is None:
        return np.ones(len(test), bool)
    return ~np.isin(test.persons, assignment.persons[assignment.validation_index(fold)])


def _chosen(values: NDArray[np.float64], may: NDArray[np.bool_], recipe: Recipe) -> NDArray[np.float32]:
    """Return (images, classes) the targets: 0 in all classes for images that are not confident enough."""
    confidence, classes = values.max(1), values.argmax(1)
    used = may & (confidence >= (recipe.pseudo_confidence or 0.0))
    if recipe.pseudo_per_class is not None:
        used &= _ranks(confidence, classes, used) < recipe.pseudo_per_class
    targets = values if recipe.pseudo_soft else np.eye(values.shape[1])[classes]
    return np.where(used[:, None], targets, 0).astype(np.float32)


def _ranks(confidence: NDArray[np.float64], classes: NDArray[np.int64], used: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return (images,) the place of each image among the used ones of its class, from 0, the most confident first."""
    ranks = np.full(len(classes), len(classes))
    for one in np.unique(classes[used]).tolist():
        rows = np.flatnonzero(used & (classes == one))
        ranks[rows[np.argsort(-confidence[rows], kind="stable")]] = np.arange(len(rows))
    return ranks
