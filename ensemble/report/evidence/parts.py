"""Put the predictions of all groups of files on the rows of one split, by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit, RunPredictions
from ensemble.report.evidence.evidence import SOFT_VOTE, Part, Predicted
from ensemble.report.evidence.groups import Group
from ensemble.report.evidence.image_table import label_codes
from ensemble.voting.vote import vote, vote_of_run
from folds.data.table import Dataset
from folds.metrics.task_names import COLUMN_TASKS


def part_of(
    name: Literal["oof", "test"],
    rows: AlignedSplit,
    groups: Sequence[Group],
    people: Mapping[str, str] | None = None,
) -> Part:
    """Return the rows of a split of the first group, with the predictions of all groups for them.

    Parameters
    ----------
    people : id of an image → its person, if the rows are people.
    """
    index = {sample: at for at, sample in enumerate(rows.rows.ids.tolist())}
    members: list[Predicted] = []
    for group in groups:
        split = group.splits.get(name)
        if split is None or set(split.classes) != set(rows.classes) or _answers_other(split.task, rows.task):
            continue
        columns = np.array([split.classes.index(one) for one in rows.classes])
        place = _place(split.rows.ids, index)
        for run in split.runs:
            values = _spread(_probabilities(split, run), place, columns, len(rows))
            inside = None
            fit = group.in_sample
            if fit is not None and name == "oof" and set(fit.classes) == set(rows.classes):
                order = np.array([fit.classes.index(one) for one in rows.classes])
                inside = _spread(fit.values, _place(fit.ids, index), order, len(rows))
            title = group.name or _title(run)
            members.append(
                Predicted(
                    title,
                    "tta" if group.kind != "blend" and _turned(run) else group.kind,
                    values,
                    group.passes.get(run.name),
                    inside,
                    name == "oof" and (run.name in group.selected or title in group.selected),
                    _of_rows(group.changed.get(group.name or run.name, frozenset()), people),
                )
            )
    labels = label_codes(rows.rows.labels, len(rows), rows.classes, rows.task)
    persons, known = rows.rows.persons, rows.rows.persons is not None
    fold = rows.fold.astype(np.int64) if rows.fold is not None and name == "oof" and (rows.fold >= 0).all() else None
    members = _with_soft_vote(members, rows, groups[0])
    return Part(name, rows.rows.ids, labels, rows.rows.ids if persons is None else persons, fold, tuple(members), known)


def _of_rows(images: frozenset[str], people: Mapping[str, str] | None) -> frozenset[str]:
    """Return the ids of the rows that have some of these images."""
    return images if people is None else frozenset(people[one] for one in images if one in people)


def _with_soft_vote(members: list[Predicted], rows: AlignedSplit, runs: Group) -> list[Predicted]:
    """Add the mean of all runs, which needs no fit, if there are several and it is no blend already."""
    plain = members[: len(runs.splits[name].runs)] if (name := rows.name) in runs.splits else []
    if len(plain) < 2 or runs.kind != "run":
        return members
    mean = vote(rows).probabilities
    if any(one.kind == "blend" and np.allclose(one.probabilities, mean, atol=1e-6, equal_nan=True) for one in members):
        return members
    passes = None if any(one.passes is None for one in plain) else float(sum(one.passes or 0 for one in plain))
    selected = any(one.selected_on_validation for one in plain)
    changed = frozenset[str]().union(*(one.changed for one in plain))
    return [*members, Predicted(SOFT_VOTE, "blend", np.asarray(mean, np.float32), passes, None, selected, changed)]


def _probabilities(split: AlignedSplit, run: RunPredictions) -> NDArray[np.floating]:
    """Return (n, classes) the probabilities of a run, the shares of its votes if it has hard labels; NaN where it is
    absent.
    """
    present = run.present(0, len(split))
    if present is None:
        alone = split.select_runs([run.name])
        return vote_of_run(alone if alone is not None else split).probabilities
    values = np.asarray(run.votes(0, len(split)) if run.hard else run.probabilities(0, len(split)), np.float32)
    values[~present] = np.nan
    return values


def _answers_other(task: str, other: str) -> bool:
    """Return whether predictions of one task are none of the other: columns of their own beside exclusive classes."""
    return task != other and (task in COLUMN_TASKS or other in COLUMN_TASKS)


def _place(ids: NDArray[np.str_], index: Mapping[str, int]) -> NDArray[np.int64]:
    return np.array([index.get(sample, -1) for sample in ids.tolist()], np.int64)


def _spread(
    values: NDArray[np.floating], place: NDArray[np.int64], columns: NDArray[np.int64], rows: int
) -> NDArray[np.float32]:
    """Return (rows, classes) with the values at their places, NaN elsewhere."""
    spread = np.full((rows, len(columns)), np.nan, np.float32)
    kept = place >= 0
    spread[place[kept]] = np.asarray(values)[kept][:, columns]
    return spread


def _turned(run: RunPredictions) -> list[str]:
    """Return the test-time views of a run, without the plain image."""
    return [view for view in run.views if view != "none"]


def _title(run: RunPredictions) -> str:
    views = _turned(run)
    if not views:
        return run.name
    return f"{run.name} ({', '.join(views) if len(views) <= 3 else f'{len(run.views)} views'})"


def completed(part: Part, dataset: Dataset | None, predicted: Sequence[str], task: str) -> Part:
    """Return a part with the labels and the people of the table, where the predictions do not have them."""
    table = None if dataset is None else dataset.train if part.name == "oof" else dataset.test
    if table is None or table.labels is None or (part.has_label.any() and part.persons_known):
        return part
    index = {sample: at for at, sample in enumerate(table.ids.tolist())}
    place = _place(part.ids, index)
    if not (place >= 0).all():
        return part
    labels = part.labels
    if not part.has_label.any() and part.members:
        classes = dataset.train.classes if dataset is not None else ()
        if set(classes) == set(predicted):  # the columns are in the order of the predictions
            classes = tuple(predicted)
        elif task in COLUMN_TASKS:
            classes = ()
        if len(classes) == part.members[0].probabilities.shape[1]:
            labels = label_codes(table.labels[place], len(place), classes, task)
    if part.persons_known or table.persons is None:
        return replace(part, labels=labels)
    return replace(part, labels=labels, persons=table.persons[place], persons_known=True)
