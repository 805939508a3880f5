"""Check people and data: leaks, copies, findings of the audit, the number of people, folds and sites."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ensemble.report.evidence.choice import is_worse
from ensemble.report.evidence.evidence import Evidence
from ensemble.report.evidence.findings import COMPARED
from ensemble.report.evidence.scoring import main_part, score_of, scored_part
from ensemble.report.page.blocks import Check, Status
from folds.metrics.custom import metric_of
from folds.metrics.intervals import interval_over_people
from folds.metrics.task_names import REGRESSION
from folds.utils.numeric import factorize, groups_in_several_folds
from folds.utils.text import counted

FEW_PEOPLE = 50  # below, intervals are wide and their coverage was seen to be lower
WIDE = 0.2  # width of an interval that decides little
HALF = 0.5  # likewise, as a share of an error that has the unit of a number


def check_leaks(evidence: Evidence) -> Check | None:
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


def check_test_people(evidence: Evidence) -> Check | None:
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


def check_copies(evidence: Evidence) -> Check | None:
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


def check_table(evidence: Evidence) -> Check | None:
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


def check_people(evidence: Evidence) -> Check | None:
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


def check_folds(evidence: Evidence) -> Check | None:
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


def check_sites(evidence: Evidence) -> Check | None:
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
