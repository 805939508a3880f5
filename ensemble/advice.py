"""What the worth of the runs and their cost come to, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.pareto import Pareto, Subset
from ensemble.worth import MemberWorth, Worth
from folds.intervals import Interval

# A subset is as good as all runs where even the low end of the interval of its difference is not below this.
MARGIN = 0.005
_CHANCE = 0.05
_NAMED = 6
_DECIMALS = 3


def advice(worth: Worth, pareto: Pareto | None = None, margin: float = MARGIN) -> list[str]:
    """What to do without, and which run is worth the most and the least; positive numbers are better, whichever way the metric goes.

    A cheaper subset is recommended where it is shown to be no worse than all runs by more than `margin`: the 95 % interval of the
    paired difference, of nested predictions, does not reach below −margin. That it contains 0 would not do: with few people every
    interval does. Subsets are tried from the dearest to the cheapest, and trying stops at the first that is not shown to be as good,
    so that many tries need no correction (a fixed sequence of tests: Maurer, Hothorn and Lehmacher, 1995).

    Parameters
    ----------
    margin : in units of the metric.
    """
    lines = [] if pareto is None else _subsets(pareto, margin)
    if len(worth.members) > 1:
        lines += _extremes(worth)
    return lines


def as_good(pareto: Pareto, margin: float = MARGIN) -> Subset | None:
    """The cheapest subset that is shown to be as good as all runs; see `advice`."""
    found = None
    for row in sorted(pareto.looked_at, key=lambda row: -row.cost):
        if row.difference is None or row.difference.difference.low < -margin:
            break
        if row.cost < pareto.everyone.cost:
            found = row
    return found


def better(pareto: Pareto, margin: float = MARGIN) -> Subset | None:
    """The subset with the best score of those that are shown to be better than all runs, or a cheaper one of them within `margin` of it.

    Shown: `chance` times the number of subsets is below .05 (Bonferroni's correction).
    """
    sign = 1 if pareto.metric.greater_is_better else -1
    tries = len(pareto.looked_at)
    real = [row for row in pareto.looked_at if row.difference and row.difference.difference.low > 0 and row.difference.chance * tries <= _CHANCE]
    top = max((sign * row.score.score for row in real), default=0.0)
    return min((row for row in real if sign * row.score.score >= top - margin), key=lambda row: (row.cost, row.members), default=None)


def _subsets(pareto: Pareto, margin: float) -> list[str]:
    best, cheap = better(pareto, margin), as_good(pareto, margin)
    if best is not None and cheap is not None and best is not cheap:
        return [f"for the score, {_sentence(pareto, best)}", f"for the cost, {_sentence(pareto, cheap)}"]
    found = best or cheap
    if found is None:
        return [f"keep all: no cheaper subset is shown to be within {margin:g} of all {len(pareto.everyone.members)} runs"]
    return [_sentence(pareto, found)]


def _sentence(pareto: Pareto, subset: Subset) -> str:
    assert subset.difference is not None  # noqa: S101 - it is not all runs
    dropped = [name for name in pareto.everyone.members if name not in subset.members]
    saved = f"{100 * subset.fewer:.0f} % {'less cost' if pareto.costs.given else 'fewer passes'}"
    # What is shorter to say.
    what = f"drop {_listed(dropped)}" if len(dropped) <= max(len(subset.members), 3) else f"keep only {_listed(subset.members)}"
    unsure = "" if 2 * subset.alike > subset.parts else f"; with other people others are chosen ({subset.alike} of {subset.parts} parts chose these)"
    return f"{what}: {signed(subset.difference.difference)}, {saved}{unsure}"


def _extremes(worth: Worth) -> list[str]:
    name = worth.metric.title
    ranked = sorted(worth.members, key=lambda member: (_value(member), member.name))
    most, least = ranked[-1], ranked[0]
    if most.name == least.name:
        return []
    lines = [f"most valuable: {most.name}, {_told(most, name)}"]
    gained = least.without.difference
    if gained.high < 0:
        verdict = "it does harm"
    elif gained.low <= 0:
        verdict = "no gain is to be seen"
    else:
        verdict = "it helps all the same"
    twin = "" if least.closest is None or least.closest[1] < 0.5 else f"; it errs most like {least.closest[0]} (correlation {least.closest[1]:.2f})"
    return [*lines, f"least valuable: {least.name}, {_told(least, name)}; {verdict}{twin}"]


def _value(member: MemberWorth) -> float:
    return member.without.difference.score if member.share is None else member.share.score


def _told(member: MemberWorth, metric: str) -> str:
    own = "" if member.share is None else f"its share of the {metric} is {member.share.score:+.{_DECIMALS}f}, and "
    return f"{own}it adds {signed(member.without.difference)} to the vote"


def signed(one: Interval) -> str:
    """``+0.012 (+0.006 to +0.018)``."""
    return f"{one.score:+.{_DECIMALS}f} ({one.low:+.{_DECIMALS}f} to {one.high:+.{_DECIMALS}f})"


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_NAMED])
    if len(names) > _NAMED:
        return f"{', '.join(shown)} and {len(names) - _NAMED} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
