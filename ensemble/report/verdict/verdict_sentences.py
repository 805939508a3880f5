"""Say in three sentences what to submit, its score, and whether anything is better than the simple choice."""

from __future__ import annotations

from collections.abc import Mapping

from ensemble.report.evidence.choice import is_better, left_out_text
from ensemble.report.evidence.evidence import SOFT_VOTE, Evidence, Part, Predicted
from ensemble.report.evidence.scoring import changed_note, difference_of, main_part, score_of
from ensemble.report.page.blocks import Check
from ensemble.report.verdict.column_verdict import column_sentences
from ensemble.report.verdict.verdict_people import check_leaks
from folds.metrics.classification import Metric
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Difference, Interval
from folds.metrics.task_names import REGRESSION
from folds.utils.text import counted


def sentences(evidence: Evidence) -> tuple[str, ...]:
    """Return the three sentences, what several labels or numbers add, and one for each run that left sites out; fewer
    without labeled predictions.
    """
    part = main_part(evidence)
    member = None if part is None or evidence.recommended is None else part.member(evidence.recommended)
    score = score_of(evidence, part, member)
    if (leak := leak_of_all(evidence)) is not None:
        return (f"Submit nothing yet: {leak.finding}. Mend it first: {leak.action}.",)
    if part is None or member is None or score is None:
        images = 0 if evidence.table is None else len(evidence.table.ids)
        return (
            "There are no predictions with known labels yet, so nothing is suggested; "
            f"the table has {counted(images, 'image')}.",
        )
    of_sites = [f"{one.text()}." for one in evidence.new_sites]
    advised = _advised(evidence, part, member)
    return (
        _submit(evidence, part, member, advised),
        _score(evidence, part, member, score, advised),
        _against_simple(evidence, part, member),
        *column_sentences(evidence, part, member),
        *of_sites,
    )


def leak_of_all(evidence: Evidence) -> Check | None:
    """Return the failed check of leaks if it is why nothing is suggested; None otherwise."""
    leak = None if evidence.recommended is not None else check_leaks(evidence)
    return leak if leak is not None and leak.status == "fail" else None


def _advised(evidence: Evidence, part: Part, member: Predicted) -> Predicted | None:
    """Return the simple choice if it is to be submitted instead of the combination that the page is about: it scores
    at least as high, so that nothing speaks for the effort. None otherwise.
    """
    simple = None if evidence.simple is None else part.member(evidence.simple)
    if simple is None or simple.name == member.name or member.kind != "blend":
        return None
    found = difference_of(evidence, part, simple, member)
    return simple if found is not None and gain_of(found, metric_of(evidence.metric)) <= 0 else None


def gain_of(found: Difference, metric: Metric) -> float:
    """Return by how much the second of two is better; negative if it is worse."""
    return found.difference.value if metric.greater_is_better else -found.difference.value


def _cost(member: Predicted) -> str:
    if member.passes is None:
        return ""
    return f", {counted(round(member.passes), 'forward pass', 'forward passes')} per image"


def _submit(evidence: Evidence, part: Part, member: Predicted, advised: Predicted | None) -> str:
    what = {"run": "a single run", "tta": "a run with test-time views", "blend": "a combination of runs"}[member.kind]
    written = "; `ensemble blend --method soft` writes it" if member.name == SOFT_VOTE else ""
    if advised is None:
        return f"Submit `{member.name}` ({what}{_cost(member)}){written}."
    found = difference_of(evidence, part, member, advised)
    start = "This page is about" if member.name == SOFT_VOTE else "You chose"
    reason = "" if found is None else f" {_compared(evidence, found, advised)}"
    if member.passes and advised.passes and advised.passes < member.passes:
        half = advised.passes * 2 == member.passes
        share = "half the" if half else f"{advised.passes:g} instead of {member.passes:g}"
        reason += f", at {share} forward passes"
    return (
        f"{start} `{member.name}` ({what}{_cost(member)}){written}.{reason}: submit `{advised.name}` unless you have a "
        "reason for the combination."
    )


def _compared(evidence: Evidence, found: Difference, better: Predicted) -> str:
    """Return ``run scores 0.008 macro F1 higher [-0.028, +0.045] (not significant)``, of the second of two."""
    metric, change = metric_of(evidence.metric), found.difference
    if change.value == 0:
        return f"`{better.name}` has the same {metric.title}"
    how = "higher" if change.value > 0 else "lower"
    sure = "significant" if found.is_significant else "not significant"
    return (
        f"`{better.name}` scores {abs(change.value):.3f} {metric.title} {how} (difference {change.signed_text()}, "
        f"paired 95% CI, {sure})"
    )


