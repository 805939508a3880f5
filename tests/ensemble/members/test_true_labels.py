"""Tables of true labels: the label comes first, persons by synonyms, missing persons are each their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensemble.members.columns import ColumnNames
from ensemble.members.true_labels import TrueLabels, read_true_labels
from folds.errors import EnsembleError


def read(folder: Path, text: str, **names: str) -> TrueLabels:
    (folder / "y.csv").write_text(text)
    return read_true_labels(folder / "y.csv", ColumnNames(**names))  # type: ignore[arg-type]


def test_the_label_comes_before_an_answer(tmp_path: Path) -> None:
    assert read(tmp_path, "id,label,ans\na,cat,dog\n").labels.tolist() == ["cat"]
    assert read(tmp_path, "ImageID,ans\na,cat\n").labels.tolist() == ["cat"]


def test_a_table_of_a_competition_is_read_by_synonyms(tmp_path: Path) -> None:
    found = read(tmp_path, "image_name,patient_id,sex,target\na,p,f,0\nb,p,m,1\n")
    assert found.persons is not None
    assert (found.ids.tolist(), found.labels.tolist(), found.persons.tolist()) == (["a", "b"], ["0", "1"], ["p", "p"])
    assert found.summary.endswith("id = image_name, label = target, person = patient_id; not used: sex")


def test_named_columns_are_taken(tmp_path: Path) -> None:
    found = read(tmp_path, "uid,case,grade,label\na,p,2,x\n", id="uid", label="grade", person="case")
    assert found.persons is not None
    assert (found.ids.tolist(), found.labels.tolist(), found.persons.tolist()) == (["a"], ["2"], ["p"])


@pytest.mark.parametrize("mark", ["", "nan", "<NA>", "None", "unknown", "-1", "NULL"])
def test_missing_persons_are_each_their_own(tmp_path: Path, mark: str) -> None:
    found = read(tmp_path, f"id,label,person\na,0,p\nb,1,{mark}\nc,1,{mark}\nd,0,p\n")
    assert found.persons is not None
    assert found.persons[0] == found.persons[3] == "p"
    assert len(set(found.persons.tolist())) == 3
    assert "2 of 4 rows have no person" in found.warnings[0]


def test_spellings_of_persons_and_classes_are_doubted(tmp_path: Path) -> None:
    found = read(tmp_path, "id,label,person\na,cat,12\nb,Cat,12.0\nc,nan,0012\n")
    text = " ".join(found.warnings)
    assert "1 people are written in several ways" in text
    assert "the classes 'Cat' and 'cat' are probably one class" in text
    assert "1 rows have the label 'nan'" in text


def test_columns_of_0_and_1_are_labels(tmp_path: Path) -> None:
    assert read(tmp_path, "image,MEL,NV\na,0.0,1.0\nb,1.0,0.0\n").labels.tolist() == ["NV", "MEL"]


def test_probabilities_are_no_labels(tmp_path: Path) -> None:
    with pytest.raises(EnsembleError, match=r"target holds 2 different numbers from 0\.25 to 0\.5, expected classes"):
        read(tmp_path, "id,target\na,.25\nb,.5\n")


def test_two_possible_persons_are_not_guessed(tmp_path: Path) -> None:
    found = read(tmp_path, "id,label,patient_id,lesion_id\na,0,p,l\n")
    assert found.persons is None
    assert "person: patient_id or lesion_id, none is used without `person`" in found.summary
