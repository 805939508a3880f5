"""`ensemble.costs`: compare what predicts: one fold, all folds, views, the blend, its cascade, smaller replacements.

For each: the score of people whom it has not seen, the difference to the full blend, and what it costs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.prediction.cascade import EXACT, fit_loaded, load_source_evidence, parse_tolerance
from ensemble.prediction.costs_parts import find_parts
from ensemble.prediction.costs_scores import CostPart
from ensemble.prediction.costs_table import ROWS, CostRow, CostTable
from ensemble.prediction.inputs import images_table
from ensemble.prediction.measure import job_of, peak_memory, seconds_per_image
from ensemble.prediction.models import check_no_hand_over
from ensemble.prediction.optimism import optimism
from ensemble.prediction.source import PredictionSource, load_source, root_of_source
from folds.data.sources import load_checkpoint_data
from folds.data.table import SampleTable
from folds.errors import UsageError
from folds.metrics.task_names import require_classes
from folds.predictions.files import LABEL
from folds.utils.arguments import FLAG, NAME, PATH, PROGRESS, check_arguments, whole
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.progress import Progress
from folds.utils.schema import NUMBER, FieldType, either, named, optional

logger = logging.getLogger(__name__)

IMAGES = 128  # images of the timing


def _is_loss(value: Any) -> bool:
    """Return whether it is a number, a text of one, or ``exact``; its range is checked later."""
    return NUMBER.holds(value) or (
        isinstance(value, str) and (value == EXACT or re.fullmatch(r"[-+.eE\d]+", value) is not None)
    )


_KINDS = {
    "what": PATH,
    "cascade": FieldType("exact, or a loss of the score from 0 to 1", _is_loss),
    "student": optional(NAME),
    "soup": optional(NAME),
    "metric": NAME,
    "device": named(either(NAME, whole(0)), "auto, cpu, or the number of a GPU"),
    "measure": FLAG,
    "root": PATH,
    "progress": PROGRESS,
}


def costs(
    what: str | Path,
    images: str | Path | Sequence[str | Path] | SampleTable | None = None,
    *,
    cascade: str | float = 0.001,
    student: str | None = None,
    soup: str | None = None,
    metric: str = "macro_f1",
    device: str | int = "auto",
    measure: bool = True,
    root: str | Path = ".",
    progress: bool | Progress = True,
) -> CostTable:
    """Compare the score and the cost of a blend (or a run), of its parts, and of what can replace it.

    Rows, if they exist: the best fold, the folds of the best run, with views, the full blend, its cascade, a refit, a
    student and a soup. Each has its score on people whom it has not seen, the difference to the full blend, and forward
    passes, seconds per image, size on disk and peak memory on this machine.

    Parameters
    ----------
    what : name of a blend or a run.
    images : images for the measurement, which no model has seen, as `ensemble.predict` takes them; by default the test
        images of the training.
    cascade : loss of the score that the cascade may have, or ``exact``.
    student, soup : runs that replace the blend; by default, they are found by their records.
    metric : metric of the scores of a run; a blend has its own.
    device : ``auto``, ``cpu``, or the number of a GPU, for the measurement.
    measure : whether to measure time and memory.
    root : the folder that holds ``runs/`` and ``checkpoints/``.
    progress : False for no progress output.

    Raises
    ------
    UsageError : the combination cannot be applied image by image, or there is one pass per image.
    EnsembleError : nothing of this name exists, a file is missing or has changed since the blend was made, or a
        replacement has no predictions of the same images.

    Examples
    --------
    >>> import ensemble as en
    >>> en.costs("final", root="/nowhere")
    Traceback (most recent call last):
    ...
    folds.errors.EnsembleError: expected a checkpoint, a run, a blend or a model, found 'final'
    """
    log_in_notebook()
    check_arguments(locals(), _KINDS)
    tolerance, shown = parse_tolerance(cascade), progress_of(progress)
    root = Path(root)
    source = load_source(what, root)
    require_classes(source.task, "a comparison of costs", "ensemble runs and ensemble predict time and score each run")
    check_no_hand_over(source, "a comparison of costs", "compare a blend of grades alone")
    table = images if isinstance(images, SampleTable) or images is None else images_table(images, source)
    root = root_of_source(source, root)
    loaded = load_source_evidence(source, root, metric)
    fitted = fit_loaded(source, loaded, tolerance)
    parts, missing = find_parts(str(what), source, loaded, fitted, root, student, soup)
    notes = [
        "OOF: people not used for training or fitting, one model per run; more folds show only in the test score",
        *fitted.notes,
    ]
    doubt = optimism(source, root)
    notes += [f"warning: the scores of {source.name} and its parts are {doubt}"] if doubt else []
    if measure and table is None:
        table = _unseen_images(source, root)
    if measure and table is None:
        notes.append("time and memory: not measured, there are no test images; name images that no model has seen")
    elif measure and table is not None:
        kept = table.take(np.arange(min(len(table), IMAGES)))
        if len(kept) < 2:
            raise UsageError("the measurement needs two or more images", hint="name a folder or a table")
        parts = _measured(parts, str(what), kept, str(device), root, shown)
        notes.append(f"time: {len(kept)} images, in turn, median of 3; memory: a process of its own")
    rows = {part.row.name: part.row for part in parts}
    rows |= {name: CostRow(name, missing=text) for name, text in missing.items()}
    return CostTable(source.name, loaded.metric.title, tuple(rows[name] for name in ROWS if name in rows), tuple(notes))


def _unseen_images(source: PredictionSource, root: Path) -> SampleTable | None:
    """Return the test images of the training; None if it had none."""
    first = source.models[0].checkpoint
    data = load_checkpoint_data(
        first.data,
        classes=first.classes if first.target == LABEL else None,
        root=root,
        run=first.run,
        folds_sha=first.folds_sha,
    )
    return data.test


def _measured(
    parts: Sequence[CostPart], what: str, table: SampleTable, device: str, root: Path, progress: Progress
) -> list[CostPart]:
    """Return the parts with time and memory."""
    sources = {part.row.name: part.source for part in parts}
    with progress.step("measuring time") as advance:
        times = seconds_per_image(sources, table, device, advance)
    measured = []
    with progress.step("measuring memory") as advance:
        for done, part in enumerate(parts, start=1):
            job = job_of(**({"what": what} | part.job), root=root, device=device, images=table.paths or ())
            peak = peak_memory(job)
            seconds, passes = times[part.row.name]
            row = replace(
                part.row,
                seconds=seconds,
                passes=passes if part.row.passes is None else part.row.passes,
                memory=None if peak is None else peak / 1e6,
            )
            measured.append(replace(part, row=row))
            advance(done, len(parts))
    return measured
