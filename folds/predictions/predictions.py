"""Provide predictions as an object: probabilities with their ids, classes, labels, people and folds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from folds.errors import EnsembleError, UsageError, unknown_name
from folds.metrics.arrays import (
    as_array,
    as_probabilities,
    check_same_index,
    column_classes,
    fold_numbers,
    names_of,
)
from folds.metrics.column_arrays import as_columns, as_label_columns, column_names, task_of_arrays
from folds.metrics.confusion import argmax_classes
from folds.metrics.grouping import crosstab
from folds.metrics.intervals import Interval, interval_over_people
from folds.metrics.positive import in_order_of_metric
from folds.metrics.scored_units import scored_units
from folds.metrics.task_names import CLASSES as EXCLUSIVE
from folds.metrics.task_names import COLUMN_TASKS, MULTILABEL, REGRESSION
from folds.metrics.tasks import default_metric, metric_for_task
from folds.predictions.files import (
    LABEL,
    SPLITS,
    PredictionMetadata,
    read_array,
    read_sidecar,
    sidecar_path,
    write_prediction,
)
from folds.predictions.label_columns import COLUMN_NAMES, check_column_names, encode_labels, label_matrix, label_texts
from folds.predictions.links import kind_of, predictions_of
from folds.predictions.rows import SampleRows
from folds.utils.arguments import CLASSES, FLAG, NAME, NAMES, PATH, check_arguments, wrong_argument
from folds.utils.display import Displayed, Table
from folds.utils.memmap import same_values
from folds.utils.numeric import factorize
from folds.utils.schema import optional

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)
MAX_CLASSES = 30  # of the confusion matrix in a notebook
_COLUMNS = ("id", "label", "person", "fold")
_TEXTS = dict.fromkeys(("id", "person", "fold", "split", "run"), NAME) | {"label": NAMES, "task": optional(NAME)}


@dataclass(frozen=True, eq=False, repr=False)
class Predictions(Displayed):
    """Predictions of n samples, with named rows and classes.

    Of several labels (``multilabel``) and of numbers (``regression``), a class is the name of a label or number.

    Attributes
    ----------
    probabilities : (n, classes) float32; of several labels a probability of each, of a regression the numbers.
    metadata : description of the rows and columns, as in a sidecar file.

    Examples
    --------
    >>> import folds
    >>> made = folds.Predictions.from_array(
    ...     [[0.9, 0.1], [0.2, 0.8]], ids=["a.jpg", "b.jpg"], classes=["cat", "dog"], labels=["cat", "dog"]
    ... )
    >>> made.ids.tolist(), made.classes, made.labels.tolist()
    (['a.jpg', 'b.jpg'], ('cat', 'dog'), ['cat', 'dog'])
    >>> made.score("accuracy").value
    1.0
    """

    probabilities: NDArray[np.float32]
    metadata: PredictionMetadata

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def ids(self) -> NDArray[np.str_]:
        """Return (n,) the ids of the samples."""
        return self.metadata.rows.ids

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class of each column."""
        return self.metadata.classes

    @property
    def labels(self) -> NDArray[np.str_] | None:
        """Return (n,) the true classes, or the attribute's values if an attribute is predicted; None if unknown.

        Of several labels or numbers it is a text of all of them, as in ``hat;?glasses`` (`label_columns` has the
        values), "" if none is known.
        """
        rows = self.metadata.rows
        return rows.labels if self.metadata.target == LABEL else rows.attributes.get(self.metadata.target, rows.labels)

    @property
    def label_columns(self) -> NDArray[np.float64] | None:
        """Return (n, columns) the true labels, 0 and 1, or numbers, nan where one is not known; None for classes, and
        without labels.
        """
        found = self.labels
        if found is None or not self.metadata.has_columns:
            return None
        return label_matrix(found, self.classes, self.task)

    @property
    def task(self) -> str:
        """Return what is predicted: classes, binary, ordinal, multilabel or regression."""
        return self.metadata.task

    @property
    def persons(self) -> NDArray[np.str_] | None:
        """Return (n,) the person (group) of each sample; None if unknown."""
        return self.metadata.rows.persons

    @property
    def fold(self) -> NDArray[np.int64] | None:
        """Return (n,) the fold that each sample was held out in, or whose model predicted it; None if unknown."""
        fold = self.metadata.fold
        return None if fold is None else np.array(np.broadcast_to(fold, len(self)), dtype=np.int64)

    @property
    def split(self) -> str:
        """Return ``oof`` or ``test``."""
        return self.metadata.split

    @property
    def run(self) -> str:
        """Return the name of the run; "" if unknown."""
        return self.metadata.run

    @classmethod
    def from_array(
        cls,
        probabilities: ArrayLike,
        *,
        ids: ArrayLike,
        classes: Sequence[Any] | None = None,
        labels: ArrayLike | None = None,
        persons: ArrayLike | None = None,
        fold: ArrayLike | int | None = None,
        split: str = "oof",
        run: str = "",
        task: str | None = None,
    ) -> Predictions:
        """Return the predictions in an array.

        Parameters
        ----------
        probabilities : (n, classes), rows sum to 1; for a DataFrame the columns are the classes. Of several labels a
            probability of each, from 0 to 1; of a regression numbers, (n,) or (n, columns).
        ids : (n,) a unique id for each sample; predictions are aligned by it, never by position.
        classes : the class, label or number of each column.
        labels, persons : (n,) if known. Several labels or numbers are (n, columns), nan where one is not known, or the
            texts of `labels`.
        fold : (n,) whole numbers from 0, or one number for the model that predicted all rows.
        split : ``oof`` for out-of-fold predictions, ``test`` for others.
        run : a name for the model.
        task : ``classes``, ``multilabel`` (several labels) or ``regression`` (numbers); by default what `labels` say,
            as in `score`.

        Raises
        ------
        UsageError : a length or an index does not match, an id is repeated, a label is not a class, or the array is not
            probabilities.
        """
        kinds = {"split": NAME, "run": NAME, "classes": optional(CLASSES), "task": optional(NAME)}
        check_arguments(locals(), kinds)
        task = task_of_arrays(labels, {"probabilities": probabilities}, task, name="labels")
        if task not in (EXCLUSIVE, *COLUMN_TASKS):
            raise UsageError(f"expected `task` {EXCLUSIVE}, {MULTILABEL} or {REGRESSION}, found `task={task}`")
        of_columns = task in COLUMN_TASKS
        if of_columns:
            values = as_columns(probabilities, "probabilities", task)
            named = {"probabilities": probabilities, "labels": labels}
            names = column_names(named, classes, values.shape[1])
        else:
            values = as_probabilities(probabilities, "probabilities")
            names = column_classes(probabilities, classes)
        if names is None:
            raise UsageError("`classes` must name the class of each column", hint="classes=['cat', 'dog']")
        if len(names) != values.shape[1]:
            raise UsageError(f"`classes` has {len(names)} names for {values.shape[1]} columns of probabilities")
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        n = len(values)
        given = {"probabilities": probabilities, "ids": ids, "labels": labels, "persons": persons, "fold": fold}
        check_same_index({f"`{name}`": value for name, value in given.items()})
        own = names_of(ids, "ids", n)
        distinct, counts = np.unique(own, return_counts=True)
        if len(distinct) < n:
            raise UsageError(
                f"`ids` must be unique, found '{distinct[counts.argmax()]}' {counts.max()} times",
                hint="use one row per sample",
            )
        if of_columns:
            check_column_names(names, task)
            values = as_columns(probabilities, "probabilities", task, names)
            texts = None if labels is None else _texts_of_columns(labels, names, task, n)
        else:
            texts = None if labels is None else names_of(labels, "labels", n)
        rows = SampleRows(own, texts, None if persons is None else names_of(persons, "persons", n))
        if not of_columns and rows.labels is not None and (unknown := sorted(set(rows.labels.tolist()) - set(names))):
            raise UsageError(f"`labels` has '{unknown[0]}', expected one of the classes {', '.join(names[:20])}")
        folds = None if fold is None else fold_numbers(fold, n)
        metadata = PredictionMetadata(kind_of(task), split, names, rows, fold=folds, run=run, task=task)
        return cls(np.ascontiguousarray(values, np.float32), metadata)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        id: str = "id",
        classes: Sequence[Any] | None = None,
        label: str | Sequence[str] = "label",
        person: str = "person",
        fold: str = "fold",
        split: str = "oof",
        run: str = "",
        task: str | None = None,
    ) -> Predictions:
        """Return the predictions in a DataFrame: a column of ids, a column for each class, and optional columns as in
        `frame()`.

        Parameters
        ----------
        id, label, person, fold : names of columns; all except `id` may be absent. Several labels or numbers are in one
            column, as the texts of `labels`, or in a list of columns in the order of `classes`.
        classes : the columns of probabilities, in the order of the result; by default all other columns.
        task : as in `from_array`.

        Raises
        ------
        UsageError : a column is missing, or an error of `from_array`.

        Examples
        --------
        >>> import pandas as pd, folds
        >>> frame = pd.DataFrame({"id": ["a", "b"], "cat": [0.9, 0.2], "dog": [0.1, 0.8]})
        >>> folds.Predictions.from_frame(frame, classes=["dog", "cat"]).probabilities.tolist()[0][1] > 0.8
        True
        """
        if not hasattr(frame, "columns") or not hasattr(frame, "iloc"):
            raise wrong_argument("frame", "a DataFrame", frame, hint="Predictions.from_array takes an array")
        check_arguments(locals(), _TEXTS | {"classes": optional(CLASSES)})
        of_label = [label] if isinstance(label, str) else [str(name) for name in label]
        others = {id, person, fold, *of_label}
        columns = [name for name in frame.columns if name not in others] if classes is None else list(classes)
        for name in (id, *columns, *(() if isinstance(label, str) else of_label)):
            if name not in frame.columns:
                raise unknown_name("column", str(name), list(map(str, frame.columns)))
        probabilities = frame[columns].to_numpy()

        def column(name: str) -> Any:
            return frame[name].to_numpy() if name in frame.columns else None

        labels = column(label) if isinstance(label, str) else frame[of_label].to_numpy()
        task = task_of_arrays(labels, {"frame": probabilities}, task, name="label")
        if classes is None:
            _check_assumed(probabilities, columns, task)

        return cls.from_array(
            probabilities,
            ids=column(id),
            classes=columns,
            labels=labels,
            persons=column(person),
            fold=column(fold),
            split=split,
            run=run,
            task=task,
        )

    @classmethod
    def from_parts(
        cls, probabilities: NDArray[np.floating], metadata: PredictionMetadata, **changes: Any
    ) -> Predictions:
        """Return predictions from probabilities and the metadata of a file; `changes` replaces fields of it."""
        new_metadata = replace(metadata, kind=kind_of(metadata.task), samples_sha=None, **changes)
        return cls(np.ascontiguousarray(probabilities, np.float32), new_metadata)

    def frame(self, prefix: str = "") -> pd.DataFrame:
        """Return a DataFrame with ``id``, and ``label``, ``person``, ``fold`` if known, and a column for each class.

        Parameters
        ----------
        prefix : text before the name of each class, for classes with the name of another column.
        """
        import pandas as pd

        known = {"id": self.ids, "label": self.labels, "person": self.persons, "fold": self.fold}
        columns: dict[str, Any] = {name: values for name, values in known.items() if values is not None}
        clash = [name for name in self.classes if prefix + name in _COLUMNS]
        if clash:
            raise UsageError(
                f"the class '{clash[0]}' has the name of another column", hint="use a prefix: frame(prefix='p_')"
            )
        columns |= {prefix + name: self.probabilities[:, i] for i, name in enumerate(self.classes)}
        return pd.DataFrame(columns)

    def score(self, metric: str | None = None, *, per_person: bool = False) -> Interval:
        """Return the score on the rows with a known label, with its confidence interval over people.

        The predictions of a person's images are averaged with `per_person`, and always if only persons are labeled.

        Parameters
        ----------
        metric : as in `folds.score`; by default macro F1, of several labels ROC-AUC, of numbers the mean absolute
            error.

        Raises
        ------
        UsageError : the metric does not fit the task.
        EnsembleError : no label is known.
        """
        check_arguments(locals(), {"per_person": FLAG})
        found = self.labels
        if found is None or not (found != "").any():
            raise EnsembleError(f"{self._name()} have no labels, which the score needs")
        resolved = metric_for_task(metric, self.task)
        labels = encode_labels(found, self.classes, self.task)
        persons = factorize(self.ids if self.persons is None else self.persons)[1]
        values: NDArray[np.floating] = self.probabilities
        labels, (values,) = in_order_of_metric(resolved, labels, [values], self.classes, self.metadata.scored)
        by_person = per_person or self.metadata.label_of is not None
        units = scored_units(labels, [values], persons, by_person, self.task)
        return interval_over_people(resolved, units.labels, units.predictions[0], units.persons)

    def take(self, index: ArrayLike) -> Predictions:
        """Return the rows at `index`, in that order.

        Parameters
        ----------
        index : positions of rows, or (n,) bool with True for the rows to take.

        Raises
        ------
        UsageError : a position is not a whole number, or there is no such row.
        """
        at = _positions(index, len(self))
        fold = self.metadata.fold
        kept = fold[at] if isinstance(fold, np.ndarray) else fold
        return Predictions(self.probabilities[at], replace(self.metadata, rows=self.metadata.rows.take(at), fold=kept))

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write ``NAME.npy`` and its sidecar ``NAME.json``; return the path.

        Raises
        ------
        UsageError : the name does not end in ``.npy``.
        EnsembleError : other predictions exist there, and `force` is not set.
        """
        check_arguments(locals(), {"path": PATH, "force": FLAG})
        file = Path(path)
        if file.suffix != ".npy":
            raise UsageError(
                f"expected a file name that ends in .npy, found {file}", hint=str(file.with_suffix(".npy"))
            )
        if file.exists() and not force:
            existing = read_sidecar(file) if sidecar_path(file).exists() else None
            if (
                existing is None
                or not _same_rows(existing, self.metadata)
                or not same_values(read_array(file), self.probabilities)
            ):
                raise EnsembleError(
                    f"{file} exists and holds other predictions", hint="give another name, or `force=True`"
                )
            return file
        metadata = replace(self.metadata, kind=kind_of(self.task), samples_sha=None)
        return write_prediction(file, self.probabilities, metadata)

    def to_dict(self) -> dict[str, Any]:
        """Return a summary as plain values."""
        record: dict[str, Any] = {
            "run": self.run,
            "split": self.split,
            "classes": list(self.classes),
            "rows": len(self),
        }
        if self.metadata.has_columns:
            record["task"] = self.task
        record["people"] = None if self.persons is None else len(np.unique(self.persons))
        metric = default_metric(self.task)
        return record | {"score": {metric: self.score().to_dict()} if self._has_labels() else None}

    def display_table(self) -> Table:
        """Return the description for display: the first rows, and the score if labels are known."""
        header = [*(name for name in _COLUMNS if getattr(self, f"{name}s" if name != "fold" else name) is not None)]
        columns = {"id": self.ids, "label": self.labels, "person": self.persons, "fold": self.fold}
        shown = self.classes[:8]
        rows = [
            [*(columns[name][i] for name in header), *(f"{value:.3f}" for value in self.probabilities[i, :8])]  # type: ignore[index]
            for i in range(min(5, len(self)))
        ]
        notes = [f"… {len(self) - 5:,} more rows"] if len(self) > 5 else []
        what = COLUMN_NAMES.get(self.task, "classes")
        notes += [f"… {len(self.classes) - 8} more {what}"] if len(self.classes) > 8 else []
        if self._has_labels():
            found = self.score()
            title = metric_for_task(None, self.task).title
            notes.append(f"{title} {found.text()} (95% CI over people)")
            notes += [f"warning: {found.warning}"] if found.warning else []
        return Table(f"{self._name()}: {len(self):,} × {len(self.classes)} {what}", [*header, *shown], rows, notes)

    def display_parts(self) -> Sequence[str]:
        """Return the confusion matrix of up to `MAX_CLASSES` classes; () without labels, and for several labels or
        numbers.
        """
        if self.metadata.has_columns:
            return ()
        if not self._has_labels() or len(self.classes) > MAX_CLASSES or self.labels is None:
            return ()
        from folds.utils.html import matrix  # here, because only notebooks need it

        known, size = np.flatnonzero(self.labels != ""), len(self.classes)
        code = {name: i for i, name in enumerate(self.classes)}
        labels = np.array([code[name] for name in self.labels[known].tolist()], np.int64)
        counts = crosstab(labels, argmax_classes(self.probabilities[known]), size, size)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        texts = [[f"{share:.3f}" for share in row] for row in shares.tolist()]
        caption = "Confusion matrix: images of each true class by predicted class."
        note = "Rows are true classes; below each count, its share of the row. ensemble.mistakes has its 95% CI."
        return (matrix(self.classes, counts.tolist(), texts, caption=caption, note=note),)

    def _has_labels(self) -> bool:
        return self.labels is not None and bool((self.labels != "").any())

    def _name(self) -> str:
        kind = {"oof": "out-of-fold predictions", "test": "test predictions"}[self.split]
        return f"{kind} of {self.run}" if self.run else kind


def read_predictions(path: str | Path) -> Predictions:
    """Return the predictions in ``NAME.npy`` with the sidecar ``NAME.json``; logits are converted to probabilities.

    Raises
    ------
    UsageError : `path` is not a path.
    EnsembleError : the file or its sidecar is missing or damaged.

    Examples
    --------
    >>> import folds
    >>> made = folds.Predictions.from_array([[0.5, 0.5]], ids=["a"], classes=["cat", "dog"], run="coin")
    >>> path = made.save("coin.oof.npy")
    >>> folds.read_predictions("coin.oof.npy").run
    'coin'
    """
    check_arguments(locals(), {"path": PATH})
    file = Path(path)
    values = read_array(file)
    metadata = read_sidecar(file)
    if metadata is None:
        raise EnsembleError(
            f"{file} has no sidecar {sidecar_path(file).name}, which describes its rows",
            hint="folds.Predictions.from_array(numpy.load(file), ids=…, classes=…)",
        )
    expected = (len(metadata.rows), len(metadata.classes))
    if values.shape != expected:
        raise EnsembleError(
            f"{file} is {values.shape[0]:,} × {values.shape[1]}, but {sidecar_path(file).name} describes "
            f"{expected[0]:,} × {expected[1]}",
            hint="one of the two files was replaced: write both again",
        )
    probabilities = predictions_of(metadata.task, values) if metadata.kind == "logit" else values
    return Predictions(np.array(probabilities, dtype=np.float32), metadata)


def mean_of_folds(paths: Sequence[Path]) -> Predictions | None:
    """Return the mean probabilities of a run's fold models on the same samples; None if there are no files."""
    found = [read_predictions(path) for path in paths]
    if not found:
        return None
    total = np.zeros(found[0].probabilities.shape)
    for one in found:
        total += one.probabilities
    return Predictions.from_parts(total / len(found), found[0].metadata, fold=None, checkpoint_sha=None)


