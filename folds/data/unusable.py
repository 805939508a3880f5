"""Leave out the images of a table that cannot be used, where the user asks for it."""

from __future__ import annotations

import numpy as np

from folds.data.table import SampleTable
from folds.errors import EnsembleError
from folds.images.checks import find_unusable
from folds.images.settings import ImageSettings

_SIDE = 64  # pixels: damage shows at any size, and a JPEG is decoded fastest at a small one
_SHOWN = 20
# More unusable images than this share are a wrong folder, not a few damaged files.
_MAX_SHARE = 0.5


def without_unusable(table: SampleTable, max_pixels: int | None, warnings: list[str]) -> SampleTable:
    """Return the samples whose images can be decoded; a warning names each of the others.

    Images that only need a `window` are kept: training reports them.

    Raises
    ------
    EnsembleError : more than half of the images cannot be used.
    """
    paths = table.paths
    if paths is None:
        return table
    problems = find_unusable(
        paths, table.locations, settings=ImageSettings(_SIDE, _SIDE, max_pixels=max_pixels, preview=True)
    )
    bad = {at: line for at, line, problem in problems if problem.values is None}
    if not bad:
        return table
    lines = list(bad.values())
    if len(bad) > _MAX_SHARE * len(table):
        raise EnsembleError(
            f"{len(bad):,} of {len(table):,} images of {table.source} cannot be used: too many to leave out",
            hint="check `data` and `images`; without `skip_unusable` all of them are listed",
            details=lines[:10],
        )
    more = f"; … and {len(lines) - _SHOWN:,} more" if len(lines) > _SHOWN else ""
    warnings.append(
        f"{len(bad):,} of {len(table):,} images of {table.source} cannot be used and are left out, as asked: "
        f"{'; '.join(lines[:_SHOWN])}{more}"
    )
    return table.take(np.array([at for at in range(len(table)) if at not in bad], np.int64))
