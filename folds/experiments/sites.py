"""Say what a new site (hospital, camera) would see: a run that left sites out, beside the same run by person."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.config.files import read_record
from folds.errors import EnsembleError
from folds.experiments.compared_settings import settings_of
from folds.experiments.paired_rows import PairedRows, known_runs, pair_rows
from folds.metrics.classification import COLUMN_METRICS, METRICS, Metric
from folds.metrics.intervals import Difference, Interval, interval_over_people
from folds.metrics.positive import in_order_of_metric
from folds.metrics.scored_units import known_rows, scored_units
from folds.metrics.sites import SiteScore, difference_over_sites, interval_over_sites, score_sites
from folds.metrics.tasks import metric_for_task
from folds.predictions.file_names import RUN_CONFIG
from folds.predictions.reading import is_by_person
from folds.utils.display import Table
from folds.utils.files import read_json
from folds.utils.text import counted

# Settings in which a run that leaves sites out may differ from the run by person that it belongs to.
_OF_SPLIT = {"k", "folds", "fold_column", "amp", "device"}


@dataclass(frozen=True)
class NewSites:
    """The score of a run that left sites out, and of the same training with folds by person, on the same rows.

    Attributes
    ----------
    column : the column of the sites.
    run : the run that left them out, one fold each.
    score : its out-of-fold score, with its interval over sites and people; `Interval.people` is the number of sites.
    by_person : the run with folds by person; None if there is none.
    k : its number of folds.
    known : its score on the same rows, with its interval over people.
    gap : `score` minus `known`, paired, with its interval over sites and people.
    sites : the scores of each site: of the run by person, which has seen the site, and of the run that has not.
    rows, people : numbers of rows (people, if each person's images are averaged) and of people.
    notes : limitations.
    """

    column: str
    run: str
    metric: str
    title: str
    score: Interval
    sites: tuple[SiteScore, ...]
    rows: int
    people: int
    by_person: str | None = None
    k: int = 0
    known: Interval | None = None
    gap: Difference | None = None
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return one sentence with both scores and the gap."""
        over = f"{counted(self.score.people, 'site')} and their people"
        new = f"a new {self.column} would see {self.score.text()} ({self.run}; 95% CI over {over})"
        if self.known is None or self.gap is None:
            return f"{self.title}: {new}"
        gap = f"gap {self.gap.difference.signed_text()}, {'' if self.gap.is_significant else 'not '}significant"
        return f"{self.title}: your {self.k}-fold says {self.known.text()} ({self.by_person}), {new}; {gap}"

    def lines(self) -> list[str]:
        """Return the sentence, the range over single sites, and what limits both."""
        found = [self.text()]
        scored = [one for one in self.sites if not math.isnan(one.second)]
        if len(scored) > 1:
            low, high = min(scored, key=lambda one: one.second), max(scored, key=lambda one: one.second)
            found.append(
                f"single sites, left out: from {low.second:.3f} ({low.site}) to {high.second:.3f} ({high.site})"
            )
        found += [self.score.warning] if self.score.warning else []
        if self.by_person is None:
            found.append(
                "for the gap to folds by person, train the same without `leave_out`, e.g. with "
                f"`group_within={self.column}`"
            )
        return [*found, *self.notes]

    def table(self) -> Table:
        """Return the table to display: both scores of each site."""
        header = [self.column, "rows", "people", *(["by person"] if self.by_person else []), "left out"]
        rows = []
        for one in self.sites:
            rows.append([one.site, one.rows, one.people, *([_shown(one.first)] if self.by_person else [])])
            rows[-1].append(_shown(one.second))
        return Table(f"{self.title} of each {self.column}", header, rows, self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        sites = [
            {"site": one.site, "rows": one.rows, "people": one.people, "score": _plain(one.second)}
            | ({} if self.by_person is None else {"by_person": _plain(one.first)})
            for one in self.sites
        ]
        return {
            "column": self.column,
            "run": self.run,
            "by_person": self.by_person,
            "metric": self.metric,
            "new_site": self.score.to_dict(),
            "known_sites": None if self.known is None else self.known.to_dict(),
            "gap": None if self.gap is None else self.gap.to_dict(),
            "sites": sites,
            "notes": list(self.notes),
        }


def _shown(score: float) -> str:
    return "" if math.isnan(score) else f"{score:.3f}"


def _plain(score: float) -> float | None:
    return None if math.isnan(score) else score


@dataclass(frozen=True)
class _LeftOut:
    """What the folds of a run say: the column that was left out and the site of each fold."""

    column: str
    names: tuple[str, ...]


def left_out_by(run: str, runs: Path = Path("runs")) -> str | None:
    """Return the column whose values a run left out, one in each fold; None for folds by person."""
    found = _left_out(run, runs)
    return None if found is None else found.column


def _left_out(run: str, runs: Path) -> _LeftOut | None:
    path = runs / run / "folds.json"
    try:
        record = read_json(path) if path.is_file() else None
    except EnsembleError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("leave_out"), str):
        return None
    names = record.get("names")
    return _LeftOut(record["leave_out"], tuple(map(str, names)) if isinstance(names, list) else ())


def find_new_sites(
    runs: Path = Path("runs"),
    names: Collection[str] | None = None,
    metric: str | Metric | None = None,
    per_person: bool = False,
) -> list[NewSites]:
    """Return what the runs that left sites out say of new sites, each beside its run by person if there is one.

    A run by person belongs to a run that left sites out if their settings are the same, except for the folds.

    Parameters
    ----------
    names : only results of which one of these runs is a part; None for all.
    metric : its name, or the metric; None for that of the task.
    per_person : average the probabilities of each person's images before scoring.
    """
    known = known_runs(runs)
    left = {run: one for run in known if (one := _left_out(run, runs)) is not None}
    if not left:
        return []
    settings = {run: _settings(run, runs) for run in known}
    found = []
    for run in left:
        partner = next(iter(_partners(run, known, left, settings, runs)), None)
        if names is not None and not {run, partner} & set(names):
            continue
        try:
            found.append(new_sites(run, partner, runs, metric, per_person))
        except EnsembleError:  # files of another table or damaged ones: other commands say so
            continue
    return found


def _partners(
    run: str,
    known: Collection[str],
    left: Mapping[str, _LeftOut],
    settings: Mapping[str, Mapping[str, Any] | None],
    runs: Path,
) -> list[str]:
    """Return the runs by person with the settings of `run`: first those that balanced the sites over the folds."""
    own = settings[run]
    if own is None:
        return []
    fitting = [one for one in known if one not in left and settings[one] == own]
    return sorted(fitting, key=lambda one: (_balanced(one, runs) != left[run].column, one))


def _settings(run: str, runs: Path) -> dict[str, Any] | None:
    """Return the settings of a run without those of its folds; None if it is no training, or has no k folds."""
    config = runs / run / RUN_CONFIG
    if not config.is_file():
        return None
    try:
        record = read_record(config)
    except EnsembleError:
        return None
    if "holdout" in record or record.get("k") == 1:
        return None
    return {key: value for key, value in settings_of(record).items() if key not in _OF_SPLIT}


def _balanced(run: str, runs: Path) -> str | None:
    path = runs / run / "folds.json"
    try:
        record = read_json(path) if path.is_file() else None
    except EnsembleError:
        return None
    return record.get("group_within") if isinstance(record, dict) else None


def new_sites(
    run: str,
    by_person: str | None = None,
    runs: Path = Path("runs"),
    metric: str | Metric | None = None,
    per_person: bool = False,
) -> NewSites:
    """Return what a run that left sites out says of new sites, beside a run with folds by person on the same rows.

    Parameters
    ----------
    run : a run whose folds are sites.
    by_person : a run of the same table with folds by person; None for none.

    Raises
    ------
    UsageError : there is no such run.
    EnsembleError : the folds of `run` are not sites, or the two runs cannot be compared.
    """
    left = _left_out(run, runs)
    if left is None:
        raise EnsembleError(
            f"the folds of {run} are not the values of a column", hint="`leave_out=COLUMN` trains such a run"
        )
    notes: list[str] = []
    rows = pair_rows(run if by_person is None else by_person, run, runs, notes)
    folds = np.broadcast_to(np.asarray(rows.second.sidecar.fold), len(rows.second.sidecar.rows))[rows.at_second]
    meaning = rows.first.sidecar
    found = metric_for_task(metric, meaning.task)
    positive = meaning.scored or rows.second.sidecar.scored
    labels, values = in_order_of_metric(found, rows.labels, list(rows.values), meaning.classes, positive)
    averaged = is_by_person(meaning, per_person) or is_by_person(rows.second.sidecar)
    units = scored_units(labels, values, rows.people, averaged, meaning.task)
    of_person = np.zeros(int(rows.people.max()) + 1, np.int64)
    of_person[rows.people] = folds
    # A person is in one fold.
    folds = of_person[units.persons] if averaged else folds[known_rows(labels)]
    labels, people, values = units.labels, units.persons, list(units.predictions)
    sites = _site_names(left, folds)
    scores = score_sites(found, labels, values[0], values[1], sites, people)
    score = interval_over_sites(found, labels, values[1], sites, people)
    made = NewSites(
        left.column,
        run,
        found.name,
        _title(found),
        score,
        scores,
        len(labels),
        len(np.unique(people)),
        notes=tuple(notes),
    )
    if by_person is None:
        return made
    return _with_known(made, by_person, rows, found, labels, values, sites, people)


def _with_known(
    made: NewSites,
    by_person: str,
    rows: PairedRows,
    metric: Metric,
    labels: NDArray[np.int64],
    values: list[NDArray[np.floating]],
    sites: NDArray[np.str_],
    people: NDArray[np.int64],
) -> NewSites:
    fold = rows.first.sidecar.fold
    return replace(
        made,
        by_person=by_person,
        k=len(np.unique(fold)) if isinstance(fold, np.ndarray) else 1,
        known=interval_over_people(metric, labels, values[0], people),
        gap=difference_over_sites(metric, labels, values[0], values[1], sites, people),
    )


def _site_names(left: _LeftOut, folds: NDArray[np.integer]) -> NDArray[np.str_]:
    """Return (n,) the site of each row, from its fold."""
    names = [*left.names, *(f"fold {i}" for i in range(len(left.names), int(folds.max()) + 1))]
    return np.array(names, dtype=str)[folds]


def _title(metric: Metric) -> str:
    lower = metric.name in METRICS | COLUMN_METRICS and not metric.greater_is_better
    return f"{metric.title} (lower is better)" if lower else metric.title
