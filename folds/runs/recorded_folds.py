"""Continue runs of several labels and of numbers with the folds that they recorded, if others would be found now."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from folds.config.command_settings import Settings
from folds.config.files import read_record
from folds.data.table import SampleTable
from folds.errors import EnsembleError
from folds.predictions.file_names import RUN_CONFIG
from folds.runs.recorded_settings import resolved_of
from folds.splits.assignment import FoldAssignment, load_folds

logger = logging.getLogger(__name__)

# What a split is made from, beside the table, whose hash is compared with the settings of the run.
_MADE_FROM = ("k", "seed", "repeat", "stratify", "group_within", "leave_out", "names")


def with_recorded_folds(
    assignments: Sequence[FoldAssignment], settings: Settings, table: SampleTable, runs: Path, names: Sequence[str]
) -> list[FoldAssignment]:
    """Return the splits of a command, those of existing runs with the folds that these recorded.

    An earlier version may have found other folds for the same people, settings and seed, and a run continues with those
    that its models have learned from. Splits of classes are the same in all versions.

    Parameters
    ----------
    assignments : the split of each repeat, as it is made now.
    runs : the folder of the runs.
    names : of the runs of the command, without repeats and seeds.
    """
    if settings.folds is not None or settings.fold_column is not None:
        return list(assignments)
    return [_recorded(one, table, runs, names) if one.has_columns else one for one in assignments]


def _recorded(made: FoldAssignment, table: SampleTable, runs: Path, names: Sequence[str]) -> FoldAssignment:
    for name in names:
        folder = runs / (name if not made.repeat else f"{name}-r{made.repeat}")
        record, path = folder / RUN_CONFIG, folder / "folds.csv"
        if not record.is_file() or not path.is_file():
            continue
        sha = resolved_of(read_record(record), record).get("folds_sha")
        if sha == made.sha:
            return made
        try:
            found = load_folds(path, table)
        except EnsembleError:  # of another table, or damaged: the settings are compared and refused later
            continue
        if found.sha != sha or any(getattr(found, one) != getattr(made, one) for one in _MADE_FROM):
            continue
        logger.info(f"folds: {path} (recorded by this run; they would be found otherwise now)")
        return replace(made, fold=found.fold, repair=found.repair).with_codes_of(table)
    return made
