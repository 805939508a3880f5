"""Make a served model of anything that predicts: an exported model, a checkpoint, a run or a blend."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.label_decision import DecidedLabels
from ensemble.decisions.number_decision import HIGH, LOW, DecidedNumbers, NumberDecision
from ensemble.decisions.rows import PERSON
from ensemble.model_files.reading import is_model, read_model
from ensemble.prediction.arrays import LoadedModels, check_expected, numbered
from ensemble.prediction.combine import as_combined, combine_members, member_key
from ensemble.prediction.decisions import check_unit
from ensemble.prediction.member_spread import member_spread
from ensemble.prediction.models import check_rows_compared
from ensemble.prediction.recorded import stack_of
from ensemble.prediction.source import (
    PredictionSource,
    check_one_meaning,
    combination_of_run,
    head_of_people,
    load_source,
    source_of,
)
from ensemble.serving.model import Answers, ServedModel
from ensemble.serving.needs import Needs
from folds.errors import EnsembleError
from folds.images.content_index import UnreadableImageError
from folds.images.decode import decode_image, identify_image
from folds.images.settings import ImageSettings
from folds.metrics.task_names import COLUMN_TASKS
from folds.predictions.rows import SampleRows
from folds.utils.files import sha256_bytes

# A progressive JPEG can have any number of scans, each of which costs the time of an image. Real ones have about 10.
_SCANS = 16


@dataclass(frozen=True)
class Decoded:
    """The pixels of an image in each size, and an id that the same file always has."""

    pixels: Mapping[ImageSettings, NDArray[np.uint8]]
    id: str


@dataclass(frozen=True)
class Output:
    """What the fold models make of one image by itself (`LoadedModels.outputs`), and the id of its content."""

    members: Mapping[str, NDArray[np.floating]]
    id: str


class SourceModel:
    """The loaded models of a source, with their combination.

    Parameters
    ----------
    score : what the training stated, as ``model.toml`` has it; None if it is not known.
    decision : rules for labels, abstention and sets, with the method ``apply`` of `ensemble.decisions`; None for the
        most probable class, or the labels above .5.
    """

    def __init__(
        self,
        source: PredictionSource,
        models: LoadedModels,
        score: Mapping[str, Any] | None = None,
        decision: Any = None,
    ) -> None:
        self.source, self.models, self.score = source, models, score
        self.name, self.classes = source.name, tuple(source.classes)
        self.decision = decision
        made = source.combination
        self.head = head_of_people(source)
        # Rules for people average the images of a person, so such a model answers for people as well; and a head that
        # sees all images of a person needs them together.
        of_people = made.pooling is not None or self.head is not None
        of_people = of_people or (decision is not None and decision.unit == PERSON)
        self.needs = Needs(of_people, () if made.extra is None else made.extra.encodings)

    def decode(self, data: bytes, max_pixels: int) -> Decoded:
        """Return the pixels in each image size of the models, as `ensemble.predict` decodes them."""
        check_scans(data, max_pixels)
        found = {}
        for one in self.models.settings:
            limit = max_pixels if one.max_pixels is None else min(one.max_pixels, max_pixels)
            found[one] = decode_image(data, replace(one, max_pixels=limit)).pixels
        return Decoded(found, sha256_bytes(data))

    def answer(self, images: Sequence[Decoded]) -> Answers:
        """Return the combination for each image, and the probabilities of the single models."""
        pixels = {one: np.stack([image.pixels[one] for image in images]) for one in self.models.settings}
        members: NDArray[np.float32] | None = None
        spread: NDArray[np.float64] | None = None
        if self.source.cascade is not None:  # skips models, so there is no disagreement to show
            values = self.models.cascaded(pixels)
        else:
            predicted = self.models.members(pixels)
            values = combine_members(self.source, predicted, numbered(len(images)))
            members, spread = self._of_label(predicted), member_spread(self.source, predicted)
        decided = self._decided(values, [image.id for image in images], spread=spread)
        return Answers(values, members, decided, self.source.task)

    def outputs(self, images: Sequence[Decoded]) -> list[Output]:
        """Return what the fold models make of each image."""
        pixels = {one: np.stack([image.pixels[one] for image in images]) for one in self.models.settings}
        found = self.models.outputs(pixels)
        return [Output({key: one[at] for key, one in found.items()}, image.id) for at, image in enumerate(images)]

    def combined(self, outputs: Sequence[Output], texts: Mapping[str, str], person: str) -> Answers:
        """Return the prediction of one image, or of one person from all its images.

        The random part of sets is derived from the name of the person; without one, from the contents of the images.
        """
        n, made = len(outputs), self.source.combination
        persons = None if made.pooling is None and self.head is None else np.zeros(n, np.int64).astype(str)
        each = {key: np.stack([one.members[key] for one in outputs]) for key in outputs[0].members}
        members = self.models.with_people(each, persons)
        columns = {name: np.full(n, text) for name, text in texts.items()}
        rows = SampleRows(numbered(n).ids, None, persons, columns)
        values = combine_members(self.source, members, rows)
        key = sha256_bytes(" ".join(sorted(one.id for one in outputs)).encode()) if n > 1 else outputs[0].id
        name = person or key
        averaged = self.needs.of_people and made.pooling is None
        spread = member_spread(self.source, members)
        decided = self._decided(values, [name] * len(values), persons=averaged, spread=spread)
        if not averaged:
            return Answers(values, self._alone(members, rows), decided, self.source.task)
        mean = values.astype(np.float64).mean(axis=0, keepdims=True).astype(np.float32)
        alone = self._alone(members, rows)
        images = None if self.head is None else Answers(values, alone, None, self.source.task)
        alone = None if alone is None else alone.mean(axis=1, keepdims=True)
        return Answers(mean, alone, decided, self.source.task, images)

    def _alone(self, members: Mapping[str, NDArray[np.float32]], rows: SampleRows) -> NDArray[np.float32] | None:
        """Return (members, rows, classes) of the models that predict the classes of the source, each by itself.

        The images of a person are pooled as in the combination; None if no model predicts the classes.
        """
        pooling = self.source.combination.pooling
        if pooling is None:
            return self._of_label(members)
        found = []
        for run in self.source.runs:
            own = run.models and run.target == self.source.target and run.classes == self.classes
            if own or run.hand_over is not None:
                alone = replace(combination_of_run(run.name, self.source.task, self.classes), pooling=pooling)
                for model in run.models:
                    one = replace(self.source, combination=alone, runs=(replace(run, models=(model,)),))
                    found.append(combine_members(one, members, rows))
        return np.stack(found) if found else None

    def describe(self) -> dict[str, Any]:
        """Return kind, number of models, device, score and hash."""
        source = self.source
        return {
            "kind": source.kind,
            **({"task": source.task} if source.task in COLUMN_TASKS else {}),
            **({"unit": PERSON} if self.needs.of_people else {}),
            **({"person_head": self.head} if self.head else {}),
            **({"extra_columns": list(self.needs.columns)} if self.needs.columns else {}),
            "models": len(source.models),
            "device": self.models.device,
            "score": None if self.score is None else dict(self.score),
            "decision": self.decision is not None,
            "sha256": source.sha,
        }

    def _decided(
        self,
        values: NDArray[np.float32],
        ids: Sequence[str],
        persons: bool = False,
        spread: NDArray[np.float64] | None = None,
    ) -> list[dict[str, Any]] | None:
        """Return label, confidence and set of each image by the decision rules, or labels or intervals; None without.

        Parameters
        ----------
        persons : whether the ids are persons, whose rows are averaged by rules for people.
        spread : (n, columns) how much the runs of a blend of numbers differ.
        """
        if self.decision is None:
            return None
        if isinstance(self.decision, NumberDecision):
            return _intervals_of(self.decision.apply(values, list(ids) if persons else None, spread=spread))
        decided = (
            self.decision.apply(values, persons=list(ids)) if persons else self.decision.apply(values, ids=list(ids))
        )
        if isinstance(decided, DecidedLabels):
            records = [{"labels": _named(self.classes, row)} for row in decided.given]
            if decided.unsure is not None:
                records = [
                    one | {"unsure": _named(self.classes, row)}
                    for one, row in zip(records, decided.unsure, strict=True)
                ]
            return records
        found = []
        for at, code in enumerate(decided.codes):
            label = self.classes[code] if code >= 0 else None
            record: dict[str, Any] = {"label": label, "confidence": float(str(np.float32(decided.confidence[at])))}
            if decided.sets is not None:
                record["set"] = [name for name, inside in zip(self.classes, decided.sets[at], strict=True) if inside]
            found.append(record)
        return found

    def _of_label(self, members: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32] | None:
        """Return (members, n, classes) of the models that predict the classes of the source; None if none do."""
        found = []
        for run in self.source.runs:
            if run.hand_over is not None:
                found += [as_combined(run, members[member_key(run, model)]) for model in run.models]
            elif run.models and run.target == self.source.target and set(run.classes) == set(self.classes):
                order = [run.classes.index(name) for name in self.classes]
                found += [members[member_key(run, model)][:, order] for model in run.models]
        return np.stack(found) if found else None


def _named(names: Sequence[str], which: NDArray[np.bool_]) -> list[str]:
    return [name for name, one in zip(names, which.tolist(), strict=True) if one]


def _intervals_of(decided: DecidedNumbers) -> list[dict[str, Any]]:
    """Return the ends of the intervals of each row, None where there is no bound, and the numbers without an answer."""

    def end(value: float) -> float | None:
        with np.errstate(over="ignore"):
            short = np.float32(value)
        return float(str(short)) if np.isfinite(short) else None

    return [
        {
            "intervals": {
                name: {LOW: end(low), HIGH: end(high)}
                for name, low, high in zip(decided.classes, decided.low[at], decided.high[at], strict=True)
            },
            "unanswered": [name for name, asked in zip(decided.classes, decided.asked[at], strict=True) if asked],
        }
        for at in range(len(decided))
    ]


def check_scans(data: bytes, max_pixels: int) -> None:
    """Raise UnreadableImageError for a JPEG whose scans would take far longer than an image of `max_pixels` pixels."""
    scans = data.count(b"\xff\xda") if data.startswith(b"\xff\xd8") else 0
    if scans <= _SCANS:
        return
    height, width = identify_image(io.BytesIO(data), max_pixels)
    if scans * height * width > _SCANS * max_pixels:
        raise UnreadableImageError(
            f"has {scans:,} scans of {height:,} × {width:,} pixels and is not decoded, because it would take too long"
        )


def open_model(what: str | Path, device: str, root: Path) -> ServedModel:
    """Return the model of an exported folder or archive, a checkpoint, a run or a blend.

    Raises
    ------
    EnsembleError : it does not exist, something in it was changed, or it cannot predict single images.
    """
    path = Path(what)
    path = path.parent if path.name == "model.toml" else path
    stored = None
    if is_model(path):
        check_one_meaning(str(what), root)
        stored = read_model(path)
    source = load_source(what, root, with_rows=True, with_heads=True) if stored is None else source_of(stored)
    check_rows_compared(source, 1)
    if head_of_people(source) is not None:
        check_unit(source.decision, True, source.name)
    if stack_of(source):
        raise EnsembleError(
            f"{source.name} reads a stack of files of each sample ({', '.join(stack_of(source))}), and a server is "
            "sent one file",
            hint=f"ensemble predict {source.name} TABLE predicts the samples of a table",
        )
    decision = source.decision
    models = LoadedModels(source, device)
    if stored is None:
        return SourceModel(source, models, decision=decision)
    check_expected(models, stored.expected, stored.record.expected["tolerance"])
    return SourceModel(source, models, stored.record.score or None, decision)
