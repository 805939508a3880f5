"""Attribute predictions (mask, gender, age) joined to predictions of the label by what each class means."""

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
    """Runs of several attributes as one run of the label: P(class) ∝ Π P(its value of the attribute).

    That takes the attributes for independent given the image. Runs of one attribute are averaged first; where the
    attributes contradict each other outright (every product is 0) all classes are equal. It has one vote.

    Attributes
    ----------
    factors : for each attribute its runs, and (classes,) the column of each class's value in them.
    """

    factors: tuple[tuple[tuple[RunPredictions, ...], NDArray[np.int64]], ...] = ()

    @property
    def factor_names(self) -> list[str]:
        """The runs that are joined."""
        return list(dict.fromkeys(run.name for runs, _ in self.factors for run in runs))

    def models(self, start: int, stop: int) -> NDArray[np.int64]:
        """1 where every attribute has a prediction, otherwise 0."""
        present = np.ones(stop - start, bool)
        for runs, _ in self.factors:
            present &= sum((run.models(start, stop) for run in runs), np.zeros(stop - start, np.int64)) > 0
        return present.astype(np.int64)

    def present(self, start: int, stop: int) -> Present | None:
        """(stop − start,) whether every attribute has a prediction; None where that is so of all."""
        present = self.models(start, stop) > 0
        return None if present.all() else present

    def raw_block(self, start: int, stop: int) -> None:
        """None: its probabilities are computed."""

    def probabilities(self, start: int, stop: int) -> NDArray[np.float64]:
        """(stop − start, classes) the normalised product; 0 where an attribute is absent."""
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
        """(stop − start, classes or groups) 1 for the most probable; 0 where an attribute is absent."""
        values = self.probabilities(start, stop)
        values = values if grouping is None else grouping.sums(values)
        votes = np.zeros(values.shape)
        votes[np.arange(stop - start), values.argmax(axis=1)] = self.models(start, stop)
        return votes

    def take(self, index: NDArray[np.int64], length: int) -> JointRun:
        """The run on the rows `index` of `length`."""
        return replace(
            self,
            factors=tuple((tuple(run.take(index, length) for run in runs), columns) for runs, columns in self.factors),
        )


def label_classes(targets: Sequence[str], meaning: ClassAttributes) -> tuple[str, ...]:
    """The classes that attribute members alone can be joined to.

    Raises
    ------
    EnsembleError : no file says what the classes are in these attributes.
    """
    classes = sort_classes([name for name, values in meaning.items() if set(targets) <= set(values)])
    if not classes:
        raise EnsembleError(
            f"predictions of {', '.join(targets)} cannot be joined: no file says what the classes are in these attributes",
            hint="blend one of them alone with `runs`, or add a run trained on the label, whose sidecar has class_attributes",
        )
    return classes


def join_attributes(factors: Factors, classes: Sequence[str], meaning: ClassAttributes) -> list[JointRun]:
    """Attribute runs as runs of the label: one for each run that predicts every attribute, the others together as one.

    Parameters
    ----------
    factors : attribute → its values in order, and its runs.
    meaning : class → attribute → value.

    Raises
    ------
    EnsembleError : a class's value of an attribute is not known or not predicted, or two classes have the same values.
    """
    columns = {attribute: _columns(attribute, values, classes, meaning) for attribute, (values, _) in factors.items()}
    first: dict[tuple[int, ...], str] = {}
    for i, name in enumerate(classes):
        twin = first.setdefault(tuple(int(column[i]) for column in columns.values()), name)
        if twin != name:
            raise EnsembleError(
                f"classes '{twin}' and '{name}' cannot be told apart by {', '.join(factors)}",
                hint="add the runs of the missing attribute, or leave the attribute runs out with `runs`",
            )
    everywhere = set.intersection(*({run.name for run in runs} for _, runs in factors.values()))
    rest = {attribute: [run for run in runs if run.name not in everywhere] for attribute, (_, runs) in factors.items()}
    if not all(rest.values()) and any(rest.values()):
        everywhere, rest = set(), {attribute: list(runs) for attribute, (_, runs) in factors.items()}
    chosen = [
        (name, {a: [run for run in runs if run.name == name] for a, (_, runs) in factors.items()})
        for name in sorted(everywhere)
    ]
    if any(rest.values()):
        chosen.append(("+".join(factors), rest))
    return [_joined(name, parts, columns, len(classes)) for name, parts in chosen]


def _joined(
    name: str, parts: Mapping[str, Sequence[RunPredictions]], columns: Mapping[str, NDArray[np.int64]], classes: int
) -> JointRun:
    folds = set.intersection(*({fold for run in runs for fold in run.folds} for runs in parts.values()))
    files = tuple(part for runs in parts.values() for run in runs for part in run.parts)
    factors = tuple((tuple(runs), columns[attribute]) for attribute, runs in parts.items())
    return JointRun(name, files, classes, tuple(sorted(folds)), factors=factors)


def _columns(
    attribute: str, values: Sequence[str], classes: Sequence[str], meaning: ClassAttributes
) -> NDArray[np.int64]:
    unknown = [name for name in classes if attribute not in meaning.get(name, {})]
    if unknown:
        known = sorted({key for name in classes for key in meaning.get(name, {})})
        raise EnsembleError(
            f"predictions of {attribute} cannot be joined to the label: class_attributes do not say what class '{unknown[0]}' is in {attribute}",
            hint=f"they tell {', '.join(known)}"
            if known
            else "blend the label runs alone with `runs`; their sidecars have no class_attributes",
        )
    wanted = [meaning[name][attribute] for name in classes]
    missing = [value for value in dict.fromkeys(wanted) if value not in values]
    if missing:
        raise EnsembleError(
            f"predictions of {attribute} have no column '{missing[0]}', which class '{classes[wanted.index(missing[0])]}' needs",
            hint=f"their columns are {', '.join(values)}",
        )
    return np.array([list(values).index(value) for value in wanted], dtype=np.int64)
