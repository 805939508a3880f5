"""Read runs whose folds split the images of people: what they claim, which no blend accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.report.evidence.evidence import Part, Predicted
from ensemble.report.evidence.image_table import label_codes
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Interval, interval_over_people
from folds.metrics.scored_units import scored_units
from folds.predictions.files import PredictionMetadata, SampleRows, read_array, read_sidecar
from folds.predictions.links import predictions_of
from folds.predictions.reading import score_rows
from folds.utils.numeric import factorize, groups_in_several_folds


def runs_by_image(files: Sequence[Path]) -> dict[Path, PredictionMetadata]:
    """Return the out-of-fold files whose folds split the images of people, which no blend accepts."""
    found, samples = {}, dict[str, SampleRows]()
    for path in files:
        sidecar = read_sidecar(path, samples) if path.suffix == ".npy" else None
        if sidecar is None or sidecar.split != "oof" or sidecar.rows.persons is None:
            continue
        if isinstance(sidecar.fold, np.ndarray):
            persons = factorize(sidecar.rows.persons)[1]
            if len(groups_in_several_folds(persons, sidecar.fold)):
                found[path] = sidecar
    return found


def values_of(path: Path, sidecar: PredictionMetadata) -> NDArray[np.floating]:
    """Return (n, classes) probabilities or numbers of a file."""
    values = np.asarray(read_array(path))
    return predictions_of(sidecar.task, values) if sidecar.kind == "logit" else values


def part_by_image(files: Mapping[Path, PredictionMetadata]) -> Part:
    """Return the rows of the first of these files, with the runs of the same rows."""
    first = next(iter(files.values()))
    members = tuple(
        Predicted(one.run or path.stem, "run", np.asarray(values_of(path, one), np.float32))
        for path, one in files.items()
        if one.classes == first.classes and np.array_equal(one.rows.ids, first.rows.ids)
    )
    labels = label_codes(first.rows.labels, len(first.rows), first.classes, first.task)
    persons = first.rows.ids if first.rows.persons is None else first.rows.persons
    return Part("oof", first.rows.ids, labels, persons, np.asarray(first.fold, np.int64), members)


def scores_by_image(leaking: Mapping[Path, PredictionMetadata], metric: str, per_person: bool) -> dict[str, Interval]:
    """Return run → the score that files whose folds split the images of people claim."""
    return {
        one.run or path.stem: _claimed(path, one, metric, per_person)
        for path, one in leaking.items()
        if one.rows.labels is not None
    }


def _claimed(path: Path, sidecar: PredictionMetadata, metric: str, per_person: bool) -> Interval:
    values = values_of(path, sidecar)
    if not sidecar.has_columns:
        return score_rows(values, sidecar, metric, per_person).interval
    labels = label_codes(sidecar.rows.labels, len(sidecar.rows), sidecar.classes, sidecar.task)
    persons = sidecar.rows.ids if sidecar.rows.persons is None else sidecar.rows.persons
    units = scored_units(labels, [values], persons, per_person, sidecar.task)
    return interval_over_people(metric_of(metric), units.labels, units.predictions[0], units.persons)
