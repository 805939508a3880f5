"""The text of test-time augmentation: a table of views, what the merge is worth, what it costs; rendering only."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.cli.terminal import console
from ensemble.tta.result import TTAResult
from ensemble.tta.scores import TTAGain, ViewScores
from folds.metrics.intervals import Difference
from folds.metrics.report import ScoreReport


def tta_report(made: TTAResult, scored: Sequence[ViewScores], worth: TTAGain | None) -> str:
    """Return everything that is said of a run's views, for a person: a table a split, then what the merge gains and costs."""
    return "\n\n".join([_table(one, made, worth) for one in scored] + ["\n".join(_lines(made, worth))])


def _table(scored: ViewScores, made: TTAResult, worth: TTAGain | None) -> str:
    """Return one line a view, one for the mean of all where that is not the merge, one for the merge."""
    title = {"oof": "OOF", "test": "test"}[scored.split]
    oof = scored.split == "oof" and worth is not None
    header = [
        "view",
        f"{title} macro F1",
        "95 % over people",
        "accuracy",
        "rows",
        *(["weight", "without it"] if oof else []),
    ]
    rows: list[list[object]] = []

    def line(name: str, score: ScoreReport, *more: str) -> None:
        row: list[object] = [
            name,
            f"{score.interval.value:.3f}",
            score.interval.ci_text(),
            f"{score.accuracy:.3f}",
            f"{score.rows:,}",
        ]
        rows.append([*row, *(more or ("", "") if oof else ())])

    for name, score in scored.views.items():
        lost = worth.leave_one_out.get(name) if worth is not None else None
        line(name, score, *((_weight(made, name), "" if lost is None else f"{-lost:+.3f}") if oof else ()))
    if worth is not None and oof and made.request.fitted(len(scored.views)):
        line(f"mean of all {len(scored.views)}", worth.mean)
    if scored.merged is not None and made.evidence is not None and len(made.evidence.views) > 1:
        line(merge_name(made), scored.merged)
    folds = ", ".join(map(str, scored.folds))
    return f"{console.table(header, rows)}\nfold{'s' if len(scored.folds) > 1 else ''} {folds}"


def merge_name(made: TTAResult) -> str:
    """Return ``mean of 4``; ``weighted of 3 of 8``, ``plain image alone`` where views were chosen."""
    count, among = len(made.merge.views), 0 if made.evidence is None else len(made.evidence.views)
    if count == 1 and among > 1:
        return f"{made.merge.views[0]} alone"
    name = f"{made.merge.how} of {count}{f' of {among}' if among > count else ''}"
    return f"{name}, adaptive" if made.request.adaptive else name


def _weight(made: TTAResult, view: str) -> str:
    """Return ``.25``, ``.10–.40`` where classes differ, ``–`` for a view that is not used."""
    weights = made.merge.weights.get(view)
    if weights is None:
        return "–"
    if len(weights) == 1:
        return f"{weights[0]:.2f}"
    return f"{min(weights):.2f}–{max(weights):.2f}"


def _lines(made: TTAResult, worth: TTAGain | None) -> list[str]:
    """Return what the merge gains, whether other people would show it, and what it costs."""
    lines = []
    if worth is not None:
        merged = worth.against_plain.second
        if worth.in_sample is not None:
            optimism = worth.in_sample - merged
            told = f"{merged:.3f} on people it was not fitted on, {worth.in_sample:.3f} on those it was (optimism {optimism:+.3f})"
            lines.append(f"{merge_name(made)}: {told}")
        lines.append(f"against no TTA: {_difference(worth.against_plain)}")
        if made.merge.how != "mean" or made.request.fitted(len(made.evidence.views) if made.evidence else 0):
            lines.append(f"against the mean of all views: {_difference(worth.against_mean)}")
    if made.merge.threshold is not None:
        count = len(made.merge.views)
        within = (
            ""
            if worth is None or worth.full is None
            else f"; macro F1 {worth.against_plain.second:.3f}, with all {count} views {worth.full:.3f}"
        )
        lines.append(f"further views where the margin of the plain image is below {made.merge.threshold:.3f}{within}")
    lines.append(_passes(made))
    return lines


def _difference(found: Difference) -> str:
    change = found.difference
    verdict = found.verdict()
    told = "a gain" if change.value > 0 else "a loss"
    words = f"{told} that is distinguishable from none" if verdict == "yes" else "not distinguishable from none"
    why = verdict.partition(": ")[2]
    return f"{change.signed_text()} macro F1 (95 % over people, paired), {words}{f' ({why})' if why else ''}"


def _passes(made: TTAResult) -> str:
    """Forward passes an image, and what adaptive views save of them."""
    views = len(made.merge.views)
    if made.merge.threshold is None:
        return f"forward passes an image: {views}"

    def of(passes: float) -> str:
        return f"{passes:.2f} ({passes / views:.0%} of {views})"

    test = "" if made.test_views is None else f", {of(made.test_views)} on test"
    return f"forward passes an image: {of(made.oof_views)} out of fold{test}"
