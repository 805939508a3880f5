"""Find in the folder of a blend the runs that it was made of, and what its fit says of the people of the fit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.blending.aligned import AlignedMembers, align_ingredients
from ensemble.blending.blend import read_inputs
from ensemble.blending.recipe import read_recipe
from ensemble.blending.request import BlendConfig
from ensemble.learning.apply import apply_combination
from ensemble.pooling.people import split_by_person
from folds.errors import EnsembleError, UsageError
from folds.predictions.file_names import BLEND_RECIPE, BLEND_RECORD, RUN_CONFIG
from folds.utils.files import read_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InSample:
    """Predictions (n, classes) for ids (n,), with the classes of their columns."""

    ids: NDArray[np.str_]
    values: NDArray[np.floating]
    classes: tuple[str, ...]


def read_ingredients(folder: Path, request: BlendConfig) -> AlignedMembers | None:
    """Return the runs that a blend was made of; None if their files are not there any more.

    Parameters
    ----------
    request : with the rule of `pool`, the runs of a blend for people are pooled by it, if it is not fitted, else by the
        mean; the labels and people of the blend's own ``--labels`` are read again.
    """
    record = read_record(folder)
    listed = record.get("inputs")
    places = [one.get("path") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    files = [_moved(place, folder.parent.parent) for place in places if isinstance(place, str)]
    if not files or None in files:
        return None
    labels = record.get("labels")
    if request.pool is not None and isinstance(labels, str) and Path(labels).is_file():
        request = replace(request, labels=Path(labels))
    try:
        return align_ingredients(read_inputs([str(file) for file in files], request), request)
    except (EnsembleError, UsageError) as error:
        logger.info("the runs of the blend %s are not shown: %s", folder.name, error.message)
        return None


def read_record(folder: Path) -> dict[str, Any]:
    """Return the content of ``blend.json``; {} if it is damaged or not there."""
    record = read_json(folder / BLEND_RECORD)
    return record if isinstance(record, dict) else {}


def _moved(place: str, runs: Path) -> Path | None:
    """Return a file of a blend: below the ``runs/`` of the blend, or where it was; None if it is in neither."""
    parts = Path(place).parts
    inside = parts[len(parts) - parts[::-1].index("runs") :] if "runs" in parts else ()
    candidates = [runs.joinpath(*inside)] if inside and ".." not in inside else []
    return next((path for path in [*candidates, Path(place)] if path.is_file()), None)


def folders_of(blends: Sequence[Path]) -> dict[str, Path]:
    """Return the folders of the runs that blends were made of, as far as they are there."""
    found: dict[str, Path] = {}
    for folder in blends:
        record = read_json(folder / BLEND_RECORD)
        runs = record.get("runs") if isinstance(record, dict) else None
        for one in runs if isinstance(runs, list) else ():
            name = one.get("run") if isinstance(one, dict) else None
            place = folder.parent.parent / name if isinstance(name, str) and is_plain(name) else None
            if place is not None and (place / RUN_CONFIG).is_file():
                found[place.name] = place
    return found


def is_plain(name: str) -> bool:
    return "/" not in name and name not in ("", ".", "..") and "\0" not in name


def fitted_on_all(folder: Path, members: AlignedMembers) -> InSample | None:
    """Return the predictions of a fitted blend for the people it was fitted on."""
    try:
        recipe = read_recipe(folder / BLEND_RECIPE)
        combination = recipe.combination
        split = (members.splits if combination.pooling is None else members.images)["oof"]
        chosen = split.select_runs(list(combination.runs))
        if chosen is None or tuple(recipe.classes) != tuple(chosen.classes):  # the blend named its positive class
            return None
        if combination.pooling is not None:
            chosen = split_by_person(chosen, combination.pooling)
        return InSample(chosen.rows.ids, apply_combination(chosen, combination).probabilities, tuple(chosen.classes))
    except (EnsembleError, UsageError, ValueError, KeyError) as error:
        logger.info("the optimism of %s is not shown: %s", folder.name, error)
        return None
