"""Run a study and report on it: its trials, the importance of the settings, the best trial and its score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folds.tuning.importance import Importance, measure
from folds.tuning.study import Study, as_started, open_study, score_on_other_folds
from folds.tuning.trials import Trial, best_of, cell, sort_trials, trial_name, trial_records, write_best, write_table
from folds.utils.display import Displayed, Table
from folds.utils.progress import SILENT, Progress
from folds.utils.text import counted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class StudyReport(Displayed):
    """The result of a study.

    Attributes
    ----------
    trials : the trials that have ended, best first.
    importance : importance of each setting; None for too few trials, or if all scores are the same.
    best : the best finished trial; None if no trial finished.
    checked : score of the best run on the folds that were not used for the choice; None until it is trained there.
    files : the written files.
    lost : the trials whose process was lost too often, each with the reason.
    """

    study: Study
    trials: tuple[Trial, ...] = ()
    importance: Importance | None = None
    best: Trial | None = None
    checked: Mapping[str, Any] | None = None
    files: tuple[Path, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def best_file(self) -> Path | None:
        """Return the path of ``best.toml`` for ``ensemble kfold -c``; None if no trial finished."""
        return None if self.best is None else self.files[-1]

    @property
    def scored(self) -> int:
        """Return the number of trials with a score."""
        return sum(trial.score is not None for trial in self.trials)

    def frame(self) -> pd.DataFrame:
        """Return one row per trial, best first: its settings, score, epochs, seconds and state."""
        import pandas as pd

        rows = [
            {
                "trial": trial_name(one.number),
                **one.settings,
                "score": one.score,
                "epochs": one.epochs,
                "seconds": one.seconds,
                "state": one.state,
            }
            for one in self.trials
        ]
        return pd.DataFrame(rows)

    def display_table(self) -> Table:
        """Return the table that a notebook shows: the trials, best first, and the importance of the settings."""
        keys = [axis.key for axis in self.study.space]
        rows = []
        for one in self.trials:
            score = "" if one.score is None else f"{one.score:.3f}"
            rows.append(
                [
                    trial_name(one.number),
                    *(cell(one.settings[key]) for key in keys),
                    score,
                    f"{one.epochs}/{one.of}",
                    one.state,
                ]
            )
        notes = []
        if self.importance is not None:
            shares = ", ".join(f"{key} {share:.0%}" for key, share in self.importance.share.items())
            notes.append(f"importance: {shares}; {self.importance.verdict}")
        if self.best is not None and self.best.score is not None:
            notes.append(
                f"best {self.study.objective} {self.best.score:.3f} is optimistic: it was selected on these folds"
            )
        return Table(
            f"{self.study.name}: {counted(len(self.trials), 'trial')}",
            ["trial", *keys, self.study.objective, "epochs", "state"],
            rows,
            notes,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        best = None
        if self.best is not None:
            best = trial_records([self.best])[0] | {"optimistic": True, "checked": self.checked}
        return {
            "tuning": self.study.name,
            "metric": self.study.options.metric,
            **({"by_person": True} if self.study.by_person else {}),
            "folds": list(self.study.options.folds),
            "trials": trial_records(self.trials),
            "importance": None if self.importance is None else self.importance.to_dict(),
            "best": best,
            "files": [str(path) for path in self.files],
        }


def run_study(
    study: Study,
    *,
    resume: bool = False,
    force: bool = False,
    devices: str = "auto",
    address: str | None = None,
    progress: Progress = SILENT,
) -> StudyReport:
    """Train the trials of a study that have not ended, and report on all of them.

    After a KeyboardInterrupt, which is not caught, a resumed study keeps the trials that have ended and continues the
    others from their last epoch.

    Parameters
    ----------
    resume : continue an existing study.
    force : delete an existing study and start again. Without `resume` and `force`, an existing study is an error.
    devices : ``auto`` or ``cpu``.
    address : address of a Ray cluster; None for a new one on this machine.

    Raises
    ------
    EnsembleError : see `folds.tuning.study.open_study` and `folds.tuning.search.train_trials`.
    """
    from folds.tuning.objective import with_objective
    from folds.tuning.search import train_trials

    if resume and not force:
        study = as_started(study)
    study = with_objective(study, resume and not force)
    with open_study(study, resume, force):
        lost = train_trials(study, devices, address, progress)
    return write_report(study, lost)


def write_report(study: Study, lost: Sequence[str] = ()) -> StudyReport:
    """Write ``trials.csv``, ``importance.png`` and ``best.toml`` from the files of the trials; return the report."""
    from folds.tuning.importance_plot import draw_importance

    options = study.options
    trials = sort_trials(list(study.ended().values()), options)
    if not trials:
        return StudyReport(study, lost=tuple(lost))
    scored = [one for one in trials if one.score is not None]
    importance = None
    if scored:
        importance = measure([one.settings for one in scored], [float(one.score or 0) for one in scored], options.seed)
    table = write_table(study.folder, trials, options)
    plot = draw_importance(study.folder / "importance.png", study.space, trials, importance, options)
    best = best_of(trials, options)
    if best is None:
        return StudyReport(study, tuple(trials), importance, files=(table,), lost=tuple(lost))
    spec = study.candidates[best.number]
    written = write_best(study.folder, study.best_run, best, spec.settings, spec.recipe, study.objective, len(scored))
    files = tuple(path for path in (table, plot, written) if path is not None)
    return StudyReport(study, tuple(trials), importance, best, score_on_other_folds(study), files, tuple(lost))
