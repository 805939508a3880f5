"""Compare runs, views and blends: scores, paired differences, correlation of errors, score against passes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ensemble.analysis.units import IMAGE, PERSON
from ensemble.report.compare.error_likeness import error_blocks
from ensemble.report.compare.paired_differences import difference_blocks
from ensemble.report.compare.recorded_contributions import contribution_blocks
from ensemble.report.compare.scored_members import KINDS, MOST_ROWS, ScoredMember, best_first, score_members, score_text
from ensemble.report.evidence.evidence import Evidence, Part
from ensemble.report.evidence.scoring import changed_note, ci_note, direction, labeled, scored_part, size_of
from ensemble.report.page.blocks import Block, Figure, Missing, Section, Table
from folds.errors import without_marks
from folds.experiments.sites import NewSites
from folds.metrics.classification import Metric
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Interval
from folds.utils.charts.points import scatter
from folds.utils.charts.rows import forest
from folds.utils.charts.series import Point, Row
from folds.utils.text import counted

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
        members = score_members(evidence, oof, test)
        blocks += _scores(evidence, members, oof, test)
        blocks += difference_blocks(evidence, members, oof, test)
        blocks += error_blocks(evidence, oof if oof is not None else test)
        blocks += _cost(evidence, members, oof is not None)
    blocks += [_sites_table(one, number) for number, one in enumerate(evidence.new_sites)]
    blocks += contribution_blocks(evidence.blend)
    return Section(
        "compare",
        "Compare",
        "Which runs, views and blends score best, whether the differences are larger than the variation between "
        "people, and what each costs.",
        tuple(blocks),
    )


# Scores


def _scores(evidence: Evidence, members: Sequence[ScoredMember], oof: Part | None, test: Part | None) -> list[Block]:
    metric = metric_of(evidence.metric)
    title, fitted = metric.title, any(one.in_sample is not None for one in members)
    with_passes = any(one.passes is not None for one in members)
    ordered = best_first(members, metric)
    header = ["model", "kind", *([f"OOF {title}"] if oof is not None else [])]
    header += [f"in-sample {title}", "optimism"] if fitted else []
    header += [*([f"test {title}"] if test is not None else []), *(["passes per image"] if with_passes else [])]
    rows: list[list[str | int | float | None]] = []
    for one in ordered:
        row: list[str | int | float | None] = [one.name, _kind(one)]
        row += [score_text(one.oof)] if oof is not None else []
        if fitted:
            row += [None if one.in_sample is None else f"{one.in_sample:.3f}", _optimism(one, metric)]
        row += [score_text(one.test)] if test is not None else []
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


def _kind(one: ScoredMember) -> str:
    return "fitted blend (nested)" if one.fitted else KINDS[one.kind]


def _optimism(one: ScoredMember, metric: Metric) -> str | None:
    if one.in_sample is None or one.oof is None:
        return None
    gained = one.in_sample - one.oof.value
    return f"{gained if metric.greater_is_better else -gained:+.3f}"


def _note_on_scores(evidence: Evidence, members: Sequence[ScoredMember], oof: Part | None, test: Part | None) -> str:
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


def _scores_figure(evidence: Evidence, ordered: Sequence[ScoredMember], metric: Metric, both: bool) -> Figure | None:
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


# Correlation of errors


# Score against passes


def _cost(evidence: Evidence, members: Sequence[ScoredMember], is_oof: bool) -> list[Block]:
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
    front: list[tuple[ScoredMember, float, Interval]] = []
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
    kinds = [kind for kind in KINDS if any(one.kind == kind for one, *_ in costed)]
    drawn = scatter(
        points,
        title,
        text,
        "forward passes per image",
        f"{metric.title}{direction(metric)}, 95% CI (over people)",
        frontier=[(passes, score.value) for _, passes, score in front],
        frontier_name="best for the cost (Pareto front)",
        legend=[(KINDS[kind], _TONES[kind]) for kind in kinds],
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
