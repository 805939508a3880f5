"""The section that shows what a model looked at: heat maps of mistakes, of right predictions, and of test images."""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ensemble.report.evidence.evidence import Evidence, Part, Predicted, TableRecord
from ensemble.report.evidence.mistakes_data import change_text, class_values
from ensemble.report.heatmaps.column_heatmaps import Choice, column_choices, explain_columns
from ensemble.report.page.blocks import Block, Figure, Gallery, Missing, Picture, Section, Text
from folds.errors import EnsembleError
from folds.metrics.classification import METRICS, recorded_metric
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.utils.text import counted

if TYPE_CHECKING:
    from ensemble.explain.result import HeatMaps

_SEED = 0
_FOR_ONE = 8  # heat maps that the hints suggest
_WHAT = "What the models looked at: heat maps of the worst mistakes and of typical right predictions."
_NOUN = {MULTILABEL: "label", REGRESSION: "number"}
_WORST = {MULTILABEL: "the least probable answer", REGRESSION: "the largest error"}
_FOR = {MULTILABEL: "the label of the caption", REGRESSION: "what makes the number larger"}
_EVIDENCE = {MULTILABEL: "for the label of the caption", REGRESSION: "that makes the number larger"}
_WHERE = (
    "It says where, not why, and a place without heat may still matter. Heat beside the subject (a border, a mark, the "
    "background) in several images is a reason to test: cover that place, or crop it away, and score again.",
)


def how_to_read(task: str) -> tuple[str, str]:
    """Return what the heat shows and what it does not show."""
    what = _EVIDENCE.get(task, "for the class that it predicted")
    return (
        f"The heat shows where the model found evidence {what}, relative to the hottest place of the same image: it "
        "can be compared within an image, not between images.",
        *_WHERE,
    )


def heatmaps_section(evidence: Evidence) -> Section:
    """Return the section on what a model looked at; it makes the maps, which costs a prediction pass per image.

    Of the `heat_maps` out-of-fold images, half are the worst mistakes, one per person, and half are right predictions
    drawn with a fixed seed, class after class. Each is explained by the model that has not seen its person. Half as
    many test images, drawn without looking at their labels, get the mean over the fold models and their disagreement.
    """
    lead = "What a model looked at in images of people it has not seen, and where the models of the folds disagree."
    return Section("heat-maps", "Heat maps", lead, _blocks(evidence))


def _blocks(evidence: Evidence) -> tuple[Block, ...]:
    if evidence.heat_maps < 1:
        return (Missing(_WHAT, f"Add `--heat-maps {_FOR_ONE}` to the command: they take a prediction pass per image."),)
    if importlib.util.find_spec("pytorch_grad_cam") is None:
        return (Missing(_WHAT, "Install the library: `pip install 'ensemble-folds[explain]'`"),)
    part = evidence.oof
    if part is None or not part.has_label.any():
        return (Missing(_WHAT, "They are chosen by out-of-fold predictions and labels: `ensemble kfold` writes both."),)
    member = _explained_run(evidence, part)
    if member is None:
        hint = (
            f"Keep checkpoints/RUN of a run, or train one: ensemble kfold (looked in {evidence.root / 'checkpoints'})."
        )
        return (Missing(_WHAT, hint),)
    columns = column_choices(evidence, part, member, _SEED) if evidence.has_columns else []
    chosen = {} if evidence.has_columns else _chosen(part, member, evidence)
    if not chosen and not columns:
        return (Missing(_WHAT, "The images cannot be read where the table names them: give their folder."),)
    try:
        return _galleries(evidence, part, member, chosen, columns)
    except EnsembleError as error:
        return (Missing(_WHAT, f"{error.message}" + (f": {error.hint}" if error.hint else "")),)


def _explained_run(evidence: Evidence, part: Part) -> Predicted | None:
    """Return the recommended run, or else the run with the best out-of-fold score, if its checkpoints are there."""
    there = [
        member
        for member in part.members
        if member.kind == "run"
        and _is_plain(member.name)
        and (evidence.root / "checkpoints" / member.name).is_dir()
        and any((evidence.root / "checkpoints" / member.name).glob("fold*.pt"))
    ]
    recommended = next((member for member in there if member.name == evidence.recommended), None)
    if recommended is not None or not there:
        return recommended
    metric = recorded_metric(evidence.metric) or METRICS["macro_f1"]
    sign = 1.0 if metric.greater_is_better else -1.0

    def score(member: Predicted) -> float:
        rows = member.present & part.has_label
        if not rows.any():
            return -np.inf
        return sign * float(metric(part.labels[rows], member.probabilities[rows]))

    return max(there, key=score)


