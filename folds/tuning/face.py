"""`tune` of the face: a space of settings in, trials and the best of them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folds.data.read_table import data_settings
from folds.errors import EnsembleError, UsageError
from folds.runs.face import joined_settings, with_settings
from folds.tuning.report import StudyReport, run_study
from folds.tuning.study import make_tuning
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.files import write_atomic
from folds.utils.progress import Progress
from folds.utils.toml import toml_value

if TYPE_CHECKING:
    from folds.data.read_table import Data


def tune(
    data: Data | None = None,
    *,
    space: Mapping[str, Any] | None = None,
    trials: int | None = None,
    fold: int | Sequence[int] = 0,
    metric: str | None = None,
    options: Mapping[str, Any] | None = None,
    config: str | Path | None = None,
    name: str = "tuning",
    resume: bool = True,
    force: bool = False,
    devices: str = "auto",
    ray_address: str | None = None,
    root: str | Path = ".",
    progress: bool | Progress = True,
    **settings: Any,
) -> StudyReport:
    """Try settings drawn from a space, stop unpromising trials early, and return what came of them. As ``ensemble
    tune``.

    The score of the best trial is optimistic on the folds it was chosen on; ``kfold(config=report.best_file)`` trains
    it on all, and the
    other folds say what it is worth. Needs Ray Tune (``pip install 'ray[tune]'``).

    Parameters
    ----------
    data : what `read_table` has returned, or takes.
    space : setting → its values, a list, or ``{"low": 1e-4, "high": 1e-2, "log": True}``.
    trials : how many settings are tried.
    fold : the folds that trials are trained on.
    metric : what is compared.
    options : further options of ``[tune]``: ``grace``, ``reduction``, ``seed``, ``cpus``, ``gpus``, ``parallel``.
    config : a TOML file with ``[space]`` and ``[tune]``, instead of `space`.
    name : of the study: ``runs/tune/<name>``.
    resume : go on with a study that was begun, also with more trials; `force` : begin it again.
    devices, ray_address : where it is trained.
    root : the folder that holds ``runs/``, ``checkpoints/`` and ``.ensemble/``.
    progress : False for silence.
    settings : any setting of `kfold` that all trials share.

    Raises
    ------
    UsageError : an unknown setting, an impossible value; Ray Tune is not installed.
    EnsembleError : all trials were lost, or a study of that name was begun with other settings.

    Examples
    --------
    >>> import folds
    >>> folds.tune()
    Traceback (most recent call last):
    ...
    folds.errors.UsageError: there is nothing to choose from: neither space nor config is given
    """
    log_in_notebook()
    base = Path(root)
    if (space is None) == (config is None):
        said = "neither `space` nor `config` is given" if space is None else "`space` and `config` are both given"
        raise UsageError(
            f"there is nothing to choose from: {said}", hint="space={'lr': {'low': 1e-4, 'high': 1e-2, 'log': True}}"
        )
    if space is not None:
        wanted = dict(options or {}) | {"folds": [fold] if isinstance(fold, int) else list(fold)}
        wanted |= {} if metric is None else {"metric": metric}
        config = _written(base / ".ensemble" / "tune" / f"{name}.toml", space, wanted)
    flags = joined_settings(settings, data_settings(data, base)) | {"name": name}
    study = make_tuning(flags, Path(config), trials, base)  # type: ignore[arg-type]
    report = run_study(
        study,
        resume=resume and not force,
        force=force,
        devices=devices,
        address=ray_address,
        progress=progress_of(progress),
    )
    if len(report.lost) == len(study.candidates):
        raise EnsembleError(
            f"all {len(report.lost)} trials were lost", hint="the same call tries them again", details=report.lost
        )
    return report


tune.__signature__ = with_settings(tune)  # type: ignore[attr-defined]


def _written(path: Path, space: Mapping[str, Any], options: Mapping[str, Any]) -> Path:
    """The space and the options as the file that the command would be given."""
    lines = ["[space]", *(f"{key} = {toml_value(_plain(value))}" for key, value in space.items())]
    lines += ["", "[tune]", *(f"{key} = {toml_value(_plain(value))}" for key, value in options.items()), ""]
    return write_atomic(path, "\n".join(lines))


def _plain(value: Any) -> Any:
    """Tuples and arrays as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inside) for key, inside in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(inside) for inside in value] if isinstance(value, tuple | list) else value
