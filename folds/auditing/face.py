"""Provide the public function `audit`, which reports problems of data and a split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from folds.auditing.run import AuditReport
from folds.auditing.run import audit as audit_data
from folds.data.face import as_dataset
from folds.errors import EnsembleError
from folds.images.settings import parse_window
from folds.splits.assignment import FoldAssignment
from folds.splits.assignment import load_folds as load_folds_file
from folds.splits.columns import folds_of_column
from folds.utils.arguments import FLAG, PATH, PROGRESS, SPLIT, WINDOW, check_arguments, whole
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.progress import Progress
from folds.utils.schema import optional

if TYPE_CHECKING:
    from folds.data.face import Data

_KINDS = {
    "folds": optional(SPLIT),
    "k": whole(2),
    "images": FLAG,
    "window": optional(WINDOW),
    "strict": FLAG,
    "root": PATH,
    "progress": PROGRESS,
}


def audit(
    data: Data | None = None,
    folds: FoldAssignment | str | Path | None = None,
    *,
    k: int = 5,
    images: bool = True,
    window: str | tuple[float, float] | None = None,
    strict: bool = False,
    root: str | Path = ".",
    progress: bool | Progress = True,
) -> AuditReport:
    """Return an audit of data, images and a split: errors, warnings and notes, as ``ensemble folds check``.

    Parameters
    ----------
    data : result or argument of `read_table`.
    folds : split to audit: result of `split`, a file, or a column of the table.
    k : number of folds for which classes need enough people, if there are no `folds`.
    images : whether to audit the images; False for the table alone.
    window : intensity range mapped to black and white in images with more than 8 bits: ``"LO,HI"``, or two numbers.
    strict : whether to raise if there is an error or a warning.
    root : folder of the cache ``.ensemble/images`` of decoded images.
    progress : False for no progress bars.

    Raises
    ------
    UsageError : an argument of the wrong type.
    EnsembleError : the data cannot be read, or `strict` is set and there are errors or warnings.

    Examples
    --------
    >>> import folds, pandas as pd
    >>> frame = pd.DataFrame({"path": list("abcd"), "label": ["cat", "cat", "dog", "dog"], "person": list("wxyy")})
    >>> found = folds.audit(folds.read_table(frame, need_images=False), k=2, images=False)
    >>> [one.kind for one in found.findings]
    ['classes not in every fold', 'people with a constant label', 'people with a single image']
    """
    log_in_notebook()
    check_arguments(locals(), _KINDS)
    read = as_dataset(data, root=root, need_images=False)
    file = None
    if isinstance(folds, str | Path):
        known = str(folds).endswith(".csv") or Path(folds).exists()
        file = Path(folds) if known else None
        folds = load_folds_file(Path(folds), read.train) if known else folds_of_column(read.train, str(folds))
    limits = parse_window(window) if isinstance(window, str) else window
    report = audit_data(
        read,
        folds,
        k=k,
        images=images,
        window=None if limits is None else (limits[0], limits[1]),
        folds=file,
        root=Path(root),
        progress=progress_of(progress),
    )
    serious = report.serious(strict=True) if strict else []
    if serious:
        lines = [line for one in serious for line in one.lines(shown=2)]
        raise EnsembleError(
            f"the audit found {len(serious)} errors and warnings", hint="`strict=False` returns them", details=lines
        )
    return report
