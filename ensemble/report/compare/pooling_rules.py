"""Show how the images of a person became one prediction, and what the other rules would have scored, nested."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.analysis.units import PERSON
from ensemble.blending.aligned import AlignedMembers
from ensemble.blending.people import rule_text
from ensemble.blending.request import AUTO, BlendConfig
from ensemble.learning.columns.registry import fitters_of
from ensemble.learning.columns.stack import column_stack_of
from ensemble.learning.combination import Fitter
from ensemble.learning.further_columns import parse_columns
from ensemble.learning.nested import MIN_FOLDS, nested_cv, outer_fold_ids
from ensemble.learning.pooled import pooled
from ensemble.learning.registry import SOFT
from ensemble.learning.stack import stack_of
from ensemble.pooling.spec import MEAN, PoolSpec, parse_pool, rules_of
from ensemble.report.evidence.evidence import Evidence, Part, Pooled
from ensemble.report.evidence.people import extra_of
from ensemble.report.evidence.scoring import direction, finite
from ensemble.report.page.blocks import Block, Cells, Figure, Missing, Section, Table, Text
from ensemble.voting.base import Options
from folds.errors import EnsembleError, UsageError
from folds.metrics.classification import Metric, recorded_metric
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Difference, Interval, difference_over_people, interval_over_people
from folds.metrics.task_names import COLUMN_TASKS, ORDINAL, REGRESSION
from folds.utils.charts.rows import forest
from folds.utils.charts.series import Row
from folds.utils.parallel import one_blas_thread
from folds.utils.text import counted

MAX_CELLS = 5_000_000  # images · runs · classes, beyond which only rules that fit nothing are scored again
TITLE = "Images of a person"


def pooling_section(evidence: Evidence) -> Section:
    """Return how many images people have, how these are pooled, and the nested score of each rule."""
    lead = "How the images of a person become one prediction, and what other rules would have scored."
    how = evidence.pooled
    if how is None:
        return Section("pooling", TITLE, lead, (Text(("The rows of this page are images.",)),))
    blocks: list[Block] = [Text(_facts(evidence, how))]
    blocks += _sizes(how)
    try:
        with one_blas_thread():
            found = score_rules(evidence)
    except (EnsembleError, UsageError) as error:
        blocks.append(Missing("the scores of other rules", error.message))
        return Section("pooling", TITLE, lead, tuple(blocks))
    if found is None:
        blocks.append(
            Missing(
                "the scores of other rules",
                "the files of the runs must be where the blend found them, with the labels of out-of-fold people",
            )
        )
        return Section("pooling", TITLE, lead, tuple(blocks))
    return Section("pooling", TITLE, lead, (*blocks, *_rules(evidence, how, found)))


def _facts(evidence: Evidence, how: Pooled) -> tuple[str, ...]:
    name = parse_pool(how.rule).name
    chosen = " `--pool auto` chose it by its nested score." if how.chosen else ""
    lines = [f"The images of a person are pooled by `{how.rule}`: {rule_text(name, evidence.task)}.{chosen}"]
    if how.images:
        text = "; ".join(map(_part_text, how.images.values()))
        lines.append(f"{text[:1].upper()}{text[1:]}.")
    lines.append(
        "Each model of a run is pooled by itself, then the runs are combined. Scores, tables and curves of this page "
        "count people; single runs are pooled by the same rule, or by the mean if the rule is fitted."
    )
    return tuple(lines)


def _part_text(part: Part) -> str:
    counts = np.unique(part.persons, return_counts=True)[1]
    where = "out of fold" if part.name == "oof" else "test"
    spread = f"{counts.min():,} to {counts.max():,}" if counts.min() < counts.max() else f"{counts.min():,}"
    return (
        f"{where}, {PERSON.counted(len(counts))} have {counted(len(part), 'image')}: {spread} each, "
        f"{float(np.median(counts)):g} in the middle"
    )


def _sizes(how: Pooled) -> list[Block]:
    part = how.images.get("oof")
    if part is None:
        return []
    counts = np.unique(part.persons, return_counts=True)[1]
    sizes, people = np.unique(counts, return_counts=True)
    if len(sizes) < 2 or len(sizes) > 12:
        return []
    rows: list[Cells] = [
        [f"{size:,}", int(many), f"{many / people.sum():.0%}"]
        for size, many in zip(sizes.tolist(), people.tolist(), strict=True)
    ]
    return [Table("pooling-sizes", "Images of the people, out of fold.", ["images", "people", "share"], rows)]


# Scores of the rules


@dataclass(frozen=True)
class RuleScore:
    """What a rule scores, with the method of the blend fitted again for it.

    Attributes
    ----------
    score : nested: each person is predicted by a fit without them.
    in_sample : the score on the people of the fit.
    over_mean : difference to the mean, paired over people; None for the mean itself.
    """

    spec: PoolSpec
    score: Interval
    in_sample: float
    over_mean: Difference | None


@dataclass(frozen=True)
class RuleScores:
    """The scores of all rules.

    Attributes
    ----------
    method : title of the method that combines the runs.
    is_own : whether it is that of the blend.
    left_out : rules that were not scored, because they would take too long.
    """

    rules: tuple[RuleScore, ...]
    method: str
    is_own: bool
    left_out: tuple[str, ...] = ()


def score_rules(evidence: Evidence) -> RuleScores | None:
    """Return the nested score of each rule of the task, all on the same people and labels; None without the runs.

    The method of the blend is fitted again with each rule; soft voting takes the place of one that cannot be.

    Raises
    ------
    EnsembleError : the predictions do not fit into memory, or there are too few people for nested scores.
    """
    how, record = evidence.pooled, evidence.blend
    source = None if how is None else how.source
    if how is None or record is None or source is None or "oof" not in source.truths or "oof" not in source.images:
        return None
    own = parse_pool(how.rule)
    fitter, is_own = _fitter(record, evidence)
    stack, fit_metric = _stack(source, record if is_own else {}), _metric(record, evidence)
    parts = len(np.unique(stack.outer_folds))
    if parts < MIN_FOLDS:
        raise EnsembleError(f"nested scores need {MIN_FOLDS} or more outer folds, found {parts}")
    specs = [own if name == own.name else PoolSpec(name) for name in rules_of(evidence.task)]
    images = 0 if stack.images is None else stack.images.probabilities.size
    left = [spec.text for spec in specs if spec.is_fitted and spec != own and images > MAX_CELLS]
    metric, labels, persons = metric_of(evidence.metric), stack.labels, stack.persons
    found: list[RuleScore] = []
    mean = None
    for spec in specs:
        if spec.text in left:
            continue
        made = nested_cv(stack, pooled(fitter, spec, evidence.task == ORDINAL), fit_metric)
        mean = made.out_of_sample if spec.name == MEAN else mean
        assert mean is not None  # noqa: S101 - the first of all rules
        over = None
        if spec.name != MEAN:
            over = difference_over_people(metric, labels, mean, made.out_of_sample, persons)
        score = interval_over_people(metric, labels, made.out_of_sample, persons)
        found.append(RuleScore(spec, score, float(metric(labels, made.in_sample)), over))
    return RuleScores(tuple(found), fitter.title, is_own, tuple(left))


def _stack(source: AlignedMembers, record: Mapping[str, Any]) -> Any:
    """Return the people of a blend with their images, as the input of fits."""
    split, truth, images = source.splits["oof"], source.truths["oof"], source.images["oof"]
    outer_folds = outer_fold_ids(truth.persons, truth.labels, split.fold)
    if split.has_columns:
        return column_stack_of(split, truth, outer_folds, images)
    return stack_of(split, truth, outer_folds, images, parse_columns(extra_of(record)))


def _metric(record: Mapping[str, Any], evidence: Evidence) -> Metric:
    """Return the metric that the blend was fitted with; that of the page if it is a function, which is not run."""
    return recorded_metric(record.get("metric")) or metric_of(evidence.metric)


def _fitter(record: Mapping[str, Any], evidence: Evidence) -> tuple[Fitter, bool]:
    """Return the method of a blend as it is fitted, and whether it is its own; soft voting if it cannot be known."""
    options, fitted = record.get("options"), record.get("fitted")
    options = options if isinstance(options, Mapping) else {}
    method = record.get("method")
    if method == AUTO and isinstance(fitted, Mapping):
        method = fitted.get("chosen")
    limited = any(options.get(name) is not None for name in ("max_members", "budget")) or _has_own_numbers(record)
    try:
        request = BlendConfig(
            method=str(method), calibrate=options.get("calibrate"), extra=extra_of(record), metric=evidence.metric
        )
        request.check()
        if not limited:
            return request.for_task(evidence.task).fitters(evidence.task)[0], True
    except (EnsembleError, UsageError, KeyError):
        pass  # a method with weights or settings of its own, or one that `auto` calibrated
    return fitters_of(evidence.task)[SOFT], False


def _has_own_numbers(record: Mapping[str, Any]) -> bool:
    """Return whether a blend that is not fitted has weights, a power or a trim of its own, which no fit repeats."""
    if record.get("fitted") is not None:
        return False
    weights = record.get("weights")
    given = [finite(one) for one in weights.values()] if isinstance(weights, Mapping) else []
    usual = Options()
    return any(one is None or not math.isclose(one, 1 / len(given), abs_tol=1e-9) for one in given) or any(
        record.get(name) not in (None, getattr(usual, name)) for name in ("power", "trim")
    )


def _rules(evidence: Evidence, how: Pooled, found: RuleScores) -> list[Block]:
    metric, task = metric_of(evidence.metric), evidence.task
    among = sum(one.over_mean is not None for one in found.rules)
    own = parse_pool(how.rule).text

    def rank(one: RuleScore) -> float:
        value = one.score.value if metric.greater_is_better else -one.score.value
        return -np.inf if np.isnan(value) else value

    # Of equal scores that of the blend first, so that no other rule is named better.
    ordered = sorted(found.rules, key=lambda one: (-rank(one), one.spec.text != own))
    rows: list[Cells] = []
    for one in ordered:
        optimism = one.in_sample - one.score.value if metric.greater_is_better else one.score.value - one.in_sample
        name = f"{one.spec.text} (this blend)" if one.spec.text == own else one.spec.text
        cells: Cells = [name, rule_text(one.spec.name, task), one.score.text(), f"{one.in_sample:.3f}"]
        cells += [f"{optimism:+.3f}", *_difference_cells(one.over_mean, among)]
        rows.append(cells)
    title = f"{metric.title} of each rule, nested, with its 95% CI (over people)"
    description = f"Best first, from {ordered[0].spec.text} to {ordered[-1].spec.text}."
    drawn = [
        Row(one.spec.text, one.score.value, one.score.low, one.score.high, one.score.text(), 0, one.spec.text == own)
        for one in ordered
        if np.isfinite(one.score.value)
    ]
    label = f"{metric.title}{direction(metric)}"
    svg = forest(drawn, title, description, label, reference=None, signed=False) if drawn else None
    table = Table(
        "pooling-rules",
        f"What each rule scores: nested {metric.title}{direction(metric)} with its 95% CI (over people), best first.",
        ["rule", "of a person's images", f"nested {metric.title}", "in-sample", "optimism", "from the mean", "verdict"],
        rows,
        2,
        note="Nested: the rule and the method are fitted without the people who are scored. From the mean: the "
        "difference, paired over people, with the 95% CI of one comparison; the verdict is corrected for "
        f"{counted(among, 'comparison')} (Bonferroni). All rules are scored with the labels of people of this blend.",
    )
    figure: list[Block] = [] if svg is None else [Figure("pooling-scores", svg, title, description)]
    return [Text(_sentences(found, ordered, own, metric, among, task)), *figure, table]


def _difference_cells(one: Difference | None, among: int) -> list[str | None]:
    if one is None:
        return [None, None]
    verdict = "significant" if one.is_significant_among(among) else "not significant"
    return [one.difference.signed_text(), verdict]


def _sentences(
    found: RuleScores, ordered: Sequence[RuleScore], own: str, metric: Metric, among: int, task: str
) -> tuple[str, ...]:
    how = f"with the method of the blend ({found.method})" if found.is_own else "with soft voting"
    lines = [f"Each rule was fitted again {how} on the same people and scored nested."]
    better = [
        one.spec.text
        for one in ordered
        if one.over_mean is not None
        and one.over_mean.is_significant_among(among)
        and (one.over_mean.difference.value > 0) == metric.greater_is_better
    ]
    best = ordered[0]
    lines.append(
        f"Significantly better than the mean (among {counted(among, 'comparison')}): {', '.join(better) or 'none'}. "
        f"The best score is that of `{best.spec.text}`: {metric.title} {best.score.text()}."
    )
    if best.spec.text != own:
        lines.append(
            "A rule that is chosen by this table is chosen by the score that it is then reported with: `ensemble blend "
            "… --pool auto` repeats the choice without the people who are scored."
        )
    if task in COLUMN_TASKS and task != REGRESSION:
        lines.append("A person has a label if any of the images has it, whatever the rule.")
    if found.left_out:
        left = ", ".join(found.left_out)
        lines.append(f"Not scored, because fitting them takes long with this number of images: {left}.")
    return tuple(lines)
