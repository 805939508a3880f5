"""Store a report as an artifact of the runs that it shows, in the trackers that these were logged to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from folds.errors import EnsembleError, UsageError, unknown_name
from folds.experiments.loggers.groups import GroupTracker, ReportPlace, tracked_groups
from folds.experiments.loggers.mlflow import MLflow
from folds.experiments.loggers.open import TRACKERS, open_tracker

logger = logging.getLogger(__name__)

# What stores a page, and returns where.
Store = Callable[[Path], str]


def check_report_trackers(names: Sequence[str]) -> None:
    """Raise UsageError if one of the trackers is unknown, stores no files or is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise unknown_name("`log_to`", name, [one for one in TRACKERS if one != "tensorboard"])
        if name == "tensorboard":
            raise UsageError(
                "`log_to=tensorboard`: TensorBoard stores no files", hint="expected mlflow, wandb or trackio"
            )
        open_tracker(name)


def report_stores(names: Sequence[str], folders: Mapping[str, Path]) -> list[Store]:
    """Return what stores a report of some runs in some trackers: in each group once, and in each run of MLflow.

    Parameters
    ----------
    folders : run → ``runs/<run>``.

    Raises
    ------
    EnsembleError : none of the runs was logged to one of the trackers.
    """
    found: list[Store] = []
    for name in dict.fromkeys(names):
        stores = _mlflow_stores(folders) if name == "mlflow" else _group_stores(name, folders)
        if not stores:
            shown = ", ".join(list(folders)[:3]) + (", …" if len(folders) > 3 else "")
            of = f"none of the runs of this report ({shown})" if folders else "no run of this report"
            raise EnsembleError(f"{of} was logged to {name}", hint=f"train with `logger={name}`, or remove `log_to`")
        found += stores
    return found


def store_report(page: Path, stores: Sequence[Store]) -> None:
    """Store a page, and log where.

    Raises
    ------
    EnsembleError : a tracker fails; the page itself is written.
    """
    for store in stores:
        try:
            where = store(page)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise EnsembleError(
                f"{page} is written, but a tracker did not take it: {type(error).__name__}: {reason}",
                hint="the same command with `force` tries it again",
            ) from None
        logger.info(f"{page} is now an artifact of {where}")


def _group_stores(name: str, folders: Mapping[str, Path]) -> list[Store]:
    """Return what stores a page in the groups of a tracker; those of another place are not there today."""
    known = tracked_groups(name, folders)
    if not known:
        return []
    tracker = open_tracker(name, known[0].folder.parent)
    assert isinstance(tracker, GroupTracker)  # noqa: S101 - of the names that get here
    here = tracked_groups(name, folders, tracker.place())
    if not here:
        raise EnsembleError(
            f"the runs of this report were logged to another place of {name} than {tracker.place()}",
            hint="set the address with which they were trained, or remove `log_to`",
        )
    return [_group_store(name, place) for place in here]


def _group_store(name: str, place: ReportPlace) -> Store:
    def store(page: Path) -> str:
        tracker = open_tracker(name, place.folder.parent)
        assert isinstance(tracker, GroupTracker)  # noqa: S101 - of the names that get here
        with tracker:
            tracker.report(page, place)
        return f"the group {place.group} of {name}"

    return store


def _mlflow_stores(folders: Mapping[str, Path]) -> list[Store]:
    """Return what stores a page in the runs of MLflow; a recorded address is not called, only the one that is set."""

    def store_in(run: str, tracker: MLflow) -> Store:
        def store(page: Path) -> str:
            with tracker:
                tracker.report(page, run)
            return f"the run {run} of mlflow"

        return store

    stores = []
    for run, folder in folders.items():
        tracker = open_tracker("mlflow", folder.parent)
        if isinstance(tracker, MLflow) and tracker.known(run) is not None:
            stores.append(store_in(run, tracker))
    return stores
