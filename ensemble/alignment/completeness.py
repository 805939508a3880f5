"""Find the rows and folds that runs lack, and say what a combination averages there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ensemble.alignment.split import AlignedSplit, RunPredictions
from folds.utils.text import counted


def absent_rows_notes(splits: Mapping[str, AlignedSplit]) -> list[str]:
    """Return notes on rows without a prediction, and on how many runs the other rows have."""
    notes = []
    for split in splits.values():
        if len(split) < split.table_rows:
            notes.append(
                f"{split.table_rows - len(split):,} of {split.table_rows:,} {split.name} samples "
                "have no prediction yet and are left out"
            )
        partial = [f"{run.name} has {run.rows:,}" for run in split.runs if run.rows < len(split)]
        if partial:
            notes.append(
                f"some runs lack {split.name} samples ({', '.join(partial)} of {len(split):,}): "
                f"{_rows_by_runs(split)}; the runs of a row share the weight of those that lack it"
            )
    return notes


def _rows_by_runs(split: AlignedSplit) -> str:
    """Return how many rows have how many runs: ``280 rows of 2 runs, 1,120 rows of 1 run``."""
    runs = np.zeros(len(split), np.int64)
    for run in split.runs:
        present = run.present(0, len(split))
        runs += 1 if present is None else present
    counts = np.bincount(runs)
    by_runs = [(n, int(counts[n])) for n in range(len(counts) - 1, 0, -1) if counts[n]]
    return ", ".join(f"{counted(rows, 'row')} of {counted(n, 'run')}" for n, rows in by_runs)


def absent_folds(splits: Mapping[str, AlignedSplit]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return split → run → the folds of its assignment that it lacks there; without runs that lack none."""
    all_folds: dict[str, set[int]] = {}
    for split in splits.values():
        for run in split.runs:
            all_folds.setdefault(_assignment(run), set()).update(run.folds)
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for split in splits.values():
        lacking = {run.name: all_folds[_assignment(run)] - set(run.folds) for run in split.runs if run.folds}
        found[split.name] = {name: tuple(sorted(folds)) for name, folds in lacking.items() if folds}
    return found


def absent_folds_notes(splits: Mapping[str, AlignedSplit]) -> list[str]:
    """Return a note on the runs of a split that lack the same folds."""
    notes = []
    for name, lacking in absent_folds(splits).items():
        models = {run.name: len(run.folds) for run in splits[name].runs}
        for folds in dict.fromkeys(lacking.values()):
            runs = [run for run, absent in lacking.items() if absent == folds]
            averaged = f": mean of the other {models[runs[0]]}" if name == "test" else ""
            notes.append(
                f"{', '.join(runs)} ({name}) {'lacks' if len(runs) == 1 else 'lack'} fold{'s' * (len(folds) > 1)} "
                f"{', '.join(map(str, folds))}{averaged}"
            )
    return notes


def unequal_models_note(test: AlignedSplit, lacking: Iterable[str], method: str) -> str:
    """Return what equal weights of runs mean for models, if some runs lack folds; "" if all have as many models.

    Out-of-fold a row has one model of a run, so nothing is unequal there.

    Parameters
    ----------
    lacking : the runs that lack folds (`absent_folds`).
    """
    models = {run.name: len(run.folds) for run in test.runs if run.folds}
    if not lacking or len(models) < len(test.runs) or len(set(models.values())) == 1:
        return ""
    fewest, most = min(models, key=models.__getitem__), max(models, key=models.__getitem__)
    each = ",".join(f"{name}={count}" for name, count in models.items())
    way = f"; `weights={each}` weights each model equally" if method == "soft" else ""
    return (
        "test: runs have equal weights whatever their number of models: "
        f"{counted(models[fewest], 'model')} of {fewest} with as much as {models[most]} of {most}{way}"
    )


def _assignment(run: RunPredictions) -> str:
    """Return the key of runs that should have the same folds: the fold assignment, otherwise the run's name."""
    sidecar = run.parts[0].member.sidecar
    return (sidecar.folds_sha if sidecar is not None else None) or run.name
