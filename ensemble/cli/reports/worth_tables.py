"""Tables of what each run is worth and of score against cost."""

from __future__ import annotations

from ensemble.analysis.contributions import Worth
from ensemble.analysis.pareto import Pareto
from ensemble.cli.terminal import console
from ensemble.cli.terminal.spans import signed_span

_NAMED = 5


def worth_table(worth: Worth) -> str:
    """A line a run, the most valuable first: score, share of the vote, what the vote loses without it, Shapley value, closest run."""
    title = worth.metric.title + ("" if worth.metric.greater_is_better else " (less is better)")
    header = ["run", title, "weight", "worth in the vote" if not worth.refitted else "worth, refitted", "95 %, paired"]
    if worth.shares is not None:
        header += ["Shapley value", "95 %"]
    rows = []
    order = sorted(worth.members, key=lambda one: (-(one.without.difference if one.share is None else one.share).score, one.name))
    for member in order:
        gained = member.without.difference
        row = [member.name, f"{member.score.score:.3f}", f"{member.weight:.3f}", f"{gained.score:+.3f}", signed_span(gained)]
        if worth.shares is not None:
            row += ["–", "–"] if member.share is None else [f"{member.share.score:+.3f}", signed_span(member.share)]
        rows.append([*row, "–" if member.closest is None else f"{member.closest[0]} ({member.closest[1]:.2f})"])
    return console.table([*header, "errs most like"], rows)


def worth_notes(worth: Worth) -> list[str]:
    """What a reader of the table must know."""
    notes = [] if worth.metric.greater_is_better else [f"worth, Shapley values and gains: positive is better, though less {worth.metric.title} is"]
    shares = worth.shares
    if shares is not None:
        drawn = "" if shares.exact else f"; orders are drawn, standard error {shares.error:.4f}, part of the intervals"
        notes.append(f"Shapley values share out what is gained over guessing: {shares.nobody:.3f} → {shares.everybody:.3f}{drawn}")
    alike, apart = worth.diversity.mean("correlation"), worth.diversity.mean("disagreement")
    if alike is not None and apart is not None:
        notes.append(f"two runs on average: being right correlates {alike:.2f}, and on {100 * apart:.0f} % of rows one is right and the other wrong")
    return notes


def pareto_table(pareto: Pareto) -> str:
    """A line a subset that no other is both cheaper and better than, the cheapest first; last, all runs, where they are not one of them."""
    title, unit = pareto.metric.title, pareto.costs.unit
    title += "" if pareto.metric.greater_is_better else " (less is better)"
    header = ["runs", unit, f"nested {title}", "95 %", "gain over all", "95 %, paired", "members"]
    rows = []
    for row in [*pareto.rows, *([] if pareto.everyone in pareto.rows else [pareto.everyone])]:
        gained = None if row.difference is None else row.difference.difference
        listed = "all" if row is pareto.everyone else _members(row.members)
        cells = [str(len(row.members)), f"{row.cost:g}", f"{row.score.score:.3f}", f"{row.score.low:.3f}–{row.score.high:.3f}"]
        rows.append([*cells, "–" if gained is None else f"{gained.score:+.3f}", "–" if gained is None else signed_span(gained), listed])
    return console.table(header, rows, left=0)


def _members(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
