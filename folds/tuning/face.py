"""`ensemble.tune`: search a space of settings and return the trials and the best of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folds.data.face import data_settings
from folds.errors import EnsembleError, UsageError
from folds.runs.face import fold_list, joined_settings, with_settings
from folds.tuning.report import StudyReport, run_study
from folds.tuning.space import read_options, read_space
from folds.tuning.study import make_study
from folds.utils.arguments import FLAG, FOLDS, NAME, PATH, PROGRESS, check_arguments, mapping_to, whole
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.files import write_atomic
from folds.utils.progress import Progress
from folds.utils.schema import ANYTHING, FILE_SAFE, optional
from folds.utils.toml import toml_value

if TYPE_CHECKING:
    from folds.data.face import Data

_SPACE = "space={'lr': {'low': 1e-4, 'high': 1e-2, 'log': True}}"
_KINDS = {
    "space": optional(mapping_to(ANYTHING, "setting → values")),
    "options": optional(mapping_to(ANYTHING, "option → value")),
    "trials": optional(whole(1)),
    "fold": FOLDS,
    "metric": optional(NAME),
    "config": optional(PATH),
    "name": FILE_SAFE,
    "resume": FLAG,
    "force": FLAG,
    "devices": NAME,
    "ray_address": optional(NAME),
    "root": PATH,
    "progress": PROGRESS,
}


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
    """Tune hyperparameters: train trials with sampled settings, stop unpromising trials early, and report on all.

    The same as the command ``ensemble tune``. The score of the best trial is optimistic on the folds used for the
    choice. ``kfold(config=report.best_file)`` trains it on all folds; its score on the other folds is unbiased by the
    choice. Needs Ray Tune (``pip install 'ray[tune]'``).

    Parameters
    ----------
    data : a table from `read_table`, or any argument that `read_table` takes.
    space : setting → a list of its values, or ``{"low": 1e-4, "high": 1e-2, "log": True}``.
    trials : number of trials.
    fold : the folds that trials are trained on.
    metric : metric by which trials are compared; by default that of the task: ``macro_f1``, of several labels
        ``roc_auc``, of numbers ``mae`` (the lowest is the best).
    options : further options of ``[tune]``: ``grace``, ``reduction``, ``seed``, ``cpus``, ``gpus``, ``parallel``.
    config : a TOML file with ``[space]`` and ``[tune]``, instead of `space`.
    name : name of the study; its folder is ``runs/tune/<name>``.
    resume : continue an existing study, possibly with more trials.
    force : delete an existing study and start again.
    devices, ray_address : devices, and address of a Ray cluster.
    root : the folder that holds ``runs/``, ``checkpoints/`` and ``.ensemble/``.
    progress : False for no progress output.
    settings : any setting of `kfold`, the same for all trials.

    Raises
    ------
    UsageError : an unknown setting or an invalid value; Ray Tune is not installed.
    EnsembleError : all trials were lost, or a study of that name was started with different settings.

    Examples
    --------
    Search the learning rate on fold 0, then train the best trial on all folds::

        data = folds.read_table("photos.csv", person="patient")
        found = folds.tune(data, space={"lr": {"low": 1e-4, "high": 1e-2, "log": True}}, trials=20, arch="resnet18")
        runs = folds.kfold(data, config=found.best_file)

    A space is required:

    >>> import folds
    >>> folds.tune()
    Traceback (most recent call last):
    ...
    folds.errors.UsageError: expected either space or config, found neither
    """
    log_in_notebook()
    check_arguments(locals(), _KINDS)
    base = Path(root)
    if (space is None) == (config is None):
        raise UsageError(
            f"expected either `space` or `config`, found {'neither' if space is None else 'both'}",
            hint=_SPACE,
        )
    if space is not None:
        tune_table = dict(options or {}) | {"folds": fold_list(fold)}
        tune_table |= {} if metric is None else {"metric": metric}
        _check_space(space, tune_table, trials)
        config = _write_config(base / ".ensemble" / "tune" / f"{name}.toml", space, tune_table)
    flags = joined_settings(settings, data_settings(data, base)) | {"name": name}
    study = make_study(flags, Path(config), trials, base)  # type: ignore[arg-type]
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
            f"all {len(report.lost)} trials were lost", hint="repeat the call to retry them", details=report.lost
        )
    return report


tune.__signature__ = with_settings(tune)  # type: ignore[attr-defined]


def _check_space(space: Mapping[str, Any], options: Mapping[str, Any], trials: int | None) -> None:
    """Raise UsageError for an invalid space or option, in the words of the arguments rather than of a settings file."""
    try:
        read_space("`space`", _plain(space))
        read_options("`options`", _plain(options), trials)
    except EnsembleError as error:
        is_toml = error.hint is not None and error.hint.startswith(("[space]", "{low"))
        message = error.message.replace("`space`: [space] ", "`space` ").replace("`options`: [tune] ", "`options` ")
        raise UsageError(message, hint=_SPACE if is_toml else error.hint, details=error.details) from None


def _write_config(path: Path, space: Mapping[str, Any], options: Mapping[str, Any]) -> Path:
    """Write the space and the options as a settings file for ``ensemble tune``, and return its path."""
    lines = ["[space]", *(f"{key} = {toml_value(_plain(value))}" for key, value in space.items())]
    lines += ["", "[tune]", *(f"{key} = {toml_value(_plain(value))}" for key, value in options.items()), ""]
    return write_atomic(path, "\n".join(lines))


def _plain(value: Any) -> Any:
    """Return the value with tuples and arrays as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inside) for key, inside in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(inside) for inside in value] if isinstance(value, tuple | list) else value
