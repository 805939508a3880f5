"""Test-time augmentation as the commands `tta` and `demo` show it: progress, table of views."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ensemble.cli import console
from ensemble.cli.progress import StepsView
from ensemble.cli.spans import span
from ensemble.tta import ViewScores, augment_checkpoint, find_checkpoints, score_views
from ensemble.views import View, distinct
from folds.checkpoint import Checkpoint, load_checkpoint
from folds.samples import Data
from folds.sources import reopen_data
from folds.targets import LABEL


def run_tta(
    target: str,
    views: Sequence[View],
    *,
    merge: str = "mean",
    data: Path | None = None,
    per_person: bool = False,
    device: str = "auto",
    force: bool = False,
) -> str:
    """Augment a checkpoint or all folds of a run, print the table, return the run's name."""
    run, scored = augment_folds(target, views, merge=merge, data=data, per_person=per_person, device=device, force=force)
    record = {"run": run, "merge": merge, "splits": [_record(s) for s in scored]}
    console.result("\n\n".join(views_table(s, merge) for s in scored) or f"runs/tta/{run}.oof.npy is written", record)
    return run


def augment_folds(
    target: str,
    views: Sequence[View],
    *,
    merge: str = "mean",
    data: Path | None = None,
    per_person: bool = False,
    device: str = "auto",
    force: bool = False,
) -> tuple[str, list[ViewScores]]:
    """Augment a checkpoint or all folds of a run, shown live; returns the run's name and what its distinct views are worth."""
    tables: dict[str, Data] = {}

    def open_data(checkpoint: Checkpoint) -> Data:
        # A model of an attribute knows the attribute's values, not the table's classes.
        classes = checkpoint.classes if checkpoint.target == LABEL else None
        key = repr((sorted(checkpoint.data.items()), classes))
        if key not in tables:
            tables[key] = reopen_data(checkpoint.data, data, classes=classes, note=console.note)
        return tables[key]

    run, paths = "", find_checkpoints(target)
    first = load_checkpoint(paths[0]).architecture
    views = distinct(views, (first.height, first.width), console.warn)
    console.note(f"{len(views)} views: {', '.join(view.name for view in views)}")
    for path in paths:
        with StepsView(str(path)) as progress:
            run = augment_checkpoint(path, views, open_data, merge=merge, device=device, force=force, progress=progress, note=console.note)
    return run, score_views(run, views, per_person=per_person)


def views_table(scored: ViewScores, merge: str) -> str:
    """One line a view and one for the merge."""
    title = {"oof": "OOF", "test": "test"}[scored.split]
    header = ["view", f"{title} macro F1", "95 % over people", "accuracy", "rows"]
    rows: list[list[object]] = []
    merged = [(f"{merge} of {len(scored.views)}", scored.merged)] if scored.merged is not None and len(scored.views) > 1 else []
    for name, score in [*scored.views.items(), *merged]:
        rows.append([name, f"{score.headline.score:.3f}", span(score.headline), f"{score.accuracy:.3f}", f"{score.rows:,}"])
    folds = ", ".join(map(str, scored.folds))
    return f"{console.table(header, rows)}\nfold{'s' if len(scored.folds) > 1 else ''} {folds}"


def _record(scored: ViewScores) -> dict[str, object]:
    return {
        "split": scored.split,
        "folds": list(scored.folds),
        "views": {name: score.as_json() for name, score in scored.views.items()},
        "merged": None if scored.merged is None else scored.merged.as_json(),
        "file": str(scored.path),
    }
