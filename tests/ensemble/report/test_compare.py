"""Compare: scores, corrected paired differences, correlation of errors, the Pareto front, recorded contributions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest
from sklearn.metrics import f1_score

from ensemble.report.compare.compare import compare_section
from ensemble.report.evidence.evidence import Evidence, Predicted
from ensemble.report.page.blocks import Figure, Missing, Section, Table, Text
from folds.metrics.classification import METRICS
from folds.metrics.intervals import difference_over_people, interval_over_people
from folds.utils.numeric import factorize
from tests.ensemble.report.evidence_worlds import draw_evidence
from tests.ensemble.report.section_parts import oof, table_of, text_of

Kind = TypeVar("Kind", Table, Figure, Text, Missing)


def of(section: Section, kind: type[Kind]) -> list[Kind]:
    return [block for block in section.blocks if isinstance(block, kind)]


def column(found: Table, name: str) -> dict[Any, Any]:
    """Return the first column → this column."""
    at = list(found.header).index(name)
    return {row[0]: row[at] for row in found.rows}


def with_members(evidence: Evidence, members: tuple[Predicted, ...], **changed: Any) -> Evidence:
    assert evidence.oof is not None
    return replace(evidence, oof=replace(evidence.oof, members=members), test=None, **changed)


def test_scores_are_those_of_sklearn_with_intervals_over_people() -> None:
    evidence = draw_evidence()
    found = column(table_of(compare_section(evidence), "compare-scores"), "OOF macro F1")
    for one in oof(evidence).members:
        score = f1_score(oof(evidence).labels, one.probabilities.argmax(axis=1), average="macro")
        interval = interval_over_people(
            METRICS["macro_f1"], oof(evidence).labels, one.probabilities, oof(evidence).persons
        )
        assert found[one.name] == interval.text()
        assert found[one.name].startswith(f"{score:.3f} [")


def test_the_best_is_first_also_where_lower_is_better() -> None:
    for metric, best in (("macro_f1", max), ("log_loss", min)):
        found = table_of(compare_section(draw_evidence(metric=metric)), "compare-scores")
        values = [float(str(row[2]).split()[0]) for row in found.rows]
        assert values[0] == best(values)
        assert values == sorted(values, reverse=metric == "macro_f1")


def test_differences_are_paired_and_corrected() -> None:
    evidence = draw_evidence(seed=4)
    section = compare_section(evidence)
    part, simple = oof(evidence), oof(evidence).member("run0")
    assert simple is not None
    found = table_of(section, "compare-differences")
    assert "corrected for 3 comparisons" in found.note
    for one in part.members[1:]:
        expected = difference_over_people(
            METRICS["macro_f1"], part.labels, simple.probabilities, one.probabilities, part.persons
        )
        assert column(found, "difference")[one.name] == expected.difference.signed_text()
        verdict = "significant" if expected.is_significant_among(3) else "not significant"
        assert column(found, "verdict")[one.name] == verdict
    assert "run0" not in column(found, "difference")


def test_a_single_comparison_is_not_corrected() -> None:
    evidence = draw_evidence(skills=(2.0,))
    found = table_of(compare_section(evidence), "compare-differences")
    assert "Bonferroni" not in found.note
    assert len(found.rows) == 1


def test_worse_models_are_named_for_either_direction() -> None:
    for metric in ("macro_f1", "log_loss"):
        evidence = draw_evidence(metric=metric, skills=(3.0, 0.2), simple="run0")
        assert "run1" in text_of(compare_section(evidence)).split("significantly worse: ")[1].split(".")[0]
        figure = next(one for one in of(compare_section(evidence), Figure) if one.name == "compare-forest")
        assert "significantly worse" in figure.svg


def test_the_correlation_of_errors_is_that_of_being_right() -> None:
    evidence = draw_evidence(skills=(1.5, 1.0))
    part = oof(evidence)
    right = [one.probabilities.argmax(axis=1) == part.labels for one in part.members[:2]]
    expected = np.corrcoef(right)[0, 1]
    found = table_of(compare_section(evidence), "compare-errors")
    assert column(found, "highest correlation") == {"run0": f"{expected:.2f}", "run1": f"{expected:.2f}"}
    both = 100 * np.mean(~right[0] & ~right[1])
    assert column(found, "both wrong (%)")["run0"] == f"{both:.1f}"


def test_the_front_has_only_models_that_no_cheaper_one_beats() -> None:
    evidence = draw_evidence(skills=(2.5, 0.5, 0.6))
    text = text_of(compare_section(evidence))
    front = text.split("Pareto front")[1].split(".  ")[0]
    assert "run0" in front
    assert "run1" not in front
    assert "run2" not in front


def test_missing_rows_are_left_out_of_scores_and_pairs() -> None:
    evidence = draw_evidence()
    part = oof(evidence)
    values = part.members[1].probabilities.copy()
    values[:60] = np.nan
    partial = replace(part.members[1], probabilities=values)
    section = compare_section(with_members(evidence, (part.members[0], partial)))
    rows = slice(60, None)
    expected = interval_over_people(METRICS["macro_f1"], part.labels[rows], values[rows], part.persons[rows])
    scores = table_of(section, "compare-scores")
    assert column(scores, "OOF macro F1")["run1"] == expected.text()
    assert "run1 (140 of 200)" in scores.note
    change = difference_over_people(
        METRICS["macro_f1"], part.labels[rows], part.members[0].probabilities[rows], values[rows], part.persons[rows]
    )
    found = column(table_of(section, "compare-differences"), "difference")
    assert found["run1"] == change.difference.signed_text()


def test_members_without_a_common_row_are_said_to_have_none() -> None:
    evidence = draw_evidence()
    part = oof(evidence)
    halves = []
    for i, rows in enumerate((slice(0, 100), slice(100, None))):
        values = part.members[i].probabilities.copy()
        values[rows] = np.nan
        halves.append(replace(part.members[i], probabilities=values))
    section = compare_section(with_members(evidence, tuple(halves)))
    assert any("in common" in one.how for one in of(section, Missing))


def test_unknown_labels_are_not_scored() -> None:
    evidence = draw_evidence()
    part = oof(evidence)
    labels = part.labels.copy()
    labels[::2] = -1
    section = compare_section(replace(evidence, oof=replace(part, labels=labels)))
    kept = labels >= 0
    score = f1_score(part.labels[kept], part.members[0].probabilities[kept].argmax(axis=1), average="macro")
    assert column(table_of(section, "compare-scores"), "OOF macro F1")["run0"].startswith(f"{score:.3f} [")


def test_a_fitted_blend_is_nested_with_its_optimism() -> None:
    evidence = draw_evidence()
    part = oof(evidence)
    better = part.members[-1].probabilities.copy()
    better[np.arange(len(part)), part.labels] += 1
    better /= better.sum(axis=1, keepdims=True)
    fitted = replace(part.members[-1], in_sample=better)
    found = table_of(compare_section(with_members(evidence, (*part.members[:-1], fitted))), "compare-scores")
    nested = float(column(found, "OOF macro F1")["blend soft"].split()[0])
    assert column(found, "in-sample macro F1")["blend soft"] == "1.000"
    assert float(column(found, "optimism")["blend soft"]) == pytest.approx(1 - nested, abs=2e-3)
    assert column(found, "kind")["blend soft"] == "fitted blend (nested)"


def test_one_member_has_nothing_to_compare() -> None:
    evidence = draw_evidence(skills=(1.0,))
    section = compare_section(with_members(evidence, oof(evidence).members[:1]))
    assert "run0 is the only model" in text_of(section)
    assert [one.name for one in of(section, Table)] == ["compare-scores"]


def test_test_scores_alone_are_enough() -> None:
    section = compare_section(replace(draw_evidence(), oof=None))
    found = table_of(section, "compare-scores")
    assert "test macro F1" in found.header
    assert "OOF macro F1" not in found.header
    assert "on test people" in table_of(section, "compare-differences").caption


@pytest.mark.parametrize("changed", [{"oof": None, "test": None}, {"simple": None}, {"simple": "unknown"}])
def test_what_is_missing_says_how_to_get_it(changed: dict[str, Any]) -> None:
    section = compare_section(replace(draw_evidence(), **changed))
    assert any(one.what and "ensemble" in one.how for one in of(section, Missing))


def test_one_class_and_one_person_are_scored() -> None:
    for evidence in (draw_evidence(classes=("only",)), draw_evidence(people=2, per_person=1)):
        assert table_of(compare_section(evidence), "compare-scores").rows
    one = compare_section(draw_evidence(people=2, per_person=3, classes=("a", "b")))
    assert "[unknown]" in str(table_of(one, "compare-scores").rows)  # one test person


def test_per_person_scores_average_the_images_first() -> None:
    evidence = replace(draw_evidence(), per_person=True)
    part = oof(evidence)
    people, codes = np.unique(part.persons, return_inverse=True)
    sums = np.zeros((len(people), 3))
    np.add.at(sums, codes, part.members[0].probabilities)
    labels = np.array([part.labels[codes == i][0] for i in range(len(people))])
    score = f1_score(labels, sums.argmax(axis=1), average="macro")
    found = table_of(compare_section(evidence), "compare-scores")
    assert column(found, "OOF macro F1")["run0"].startswith(f"{score:.3f} [")
    assert "40 out-of-fold people" in found.note


def worth(**changed: Any) -> dict[str, Any]:
    def interval(value: float) -> dict[str, Any]:
        return {"score": value, "low": value - 0.01, "high": value + 0.01}

    members = [
        {
            "run": f"run{i}",
            "score": interval(0.7),
            "weight": 0.5,
            "without": interval(gain) | {"chance": 0.1},
            "shapley": interval(gain),
            "closest": {"run": "run9", "correlation": 0.25},
        }
        for i, gain in enumerate((0.005, 0.03))
    ]
    front = {"rows": [{"members": ["run1"], "cost": 1.0, "fewer": 0.5, "score": interval(0.69), "difference": None}]}
    record = {"metric": "macro_f1", "members": members, "sentences": ["run0 adds little"], "pareto": front}
    return {"worth": record | changed}


def test_recorded_contributions_are_shown_largest_first() -> None:
    section = compare_section(draw_evidence(blend=worth()))
    found = table_of(section, "compare-contributions")
    assert [row[0] for row in found.rows] == ["run1", "run0"]
    assert column(found, "gain by run")["run1"] == "+0.030 [+0.020, +0.040]"
    assert column(found, "most similar")["run0"] == "run9 (0.25)"
    assert table_of(section, "compare-subsets").rows == [["run1", "1", "50", "0.690 [0.680, 0.700]", None]]
    assert "run0 adds little" in text_of(section)


@pytest.mark.parametrize(
    "blend",
    [
        {},
        {"worth": None},
        {"worth": []},
        worth(members=None),
        worth(members=[None, 3, {"run": 1}, {"run": "a", "without": {"score": "x"}}]),
        {"worth": {"members": [{"run": "a", "without": {"score": float("nan")}}]}},
    ],
)
def test_damaged_contributions_are_missing(blend: dict[str, Any]) -> None:
    section = compare_section(draw_evidence(blend=blend))
    assert any("--contributions" in one.how for one in of(section, Missing))


def test_a_metric_named_in_a_file_runs_no_code(tmp_path: Any) -> None:
    code = tmp_path / "metric.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef score(labels, probabilities): return 1.0\n")
    section = compare_section(draw_evidence(blend=worth(metric=f"{code}:score")))
    assert table_of(section, "compare-contributions").rows
    assert not (tmp_path / "ran").exists()


def test_people_with_changed_labels_are_named_in_the_note() -> None:
    evidence = draw_evidence()
    part = oof(evidence)
    changed = replace(part.members[1], changed=frozenset(part.ids[:6].tolist()))  # five images of p000, one of p001
    section = compare_section(with_members(evidence, (part.members[0], changed, part.members[3])))
    found = table_of(section, "compare-differences")
    assert "changed training labels are left out of their difference: run1 (2 people)." in str(found.note)
    kept = ~np.isin(part.persons, ["p000", "p001"])
    expected = difference_over_people(
        METRICS["macro_f1"],
        part.labels[kept],
        part.members[0].probabilities[kept],
        changed.probabilities[kept],
        part.persons[kept],
    )
    assert column(found, "difference")["run1"] == expected.difference.signed_text()
    scores = table_of(section, "compare-scores")
    alone = interval_over_people(
        METRICS["macro_f1"], part.labels[kept], changed.probabilities[kept], factorize(part.persons[kept])[1]
    )
    assert column(scores, "OOF macro F1")["run1"] == alone.text()
    said = "run1 is scored on the 38 people whose training labels were not changed, without 2 people"
    assert said in str(scores.note)
    assert "changed training labels" not in str(table_of(compare_section(evidence), "compare-differences").note)
    most = replace(changed, changed=frozenset(part.ids[5:].tolist()))
    found = table_of(
        compare_section(with_members(evidence, (part.members[0], most, part.members[3]))), "compare-differences"
    )
    assert column(found, "verdict")["run1"] == "too few people without changed labels"