def _is_plain(name: str) -> bool:
    """Return whether a name is that of a folder below another one: names come from files of strangers."""
    return not any(one in name for one in "/\\\0") and name not in ("", ".", "..")


def _chosen(part: Part, member: Predicted, evidence: Evidence) -> dict[int, str]:
    """Return row → kind of the images to explain: the worst mistakes first, then right predictions of every class."""
    known = np.array([one in evidence.paths for one in part.ids.tolist()]) & member.present & (part.labels >= 0)
    predicted = np.where(known, np.nan_to_num(member.probabilities).argmax(1), -1)
    wrong = np.flatnonzero(known & (predicted != part.labels))
    right = np.flatnonzero(known & (predicted == part.labels))
    certain = member.probabilities[wrong, predicted[wrong]]
    found: dict[int, str] = {}
    people: set[str] = set()
    for row in wrong[np.argsort(-certain, kind="stable")].tolist():
        if len(found) >= -(-evidence.heat_maps // 2):
            break
        if str(part.persons[row]) not in people:
            people.add(str(part.persons[row]))
            found[row] = "mistake"
    random = np.random.default_rng(_SEED)
    by_class = [random.permutation(right[part.labels[right] == code]).tolist() for code in range(len(evidence.classes))]
    for turn in range(max(map(len, by_class), default=0)):
        for rows in by_class:
            if turn < len(rows) and len(found) < evidence.heat_maps:
                found[rows[turn]] = "right"
    return found


def _galleries(
    evidence: Evidence, part: Part, member: Predicted, chosen: dict[int, str], columns: Sequence[Choice]
) -> tuple[Block, ...]:
    """Return the galleries: of classes the chosen rows with their kind, of labels and numbers the chosen columns."""
    from ensemble.explain.assignment import Image, assign, load_models
    from ensemble.explain.images import explain_images
    from ensemble.explain.overlay import scale_svg

    models = load_models(str(evidence.root / "checkpoints" / member.name), None, evidence.root)

    def explained(of: Part, rows: Sequence[int], names: Sequence[str] = ()) -> HeatMaps:
        if evidence.has_columns:
            images = [Image(str(of.ids[row]), evidence.paths[str(of.ids[row])]) for row in rows]
            return explain_columns(models, assign(images, models, forced=False), names)
        codes = [int(of.labels[row]) for row in rows]
        ids = [str(of.ids[row]) for row in rows]
        labels = [None if code < 0 else evidence.classes[code] for code in codes]
        images = [Image(name, evidence.paths[name], label) for name, label in zip(ids, labels, strict=True)]
        return explain_images(models, assign(images, models, forced=False))

    rows = [one.row for one in columns] or list(chosen)
    kinds = [one.kind for one in columns] or list(chosen.values())
    found = explained(part, rows, [one.name for one in columns])
    aspects = _aspects(evidence.table)
    mistakes = sum(kind == "mistake" for kind in kinds)
    right = len(rows) - mistakes
    about = (
        f"Run {member.name}, {found.method} on {found.place}: {found.cells[0]} × {found.cells[1]} cells per image. "
        f"{counted(mistakes, 'worst mistake')} (one per person, {_WORST.get(evidence.task, 'the most certain')} "
        f"first) and {counted(right, 'right prediction')} (drawn with seed {_SEED}, "
        f"{_NOUN.get(evidence.task, 'class')} after {_NOUN.get(evidence.task, 'class')})."
    )
    title = "Scale of the heat"
    what = "Of the heat and of the mean heat: 0 is clear, 1 the hottest place of the image."
    blocks: list[Block] = [
        Text((answer(found, kinds), about, *how_to_read(evidence.task))),
        Figure("heat-maps-scale", scale_svg(title, what, "0: no heat", "1: hottest"), title, what),
        Gallery(
            "heat-maps-oof",
            "Out of fold: each image with the model that has not seen its person.",
            _pictures(found, kinds, evidence, aspects, [one.truth for one in columns]),
            note="Left the input of the model, in the proportions of the file; right the heat for "
            f"{_FOR.get(evidence.task, 'the predicted class')}.",
            wide=True,
        ),
    ]
    test = evidence.test
    drawn = [] if test is None else _drawn(test, evidence)
    if test is not None and drawn:
        named = evidence.classes[0] if evidence.task == REGRESSION else ""
        of_test = explained(test, drawn, [named] * len(drawn))
        spread = float(np.nanmean(of_test.spread)) if np.isfinite(of_test.spread).any() else float("nan")
        note = f"Left to right: input, mean heat of {len(models)} fold models, "
        note += "their standard deviation (the same colors, from 0 to 0.5)."
        if np.isfinite(spread):
            note += f" Where the mean is hot, the deviation is {spread:.2f} on average."
        blocks.append(
            Gallery(
                "heat-maps-test",
                f"Test images, drawn with seed {_SEED}: the mean over the fold models, and where they disagree.",
                _pictures(of_test, ["test"] * len(drawn), evidence, aspects),
                note=note,
                wide=True,
            )
        )
    return tuple(blocks)


def _drawn(part: Part, evidence: Evidence) -> list[int]:
    there: NDArray[np.int64] = np.flatnonzero([one in evidence.paths for one in part.ids.tolist()])
    some = np.random.default_rng(_SEED).permutation(there)[: max(1, evidence.heat_maps // 2)]
    return sorted(map(int, some))


def answer(found: HeatMaps, kinds: Sequence[str]) -> str:
    """Return how much of the heat lies in the center of the images, and at their border.

    Parameters
    ----------
    kinds : ``mistake`` or ``right`` for each image.
    """
    total = found.maps.sum(axis=(1, 2), dtype=np.float64)
    hot = total > 0
    if not hot.any():
        return "No image has heat."
    height, width = found.maps.shape[1:]
    center = found.maps[:, _inner(height, 4), _inner(width, 4)].sum(axis=(1, 2), dtype=np.float64)
    inside = found.maps[:, _inner(height, 8), _inner(width, 8)].sum(axis=(1, 2), dtype=np.float64)

    def shares(rows: NDArray[np.bool_]) -> str:
        middle, edge = center[rows] / total[rows], 1 - inside[rows] / total[rows]
        return f"{middle.mean():.0%} in the center and {edge.mean():.0%} at the border"

    middle = _size(height, 4) * _size(width, 4) / (height * width)
    edge = 1 - _size(height, 8) * _size(width, 8) / (height * width)
    line = (
        f"Of the heat, {shares(hot)} (center: the middle half of height and width, {middle:.0%} of the area; "
        f"border: the outer eighth on each side, {edge:.0%})."
    )
    wrong = np.array([kind == "mistake" for kind in kinds])
    if (hot & wrong).any() and (hot & ~wrong).any():
        line += f" In mistakes it is {shares(hot & wrong)}, in right predictions {shares(hot & ~wrong)}."
    return line


def _inner(length: int, part: int) -> slice:
    """Return the places of an axis without its first and its last part: a quarter, or an eighth."""
    return slice(length // part, length - length // part)


def _size(length: int, part: int) -> int:
    return length - 2 * (length // part)


def _aspects(table: TableRecord | None) -> dict[str, float]:
    """Return id → width ÷ height of its file, as far as they are known."""
    if table is None or table.width is None or table.height is None:
        return {}
    known = (table.width > 0) & (table.height > 0)
    ratio = np.where(known, table.width / np.maximum(table.height, 1), 1.0)
    return dict(zip(table.ids[known].tolist(), ratio[known].tolist(), strict=True))


def _is_squashed(evidence: Evidence, run: str) -> bool:
    """Return whether the input of a run is the whole image, without its proportions."""
    record = evidence.runs.get(run)
    return record is not None and str(record.config.get("resize", "squash")) == "squash"


def _pictures(
    found: HeatMaps,
    kinds: Sequence[str],
    evidence: Evidence,
    aspects: Mapping[str, float],
    truths: Sequence[str] = (),
) -> tuple[Picture, ...]:
    from ensemble.explain.overlay import encode, enlarged

    pictures, squashed = [], _is_squashed(evidence, found.run)
    values = class_values(evidence)
    found = replace(found, classes=tuple(map(evidence.class_title, found.classes)))
    own = found.pixels.shape[2] / found.pixels.shape[1]
    for row, kind in enumerate(kinds):
        aspect = aspects.get(found.ids[row], own) if squashed else own
        strip = np.concatenate([enlarged(pixels, aspect) for _, pixels in found.panels(row)], axis=1)
        source = f"data:image/jpeg;base64,{base64.b64encode(encode(strip, 'jpeg')).decode()}"
        if evidence.has_columns:
            name = found.classes[int(found.explained[row])]
            known = [truths[row]] if truths and truths[row] else []
            shown = (*known, *found.caption(row)[1:])
            pictures.append(Picture(source, found.ids[row], shown, {"kind": kind, _NOUN[evidence.task]: name}))
            continue
        predicted, true = int(found.predicted[row]), int(found.true[row])
        tags = {"kind": kind, "predicted": found.classes[predicted]}
        lines = list(found.caption(row)[1:])
        if true >= 0:
            tags["true"] = found.classes[true]
            differs = change_text(values, true, predicted)
            lines = [*([differs] if differs else []), *lines]
        pictures.append(Picture(source, found.ids[row], tuple(lines), tags))
    return tuple(pictures)
