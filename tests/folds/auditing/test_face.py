"""`audit` of the face: a table, a folder or a DataFrame in, findings out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import folds
from folds.errors import EnsembleError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten people with two images each; one image stands under two people."""
    random = np.random.default_rng(0)
    lines = ["path,label,person,part"]
    for at in range(20):
        coarse = random.integers(0, 255, (6, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((64, 64)).save(tmp_path / f"{at}.png")
        lines.append(f"{at}.png,{'ab'[at % 2]},p{at // 2},{at // 2 % 2}")
    shutil.copy(tmp_path / "0.png", tmp_path / "2.png")
    (tmp_path / "photos.csv").write_text("\n".join(lines))
    return tmp_path / "photos.csv"


def test_copies_are_found_and_shown(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    found = folds.audit(photos, root=root, progress=False)
    assert [one.severity for one in found.findings].count("warning") == 1
    assert 'src="data:image/jpeg;base64,' in found._repr_html_()
    assert len(repr(found).splitlines()) <= 20
    assert list(found.frame()["severity"]) == [one.severity for one in found.findings]
    assert (root / ".ensemble/images").is_dir()
    with pytest.raises(EnsembleError) as raised:
        folds.audit(photos, strict=True, root=root, progress=False)
    assert raised.value.details


def test_a_split_can_be_a_column_a_file_or_an_object(photos: Path, tmp_path: Path) -> None:
    data = folds.read_table(photos)
    made = folds.load_folds(data, column="part")
    assert made.k == 2
    path = made.save(tmp_path / "folds.csv")
    records = [
        folds.audit(data, given, images=False).to_dict() | {"folds": None} for given in (made, "part", path, str(path))
    ]
    assert all(record == records[0] for record in records)


def test_people_in_two_folds_are_an_error(photos: Path) -> None:
    frame = folds.read_table(photos).train.frame()
    torn = frame.assign(part=np.arange(len(frame)) % 2)
    with pytest.raises(EnsembleError, match="more than one fold"):
        folds.audit(torn, "part", images=False)
