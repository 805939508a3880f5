"""Choose images of several labels, and of numbers, for heat maps, and explain each for its label or number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.columns import Column, decimals_for
from ensemble.label_check.column_doubts import number_errors, wrong_answers
from ensemble.report.evidence.column_scores import columns_of
from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from folds.metrics.label_scores import is_predicted
from folds.metrics.task_names import REGRESSION

if TYPE_CHECKING:
    from ensemble.explain.assignment import Assigned
    from ensemble.explain.result import HeatMaps
    from folds.models.checkpoint import Checkpoint

_SMALL = 0.25  # quantile of the sizes of the errors of a number, up to which a prediction counts as right


@dataclass(frozen=True)
class Choice:
    """An image whose label or number is explained.

    Attributes
    ----------
    row : of the part.
    name : of the label or number; "" for the most probable label.
    kind : ``mistake``, ``right`` or ``test``.
    truth : what the table says, in a line; "" for test images.
    """

    row: int
    name: str
    kind: str
    truth: str = ""


def column_choices(evidence: Evidence, part: Part, member: Predicted, seed: int) -> list[Choice]:
    """Return the images to explain: first the worst mistakes, one per person, then right predictions drawn with a seed.

    Of labels, mistakes are the least probable answers, and right ones images with a label that is predicted, label
    after label. Of numbers, they are the largest errors, and errors among the smallest quarter, number after number.
    """
    by_image = replace(evidence, per_person=False)
    columns = [one for one in columns_of(by_image, part, member) if len(one.labels)]
    there = np.array([one in evidence.paths for one in part.ids.tolist()])
    numbers, found, people = evidence.task == REGRESSION, list[Choice](), set[str]()
    named = {one.name: one for one in columns}
    worst = (
        [(one.row, one.number) for one in number_errors(columns) if one.error]
        if numbers
        else [(one.row, one.label) for one in wrong_answers(columns)]
    )
    for row, name in worst:
        if len(found) >= -(-evidence.heat_maps // 2):
            break
        if there[row] and str(part.persons[row]) not in people:
            people.add(str(part.persons[row]))
            found.append(Choice(row, name, "mistake", _truth(named[name], row, numbers)))
    random = np.random.default_rng(seed)
    taken = {one.row for one in found}
    lists = [random.permutation([row for row in _right(one, numbers) if there[row]]).tolist() for one in columns]
    for turn in range(max(map(len, lists), default=0)):
        for one, rows in zip(columns, lists, strict=True):
            if turn < len(rows) and len(found) < evidence.heat_maps and int(rows[turn]) not in taken:
                row = int(rows[turn])
                taken.add(row)
                found.append(Choice(row, one.name, "right", _truth(one, row, numbers)))
    return found


def _right(column: Column, numbers: bool) -> list[int]:
    if numbers:
        size = np.abs(column.errors)
        chosen = size <= np.quantile(size, _SMALL)
    else:
        chosen = (column.labels > 0) & is_predicted(column.values)
    rows: list[int] = column.rows[chosen].tolist()
    return rows


def _truth(column: Column, row: int, numbers: bool) -> str:
    at = int(np.flatnonzero(column.rows == row)[0])
    if not numbers:
        return f"table: {'has' if column.labels[at] > 0 else 'no'} {column.name}"
    digits = decimals_for(float(np.abs(column.errors).mean()))
    return f"true {column.labels[at]:,.{digits}f}, predicted {column.values[at]:,.{digits}f}"


def explain_columns(models: Mapping[int, Checkpoint], images: Sequence[Assigned], names: Sequence[str]) -> HeatMaps:
    """Return the heat map of each image for its label or number, in the order of the images.

    Parameters
    ----------
    names : of the label or number of each image; "" for the most probable label.
    """
    from ensemble.explain.images import PREDICTED, explain_images
    from ensemble.explain.result import join

    parts, order = [], list[int]()
    for name in dict.fromkeys(names):
        rows = [row for row, one in enumerate(names) if one == name]
        parts.append(explain_images(models, [images[row] for row in rows], target_class=name or PREDICTED))
        order += rows
    places: NDArray[np.int64] = np.array(order, np.int64)
    back = np.argsort(places).tolist()

    def texts(field: str) -> tuple[Any, ...]:
        values = [one for part in parts for one in getattr(part, field)]
        return tuple(values[at] for at in back)

    def arrays(field: str) -> NDArray[Any]:
        return join([getattr(part, field) for part in parts], places)

    return replace(
        parts[0],
        ids=texts("ids"),
        folds=texts("folds"),
        parts=texts("parts"),
        maps=arrays("maps"),
        disagreement=arrays("disagreement"),
        probabilities=arrays("probabilities"),
        explained=arrays("explained"),
        predicted=arrays("predicted"),
        true=arrays("true"),
        pixels=arrays("pixels"),
    )