def _texts_of_columns(labels: ArrayLike, names: Sequence[str], task: str, n: int) -> NDArray[np.str_]:
    """Return (n,) the texts of several labels or numbers, given as values (n, columns) or as texts."""
    array = as_array(labels, "labels")
    if array.ndim == 1 and all(isinstance(value, str) for value in array.tolist()):
        try:
            matrix = label_matrix(array.astype(str), names, task)
        except EnsembleError as error:
            raise UsageError(f"`labels`: {error.message}", hint=error.hint) from None
    else:
        matrix = as_label_columns(labels, "labels", task, len(names), names)
    if len(matrix) != n:
        raise UsageError(f"`labels` must be one row for each of {n:,} rows, found {len(matrix):,}")
    return label_texts(matrix, names, task)


def _check_assumed(probabilities: Any, columns: Sequence[Any], task: str) -> None:
    """Log which columns are taken as classes; raise UsageError, naming them, if they are not probabilities."""
    listed = ", ".join(map(str, columns[:20])) + (", …" if len(columns) > 20 else "")
    try:
        _ = (
            as_columns(probabilities, "frame", task)
            if task in COLUMN_TASKS
            else as_probabilities(probabilities, "frame")
        )
    except UsageError as error:
        raise UsageError(
            f"{error.message}; all other columns are taken as classes: {listed}",
            hint="name the columns of the classes in `classes`",
        ) from None
    _log.info("classes: %s (all other columns of the DataFrame)", listed)


def _positions(index: ArrayLike, n: int) -> NDArray[np.int64]:
    array = as_array(index, "index")
    if array.ndim == 1 and array.dtype.kind == "b":
        if len(array) != n:
            raise UsageError(f"`index` must have one value for each of {n:,} rows, found {len(array):,} values")
        return np.flatnonzero(array)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise wrong_argument("index", "a list of positions of rows", index)
    at = array.astype(np.int64)
    outside = at[(at >= n) | (at < -n)]
    if len(outside):
        raise UsageError(f"`index` must be positions of rows, 0 to {n - 1:,}, found {outside[0]:,}")
    return at


def _same_rows(one: PredictionMetadata, other: PredictionMetadata) -> bool:
    def columns(metadata: PredictionMetadata) -> list[Any]:
        rows = metadata.rows
        found = [None if column is None else column.tolist() for column in (rows.ids, rows.labels, rows.persons)]
        fold = metadata.fold.tolist() if isinstance(metadata.fold, np.ndarray) else metadata.fold
        return [*found, fold, metadata.classes, metadata.split, metadata.target]

    return columns(one) == columns(other)
