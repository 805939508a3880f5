"""Show the paired differences of all members from a simple choice, as a text, a drawing and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ensemble.analysis.units import Unit
from ensemble.blending.forest import difference_forest, difference_tone
from ensemble.report.compare.scored_members import MOST_ROWS, ScoredMember, best_first
from ensemble.report.evidence.choice import changed_people
from ensemble.report.evidence.evidence import Evidence, Part
from ensemble.report.evidence.scoring import ci_note, difference_of, direction, scored_part, size_of
from ensemble.report.page.blocks import Block, Figure, Missing, Table, Text
from folds.metrics.classification import Metric
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Difference
from folds.utils.charts.series import Row
from folds.utils.text import counted


def difference_blocks(
    evidence: Evidence, members: Sequence[ScoredMember], oof: Part | None, test: Part | None
) -> list[Block]:
    """Return how all members differ from the simple choice, paired over people."""
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
    others = [one for one in best_first(members, metric) if one.name != simple.name]
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
    others: Sequence[ScoredMember],
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
