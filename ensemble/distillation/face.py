"""`ensemble.distill`: train one model on the out-of-fold predictions of a blend."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble.distillation.teacher import find_teacher
from folds.config.command_settings import Settings
from folds.config.lookup import by_key
from folds.errors import UsageError
from folds.utils.arguments import PATH, check_arguments
from folds.utils.bars import log_in_notebook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from folds.runs.results import Runs

logger = logging.getLogger(__name__)


def distill(
    blend: str | Path, *, arch: str | Sequence[str] | None = None, root: str | Path = ".", **options: Any
) -> Runs:
    """Train students of a blend, as ``ensemble distill`` does: k-fold runs that also learn its predictions.

    The target of an image is its out-of-fold prediction (of a fitted blend the nested one), which no model of the blend
    that has seen its person has made. The student is a run like any other: it blends, predicts and exports. Its table
    and its folds are those of the blend.

    Parameters
    ----------
    blend : name, folder or ``blend.toml`` of a blend; or name of a run.
    arch : architectures of the students.
    root : folder with ``runs/`` and ``checkpoints/``.
    options : parameters and settings of `kfold`: ``soft_weight``, ``soft_temperature``, ``fold``, ``epochs``, ``name``
        (by default ``BLEND-student-ARCH``), …

    Raises
    ------
    EnsembleError : there is no such blend, or it has no out-of-fold predictions; or an error of `kfold`.

    Examples
    --------
    >>> import ensemble as en
    >>> en.distill("final", arch="resnet18", root="/nowhere")
    Traceback (most recent call last):
    ...
    folds.errors.EnsembleError: expected a blend or a run, found 'final'
    """
    from folds.runs.face import kfold

    log_in_notebook()
    check_arguments(locals(), {"blend": PATH, "root": PATH})
    given = {key: value for key, value in options.items() if value is not None}
    if "soft_labels" in given:
        raise UsageError("`soft_labels` are those of the blend", hint="kfold(data, soft_labels=FILE) takes any file")
    if arch is not None:
        given["arch"] = arch
    teacher = find_teacher(blend, Path(root))
    parameters = set(_parameters(kfold))
    chosen = by_key({key: value for key, value in given.items() if key not in parameters or key == "folds"})
    settings = teacher.settings(chosen)
    archs = settings.get("arch", Settings().arch)
    settings["arch"] = (archs,) if isinstance(archs, str) else tuple(archs)
    settings.setdefault("name", teacher.student_name(settings["arch"]))
    logger.info(teacher.text())
    data = settings.pop("data", None)
    own = {key: value for key, value in given.items() if key in parameters and key not in ("folds", "data")}
    return kfold(given.get("data", data), root=root, **own, **settings)


def _parameters(function: Any) -> tuple[str, ...]:
    """Return the parameters of `kfold` that are not settings."""
    code = function.__code__
    return tuple(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
