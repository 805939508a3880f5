"""A run that left sites out stands beside the candidates: in the verdict, in a check, and as a table of sites."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.report.compare.compare import compare_section
from ensemble.report.evidence.evidence import Evidence, Predicted
from ensemble.report.evidence.load import load_evidence
from ensemble.report.page.blocks import Table
from ensemble.report.verdict.verdict import checks_of
from ensemble.report.verdict.verdict_sentences import sentences
from folds.utils.files import write_json
from tests.ensemble.report.evidence_worlds import draw_evidence
from tests.ensemble.report.report_worlds import write_record, write_run, write_world

SITES = ["A", "B", "C", "D", "E", "F"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs by person, with the views of one, and a run that left six sites out."""
    root = write_world(tmp_path_factory.mktemp("sites"), images=False)
    part = draw_evidence(people=24, per_person=4).oof
    assert part is not None
    site = np.unique(part.persons, return_inverse=True)[1] % 6
    values = part.members[0].probabilities ** 0.2
    worse = np.roll(values, 1, axis=1) * (np.arange(len(values)) % 2 == 0)[:, None] + values
    member = Predicted("left", "run", (worse / worse.sum(axis=1, keepdims=True)).astype(np.float32))
    for folder in (root / "runs", root / "runs" / "tta"):
        write_run(folder, "left", replace(part, fold=site.astype(np.int64)), member, ("cat", "dog", "eel"))
    write_record(root / "runs" / "left", folds=6)
    write_json(root / "runs" / "left" / "folds.json", {"schema": 1, "k": 6, "leave_out": "site", "names": SITES})
    return root


@pytest.fixture(scope="module")
def evidence(world: Path) -> Evidence:
    return load_evidence((), world)


def test_it_is_no_candidate_and_the_folds_of_the_others_are_known(evidence: Evidence) -> None:
    assert evidence.oof is not None
    assert not any(one.name.startswith("left") for one in evidence.oof.members)
    assert evidence.oof.fold is not None
    assert [(one.run, one.by_person) for one in evidence.new_sites] == [("left", "run0")]


def test_the_verdict_has_both_scores_and_a_check_warns_of_the_gap(evidence: Evidence) -> None:
    said = sentences(evidence)[3]
    (found,) = evidence.new_sites
    assert found.known is not None
    assert f"your 5-fold says {found.known.text()} (run0), a new site would see {found.score.text()} (left;" in said
    check = next(one for one in checks_of(evidence) if one.subject == "sites")
    assert check.title == "New sites score lower than known ones"
    assert check.status == "warn"
    few = replace(found, gap=replace(found.gap, p_value=0.5), score=replace(found.score, warning="only 3 sites"))  # type: ignore[type-var]
    check = next(one for one in checks_of(replace(evidence, new_sites=[few])) if one.subject == "sites")
    assert check.status == "unknown"


def test_the_comparison_lists_the_sites(evidence: Evidence) -> None:
    table = next(
        one for one in compare_section(evidence).blocks if isinstance(one, Table) and one.name == "compare-sites"
    )
    assert [row[0] for row in table.rows] == SITES
    assert list(table.header) == ["site", "rows", "people", "by person", "left out"]
    assert "a new site would see" in table.note


def test_alone_it_is_the_candidate(world: Path) -> None:
    found = load_evidence(["left"], world)
    assert found.recommended is not None
    assert found.recommended.startswith("left")
    assert [one.run for one in found.new_sites] == ["left"]
