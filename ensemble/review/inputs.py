"""Read what `mistakes` and `labels` look at: names, files, or results of the Python interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble.blending.blend import Blend
from ensemble.blending.labeled_predictions import Judged, labeled_blend, read_labeled_predictions
from folds.errors import EnsembleError
from folds.utils.arguments import wrong_argument
from folds.utils.progress import Progress

PICTURES, CHARACTERS = 12, 60_000  # in a notebook


def read_judged(
    what: Any, labels: Path | None, root: Path, progress: Progress
) -> tuple[Judged, tuple[str | Path, ...], Path]:
    """Return labeled predictions, the names and files that they are from, and the folder that holds
    ``runs/``.

    Raises
    ------
    UsageError : `what` is nothing of that kind.
    EnsembleError : files cannot be read or aligned, or no label is known.
    """
    if isinstance(what, Blend):
        return labeled_blend(what), tuple(member.path for member in what.members), root
    found, folder = list[str | Path](), root
    for one in _listed(what):
        if isinstance(one, str | Path):
            found.append(one)
            continue
        name, place, files = (getattr(one, field, None) for field in ("name", "root", "files"))
        if files is None or not isinstance(place, Path):
            raise wrong_argument("what", "a run, a blend, or names of runs, blends and files", one)
        if isinstance(name, str) and place == root:
            found.append(name)
        else:
            found += files
            folder = place  # of the table that the run names
    if not found:
        raise wrong_argument("what", "a run, a blend, or names of runs, blends and files", what)
    judged = read_labeled_predictions(found, labels=labels, runs=root / "runs", progress=progress)
    return judged, tuple(found), folder


def _listed(what: Any) -> list[Any]:
    if isinstance(what, Mapping):  # `Runs`
        return list(what.values())
    single = isinstance(what, str | Path) or not isinstance(what, Iterable)
    return [what] if single else list(what)


def thumbnails_of(samples: Sequence[str], what: Sequence[str | Path], root: Path) -> dict[str, str]:
    """Return id → picture as ``data:image/jpeg;base64,…`` of the first samples, of at most `CHARACTERS` together."""
    from ensemble.report.evidence.load import find_thumbnails

    if not what:
        return {}
    try:
        return find_thumbnails(what, root).within(samples[:PICTURES], CHARACTERS)
    except (EnsembleError, OSError):  # arrays have no images, and files may have gone
        return {}
