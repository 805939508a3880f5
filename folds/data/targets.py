"""What a model is trained on and what it predicts: the label, one attribute of it, or one head an attribute joined to
the label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.errors import UsageError, unknown_name
from folds.predictions.files import LABEL

ClassAttributes = Mapping[str, Mapping[str, str]]  # class → {attribute: value}


@dataclass(frozen=True)
class Head:
    """One block of a model's outputs.

    Attributes
    ----------
    name : of the attribute, or ``label``.
    values : what its outputs stand for, in order.
    of_label : (label classes,) the position of each label class's value among `values`.
    """

    name: str
    values: tuple[str, ...]
    of_label: tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """What is trained on (`heads`), and what is predicted and scored (`name`, `classes`).

    Attributes
    ----------
    name : ``label``, or the attribute that is predicted alone.
    classes : of the prediction, in order.
    heads : one for a plain model; several are joined to the label: P(class) ∝ Π P(its value of the attribute).
    """

    name: str
    classes: tuple[str, ...]
    heads: tuple[Head, ...]

    @property
    def joined(self) -> bool:
        """Whether several heads make one prediction."""
        return len(self.heads) > 1

    @property
    def outputs(self) -> int:
        """Numbers that the model gives an image."""
        return sum(len(head.values) for head in self.heads)

    @property
    def head_names(self) -> tuple[str, ...]:
        """The attributes that are joined; () for a plain model."""
        return tuple(head.name for head in self.heads) if self.joined else ()

    def encode_scored(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) label codes → (n,) codes of the classes that are predicted."""
        return codes if self.name == LABEL else np.array(self.heads[0].of_label, np.int64)[codes]

    def encode_heads(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) label codes → (n, heads) codes of each head's values."""
        return np.stack([np.array(head.of_label, np.int64)[codes] for head in self.heads], axis=1)


def determined_attributes(classes: Sequence[str], meaning: ClassAttributes) -> list[str]:
    """The attributes that every class has a value of, in the order in which they come."""
    names = dict.fromkeys(key for values in meaning.values() for key in values)
    return [name for name in names if all(name in meaning.get(label, {}) for label in classes)]


def resolve_target(text: str, classes: Sequence[str], meaning: ClassAttributes) -> Target:
    """The target a name stands for.

    Parameters
    ----------
    text : ``label``; an attribute (``age``); or attributes joined by ``+`` (``mask+gender+age``): one head each.
    classes, meaning : of the label, from the table.

    Raises
    ------
    UsageError : an unknown attribute (the nearest are offered), or attributes that do not tell the classes apart.
    """
    names = [name.strip() for name in text.split("+")]
    if names == [LABEL]:
        return Target(LABEL, tuple(classes), (Head(LABEL, tuple(classes), tuple(range(len(classes)))),))
    known = determined_attributes(classes, meaning)
    for name in names:
        if name not in known:
            hint = (
                f"attributes that the label determines: {', '.join(known)}; joined by +, one head each"
                if known
                else None
            )
            raise unknown_name(
                "--target",
                name,
                [LABEL, *known],
                hint=hint or "this table has no attributes that the label determines: --target label",
            )
    if len(set(names)) < len(names):
        raise UsageError(f"--target {text}: an attribute stands in it twice")
    heads = tuple(_head(name, classes, meaning) for name in names)
    if len(heads) == 1:
        values = heads[0].values
        return Target(names[0], values, heads)
    combinations = list(zip(*(head.of_label for head in heads), strict=True))
    if len(set(combinations)) < len(combinations):
        twice = [
            name for name, combination in zip(classes, combinations, strict=True) if combinations.count(combination) > 1
        ]
        raise UsageError(
            f"--target {text}: {len(twice)} classes are the same in {', '.join(names)}, e.g. {twice[0]} and {twice[1]}",
            hint=f"name all attributes that make the label: {'+'.join(known)}",
        )
    return Target(LABEL, tuple(classes), heads)


def _head(name: str, classes: Sequence[str], meaning: ClassAttributes) -> Head:
    of_class = [meaning[label][name] for label in classes]
    values = tuple(dict.fromkeys(of_class))  # in the order in which the classes have them
    if len(values) < 2:
        raise UsageError(f"--target {name}: all classes have the value '{values[0]}': nothing to learn")
    return Head(name, values, tuple(values.index(value) for value in of_class))


def rebinned(
    labels: Sequence[str],
    meaning: ClassAttributes,
    attribute: str,
    numbers: Sequence[str],
    cuts: Sequence[float],
    where: Sequence[str],
) -> list[str]:
    """The label that each sample is *trained* on where an attribute is cut at other places than for the score.

    Parameters
    ----------
    labels : n official labels.
    meaning : class → {attribute: value}.
    attribute : the one to cut anew, e.g. ``age``.
    numbers : n numbers as text, e.g. ``years``: below the first cut is the lowest value of the attribute, and so on.
    cuts : ascending, one fewer than the attribute has values.
    where : where each sample is written down, for messages.

    Returns
    -------
    n labels: the class that agrees with the official one in all other attributes.

    Raises
    ------
    UsageError : the attribute is unknown, cuts do not fit it, a number is none, or there is no such class.
    """
    known = determined_attributes(labels, meaning)
    if attribute not in known:
        raise unknown_name("rebin", attribute, known)
    wrong = next((i for i, number in enumerate(numbers) if not _is_number(number)), None)
    if wrong is not None:
        raise UsageError(f"rebin of {attribute}: {where[wrong]}: '{numbers[wrong]}' is no number")
    amounts = np.array([float(number) for number in numbers])
    official = np.array([meaning[label][attribute] for label in labels])
    values = [str(value) for value in dict.fromkeys(official.tolist())]
    values.sort(key=lambda value: float(np.mean(amounts[official == value])))
    if list(cuts) != sorted(set(cuts)) or len(cuts) != len(values) - 1:
        raise UsageError(
            f"rebin of {attribute}: expected {len(values) - 1} ascending cuts for {', '.join(values)}, found "
            f"{', '.join(f'{cut:g}' for cut in cuts)}"
        )
    chosen = np.array(values)[np.searchsorted(np.array(cuts, float), amounts, side="right")]
    by_meaning = {tuple(sorted(values_of.items())): name for name, values_of in meaning.items()}
    trained = []
    for i, (label, value) in enumerate(zip(labels, chosen.tolist(), strict=True)):
        other = by_meaning.get(tuple(sorted({**meaning[label], attribute: value}.items())))
        if other is None:
            raise UsageError(f"rebin of {attribute}: {where[i]}: no class is {label} with {attribute} {value}")
        trained.append(other)
    return trained


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
