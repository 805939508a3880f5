"""Describe what a server needs of a model, so that the HTTP layer depends on no library of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ensemble.serving.errors import ServingError
from ensemble.serving.uncertainty import disagreement, entropy, margin


@dataclass(frozen=True)
class Answers:
    """The predictions of some images.

    Attributes
    ----------
    probabilities : (n, classes) float32.
    members : (members, n, classes) probabilities of the single models; None if they are not known.
    decisions : for each image what the decision rules of the model say: ``label`` (None for no answer), ``confidence``
        (the probability that was compared), ``set`` if there are prediction sets; None if the model has no rules.
    """

    probabilities: NDArray[np.float32]
    members: NDArray[np.float32] | None = None
    decisions: Sequence[Mapping[str, Any] | None] | None = None


class ServedModel(Protocol):
    """A model as the server uses it.

    `decode` is called from several threads, `answer` from one.
    """

    @property
    def name(self) -> str:
        """Return the name that answers show."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class of each column."""

    def decode(self, data: bytes, max_pixels: int) -> Any:
        """Return the pixels of an encoded image, as `answer` takes them.

        Raises
        ------
        folds.images.content_index.UnreadableImageError : not an image, damaged, or more than `max_pixels` pixels.
        """

    def answer(self, images: Sequence[Any]) -> Answers:
        """Return the predictions of decoded images, in their order."""

    def describe(self) -> dict[str, Any]:
        """Return plain values that `/model` shows: kind, number of models, score, device."""


@dataclass(frozen=True)
class Answer:
    """The prediction of one image."""

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    uncertainty: Mapping[str, float]
    decision: Mapping[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON shows it; numbers have the shortest digits that give the same float32.

        The label is that of the decision rules, None if they give no answer; without rules it is the most probable
        class.
        """
        values = [float(str(value)) for value in self.probabilities]
        best = int(self.probabilities.argmax())
        record: dict[str, Any] = {
            "label": self.classes[best],
            "confidence": values[best],
            "probabilities": dict(zip(self.classes, values, strict=True)),
            "uncertainty": dict(self.uncertainty),
        }
        if self.decision is not None:
            record |= {name: self.decision[name] for name in ("label", "confidence")}
            record["decision"] = {"most_probable": self.classes[best], "answered": record["label"] is not None}
            record["decision"] |= {"set": self.decision["set"]} if "set" in self.decision else {}
        return record


def split_answers(answers: Answers, classes: tuple[str, ...], images: int) -> list[Answer]:
    """Return one answer per image.

    Raises
    ------
    ServingError : the model returned another shape, or values that are no probabilities.
    """
    values = np.asarray(answers.probabilities, np.float32)
    if values.shape != (images, len(classes)):
        raise ServingError(500, "model", f"expected {(images, len(classes))} probabilities, found {values.shape}")
    if not np.isfinite(values).all() or (values < -1e-6).any() or (np.abs(values.sum(axis=1) - 1) > 1e-3).any():
        raise ServingError(500, "model", "expected probabilities that sum to 1, found others")
    measured = {"entropy": entropy(values), "margin": margin(values)}
    if answers.members is not None and len(answers.members) > 1:
        measured["disagreement"] = disagreement(answers.members, values)
    decisions = answers.decisions or [None] * images
    return [
        Answer(
            classes,
            values[at],
            {name: round(float(column[at]), 6) for name, column in measured.items()},
            decisions[at],
        )
        for at in range(images)
    ]
