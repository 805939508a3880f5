"""Which images cannot be used: all of them are found, named and counted, and none of them stops the search."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folds.errors import EnsembleError
from folds.images.cache import ImageSettings, check_images, load_images, unusable_images

SMALL = ImageSettings(16, 12)


def write_image(path: Path, seed: int, kind: str = "JPEG") -> Path:
    values = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    Image.fromarray(values).resize((48, 64), Image.Resampling.BICUBIC).save(path, kind)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [write_image(tmp_path / f"{at}.jpg", at) for at in range(3)]


def unusable(folder: Path) -> dict[str, Path]:
    """One file of each kind that cannot be used."""
    whole = {
        kind: write_image(folder / f"whole.{kind.lower()}", 5, kind).read_bytes()
        for kind in ("JPEG", "PNG", "TIFF", "GIF", "WEBP")
    }
    bomb = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(bomb, "PNG")
    noisy = bytearray(whole["PNG"])
    noisy[len(noisy) // 2] ^= 0xFF
    found = {
        "empty.jpg": b"",
        "text.jpg": b"not an image\n",
        "page.png": b"<!DOCTYPE html>",
        "bomb.png": bomb.getvalue(),
        "damaged.png": bytes(noisy),
        **{f"cut.{kind.lower()}": data[: len(data) * 2 // 3] for kind, data in whole.items()},
        "header.jpg": whole["JPEG"][:20],
    }
    for name, data in found.items():
        (folder / name).write_bytes(data)
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    return {name: folder / name for name in [*found, "folder.jpg", "pipe.jpg", "missing.jpg", "nul\0.jpg"]}


def test_unusable_images_are_in_one_error_and_no_file_is_left(photos: list[Path], tmp_path: Path) -> None:
    bad = unusable(tmp_path)
    paths = [*photos, *bad.values()]
    locations = [f"train.csv row {row}" for row in range(2, 2 + len(paths))]
    with pytest.raises(EnsembleError) as caught:
        load_images(paths, SMALL, cache_dir=tmp_path / "cache", locations=locations)
    lines = caught.value.lines()
    assert lines[0] == f"error: {len(bad)} images cannot be used"
    assert lines[1] == f"  train.csv row 5: {bad['empty.jpg']} is empty (0 bytes)"
    assert lines[11] == f"  … and {len(bad) - 10} more"
    assert lines[12].startswith("hint: ")
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_whole_list_of_unusable_images_can_be_asked_for(photos: list[Path], tmp_path: Path) -> None:
    bad = unusable(tmp_path)
    found = dict(unusable_images([*photos, *bad.values()], settings=SMALL))
    said = {name: found[len(photos) + at].replace(str(path), "") for at, (name, path) in enumerate(bad.items())}
    assert len(found) == len(bad)
    expected = {
        "empty.jpg": "is empty",
        "text.jpg": "begins with b'not an image'",
        "bomb.png": "pixels",
        "missing.jpg": "does not exist",
        "folder.jpg": "is a folder",
        "pipe.jpg": "not a regular file",
        "nul\0.jpg": "cannot be read",
        "cut.jpeg": "cannot be decoded: image file is truncated",
        "damaged.png": "cannot be decoded",
    }
    for name, reason in expected.items():
        assert reason in said[name], name


def test_a_check_of_headers_finds_missing_files_and_non_images(photos: list[Path], tmp_path: Path) -> None:
    bad = unusable(tmp_path)
    check_images(photos)
    assert check_images([bad["cut.jpeg"]]) is None
    with pytest.raises(EnsembleError, match="1 image cannot be used"):
        check_images([bad["cut.jpeg"]], settings=SMALL)
    with pytest.raises(EnsembleError, match="4 images cannot be used"):
        check_images([bad[name] for name in ("missing.jpg", "text.jpg", "bomb.png", "empty.jpg")], ["row"] * 4)


def test_the_hint_fits_what_is_wrong(photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(EnsembleError) as caught:
        check_images([tmp_path / "a.jpg", tmp_path / "b.jpg"])
    assert "`path`" in (caught.value.hint or "")
    for at, top in enumerate((0.5, 3.25)):
        Image.fromarray(np.full((4, 4), top, np.float32)).save(tmp_path / f"{at}.tiff")
    with pytest.raises(EnsembleError) as caught:
        check_images([tmp_path / "0.tiff", tmp_path / "1.tiff"], settings=SMALL)
    assert "`window=0.5,3.25`" in (caught.value.hint or "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(photos: list[Path], tmp_path: Path) -> None:
    photos[0].chmod(0)
    with pytest.raises(EnsembleError) as caught:
        load_images(photos, SMALL, cache_dir=tmp_path / "cache")
    assert "permission denied" in caught.value.details[0]
