"""Show how runs were trained: curves of all folds, learning rate, time, the fold that is off, and convergence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.report.evidence.evidence import Evidence, RunRecord
from ensemble.report.evidence.scoring import finite
from ensemble.report.page.blocks import Block, Figure, Missing, Section, Table, Text
from folds.metrics.classification import Metric, recorded_metric
from folds.metrics.distributions import t_quantile
from folds.metrics.intervals import LEVEL
from folds.utils.charts.curves import lines
from folds.utils.charts.series import Series
from folds.utils.text import counted, duration

MIN_FOLDS = 4  # with fewer, the others say too little about one fold
MIN_EPOCHS = 8  # with fewer, the last third has too few epochs for a slope
OFF = 0.02  # least distance of a fold that is off, as a share of the range of the metric
RISING = 0.01  # least gain over the last third of the epochs that counts as still rising, likewise
DRAWN_RUNS = 12  # with curves; the tables have all runs


def training_section(evidence: Evidence) -> Section:
    """Return the curves of all folds per run, and what is off by the rules of `fold_off` and `is_rising`."""
    blocks: list[Block] = []
    found = [_Trained(run, _validation_key(run, evidence.metric)) for run in evidence.runs.values()]
    trained = [one for one in found if one.folds]
    if not trained:
        blocks.append(
            Missing(
                "loss, validation score, learning rate and time of each fold",
                "runs trained by ensemble kfold write them to runs/RUN/fold*/history.csv: keep these folders, and name "
                "the runs: ensemble report RUN…",
            )
        )
    else:
        without = [one.run.name for one in found if not one.folds]
        blocks += [Text((*(_sentence(one) for one in trained), *_left_out(without))), _run_table(trained)]
        blocks.append(_fold_table(trained))
        drawn = [figure for number, one in enumerate(trained[:DRAWN_RUNS], start=1) for figure in _figures(one, number)]
        blocks += [*(one for one in drawn if not one.folded), *(one for one in drawn if one.folded)]
        if len(trained) > DRAWN_RUNS:
            blocks.append(Text((f"The curves of the first {DRAWN_RUNS} of {len(trained)} runs are drawn.",)))
    return Section(
        "training",
        "Training",
        "How each fold was trained, whether one fold is off, and whether more epochs would have helped.",
        tuple(blocks),
    )


def _left_out(names: Sequence[str]) -> tuple[str, ...]:
    return (f"Without a history of their training: {', '.join(names)}.",) if names else ()


class _Trained:
    """A run with its validated history."""

    def __init__(self, run: RunRecord, key: str) -> None:
        self.run, self.key = run, key
        self.folds = {fold: history for fold in sorted(run.history) if (history := _clean(run.history[fold]))}
        self.metric = recorded_metric(key.removeprefix("validation_"))
        self.title = self.metric.title if self.metric is not None else key.removeprefix("validation_").replace("_", " ")

    def values(self, fold: int, key: str) -> NDArray[np.float64]:
        """Return (epochs,) a column of the history; nan where it is unknown."""
        return np.array([one.get(key, math.nan) for one in self.folds[fold]])

    def kept(self, fold: int) -> float:
        """Return the validation score of the epoch whose weights are kept; nan if it is unknown."""
        values = self.values(fold, self.key)
        if self.run.config.get("keep") != "best" or np.isnan(values).all():
            return float(values[-1])
        return float(np.nanmax(values) if self.greater_is_better else np.nanmin(values))

    @property
    def greater_is_better(self) -> bool:
        """Return the direction of the metric; True if it is unknown."""
        return self.metric is None or self.metric.greater_is_better

    @property
    def scale(self) -> float:
        """Return the range of the metric; 1 if it has no bounds."""
        return _scale(self.metric)


def _scale(metric: Metric | None) -> float:
    if metric is None or math.isinf(metric.upper_bound - metric.lower_bound):
        return 1.0
    return metric.upper_bound - metric.lower_bound


def _clean(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return the epochs of a history with their finite numbers."""
    found = []
    for record in history:
        if isinstance(record, Mapping):
            numbers = {str(key): number for key, value in record.items() if (number := finite(value)) is not None}
            if "epoch" in numbers:
                found.append(numbers)
    return found


def _validation_key(run: RunRecord, metric: str) -> str:
    """Return the validation score to show: by the metric of the report, else by that of the run, else any."""
    recorded = {
        str(key)
        for history in run.history.values()
        for record in history[:1]
        if isinstance(record, Mapping)
        for key in record
    }
    wanted = [f"validation_{name}" for name in (metric, run.config.get("metric"), "macro_f1")]
    others = sorted(key for key in recorded if key.startswith("validation_"))
    return next((key for key in [*wanted, *others] if key in recorded), wanted[0])


# Rules


