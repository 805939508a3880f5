"""Mistakes and doubts of several labels and of numbers: lists by hand, as objects, tables and plain values."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ensemble as en
from ensemble.analysis.labeled_columns import LabeledColumns
from ensemble.blending.labeled_predictions import ColumnPredictions
from ensemble.cli.reports.mistakes import labels_report, mistakes_report
from ensemble.label_check.column_doubts import usual_differences
from ensemble.report.evidence.evidence import Evidence
from folds.metrics.task_names import REGRESSION
from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction
from folds.predictions.label_columns import label_texts
from folds.predictions.links import kind_of
from tests.ensemble.report.column_worlds import LABELS, draw_labels, draw_numbers


def judged(evidence: Evidence) -> ColumnPredictions:
    part = evidence.oof
    assert part is not None
    rows = LabeledColumns(
        part.ids,
        part.persons,
        part.labels,
        evidence.classes,
        evidence.task,
        part.members[2].probabilities,
        {one.name: one.probabilities for one in part.members[:2]},
    )
    return ColumnPredictions(rows, "blend soft", "oof", True)


@pytest.fixture(scope="module")
def labels() -> ColumnPredictions:
    found = judged(draw_labels(people=30))
    hats = found.rows.labels[:, 0]
    order = np.argsort(found.rows.values[:, 0])
    hats[order[:2]], hats[order[-2:]] = 1, 0  # wrong in the table
    return found


@pytest.fixture(scope="module")
def numbers() -> ColumnPredictions:
    found = judged(draw_numbers(people=30))
    found.rows.labels[7] += 60  # a number that is wrong in the table
    return found


def test_mistakes_of_labels_are_counted_label_by_label(labels: ColumnPredictions) -> None:
    rows, found = labels.rows, en.ColumnMistakes(labels, most=5)
    known = ~np.isnan(rows.labels)
    wrong = known & ((rows.values > 0.5) != (rows.labels == 1))
    assert len(found) == wrong.sum() == found.to_dict()["wrong"]
    assert found.to_dict()["known"] == known.sum()
    each = {row[0]: row for row in found.column_table().rows}
    for at, name in enumerate(LABELS):
        missed = (wrong[:, at] & (rows.labels[:, at] == 1)).sum()
        assert each[name][1:] == [
            known[:, at].sum(),
            np.nansum(rows.labels[:, at]),
            wrong[:, at].sum(),
            missed,
            wrong[:, at].sum() - missed,
        ]
    of_given = np.where(rows.labels == 1, rows.values, 1 - rows.values)
    row, column = np.unravel_index(np.argmin(np.where(wrong, of_given, np.inf)), wrong.shape)
    first = found.to_dict()["mistakes"][0]
    assert (first["id"], first["label"]) == (rows.ids[row], LABELS[column])
    assert first["probability"] == pytest.approx(rows.values[row, column])
    assert first["members"]["run1"] == pytest.approx(rows.members["run1"][row, column])
    assert found.people_table().rows[0] == list(found.worst_people()[0])
    person, count, of = found.worst_people()[0]
    own = rows.persons == person
    assert (count, of) == (wrong[own].sum(), known[own].sum())
    assert count == max(wrong[rows.persons == one].sum() for one in set(rows.persons.tolist()))


def test_doubts_leave_out_labels_that_are_not_recognized(labels: ColumnPredictions, tmp_path: Path) -> None:
    found = en.DoubtfulColumns(labels, most=5)
    assert {"crown", "mole"} <= set(found.unjudged)
    assert {one.label for one in found.answers}.isdisjoint(found.unjudged)
    frame = found.frame()
    with open(found.save(tmp_path / "labels.csv"), encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert frame["id"].tolist() == [line["id"] for line in lines]
    assert set(frame["in_table"]) == {"yes", "no"}
    given = np.where(frame["in_table"] == "yes", frame["probability"], 1 - frame["probability"])
    assert (np.diff(given) > -1e-3).all()
    with pytest.raises(en.EnsembleError, match=r"labels\.csv"):
        found.save(tmp_path / "labels.csv")
    text = labels_report(found)
    assert "not judged, because too rare or not recognized better than by chance: crown, mole" in text
    assert len(str(found).splitlines()) <= 20


def test_a_wrong_number_is_the_first_in_doubt(numbers: ColumnPredictions) -> None:
    rows, found = numbers.rows, en.DoubtfulColumns(numbers)
    known = ~np.isnan(rows.labels[:, 0])
    errors = rows.values[known, 0] - rows.labels[known, 0]
    first, last = np.percentile(errors, [25, 75])
    low, high = usual_differences(errors)
    assert (low, high) == pytest.approx((first - 1.5 * (last - first), last + 1.5 * (last - first)))
    assert len(found) == ((errors < low) | (errors > high)).sum()
    record = found.to_dict()["labels"][0]
    assert record["id"] == rows.ids[7]
    assert record["unusual"]
    assert record["usual"] == pytest.approx([low, high])
    assert record["difference"] == pytest.approx(rows.values[7, 0] - rows.labels[7, 0])


def test_long_names_do_not_widen_a_table_without_end(labels: ColumnPredictions) -> None:
    named = replace(labels, rows=replace(labels.rows, names=("a hat " * 30, *LABELS[1:])))
    for text in (mistakes_report(en.ColumnMistakes(named)), labels_report(en.DoubtfulColumns(named))):
        assert max(map(len, text.splitlines()[1:])) <= 130


def test_differences_of_numbers_are_all_listed(numbers: ColumnPredictions) -> None:
    rows, found = numbers.rows, en.ColumnMistakes(numbers, most=4)
    known = ~np.isnan(rows.labels[:, 0])
    errors = rows.values[known, 0] - rows.labels[known, 0]
    frame = found.frame()
    assert len(frame) == len(found) == known.sum()
    assert frame["difference"].abs().is_monotonic_decreasing
    assert frame["difference"].abs().mean() == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    (column,) = found.to_dict()["columns"]
    assert column["mean_size"]["score"] == pytest.approx(np.abs(errors).mean())
    assert column["90_percent_within"] == pytest.approx(np.quantile(np.abs(errors), 0.9))
    assert column["usual"] == pytest.approx(usual_differences(errors))
    text = mistakes_report(found)
    assert f"mean absolute error age {np.abs(errors).mean():.2f}" in text
    assert text.index(str(rows.ids[7])) < text.index("known images")


def test_labels_of_persons_only_are_warned_of(numbers: ColumnPredictions, tmp_path: Path) -> None:
    rows = SampleRows(numbers.rows.ids, label_texts(numbers.rows.labels, ("age",), REGRESSION), numbers.rows.persons)
    for name, label_of in (("images", None), ("persons", "person")):
        metadata = PredictionMetadata(
            kind_of(REGRESSION), "oof", ("age",), rows, fold=0, run=name, task=REGRESSION, label_of=label_of
        )
        write_prediction(tmp_path / "runs" / f"{name}.oof.npy", numbers.rows.values.astype(np.float32), metadata)
    assert not [line for line in en.mistakes("images", root=tmp_path, progress=False).notes if "persons" in line]
    assert [line for line in en.mistakes("persons", root=tmp_path, progress=False).notes if "only persons" in line]
