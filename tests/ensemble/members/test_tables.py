"""A table of predictions is read by the names and the content of its columns; doubtful columns are asked for."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from ensemble.members.columns import ColumnNames
from ensemble.members.tables import PredictionTable, read_prediction_table
from folds.errors import EnsembleError


def read(folder: Path, text: str, names: ColumnNames | None = None, logits: bool = False) -> PredictionTable:
    (folder / "a.csv").write_text(text)
    return read_prediction_table(folder / "a.csv", names, logits)


def test_a_column_for_each_class_is_probabilities(tmp_path: Path) -> None:
    table = read(tmp_path, "rust,image_id,scab,age\n.25,a,.75,31\n.5,b,.5,44\n")
    assert table.classes == ("rust", "scab")
    assert table.ids is not None
    assert table.ids.tolist() == ["a", "b"]
    np.testing.assert_array_equal(table.values, [[0.25, 0.75], [0.5, 0.5]])
    assert table.summary == "id = image_id, probabilities = rust, scab; not used: age"


@pytest.mark.parametrize("prefix", ["prob_", "p_", "pred_", "proba_", "class_", "PROB_"])
def test_a_prefix_that_all_columns_share_is_left_out(tmp_path: Path, prefix: str) -> None:
    table = read(tmp_path, f"id,{prefix}cat,{prefix}dog\na,.1,.9\nb,.8,.2\n")
    assert (table.classes, table.prefix) == (("cat", "dog"), prefix)


def test_one_column_between_0_and_1_is_the_positive_class(tmp_path: Path) -> None:
    for name in ("target", "prediction", "prob", "malignant"):
        table = read(tmp_path, f"image_name,{name}\na,0.25\nb,1\n")
        assert (table.positive, table.answers) == (name, None)
        np.testing.assert_array_equal(table.values, [[0.25], [1.0]])


def test_whole_numbers_and_names_are_answers(tmp_path: Path) -> None:
    for answers in ("01", ("cat", "dog"), ("1.0", "0.0")):
        table = read(tmp_path, f"image_name,target\na,{answers[0]}\nb,{answers[1]}\n")
        assert table.answers is not None
        assert table.answers.tolist() == list(answers)


def test_the_prediction_votes_and_the_truth_is_kept(tmp_path: Path) -> None:
    table = read(tmp_path, "image_id,label,prediction,fold\na,cat,dog,0\nb,dog,dog,1.0\n")
    assert table.answers is not None
    assert table.labels is not None
    assert table.fold is not None
    assert (table.answers.tolist(), table.labels.tolist(), table.fold.tolist()) == (["dog"] * 2, ["cat", "dog"], [0, 1])
    both = read(tmp_path, "id,y_true,y_pred\na,0,1\nb,1,1\n")
    assert both.answers is not None
    assert both.answers.tolist() == ["1", "1"]
    beside = read(tmp_path, "id,label,prob_cat,prob_dog\na,cat,.25,.75\nb,dog,.5,.5\n")
    assert (beside.classes, beside.answers) == (("cat", "dog"), None)
    assert beside.labels is not None


def test_a_label_that_is_always_the_most_probable_class_is_asked(tmp_path: Path) -> None:
    text = "id,label,cat,dog\n" + "".join(
        f"{i},{('cat', 'dog')[i % 2]},{1 - i % 2 * 0.5 - 0.2},{0.2 + i % 2 * 0.5}\n" for i in range(12)
    )
    with pytest.raises(EnsembleError, match="label is the most probable class in all 12 rows") as caught:
        read(tmp_path, text)
    assert "`label=label` if it is the true label" in str(caught.value.hint)
    assert read(tmp_path, text, ColumnNames(label="label")).labels is not None


def test_a_confidence_is_not_taken_for_a_probability(tmp_path: Path) -> None:
    with pytest.raises(EnsembleError, match="unknown whether score is the probability of a class"):
        read(tmp_path, "id,label,score\na,cat,.9\nb,dog,.8\n")
    assert read(tmp_path, "id,prediction,confidence\na,cat,.9\nb,dog,.8\n").answers is not None
    truth = read(tmp_path, "id,label,score\na,0,.1\nb,1,.3\nc,0,.2\n")
    assert (truth.positive, truth.labels is None) == ("score", False)
    named = read(tmp_path, "id,label,score\na,cat,.9\nb,dog,.8\n", ColumnNames(prediction="label"))
    assert named.answers is not None


def test_numbers_that_are_neither_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EnsembleError, match=r"2 different numbers from -1\.5 to 3: neither classes nor probabilities"):
        read(tmp_path, "id,target\na,-1.5\nb,3\n")
    assert read(tmp_path, "id,target\na,-1.5\nb,3\n", logits=True).positive == "target"
    with pytest.raises(EnsembleError, match="unknown which of them are the probabilities"):
        read(tmp_path, "id,size,width\na,1.5,7.5\nb,3,2.5\n")


def test_named_columns_win(tmp_path: Path) -> None:
    text = "key,name,file,a,b,c\nx,1,2,.5,.5,.5\ny,3,4,.25,.75,.5\n"
    with pytest.raises(EnsembleError, match="could both be the id column"):
        read(tmp_path, text)
    table = read(tmp_path, text, ColumnNames(id="key", probabilities=("a", "b")))
    assert table.classes == ("a", "b")
    assert table.ids is not None
    assert table.ids.tolist() == ["x", "y"]
    with pytest.raises(EnsembleError, match="no column 'z' of probabilities"):
        read(tmp_path, text, ColumnNames(id="key", probabilities=("a", "z")))


def test_rounded_rows_are_scaled(tmp_path: Path) -> None:
    table = read(tmp_path, "id,a,b,c\nx,.33,.33,.33\ny,.2,.3,.5\n")
    assert table.values is not None
    np.testing.assert_allclose(table.values.sum(1), 1)
    assert "rounded rows are scaled" in table.summary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.5e-01,8.5e-01\n2.5e-01,7.5e-01\n", "expected a header row, found numbers"),
        ("id,label,patient,age\na,cat,p,3\nb,dog,q,4\n", "lists samples with their true labels"),
        ("id,cat,dog\na,.5,.5\nb,,1\n", r"row 3: column cat holds '', expected a finite number"),
        ("id,cat,dog\na,.5,.5\na,.5,.5\n", "the id 'a' is in rows 2 and 3"),
        ("fold,cat,dog\n0,.5,.5\n1,.25,.75\n", "has fold but no column of ids"),
        ("id,fold,cat,dog\na,x,.5,.5\nb,y,.25,.75\n", "the column fold must hold the fold of each row"),
    ],
)
def test_a_table_that_cannot_be_read_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EnsembleError, match=message):
        read(tmp_path, text)


def test_a_sample_submission_is_doubted(tmp_path: Path) -> None:
    for text in ("id,target\na,0.5\nb,0.5\n", "id,target\na,0\nb,0\n", "id,c,d\na,.5,.5\nb,.5,.5\n"):
        assert "as in a sample submission" in read(tmp_path, text).warnings[0]


def test_columns_without_ids_are_an_array_with_names(tmp_path: Path) -> None:
    table = read(tmp_path, "cat,dog\n.5,.5\n.25,.75\n")
    assert (table.ids, table.classes) == (None, ("cat", "dog"))


def test_every_format_reads_equal(tmp_path: Path) -> None:
    text = "id,cat,dog\na,0.5,0.5\nb,0.25,0.75\n"
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "B.CSV").write_text(text)
    (tmp_path / "c.tsv").write_text(text.replace(",", "\t"))
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "e.csv").write_text(text.replace(",", ";").replace(".", ","))
    first, *others = (read_prediction_table(path) for path in sorted(tmp_path.iterdir()))
    assert len(others) == 4
    for table in others:
        np.testing.assert_array_equal(table.values, first.values)
        assert table.summary == first.summary