def fold_off(scores: Mapping[int, float], scale: float = 1.0) -> int | None:
    """Return the fold whose score the other folds do not predict; None if there is none, or if there are fewer than 4.

    Each score is compared with the mean of the others by Student's t, with their standard deviation (the externally
    studentized residual; the rule of Grubbs, 1950), at the 5% level with the Bonferroni correction for the number of
    folds. A distance below 2% of the range of the metric does not count, because equal folds have tiny deviations.

    Parameters
    ----------
    scores : fold → score; nan is left out.
    scale : the range of the metric.
    """
    known = {fold: value for fold, value in scores.items() if math.isfinite(value)}
    if len(known) < MIN_FOLDS:
        return None
    found: list[tuple[float, int]] = []
    for fold, value in known.items():
        others = np.array([one for other, one in known.items() if other != fold])
        n, distance = len(others), abs(value - float(others.mean()))
        error = float(others.std(ddof=1)) * math.sqrt(1 + 1 / n)
        limit = t_quantile(1 - (1 - LEVEL) / len(known), n - 1) * error
        if distance > limit and distance >= OFF * scale:
            found.append((distance / max(error, 1e-12), fold))
    return max(found)[1] if found else None


def is_rising(scores: Sequence[float], greater_is_better: bool = True, scale: float = 1.0) -> bool | None:
    """Return whether a validation score still improves at the end; None with fewer than 8 epochs.

    A line is fitted to the last third of the epochs (at least 4). The score still improves if the line gains at least
    1% of the range of the metric over these epochs, and if its slope is significant at the 5% level.

    Parameters
    ----------
    scores : of each epoch.
    scale : the range of the metric.
    """
    values = np.asarray(scores, np.float64)
    if len(values) < MIN_EPOCHS or np.isnan(values).any():
        return None
    last = values[-max(4, math.ceil(len(values) / 3)) :] * (1 if greater_is_better else -1)
    x = np.arange(len(last)) - (len(last) - 1) / 2
    slope = float(x @ last / (x @ x))
    rest = last - last.mean() - slope * x
    error = math.sqrt(float(rest @ rest) / (len(last) - 2) / float(x @ x))
    return slope * (len(last) - 1) >= RISING * scale and slope > t_quantile(LEVEL, len(last) - 2) * error


def _mean_curve(one: _Trained) -> NDArray[np.float64]:
    """Return the mean validation score over folds, of the epochs that all folds have."""
    epochs = min(len(history) for history in one.folds.values())
    return np.mean([one.values(fold, one.key)[:epochs] for fold in one.folds], axis=0)


def still_rising(run: RunRecord, metric: str) -> bool | None:
    """Return whether the mean validation score over folds still improves at the end, by the rule of `is_rising`.

    None with too few epochs, without a validation score, or without a history; False for a run that stopped early by
    its patience.

    Parameters
    ----------
    metric : name of the metric of the report.
    """
    one = _Trained(run, _validation_key(run, metric))
    return _rising(one) if one.folds else None


def _rising(one: _Trained) -> bool | None:
    early = any(len(history) < max(map(len, one.folds.values())) for history in one.folds.values())
    if bool(one.run.config.get("patience")) and early:
        return False
    return is_rising(_mean_curve(one).tolist(), one.greater_is_better, one.scale)


@dataclass(frozen=True)
class _State:
    off: int | None
    off_loss: int | None
    rising: bool | None


def _state(one: _Trained) -> _State:
    scores = {fold: one.kept(fold) for fold in one.folds}
    losses = {fold: float(one.values(fold, "loss")[-1]) for fold in one.folds}
    log_loss = {fold: math.log10(value) if value > 0 else math.nan for fold, value in losses.items()}
    return _State(fold_off(scores, one.scale), fold_off(log_loss, 5.0), _rising(one))


# Text and tables


def _sentence(one: _Trained) -> str:
    state, scores = _state(one), {fold: one.kept(fold) for fold in one.folds}
    known = [value for value in scores.values() if math.isfinite(value)]
    parts = [f"Run {one.run.name}: {counted(len(one.folds), 'fold')}"]
    if len(one.folds) < one.run.k:
        parts[0] += f" of {one.run.k}"
    if known:
        parts.append(f"validation {one.title} from {min(known):.3f} to {max(known):.3f}")
    if state.off is not None:
        parts.append(
            f"fold {state.off} is off ({one.title} {scores[state.off]:.3f}): look at its people and its images"
        )
    elif not known:
        parts.append("no validation score is recorded")
    elif len(known) < MIN_FOLDS:
        parts.append("too few folds to tell whether one is off")
    else:
        parts.append("no fold is off")
    if state.off_loss is not None:
        parts.append(f"the training loss of fold {state.off_loss} is off")
    if state.rising is None and known:
        parts.append("too few epochs to tell whether it has converged")
    elif state.rising:
        parts.append("the validation score still improved at the end: train more epochs")
    elif known:
        parts.append("converged")
    return "; ".join(parts) + "."


