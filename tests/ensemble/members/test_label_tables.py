from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ensemble.members.columns import ColumnNames
from ensemble.members.label_tables import read_column_table, read_true_columns
from ensemble.members.reading import read_members
from folds.errors import EnsembleError, UsageError
from tests.ensemble.label_worlds import LABELS, write_columns


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_table_has_a_column_for_each_label(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "id,person,prob_hat,prob_cap\na,p,0.9,0.8\nb,q,0.1,0.7\n")
    found = read_column_table(path, ColumnNames(), "multilabel")
    assert (found.classes, found.prefix) == (("hat", "cap"), "prob_")
    assert found.values is not None
    assert found.values.tolist() == [[0.9, 0.8], [0.1, 0.7]]
    assert found.persons is not None
    assert found.persons.tolist() == ["p", "q"]
    one = read_column_table(path, ColumnNames(probabilities=("prob_cap",)), "multilabel")
    assert (one.classes, one.positive) == (("prob_cap",), "")


@pytest.mark.parametrize(
    ("text", "task", "message"),
    [
        ("id,hat\na,x\nb,y\n", "multilabel", "expected a column with the probability of each label"),
        ("id,age\na,3\nb,\n", "regression", "row 3: column age holds '', expected a finite number"),
        ("x,y\n1.5,2.5\n", "regression", "expected a column of ids"),
        ("id,a;b\na,0.5\n", "multilabel", "'a;b' cannot be the name of a label"),
    ],
)
def test_other_tables_are_refused_in_one_line(tmp_path: Path, text: str, task: str, message: str) -> None:
    with pytest.raises(EnsembleError, match=message.replace("(", r"\(")):
        read_column_table(table(tmp_path / "a.csv", text), ColumnNames(), task)


def test_true_labels_have_empty_cells_and_any_order(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "id,beard,hat,glasses\na,1,,0\nb,0,0,0\n")
    found = read_true_columns(path, ColumnNames(), "multilabel", LABELS)
    assert found.labels.tolist() == ["?hat;beard", "-"]
    assert found.named == LABELS
    named = read_true_columns(path, ColumnNames(label="hat,beard"), "multilabel")
    assert named.labels.tolist() == ["?hat;beard", "-"]
    guessed = read_true_columns(path, ColumnNames(), "multilabel")
    assert guessed.named == ("beard", "hat", "glasses")


def test_true_labels_may_be_one_column_of_texts(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "id,labels\na,glasses|hat\nb,-\nc,\n")
    found = read_true_columns(path, ColumnNames(label="labels"), "multilabel")
    assert (found.labels.tolist(), found.named) == (["glasses;hat", "-", ""], ("glasses", "hat"))


def test_uncertain_true_labels_are_read_as_asked(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "id,hat,beard\na,1,-1\nb,-1.0,0\n")
    for uncertain, texts in [
        ("unknown", ["hat;?beard", "?hat"]),
        ("absent", ["hat", "-"]),
        ("present", ["hat;beard", "hat"]),
    ]:
        found = read_true_columns(path, ColumnNames(), "multilabel", uncertain=uncertain)
        assert found.labels.tolist() == texts
        assert found.summary.endswith(": hat 1, beard 1")
    with pytest.raises(EnsembleError, match=r"row 3: column hat holds '-1\.0'") as error:
        read_true_columns(path, ColumnNames(), "multilabel", ("hat", "beard"))
    assert "uncertain=unknown" in (error.value.hint or "")
    both = table(tmp_path / "b.csv", "id,labels\na,hat\nb,hat|?hat\n")
    with pytest.raises(EnsembleError, match=r"row 3: the cell 'hat\|\?hat' names hat, and also"):
        read_true_columns(both, ColumnNames(label="labels"), "multilabel")


def test_wrong_true_values_name_their_row(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "id,hat\na,1\nb,2\n")
    with pytest.raises(EnsembleError, match="row 3: column hat holds '2', expected 0, 1 or an empty cell"):
        read_true_columns(path, ColumnNames(label="hat"), "multilabel")
    with pytest.raises(UsageError, match="label=age"):
        read_true_columns(path, ColumnNames(label="age"), "regression")


def test_files_are_checked_for_their_task(tmp_path: Path) -> None:
    values = np.array([[0.9, 0.8, 0.7], [0.1, 0.2, 0.0]])
    path = write_columns(tmp_path / "a.oof.npy", values, "multilabel", LABELS)
    (found,) = read_members([path])
    assert (found.task, found.has_columns, found.logit) == ("multilabel", True, False)
    write_columns(tmp_path / "b.oof.npy", 10 * values, "multilabel", LABELS)
    with pytest.raises(EnsembleError, match=r"row 0 \(id 'oof0'\), column 0 is 9, expected the probability of a label"):
        read_members([tmp_path / "b.oof.npy"])
    (numbers,) = read_members([write_columns(tmp_path / "c.oof.npy", values[:, :1] * 99, "regression", ("age",))])
    assert numbers.values is not None
    assert numbers.values.shape == (2, 1)
    assert not numbers.one_column
    (logits,) = read_members([write_columns(tmp_path / "d.oof.npy", 9 * values, "multilabel", LABELS, logit=True)])
    assert logits.logit


def test_arrays_without_a_sidecar_are_what_the_user_says(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([3.5, 40.0]))
    (found,) = read_members([tmp_path / "a.npy"], task="regression")
    assert found.values is not None
    assert found.values.tolist() == [[3.5], [40.0]]
    assert found.task == "regression"
    with pytest.raises(EnsembleError, match="expected a probability in each row"):
        read_members([tmp_path / "a.npy"])
    with pytest.raises(EnsembleError, match="expected the probability of a label"):
        read_members([tmp_path / "a.npy"], task="multilabel")


def test_a_sidecar_cannot_state_another_kind(tmp_path: Path) -> None:
    path = write_columns(tmp_path / "a.oof.npy", np.ones((2, 1)), "regression", ("age",))
    record = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(record | {"kind": "probability"}))
    with pytest.raises(EnsembleError, match="task 'regression' has the kind"):
        read_members([path])
