"""Trained runs in the Python interface: the result of `kfold`, and `load_run` and `list_runs` for runs on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folds.config.files import DAMAGED
from folds.errors import EnsembleError, close_matches, without_marks
from folds.experiments.comparison import BaselineComparison
from folds.experiments.ledger import ledger_file, read_ledger
from folds.experiments.listing import RunListing
from folds.experiments.listing import list_runs as list_entries
from folds.experiments.record import baseline_records
from folds.experiments.refit import refit_done
from folds.experiments.sites import NewSites
from folds.experiments.summary import PooledRuns, RunSummary, summarize_run
from folds.metrics.custom import find_metric
from folds.metrics.intervals import Interval
from folds.metrics.tasks import default_metric
from folds.predictions.file_names import FOLD_DONE, FOLD_HISTORY, RUN_CONFIG
from folds.predictions.files import ALL, fold_files, oof_file, refit_file
from folds.predictions.predictions import Predictions, mean_of_folds, read_predictions
from folds.splits.assignment import FoldAssignment, load_folds
from folds.utils.arguments import NAME, PATH, check_arguments
from folds.utils.display import Displayed, Table
from folds.utils.files import read_json
from folds.utils.text import counted, score_text
from folds.utils.toml import read_toml

if TYPE_CHECKING:
    import pandas as pd

_DRAWN = 20  # runs in the drawing of a notebook


@dataclass(frozen=True, eq=False, repr=False)
class TrainedRun(Displayed):
    """A run: one architecture and recipe, trained on some or all folds. Its properties are read from its files.

    Attributes
    ----------
    name : name of the run, as in ``runs/<name>``.
    root : folder with ``runs/`` and ``checkpoints/``.
    """

    name: str
    root: Path = Path()

    @property
    def folder(self) -> Path:
        """Return ``runs/<name>``."""
        return self.root / "runs" / self.name

    @property
    def oof(self) -> Predictions:
        """Return the out-of-fold predictions of the trained folds."""
        return read_predictions(oof_file(self.root / "runs", self.name))

    @property
    def test(self) -> Predictions | None:
        """Return the test predictions, averaged over the models of the folds; None without test samples."""
        return mean_of_folds(list(fold_files(self.root / "runs", self.name).values()))

    @property
    def history(self) -> pd.DataFrame:
        """Return a row for each epoch of each fold: ``fold``, ``epoch``, loss, learning rate, validation scores."""
        import pandas as pd

        parts = []
        for fold in self._folds(FOLD_HISTORY):
            frame = pd.read_csv(self.folder / f"fold{fold}" / FOLD_HISTORY)
            frame.insert(0, "fold", fold)
            parts.append(frame)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["fold", "epoch"])

    @property
    def learning_curve(self) -> pd.DataFrame:
        """Return a row for each share of the people: ``share``, ``people``, ``images``, ``score``, ``low``, ``high``.

        Raises
        ------
        EnsembleError : no learning curve was computed (``kfold(..., learning_curve=True)``).
        """
        import pandas as pd

        path = self.folder / "learning_curve.csv"
        if not path.is_file():
            raise EnsembleError(f"{path} does not exist", hint="kfold(..., learning_curve=True)")
        return pd.read_csv(path)

    @property
    def config(self) -> dict[str, Any]:
        """Return the settings of the run, with the values that were resolved for it (``resolved``)."""
        path = self.folder / RUN_CONFIG
        try:
            return read_toml(path)
        except (OSError, ValueError) as error:
            raise EnsembleError(f"{path} cannot be read: {error}", hint=DAMAGED) from None

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Return fold → ``checkpoints/<name>/fold<i>.pt`` for the trained folds."""
        folder = self.root / "checkpoints" / self.name
        return {fold: path for fold in self.trained if (path := folder / f"fold{fold}.pt").exists()}

    @property
    def refit(self) -> TrainedRefit | None:
        """Return the model of all people (``kfold(..., fold="all")``); None if there is none."""
        done = refit_done(self.folder)
        return None if done is None else TrainedRefit(self.name, done["epochs"], self.root)

    @property
    def folds(self) -> FoldAssignment:
        """Return the split of the run."""
        return load_folds(self.folder / "folds.csv")

    @property
    def trained(self) -> tuple[int, ...]:
        """Return the trained folds."""
        return self._folds(FOLD_DONE)

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the prediction files of the run (out-of-fold, and test by fold), which `ensemble.blend` combines."""
        runs = self.root / "runs"
        return tuple(
            path for path in (oof_file(runs, self.name), *fold_files(runs, self.name).values()) if path.exists()
        )

    def score(self, metric: str | None = None, *, per_person: bool = False) -> Interval:
        """Return the out-of-fold score with its confidence interval over people.

        Parameters
        ----------
        metric : None for macro F1, or that of the task of several labels or numbers.
        """
        found = self.oof
        return found.score(metric or default_metric(found.metadata.task), per_person=per_person)

    def summary(self, per_person: bool = False) -> RunSummary:
        """Return the scores: out-of-fold, on test if its labels are known, and of each fold."""
        done = {fold: read_json(self.folder / f"fold{fold}" / FOLD_DONE) for fold in self.trained}
        return summarize_run(self.name, done, self.folds.k, self.root / "runs", per_person)

    def to_dict(self) -> dict[str, Any]:
        """Return the record of the run in ``ensemble kfold --json``."""
        return self.summary().to_dict()

    def display_table(self) -> Table:
        """Return the table of scores for display."""
        if not self.trained:
            return Table(f"{self.name}: no fold is trained yet")
        return results_table([self.summary()], title=str(self.folder))

    def display_parts(self) -> Sequence[str]:
        """Return the validation curves of the folds as a drawing; () without a history of two epochs."""
        from folds.experiments.curves import LOSS, curve_title, fold_curves  # here: only notebooks draw
        from folds.utils.charts.curves import lines
        from folds.utils.charts.series import Series
        from folds.utils.html import figure

        try:
            metric = str(self.config.get("metric", "macro_f1"))
        except EnsembleError:
            metric = "macro_f1"
        key, found = fold_curves(self.folder, self._folds(FOLD_HISTORY), metric)
        if max(map(len, found.values()), default=0) < 2:
            return ()
        series = [Series(f"fold {fold}", range(1, len(curve) + 1), curve) for fold, curve in found.items()]
        name = curve_title(key) if key == LOSS else f"validation {curve_title(key)}"
        title = f"{name[0].upper()}{name[1:]} of {self.name} by epoch"
        ends = {fold: curve[-1] for fold, curve in found.items() if curve[-1] == curve[-1]}
        text = f"{counted(len(found), 'fold')}."
        if ends:
            low, high = min(ends, key=ends.__getitem__), max(ends, key=ends.__getitem__)
            text += f" At the end from {ends[low]:.3f} (fold {low}) to {ends[high]:.3f} (fold {high})."
        return (figure(lines(series, title, text, "epoch", name, x_whole=True, height=200), title, text),)

    def _folds(self, file: str) -> tuple[int, ...]:
        names = (path.parent.name.removeprefix("fold") for path in self.folder.glob(f"fold*/{file}"))
        return tuple(sorted(int(name) for name in names if name.isdecimal()))


Run = TrainedRun  # the public name


@dataclass(frozen=True)
class TrainedRefit:
    """The model of a run that was trained on all people. It has no out-of-fold predictions, and no score of its own
    without labeled test images.

    Attributes
    ----------
    run : name of the run; `predict(run, images, fold="all")` predicts with this model.
    epochs : its epochs, which follow from the folds.
    """

    run: str
    epochs: int
    root: Path = Path()

    @property
    def checkpoint(self) -> Path:
        """Return ``checkpoints/<run>/all.pt``."""
        return self.root / "checkpoints" / self.run / f"{ALL}.pt"

    @property
    def test(self) -> Predictions | None:
        """Return the test predictions; None without test samples."""
        path = refit_file(self.root / "runs", self.run)
        return read_predictions(path) if path.is_file() else None


class Runs(Mapping[str, TrainedRun], Displayed):
    """A mapping of names to runs, in the requested order, with a table of their scores.

    Attributes
    ----------
    summaries : scores of the runs with a trained fold.
    pooled : pooled scores of the repeats and seeds of each architecture.
    comparisons : comparisons of runs with their baselines.
    new_sites : what the runs that left sites out say of a new site, beside the same runs by person.
    """

    def __init__(
        self,
        runs: Sequence[TrainedRun],
        summaries: Sequence[RunSummary] | None = None,
        pooled: Sequence[PooledRuns] = (),
        comparisons: Sequence[BaselineComparison] = (),
        new_sites: Sequence[NewSites] = (),
    ) -> None:
        self._runs = {run.name: run for run in runs}
        self._summaries = summaries
        self.pooled = tuple(pooled)
        self.comparisons = tuple(comparisons)
        self.new_sites = tuple(new_sites)

    def __getitem__(self, name: str) -> TrainedRun:
        if name not in self._runs:
            close = close_matches(str(name), self._runs)
            raise KeyError(
                f"no run '{name}'" + (f"; did you mean {' or '.join(close)}?" if close else f": {', '.join(self)}")
            )
        return self._runs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    @cached_property
    def summaries(self) -> tuple[RunSummary, ...]:
        """Return the scores of the runs with a trained fold."""
        if self._summaries is not None:
            return tuple(self._summaries)
        return tuple(run.summary() for run in self._runs.values() if run.trained)

    def frame(self) -> pd.DataFrame:
        """Return a row for each run: folds, out-of-fold macro F1 with its 95% CI over people, accuracy, test score,
        seconds. Several labels and numbers have the score of their metric, and no accuracy.
        """
        import pandas as pd

        rows = []
        for one in self.summaries:
            # The name of the column is the same for every metric of classes.
            name = one.oof.metric if one.is_of_columns else "macro_f1"
            row = {"run": one.run, "folds": len(one.folds), "k": one.k, **_ends(name, one.oof.interval)}
            row |= {} if one.is_of_columns else {"accuracy": one.oof.accuracy}
            row |= _ends("test", None if one.test is None else one.test.interval)
            rows.append(row | {"seconds": one.seconds, "optimistic": one.selected_on_validation})
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the record of ``ensemble kfold --json``."""
        return {
            "runs": [one.to_dict() for one in self.summaries],
            "pooled": [one.to_dict() for one in self.pooled],
            "comparisons": baseline_records(self.comparisons),
            **({"new_sites": [one.to_dict() for one in self.new_sites]} if self.new_sites else {}),
        }

    def display_table(self) -> Table:
        """Return the table of scores for display, a line per run."""
        if not self.summaries:
            return Table(f"{counted(len(self), 'run')}, no fold is trained yet")
        table = results_table(self.summaries, self.pooled)
        lines = [line for one in self.new_sites for line in one.lines()]
        return replace(table, notes=(*table.notes, *map(without_marks, lines))) if lines else table

    def display_parts(self) -> Sequence[str]:
        """Return the out-of-fold scores with their intervals as a forest plot; () with fewer than two runs."""
        scores = [(one.run, one.oof.interval) for one in self.summaries[:_DRAWN]]
        if len(scores) < 2:
            return ()
        from folds.utils.charts.rows import forest  # here, because only notebooks draw
        from folds.utils.charts.series import Row  # here, because only notebooks draw
        from folds.utils.html import figure

        rows = [Row(run, one.value, one.low, one.high, one.text()) for run, one in scores]
        metric = find_metric(self.summaries[0].oof.metric).title
        title = f"Out-of-fold {metric} of each run, 95% CI over people"
        text = "Intervals that overlap may still differ significantly: ensemble.compare pairs the people."
        text += f" The first {_DRAWN} of {len(self.summaries)} runs are drawn." if len(self.summaries) > _DRAWN else ""
        return (figure(forest(rows, title, text, metric, reference=None, signed=False), title, text),)


