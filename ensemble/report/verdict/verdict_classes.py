"""Check classes: rare and weak ones, whether confidences mean what they say, and labels in doubt."""

from __future__ import annotations

import numpy as np

from ensemble.report.evidence.evidence import Evidence
from ensemble.report.evidence.scoring import labeled, main_part, scored_part
from ensemble.report.labels.doubtful_people import SURE, doubtful_people, doubts_of
from ensemble.report.page.blocks import Check
from folds.errors import EnsembleError
from folds.metrics.calibration import calibration_error, reliability
from folds.metrics.classification import Metric, argmax_classes
from folds.metrics.grouping import people_with_class
from folds.metrics.intervals import interval_over_people
from folds.metrics.per_class import class_scores
from folds.utils.text import counted

FEW_PER_CLASS = 5  # people of a class, one for each of five folds
WEAK_F1 = 0.5  # of a class, from which it counts as recognized
GAP = 0.02  # mean confidence minus accuracy that is not worth a warning


def check_rare_classes(evidence: Evidence) -> Check | None:
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


_GAP_METRIC = Metric(
    "confidence_gap",
    "mean confidence minus accuracy",
    per_row=lambda labels, values: np.asarray(values).max(axis=1) - (argmax_classes(values) == labels),
    lower_bound=-1.0,
)


def check_probabilities(evidence: Evidence) -> Check | None:
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


def check_weak_classes(evidence: Evidence) -> Check | None:
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


def check_labels(evidence: Evidence) -> Check | None:
    """Return whether people are contradicted in all their images, by the list of the section Labels in doubt."""
    if labeled(evidence.oof) is None or evidence.recommended is None or evidence.pooled is not None:
        return None  # labels in doubt are of images
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
