"""Make groups of the images that are copies of each other, for tables without a column of persons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.data.raw_columns import RawColumns
from folds.data.table import AUTO_COPIES, SampleTable
from folds.errors import EnsembleError
from folds.images.cache import DecodedImages, load_images
from folds.images.checks import find_unusable
from folds.images.duplicates import SIDE, identical, near_duplicates, thumbnails
from folds.images.settings import CACHE, ImageSettings
from folds.utils.numeric import connected_components
from folds.utils.text import counted

_SHOWN = 3  # groups, and images of a group, in a note


def with_copy_groups(table: SampleTable, max_pixels: int | None, columns: RawColumns) -> SampleTable:
    """Return the samples with a person for each image: the group of its copies, named by the smallest id in it.

    Copies are identical files and altered ones (re-encoded, resized, brightened, cropped by a few percent, mirrored:
    `folds.images.duplicates`); a group is what copies connect. The names depend on the ids and the contents of the
    images alone, not on the order of the rows. An image without copies is a group of its own.

    Parameters
    ----------
    columns : its `notes` get what was found, and `warnings` what could not be compared.

    Raises
    ------
    EnsembleError : the table has no images, or some cannot be used.
    """
    if table.paths is None:
        raise EnsembleError(
            f"`person={AUTO_COPIES}` compares images, and {table.source} names none",
            hint="name the column of the paths with `path`, or that of the persons with `person`",
        )
    images = _previews(table, max_pixels)
    same = [(one[0], other) for one in identical(images.content) for other in one[1:]]
    found = near_duplicates(thumbnails(images.pixels), _numbers(images.content))
    pairs = np.array([*same, *((pair.first, pair.second) for pair in found.pairs)], np.int64).reshape(-1, 2)
    groups = connected_components(len(table), pairs[:, 0], pairs[:, 1])
    names = _names(table.ids, groups)
    columns.notes += _notes(table, groups, names)
    if found.flat:
        lines = columns.warnings if 2 * len(found.flat) > len(table) else columns.notes
        lines.append(
            f"{counted(len(found.flat), 'image')} of {table.source} without structure (one color) "
            f"{'was' if len(found.flat) == 1 else 'were'} compared by content only"
        )
    if found.left_off:
        columns.warnings.append(
            f"{found.left_off:,} pairs of similar images of {table.source} were not compared: there are too many, and "
            "copies among them can be in different folds"
        )
    return replace(table, persons=names[groups])


def _previews(table: SampleTable, max_pixels: int | None) -> DecodedImages:
    """Return small pictures of all images, of any channels, which show what is in images of more than 8 bits.

    Their window is that of the values that occur in all of them, so that copies of an image look alike, whatever window
    a training has.
    """
    assert table.paths is not None  # noqa: S101 - checked by the caller
    cache = Path(CACHE) / "images"
    settings = ImageSettings(SIDE, SIDE, max_pixels=max_pixels, preview=True)
    try:
        images = load_images(table.paths, settings, cache_dir=cache, locations=table.locations)
        ends = [(one.lowest, one.highest) for one in images.depths if not one.is_color]
        if not ends:
            return images
    except EnsembleError:  # of images of floats, which have no range, or of damaged ones
        problems = [problem for _, _, problem in find_unusable(table.paths, table.locations, settings=settings)]
        ends = [problem.values for problem in problems if problem.values is not None]
        if not ends or len(ends) < len(problems):
            raise
    low, high = min(one for one, _ in ends), max(one for _, one in ends)
    settings = replace(settings, window=(low, high if high > low else low + 1))
    return load_images(table.paths, settings, cache_dir=cache, locations=table.locations)


def _numbers(content: tuple[str, ...] | list[str]) -> NDArray[np.int64]:
    """Return (n,) a number for each content, so that identical images are not compared once more."""
    return np.unique(np.array(content, dtype=str), return_inverse=True)[1].astype(np.int64)


def _names(ids: NDArray[np.str_], groups: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return (groups,) the smallest id of each group."""
    order = np.lexsort((ids, groups))
    first = np.concatenate([[True], np.diff(groups[order]) > 0])
    return ids[order[first]]


def _notes(table: SampleTable, groups: NDArray[np.int64], names: NDArray[np.str_]) -> list[str]:
    sizes = np.bincount(groups)
    several = sorted(np.flatnonzero(sizes > 1).tolist(), key=lambda one: (-sizes[one], names[one]))
    head = f"{table.source}: {len(sizes):,} groups of copies are the persons of its {len(table):,} images"
    if not several:
        found = "no image is a copy of another one"
    else:
        shown = []
        for one in several[:_SHOWN]:
            own = np.sort(table.ids[groups == one]).tolist()
            more = f" = … {len(own) - _SHOWN:,} more" if len(own) > _SHOWN else ""
            shown.append(" = ".join(own[:_SHOWN]) + more)
        rest = f"; … and {len(several) - _SHOWN:,} more groups" if len(several) > _SHOWN else ""
        found = (
            f"{counted(len(several), 'group has', 'groups have')} several images, the largest {sizes.max():,}: "
            f"{'; '.join(shown)}{rest}"
        )
    limit = (
        f"`person={AUTO_COPIES}` protects only from copies of an image in several folds, not from different "
        "photographs of the same person: if there are any, the scores are those of known people"
    )
    return [f"{head}; {found}", limit]