def _score(evidence: Evidence, part: Part, member: Predicted, score: Interval, advised: Predicted | None = None) -> str:
    title = metric_of(evidence.metric).title
    lower = "" if metric_of(evidence.metric).greater_is_better else " (lower is better)"
    each = " averaged over each person's images" if evidence.averages(part) else ""
    if evidence.pooled is not None:
        each = f" by person (images pooled by `{evidence.pooled.rule}`)"
    nested = "nested " if member.in_sample is not None else ""
    leak = check_leaks(evidence) if part.name == "oof" else None
    unseen = ", on people whom no model had seen in training" if leak is not None and leak.status == "pass" else ""
    if len(evidence.classes) > 1 and evidence.has_columns:
        each = f" (mean over {len(evidence.classes)} {'numbers' if evidence.task == REGRESSION else 'labels'}){each}"
    whose = f"Its {nested}{kind_of_part(part)} {title}{each}"
    if advised is not None:
        whose = f"The {nested}{kind_of_part(part)} {title}{each} of `{member.name}`"
    text = f"{whose}{unseen}, is {score.text()}{lower}, 95% CI ({_over(part, score)})"
    other_score = score_of(evidence, part, advised)
    if advised is not None and other_score is not None:
        text += f"; that of `{advised.name}` is {other_score.text()}"
    if leak is not None and leak.status == "fail":
        text += "; this is optimistic, because people are in training and validation"
    if line := changed_note(part, member):
        text += f"; it is {line}"
    if member.selected_on_validation:
        text += "; this is optimistic, because epochs or models were selected on these people"
    other = evidence.test if part is evidence.oof else None
    test = score_of(evidence, other, None if other is None else other.member(member.name))
    if other is not None and test is not None:
        it = "it is" if advised is None else f"that of `{member.name}` is"
        unit = "people" if other.persons_known else "images"
        warned = f"; of the test {unit}, {test.warning}" if test.warning else ""
        text += f"; on the test {unit} {it} {test.text()} ({_over(other, test)}{warned})"
    return text + "."


def kind_of_part(part: Part) -> str:
    return "out-of-fold" if part.name == "oof" else "test"


def _over(part: Part, score: Interval) -> str:
    return f"over {counted(score.people, *(('person', 'people') if part.persons_known else ('image',)))}"


def _against_simple(evidence: Evidence, part: Part, member: Predicted) -> str:
    simple = None if evidence.simple is None else part.member(evidence.simple)
    others = [one for one in part.members if simple is not None and one.name != simple.name]
    if simple is None or not others:
        return (
            "There is nothing else to compare it with: "
            "a second run, views or a blend would tell whether it can be better."
        )
    metric = metric_of(evidence.metric)
    found = {one.name: difference_of(evidence, part, simple, one) for one in others}
    among = len(others)
    better = [
        name
        for name, one in found.items()
        if one is not None and one.is_significant_among(among) and is_better(one, metric)
    ]
    what = "the best single run" if simple.kind == "run" else "the simple choice"
    compared = f"{what}, `{simple.name}`, on the same people" + left_out_text(part, (simple, *others))
    own = found.get(member.name)
    change = "" if own is None else f"; `{member.name}` differs by {own.difference.signed_text()} {metric.title}"
    change += _best_other(evidence, part, member, simple, found)
    if not better:
        ending = "the gain is not shown, and the simple choice may do as well."
        if member.name == simple.name:
            ending = "the simple choice is as good as can be shown."
        elif own is None:
            ending = "no gain is shown."
        elif gain_of(own, metric) <= 0:
            ending = f"there is no gain of `{member.name}`, not even by the scores alone."
        return (
            f"None of the {counted(among, 'other candidate')} is significantly better than {compared}{change} "
            f"(paired 95% CI): {ending}"
        )
    named = ", ".join(f"`{name}`" for name in better[:5]) + (f" and {len(better) - 5} more" if len(better) > 5 else "")
    return (
        f"Significantly better than {compared}: {named} (among {counted(among, 'comparison')}){change} (paired 95% CI)."
    )


def _best_other(
    evidence: Evidence, part: Part, member: Predicted, simple: Predicted, found: Mapping[str, Difference | None]
) -> str:
    """Return how the best candidate differs from the simple choice, if that is another than the suggested one."""
    metric = metric_of(evidence.metric)
    known = {name: one for name, one in found.items() if one is not None}
    if not known:
        return ""
    best = max(known, key=lambda name: gain_of(known[name], metric))
    own = known.get(member.name)
    if best == member.name or gain_of(known[best], metric) <= max(0.0, 0.0 if own is None else gain_of(own, metric)):
        return ""
    text = f", and `{best}`, which scores best, by {known[best].difference.signed_text()}"
    between = difference_of(evidence, part, member, part.member(best)) if member.name != simple.name else None
    return text + ("" if between is None else f" (from `{member.name}` by {between.difference.signed_text()})")
