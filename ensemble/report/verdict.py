"""Say in three sentences what to submit and how sure that is, and check what the numbers rest on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ensemble.report.blocks import Block, Check, Checks, Missing, Section, Status, Text
from ensemble.report.choice import is_better, is_worse, left_out_text, ranked_with
from ensemble.report.evidence import SOFT_VOTE, Evidence, Part, Predicted
from ensemble.report.findings import COMPARED
from ensemble.report.scoring import changed_note, difference_of, main_part, score_of, scored_part
from ensemble.report.training import MIN_EPOCHS, still_rising
from folds.metrics.calibration import calibration_error, reliability
from folds.metrics.classification import Metric, argmax_classes
from folds.metrics.custom import metric_of
from folds.metrics.grouping import people_with_class
from folds.metrics.intervals import Interval, interval_over_people
from folds.metrics.per_class import class_scores
from folds.utils.numeric import factorize, groups_in_several_folds
from folds.utils.text import counted

FEW_PEOPLE = 50  # below, intervals are wide and their coverage was seen to be lower
FEW_PER_CLASS = 5  # people of a class, one for each of five folds
WIDE = 0.2  # width of an interval that decides little
GAP = 0.02  # mean confidence minus accuracy that is not worth a warning
# Fields of a run's record of versions that may differ from machine to machine without meaning anything.
_OF_THE_MACHINE = ("cpu", "cuda device", "machine")


def verdict_section(evidence: Evidence) -> Section:
    """Return what to submit, its score, whether anything is better than the simple choice, and the checks."""
    blocks: list[Block] = [Text(sentences(evidence))]
    if evidence.main is None and _leak_of_all(evidence) is None:
        blocks.append(
            Missing(
                "which model to submit needs out-of-fold predictions with labels", "`ensemble kfold --k 5 --arch swin`"
            )
        )
    blocks.append(Checks(checks_of(evidence)))
    return Section("verdict", "Verdict", "What to submit, how sure that is, and what to check first.", tuple(blocks))


def sentences(evidence: Evidence) -> tuple[str, ...]:
    """Return the three sentences, and one for each run that left sites out; fewer without labeled predictions."""
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
    return (_submit(member), _score(evidence, part, member, score), _against_simple(evidence, part, member), *of_sites)


def _leak_of_all(evidence: Evidence) -> Check | None:
    """Return the failed check of leaks if it is why nothing is suggested; None otherwise."""
    leak = None if evidence.recommended is not None else _leaks(evidence)
    return leak if leak is not None and leak.status == "fail" else None


def _submit(member: Predicted) -> str:
    cost = (
        ""
        if member.passes is None
        else f", {counted(round(member.passes), 'forward pass', 'forward passes')} per image"
    )
    what = {"run": "a single run", "tta": "a run with test-time views", "blend": "a combination of runs"}[member.kind]
    written = "; `ensemble blend --method soft` writes it" if member.name == SOFT_VOTE else ""
    return f"Submit `{member.name}` ({what}{cost}){written}."


def _score(evidence: Evidence, part: Part, member: Predicted, score: Interval) -> str:
    title = metric_of(evidence.metric).title
    lower = "" if metric_of(evidence.metric).greater_is_better else " (lower is better)"
    each = " averaged over each person's images" if evidence.per_person and part.persons_known else ""
    nested = "nested " if member.in_sample is not None else ""
    leak = _leaks(evidence) if part.name == "oof" else None
    unseen = ", on people whom no model had seen in training" if leak is not None and leak.status == "pass" else ""
    text = f"Its {nested}{_named(part)} {title}{each}{unseen}, is {score.text()}{lower}, 95% CI ({_over(part, score)})"
    if leak is not None and leak.status == "fail":
        text += "; this is optimistic, because people are in training and validation"
    if line := changed_note(part, member):
        text += f"; it is {line}"
    if member.selected_on_validation:
        text += "; this is optimistic, because epochs or models were selected on these people"
    other = evidence.test if part is evidence.oof else None
    test = score_of(evidence, other, None if other is None else other.member(member.name))
    if other is not None and test is not None:
        text += (
            f"; on the test {'people' if other.persons_known else 'images'} it is {test.text()} ({_over(other, test)})"
        )
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
    if not better:
        return (
            f"None of the {counted(among, 'other candidate')} is significantly better than {compared}{change} "
            "(paired 95% CI): "
            + (
                "the simple choice is as good as can be shown."
                if member.name == simple.name
                else "the gain is not shown, and the simple choice may do as well."
            )
        )
    named = ", ".join(f"`{name}`" for name in better[:5]) + (f" and {len(better) - 5} more" if len(better) > 5 else "")
    return (
        f"Significantly better than {compared}: {named} (among {counted(among, 'comparison')}){change} (paired 95% CI)."
    )


def checks_of(evidence: Evidence) -> tuple[Check, ...]:
    """Return all checks, the failed ones first."""
    order = {"fail": 0, "warn": 1, "unknown": 2, "pass": 3}
    found = [one for check in _CHECKS for one in [check(evidence)] if one is not None]
    return tuple(sorted(found, key=lambda one: order[one.status]))


def _leaks(evidence: Evidence) -> Check | None:
    title, part = "No person is in training and validation", evidence.oof
    if part is None:
        return None
    if not part.persons_known:
        return Check(
            "warn",
            title,
            "the people of the images are not known, so the images of one person may be in several folds",
            "name the person (group) of each image: a column `person` of the table",
        )
    if part.fold is None:
        return Check(
            "unknown",
            title,
            "the folds of the images are not known, or the members have different folds",
            "train all runs on one split: `ensemble kfold --folds folds.csv`",
        )
    names, codes = factorize(part.persons)
    several = [names[one] for one in groups_in_several_folds(codes, part.fold).tolist()]
    if several:
        return Check(
            "fail",
            title,
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
            title,
            "the people of the test images are not known",
            "a column `person` in the test table tells whether test people are in training",
        )
    both = np.intersect1d(evidence.oof.persons, evidence.test.persons)
    if len(both):
        return Check(
            "fail",
            title,
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
        return Check("warn", title, listed, "look at them in the section Data, and remove or relabel the copies")
    if not compared:
        return Check("unknown", title, "the images were not compared for this page", look)
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
        title,
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
        title,
        f"{counted(len(rare), 'class', 'classes')} with fewer {unit}: {listed}{more}; "
        "their scores say little, and macro F1 counts them like any other",
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
    title, unit = "There are enough people", "people" if part.persons_known else "images"
    width = score.high - score.low
    finding = f"{score.people:,} {unit}; the 95% CI of {metric_of(evidence.metric).title} is {width:.3f} wide"
    finding += f"; {score.warning}" if score.warning else ""
    if score.people < FEW_PEOPLE or not width <= WIDE or score.warning:
        return Check(
            "warn", title, finding, "more people narrow the interval: with four times as many it is about half as wide"
        )
    return Check("pass", title, finding)


def _folds_differ(evidence: Evidence) -> Check | None:
    title, part, member = "All folds score alike", evidence.oof, evidence.main
    if part is None or member is None:
        return None
    rows = scored_part(part, [member])
    if rows is None:
        return None
    if rows.fold is None:
        return Check("unknown", title, "the folds of the images are not known")
    metric, fold = metric_of(evidence.metric), rows.fold
    numbers = np.unique(fold).tolist()
    if len(numbers) < 2:
        return Check("unknown", title, "one fold is trained", "train the others: `ensemble kfold --resume`")
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
            title,
            f"{finding}; different from the others beyond chance: {', '.join(off)}",
            "look at its curve in the section Training, and at its people: another camera or hospital, wrong labels?",
        )
    return Check("pass", title, f"{finding}, no more than chance makes of so few people")


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
            title,
            finding,
            "for the gap, train the same with folds by person: `ensemble kfold` without `--leave-out`",
        )
    if any(one.is_significant and is_worse(one, metric) for one in gaps):
        return Check(
            "warn",
            title,
            finding,
            "report the score of new sites where the model is used at new sites; images of more sites narrow the gap",
        )
    if any(one.score.warning for one in found):
        return Check("unknown", title, finding, "images of more sites narrow the interval")
    return Check("pass", title, finding)


_GAP_METRIC = Metric(
    "confidence_gap",
    "mean confidence minus accuracy",
    per_row=lambda labels, values: np.asarray(values).max(axis=1) - (argmax_classes(values) == labels),
    lower_bound=-1.0,
)


def _overconfidence(evidence: Evidence) -> Check | None:
    title, part = "Probabilities mean what they say", main_part(evidence)
    member = None if part is None or evidence.recommended is None else part.member(evidence.recommended)
    rows = None if part is None or member is None else scored_part(part, [member], evidence.per_person)
    if rows is None:
        return None
    labels, (values,), persons = rows.labels, rows.values, rows.persons
    gap = interval_over_people(_GAP_METRIC, labels, values, persons)
    error = calibration_error(reliability(labels, values))
    finding = f"mean confidence minus accuracy: {gap.signed_text()} (95% CI over people)"
    finding += f"; expected calibration error {error:.3f}"
    if gap.low > GAP:
        return Check(
            "warn", title, f"overconfident. {finding}", "`ensemble blend … --calibrate`, or see the section Calibration"
        )
    if gap.high < -GAP:
        return Check(
            "warn",
            title,
            f"underconfident, as means of several models often are; {finding}",
            "decisions are not affected; where probabilities are used: `ensemble blend … --calibrate`",
        )
    return Check("pass", title, finding)


def _optimism(evidence: Evidence) -> Check | None:
    title, part, member = "The score is not optimistic", evidence.oof, evidence.main
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
    leak = _leaks(evidence)
    if leak is not None and leak.status == "fail":
        return Check("fail", title, "; ".join([leak.finding, *found]), leak.action)
    if member.selected_on_validation:
        return Check(
            "warn",
            title,
            "; ".join(["epochs or models were selected on the people who are scored", *found]),
            "report the test score, or train with `--select last`",
        )
    if test is not None and is_beyond_chance(score, test, metric):
        return Check(
            "warn",
            title,
            f"test people score lower beyond chance: {'; '.join(found)}",
            "are the test people different (site, camera, age), or was something chosen on the out-of-fold score?",
        )
    if leak is None or leak.status != "pass":
        why = "the people of the folds are not known" if leak is None else leak.finding
        return Check("unknown", title, "; ".join([why, *found]), "" if leak is None else leak.action)
    return Check("pass", title, "; ".join(["each image is scored by a model that has not seen its person", *found]))


def is_beyond_chance(score: Interval, test: Interval, metric: Metric) -> bool:
    """Return whether the test score is worse by more than both intervals allow: those of different people, whose
    half widths toward each other add in squares.
    """
    if metric.greater_is_better:
        return score.value - test.value > math.hypot(score.value - score.low, test.high - test.value)
    return test.value - score.value > math.hypot(score.high - score.value, test.value - test.low)


def _weak_classes(evidence: Evidence) -> Check | None:
    title, part = "Every class is recognized", main_part(evidence)
    member = None if part is None or evidence.recommended is None else part.member(evidence.recommended)
    rows = None if part is None or member is None else scored_part(part, [member], evidence.per_person)
    if rows is None:
        return None
    titles = [evidence.class_title(name) for name in evidence.classes]
    scores = [one for one in class_scores(rows.labels, rows.values[0], rows.persons, titles) if one.rows]
    if not scores:
        return None
    worst = sorted(scores, key=lambda one: one.f1.value)[:3]
    listed = ", ".join(f"{one.name} F1 {one.f1.text()}, {counted(one.people, 'person', 'people')}" for one in worst)
    never = [one.name for one in scores if one.recall == 0]
    if never or worst[0].f1.value < 0.5:
        text = f"never recognized: {', '.join(never[:8])}; " if never else ""
        return Check(
            "warn",
            title,
            f"{text}weakest: {listed} (95% CI over people)",
            "see the section Mistakes: for whom, and instead of which class",
        )
    return Check("pass", title, f"weakest: {listed} (95% CI over people)")


def _converged(evidence: Evidence) -> Check | None:
    title = "Training has converged"
    if not evidence.runs:
        return (
            Check("unknown", title, "no record of a training was found", "name the runs: `ensemble report RUN …`")
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
            "fail", title, f"the loss is not a number in {', '.join(broken)}", "a lower `--lr`, or `--amp off`"
        )
    untold = f"too few epochs, or no validation score, to tell for {', '.join(unknown[:6])}"
    if rising:
        texts = [f"the validation score still rises at the end of {', '.join(rising[:6])}"]
        texts += [untold] if unknown else []
        return Check("warn", title, "; ".join(texts), "train longer: more `--epochs`")
    if not any(run.history for run in evidence.runs.values()):
        return Check("unknown", title, "the runs have no history of epochs")
    if unknown:
        return Check("unknown", title, untold, f"{MIN_EPOCHS} `--epochs` or more tell")
    return Check("pass", title, f"the validation score of {counted(len(evidence.runs), 'run')} has stopped rising")


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
        return Check("unknown", title, "the plain predictions of the same runs are not there")
    finding = f"{metric.title} with views minus without: {'; '.join(texts[:6])} (paired 95% CI over people)"
    if harms:
        return Check(
            "warn",
            title,
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
        return Check("unknown", title, "some runs do not record their versions")
    names = dict.fromkeys(field for one in known.values() for field in one if field not in _OF_THE_MACHINE)
    differ = []
    for field in names:
        values = sorted({str(one.get(field, "not recorded")) for one in known.values()})
        if len(values) > 1:
            differ.append(f"{field} {', '.join(values[:4])}")
    if differ:
        return Check(
            "warn", title, "; ".join(differ), "differences are small, but train runs that are compared with one version"
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
            title,
            f"{_named(part)} images are missing: {', '.join(partial[:6])}",
            "finish the training: `ensemble kfold --resume RUN`; comparisons use the images that both predict",
        )
    unlabeled = int((part.labels < 0).sum())
    more = f"; {unlabeled:,} have no label and are not scored" if unlabeled else ""
    return Check("pass", title, f"{counted(len(part.members), 'candidate')}, {len(part):,} {_named(part)} images{more}")


def _inputs(evidence: Evidence) -> Check | None:
    if not evidence.warnings:
        return None
    listed = "; ".join(evidence.warnings[:4]) + (
        f"; and {len(evidence.warnings) - 4} more" if len(evidence.warnings) > 4 else ""
    )
    return Check("warn", "The files fit together", listed, "`ensemble blend` names the files that are meant")


_CHECKS: Sequence[Callable[[Evidence], Check | None]] = (
    _leaks,
    _test_leak,
    _copies,
    _optimism,
    _people,
    _rare_classes,
    _weak_classes,
    _folds_differ,
    _sites,
    _overconfidence,
    _converged,
    _views,
    _complete,
    _other_findings,
    _versions,
    _inputs,
)
