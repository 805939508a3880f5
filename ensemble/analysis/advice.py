"""What the worth of the runs and their cost come to, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ensemble.analysis.contributions import Contributions, RunContribution
from ensemble.analysis.pareto import Pareto, Subset
from folds.metrics.classification import Metric
from folds.metrics.intervals import Difference, Interval

# A subset is as good as all runs where even the low end of the interval of its difference is not this far below 0.
MARGIN = 0.005
# Of a metric without bounds, in units of which .005 says nothing: this share of what all runs gain over guessing.
MARGIN_SHARE = 0.01
_CHANCE = 0.05
_TAIL = 0.025
_NAMED = 6
_DECIMALS = 3


def advice(worth: Contributions, pareto: Pareto | None = None, margin: float | None = None) -> list[str]:
    """Return what to do without, and which run is worth the most and the least; positive numbers are better, whichever way the metric goes.

    A cheaper subset is recommended where it is shown to be no worse than all runs by more than `margin`: the 95 % interval of the
    paired difference, of nested predictions, does not reach below −margin. That it contains 0 would not do: with few people every
    interval does. Subsets are tried from the dearest to the cheapest, and trying stops at the first that is not shown to be as good,
    so that many tries need no correction (a fixed sequence of tests: Maurer, Hothorn and Lehmacher, 1995).

    Parameters
    ----------
    margin : in units of the metric; `margin_of` without it.
    """
    lines = [] if pareto is None else _subsets(pareto, margin_of(worth) if margin is None else margin)
    if len(worth.members) > 1:
        lines += _extremes(worth)
    return lines


def margin_of(worth: Contributions) -> float | None:
    """By how much a subset may be worse and is still as good: `MARGIN` of a metric with bounds, else `MARGIN_SHARE` of the gain over guessing.

    None where that gain is not known (a user's function): what a difference means cannot be told then.
    """
    if not math.isinf(worth.metric.upper_bound - worth.metric.lower_bound):
        return MARGIN
    return None if worth.shares is None else MARGIN_SHARE * abs(worth.shares.full - worth.shares.empty)


def as_good(pareto: Pareto, margin: float | None = MARGIN) -> Subset | None:
    """Return the cheapest subset that is shown to be as good as all runs; see `advice`. None where no margin is given."""
    if margin is None:
        return None
    found = None
    for row in sorted(pareto.evaluated, key=lambda row: -row.cost):
        if row.difference is None or _low(row.difference, pareto.metric) < -margin:
            break
        if row.cost < pareto.everyone.cost:
            found = row
    return found


def _low(difference: Difference, metric: Metric) -> float:
    """Return the low end of a difference; where all people show the same, so that the interval has no width, what they leave open.

    If a share q of all people changed the score, n would all show the same with probability (1 − q)ⁿ. The q for which that is .025
    may lose the range of the metric: −.71 of accuracy for 3 people, −.005 for 736.
    """
    found = difference.difference
    if found.low < found.high:
        return found.low
    return found.low - (1 - _TAIL ** (1 / max(found.people, 1))) * (metric.upper_bound - metric.lower_bound)


def better(pareto: Pareto, margin: float | None = MARGIN) -> Subset | None:
    """Return the subset with the best score of those that are shown to be better than all runs, or a cheaper one of them within `margin` of it.

    Shown: `chance` times the number of subsets is below .05 (Bonferroni's correction).
    """
    sign = 1 if pareto.metric.greater_is_better else -1
    tries = len(pareto.evaluated)
    real = [
        row
        for row in pareto.evaluated
        if row.difference and row.difference.difference.low > 0 and row.difference.p_value * tries <= _CHANCE
    ]
    top = max((sign * row.score.value for row in real), default=0.0)
    return min(
        (row for row in real if sign * row.score.value >= top - (margin or 0)),
        key=lambda row: (row.cost, row.members),
        default=None,
    )


def _subsets(pareto: Pareto, margin: float | None) -> list[str]:
    best, cheap = better(pareto, margin), as_good(pareto, margin)
    if best is not None and cheap is not None and best is not cheap:
        return [f"for the score, {_sentence(pareto, best)}", f"for the cost, {_sentence(pareto, cheap)}"]
    found = best or cheap
    if found is None and margin is None:
        return [
            f"keep all: no cheaper subset is shown to be better, and how much of {pareto.metric.title} is little is not known"
        ]
    if found is None:
        return [
            f"keep all: no cheaper subset is shown to be within {margin:.2g} of all {len(pareto.everyone.members)} runs"
        ]
    return [_sentence(pareto, found)]


def _sentence(pareto: Pareto, subset: Subset) -> str:
    assert subset.difference is not None  # noqa: S101 - it is not all runs
    dropped = [name for name in pareto.everyone.members if name not in subset.members]
    saved = f"{100 * subset.saved:.0f} % {'less cost' if pareto.costs.given else 'fewer passes'}"
    # What is shorter to say.
    what = (
        f"drop {_listed(dropped)}"
        if len(dropped) <= max(len(subset.members), 3)
        else f"keep only {_listed(subset.members)}"
    )
    unsure = (
        ""
        if 2 * subset.times_chosen > subset.parts
        else f"; with other people others are chosen ({subset.times_chosen} of {subset.parts} parts chose these)"
    )
    return f"{what}: {signed(subset.difference.difference)}, {saved}{unsure}"


def _extremes(worth: Contributions) -> list[str]:
    name = worth.metric.title
    ranked = sorted(worth.members, key=lambda member: (_value(member), member.name))
    most, least = ranked[-1], ranked[0]
    if most.name == least.name:
        return []
    lines = [f"most valuable: {most.name}, {_told(most, name)}"]
    gained = least.leave_one_out.difference
    seen = "it does harm" if gained.high < 0 else "it helps all the same"
    verdict = seen if least.leave_one_out.is_significant else "no gain is to be seen"
    twin = (
        ""
        if least.most_similar is None or least.most_similar[1] < 0.5
        else f"; it errs most like {least.most_similar[0]} (correlation {least.most_similar[1]:.2f})"
    )
    return [*lines, f"least valuable: {least.name}, {_told(least, name)}; {verdict}{twin}"]


def _value(member: RunContribution) -> float:
    return member.leave_one_out.difference.value if member.share is None else member.share.value


def _told(member: RunContribution, metric: str) -> str:
    own = "" if member.share is None else f"its share of the {metric} is {member.share.value:+.{_DECIMALS}f}, and "
    return f"{own}it adds {signed(member.leave_one_out.difference)} to the vote"


def signed(one: Interval) -> str:
    """Return ``+0.012 [+0.006, +0.018]``."""
    return one.signed_text(_DECIMALS)


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_NAMED])
    if len(names) > _NAMED:
        return f"{', '.join(shown)} and {len(names) - _NAMED} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
