"""Compare numbers in the verdict with a constant answer, and say whether predictions are biased or pulled."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.columns import decimals_for, number_text
from ensemble.report.evidence.column_scores import suggested_columns
from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.evidence.scoring import ci_note, difference_of, score_of, scored_part
from ensemble.report.mistakes.numbers import regression_text
from ensemble.report.page.blocks import Check, Table
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Difference, interval_over_people

PULLED = 0.5  # a slope below is worth a warning
BIASED = 0.1  # mean error as a share of the mean size of errors that is worth a warning
MEAN, MEDIAN = "always the mean", "always the median"
_SCORES = ("mae", "rmse", "r2")  # of the table of the verdict


def constants(evidence: Evidence, part: Part) -> tuple[Predicted, Predicted]:
    """Return the predictions of the mean and of the median number, for every row the same, from other people.

    Out of fold they are those of the other folds; of test rows, those of the training part if it is known, else of the
    test part itself. They are computed once for a part.
    """
    key = "constants", part.name
    kept = evidence.memory.get(key)
    if kept is None or kept[0] is not part:
        kept = evidence.memory[key] = part, _constants(evidence, part)
    found: tuple[Predicted, Predicted] = kept[1]
    return found


def _constants(evidence: Evidence, part: Part) -> tuple[Predicted, Predicted]:
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
    """Return the best constant, and the paired difference from it; computed once for a member."""
    key = "difference from a constant", part.name, member.name
    kept = evidence.memory.get(key)
    if kept is None or kept[0] is not part or kept[1] is not member:
        kept = evidence.memory[key] = part, member, _difference_from_constant(evidence, part, member)
    found: tuple[Predicted, Difference] | None = kept[2]
    return found


def _difference_from_constant(evidence: Evidence, part: Part, member: Predicted) -> tuple[Predicted, Difference] | None:
    constant = _best_constant(evidence, part)
    found = difference_of(evidence, part, constant, member)
    return None if found is None or not math.isfinite(found.difference.value) else (constant, found)


def _is_better(evidence: Evidence, found: Difference) -> bool:
    return (found.difference.value > 0) == metric_of(evidence.metric).greater_is_better


def against_constant(evidence: Evidence, part: Part, member: Predicted) -> tuple[str, ...]:
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


def score_table(evidence: Evidence, part: Part, member: Predicted) -> Table:
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


def check_constant(evidence: Evidence) -> Check | None:
    found = suggested_columns(evidence)
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


def check_bias(evidence: Evidence) -> Check | None:
    found = suggested_columns(evidence)
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


def check_slope(evidence: Evidence) -> Check | None:
    found = suggested_columns(evidence)
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
