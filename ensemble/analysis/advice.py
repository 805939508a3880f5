"""Recommendations in sentences: which runs to drop, and which contribute most and least."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ensemble.analysis.contributions import Contributions, RunContribution
from ensemble.analysis.pareto import Pareto, Subset
from folds.metrics.classification import Metric
from folds.metrics.intervals import Difference, Interval
from folds.utils.text import counted

# A subset is as good as all runs if the lower end of the CI of its difference is above −MARGIN.
MARGIN = 0.005
# For a metric without bounds: this share of the gain of all runs over guessing.
MARGIN_SHARE = 0.01
_ALPHA = 0.05
_TAIL = 0.025
_NAMED = 6
_DECIMALS = 3


def advice(contributions: Contributions, pareto: Pareto | None = None, margin: float | None = None) -> list[str]:
    """Return which runs to drop and which contribute most and least. Positive numbers are better, for every metric.

    A cheaper subset is recommended if it is shown to be at most `margin` worse than all runs: the 95% CI of the paired
    difference of nested predictions lies above −margin. A CI that contains 0 is not enough, because with few people
    every CI does. Subsets are tested from the most expensive to the cheapest, up to the first that fails, so no
    correction for several tests is needed (fixed-sequence testing: Maurer, Hothorn and Lehmacher, 1995).

    Parameters
    ----------
    margin : in units of the metric; `margin_of` by default.
    """
    lines = [] if pareto is None else _subsets(pareto, margin_of(contributions) if margin is None else margin)
    if len(contributions.members) > 1:
        lines += _extremes(contributions)
    return lines


def margin_of(contributions: Contributions) -> float | None:
    """Return the non-inferiority margin: `MARGIN` for bounded metrics, else `MARGIN_SHARE` of the gain over guessing.

    None if that gain is unknown (a user's function).
    """
    if not math.isinf(contributions.metric.upper_bound - contributions.metric.lower_bound):
        return MARGIN
    shares = contributions.shares
    return None if shares is None else MARGIN_SHARE * abs(shares.full - shares.empty)


def as_good(pareto: Pareto, margin: float | None = MARGIN) -> Subset | None:
    """Return the cheapest subset that is shown to be as good as all runs (see `advice`); None without a margin."""
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
    """Return the lower end of the CI of a difference, also where the CI has no width because all people agree.

    If a share q of all people changed the score, n people would all agree with probability (1 − q)ⁿ. The q with
    probability .025, times the range of the metric, is subtracted: −.71 of accuracy for 3 people, −.005 for 736.
    """
    found = difference.difference
    if found.low < found.high:
        return found.low
    return found.low - (1 - _TAIL ** (1 / max(found.people, 1))) * (metric.upper_bound - metric.lower_bound)


def better(pareto: Pareto, margin: float | None = MARGIN) -> Subset | None:
    """Return the best subset that is significantly better than all runs, or a cheaper one within `margin` of it.

    Significant: the p-value times the number of subsets is at most .05 (Bonferroni correction).
    """
    sign = 1 if pareto.metric.greater_is_better else -1
    tries = len(pareto.evaluated)
    real = [
        row
        for row in pareto.evaluated
        if row.difference and row.difference.difference.low > 0 and row.difference.p_value * tries <= _ALPHA
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
        return [f"keep all: no cheaper subset is significantly better ({pareto.metric.title} has no known margin)"]
    if found is None:
        everyone = counted(len(pareto.everyone.members), "run")
        return [f"keep all: no cheaper subset is shown to be within {margin:.2g} of all {everyone}"]
    return [_sentence(pareto, found)]


def _sentence(pareto: Pareto, subset: Subset) -> str:
    assert subset.difference is not None  # noqa: S101 - it is not all runs
    dropped = [name for name in pareto.everyone.members if name not in subset.members]
    saved = f"{100 * subset.saved:.0f} % {'less cost' if pareto.costs.given else 'fewer passes'}"
    # The shorter of the two lists.
    what = (
        f"drop {_listed(dropped)}"
        if len(dropped) <= max(len(subset.members), 3)
        else f"keep only {_listed(subset.members)}"
    )
    unsure = (
        ""
        if 2 * subset.times_chosen > subset.parts
        else f"; unstable: chosen in {subset.times_chosen} of {subset.parts} outer folds"
    )
    return f"{what}: {signed(subset.difference.difference)}, {saved}{unsure}"


def _extremes(contributions: Contributions) -> list[str]:
    name = contributions.metric.title
    ranked = sorted(contributions.members, key=lambda member: (_value(member), member.name))
    most, least = ranked[-1], ranked[0]
    if most.name == least.name:
        return []
    lines = [f"largest contribution: {most.name}, {_contribution(most, name)}"]
    gained = least.leave_one_out.difference
    seen = "removing it would help" if gained.high < 0 else "a significant gain"
    verdict = seen if least.leave_one_out.is_significant else "no measurable gain"
    twin = ""
    if least.most_similar is not None and least.most_similar[1] >= 0.5:
        other, correlation = least.most_similar
        twin = f"; its errors are most similar to those of {other} (correlation {correlation:.2f})"
    return [*lines, f"smallest contribution: {least.name}, {_contribution(least, name)}; {verdict}{twin}"]


def _value(member: RunContribution) -> float:
    return member.leave_one_out.difference.value if member.share is None else member.share.value


def _contribution(member: RunContribution, metric: str) -> str:
    own = "" if member.share is None else f"Shapley value {member.share.value:+.{_DECIMALS}f} {metric}, "
    return f"{own}leave-one-out difference {signed(member.leave_one_out.difference)}"


def signed(one: Interval) -> str:
    """Return ``+0.012 [+0.006, +0.018]``."""
    return one.signed_text(_DECIMALS)


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_NAMED])
    if len(names) > _NAMED:
        return f"{', '.join(shown)} and {len(names) - _NAMED} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
