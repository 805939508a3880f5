"""The small pictures: proportions, rotation, files that cannot be decoded."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble.report.page.thumbnails import SIDE, Thumbnails, small_pixels


def picture(path: Path, width: int, height: int, orientation: int = 1) -> Path:
    """Red above, blue below."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2] = (255, 0, 0)
    pixels[height // 2 :] = (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(640, 320, (80, 160)), (320, 640, (160, 80)), (40, 20, (20, 40)), (500, 500, (160, 160)), (1000, 3, (1, 160))],
)
def test_proportions_stay_and_nothing_is_enlarged(
    tmp_path: Path, width: int, height: int, expected: tuple[int, int]
) -> None:
    found = small_pixels(picture(tmp_path / "a.png", width, height), SIDE)
    assert found is not None
    assert found.shape == (*expected, 3)


def test_a_rotation_in_the_file_is_applied(tmp_path: Path) -> None:
    found = small_pixels(picture(tmp_path / "a.jpg", 320, 160, orientation=6), SIDE)
    assert found is not None
    assert found.shape == (160, 80, 3)
    assert found[80, 70, 0] > 200  # what was above is at the right
    assert found[80, 10, 2] > 200


def test_an_image_with_gray_edges_is_whole(tmp_path: Path) -> None:
    Image.new("RGB", (300, 150), (128, 128, 128)).save(tmp_path / "gray.png")
    found = small_pixels(tmp_path / "gray.png", SIDE)
    assert found is not None
    assert sorted(found.shape[:2]) == [80, 160]


def test_unreadable_files_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no image")
    (tmp_path / "x.svg").write_text("<svg onload='alert(1)'/>")
    Image.new("1", (3000, 3000)).save(tmp_path / "bomb.png")
    made = Thumbnails(
        {name: tmp_path / name for name in ("bad.jpg", "x.svg", "bomb.png", "gone.jpg")}, max_pixels=1_000_000
    )
    assert [made.data_uri(name) for name in (*made.paths, "unknown")] == [""] * 5


def test_a_thumbnail_is_a_small_jpeg(tmp_path: Path) -> None:
    uri = Thumbnails({"a": picture(tmp_path / "a.png", 2000, 1000)}).data_uri("a")
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert (image.format, image.size) == ("JPEG", (160, 80))


def test_a_budget_cuts_the_rest_and_repeated_pictures_count(tmp_path: Path) -> None:
    paths = {f"{at}": picture(tmp_path / f"{at}.png", 100 + at, 100) for at in range(6)}
    made = Thumbnails(paths)
    sizes = [len(made.data_uri(name)) for name in paths]
    assert list(made.within(list(paths), sum(sizes[:3]))) == ["0", "1", "2"]
    assert list(made.within(["0", "0", "1"], 2 * sizes[0])) == ["0"]
