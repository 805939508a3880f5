"""The page of several labels, and that of numbers: their sections, values by hand, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble as en
from ensemble.label_check.column_doubts import find_doubts
from ensemble.report.contents import modules_of, sections_of
from ensemble.report.evidence.column_scores import columns_of
from ensemble.report.evidence.evidence import Evidence, Part
from ensemble.report.face import html_of
from ensemble.report.header import summary_of
from ensemble.report.method.column_facts import column_items
from ensemble.report.page.blocks import Checks, Gallery, Section, Text
from ensemble.report.verdict.number_verdict import constants
from tests.conftest import Called
from tests.ensemble.report import hostile
from tests.ensemble.report.column_worlds import LABELS, draw_labels, draw_numbers, write_runs, write_table
from tests.ensemble.report.report_worlds import write_record
from tests.ensemble.report.section_parts import table_of
from tests.ensemble.report.test_page import Elements


def by_name(evidence: Evidence) -> dict[str, Section]:
    return {one.name: one for one in sections_of(evidence)}


@pytest.fixture(scope="module")
def labels() -> tuple[Evidence, dict[str, Section]]:
    evidence = draw_labels(people=40)
    return evidence, by_name(evidence)


@pytest.fixture(scope="module")
def numbers() -> tuple[Evidence, dict[str, Section]]:
    evidence = draw_numbers(people=40)
    return evidence, by_name(evidence)


def texts_of(section: Section) -> str:
    return " ".join(text for one in section.blocks if isinstance(one, Text) for text in one.paragraphs)


def checks_of(section: Section) -> dict[str, str]:
    found = next(one for one in section.blocks if isinstance(one, Checks))
    return {one.subject: one.status for one in found.checks}


def first_number(text: Any) -> float:
    return float(str(text).split()[0].replace(",", ""))


def blended(evidence: Evidence) -> tuple[Part, np.ndarray]:
    assert evidence.oof is not None
    assert evidence.main is not None
    return evidence.oof, np.asarray(evidence.main.probabilities, np.float64)


def test_no_section_fails_and_those_without_a_meaning_are_named(
    labels: tuple[Evidence, dict[str, Section]], numbers: tuple[Evidence, dict[str, Section]]
) -> None:
    for evidence, sections in (labels, numbers):
        assert [name.replace("-", "") for name in sections] == list(modules_of(evidence.task))
        assert all(one.blocks for one in sections.values())
        assert "internal error" not in html_of(evidence, ["verdict", "mistakes", "data"])
    assert "calibration" not in numbers[1]
    assert any("numbers have no probabilities" in line for line in summary_of(numbers[0]))
    assert any("6 labels; metric: ROC-AUC" in line for line in summary_of(labels[0]))


def test_a_label_is_scored_on_the_images_where_it_is_known(labels: tuple[Evidence, dict[str, Section]]) -> None:
    evidence, sections = labels
    part, values = blended(evidence)
    table = table_of(sections["mistakes"], "mistakes-labels")
    rows = {str(row[0]): dict(zip(table.header, row, strict=True)) for row in table.rows}
    for at, name in enumerate(LABELS):
        known = ~np.isnan(part.labels[:, at])
        truth, value = part.labels[known, at] == 1, values[known, at]
        assert rows[name]["known images"] == known.sum()
        assert rows[name]["people with it"] == len(set(part.persons[known][truth].tolist()))
        if truth.any():
            higher = value[truth][:, None] - value[~truth][None]
            auc = (higher > 0).mean() + (higher == 0).mean() / 2
            assert first_number(rows[name]["ROC-AUC"]) == pytest.approx(auc, abs=6e-4)
            hits = (truth & (value > 0.5)).sum()
            assert first_number(rows[name]["F1"]) == pytest.approx(
                2 * hits / (truth.sum() + (value > 0.5).sum()), abs=6e-4
            )
            bins = np.clip(np.ceil(value * 10).astype(int) - 1, 0, 9)
            gaps = [abs((truth[bins == one] - value[bins == one]).sum()) for one in range(10)]
            assert first_number(rows[name]["calibration error"]) == pytest.approx(sum(gaps) / len(value), abs=6e-4)


def test_pairs_of_labels_are_counted_where_both_are_known(labels: tuple[Evidence, dict[str, Section]]) -> None:
    evidence, sections = labels
    part, values = blended(evidence)
    first = next(row for row in table_of(sections["mistakes"], "mistakes-pairs").rows if row[:2] == ["hat", "glasses"])
    both = ~np.isnan(part.labels[:, :2]).any(axis=1)
    true, predicted = (part.labels[both, :2] == 1).all(axis=1), (values[both, :2] > 0.5).all(axis=1)
    assert list(first[2:5]) == [true.sum(), predicted.sum(), (true & predicted).sum()]


def test_the_verdict_names_weak_and_rare_labels(labels: tuple[Evidence, dict[str, Section]]) -> None:
    verdict = labels[1]["verdict"]
    text, checks = texts_of(verdict), checks_of(verdict)
    assert "The weakest label is mole" in text
    assert "Too rare to judge, with fewer than 5 people: crown" in text
    assert "(mean over 6 labels)" in text
    assert checks["weak labels"] == "warn"
    assert {"rare classes", "weak classes"}.isdisjoint(checks)


def test_doubts_are_the_least_probable_answers_of_recognized_labels() -> None:
    evidence = draw_labels(people=40, unknown=0.0)
    part, values = blended(evidence)
    wrong = int(np.flatnonzero(part.labels[:, 0] == 1)[np.argmax(values[part.labels[:, 0] == 1, 0])])
    changed = part.labels.copy()
    changed[wrong, 0] = 0
    part = replace(part, labels=changed)
    member = part.member("blend soft")
    assert member is not None
    found = find_doubts(columns_of(evidence, part, member))
    assert "mole" not in {one.label for one in found}  # it is predicted by chance
    assert (found[0].row, found[0].label, found[0].given) == (wrong, "hat", 0)
    assert [one.of_given for one in found] == sorted(one.of_given for one in found)


def test_errors_of_numbers_by_hand(numbers: tuple[Evidence, dict[str, Section]]) -> None:
    evidence, sections = numbers
    part, values = blended(evidence)
    known = ~np.isnan(part.labels[:, 0])
    truth, errors = part.labels[known, 0], values[known, 0] - part.labels[known, 0]
    table = table_of(sections["mistakes"], "mistakes-errors")
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert first_number(row["mean size"]) == pytest.approx(np.abs(errors).mean(), abs=6e-3)
    assert first_number(row["mean error"]) == pytest.approx(errors.mean(), abs=6e-3)
    assert first_number(row["slope"]) == pytest.approx(np.polyfit(truth, values[known, 0], 1)[0], abs=6e-3)
    ranges = table_of(sections["mistakes"], "mistakes-ranges").rows
    assert sum(int(str(one[2])) for one in ranges) == known.sum()
    worst = next(one for one in sections["mistakes"].blocks if isinstance(one, Gallery))
    assert worst.pictures[0].title == part.ids[np.flatnonzero(known)[np.argmax(np.abs(errors))]]
    assert "pulled to the middle" in texts_of(sections["mistakes"])


def test_numbers_are_compared_with_the_median_of_the_other_folds(numbers: tuple[Evidence, dict[str, Section]]) -> None:
    evidence, sections = numbers
    part, values = blended(evidence)
    assert part.fold is not None
    truth, known = part.labels[:, 0], ~np.isnan(part.labels[:, 0])
    expected = np.array([np.nanmedian(truth[part.fold != fold]) for fold in part.fold.tolist()])
    assert constants(evidence, part)[1].probabilities[:, 0] == pytest.approx(expected)
    error = np.abs(truth - expected)[known].mean()
    assert f"has a mean absolute error of {error:.3f}" in texts_of(sections["verdict"])
    scores = {str(row[0]): row for row in table_of(sections["verdict"], "verdict-scores").rows}
    squares = np.square(values[:, 0] - truth)[known]
    assert first_number(scores["blend soft"][2]) == pytest.approx(np.sqrt(squares.mean()), abs=6e-3)
    assert first_number(scores["blend soft"][3]) == pytest.approx(1 - squares.mean() / truth[known].var(), abs=6e-4)
    assert checks_of(sections["verdict"])["constant"] == "pass"


def test_numbers_that_follow_nothing_fail_against_a_constant() -> None:
    evidence = draw_numbers(people=20)
    assert evidence.oof is not None
    shuffled = np.random.default_rng(5).permutation(len(evidence.oof))
    part = replace(evidence.oof, labels=evidence.oof.labels[shuffled])
    verdict = by_name(replace(evidence, oof=part, test=None))["verdict"]
    checks = checks_of(verdict)
    assert checks["constant"] in ("warn", "fail")
    assert checks["middle"] == "warn"


@pytest.mark.parametrize("draw", [draw_labels, draw_numbers])
def test_every_section_stands_without_predictions_people_or_known_columns(draw: Any) -> None:
    evidence = draw(people=12)
    assert evidence.oof is not None
    unknown = evidence.oof.labels.copy()
    unknown[:, -1] = np.nan
    for one in (
        replace(evidence, oof=None, test=None, recommended=None, simple=None, table=None),
        replace(evidence, oof=None, test=None, recommended=None, simple=None),
        replace(evidence, oof=replace(evidence.oof, labels=unknown, persons=evidence.oof.ids, persons_known=False)),
        replace(evidence, per_person=True, test=None),
    ):
        for section in sections_of(one):
            assert section.blocks
            assert not [block for block in section.blocks if "internal error" in getattr(block, "how", "")]


def test_names_of_labels_are_text_only() -> None:
    names = [one.replace(";", "").replace("=", "") for one in (hostile.SCRIPT, hostile.ATTRIBUTE, hostile.SVG)]
    html = html_of(replace(draw_labels(people=12), classes=(*names, "a", "b", "c"), table=None))
    elements = Elements(html).found
    assert sum(tag == "script" for tag, _ in elements) == 1
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]


def test_a_report_of_files_has_the_metric_of_their_task(
    tmp_path: Path, call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = draw_numbers(people=12, names=("age", "weight"))
    write_runs(tmp_path / "runs", evidence)
    write_table(tmp_path, evidence)
    for name in ("run0", "run1"):
        write_record(tmp_path / "runs" / name)
        config = tmp_path / "runs" / name / "config.toml"
        config.write_text(f'{config.read_text()}label = "age,weight"\ntask = "regression"\n')
    page, folder = tmp_path / "page.html", tmp_path / "tables"
    given: dict[str, Any] = {"root": tmp_path, "output": page, "progress": False}
    for wrong, message in (
        ({"metric": "kappa"}, "does not fit"),
        ({"section": "calibration"}, "has no section calibration"),
        ({"label": "age"}, "label is for a table without predictions"),
    ):
        with pytest.raises(en.UsageError, match=message):
            en.report(**given, **wrong)
    assert not page.exists()
    en.report(**given, section=["verdict", "data", "mistakes"], tables=folder)
    html = page.read_text()
    assert "internal error" not in html
    assert "(mean over 2 numbers)" in html
    assert html.count("data:image/jpeg;base64,") > 20
    assert {"verdict-scores", "mistakes-ranges", "mistakes-errors"} <= {one.stem for one in folder.iterdir()}
    found = en.mistakes("run0", root=tmp_path, progress=False)
    assert isinstance(found, en.ColumnMistakes)
    assert evidence.oof is not None
    errors = evidence.oof.members[0].probabilities - evidence.oof.labels
    worst = np.unravel_index(np.nanargmax(np.abs(errors) / np.nanmean(np.abs(errors), axis=0)), errors.shape)
    record = found.to_dict()["mistakes"][0]
    assert (record["id"], record["number"]) == (evidence.oof.ids[worst[0]], ("age", "weight")[worst[1]])
    assert record["difference"] == pytest.approx(errors[worst], rel=1e-5)
    assert found._repr_html_().count("data:image/") == 12
    doubts = en.labels("run0", root=tmp_path, progress=False)
    assert len(doubts) < len(found)
    monkeypatch.chdir(tmp_path)
    printed = json.loads(call("mistakes", "run0", "--json").out)
    assert printed == found.to_dict() | {"csv": None}
    assert call("labels", "run0", "-o", "doubts.csv").code == 0
    assert len(Path("doubts.csv").read_text().splitlines()) == len(doubts) + 1


def test_a_table_alone_has_the_columns_that_are_named(tmp_path: Path) -> None:
    table = write_table(tmp_path, draw_labels(people=8, unknown=0.0))
    page = en.report(table, label=",".join(LABELS), section="data", root=tmp_path, output=tmp_path / "a.html")
    assert "Labels: images and people with each" in page.read_text()
    page = en.report(
        table, label="hat,mole", task="regression", section="data", root=tmp_path, output=tmp_path / "b.html"
    )
    assert "The numbers that are predicted" in page.read_text()
    with pytest.raises(en.UsageError, match="mae"):
        en.report(table, label=",".join(LABELS), metric="mae", root=tmp_path, output=tmp_path / "c.html")


def test_a_page_by_person_counts_people() -> None:
    evidence = replace(draw_labels(people=20), per_person=True)
    sections = {one.name: one for one in sections_of(evidence, ["mistakes", "calibration"])}
    assert evidence.oof is not None
    has = evidence.oof.labels == 1
    table = table_of(sections["mistakes"], "mistakes-labels")
    assert list(table.header[:3]) == ["label", "people with it", "share"]
    expected = [len(set(evidence.oof.persons[column].tolist())) for column in has.T]  # the labels of any image
    assert [row[1] for row in table.rows] == expected
    assert list(table_of(sections["mistakes"], "mistakes-pairs").header[2:3]) == ["true people"]
    assert "share of people" in list(table_of(sections["calibration"], "calibration-summary").header)
    (numbers,) = sections_of(replace(draw_numbers(people=20), per_person=True), ["mistakes"])
    assert table_of(numbers, "mistakes-errors").rows[0][:2] == ["age", 20]
    assert table_of(numbers, "mistakes-errors").header[1] == "people"
    assert not [text for text in (texts_of(numbers), numbers.lead) if "image" in text]
    facts, by_image = (column_items(one, True) for one in (evidence, replace(evidence, per_person=False)))
    assert "Section" in by_image["failures"]
    assert "Section" not in facts["failures"] + facts["doubts"]  # lists of single images are not shown
