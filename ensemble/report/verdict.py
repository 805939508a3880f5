"""Say in three sentences what to submit and how sure that is, and check what the numbers rest on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from ensemble.report.blocks import Block, Check, Checks, Missing, Section, Status, Text
from ensemble.report.choice import is_better, is_worse, left_out_text, ranked_with
from ensemble.report.column_verdict import CHECKS as COLUMN_CHECKS
from ensemble.report.column_verdict import column_blocks, column_sentences
from ensemble.report.doubtful_people import SURE, doubtful_people, doubts_of
from ensemble.report.evidence import SOFT_VOTE, Evidence, Part, Predicted, RunRecord
from ensemble.report.findings import COMPARED
from ensemble.report.scoring import changed_note, difference_of, labeled, main_part, score_of, scored_part
from ensemble.report.training import MIN_EPOCHS, still_rising
from folds.errors import EnsembleError
from folds.metrics.calibration import calibration_error, reliability
from folds.metrics.classification import Metric
from folds.metrics.confusion import argmax_classes
from folds.metrics.custom import metric_of
from folds.metrics.grouping import people_with_class
from folds.metrics.intervals import Difference, Interval, interval_over_people
from folds.metrics.per_class import class_scores
from folds.metrics.task_names import REGRESSION
from folds.utils.numeric import factorize, groups_in_several_folds
from folds.utils.text import counted

FEW_PEOPLE = 50  # below, intervals are wide and their coverage was seen to be lower
FEW_PER_CLASS = 5  # people of a class, one for each of five folds
WEAK_F1 = 0.5  # of a class, from which it counts as recognized
FAR_BELOW = 0.1  # of the best run, of metrics whose best value is 1
DECAYED = 0.05  # of the largest learning rate
WIDE = 0.2  # width of an interval that decides little
HALF = 0.5  # likewise, as a share of an error that has the unit of a number
GAP = 0.02  # mean confidence minus accuracy that is not worth a warning
# Fields of a run's record of versions that may differ from machine to machine without meaning anything.
_OF_THE_MACHINE = ("cpu", "cuda device", "machine")

_WITH_NAMES = ("copies", "files", "sites", "table", "versions")  # checks whose findings begin with names of users


def verdict_section(evidence: Evidence) -> Section:
    """Return what to submit, its score, whether anything is better than the simple choice, and the checks."""
    blocks: list[Block] = [Text(sentences(evidence)), *_scores_of_columns(evidence)]
    if evidence.main is None and _leak_of_all(evidence) is None:
        blocks.append(
            Missing(
                "which model to submit needs out-of-fold predictions with labels", "`ensemble kfold --k 5 --arch swin`"
            )
        )
    blocks.append(Checks(checks_of(evidence)))
    return Section("verdict", "Verdict", "What to submit, how sure that is, and what to check first.", tuple(blocks))


def _scores_of_columns(evidence: Evidence) -> list[Block]:
    part = main_part(evidence)
    member = None if part is None or evidence.recommended is None else part.member(evidence.recommended)
    return [] if part is None or member is None else column_blocks(evidence, part, member)


def sentences(evidence: Evidence) -> tuple[str, ...]:
    """Return the three sentences, what several labels or numbers add, and one for each run that left sites out; fewer
    without labeled predictions.
    """
    part = main_part(evidence)
    member = None if part is None or evidence.recommended is None else part.member(evidence.recommended)
    score = score_of(evidence, part, member)
    if (leak := _leak_of_all(evidence)) is not None:
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


def _leak_of_all(evidence: Evidence) -> Check | None:
    """Return the failed check of leaks if it is why nothing is suggested; None otherwise."""
    leak = None if evidence.recommended is not None else _leaks(evidence)
    return leak if leak is not None and leak.status == "fail" else None


def _advised(evidence: Evidence, part: Part, member: Predicted) -> Predicted | None:
    """Return the simple choice if it is to be submitted instead of the combination that the page is about: it scores
    at least as high, so that nothing speaks for the effort. None otherwise.
    """
    simple = None if evidence.simple is None else part.member(evidence.simple)
    if simple is None or simple.name == member.name or member.kind != "blend":
        return None
    found = difference_of(evidence, part, simple, member)
    return simple if found is not None and _gain(found, metric_of(evidence.metric)) <= 0 else None


def _gain(found: Difference, metric: Metric) -> float:
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
    each = " averaged over each person's images" if evidence.per_person and part.persons_known else ""
    nested = "nested " if member.in_sample is not None else ""
    leak = _leaks(evidence) if part.name == "oof" else None
    unseen = ", on people whom no model had seen in training" if leak is not None and leak.status == "pass" else ""
    if len(evidence.classes) > 1 and evidence.has_columns:
        each = f" (mean over {len(evidence.classes)} {'numbers' if evidence.task == REGRESSION else 'labels'}){each}"
    whose = f"Its {nested}{_named(part)} {title}{each}"
    if advised is not None:
        whose = f"The {nested}{_named(part)} {title}{each} of `{member.name}`"
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


def _named(part: Part) -> str:
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
        elif _gain(own, metric) <= 0:
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
    best = max(known, key=lambda name: _gain(known[name], metric))
    own = known.get(member.name)
    if best == member.name or _gain(known[best], metric) <= max(0.0, 0.0 if own is None else _gain(own, metric)):
        return ""
    text = f", and `{best}`, which scores best, by {known[best].difference.signed_text()}"
    between = difference_of(evidence, part, member, part.member(best)) if member.name != simple.name else None
    return text + ("" if between is None else f" (from `{member.name}` by {between.difference.signed_text()})")


def checks_of(evidence: Evidence) -> tuple[Check, ...]:
    """Return all checks, the failed ones first."""
    order = {"fail": 0, "warn": 1, "unknown": 2, "pass": 3}
    found = [
        replace(one, subject=subject, finding=_sentence(subject, one.finding))
        for subject, check in _checks(evidence.task).items()
        for one in [check(evidence)]
        if one is not None
    ]
    return tuple(sorted(found, key=lambda one: order[one.status]))


def _checks(task: str) -> Mapping[str, Callable[[Evidence], Check | None]]:
    """Return the checks of a task: those of classes are replaced by those of labels or numbers."""
    if task not in COLUMN_CHECKS:
        return _CHECKS
    found: dict[str, Callable[[Evidence], Check | None]] = {}
    for subject, check in _CHECKS.items():
        if subject not in _OF_CLASSES:
            found[subject] = check
        if subject == "people":
            found |= COLUMN_CHECKS[task]
    return found


def _sentence(subject: str, text: str) -> str:
    """Return a finding with a capital letter, unless it may begin with a name."""
    return text if subject in _WITH_NAMES else text[:1].upper() + text[1:]


def _leaks(evidence: Evidence) -> Check | None:
    title, part = "No person is in training and validation", evidence.oof
    if part is None:
        return None
    if not part.persons_known:
        return Check(
            "warn",
            "The people of the images are not known",
            "a person may be in training and validation: it cannot be known whether the images of one person are in "
            "several folds",
            "name the person (group) of each image: a column `person` of the table",
        )
    if part.fold is None:
        return Check(
            "unknown",
            "Not known: whether a person is in training and validation",
            "the folds of the images are not known, or the members have different folds",
            "train all runs on one split: `ensemble kfold --folds folds.csv`",
        )
    names, codes = factorize(part.persons)
    several = [names[one] for one in groups_in_several_folds(codes, part.fold).tolist()]
    if several:
        return Check(
            "fail",
            "People are in training and validation",
            f"{counted(len(several), 'person is', 'people are')} in more than one fold, e.g. {several[0]}: "
            "the score includes people seen in training",
            "split by person and train again: `ensemble folds`",
        )
    folds = len(np.unique(part.fold))
    return Check("pass", title, f"each of the {len(names):,} people is in one of {folds} folds")


def _test_leak(evidence: Evidence) -> Check | None:
    title = "No test person is in training"
    if evidence.oof is None or evidence.test is None:
        return None
    if not (evidence.oof.persons_known and evidence.test.persons_known):
        return Check(
            "unknown",
            "Not known: whether a test person is in training",
            "the people of the test images are not known",
            "a column `person` in the test table tells whether test people are in training",
        )
    both = np.intersect1d(evidence.oof.persons, evidence.test.persons)
    if len(both):
        return Check(
            "fail",
            "Test people are in training",
            f"{counted(len(both), 'person is', 'people are')} in training and test, e.g. {both[0]}: "
            "the test score is optimistic",
            "remove them from the test images, or report the out-of-fold score only",
        )
    return Check("pass", title, f"none of the {len(np.unique(evidence.test.persons)):,} test people is in training")


def _copies(evidence: Evidence) -> Check | None:
    title, look = "No image is a copy of another person's image", "`ensemble folds check` compares all pairs of images"
    compared = next((int(one.get("count") or 0) for one in evidence.findings if one.get("kind") == COMPARED), None)
    copies = [one for one in evidence.findings if is_copy(one)]
    if copies:
        listed = "; ".join(f"{one['message']}" for one in copies[:4])
        return Check(
            "warn", "There are copies of images", listed, "look at them in the section Data, remove or relabel them"
        )
    if not compared:
        return Check("unknown", "Copies were not looked for", "the images were not compared for this page", look)
    return Check("pass", title, f"no copies among {counted(compared, 'image')}")


def is_copy(finding: Mapping[str, object]) -> bool:
    """Return whether a finding of the audit is about copies that matter: of other people, or in training and test."""
    kind = str(finding.get("kind"))
    return finding.get("severity") == "warning" and (kind.startswith(("identical images", "altered copies")))


def _other_findings(evidence: Evidence) -> Check | None:
    title = "The table is consistent"
    found = [one for one in evidence.findings if one.get("severity") in ("error", "warning") and not is_copy(one)]
    if not evidence.findings:
        return None
    if not found:
        return Check("pass", title, "the audit of the table found nothing")
    status: Status = "fail" if any(one.get("severity") == "error" for one in found) else "warn"
    return Check(
        status,
        f"The table has {counted(len(found), 'problem')}",
        "; ".join(str(one.get("message")) for one in found[:4]),
        "`ensemble folds check` lists every case",
    )


def _rare_classes(evidence: Evidence) -> Check | None:
    part = evidence.oof
    if part is None or not (part.labels >= 0).any():
        return None
    known = part.labels >= 0
    counts = people_with_class(part.labels[known], part.persons[known], len(evidence.classes))
    unit = "people" if part.persons_known else "images"
    title = f"Every class has {FEW_PER_CLASS} {unit} or more"
    titles = [evidence.class_title(name) for name in evidence.classes]
    rare = [(name, int(count)) for name, count in zip(titles, counts, strict=True) if count < FEW_PER_CLASS]
    if not rare:
        least = int(counts.argmin())
        return Check("pass", title, f"the rarest class, {titles[least]}, has {int(counts[least]):,} {unit}")
    listed = ", ".join(f"{name} ({count})" for name, count in sorted(rare, key=lambda one: one[1])[:8])
    more = f" and {len(rare) - 8} more" if len(rare) > 8 else ""
    return Check(
        "fail" if any(count < 2 for _, count in rare) else "warn",
        f"{counted(len(rare), 'class has', 'classes have')} fewer than {FEW_PER_CLASS} {unit}",
        f"{unit} of each: {listed}{more}; their scores say little, and macro F1 counts them like any other",
        "collect more people of these classes, or merge classes; report the scores of the others apart",
    )


def _people(evidence: Evidence) -> Check | None:
    part = main_part(evidence)
    score = (
        None
        if part is None or evidence.recommended is None
        else score_of(evidence, part, part.member(evidence.recommended))
    )
    if part is None or score is None:
        return None
    unit = "people" if part.persons_known else "images"
    width, metric = score.high - score.low, metric_of(evidence.metric)
    wide = f"the 95% CI of {metric.title} is {width:.3f} wide"
    # Errors of numbers have the unit of the number, so their interval is compared with their size.
    limit = WIDE if evidence.task != REGRESSION or math.isfinite(metric.upper_bound) else HALF * abs(score.value)
    most = f"{WIDE}" if limit == WIDE else f"{limit:.3f}"
    finding = f"{score.people:,} {unit}; {wide}"
    finding += f"; {score.warning}" if score.warning else ""
    title = f"Enough {unit}: {wide}"
    if score.people < FEW_PEOPLE or not width <= limit or score.warning:
        return Check(
            "warn",
            f"Few {unit}: {wide}" if math.isfinite(width) else f"Few {unit}: there is no 95% CI",
            f"{finding}; this check passes with {FEW_PEOPLE} {unit} or more and a width of at most {most}",
            f"more {unit} narrow the interval: with four times as many it is about half as wide",
        )
    return Check("pass", title, finding)


def _folds_differ(evidence: Evidence) -> Check | None:
    untold, part, member = "The folds were not compared", evidence.oof, evidence.main
    if part is None or member is None:
        return None
    rows = scored_part(part, [member], evidence.per_person, evidence.task)
    if rows is None:
        return None
    if rows.fold is None:
        return Check("unknown", untold, "the folds of the images are not known")
    metric, fold = metric_of(evidence.metric), rows.fold
    numbers = np.unique(fold).tolist()
    if len(numbers) < 2:
        return Check("unknown", untold, "one fold is trained", "train the others: `ensemble kfold --resume`")
    labels, (values,), persons = rows.labels, rows.values, rows.persons
    level, off, scores = 1 - 0.05 / len(numbers), [], []
    for number in numbers:
        inside = fold == number
        found = interval_over_people(metric, labels[inside], values[inside], persons[inside], level=level)
        rest = interval_over_people(metric, labels[~inside], values[~inside], persons[~inside], level=level)
        scores.append(found.value)
        if found.high < rest.low or found.low > rest.high:
            off.append(f"fold {number} ({found.value:.3f}, the others {rest.value:.3f})")
    finding = f"{metric.title} from {min(scores):.3f} to {max(scores):.3f} in {len(numbers)} folds"
    if off:
        return Check(
            "warn",
            f"{counted(len(off), 'fold scores', 'folds score')} differently from the others",
            f"{finding}; different from the others beyond chance: {', '.join(off)}",
            "look at its curve in the section Training, and at its people: another camera or hospital, wrong labels?",
        )
    people = len(np.unique(persons))
    few = f"; with about {people // len(numbers):,} people each, such differences are expected by chance"
    title = "The scores of the folds differ no more than by chance"
    return Check("pass", title, f"{finding}{few if part.persons_known else ''}")


def _sites(evidence: Evidence) -> Check | None:
    """Return whether new sites score like those of training, if a run left sites out."""
    if not evidence.new_sites:
        return None
    title, found = "New sites score like known ones", evidence.new_sites
    finding = "; ".join(text for one in found for text in (one.text(), one.score.warning) if text)
    metric = metric_of(evidence.metric)
    gaps = [one.gap for one in found if one.gap is not None]
    if not gaps:
        return Check(
            "unknown",
            "Not known: whether new sites score lower",
            finding,
            "for the gap, train the same with folds by person: `ensemble kfold` without `--leave-out`",
        )
    if any(one.is_significant and is_worse(one, metric) for one in gaps):
        return Check(
            "warn",
            "New sites score lower than known ones",
            finding,
            "report the score of new sites where the model is used at new sites; images of more sites narrow the gap",
        )
    if any(one.score.warning for one in found):
        return Check(
            "unknown",
            "Too few sites to compare new with known ones",
            finding,
            "images of more sites narrow the interval",
        )
    return Check("pass", title, finding)


_GAP_METRIC = Metric(
    "confidence_gap",
    "mean confidence minus accuracy",
    per_row=lambda labels, values: np.asarray(values).max(axis=1) - (argmax_classes(values) == labels),
    lower_bound=-1.0,
)


def _overconfidence(evidence: Evidence) -> Check | None:
    title, part = "Probabilities mean what they say, on average", main_part(evidence)
    member = None if part is None or evidence.recommended is None else part.member(evidence.recommended)
    rows = None if part is None or member is None else scored_part(part, [member], evidence.per_person, evidence.task)
    if rows is None:
        return None
    labels, (values,), persons = rows.labels, rows.values, rows.persons
    gap = interval_over_people(_GAP_METRIC, labels, values, persons)
    error = calibration_error(reliability(labels, values))
    finding = f"mean confidence minus accuracy: {gap.signed_text()} (95% CI over people)"
    finding += f"; expected calibration error {error:.3f}"
    if gap.low > GAP:
        return Check(
            "warn",
            "Probabilities are too high",
            f"overconfident: {finding}",
            "`ensemble blend … --calibrate`, or see the section Calibration",
        )
    if gap.high < -GAP:
        return Check(
            "warn",
            "Probabilities are too low",
            f"underconfident, as means of several models often are; {finding}",
            "decisions are not affected; where probabilities are used: `ensemble blend … --calibrate`",
        )
    return Check("pass", title, finding)


def _optimism(evidence: Evidence) -> Check | None:
    part, member = evidence.oof, evidence.main
    score = score_of(evidence, part, member)
    if part is None or member is None or score is None:
        return None
    metric, found = metric_of(evidence.metric), []
    sign = 1 if metric.greater_is_better else -1
    if member.in_sample is not None:
        fitted = Predicted(member.name, "blend", member.in_sample, changed=member.changed)
        inside = score_of(evidence, part, fitted)
        if inside is not None:
            found.append(
                f"{metric.title} {inside.value:.3f} on the people it was fitted on, {score.value:.3f} nested: "
                f"optimism {sign * (inside.value - score.value):+.3f}, which is not in the score above"
            )
    test = None if evidence.test is None else score_of(evidence, evidence.test, evidence.test.member(member.name))
    if test is not None:
        found.append(f"test {metric.title} {test.text()}, out-of-fold {score.text()}")
    among = len(ranked_with(part, member))
    if among > 1:
        found.append(f"chosen as the best of {among} by this score, so slightly optimistic")
    simple = None if evidence.simple in (None, member.name) else part.member(evidence.simple or "")
    among_simple = 0 if simple is None else len(ranked_with(part, simple))
    if simple is not None and among_simple > 1:
        found.append(f"that of `{simple.name}`, the best of {among_simple} by this score, is slightly optimistic")
    leak = _leaks(evidence)
    if leak is not None and leak.status == "fail":
        return Check("fail", "The score is optimistic", "; ".join([leak.finding, *found]), leak.action)
    if member.selected_on_validation:
        return Check(
            "warn",
            "The score is optimistic",
            "; ".join(["epochs or models were selected on the people who are scored", *found]),
            "report the test score, or train with `--select last`",
        )
    if test is not None and is_beyond_chance(score, test, metric):
        return Check(
            "warn",
            "Test people score lower",
            f"test people score lower beyond chance: {'; '.join(found)}",
            "are the test people different (site, camera, age), or was something chosen on the out-of-fold score?",
        )
    if leak is None or leak.status != "pass":
        why = "the people of the folds are not known" if leak is None else leak.finding
        return Check(
            "unknown", "The score may be optimistic", "; ".join([why, *found]), "" if leak is None else leak.action
        )
    title = f"The score of `{member.name}` is {'slightly' if among > 1 else 'not'} optimistic"
    return Check("pass", title, "; ".join(["each image is scored by a model that has not seen its person", *found]))


def is_beyond_chance(score: Interval, test: Interval, metric: Metric) -> bool:
    """Return whether the test score is worse by more than both intervals allow: those of different people, whose
    half widths toward each other add in squares.
    """
    if metric.greater_is_better:
        return score.value - test.value > math.hypot(score.value - score.low, test.high - test.value)
    return test.value - score.value > math.hypot(score.high - score.value, test.value - test.low)


def _weak_classes(evidence: Evidence) -> Check | None:
    part = main_part(evidence)
    member = None if part is None or evidence.recommended is None else part.member(evidence.recommended)
    rows = None if part is None or member is None else scored_part(part, [member], evidence.per_person, evidence.task)
    if rows is None:
        return None
    titles = [evidence.class_title(name) for name in evidence.classes]
    scores = [one for one in class_scores(rows.labels, rows.values[0], rows.persons, titles) if one.rows]
    if not scores:
        return None
    worst = sorted(scores, key=lambda one: one.f1.value)[:3]
    title = f"The weakest class, {worst[0].name}, has an F1 of {worst[0].f1.value:.3f}"
    listed = ", ".join(f"{one.name} F1 {one.f1.text()}, {counted(one.people, 'person', 'people')}" for one in worst)
    never = [one.name for one in scores if one.recall == 0]
    if never or worst[0].f1.value < WEAK_F1:
        text = f"never recognized: {', '.join(never[:8])}; " if never else ""
        return Check(
            "warn",
            title,
            f"{text}weakest: {listed} (95% CI over people); this check passes if each F1 is {WEAK_F1} or more",
            "see the section Mistakes: for whom, and instead of which class",
        )
    below = sum(one.f1.low < WEAK_F1 for one in scores)
    reach = f"; {counted(below, 'class has', 'classes have')} a 95% CI that reaches below it" if below else ""
    return Check(
        "pass",
        title,
        f"each F1 is {WEAK_F1} or more, the threshold of this check{reach}; weakest: {listed} (95% CI over people)",
    )


def _weak_runs(evidence: Evidence) -> Check | None:
    """Return whether a run is far below the best one: significantly, and by `FAR_BELOW` where 1 is the best score."""
    part = main_part(evidence)
    simple = None if part is None or evidence.simple is None else part.member(evidence.simple)
    if part is None or simple is None:
        return None
    metric = metric_of(evidence.metric)
    others = [one for one in part.members if one.kind == "run" and one.name != simple.name]
    found = {one.name: difference_of(evidence, part, simple, one) for one in others}
    known = {name: one for name, one in found.items() if one is not None}
    if not known:
        return None
    scaled = metric.greater_is_better
    weak = {
        name: one
        for name, one in known.items()
        if one.is_significant_among(len(known))
        and is_worse(one, metric)
        and (not scaled or -_gain(one, metric) >= FAR_BELOW)
    }
    rule = "beyond chance" + (f" and by {FAR_BELOW} or more" if scaled else "")
    if not weak:
        return Check("pass", "No run is far below the best one", f"no run scores lower than `{simple.name}` {rule}")
    texts = []
    for name, one in weak.items():
        score = score_of(evidence, part, part.member(name))
        texts.append(
            f"`{name}` has {metric.title}{'' if scaled else ' (lower is better)'} "
            f"{'' if score is None else score.text()}, {one.difference.signed_text()} against `{simple.name}`"
        )
    named = ", ".join(f"`{name}`" for name in list(weak)[:3])
    return Check(
        "warn",
        f"{named} {'is' if len(weak) == 1 else 'are'} far below the best run",
        f"{'; '.join(texts[:6])} (paired 95% CI over people)",
        "see its curve in the section Training; leave it out of blends unless they are better with it",
    )


def _labels(evidence: Evidence) -> Check | None:
    """Return whether people are contradicted in all their images, by the list of the section Labels in doubt."""
    if labeled(evidence.oof) is None or evidence.recommended is None:
        return None
    try:
        found = doubts_of(evidence)
    except EnsembleError as error:
        return Check("unknown", "The labels were not checked", str(error), error.hint or "")
    if found is None:
        return None
    rows = found.rows
    count = f"{counted(len(found.order), 'label')} of {counted(len(rows), 'image')} in doubt"
    if not (evidence.oof is not None and evidence.oof.persons_known and len(rows.people[0]) < len(rows)):
        sure = int((found.confidence[found.order] >= SURE).sum())
        if not sure:
            return Check("pass", "No label is clearly contradicted", f"{count}, none with a vote of {SURE} for another")
        return Check(
            "warn",
            f"{counted(sure, 'label is', 'labels are')} clearly contradicted",
            f"{count}; in {sure:,} the out-of-fold vote gives another class {SURE} or more",
            "look at them in the section Labels in doubt, the first first",
        )
    whole = [one for one in doubtful_people(found, evidence.class_attributes) if one.whole]
    if not whole:
        return Check("pass", "No person is contradicted in all images", f"{count}, all about single images")
    attributes = list(dict.fromkeys(one.attribute for one in found.attributes))
    what = f"{' or '.join(attributes)} of " if attributes else "the label of "
    first = [one.person for one in whole[:3]]
    return Check(
        "warn",
        f"{counted(len(whole), 'person has a label', 'people have labels')} in doubt in all images",
        f"{what}{counted(len(whole), 'person', 'people')} is contradicted in all their images by out-of-fold votes "
        f"({count}): "
        + "; ".join(f"{one.person} ({one.change})" for one in whole[:3])
        + (f"; and {len(whole) - 3:,} more" if len(whole) > 3 else ""),
        f"look at {', '.join(first)} first, in the section Labels in doubt; correct labels of training only",
    )


def _converged(evidence: Evidence) -> Check | None:
    unsure = "Not known: whether training has converged"
    if not evidence.runs:
        return (
            Check("unknown", unsure, "no record of a training was found", "name the runs: `ensemble report RUN …`")
            if evidence.oof
            else None
        )
    broken, unknown, rising = [], [], []
    for name, run in evidence.runs.items():
        losses = [record.get("loss", 0.0) for epochs in run.history.values() for record in epochs]
        if losses and not np.isfinite(losses).all():
            broken.append(name)
        state = still_rising(run, evidence.metric)
        if state is None:
            unknown.append(name)
        elif state:
            rising.append(name)
    if broken:
        return Check(
            "fail",
            "Training has failed",
            f"the loss is not a number in {', '.join(broken)}",
            "a lower `--lr`, or `--amp off`",
        )
    untold = f"too few epochs, or no validation score, to tell for {', '.join(unknown[:6])}"
    if rising:
        verb = "improves" if evidence.has_columns else "rises"
        texts = [f"the validation score still {verb} at the end of {', '.join(rising[:6])}"]
        texts += [untold] if unknown else []
        return Check("warn", "Training stopped too early", "; ".join(texts), "train longer: more `--epochs`")
    if not any(run.history for run in evidence.runs.values()):
        return Check("unknown", unsure, "the runs have no history of epochs")
    if unknown:
        return Check("unknown", unsure, untold, f"{MIN_EPOCHS} `--epochs` or more tell")
    verb = "improving" if evidence.has_columns else "rising"
    finding = f"the validation score of {counted(len(evidence.runs), 'run')} has stopped {verb}"
    if any(_decays(run) for run in evidence.runs.values()):
        finding += (
            "; the learning rate decays to nearly 0, which flattens the curve of any run, so that only a run with more "
            "epochs can tell whether they help"
        )
    return Check("pass", "The validation scores are flat at the end of training", finding)


def _decays(run: RunRecord) -> bool:
    """Return whether the learning rate of the last epoch of a fold is at most a twentieth of its largest one."""
    rates = [[float(one["lr"]) for one in epochs if "lr" in one] for epochs in run.history.values()]
    return any(one and max(one) > 0 and one[-1] <= DECAYED * max(one) for one in rates)


def _views(evidence: Evidence) -> Check | None:
    title, part = "No test-time view harms", main_part(evidence)
    turned = [] if part is None else [one for one in part.members if one.kind == "tta"]
    if part is None or not turned:
        return None
    metric, texts, harms = metric_of(evidence.metric), [], []
    for one in turned:
        plain = next((run for run in part.members if run.kind == "run" and one.name.startswith(f"{run.name} (")), None)
        found = difference_of(evidence, part, plain, one)
        if found is None:
            continue
        texts.append(f"{one.name} {found.difference.signed_text()}")
        if is_worse(found, metric):
            harms.append(one.name)
    if not texts:
        return Check("unknown", "Views were not compared", "the plain predictions of the same runs are not there")
    finding = f"{metric.title} with views minus without: {'; '.join(texts[:6])} (paired 95% CI over people)"
    if harms:
        return Check(
            "warn",
            f"Test-time views harm {counted(len(harms), 'run')}",
            f"worse with views: {', '.join(harms)}. {finding}",
            "leave the views out, or choose others: `ensemble tta --merge auto`",
        )
    return Check("pass", title, finding)


def _versions(evidence: Evidence) -> Check | None:
    title = "All runs were trained with the same versions"
    known = {name: run.environment for name, run in evidence.runs.items() if run.environment}
    if len(evidence.runs) < 2:
        return None
    if len(known) < len(evidence.runs):
        return Check("unknown", "The versions of some runs are not known", "some runs do not record their versions")
    names = dict.fromkeys(field for one in known.values() for field in one if field not in _OF_THE_MACHINE)
    differ = []
    for field in names:
        values = sorted({str(one.get(field, "not recorded")) for one in known.values()})
        if len(values) > 1:
            differ.append(f"{field} {', '.join(values[:4])}")
    if differ:
        return Check(
            "warn",
            "Runs were trained with different versions",
            "; ".join(differ),
            "differences are small, but train runs that are compared with one version",
        )
    return Check(
        "pass", title, f"{counted(len(known), 'run')}, ensemble {next(iter(known.values())).get('ensemble', 'unknown')}"
    )


def _complete(evidence: Evidence) -> Check | None:
    title = "Every candidate predicts every image"
    part = main_part(evidence)
    if part is None:
        return None
    partial = [
        f"{one.name} ({int(one.present.sum()):,} of {len(part):,})" for one in part.members if not one.present.all()
    ]
    if partial:
        return Check(
            "warn",
            "Some candidates do not predict every image",
            f"{_named(part)} images are missing: {', '.join(partial[:6])}",
            "finish the training: `ensemble kfold --resume RUN`; comparisons use the images that both predict",
        )
    unlabeled = int((~part.has_label).sum())
    more = f"; {unlabeled:,} have no label and are not scored" if unlabeled else ""
    return Check("pass", title, f"{counted(len(part.members), 'candidate')}, {len(part):,} {_named(part)} images{more}")


def _inputs(evidence: Evidence) -> Check | None:
    if not evidence.warnings:
        return None
    listed = "; ".join(evidence.warnings[:4]) + (
        f"; and {len(evidence.warnings) - 4} more" if len(evidence.warnings) > 4 else ""
    )
    return Check("warn", "The files do not all fit together", listed, "`ensemble blend` names the files that are meant")


_OF_CLASSES = ("labels", "rare classes", "weak classes", "probabilities")
_CHECKS: Mapping[str, Callable[[Evidence], Check | None]] = {
    "leaks": _leaks,
    "test people": _test_leak,
    "copies": _copies,
    "labels": _labels,
    "optimism": _optimism,
    "people": _people,
    "rare classes": _rare_classes,
    "weak classes": _weak_classes,
    "weak runs": _weak_runs,
    "folds": _folds_differ,
    "sites": _sites,
    "probabilities": _overconfidence,
    "training": _converged,
    "views": _views,
    "complete": _complete,
    "table": _other_findings,
    "versions": _versions,
    "files": _inputs,
}