def load_run(name: str, *, root: str | Path = ".") -> TrainedRun:
    """Return an existing run by its name.

    Parameters
    ----------
    root : folder with ``runs/`` and ``checkpoints/``.

    Raises
    ------
    UsageError : `name` is not text.
    EnsembleError : the run does not exist; the message suggests the closest names.

    Examples
    --------
    >>> import folds
    >>> folds.load_run("swin")
    Traceback (most recent call last):
    ...
    folds.errors.EnsembleError: there is no run 'swin' in runs
    """
    check_arguments(locals(), {"name": NAME, "root": PATH})
    run = TrainedRun(name, Path(root))
    if not (run.folder / RUN_CONFIG).is_file():
        runs = run.root / "runs"
        known = sorted(path.parent.name for path in runs.glob("*/config.toml"))
        close = close_matches(name, known)
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        raise EnsembleError(
            f"there is no run '{name}' in {runs}{meant}",
            hint=f"existing runs: {', '.join(known[:20])}" if known else "kfold(data, arch=['swin']) trains one",
        )
    return run


def list_runs(*, root: str | Path = ".") -> pd.DataFrame:
    """Return a row for each run with a trained fold: scores, settings, comparison, notes, flags.

    The rows come from the ledger and the files of the runs.

    Parameters
    ----------
    root : folder with ``runs/``.

    Examples
    --------
    >>> import folds
    >>> len(folds.list_runs())
    0
    """
    import pandas as pd

    check_arguments(locals(), {"root": PATH})
    runs = Path(root) / "runs"
    rows = [_listed(one) for one in list_entries(read_ledger(ledger_file(runs)), runs)]
    return pd.DataFrame(rows, columns=list(_LISTED))


