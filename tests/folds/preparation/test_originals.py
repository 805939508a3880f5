"""An original is read whole, upright and at its own size, as the training would read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from folds.errors import EnsembleError
from folds.images.content_index import UnreadableImageError
from folds.preparation.originals import read_original, survey
from folds.utils.files import sha256_file

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_rotation_is_applied_without_resizing(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.image"
    Image.fromarray(PIXELS).save(path, kind, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    pixels, original = read_original(path)
    assert np.array_equal(pixels, expected)
    assert original.size == (pixels.shape[1], pixels.shape[0])
    assert original.digest == sha256_file(path)


def test_grey_transparency_and_palettes_become_three_channels(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[:, :, 0]).save(tmp_path / "grey.png")
    assert np.array_equal(read_original(tmp_path / "grey.png")[0], PIXELS[:, :, :1].repeat(3, axis=2))
    Image.new("RGBA", (4, 3), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_original(tmp_path / "clear.png")[0] == 128).all()


def test_deep_images_are_windowed_and_told_of(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1000], [3000, 4095]], np.uint16)).save(tmp_path / "deep.png")
    pixels, original = read_original(tmp_path / "deep.png", (0, 4095))
    assert pixels[:, :, 0].tolist() == [[0, 62], [187, 255]]
    assert original.depth is not None
    assert original.depth.highest == 4095


def test_all_that_cannot_be_used_is_in_one_error_with_its_row(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:300])
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tiff")
    names = ["good.png", "cut.png", "text.png", "gone.png", "float.tiff"]
    with pytest.raises(EnsembleError, match="4 images cannot be used") as caught:
        survey([tmp_path / name for name in names], [f"a.csv row {i}" for i in range(2, 7)], None)
    assert [line.split(":")[0] for line in caught.value.details] == [
        "a.csv row 3",
        "a.csv row 4",
        "a.csv row 5",
        "a.csv row 6",
    ]
    with pytest.raises(UnreadableImageError, match="does not exist"):
        read_original(tmp_path / "gone.png")
