"""Compare runs, views and blends: scores, paired differences, correlation of errors, score against passes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.analysis.diversity import Diversity, diversity_of
from ensemble.analysis.units import IMAGE, PERSON, Unit
from ensemble.blending.forest import difference_forest, difference_tone
from ensemble.report.blocks import Block, Figure, Missing, Section, Table, Text
from ensemble.report.choice import changed_people
from ensemble.report.evidence import Evidence, Part, Predicted
from ensemble.report.number_errors import error_correlation
from ensemble.report.scoring import (
    changed_note,
    ci_note,
    difference_of,
    direction,
    finite,
    labeled,
    score_of,
    scored_part,
    size_of,
)
from folds.errors import without_marks
from folds.experiments.sites import NewSites
from folds.metrics.classification import Metric, recorded_metric
from folds.metrics.confusion import argmax_classes
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Difference, Interval
from folds.metrics.label_scores import is_predicted
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.utils.charts.grids import heat
from folds.utils.charts.points import scatter
from folds.utils.charts.rows import forest
from folds.utils.charts.series import Point, Row
from folds.utils.text import counted

MOST_ROWS = 30  # of a drawing; the tables have all members
_KINDS = {"run": "run", "tta": "run with views", "blend": "blend"}
_TONES = {"run": 0, "tta": 2, "blend": 1}


def compare_section(evidence: Evidence) -> Section:
    """Return the scores of all members, their differences from the simple choice, and what they cost."""
    blocks: list[Block] = []
    oof, test = labeled(evidence.oof), labeled(evidence.test)
    if oof is None and test is None:
        blocks.append(
            Missing(
                "the scores of runs, views and blends",
                "labeled predictions are needed: `ensemble kfold --data DATA` trains runs and writes them to runs/",
            )
        )
    else:
        members = _score_members(evidence, oof, test)
        blocks += _scores(evidence, members, oof, test)
        blocks += _differences(evidence, members, oof, test)
        blocks += _errors(evidence, oof if oof is not None else test)
        blocks += _cost(evidence, members, oof is not None)
    blocks += [_sites_table(one, number) for number, one in enumerate(evidence.new_sites)]
    blocks += _contributions(evidence.blend)
    return Section(
        "compare",
        "Compare",
        "Which runs, views and blends score best, whether the differences are larger than the variation between "
        "people, and what each costs.",
        tuple(blocks),
    )


@dataclass(frozen=True)
class _Member:
    """A member with its scores; None where it has no labeled rows."""

    name: str
    kind: str
    fitted: bool
    passes: float | None
    oof: Interval | None
    test: Interval | None
    in_sample: float | None
    images: int
    of_images: int
    selected: bool

    @property
    def score(self) -> Interval | None:
        """Return the out-of-fold score, or the test score if there is none."""
        return self.oof if self.oof is not None else self.test


def _score_members(evidence: Evidence, oof: Part | None, test: Part | None) -> list[_Member]:
    """Return all members, in the order of the user."""
    parts = [part for part in (oof, test) if part is not None]
    names = dict.fromkeys(one.name for part in parts for one in part.members)
    return [_score_member(evidence, name, oof, test) for name in names]


def _score_member(evidence: Evidence, name: str, oof: Part | None, test: Part | None) -> _Member:
    inside, outside = (None if part is None else part.member(name) for part in (oof, test))
    one = inside or outside
    assert one is not None  # noqa: S101 - the name is that of a member
    in_sample, images, of_images = None, 0, 0
    if oof is not None and inside is not None:
        images, of_images = int((inside.present & oof.has_label).sum()), int(oof.has_label.sum())
        if inside.in_sample is not None:
            fit = Predicted(name, inside.kind, inside.in_sample, changed=inside.changed)
            found = scored_part(oof, [fit], evidence.per_person, evidence.task)
            in_sample = None if found is None else metric_of(evidence.metric)(found.labels, found.values[0])
    return _Member(
        name,
        one.kind,
        inside is not None and inside.in_sample is not None,
        one.passes if one.passes is not None or outside is None else outside.passes,
        score_of(evidence, oof, inside),
        score_of(evidence, test, outside),
        in_sample,
        images,
        of_images,
        one.selected_on_validation,
    )


def _best_first(members: Sequence[_Member], metric: Metric) -> list[_Member]:
    def rank(one: _Member) -> float:
        if one.score is None or math.isnan(one.score.value):
            return math.inf
        return -one.score.value if metric.greater_is_better else one.score.value

    return sorted(members, key=rank)


# Scores


def _scores(evidence: Evidence, members: Sequence[_Member], oof: Part | None, test: Part | None) -> list[Block]:
    metric = metric_of(evidence.metric)
    title, fitted = metric.title, any(one.in_sample is not None for one in members)
    with_passes = any(one.passes is not None for one in members)
    ordered = _best_first(members, metric)
    header = ["model", "kind", *([f"OOF {title}"] if oof is not None else [])]
    header += [f"in-sample {title}", "optimism"] if fitted else []
    header += [*([f"test {title}"] if test is not None else []), *(["passes per image"] if with_passes else [])]
    rows: list[list[str | int | float | None]] = []
    for one in ordered:
        row: list[str | int | float | None] = [one.name, _kind(one)]
        row += [_text(one.oof)] if oof is not None else []
        if fitted:
            row += [None if one.in_sample is None else f"{one.in_sample:.3f}", _optimism(one, metric)]
        row += [_text(one.test)] if test is not None else []
        row += [None if one.passes is None else f"{one.passes:g}"] if with_passes else []
        rows.append(row)
    table = Table(
        "compare-scores",
        f"Scores of all models: {title}{direction(metric)} with its 95% CI (over people), best first.",
        header,
        rows,
        left=2,
        note=_note_on_scores(evidence, members, oof, test),
    )
    blocks: list[Block] = [table]
    figure = _scores_figure(evidence, ordered, metric, oof is not None and test is not None)
    if figure is not None and len(members) > 1:
        blocks.append(figure)
    return blocks


def _kind(one: _Member) -> str:
    return "fitted blend (nested)" if one.fitted else _KINDS[one.kind]


def _text(score: Interval | None) -> str | None:
    return None if score is None else score.text()


def _optimism(one: _Member, metric: Metric) -> str | None:
    if one.in_sample is None or one.oof is None:
        return None
    gained = one.in_sample - one.oof.value
    return f"{gained if metric.greater_is_better else -gained:+.3f}"


def _note_on_scores(evidence: Evidence, members: Sequence[_Member], oof: Part | None, test: Part | None) -> str:
    notes = []
    for part in (oof, test):
        rows = (
            None
            if part is None
            else scored_part(part, [], evidence.per_person, evidence.task)
            if part.members
            else None
        )
        if part is not None and rows is not None:
            notes.append(
                f"{'OOF' if part.name == 'oof' else 'Test'}: {size_of(rows, part, evidence.unit_of(part).is_person)}."
            )
    notes.append(ci_note(next(part for part in (oof, test) if part is not None)))
    if any(one.fitted for one in members):
        notes.append(
            "A fitted blend has a nested OOF score: each person is predicted by a fit without them. The in-sample "
            "score is that of the people used for fitting, and the optimism is how much better it is."
        )
    selected = [one.name for one in members if one.selected]
    if selected:
        notes.append(f"Optimistic, because the epoch was selected on the people who are scored: {', '.join(selected)}.")
    if oof is not None:
        lines = {one.name: changed_note(oof, one) for one in oof.members}
        same = "compare it by the differences below, which are on the same people"
        notes += [f"{name} is {line}: {same}." for name, line in lines.items() if line]
    partial = [f"{one.name} ({one.images:,} of {one.of_images:,})" for one in members if one.images < one.of_images]
    if partial:
        unit = IMAGE if evidence.pooled is None else PERSON
        notes.append(f"Scored on the labeled {unit.many} that they predict: {', '.join(partial)}.")
    warnings = dict.fromkeys(
        f"Warning about the {where} score: {score.warning}."
        for one in members
        for where, score in (("out-of-fold", one.oof), ("test", one.test))
        if score is not None and score.warning
    )
    return " ".join([*notes, *warnings])


def _scores_figure(evidence: Evidence, ordered: Sequence[_Member], metric: Metric, both: bool) -> Figure | None:
    rows = []
    shown = [one for one in ordered if one.score is not None][: MOST_ROWS // (2 if both else 1)]
    for one in shown:
        strong = one.name == evidence.recommended
        if one.score is not None:
            tone = 0 if one.oof is not None else 1
            rows.append(Row(one.name, one.score.value, one.score.low, one.score.high, one.score.text(), tone, strong))
        if both and one.test is not None and one.oof is not None:
            rows.append(Row(f"{one.name}, test", one.test.value, one.test.low, one.test.high, one.test.text(), 1))
    if not rows:
        return None
    title = f"{metric.title} of each model with its 95% CI (over people)"
    best = shown[0]
    assert best.score is not None  # noqa: S101 - filtered above
    worst = shown[-1]
    assert worst.score is not None  # noqa: S101 - filtered above
    description = (
        f"{counted(len(shown), 'model')}, best first: from {best.name}, {best.score.text()}, to {worst.name}, "
        f"{worst.score.text()}."
    )
    return Figure(
        "compare-scores-figure",
        forest(
            rows,
            title,
            description,
            f"{metric.title}{direction(metric)}",
            reference=None,
            signed=False,
            legend=[("out of fold", 0), ("test", 1)] if both else (),
        ),
        title,
        description,
    )


# Paired differences from the simple choice


def _differences(evidence: Evidence, members: Sequence[_Member], oof: Part | None, test: Part | None) -> list[Block]:
    if len(members) == 1:
        return [Text((f"{members[0].name} is the only model, so there is nothing to compare it with.",))]
    part = oof if oof is not None else test
    simple = None if part is None or evidence.simple is None else part.member(evidence.simple)
    if part is None or simple is None:
        return [
            Missing(
                "paired differences from a simple choice",
                "name a run that is scored on the same images: `ensemble report runs/*` compares all with the best one",
            )
        ]
    metric = metric_of(evidence.metric)
    others = [one for one in _best_first(members, metric) if one.name != simple.name]
    found = {one.name: difference_of(evidence, part, simple, part.member(one.name)) for one in others}
    tested = {}
    if oof is not None and test is not None:
        tested = {
            one.name: difference_of(evidence, test, test.member(simple.name), test.member(one.name)) for one in others
        }
    known = {name: one for name, one in found.items() if one is not None}
    if not known:
        unit = evidence.unit_of(part).one
        return [Missing("paired differences", f"{simple.name} and the other models have no labeled {unit} in common")]
    among = len(known)
    text = _difference_text(evidence, part, simple.name, known, among, metric)
    table = _difference_table(evidence, simple.name, others, found, tested, among, metric, part)
    return [text, _difference_figure(evidence, simple.name, known, among, metric), table]


def _is_better(one: Difference, metric: Metric) -> bool:
    return (one.difference.value > 0) == metric.greater_is_better


def _difference_text(
    evidence: Evidence, part: Part, simple: str, known: Mapping[str, Difference], among: int, metric: Metric
) -> Text:
    significant = {name: one for name, one in known.items() if one.is_significant_among(among)}
    better = [name for name, one in significant.items() if _is_better(one, metric)]
    worse = [name for name in significant if name not in better]
    both = [one for one in part.members if one.name in (simple, evidence.recommended)]
    kept = part.without_changed_labels(both)
    rows = None if kept is None else scored_part(kept, both, evidence.per_person, evidence.task)
    where = "" if rows is None else f" on {size_of(rows, part, evidence.unit_of(part).is_person)}"
    lines = []
    main = known.get(evidence.recommended or "")
    if main is not None:
        changed = f"{metric.title}{direction(metric)} {main.text(among)}"
        lines.append(f"`{evidence.recommended}` compared with `{simple}`{where}: {changed}.")
    summary = [
        f"significantly better than {simple}: {', '.join(better) if better else 'none'}",
        f"significantly worse: {', '.join(worse) if worse else 'none'}",
    ]
    corrected = f" with the Bonferroni correction for {among} comparisons" if among > 1 else ""
    lines.append(f"At the 5% level{corrected}: {'; '.join(summary)}.")
    return Text(tuple(lines))


def _difference_figure(
    evidence: Evidence, simple: str, known: Mapping[str, Difference], among: int, metric: Metric
) -> Figure:
    rows = []
    for name, one in list(known.items())[:MOST_ROWS]:
        change, tone = one.difference, difference_tone(one, among, metric)
        rows.append(
            Row(name, change.value, change.low, change.high, change.signed_text(), tone, name == evidence.recommended)
        )
    count = sum(one.is_significant_among(among) for one in known.values())
    more = f" The best {MOST_ROWS} are drawn." if len(known) > MOST_ROWS else ""
    title = f"Difference in {metric.title} from {simple} with its 95% CI (over people)"
    description = (
        f"{counted(len(known), 'model')} compared with {simple}, paired over people: {count} of the differences "
        f"{'is' if count == 1 else 'are'} significant.{more}"
    )
    worse, better = f"worse than {simple}", f"better than {simple}"
    drawn = difference_forest(rows, title, description, metric, worse, better)
    return Figure("compare-forest", drawn, title, description)


def _difference_table(
    evidence: Evidence,
    simple: str,
    others: Sequence[_Member],
    found: Mapping[str, Difference | None],
    tested: Mapping[str, Difference | None],
    among: int,
    metric: Metric,
    part: Part,
) -> Table:
    with_test = any(one is not None for one in tested.values())
    among_test = sum(one is not None for one in tested.values())
    header = ["model", "difference", "p-value", "verdict", *(["test difference", "test verdict"] if with_test else [])]
    rows: list[list[str | int | float | None]] = []
    changed, unit = changed_people(part, part.members), evidence.unit_of(part)
    for member in others:
        one, other = found.get(member.name), tested.get(member.name)
        row: list[str | int | float | None] = [member.name, *_difference_cells(one, among, unit, p_value=True)]
        if one is None and (member.name in changed or simple in changed):
            row[-1] = "too few people without changed labels"
        rows.append(row + (_difference_cells(other, among_test, unit, p_value=False) if with_test else []))
    notes = [
        ci_note(part),
        "Paired: the same person is left out of both scores, so people who are easy for both models do not matter.",
    ]
    if among > 1:
        notes.append(
            f"CIs and p-values are those of one comparison; the verdict is corrected for {among} comparisons "
            "(Bonferroni): the p-value must be at most " + f"{0.05 / among:.2g}."
        )
    if changed:
        people = ("person", "people") if part.persons_known else ("image",)
        listed = ", ".join(f"{name} ({counted(count, *people)})" for name, count in changed.items())
        notes.append(
            f"People of whom either of two models changed training labels are left out of their difference: {listed}."
        )
    runs = [one for one in part.members if one.kind == "run"]
    if len(runs) > 1 and any(one.name == simple for one in runs):
        notes.append(
            f"If {simple} was chosen as the best of {len(runs)} runs by this score, its score is slightly optimistic, "
            "and the differences are slightly too low."
        )
    notes.append("The CIs cover the choice of people, not that of the training seed.")
    notes += [
        f"Warning: {text}." for text in dict.fromkeys(one.difference.warning for one in found.values() if one) if text
    ]
    where = "out of fold" if part.name == "oof" else "on test people"
    return Table(
        "compare-differences",
        f"Paired differences in {metric.title}{direction(metric)} from {simple}, {where}, with 95% CIs (over people).",
        header,
        rows,
        note=" ".join(notes),
    )


def _difference_cells(one: Difference | None, among: int, unit: Unit, p_value: bool) -> list[str | int | float | None]:
    if one is None:
        return [None, *([None] if p_value else []), f"no {unit.one} in common"]
    significant = "significant" if one.is_significant_among(among) else "not significant"
    chance = "<0.001" if one.p_value < 0.001 else f"{one.p_value:.3f}"
    return [one.difference.signed_text(), *([chance] if p_value else []), significant]


# Correlation of errors


def _errors(evidence: Evidence, part: Part | None) -> list[Block]:
    if part is None:
        return []
    task, unit = evidence.task, evidence.row_of(part)
    compared = [one for one in part.members if one.kind != "blend"]
    compared = compared if len(compared) > 1 else list(part.members)
    if len(compared) < 2:
        return []
    left_out = len(compared) - MOST_ROWS
    compared = compared[:MOST_ROWS]
    if task == REGRESSION:
        return error_correlation(part, compared, unit)
    if task == MULTILABEL:
        return _error_blocks(
            _diversity_of_labels(part, compared), len(compared), part, left_out, f"labels of {unit.many}"
        )
    rows = np.flatnonzero(part.labels >= 0)
    decided = np.stack([_decided(one, rows) for one in compared])
    present = np.stack([one.present[rows] for one in compared])
    found = diversity_of(
        tuple(one.name for one in compared), decided, present, part.labels[rows], compared[0].probabilities.shape[1]
    )
    return _error_blocks(found, len(compared), part, left_out, unit.many)


def _diversity_of_labels(part: Part, compared: Sequence[Predicted]) -> Diversity:
    """Return the correlation of errors over all known labels of all images, each a decision of its own."""
    rows, columns = np.nonzero(np.isfinite(part.labels))
    values = np.stack([one.probabilities[rows, columns] for one in compared])
    present = np.isfinite(values)
    decided = is_predicted(np.where(present, values, 0)).astype(np.int64)
    truth = part.labels[rows, columns].astype(np.int64)
    return diversity_of(tuple(one.name for one in compared), decided, present, truth, 2)


def _error_blocks(found: Diversity, members: int, part: Part, left_out: int, unit: str) -> list[Block]:
    text, where = _error_text(found), "out of fold" if part.name == "oof" else "on test people"
    title = f"Correlation of errors, {where}"
    more = f" The first {MOST_ROWS} models are shown." if left_out > 0 else ""
    drawn = heat(found.names, _without_diagonal(found.correlation), title, text + more)
    header = ["model", "most similar", "highest correlation", "least similar", "lowest correlation", "both wrong (%)"]
    table = Table(
        "compare-errors",
        f"Which models make the same mistakes, {where}.",
        header,
        [_error_row(found, i) for i in range(members)],
        note=f"Correlation of being right, from -1 to 1: 1 if two models fail on the same {unit}, 0 if their mistakes "
        "are independent. The fewer mistakes are shared, the more a blend can gain. Both wrong: the share of the "
        f"{unit} on which the model and the most similar one are wrong.",
    )
    return [Figure("compare-errors-figure", drawn, title, text + more), table]


def _decided(one: Predicted, rows: np.ndarray) -> np.ndarray:
    values = np.where(one.present[rows, None], one.probabilities[rows], 0)
    return argmax_classes(values)


def _without_diagonal(values: np.ndarray) -> list[list[float]]:
    shown = values.copy()
    np.fill_diagonal(shown, np.nan)
    return shown.tolist()


def _error_text(found: Diversity) -> str:
    mean = found.mean()
    if mean is None:
        return "The correlation of errors is not defined: a model is always right or always wrong."
    upper = np.triu_indices(len(found.names), 1)
    values = found.correlation[upper]
    pairs = [f"{found.names[i]} and {found.names[j]}" for i, j in zip(*upper, strict=True)]
    high, low = int(np.nanargmax(values)), int(np.nanargmin(values))
    text = f"The correlation of errors is {mean:.2f} on average"
    if len(pairs) == 1:
        return f"The correlation of the errors of {pairs[0]} is {mean:.2f}."
    return f"{text}; highest for {pairs[high]} ({values[high]:.2f}), lowest for {pairs[low]} ({values[low]:.2f})."


def _error_row(found: Diversity, i: int) -> list[str | int | float | None]:
    others = found.correlation[i].copy()
    others[i] = np.nan
    if np.isnan(others).all():
        return [found.names[i], None, None, None, None, None]
    high, low = int(np.nanargmax(others)), int(np.nanargmin(others))
    return [
        found.names[i],
        found.names[high],
        f"{others[high]:.2f}",
        found.names[low],
        f"{others[low]:.2f}",
        f"{100 * found.double_fault[i, high]:.1f}",
    ]


# Score against passes


def _cost(evidence: Evidence, members: Sequence[_Member], is_oof: bool) -> list[Block]:
    metric = metric_of(evidence.metric)
    costed = [(one, one.passes, one.score) for one in members if one.passes and one.score is not None]
    costed = [entry for entry in costed if math.isfinite(entry[2].value)]
    if not costed:
        return [
            Missing(
                "the score against the number of forward passes",
                "passes are counted from files with a sidecar: `ensemble kfold` and `ensemble tta` write them",
            )
        ]
    if len(costed) < 2:
        return []
    sign = 1 if metric.greater_is_better else -1
    front: list[tuple[_Member, float, Interval]] = []
    for entry in sorted(costed, key=lambda entry: (entry[1], -sign * entry[2].value)):
        if not front or sign * entry[2].value > sign * front[-1][2].value:
            front.append(entry)
    where = "out of fold" if is_oof else "on test people"
    listed = "; ".join(f"{one.name} ({counted(round(n), 'pass', 'passes')}, {score.text()})" for one, n, score in front)
    text = (
        f"On the Pareto front, where no cheaper model has an equal or better {metric.title} {where}: {listed}. "
        "Neighbors on it often differ by less than their intervals: see the paired differences before paying for more "
        "passes."
    )
    points = [
        Point(
            one.name,
            passes,
            score.value,
            score.low,
            score.high,
            f"{counted(round(passes), 'pass', 'passes')}, {score.text()}",
            _TONES[one.kind],
            one.name == evidence.recommended,
        )
        for one, passes, score in costed[: 2 * MOST_ROWS]
    ]
    title = f"{metric.title} against forward passes per image"
    kinds = [kind for kind in _KINDS if any(one.kind == kind for one, *_ in costed)]
    drawn = scatter(
        points,
        title,
        text,
        "forward passes per image",
        f"{metric.title}{direction(metric)}, 95% CI (over people)",
        frontier=[(passes, score.value) for _, passes, score in front],
        frontier_name="best for the cost (Pareto front)",
        legend=[(_KINDS[kind], _TONES[kind]) for kind in kinds],
        x_log=max(entry[1] for entry in costed) >= 8 * min(entry[1] for entry in costed),
        x_whole=all(float(entry[1]).is_integer() for entry in costed),
    )
    return [Figure("compare-passes", drawn, title, text)]


# New sites


def _sites_table(found: NewSites, number: int) -> Table:
    """Return both scores of each site: by models that have seen the site, and by models that have not."""
    shown = found.table()
    return Table(
        f"compare-sites{f'-{number + 1}' if number else ''}",
        f"{found.title} of each {found.column}: by models that were trained on other people of the {found.column}, and "
        "by models that have not seen it.",
        list(shown.header),
        [[cell if isinstance(cell, int) else str(cell) for cell in row] for row in shown.rows],
        note=". ".join(without_marks(line) for line in found.lines())
        + ". The 95% CI over sites has as many degrees of freedom as there are sites, minus one, and is never narrower "
        "than that over people. Scores of single sites are over the classes that the site has.",
    )


# Contributions that the blend recorded


def _contributions(blend: Mapping[str, Any] | None) -> list[Block]:
    if blend is None:
        return []
    worth = blend.get("worth")
    rows = [] if not isinstance(worth, Mapping) else [_contribution(one) for one in _list(worth.get("members"))]
    known = [one for one in rows if one is not None]
    if not isinstance(worth, Mapping) or not known:
        return [Missing("what each run contributes to the blend", "`ensemble blend RUNS… --contributions`")]
    # The name of a function is not resolved: nothing that is read from a file may run code.
    metric = recorded_metric(worth.get("metric"))
    title = "score" if metric is None else metric.title
    known.sort(key=lambda one: -one.gain.value)
    drawn_rows = [
        Row(
            one.name, one.gain.value, one.gain.low, one.gain.high, one.gain.signed_text(), 0 if one.gain.low <= 0 else 2
        )
        for one in known[:MOST_ROWS]
    ]
    best = known[0]
    figure_title = f"Score of the blend with and without each run: difference in {title}"
    text = f"{best.name} contributes most: without it, {title} changes by {-best.gain.value:+.3f}."
    table = Table(
        "compare-contributions",
        f"What each run contributes to the blend, in {title}, with 95% CIs (over people).",
        ["run", "weight", "alone", "gain by run", "Shapley value", "most similar"],
        [[one.name, one.weight, _text(one.alone), one.gain.signed_text(), one.shapley, one.similar] for one in known],
        note="Gain by run: the score with the run minus the score without it; positive if the run helps, for every "
        "metric. Shapley value: the mean gain over all orders in which the runs can be added to an unweighted vote.",
    )
    drawn = forest(drawn_rows, figure_title, text, f"gain in {title}", left="better without it", right="it helps")
    blocks: list[Block] = [Figure("compare-contributions-figure", drawn, figure_title, text), table]
    sentences = tuple(line for line in _list(worth.get("sentences")) if isinstance(line, str))
    subsets = _subsets(worth.get("pareto"), title)
    return [*([Text(sentences)] if sentences else []), *blocks, *([] if subsets is None else [subsets])]


def _subsets(record: Any, title: str) -> Table | None:
    """Return the best subsets of the runs for each cost, as the blend recorded them."""
    if not isinstance(record, Mapping):
        return None
    rows: list[list[str | int | float | None]] = []
    for one in _list(record.get("rows")):
        if not isinstance(one, Mapping):
            continue
        score, cost, members = _interval(one.get("score")), finite(one.get("cost")), _list(one.get("members"))
        if score is None or cost is None or not members:
            continue
        change, saved = _interval(one.get("difference")), finite(one.get("fewer"))
        listed = ", ".join(map(str, members))
        share = None if saved is None else f"{100 * saved:.0f}"
        rows.append([listed, f"{cost:g}", share, score.text(), None if change is None else change.signed_text()])
    if not rows:
        return None
    unit = "cost" if isinstance(costs := record.get("costs"), Mapping) and costs.get("unit") == "cost" else "passes"
    return Table(
        "compare-subsets",
        f"The best runs for each cost: nested {title} with 95% CIs (over people).",
        ["runs", f"{unit} per image", "saved (%)", f"nested {title}", "against all runs"],
        rows,
        note="Nested: the runs are chosen and the blend is fitted without the people who are scored. Against all runs: "
        "the paired difference; positive if the fewer runs are better, for every metric.",
    )


@dataclass(frozen=True)
class _Contribution:
    name: str
    weight: str
    alone: Interval | None
    gain: Interval
    shapley: str | None
    similar: str | None


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _contribution(record: Any) -> _Contribution | None:
    """Return what blend.json records of a run; None if it is damaged."""
    if not isinstance(record, Mapping):
        return None
    gain, weight = _interval(record.get("without")), finite(record.get("weight"))
    if not isinstance(record.get("run"), str) or gain is None:
        return None
    shapley, closest = _interval(record.get("shapley")), record.get("closest")
    similar = None
    if isinstance(closest, Mapping) and isinstance(closest.get("run"), str):
        correlation = finite(closest.get("correlation"))
        similar = closest["run"] + ("" if correlation is None else f" ({correlation:.2f})")
    return _Contribution(
        record["run"],
        "" if weight is None else f"{weight:.3f}",
        _interval(record.get("score")),
        gain,
        None if shapley is None else shapley.signed_text(),
        similar,
    )


def _interval(record: Any) -> Interval | None:
    if not isinstance(record, Mapping):
        return None
    value, low, high = (finite(record.get(key)) for key in ("score", "low", "high"))
    if value is None:
        return None
    return Interval(value, math.nan if low is None else low, math.nan if high is None else high)