def results_table(summaries: Sequence[RunSummary], pooled: Sequence[PooledRuns] = (), title: str = "") -> Table:
    """Return a table with the scores of each run, and of the pooled runs."""
    with_test = any(one.test is not None for one in summaries)
    first = summaries[0] if summaries else None
    of_columns = first is not None and first.is_of_columns
    title_of = find_metric(first.oof.metric).title if first is not None and of_columns else "macro F1"
    header = ["run", "folds", f"OOF {title_of}", "95% CI", *([] if of_columns else ["accuracy"])]
    header += [f"test {title_of}", "95% CI"] if with_test else []
    rows: list[list[str]] = []
    for one in summaries:
        name = f"{one.run} (optimistic)" if one.selected_on_validation else one.run
        rows.append([name, f"{len(one.folds)}/{one.k}", *_cells(one, with_test)])
    rows += [[f"{one.name}, mean of {len(one.runs)}", str(len(one.folds)), *_cells(one, with_test)] for one in pooled]
    notes = [f"{summaries[0].oof.interval.people:,} people"] if summaries else []
    notes += [line for one in summaries for line in one.refit_lines()]
    notes += [f"{one.run}: {line}" for one in summaries if (line := one.oof.changed_line())]
    warnings = dict.fromkeys(one.oof.interval.warning for one in summaries)
    notes += [f"warning: {warning}" for warning in warnings if warning]
    return Table(title, header, rows, notes)


