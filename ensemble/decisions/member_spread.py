"""Measure how much the members of a blend of numbers differ, out of fold; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.blending.blend import Blend
from ensemble.blending.labeled_predictions import read_runs_out_of_fold, runs_out_of_fold
from ensemble.blending.recipe import read_recipe
from folds.errors import EnsembleError, UsageError
from folds.predictions.file_names import BLEND_RECIPE
from folds.predictions.predictions import Predictions

BLENDS = "blends"  # in the folder of the runs
_NEEDED = "`set_score=spread` needs a blend of two runs or more, whose spread it is"


def spread_of(members: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Return (n, columns) the standard deviation over members of predictions (n, columns) each; nan ones do not count.

    Examples
    --------
    >>> spread_of([np.array([[1.0], [4.0]]), np.array([[3.0], [4.0]])]).tolist()
    [[1.0], [0.0]]
    """
    values = np.stack([np.asarray(one, np.float64) for one in members])
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0).sum(axis=0) / count
    return np.asarray(np.sqrt((np.where(known, values - mean, 0) ** 2).sum(axis=0) / count))


def spread_of_blend(blend: Any, found: Predictions, kind: str, folder: Path, root: Path) -> NDArray[np.float64]:
    """Return (n, columns) the spread of the runs of a blend for its out-of-fold predictions.

    Images without labels have theirs as well: rules for people take the mean over all images of a person.

    Parameters
    ----------
    blend : the blend in memory, or anything else for that of the folder.
    found : its out-of-fold predictions.
    kind : ``blend``, or what else was named, which has no members.
    folder : of the blend, with ``blend.toml``.
    root : the folder that holds ``runs/``, for a blend in another place.

    Raises
    ------
    UsageError : it is no blend, or one of people or of a single run.
    EnsembleError : the runs are not there any more.
    """
    if kind != "blend":
        raise UsageError(_NEEDED, hint="name a blend, or leave out `set_score` for intervals of one width")
    if found.metadata.unit is not None:
        raise UsageError("`set_score=spread` is for images, and this blend answers for people", hint="leave it out")
    if isinstance(blend, Blend):
        made = runs_out_of_fold(blend)
    else:
        place = folder.absolute().parent
        runs = place.parent if place.name == BLENDS else root / "runs"
        made = read_runs_out_of_fold(folder, runs, read_recipe(folder / BLEND_RECIPE).combination.runs)
    at = {} if made is None else {one: row for row, one in enumerate(made.ids.tolist())}
    if made is None or set(made.classes) != set(found.classes) or not at.keys() >= set(found.ids.tolist()):
        raise EnsembleError(
            f"the runs of the blend {folder.name} are not there any more, so their spread is unknown",
            hint="blend again where the runs are, or leave out `set_score` for intervals of one width",
        )
    if len(made.runs) < 2:
        raise UsageError(_NEEDED, hint="blend two runs or more, or leave out `set_score` for intervals of one width")
    rows = np.array([at[one] for one in found.ids.tolist()])
    columns = [made.classes.index(name) for name in found.classes]
    return spread_of([values[rows][:, columns] for values in made.runs.values()])
