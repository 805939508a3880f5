"""Tables and folders of other kinds of images: stacks of files, arrays, DICOM whose PatientID is the person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from folds.data.image_folder import find_images
from folds.data.images_to_predict import read_test
from folds.data.readers import read_data
from folds.data.table import DataSpec
from folds.errors import EnsembleError, UsageError
from folds.images.stacks import stack_parts

STACK = ("t1", "t2")


@pytest.fixture
def stacked(tmp_path: Path) -> Path:
    lines = ["t1,t2,label,person,site"]
    for at in range(4):
        for name in STACK:
            np.save(tmp_path / f"{name}_{at}.npy", np.zeros((4, 4), np.uint8))
        lines.append(f"t1_{at}.npy,t2_{at}.npy,{'ab'[at % 2]},p{at // 2},x")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "t.csv"


def test_columns_of_files_are_one_sample(stacked: Path) -> None:
    data = read_data(DataSpec(stacked, stack=STACK))
    assert data.train.ids.tolist() == [f"t1_{at}.npy" for at in range(4)]
    assert list(data.train.attributes) == ["site"]
    assert data.train.paths is not None
    assert [part.name for part in stack_parts(data.train.paths[1])] == ["t1_1.npy", "t2_1.npy"]
    test, _ = read_test(stacked, DataSpec(stacked, stack=STACK))
    assert [stack_parts(path) for path in test.paths or ()] == [stack_parts(path) for path in data.train.paths]


def test_a_file_that_is_missing_in_a_stack_is_an_error_with_its_column(stacked: Path) -> None:
    (stacked.parent / "t2_3.npy").unlink()
    with pytest.raises(EnsembleError, match=r"column 't2' do") as error:
        read_data(DataSpec(stacked, stack=STACK))
    assert "t2_3.npy" in error.value.details[0]
    assert "row 5" in error.value.details[0]
    stacked.write_text(stacked.read_text().replace("t2_3.npy", ""))
    with pytest.raises(EnsembleError, match="no image path in column 't2'"):
        read_data(DataSpec(stacked, stack=STACK))


def test_a_stack_needs_a_table_with_its_columns(stacked: Path) -> None:
    with pytest.raises(UsageError, match="stack of files in the columns t1, t2"):
        read_test(stacked.parent / "t1_0.npy", DataSpec(stacked, stack=STACK))
    with pytest.raises(EnsembleError, match="flair"):
        read_data(DataSpec(stacked, stack=("t1", "flair")))
    with pytest.raises(UsageError, match="stack and path both"):
        read_data(DataSpec(stacked, path="t2", stack=STACK))


def test_arrays_are_images_where_there_are_no_pictures(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 4), np.uint8))
    assert find_images(tmp_path).images == ["a.npy"]
    (tmp_path / "a.dcm").write_bytes(b"")
    assert find_images(tmp_path).images == ["a.dcm"]
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    found = find_images(tmp_path)
    assert found.images == ["a.png"]
    assert found.others == {".npy": 1, ".dcm": 1}


def dicom(path: Path, **elements: Any) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = "1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for name, value in {"Rows": 4, "Columns": 4, "PatientName": "Secret^Name", **elements}.items():
        setattr(made, name, value)
    path.parent.mkdir(exist_ok=True)
    made.save_as(path, enforce_file_format=True)


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    pytest.importorskip("pydicom")
    lines = ["path,label"]
    for at in range(6):
        dicom(tmp_path / "ab"[at % 2] / f"{at}.dcm", PatientID=f"P{at // 2}")
        lines.append(f"{'ab'[at % 2]}/{at}.dcm,{'ab'[at % 2]}")
    return tmp_path


def test_the_patient_id_is_the_person_of_a_folder_and_of_a_table(patients: Path) -> None:
    data = read_data(DataSpec(patients))
    assert data.train.persons is not None
    assert dict(zip(data.train.ids.tolist(), data.train.persons.tolist(), strict=True)) == {
        f"{'ab'[at % 2]}/{at}.dcm": f"P{at // 2}" for at in range(6)
    }
    note = next(line for line in data.notes if "PatientID" in line)
    assert "guessed; 3 people, 6 images" in note
    assert "Secret" not in " ".join([*data.notes, *data.warnings])
    table = patients / "t.csv"
    rows = [f"{name},{name[0]}" for name in data.train.ids.tolist()]
    table.write_text("\n".join(["path,label", *rows]) + "\n")
    by_table = read_data(DataSpec(table))
    assert by_table.train.persons is not None
    assert by_table.train.persons.tolist() == data.train.persons.tolist()
    table.write_text("\n".join(["path,label,person", *(f"{row},q{row[2]}" for row in rows)]) + "\n")
    assert not any("PatientID" in line for line in read_data(DataSpec(table)).notes)


def test_patient_ids_of_a_de_identification_are_no_persons(patients: Path) -> None:
    for at in range(4):
        dicom(patients / "ab"[at % 2] / f"{at}.dcm", PatientID="ANON")
    assert any("4 of 6 DICOM files" in line for line in read_data(DataSpec(patients)).warnings)
    for at in range(6):
        dicom(patients / "ab"[at % 2] / f"{at}.dcm", PatientID="ANON")
    with pytest.raises(EnsembleError, match="is the same in all 6 DICOM files, as after a de-identification"):
        read_data(DataSpec(patients))
    for at in range(6):
        dicom(patients / "ab"[at % 2] / f"{at}.dcm")
    with pytest.raises(EnsembleError, match="is missing in all 6 DICOM files"):
        read_data(DataSpec(patients))


def test_a_missing_patient_id_is_a_missing_person(patients: Path) -> None:
    dicom(patients / "a" / "0.dcm", PatientID="")
    with pytest.raises(EnsembleError, match="1 of 6 rows") as error:
        read_data(DataSpec(patients))
    assert "a/0.dcm" in error.value.details[0]
    data = read_data(DataSpec(patients, missing_persons="own"))
    assert data.train.persons is not None
    assert len(set(data.train.persons.tolist())) == 4
