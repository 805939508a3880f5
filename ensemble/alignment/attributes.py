"""Join attribute predictions (mask, gender, age) to predictions of the label by the attributes of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import Grouping, Present, RunPredictions
from folds.errors import EnsembleError
from folds.utils.text import sort_classes

Factors = Mapping[str, tuple[tuple[str, ...], Sequence[RunPredictions]]]
ClassAttributes = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class JointRun(RunPredictions):
    """Runs of several attributes as one run of the label: P(class) ∝ Π P(value of the class for the attribute).

    The attributes are assumed to be independent given the image. Runs of one attribute are averaged first. If every
    product is 0, all classes get the same probability. The joint run has one vote.

    Attributes
    ----------
    factors : for each attribute, its runs and (classes,) the column of each class's value in their predictions.
    """

    factors: tuple[tuple[tuple[RunPredictions, ...], NDArray[np.int64]], ...] = ()

    @property
    def factor_names(self) -> list[str]:
        """Return the names of the joined runs."""
        return list(dict.fromkeys(run.name for runs, _ in self.factors for run in runs))

    def models(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return (stop − start,) 1 where every attribute has a prediction, otherwise 0."""
        present = np.ones(stop - start, bool)
        for runs, _ in self.factors:
            present &= sum((run.models(start, stop) for run in runs), np.zeros(stop - start, np.int64)) > 0
        return present.astype(np.int64)

    def present(self, start: int, stop: int) -> Present | None:
        """Return (stop − start,) whether every attribute has a prediction; None if that holds for all rows."""
        present = self.models(start, stop) > 0
        return None if present.all() else present

    def raw_block(self, start: int, stop: int) -> None:
        """Return None: the probabilities are computed."""

    def probabilities(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return (stop − start, classes) the normalized product; 0 where an attribute is absent."""
        product = np.ones((stop - start, self.classes))
        for runs, columns in self.factors:
            count = sum((run.models(start, stop) > 0 for run in runs), np.zeros(stop - start, np.int64))
            mean = sum((run.probabilities(start, stop) for run in runs), np.zeros(())) / np.maximum(count, 1)[:, None]
            product *= mean[:, columns]
        total = product.sum(axis=1, keepdims=True)
        product = np.where(total > 0, product / np.where(total > 0, total, 1), 1 / self.classes)
        product[self.models(start, stop) == 0] = 0
        return product

    def votes(self, start: int, stop: int, grouping: Grouping | None = None) -> NDArray[np.float64]:
        """Return (stop − start, classes or groups) 1 for the most probable one; 0 where an attribute is absent."""
        values = self.probabilities(start, stop)
        values = values if grouping is None else grouping.sums(values)
        votes = np.zeros(values.shape)
        votes[np.arange(stop - start), values.argmax(axis=1)] = self.models(start, stop)
        return votes

    def take(self, index: NDArray[np.int64], length: int) -> JointRun:
        """Return the run restricted to the rows `index` of `length`."""
        return replace(
            self,
            factors=tuple((tuple(run.take(index, length) for run in runs), columns) for runs, columns in self.factors),
        )


def label_classes(targets: Sequence[str], class_attributes: ClassAttributes) -> tuple[str, ...]:
    """Return the classes of the label if all members predict attributes.

    Raises
    ------
    EnsembleError : no file gives the classes' values of these attributes.
    """
    classes = sort_classes([name for name, values in class_attributes.items() if set(targets) <= set(values)])
    if not classes:
        raise EnsembleError(
            f"cannot join predictions of {', '.join(targets)}: no file has class_attributes with these attributes",
            hint="select one attribute with `runs`, or add a run trained on the label, with class_attributes",
        )
    return classes


def join_attributes(factors: Factors, classes: Sequence[str], class_attributes: ClassAttributes) -> list[JointRun]:
    """Return attribute runs as runs of the label: one for each run with every attribute, and one for all other runs.

    Parameters
    ----------
    factors : attribute → its values in order, and its runs.
    class_attributes : class → attribute → value.

    Raises
    ------
    EnsembleError : a class's value of an attribute is unknown or not predicted, or two classes have the same values.
    """
    columns = {
        attribute: _columns(attribute, values, classes, class_attributes) for attribute, (values, _) in factors.items()
    }
    first: dict[tuple[int, ...], str] = {}
    for i, name in enumerate(classes):
        duplicate = first.setdefault(tuple(int(column[i]) for column in columns.values()), name)
        if duplicate != name:
            raise EnsembleError(
                f"classes '{duplicate}' and '{name}' have the same {', '.join(factors)}",
                hint="add the runs of the missing attribute, or exclude the attribute runs with `runs`",
            )
    complete = set.intersection(*({run.name for run in runs} for _, runs in factors.values()))
    partial = {attribute: [run for run in runs if run.name not in complete] for attribute, (_, runs) in factors.items()}
    if not all(partial.values()) and any(partial.values()):
        complete, partial = set(), {attribute: list(runs) for attribute, (_, runs) in factors.items()}
    groups = [
        (name, {key: [run for run in runs if run.name == name] for key, (_, runs) in factors.items()})
        for name in sorted(complete)
    ]
    if any(partial.values()):
        groups.append(("+".join(factors), partial))
    return [_joined(name, parts, columns, len(classes)) for name, parts in groups]


def _joined(
    name: str, parts: Mapping[str, Sequence[RunPredictions]], columns: Mapping[str, NDArray[np.int64]], classes: int
) -> JointRun:
    folds = set.intersection(*({fold for run in runs for fold in run.folds} for runs in parts.values()))
    files = tuple(part for runs in parts.values() for run in runs for part in run.parts)
    factors = tuple((tuple(runs), columns[attribute]) for attribute, runs in parts.items())
    return JointRun(name, files, classes, tuple(sorted(folds)), factors=factors)


def _columns(
    attribute: str, values: Sequence[str], classes: Sequence[str], class_attributes: ClassAttributes
) -> NDArray[np.int64]:
    unknown = [name for name in classes if attribute not in class_attributes.get(name, {})]
    if unknown:
        known = sorted({key for name in classes for key in class_attributes.get(name, {})})
        raise EnsembleError(
            f"cannot join predictions of {attribute} to the label: "
            f"class_attributes have no {attribute} for class '{unknown[0]}'",
            hint=f"class_attributes have {', '.join(known)}"
            if known
            else "select the label runs with `runs`; their sidecars have no class_attributes",
        )
    wanted = [class_attributes[name][attribute] for name in classes]
    missing = [value for value in dict.fromkeys(wanted) if value not in values]
    if missing:
        raise EnsembleError(
            f"predictions of {attribute} need a column '{missing[0]}' for class '{classes[wanted.index(missing[0])]}', "
            f"found {', '.join(values)}",
            hint="add the column, or exclude these runs with `runs`",
        )
    return np.array([list(values).index(value) for value in wanted], dtype=np.int64)
