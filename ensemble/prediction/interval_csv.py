"""Write predicted numbers with the ends of their intervals as a CSV."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ensemble.decisions.number_decision import HIGH, LOW, DecidedNumbers
from folds.errors import UsageError
from folds.predictions.predictions import Predictions
from folds.predictions.submission import submission
from folds.utils.csv_table import csv_bytes

logger = logging.getLogger(__name__)

INTERVAL_FORM = "intervals"


def interval_names(names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """Return the names of the columns: ``id``, and for each number itself, ``<number>_low`` and ``<number>_high``.

    Parameters
    ----------
    columns : the names that the user gave; None for these.

    Raises
    ------
    UsageError : `columns` has another number of names, or repeats one.
    """
    own = ["id", *(f"{name}{end}" for name in names for end in ("", f"_{LOW}", f"_{HIGH}"))]
    if columns is None:
        return own
    if len(columns) != len(own) or len(set(columns)) < len(columns):
        raise UsageError(
            f"`columns={','.join(columns)}`: expected {len(own)} different names for `form={INTERVAL_FORM}`, found "
            f"{len(columns)}",
            hint=f"they are in the order {','.join(own)}",
        )
    return list(columns)


def writes_intervals(
    has_intervals: bool, form: str | None, columns: Sequence[str] | None, like: str | Path | None
) -> bool:
    """Return whether a CSV gets intervals: with the form of this name, or if there are intervals and nothing is asked.

    Raises
    ------
    UsageError : the form is asked for without intervals, or with a sample submission.
    """
    if form == INTERVAL_FORM and not has_intervals:
        raise UsageError(f"`form={INTERVAL_FORM}` needs intervals of numbers", hint="predict with `sets=0.9`")
    if form == INTERVAL_FORM and like is not None:
        raise UsageError(
            f"`like` is for predictions, and `form={INTERVAL_FORM}` has columns of its own", hint="give one of them"
        )
    return has_intervals and (form == INTERVAL_FORM or (form, columns, like) == (None, None, None))


def interval_submission(
    predictions: Predictions,
    decided: DecidedNumbers,
    form: str | None = None,
    columns: Sequence[str] | None = None,
    like: Path | None = None,
) -> bytes:
    """Return the bytes of a CSV; a number that is not answered is an empty cell beside its interval.

    Parameters
    ----------
    form, columns, like : as in `folds.predictions.submission.submission`; the form ``intervals`` is the default unless
        one of them is given.
    """
    if not writes_intervals(True, form, columns, like):
        if decided.asked.any():
            logger.warning(
                "%d numbers are not answered, because their intervals are too wide, and are in the CSV all the same "
                "(`form=%s` leaves them out)",
                int(decided.asked.sum()),
                INTERVAL_FORM,
            )
        return submission(predictions, form, columns, like)
    names = interval_names(predictions.classes, columns)
    cells: list[list[str]] = [predictions.ids.tolist()]
    for at in range(len(predictions.classes)):
        values, asked = decided.values[:, at].tolist(), decided.asked[:, at].tolist()
        cells.append(["" if left else f"{value:.9g}" for value, left in zip(values, asked, strict=True)])
        cells += [[f"{value:.9g}" for value in ends[:, at].tolist()] for ends in (decided.low, decided.high)]
    return bytes(csv_bytes(dict(zip(names, cells, strict=True))))
