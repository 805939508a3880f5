"""Render test-time augmentation as text: tables of views, the gain of the merge, and its cost."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.cli.terminal import console
from ensemble.tta.result import MergedViews
from ensemble.tta.scores import TTAGain, ViewScores
from folds.metrics.classification import Metric
from folds.metrics.intervals import Difference
from folds.metrics.report import ScoreReport
from folds.metrics.task_names import COLUMN_TASKS


def tta_report(made: MergedViews, scored: Sequence[ViewScores], gains: TTAGain | None) -> str:
    """Return the whole report: one table of views per split, then the gain and the cost of the merge."""
    return "\n\n".join([_table(one, made, gains) for one in scored] + ["\n".join(_lines(made, gains))])


def _table(scored: ViewScores, made: MergedViews, gains: TTAGain | None) -> str:
    """Return one row per view, one for the mean of all views (if the merge is another one), and one for the merge."""
    title = {"oof": "OOF", "test": "test"}[scored.split]
    oof = scored.split == "oof" and gains is not None
    has_columns = made.task in COLUMN_TASKS
    header = [
        "view",
        f"{title} {made.metric.title}",
        "95% CI (over people)",
        *(() if has_columns else ("accuracy",)),
        "rows",
        *(["weight", "leave-one-out"] if oof else []),
    ]
    rows: list[list[object]] = []

    def line(name: str, score: ScoreReport, *more: str) -> None:
        row: list[object] = [
            name,
            f"{score.interval.value:.3f}",
            score.interval.ci_text(),
            *(() if has_columns else (f"{score.accuracy:.3f}",)),
            f"{score.rows:,}",
        ]
        rows.append([*row, *(more or ("", "") if oof else ())])

    for name, score in scored.views.items():
        lost = gains.leave_one_out.get(name) if gains is not None else None
        line(name, score, *((_weight(made, name), "" if lost is None else f"{-lost:+.3f}") if oof else ()))
    name = merge_name(made)
    if gains is not None and oof and made.request.fitted(len(scored.views)):
        # The merge may be that mean itself: then it is one row, or, with the choice nested in its score, it says so.
        if name != f"mean of {len(scored.views)}":
            line(f"mean of all {len(scored.views)} views", gains.mean)
        elif scored.merged is not None and scored.merged.interval.value != gains.mean.interval.value:
            line(name, gains.mean)
            name = f"{made.request.how}, nested"
    if scored.merged is not None and made.evidence is not None and len(made.evidence.views) > 1:
        line(name, scored.merged)
    folds = ", ".join(map(str, scored.folds))
    return f"{console.table(header, rows)}\nfold{'s' if len(scored.folds) > 1 else ''} {folds}"


def merge_name(made: MergedViews) -> str:
    """Return the name of a merge: ``mean of 4``, ``weighted of 3 of 8``, or ``none alone`` if one view was chosen."""
    count, among = len(made.merge.views), 0 if made.evidence is None else len(made.evidence.views)
    if count == 1 and among > 1:
        return f"{made.merge.views[0]} alone"
    name = f"{made.merge.how} of {count}{f' of {among}' if among > count else ''}"
    return f"{name}, adaptive" if made.request.adaptive else name


def _weight(made: MergedViews, view: str) -> str:
    """Return the weight of a view: ``.25``, a range ``.10–.40`` if classes differ, or ``–`` if it is not used."""
    weights = made.merge.weights.get(view)
    if weights is None:
        return "–"
    if len(weights) == 1:
        return f"{weights[0]:.2f}"
    return f"{min(weights):.2f}–{max(weights):.2f}"


def _lines(made: MergedViews, gains: TTAGain | None) -> list[str]:
    """Return the gain of the merge, whether it is significant, and its cost."""
    lines = []
    if gains is not None:
        merged = gains.against_plain.second
        if gains.in_sample is not None:
            optimism = gains.in_sample - merged
            lines.append(
                f"{merge_name(made)}: nested {made.metric.title} {merged:.3f} (people not used for fitting); "
                f"in-sample {gains.in_sample:.3f}; optimism {optimism:+.3f}"
            )
        lines.append(f"vs no TTA: {_difference(made.metric, gains.against_plain)}")
        if made.merge.how != "mean" or made.request.fitted(len(made.evidence.views) if made.evidence else 0):
            lines.append(f"vs the mean of all views: {_difference(made.metric, gains.against_mean)}")
    if made.merge.threshold is not None:
        count = len(made.merge.views)
        within = (
            ""
            if gains is None or gains.full is None
            else f"; macro F1 {gains.against_plain.second:.3f}, with all {count} views {gains.full:.3f}"
        )
        lines.append(
            f"more views are used if the margin of the plain image is below {made.merge.threshold:.3f}{within}"
        )
    lines.append(_passes(made))
    return lines


def _difference(metric: Metric, found: Difference) -> str:
    change = found.difference
    verdict = found.verdict()
    gain = (change.value > 0) == metric.greater_is_better
    words = f"significant {'gain' if gain else 'loss'}" if verdict == "yes" else "not significant"
    why = verdict.partition(": ")[2]
    return f"{change.signed_text()} {metric.title} (paired 95% CI over people), {words}{f' ({why})' if why else ''}"


def _passes(made: MergedViews) -> str:
    """Return the forward passes per image, and the share that adaptive views save."""
    views = len(made.merge.views)
    if made.merge.threshold is None:
        return f"forward passes per image: {views}"

    def of(passes: float) -> str:
        return f"{passes:.2f} ({passes / views:.0%} of {views})"

    test = "" if made.test_views is None else f", {of(made.test_views)} on test"
    return f"forward passes per image: {of(made.oof_views)} out of fold{test}"
