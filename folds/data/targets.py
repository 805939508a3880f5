"""Define the target of a model: the label, one attribute of it, or one head per attribute, joined to the label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.errors import UsageError, unknown_name
from folds.metrics.task_names import CLASSES, COLUMN_TASKS
from folds.predictions.files import LABEL

ClassAttributes = Mapping[str, Mapping[str, str]]  # class → {attribute: value}


@dataclass(frozen=True)
class Head:
    """One block of a model's outputs.

    Attributes
    ----------
    name : name of the attribute, or ``label``.
    values : value of each output, in order; with several labels or numbers their names.
    of_label : (label classes,) index in `values` of the value of each label class.
    """

    name: str
    values: tuple[str, ...]
    of_label: tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """Training target (`heads`), and the predicted and scored variable (`name`, `classes`).

    Attributes
    ----------
    name : ``label``, or the one attribute that is predicted.
    classes : classes of the prediction, in order.
    heads : one for a plain model; several are joined to the label: P(class) ∝ Π P(its value of the attribute).
    task : ``multilabel`` or ``regression``, for which `classes` are the names of the columns; ``classes`` for one class
        of an image, whatever the classes are.
    """

    name: str
    classes: tuple[str, ...]
    heads: tuple[Head, ...]
    task: str = CLASSES

    @property
    def has_columns(self) -> bool:
        """Return whether every column has labels or numbers of its own (`COLUMN_TASKS`)."""
        return self.task in COLUMN_TASKS

    @property
    def joined(self) -> bool:
        """Return whether several heads are joined to one prediction."""
        return len(self.heads) > 1

    @property
    def outputs(self) -> int:
        """Return the number of outputs of the model per image."""
        return sum(len(head.values) for head in self.heads)

    @property
    def head_names(self) -> tuple[str, ...]:
        """Return the attributes that are joined; () for a plain model."""
        return tuple(head.name for head in self.heads) if self.joined else ()

    def encode_scored(self, codes: NDArray) -> NDArray:
        """Return (n,) codes of the predicted classes for (n,) label codes; a matrix of columns as it is."""
        return codes if self.name == LABEL else np.array(self.heads[0].of_label, np.int64)[codes]

    def encode_heads(self, codes: NDArray) -> NDArray:
        """Return (n, heads) codes of the values of each head for (n,) label codes; float32 for a matrix of columns."""
        if self.has_columns:
            return codes.astype(np.float32)
        return np.stack([np.array(head.of_label, np.int64)[codes] for head in self.heads], axis=1)


def determined_attributes(classes: Sequence[str], class_attributes: ClassAttributes) -> list[str]:
    """Return the attributes for which every class has a value, in the order of `class_attributes`."""
    names = dict.fromkeys(key for values in class_attributes.values() for key in values)
    return [name for name in names if all(name in class_attributes.get(label, {}) for label in classes)]


def resolve_target(
    text: str,
    classes: Sequence[str],
    class_attributes: ClassAttributes,
    order: Sequence[str] = (),
    task: str | None = None,
) -> Target:
    """Return the target for a name.

    Parameters
    ----------
    text : ``label``; an attribute (``age``); or attributes joined by ``+`` (``mask+gender+age``), with one head each.
    classes, class_attributes : classes of the label and their attributes, from the table.
    order : values of a single attribute in the order of their grades; () for the order of the classes.
    task : one of `folds.metrics.task_names.ALL_TASKS`; None for classes.

    Raises
    ------
    UsageError : an unknown attribute (similar names are suggested), or attributes that do not distinguish the classes.
    """
    names = [name.strip() for name in text.split("+")]
    if names == [LABEL]:
        head = Head(LABEL, tuple(classes), tuple(range(len(classes))))
        return Target(LABEL, tuple(classes), (head,), task if task in COLUMN_TASKS else CLASSES)
    known = determined_attributes(classes, class_attributes)
    for name in names:
        if name not in known:
            hint = (
                f"attributes that the label determines: {', '.join(known)}; join several with +, one head each"
                if known
                else None
            )
            raise unknown_name(
                "`target`",
                name,
                [LABEL, *known],
                hint=hint or "this table has no attributes that the label determines: use `target=label`",
            )
    if len(set(names)) < len(names):
        raise UsageError(f"`target={text}` names an attribute twice", hint="name each attribute once")
    values_in_order = tuple(order) if len(names) == 1 else ()
    heads = tuple(_head(name, classes, class_attributes, values_in_order) for name in names)
    if len(heads) == 1:
        values = heads[0].values
        return Target(names[0], values, heads)
    combinations = list(zip(*(head.of_label for head in heads), strict=True))
    if len(set(combinations)) < len(combinations):
        equal = [
            name for name, combination in zip(classes, combinations, strict=True) if combinations.count(combination) > 1
        ]
        raise UsageError(
            f"`target={text}`: {len(equal)} classes have equal {', '.join(names)}, e.g. {equal[0]} and {equal[1]}",
            hint=f"name all attributes of the label: {'+'.join(known)}",
        )
    return Target(LABEL, tuple(classes), heads)


def _head(name: str, classes: Sequence[str], class_attributes: ClassAttributes, order: tuple[str, ...] = ()) -> Head:
    of_class = [class_attributes[label][name] for label in classes]
    values = tuple(dict.fromkeys(of_class))  # in the order of the classes
    values = order if set(order) == set(values) else values
    if len(values) < 2:
        raise UsageError(
            f"`target={name}` needs at least two values, but all classes have the value '{values[0]}'",
            hint="name another attribute, or `target=label`",
        )
    return Head(name, values, tuple(values.index(value) for value in of_class))


def rebinned(
    labels: Sequence[str],
    class_attributes: ClassAttributes,
    attribute: str,
    numbers: Sequence[str],
    cuts: Sequence[float],
    locations: Sequence[str],
) -> list[str]:
    """Return the training label of each sample if an attribute is binned differently for training than for the score.

    Parameters
    ----------
    labels : n official labels.
    class_attributes : class → {attribute: value}.
    attribute : the attribute to bin again, e.g. ``age``.
    numbers : n numbers as text, e.g. ``years``; numbers below the first cut get the lowest value of the attribute, etc.
    cuts : ascending thresholds, one fewer than the attribute has values.
    locations : location of each sample in the table, for messages.

    Returns
    -------
    n labels, each the class that agrees with the official label in all other attributes.

    Raises
    ------
    UsageError : unknown attribute, wrong number or order of cuts, a cell that is not a number, or no such class.
    """
    known = determined_attributes(labels, class_attributes)
    if attribute not in known:
        raise unknown_name("rebin", attribute, known)
    wrong = next((i for i, number in enumerate(numbers) if not _is_number(number)), None)
    if wrong is not None:
        raise UsageError(f"rebin of {attribute}: {locations[wrong]}: expected a number, found '{numbers[wrong]}'")
    amounts = np.array([float(number) for number in numbers])
    official = np.array([class_attributes[label][attribute] for label in labels])
    values = [str(value) for value in dict.fromkeys(official.tolist())]
    values.sort(key=lambda value: float(np.mean(amounts[official == value])))
    if list(cuts) != sorted(set(cuts)) or len(cuts) != len(values) - 1:
        raise UsageError(
            f"rebin of {attribute}: expected {len(values) - 1} ascending cuts for {', '.join(values)}, found "
            f"{', '.join(f'{cut:g}' for cut in cuts)}"
        )
    new_values = np.array(values)[np.searchsorted(np.array(cuts, float), amounts, side="right")]
    class_by_attributes = {tuple(sorted(values_of.items())): name for name, values_of in class_attributes.items()}
    training_labels = []
    for i, (label, value) in enumerate(zip(labels, new_values.tolist(), strict=True)):
        other = class_by_attributes.get(tuple(sorted({**class_attributes[label], attribute: value}.items())))
        if other is None:
            raise UsageError(f"rebin of {attribute}: {locations[i]}: no class equals {label} with {attribute} {value}")
        training_labels.append(other)
    return training_labels


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