def _cells(one: RunSummary | PooledRuns, with_test: bool) -> list[str]:
    found = one.oof.interval
    cells = [score_text(found.value), found.ci_text(), *([] if one.is_of_columns else [f"{one.oof.accuracy:.3f}"])]
    if not with_test:
        return cells
    test = None if one.test is None else one.test.interval
    return [*cells, *(["", ""] if test is None else [score_text(test.value), test.ci_text()])]


def _ends(name: str, found: Interval | None) -> dict[str, float | None]:
    if found is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


# The columns of `list_runs`, also of an empty folder.
_LISTED = (
    *("run", "arch", "time", "folds", "k"),
    *("task", "metric", "score", "low", "high"),
    *(
        f"{prefix}{name}"
        for prefix in ("", "test_")
        for name in ("macro_f1", "macro_f1_low", "macro_f1_high", "accuracy", "log_loss")
    ),
    *("baseline", "difference", "difference_low", "difference_high", "p_value"),
    *("hypothesis", "notes", "flags", "seconds"),
)


def _listed(one: RunListing) -> dict[str, Any]:
    entry = one.entry
    row: dict[str, Any] = {"run": one.run, "arch": entry["arch"], "time": entry["time"]}
    row |= {"folds": len(entry["folds"]), "k": entry["k"]}
    own = one.score or {}
    row |= {"task": one.task, "metric": one.metric.name}
    row |= {"score": own.get("score"), "low": own.get("low"), "high": own.get("high")}
    for part, prefix in (("oof", ""), ("test", "test_")):
        scores = entry.get(part) or {}
        for metric in ("macro_f1", "accuracy", "log_loss"):
            value = scores.get(metric) or {}
            row[f"{prefix}{metric}"] = value.get("score")
            if metric == "macro_f1":
                row |= {f"{prefix}{metric}_low": value.get("low"), f"{prefix}{metric}_high": value.get("high")}
    found = one.difference or {}
    row |= {"baseline": one.baseline or None, "difference": found.get("difference")}
    row |= {"difference_low": found.get("low"), "difference_high": found.get("high"), "p_value": found.get("chance")}
    row |= {"hypothesis": entry.get("hypothesis"), "notes": "; ".join(one.notes), "flags": ", ".join(one.flags)}
    return row | {"seconds": entry["cost"]["seconds"]}
