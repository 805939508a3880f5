"""Names that a spreadsheet would run as formulas: guarded in the tables to look at, and read back as they are."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from ensemble.analysis.mistakes import LabeledRows
from ensemble.blending.labeled_predictions import LabeledPredictions
from ensemble.label_check.doubts import find_doubts
from ensemble.review.labels import DoubtfulLabels
from ensemble.review.mistakes import Mistakes
from folds.config.recipe import Recipe
from folds.data.table import SampleTable
from folds.training.label_changes import relabeled_labels

CLASSES = ("=yes()", "no")
IDS = ["=1+2.jpg", "'=1+2.jpg", "@b.jpg", "-3", "c.jpg", "d.jpg", "e.jpg", "+f.jpg"]


def predictions(names: list[str], classes: tuple[str, ...]) -> LabeledPredictions:
    truth, said = np.arange(8) % 2, np.arange(8) % 2
    said[:4] = 1 - said[:4]  # the first four are wrong in the table
    values = np.where(np.eye(2)[said] > 0, 0.9, 0.1)
    persons = np.array([f"-{name}" if name[0] == "=" else name for name in names])
    rows = LabeledRows(np.array(names), persons, truth, classes, values, {"a": values})
    return LabeledPredictions(rows, "a", "oof", True, {}, ())


def cells(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_formulas_become_texts_in_the_tables_and_come_back(tmp_path: Path) -> None:
    found = predictions(IDS, CLASSES)
    labels = DoubtfulLabels(find_doubts(found.rows), "a").save(tmp_path / "labels.csv")
    for path in (labels, Mistakes(found).save(tmp_path / "mistakes.csv")):
        rows = cells(path)
        assert sorted(row["id"] for row in rows) == sorted(["'=1+2.jpg", "''=1+2.jpg", "'@b.jpg", "-3"])
        assert {row["label"] for row in rows} == {"'=yes()", "no"}
        assert {row["person"] for row in rows} >= {"'-=1+2.jpg", "-3"}
    filled = [row | {"new_label": row["suggested"]} for row in cells(labels)]
    with open(labels, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(filled[0]))
        writer.writeheader()
        writer.writerows(filled)
    given = np.array([CLASSES[one % 2] for one in range(8)])
    table = SampleTable(
        "t.csv", np.array(IDS), None, given, np.array(IDS), CLASSES, {}, {}, [f"row {i}" for i in range(8)]
    )
    learned = relabeled_labels(Recipe(relabel=labels), table)
    assert learned == [CLASSES[1 - at % 2] if at < 4 else CLASSES[at % 2] for at in range(8)]
    # A table written by hand names the image as it is.
    labels.write_text("id,new_label\n=1+2.jpg,no\n'=1+2.jpg,=yes()\n")
    learned = relabeled_labels(Recipe(relabel=labels), table)
    assert learned is not None
    assert learned[:2] == ["no", "=yes()"]


@pytest.mark.parametrize("of", [DoubtfulLabels, Mistakes])
def test_other_names_keep_their_bytes(of: type, tmp_path: Path) -> None:
    found = predictions([f"{at}.jpg" for at in range(8)], ("-1", "no"))
    made = DoubtfulLabels(find_doubts(found.rows), "a") if of is DoubtfulLabels else Mistakes(found)
    assert "'" not in made.save(tmp_path / "t.csv").read_text()
    assert cells(tmp_path / "t.csv")[0]["label"] in ("-1", "no")
