"""Split by a second grouping, such as the site (hospital, camera) of each sample: one fold for each site."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from folds.data.raw_columns import MISSING
from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError, combine_errors, unknown_name
from folds.splits.assignment import FoldAssignment, labels_of
from folds.utils.numeric import connected_components, factorize
from folds.utils.text import counted, sort_classes

logger = logging.getLogger(__name__)

JOINED = " + "  # between the names of sites that are one fold
MANY_SITES = 30  # trainings that are probably not wanted
_SHOWN = 3


def leave_out_sites(table: SampleTable, column: str) -> FoldAssignment:
    """Return one fold for each value of a column (site): its models see neither the site nor any of its people.

    Sites that share a person are one fold. Otherwise, a model that is scored on one of them would have been trained on
    images of the other one, and so on this person. What is joined is logged as a warning.

    Parameters
    ----------
    column : further column of the table.

    Returns
    -------
    the folds, in the order of the names of their sites (`FoldAssignment.names`)

    Raises
    ------
    UsageError : there is no such column.
    EnsembleError : the table has no labels or persons, a sample has no site, or there are fewer than two sites after
        those that share people are joined.
    """
    if table.labels is None or table.persons is None:
        missing = "labels" if table.labels is None else "persons"
        raise EnsembleError(f"{table.source} has no {missing}, which folds need")
    sites = site_column(table, column)
    empty = [i for i, name in enumerate(sites.tolist()) if name in MISSING]
    if empty:
        raise combine_errors(
            [f"{table.locations[i]}: '{sites[i]}' (id {table.ids[i]})" for i in empty],
            f"of {len(sites):,} rows of {table.source} have no value in column '{column}', which is to be left out",
            hint="fill it in or remove the rows; rows of an unknown site that belong together can have a name of their "
            "own",
        )
    names, codes = factorize(sites)
    ordered = sort_classes(names)
    codes = np.array([ordered.index(name) for name in names], np.int64)[codes]
    names = list(ordered)
    people, persons = table.factorized_persons
    if len(names) == 1:
        raise EnsembleError(
            f"expected at least 2 values in column '{column}' of {table.source}, found '{names[0]}' in all "
            f"{len(table):,} samples",
            hint="is it the right column for `leave_out`?",
        )
    pairs = np.unique(np.stack([persons, codes]), axis=1)
    shared = np.flatnonzero(pairs[0, 1:] == pairs[0, :-1])
    fold = connected_components(len(names), pairs[1, shared], pairs[1, shared + 1])
    joined = [
        [name for name, at in zip(names, fold.tolist(), strict=True) if at == one] for one in range(fold.max() + 1)
    ]
    if len(shared):
        _log_joined(column, joined, people, names, pairs)
    if len(joined) == 1:
        raise EnsembleError(
            f"the {len(names):,} values of column '{column}' of {table.source} share people, so that none can be left "
            "out without its people",
            hint="remove the images of these people, or balance the sites over folds by person: "
            f"`group_within={column}`",
            details=_sharing(people, names, pairs),
        )
    if len(joined) > MANY_SITES:
        logger.warning(
            f"`leave_out={column}` makes {len(joined):,} folds, one training each; a coarser column makes fewer"
        )
    texts = tuple(JOINED.join(each) for each in joined)
    found = FoldAssignment(
        table.ids,
        table.labels,
        table.persons,
        fold[codes],
        len(joined),
        None,
        0,
        table.sha,
        leave_out=column,
        names=texts,
        **labels_of(table),
    )
    return found.with_codes_of(table)


def site_column(table: SampleTable, column: str) -> NDArray[np.str_]:
    """Return (n,) the values of a further column of the table.

    Raises
    ------
    UsageError : there is no such column, or it is the label or the person.
    """
    if column in ("label", "person", "id", "path"):
        raise UsageError(
            f"column '{column}' of {table.source} is the {column} of each sample, expected a column such as the site",
            hint=f"further columns: {', '.join(table.attributes)}" if table.attributes else "add a column 'site'",
        )
    if column not in table.attributes:
        raise unknown_name(
            "column", column, list(table.attributes), hint=f"further columns: {', '.join(table.attributes) or 'none'}"
        )
    return table.attributes[column]


def _sharing(people: Sequence[str], names: Sequence[str], pairs: NDArray[np.int64]) -> list[str]:
    """Return a line for each person with images of several sites."""
    sites: dict[int, list[str]] = {}
    for person, site in pairs.T.tolist():
        sites.setdefault(person, []).append(names[site])
    return [f"{people[person]}: {', '.join(own)}" for person, own in sites.items() if len(own) > 1]


def _log_joined(
    column: str, joined: Sequence[Sequence[str]], people: Sequence[str], names: Sequence[str], pairs: NDArray[np.int64]
) -> None:
    sharing = _sharing(people, names, pairs)
    more = f", … and {len(sharing) - _SHOWN:,} more" if len(sharing) > _SHOWN else ""
    several = "; ".join(JOINED.join(each) for each in joined if len(each) > 1)
    logger.warning(
        f"{counted(len(sharing), 'person has', 'people have')} images of several values of column '{column}' "
        f"({'; '.join(sharing[:_SHOWN])}{more}): these values are one fold, so that no model is scored on people that "
        f"it has seen: {several}"
    )


def site_counts(assignment: FoldAssignment, sites: NDArray[np.str_]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the sites, sorted, and (sites, k) the images of each in each fold; with a held-out part, fold -1 is last.

    Parameters
    ----------
    sites : (n,) the site of each sample of the assignment.
    """
    columns = 2 if assignment.held_out else assignment.k
    names, codes = factorize(sites)
    counts = np.zeros((len(names), columns), np.int64)
    np.add.at(counts, (codes, assignment.fold % columns), 1)
    order = list(sort_classes(names))
    return order, counts[[names.index(name) for name in order]]
