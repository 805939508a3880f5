"""Say in the verdict which of several labels are weak or rare, and whether probabilities mean what they say."""

from __future__ import annotations

from ensemble.analysis.columns import MIN_PEOPLE, unit_of_columns
from ensemble.label_check.column_doubts import CHANCE
from ensemble.report.calibration.label_calibration import GAP, off_labels
from ensemble.report.evidence.column_scores import suggested_columns
from ensemble.report.evidence.evidence import Evidence
from ensemble.report.mistakes.several_labels import judged
from ensemble.report.page.blocks import Check
from folds.utils.text import counted


def check_rare_labels(evidence: Evidence) -> Check | None:
    found = suggested_columns(evidence)
    if found is None:
        return None
    part, _, columns = found
    unit = "people" if part.persons_known else "images"
    rare = sorted((one for one in columns if one.fewest < MIN_PEOPLE), key=lambda one: (one.fewest, one.name))
    if not rare:
        least = min(columns, key=lambda one: one.fewest)
        title = f"Every label has {MIN_PEOPLE} {unit} with it and without it"
        return Check("pass", title, f"the rarest, {least.name}, has {least.fewest:,}")
    listed = ", ".join(f"{one.name} ({one.fewest})" for one in rare[:8])
    more = f" and {len(rare) - 8} more" if len(rare) > 8 else ""
    return Check(
        "fail" if any(one.fewest < 2 for one in rare) else "warn",
        f"{len(rare)} of {len(columns)} labels {'is' if len(rare) == 1 else 'are'} too rare to judge",
        f"fewer than {MIN_PEOPLE} {unit} with the label, or without it: {listed}{more}; their scores say little, and "
        "the mean over labels counts them like any other",
        "collect more people with these labels, merge labels, or leave them out and say so",
    )


def check_weak_labels(evidence: Evidence) -> Check | None:
    found = suggested_columns(evidence)
    ordered = [] if found is None else judged(found[2])
    if not ordered:
        return None
    scores = [(one, score) for one in ordered if (score := one.score("roc_auc")) is not None]
    chance = [one.name for one, score in scores if not score.low > CHANCE]
    listed = ", ".join(f"{one.name} ROC-AUC {score.text()}" for one, score in scores[:3])
    if chance:
        some = ", ".join(chance[:6]) + (f" and {len(chance) - 6} more" if len(chance) > 6 else "")
        return Check(
            "warn",
            f"{'A label is' if len(chance) == 1 else f'{len(chance)} labels are'} not recognized better than by chance",
            f"the 95% CI of the ROC-AUC reaches {CHANCE}: {some}; weakest: {listed}",
            "see the section Each label: too few people with it, or can it not be seen in the images?",
        )
    return Check("pass", "Every label is recognized better than by chance", f"weakest: {listed} (95% CI over people)")


def check_label_probabilities(evidence: Evidence) -> Check | None:
    found = suggested_columns(evidence)
    if found is None:
        return None
    high, low = off_labels(found[2])
    unit = unit_of_columns(found[2])
    if not high and not low:
        return Check(
            "pass",
            "Probabilities mean what they say, on average",
            f"no label has a mean probability that differs from the share of {unit.many} by more than {GAP:g} beyond "
            "chance",
        )
    texts = [
        f"too {word}: " + ", ".join(f"{one.name} {one.gap.signed_text()}" for one in labels[:4])
        for labels, word in ((high, "high"), (low, "low"))
        if labels
    ]
    return Check(
        "warn",
        f"Probabilities of {counted(len(high) + len(low), 'label')} are off",
        f"mean probability minus share of {unit.many}: {'; '.join(texts)} (95% CI over people)",
        "see the section Calibration; decisions at 0.5 depend on this, ROC-AUC does not",
    )
