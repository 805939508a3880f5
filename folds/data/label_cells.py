"""Check what the cells of several labels say, and whether settings about them apply."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from folds.errors import UsageError, combine_errors
from folds.metrics.task_names import CLASSES, MULTILABEL, REGRESSION
from folds.predictions.label_columns import NOTHING_CELLS, UNKNOWN_CELLS, known_and_unknown


def check_named_labels(
    parts: Mapping[str, Sequence[str]],
    known: Collection[str],
    column: Sequence[str],
    locations: Sequence[str],
    what: str,
) -> None:
    """Raise EnsembleError, with the rows, for cells that name labels and contradict themselves.

    Parameters
    ----------
    parts : distinct cell → the labels that it names.
    known : names of labels, which may be words such as ``none``.
    column : the cell of each row.
    what : the column and its table, for messages.
    """
    alone = (NOTHING_CELLS | UNKNOWN_CELLS) - {name.lower() for name in known}
    empty = {cell for cell, own in parts.items() if len(own) > 1 and any(part.lower() in alone for part in own)}
    both = {cell for cell, own in parts.items() if known_and_unknown(own) is not None}
    for wrong, text, hint in (
        (
            empty,
            "name labels, and also say that there are none or that they are unknown",
            "write the labels, or only the text for none of them",
        ),
        (
            both,
            "name a label, and also say that it is not known",
            "write Mass where an image has it, ?Mass where that is not known",
        ),
    ):
        if wrong:
            lines = [f"{locations[i]}: '{cell}'" for i, cell in enumerate(column) if cell in wrong]
            raise combine_errors(lines, f"cells of {what} {text}", hint)


def check_uncertain_applies(
    uncertain: str, task: str, names: Sequence[str], columns: Sequence[str], source: str
) -> None:
    """Raise UsageError if `uncertain` is given, and the labels are not columns of 0, 1 and -1.

    Parameters
    ----------
    task, names : task of the table, and names of the labels or numbers.
    columns : the columns of the table in which they are.
    """
    if task == MULTILABEL and tuple(names) == tuple(columns):
        return
    found = {REGRESSION: "numbers", MULTILABEL: "names in one column"}.get(task, CLASSES)
    raise UsageError(
        f"`uncertain={uncertain}` says what -1 means in columns of labels, found {found} in {source}",
        hint="leave it out"
        + ("" if found != CLASSES else ", or read several labels: `label=A,B,C`, `task=multilabel`"),
    )
