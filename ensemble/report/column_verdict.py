"""Say in the verdict what is special about several labels and about numbers: what chance reaches, and what is weak."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.columns import MIN_PEOPLE, Column, decimals_for, number_text, unit_of_columns
from ensemble.label_check.column_doubts import CHANCE
from ensemble.report.blocks import Block, Check, Table
from ensemble.report.column_scores import columns_of
from ensemble.report.evidence import Evidence, Part, Predicted
from ensemble.report.label_calibration import GAP, off_labels
from ensemble.report.numbers import regression_text
from ensemble.report.scoring import ci_note, difference_of, main_part, score_of, scored_part
from ensemble.report.several_labels import answer, judged
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Difference, interval_over_people
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.utils.text import counted

PULLED = 0.5  # a slope below is worth a warning
BIASED = 0.1  # mean error as a share of the mean size of errors that is worth a warning
MEAN, MEDIAN = "always the mean", "always the median"
_SCORES = ("mae", "rmse", "r2")  # of the table of the verdict


def column_sentences(evidence: Evidence, part: Part, member: Predicted) -> tuple[str, ...]:
    """Return what the verdict of several labels or of numbers says beyond the score; () for other tasks."""
    if evidence.task == MULTILABEL:
        return answer(columns_of(evidence, part, member))
    return _against_constant(evidence, part, member) if evidence.task == REGRESSION else ()


def column_blocks(evidence: Evidence, part: Part, member: Predicted) -> list[Block]:
    """Return the scores of numbers beside those of a constant answer; [] for other tasks."""
    return [_scores(evidence, part, member)] if evidence.task == REGRESSION else []


# Numbers: what a constant answer reaches


def constants(evidence: Evidence, part: Part) -> tuple[Predicted, Predicted]:
    """Return the predictions of the mean and of the median number, for every row the same, from other people.

    Out of fold they are those of the other folds; of test rows, those of the training part if it is known, else of the
    test part itself.
    """
    other = evidence.oof if part.name == "test" and evidence.oof is not None and evidence.oof.has_label.any() else part
    found = []
    for name, of in ((MEAN, np.nanmean), (MEDIAN, np.nanmedian)):
        values = np.full(part.labels.shape, np.nan)
        folds = np.zeros(len(part), np.int64) if part.fold is None else part.fold
        for fold in np.unique(folds):
            inside = folds == fold
            outside = other.labels if other is not part or inside.all() else part.labels[~inside]
            values[inside] = _of_known(outside, of)
        found.append(Predicted(name, "run", values.astype(np.float32)))
    return found[0], found[1]


def _whose(evidence: Evidence, part: Part) -> str:
    """Return whose mean and median `constants` takes."""
    if part.name == "test":
        return "the training people" if evidence.oof is not None and evidence.oof.has_label.any() else "the test people"
    return "all people" if part.fold is None or len(np.unique(part.fold)) < 2 else "the people of the other folds"


def _of_known(labels: NDArray[np.float64], of: Callable[..., NDArray]) -> NDArray[np.float64]:
    known = np.isfinite(labels)
    return np.array(
        [float(of(labels[known[:, at], at])) if known[:, at].any() else 0.0 for at in range(labels.shape[1])]
    )


def _best_constant(evidence: Evidence, part: Part) -> Predicted:
    """Return the constant that is best for the metric of the report: the median for absolute errors."""
    mean, median = constants(evidence, part)
    return median if metric_of(evidence.metric).family in ("mae", "median_ae") else mean


def _difference(evidence: Evidence, part: Part, member: Predicted) -> tuple[Predicted, Difference] | None:
    constant = _best_constant(evidence, part)
    found = difference_of(evidence, part, constant, member)
    return None if found is None or not math.isfinite(found.difference.value) else (constant, found)


def _is_better(evidence: Evidence, found: Difference) -> bool:
    return (found.difference.value > 0) == metric_of(evidence.metric).greater_is_better


def _against_constant(evidence: Evidence, part: Part, member: Predicted) -> tuple[str, ...]:
    found = _difference(evidence, part, member)
    if found is None:
        return ()
    constant, change = found
    metric, score = metric_of(evidence.metric), score_of(evidence, part, constant)
    title = metric.title
    whose = _whose(evidence, part)
    answered = constant.name.removeprefix("always ")
    text = f"Without looking at an image, answering {answered} of {whose} every time has a {title}"
    text += "" if score is None else f" of {score.text()}"
    word = "better" if _is_better(evidence, change) else "worse"
    sure = "significant" if change.is_significant else "not significant"
    size, paired = f"{abs(change.difference.value):.3f}", change.difference.signed_text()
    return (f"{text}: `{member.name}` is {size} {word} (difference {paired}, paired 95% CI, {sure}).",)


def _scores(evidence: Evidence, part: Part, member: Predicted) -> Table:
    rows: list[list[str | int | float | None]] = []
    several = len(evidence.classes) > 1
    for one in (member, *constants(evidence, part)):
        found = scored_part(part, [one], evidence.per_person, evidence.task)
        for at, name in enumerate(evidence.classes):
            known = np.zeros(0, bool) if found is None else np.isfinite(found.labels[:, at])
            cells: list[str | int | float | None] = [one.name, *([name] if several else [])]
            if found is None or not known.any():
                rows.append([*cells, *([None] * len(_SCORES))])
                continue
            labels, values, persons = found.labels[known, at], found.values[0][known, at], found.persons[known]
            size = decimals_for(float(np.abs(labels - values).mean()))
            for metric in _SCORES:
                score = interval_over_people(metric_of(metric), labels[:, None], values[:, None], persons)
                cells.append(number_text(score, 3 if metric == "r2" else size))
            rows.append(cells)
    return Table(
        "verdict-scores",
        "Scores of the suggested predictions, and of answers that look at no image.",
        ["answer", *(["number"] if several else []), "MAE", "RMSE", "R²"],
        rows,
        1 + several,
        f"{ci_note(part)} MAE: the mean size of the errors. RMSE: the root of the mean squared error, in which large "
        "errors count more. R²: the share of the variation that is explained; 0 is no better than the mean. Always the "
        f"mean, always the median: that of {_whose(evidence, part)}.",
    )


# Checks


def _main(evidence: Evidence) -> tuple[Part, Predicted, list[Column]] | None:
    part = main_part(evidence)
    member = None if part is None or evidence.recommended is None else part.member(evidence.recommended)
    if part is None or member is None:
        return None
    return part, member, columns_of(evidence, part, member)


def _rare(evidence: Evidence) -> Check | None:
    found = _main(evidence)
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


def _weak_labels(evidence: Evidence) -> Check | None:
    found = _main(evidence)
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


def _probabilities(evidence: Evidence) -> Check | None:
    found = _main(evidence)
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


def _constant(evidence: Evidence) -> Check | None:
    found = _main(evidence)
    compared = None if found is None else _difference(evidence, found[0], found[1])
    if found is None or compared is None:
        return None
    constant, change = compared
    metric, better = metric_of(evidence.metric), _is_better(evidence, change)
    finding = (
        f"{metric.title} minus that of {constant.name}: {change.difference.signed_text()} (paired 95% CI over people)"
    )
    if better and change.is_significant:
        return Check("pass", "Better than an answer that looks at no image", finding)
    return Check(
        "warn" if better else "fail",
        "Not shown to be better than an answer that looks at no image",
        finding,
        "train longer or with pretrained weights; are the numbers visible in the images, and in the right rows?",
    )


def _bias(evidence: Evidence) -> Check | None:
    found = _main(evidence)
    columns = [] if found is None else [one for one in found[2] if len(one.labels)]
    if not columns:
        return None
    texts, off = [], []
    for one in columns:
        size, bias = float(np.abs(one.errors).mean()), one.mean(one.errors)
        texts.append(f"{one.name} {number_text(bias, decimals_for(size), signed=True)}")
        if not bias.contains(0) and abs(bias.value) > BIASED * size:
            off.append(f"{one.name} is predicted too {'high' if bias.value > 0 else 'low'}")
    finding = f"mean error, predicted minus true: {'; '.join(texts[:6])} (95% CI over people)"
    if off:
        return Check(
            "warn",
            f"On average {', '.join(off[:4])}",
            finding,
            "see the section Errors: in which range, and for whom",
        )
    return Check("pass", "Neither too high nor too low on average", finding)


def _middle(evidence: Evidence) -> Check | None:
    found = _main(evidence)
    columns = [] if found is None else [one for one in found[2] if len(one.labels) and math.isfinite(one.slope.value)]
    if not columns:
        return None
    start = f"{columns[0].name}: " if len(columns) > 1 else ""
    weakest = min(columns, key=lambda one: one.slope.value)
    finding = f"{f'{weakest.name}: ' if start else ''}{regression_text(weakest)}".rstrip(".")
    if weakest.slope.value < PULLED:
        return Check(
            "warn",
            "Low numbers are predicted too high, and high ones too low",
            f"{finding}; this check passes with a slope of {PULLED} or more",
            "usual for weak models, which answer near the mean: do not read single predictions at the ends as they are",
        )
    return Check("pass", "Predictions grow with the true numbers", finding)


CHECKS: Mapping[str, Mapping[str, Callable[[Evidence], Check | None]]] = {
    MULTILABEL: {"rare labels": _rare, "weak labels": _weak_labels, "probabilities": _probabilities},
    REGRESSION: {"constant": _constant, "bias": _bias, "middle": _middle},
}
