"""Change the labels that a training learns: corrected labels, images that are left out, labels mixed with votes.

Only training labels change. Scores use the labels of the table, and test labels are never changed.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.config.recipe import Recipe
from folds.data.table import SampleTable
from folds.data.targets import Target
from folds.errors import EnsembleError, combine_errors, unknown_name
from folds.predictions.files import LABEL
from folds.predictions.predictions import read_predictions
from folds.splits.assignment import FoldAssignment
from folds.training.examples import one_hot_rows, outputs_of
from folds.training.soft_labels import TOLERANCE, checked_probabilities
from folds.utils.csv_table import CsvTable
from folds.utils.files import sha256_bytes
from folds.utils.spreadsheet import unguarded
from folds.utils.tables import read_table_file
from folds.utils.text import counted

logger = logging.getLogger(__name__)
# Words of the column `decision`; an empty cell is not decided yet.
KEEP, RELABEL, DROP, SOFTEN = DECISIONS = ("keep", "relabel", "drop", "soften")
VOTE = "vote_"  # prefix of the columns with the votes, before the name of each class
_FILLED = "ensemble labels RUN -o labels.csv writes such a file to fill in"


@dataclass(frozen=True)
class LabelChanges:
    """What a recipe changes about the training labels of a table with n rows.

    Attributes
    ----------
    relabeled : (n,) bool, rows that are learned with another label.
    labels : (n,) the label that each row is learned with.
    dropped : (n,) bool, rows that are not learned.
    softened : (n,) bool, rows whose target is a mixture of label and vote.
    targets : float32 (n, outputs) target of each row, the block of each head sums to 1; None if nothing is softened.
    """

    relabeled: NDArray[np.bool_]
    labels: NDArray[np.str_]
    dropped: NDArray[np.bool_]
    softened: NDArray[np.bool_]
    targets: NDArray[np.float32] | None = None

    def record(self, ids: NDArray[np.str_]) -> dict[str, str]:
        """Return the hashes of the changes, which a run records; one that is not made is left out."""
        pairs = [f"{one}\t{label}" for one, label in zip(ids[self.relabeled], self.labels[self.relabeled], strict=True)]
        found = {}
        if self.relabeled.any():
            found["relabel_sha"] = sha256_bytes("\n".join(sorted(pairs)).encode())
        if self.dropped.any():
            found["drop_sha"] = sha256_bytes("\n".join(sorted(ids[self.dropped].tolist())).encode())
        if self.targets is not None:
            found["soften_sha"] = sha256_bytes(self.targets.tobytes())
        return found

    def columns(self, table: SampleTable) -> dict[str, list[str]]:
        """Return a row for each changed image: its id, label, change and new label."""
        assert table.labels is not None  # noqa: S101 - there are no changes without labels
        kinds = (RELABEL, self.relabeled), (DROP, self.dropped), (SOFTEN, self.softened)
        rows = np.flatnonzero(self.relabeled | self.dropped | self.softened)
        change = ["+".join(name for name, mask in kinds if mask[row]) for row in rows.tolist()]
        new = np.where(self.relabeled[rows], self.labels[rows], "").tolist()
        return {
            "id": table.ids[rows].tolist(),
            "label": table.labels[rows].tolist(),
            "change": change,
            "new_label": new,
        }

    def note(self, persons: NDArray[np.str_]) -> str:
        """Return one line: how many labels are changed, and what they are scored on."""
        kinds = ("relabeled", self.relabeled), ("not learned", self.dropped), ("softened", self.softened)
        parts = [f"{counted(int(mask.sum()), 'image')} {name}" for name, mask in kinds if mask.any()]
        people = len(set(persons[self.relabeled | self.dropped | self.softened].tolist()))
        return (
            f"training labels: {', '.join(parts)}, of {counted(people, 'person', 'people')}; scores use the labels of "
            "the table, and leave these people out"
        )


def label_changes_of(
    recipe: Recipe, table: SampleTable, target: Target, test: SampleTable | None = None
) -> LabelChanges | None:
    """Return the changes of the training labels that a recipe asks for; None without any.

    Parameters
    ----------
    test : the test images, which must not be named.

    Raises
    ------
    EnsembleError : a file cannot be read, names an image that is not in the table or a test image, has a label that is
        no class, or changes nothing; or two files contradict each other.
    """
    if table.labels is None or not (recipe.relabel or recipe.drop or recipe.soften):
        return None
    shared = _shared(recipe)
    relabeled, labels = _relabeled(recipe.relabel, table, test, shared)
    dropped = _dropped(recipe.drop, table, test, shared)
    softened, votes = _votes(recipe.soften, table, target, test, shared)
    for path in sorted(shared):
        masks = {"relabel": relabeled, "drop": dropped, "soften": softened}
        masks = {name: mask for name, mask in masks.items() if getattr(recipe, name) == path}
        unused = [name for name, mask in masks.items() if not mask.any()]
        if len(unused) == len(masks):
            raise EnsembleError(
                f"`{'` and `'.join(unused)}` of {path} change nothing: no row has a new label or a decision",
                hint="fill in the columns new_label or decision",
            )
        for name in unused:
            logger.info(f"{name}={path}: no row is used by `{name}`")
    for name, mask in (("relabel", relabeled), ("soften", softened)):
        both = np.flatnonzero(dropped & mask)
        if len(both) and not (name == "soften" and _is_array(recipe.soften)):
            raise EnsembleError(
                f"'{table.ids[both[0]]}' is in `drop={recipe.drop}` and in `{name}={getattr(recipe, name)}`",
                hint="an image that is not learned has no label to change: keep it in one of them",
            )
    softened &= ~dropped
    targets = None
    if votes is not None:
        code = {name: i for i, name in enumerate(table.classes)}
        given = one_hot_rows(target, np.array([code[name] for name in labels.tolist()]))
        share = np.float32(recipe.soften_weight or 0.5)
        targets = np.where(softened[:, None], (1 - share) * given + share * votes, given).astype(np.float32)
    return LabelChanges(relabeled, labels, dropped, softened, targets)


def _shared(recipe: Recipe) -> set[Path]:
    """Return the files that are given to several options, each of which uses the rows with its decision, if any."""
    given = [path for path in (recipe.relabel, recipe.drop, recipe.soften) if path is not None]
    return {path for path in given if given.count(path) > 1}


def relabeled_labels(recipe: Recipe, table: SampleTable) -> list[str] | None:
    """Return the label that each row is learned with; None if none is changed."""
    if table.labels is None or recipe.relabel is None:
        return None
    found: list[str] = _relabeled(recipe.relabel, table, None, _shared(recipe))[1].tolist()
    return found


def check_classes_left(changes: LabelChanges, table: SampleTable, assignment: FoldAssignment) -> None:
    """Raise EnsembleError if the changes leave a class without an image in the training part of a fold."""
    assert table.labels is not None  # noqa: S101 - there are no changes without labels
    for fold in range(assignment.k):
        training = assignment.training_index(fold)
        lost = set(table.labels[training].tolist()) - set(changes.labels[training[~changes.dropped[training]]].tolist())
        if lost:
            raise EnsembleError(
                f"fold {fold} has no training image of the class '{min(lost)}' after `relabel` and `drop`",
                hint="keep some of its images, or join the class to another one in the table",
            )


def _relabeled(
    path: Path | None, table: SampleTable, test: SampleTable | None, shared: Container[Path] = ()
) -> tuple[NDArray[np.bool_], NDArray[np.str_]]:
    """Return (n,) whether each row is relabeled, and (n,) the label that it is learned with."""
    assert table.labels is not None  # noqa: S101 - checked by the callers
    changed, labels = np.zeros(len(table), bool), table.labels.astype(object)
    if path is None:
        return changed, table.labels
    found = _read(path, table)
    name = "new_label" if "new_label" in found.columns else "label"
    given, decisions = (
        found.column(name, "`relabel`", f"it needs the columns id and new_label; {_FILLED}"),
        _words(found),
    )
    _check_labels(found, table)
    used = []
    for row, (new, word) in enumerate(zip(given, decisions, strict=True)):
        if word == RELABEL and not new:
            raise EnsembleError(f"{found.location()[row]}: decision relabel without a new label in column '{name}'")
        if new and word in (KEEP, DROP, SOFTEN) and name == "new_label":
            raise EnsembleError(
                f"{found.location()[row]}: decision {word} with the new label '{new}': expected one of them",
                hint="relabel, or an empty decision, uses the new label; another decision needs an empty one",
            )
        if new and word in ("", RELABEL):
            used.append(row)
    for row, at in _places(found, used, table, test, "relabel"):
        if given[row] not in table.classes:
            raise unknown_name(f"class in {found.location()[row]}", given[row], table.classes)
        changed[at] = given[row] != labels[at]
        labels[at] = given[row]
    if not changed.any() and path not in shared:
        raise EnsembleError(
            f"`relabel={path}` changes no label: all of its new labels are empty or those of {table.source}",
            hint="fill in the column new_label",
        )
    return changed, labels.astype(str)


def _dropped(
    path: Path | None, table: SampleTable, test: SampleTable | None, shared: Container[Path] = ()
) -> NDArray[np.bool_]:
    """Return (n,) whether each row is left out of the training."""
    dropped = np.zeros(len(table), bool)
    if path is None:
        return dropped
    found = _read(path, table)
    for _, at in _places(found, _decided(found, DROP, path, shared), table, test, "drop"):
        dropped[at] = True
    return dropped


def _votes(
    path: Path | None, table: SampleTable, target: Target, test: SampleTable | None, shared: Container[Path] = ()
) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
    """Return (n,) whether each row is softened, and float32 (n, outputs) its votes; None without a file."""
    softened = np.zeros(len(table), bool)
    if path is None:
        return softened, None
    of_classes = np.full((len(table), len(table.classes)), 1 / len(table.classes))
    if _is_array(path):
        predictions = read_predictions(path)
        if predictions.split != "oof" or predictions.metadata.target != LABEL:
            raise EnsembleError(
                f"`soften={path}`: expected out-of-fold predictions of the label, found "
                f"{predictions.split} predictions "
                f"of {predictions.metadata.target}",
                hint="a model that has learned an image repeats its label: use runs/NAME.oof.npy",
            )
        if set(predictions.classes) != set(table.classes):
            unshared = sorted(set(predictions.classes) ^ set(table.classes))[0]
            raise EnsembleError(
                f"`soften={path}` has other classes than {table.source}: '{unshared}' is in only one of them"
            )
        order = [predictions.classes.index(name) for name in table.classes]
        position = {name: row for row, name in enumerate(table.ids.tolist())}
        unknown = [name for name in predictions.ids.tolist() if name not in position]
        if unknown:
            raise _unknown(f"`soften={path}`", unknown, table, test)
        at = np.array([position[name] for name in predictions.ids.tolist()])
        values = np.asarray(predictions.probabilities, np.float64)[:, order]
        of_classes[at] = checked_probabilities(values, predictions.ids, f"`soften={path}`")
        softened[at] = True
    else:
        found = _read(path, table)
        places = _places(found, _decided(found, SOFTEN, path, shared), table, test, "soften")
        if not places:
            return softened, None
        columns = [
            found.column(f"{VOTE}{name}", None, f"`soften` needs the votes of each class; {_FILLED}")
            for name in table.classes
        ]
        for row, place in places:
            of_classes[place], softened[place] = _shares([cells[row] for cells in columns], found, row), True
    of_classes /= of_classes.sum(axis=1, keepdims=True)
    return softened, outputs_of(target, of_classes)


def _read(path: Path, table: SampleTable) -> CsvTable:
    """Return a file with ids and labels as in the table, without apostrophes that guard them in a spreadsheet."""
    found, names = read_table_file(path), ("id", "label", "new_label")
    if not any(cell[:1] == "'" for name in names for cell in found.columns.get(name, ())):
        return found
    known = {name: set(table.ids.tolist() if name == "id" else table.classes) for name in names}
    columns = {name: unguarded(cells, known[name]) if name in known else cells for name, cells in found.columns.items()}
    return replace(found, columns=columns)


def _shares(cells: Sequence[str], found: CsvTable, row: int) -> NDArray[np.float64]:
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError:
        values = np.full(1, np.nan)
    if not np.isfinite(values).all() or (values < 0).any() or abs(values.sum() - 1) > TOLERANCE:
        raise EnsembleError(
            f"{found.location()[row]}: expected votes from 0 that sum to 1, found {', '.join(cells[:5])[:80]}",
            hint=_FILLED,
        )
    return values


def _is_array(path: Path | None) -> bool:
    return path is not None and path.suffix == ".npy"


def _words(found: CsvTable) -> list[str]:
    """Return the decision of each row of a file, in lower case; "" where there is none."""
    words = [cell.lower() for cell in found.columns.get("decision", [""] * len(found))]
    for row, word in enumerate(words):
        if word and word not in DECISIONS:
            raise unknown_name(f"decision in {found.location()[row]}", word, DECISIONS)
    return words


def _decided(found: CsvTable, word: str, path: Path, shared: Container[Path]) -> list[int]:
    """Return the rows of a file with this decision; all rows of a file without decisions.

    Raises
    ------
    EnsembleError : there are none, and the file is not one of those in `shared`, of which another option uses rows.
    """
    if "decision" not in found.columns:
        return list(range(len(found)))
    used = [row for row, one in enumerate(_words(found)) if one == word]
    if not used and path not in shared:
        raise EnsembleError(
            f"`{word}={path}`: no row has the decision {word}", hint=f"write {word} into the column decision"
        )
    return used


def _check_labels(found: CsvTable, table: SampleTable) -> None:
    """Raise EnsembleError if a file with both labels was made from another state of the table."""
    if not {"id", "label", "new_label"} <= found.columns.keys() or table.labels is None:
        return
    labels = dict(zip(table.ids.tolist(), table.labels.tolist(), strict=True))
    for row, (name, label) in enumerate(zip(found.columns["id"], found.columns["label"], strict=True)):
        if label and labels.get(name, label) != label:
            raise EnsembleError(
                f"{found.location()[row]}: the label of '{name}' is {label} there and {labels[name]} in {table.source}",
                hint="the file was written for another state of the table: write it again",
            )


def _places(
    found: CsvTable, used: Sequence[int], table: SampleTable, test: SampleTable | None, option: str
) -> list[tuple[int, int]]:
    """Return (row of the file, row of the table) of the rows that are used.

    Raises
    ------
    EnsembleError : an id is not that of a training image, or is repeated.
    """
    ids = found.column("id", None, f"`{option}` needs the ids of images")
    position = {name: row for row, name in enumerate(table.ids.tolist())}
    unknown = [ids[row] for row in used if ids[row] not in position]
    if unknown:
        raise _unknown(f"`{option}={found.source}`", unknown, table, test)
    seen: dict[str, int] = {}
    for row in used:
        if ids[row] in seen:
            raise EnsembleError(
                f"{found.location()[row]}: '{ids[row]}' is in {found.location()[seen[ids[row]]]} as well",
                hint="one row for each image",
            )
        seen[ids[row]] = row
    return [(row, position[ids[row]]) for row in used]


def _unknown(option: str, names: Sequence[str], table: SampleTable, test: SampleTable | None) -> EnsembleError:
    tested = set() if test is None else set(test.ids.tolist())
    held_out = [name for name in names if name in tested]
    if held_out:
        return EnsembleError(
            f"{option}: '{held_out[0]}' is a test image, and test labels are never changed: a score on changed labels "
            "measures the changes",
            hint="leave out its row; a wrong test label is corrected in the table, for all runs",
        )
    if len(names) == 1:
        return unknown_name(f"image in {option}", names[0], table.ids.tolist(), hint=f"expected ids of {table.source}")
    return combine_errors([f"'{name}'" for name in names], f"images of {option} are not in {table.source}")
