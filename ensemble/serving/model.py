"""Describe what a server needs of a model, so that the HTTP layer depends on no library of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ensemble.serving.errors import ServingError
from ensemble.serving.needs import Needs
from ensemble.serving.uncertainty import disagreement, entropy, margin
from folds.metrics.label_scores import is_predicted
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, MULTILABEL, REGRESSION


@dataclass(frozen=True)
class Answers:
    """The predictions of some images.

    Attributes
    ----------
    probabilities : (n, classes) float32.
    members : (members, n, classes) probabilities of the single models; None if they are not known.
    decisions : for each image what the decision rules of the model say: ``label`` (None for no answer), ``confidence``
        (the probability that was compared), ``set`` if there are prediction sets; of several labels ``labels``; None if
        the model has no rules.
    task : what the columns are, one of `folds.metrics.task_names.ALL_TASKS`.
    images : of the answer for a person, those of its images, if the model predicts each of them; None if it does not.
    """

    probabilities: NDArray[np.float32]
    members: NDArray[np.float32] | None = None
    decisions: Sequence[Mapping[str, Any] | None] | None = None
    task: str = CLASSES
    images: Answers | None = None


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

    @property
    def needs(self) -> Needs:
        """Return what it needs beside images; false for most models."""

    def answer(self, images: Sequence[Any]) -> Answers:
        """Return the predictions of decoded images, in their order; not called of a model that `needs` more."""

    def outputs(self, images: Sequence[Any]) -> Sequence[Any]:
        """Return what the single models make of each decoded image, for `combined`; for a model that `needs` more."""

    def combined(self, outputs: Sequence[Any], texts: Mapping[str, str], person: str) -> Answers:
        """Return the one prediction of `outputs`: those of an image, or of all images of a person.

        Parameters
        ----------
        texts : column → value, as `Needs.read` returns them.
        person : the name of the person; "" if it is not known.
        """

    def describe(self) -> dict[str, Any]:
        """Return plain values that `/model` shows: kind, number of models, score, device."""


@dataclass(frozen=True)
class Answer:
    """The prediction of one image, or of one person.

    Attributes
    ----------
    unknown_columns : columns whose text the model does not know, which counted as not known.
    images : of a person, the answers for its images; () if the model has none.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    uncertainty: Mapping[str, float]
    decision: Mapping[str, Any] | None
    task: str = CLASSES
    unknown_columns: tuple[str, ...] = ()
    images: tuple[Answer, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON shows it; numbers have the shortest digits that give the same float32.

        The label is that of the decision rules, None if they give no answer; without rules it is the most probable
        class. Of several labels `labels` are those of the rules, else those with a probability above .5; numbers are
        `values`.
        """
        return self._record() | ({"unknown_columns": list(self.unknown_columns)} if self.unknown_columns else {})

    def _record(self) -> dict[str, Any]:
        values = [float(str(value)) for value in self.probabilities]
        named = dict(zip(self.classes, values, strict=True))
        if self.task == REGRESSION:
            rules = {} if self.decision is None else {"decision": dict(self.decision)}
            return {"values": named, "uncertainty": dict(self.uncertainty), **rules}
        if self.task == MULTILABEL:
            predicted = is_predicted(self.probabilities).tolist()
            there = [name for name, yes in zip(self.classes, predicted, strict=True) if yes]
            there = there if self.decision is None else list(self.decision["labels"])
            found = {"labels": there, "probabilities": named, "uncertainty": dict(self.uncertainty)}
            unsure = None if self.decision is None else self.decision.get("unsure")
            return found if unsure is None else found | {"decision": {"unsure": list(unsure)}}
        best = int(self.probabilities.argmax())
        record: dict[str, Any] = {
            "label": self.classes[best],
            "confidence": values[best],
            "probabilities": named,
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
    if answers.task in COLUMN_TASKS:
        return _answers_of_columns(answers, values, classes)
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


def _answers_of_columns(answers: Answers, values: NDArray[np.float32], classes: tuple[str, ...]) -> list[Answer]:
    """Return one answer per image of several labels or numbers.

    The uncertainty is ``spread``: the largest standard deviation of a column over the single models, in the unit of the
    column. There is no entropy, because the columns are no distribution.

    Raises
    ------
    ServingError : the values are no probabilities, or not finite.
    """
    outside = answers.task == MULTILABEL and ((values < -1e-6).any() or (values > 1 + 1e-6).any())
    if not np.isfinite(values).all() or outside:
        raise ServingError(
            500, "model", f"expected finite {'numbers' if not outside else 'probabilities'}, found others"
        )
    measured = {}
    if answers.members is not None and len(answers.members) > 1:
        measured["spread"] = np.asarray(answers.members, np.float64).std(axis=0).max(axis=1)
    return [
        Answer(
            classes,
            values[at],
            {name: round(float(column[at]), 6) for name, column in measured.items()},
            None if answers.decisions is None else answers.decisions[at],
            answers.task,
        )
        for at in range(len(values))
    ]
