"""A member whose models were trained on rows that they predict is an error, by each kind of evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.members.reading import read_members
from folds.errors import EnsembleError
from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction

FOLD = np.array([0, 0, 1, 1, 2, 2])
ROWS = SampleRows(
    np.array([f"im{i}" for i in range(6)]), np.array(list("ababab")), np.array([f"p{i // 2}" for i in range(6)])
)
PLAIN = PredictionMetadata("probability", "oof", ("a", "b"), ROWS, fold=FOLD, run="swin")


def save(folder: Path, sidecar: PredictionMetadata, name: str = "swin.oof") -> Path:
    return write_prediction(folder / f"{name}.npy", np.full((len(sidecar.rows), 2), 0.5), sidecar)


def folds_csv(folder: Path, fold: Sequence[object], run: str = "swin") -> None:
    (folder / run).mkdir(exist_ok=True)
    (folder / run / "folds.csv").write_text(
        "\n".join(["id,label,person,fold", *(f"im{i},a,p{i // 2},{one}" for i, one in enumerate(fold))])
    )


def test_a_member_that_matches_folds_csv_is_read(tmp_path: Path) -> None:
    folds_csv(tmp_path, FOLD.tolist())
    assert len(read_members([save(tmp_path, PLAIN)])) == 1


@pytest.mark.parametrize(("folder", "name"), [("", "swin.oof"), ("tta", "swin.oof")])
def test_a_row_in_another_fold_of_folds_csv_is_an_error(tmp_path: Path, folder: str, name: str) -> None:
    folds_csv(tmp_path, [0, 0, 1, 1, 0, 0])
    with pytest.raises(
        EnsembleError,
        match=r"the model of fold 2 predicts 'im4' but was trained on it.*fold 0; this affects 2 of 6 rows",
    ) as caught:
        read_members([save(tmp_path / folder, PLAIN, name)])
    assert str(tmp_path / "swin" / "folds.csv") in caught.value.message


def test_predicting_a_row_outside_all_folds_is_an_error(tmp_path: Path) -> None:
    folds_csv(tmp_path, [0, 0, -1, -1, -1, -1])
    with pytest.raises(EnsembleError, match="predicts 'im2' but was trained on it"):
        read_members([save(tmp_path, replace(PLAIN, fold=0))])


def test_folds_of_other_runs_or_samples_are_ignored(tmp_path: Path) -> None:
    folds_csv(tmp_path, [1] * 6, "resnet18")
    (tmp_path / "swin").mkdir()
    (tmp_path / "swin" / "folds.csv").write_text("id,fold\nother,1\n")
    read_members([save(tmp_path, PLAIN)])
    read_members([save(tmp_path, replace(PLAIN, run="../resnet18"))])


def test_runs_of_one_plan_are_each_checked(tmp_path: Path) -> None:
    for run in ("a", "b"):
        folds_csv(tmp_path, FOLD.tolist(), run)
    first = save(tmp_path, replace(PLAIN, run="a"), "a.oof")
    other = save(tmp_path, replace(PLAIN, run="b", rows=replace(ROWS, persons=None), fold=FOLD[::-1].copy()), "b.oof")
    with pytest.raises(EnsembleError, match=r"b\.oof\.npy: the model of fold 2 predicts 'im0' but was trained on it"):
        read_members([first, other])


@pytest.mark.parametrize(
    ("trained_on", "fold", "message"),
    [
        (["x", "im3", "im1"], FOLD, "2 of 6 rows that it predicts, e.g. 'im1'"),
        ({"0": ["im2", "im4"], "1": ["im0", "im3"], "2": ["im0"]}, FOLD, "1 of 6 rows that it predicts, e.g. 'im3'"),
        ({"0": ["im2"], "1": ["im0"]}, None, "2 of 6 rows"),
    ],
)
def test_rows_in_trained_on_are_an_error(tmp_path: Path, trained_on: object, fold: object, message: str) -> None:
    for split in ("oof", "test"):
        path = save(tmp_path, replace(PLAIN, split=split, fold=fold, trained_on=trained_on))  # type: ignore[arg-type]
        with pytest.raises(EnsembleError, match=message):
            read_members([path])


def test_a_sidecar_with_trained_on_of_other_samples_is_read(tmp_path: Path) -> None:
    by_fold = {"0": ["im2", "im3", "im4", "im5"], "1": ["im0", "im1", "im4", "im5"], "2": ["im0", "im1", "im2", "im3"]}
    for trained_on in (["x", "y"], by_fold):
        member = read_members([save(tmp_path, replace(PLAIN, trained_on=trained_on))])[0]  # type: ignore[arg-type]
        assert member.sidecar is not None
        assert member.sidecar.trained_on == trained_on
    with pytest.raises(EnsembleError, match="'trained_on' is 7"):
        read_members([save_raw(tmp_path)])


def save_raw(folder: Path) -> Path:
    path = save(folder, replace(PLAIN, trained_on=["x"]))
    beside = path.with_suffix(".json")
    beside.write_text(beside.read_text().replace('"trained_on": [\n  "x"\n ]', '"trained_on": 7'))
    return path