def _run_table(trained: Sequence[_Trained]) -> Table:
    rows: list[list[str | int | float | None]] = []
    for one in trained:
        state, scores = _state(one), np.array([one.kept(fold) for fold in one.folds])
        seconds = sum(float(np.nansum(one.values(fold, "seconds"))) for fold in one.folds)
        epochs = sorted({len(history) for history in one.folds.values()})
        spread = f"{np.std(scores, ddof=1):.3f}" if len(scores) > 1 and np.isfinite(scores).all() else None
        rows.append(
            [
                one.run.name,
                f"{len(one.folds)} of {one.run.k}",
                str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]}–{epochs[-1]}",
                duration(seconds) if seconds else None,
                f"{one.title} {np.mean(scores):.3f}" if np.isfinite(scores).all() else None,
                spread,
                "unknown" if len(one.folds) < MIN_FOLDS else "none" if state.off is None else f"fold {state.off}",
                {None: "unknown", True: "no", False: "yes"}[state.rising],
            ]
        )
    return Table(
        "training-runs",
        "Training of each run.",
        ["run", "folds", "epochs", "training time", "mean validation score", "SD of folds", "fold off", "converged"],
        rows,
        note="A fold is off if its validation score lies outside of what the other folds predict: Student's t with "
        "their standard deviation, 5% level, Bonferroni correction for the number of folds, and a distance of at least "
        f"2% of the range of the metric; {MIN_FOLDS} folds are needed. A run has not converged if a line through the "
        "last third of its validation scores (mean over folds) gains at least 1% of the range, with a slope that is "
        f"significant at the 5% level; {MIN_EPOCHS} epochs are needed. Runs that stopped early by their patience have "
        "converged. The mean over folds has no CI over people: see Compare for the pooled OOF score.",
    )


def _fold_table(trained: Sequence[_Trained]) -> Table:
    rows: list[list[str | int | float | None]] = []
    for one in trained:
        state = _state(one)
        for fold, history in one.folds.items():
            seconds, score = one.values(fold, "seconds"), one.kept(fold)
            remarks = [
                *(["score is off"] if fold == state.off else []),
                *(["loss is off"] if fold == state.off_loss else []),
            ]
            loss = float(one.values(fold, "loss")[-1])
            rows.append(
                [
                    one.run.name,
                    fold,
                    len(history),
                    f"{loss:.4f}" if math.isfinite(loss) else None,
                    f"{one.title} {score:.3f}" if math.isfinite(score) else None,
                    f"{np.nanmedian(seconds):.1f}" if np.isfinite(seconds).any() else None,
                    ", ".join(remarks),
                ]
            )
    return Table(
        "training-folds",
        "Training of each fold.",
        ["run", "fold", "epochs", "last loss", "validation score", "seconds per epoch", "remark"],
        rows,
        note="The validation score is that of the epoch whose weights are kept. Seconds per epoch: the median.",
    )


# Curves


def _figures(one: _Trained, number: int) -> list[Figure]:
    name = one.run.name
    drawn = [
        ("loss", "loss", "training loss", f"Training loss of {name}"),
        ("score", one.key, f"validation {one.title}", f"Validation {one.title} of {name}"),
        ("rate", "lr", "learning rate", f"Learning rate of {name}"),
        ("time", "seconds", "seconds per epoch", f"Time per epoch of {name}"),
    ]
    blocks: list[Figure] = []
    for kind, key, label, title in drawn:
        series = _series(one, key)
        if not series:
            continue
        ends = {fold: float(one.values(fold, key)[-1]) for fold in one.folds}
        known = {fold: value for fold, value in ends.items() if math.isfinite(value)}
        least, most = (pick(known, key=known.__getitem__, default=None) for pick in (min, max))
        description = f"{counted(len(series), 'fold')} by epoch."
        if key == "lr" and len(series) == 1:
            description = "The same in all folds." if len(one.folds) > 1 else "By epoch."
        elif least is not None and most is not None:
            description += f" At the end from {known[least]:.4g} (fold {least}) to {known[most]:.4g} (fold {most})."
        drawing = lines(series, title, description, "epoch", label, x_whole=True, height=200)
        words = "Learning rate and time of each epoch" if kind in ("rate", "time") else ""
        blocks.append(Figure(f"training-{number}-{kind}", drawing, title, description, words))
    return blocks


def _series(one: _Trained, key: str) -> list[Series]:
    """Return a line per fold with any value; one line if all folds have the same learning rate."""
    found = []
    for number, fold in enumerate(one.folds):
        values = one.values(fold, key)
        if np.isfinite(values).any():
            epochs = [record["epoch"] for record in one.folds[fold]]
            found.append(Series(f"fold {fold}", epochs, values.tolist(), tone=number))
    if key == "lr" and len({(tuple(line.x), tuple(line.y)) for line in found}) == 1:
        return [Series("all folds", found[0].x, found[0].y, tone=0)]
    return found
