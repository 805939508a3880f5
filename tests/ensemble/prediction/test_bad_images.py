"""Unusual and damaged images: `predict` and an exported model see the pixels of the training, or refuse as it does."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ensemble as en
from folds.errors import EnsembleError
from folds.images.decode import UnreadableImageError, decode_image
from folds.images.settings import ImageSettings
from tests.ensemble.model_files.test_hostile import _exported

__all__ = ["_exported"]  # a fixture
SETTINGS = ImageSettings(32, 32)
NOISE = Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 56, 3), np.uint8)).resize((112, 80))
OTHER = NOISE.transpose(Image.Transpose.ROTATE_180)
ROTATED = Image.Exif()
ROTATED[0x0112] = 6


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def sixteen_bits() -> Image.Image:
    gray = np.asarray(NOISE.convert("L"), np.uint16) * 257
    return Image.fromarray(gray)


# The name → its content, and the picture that is meant.
USABLE: dict[str, tuple[Callable[[], bytes], Image.Image]] = {
    "animated.gif": (lambda: encoded(NOISE.quantize(), "GIF", save_all=True, append_images=[OTHER]), NOISE.quantize()),
    "animated.png": (lambda: encoded(NOISE, "PNG", save_all=True, append_images=[OTHER]), NOISE),
    "rotated.jpg": (lambda: encoded(NOISE, "JPEG", exif=ROTATED), NOISE.transpose(Image.Transpose.ROTATE_270)),
    "rotated.png": (lambda: encoded(NOISE, "PNG", exif=ROTATED), NOISE.transpose(Image.Transpose.ROTATE_270)),
    "cmyk.jpg": (lambda: encoded(NOISE.convert("CMYK"), "JPEG", quality=95), NOISE),
    "cmyk.tif": (lambda: encoded(NOISE.convert("CMYK"), "TIFF"), NOISE),
    "deep.png": (lambda: encoded(sixteen_bits(), "PNG"), NOISE.convert("L")),
    "gray.png": (lambda: encoded(NOISE.convert("L"), "PNG"), NOISE.convert("L")),
    "one_pixel.png": (lambda: encoded(NOISE.crop((0, 0, 1, 1)), "PNG"), NOISE.crop((0, 0, 1, 1))),
    "transparent.png": (lambda: encoded(NOISE.convert("RGBA"), "PNG"), NOISE),
}
DAMAGED: dict[str, Callable[[], bytes]] = {
    "empty.png": lambda: b"",
    "truncated.png": lambda: encoded(NOISE, "PNG")[:2_000],
    "truncated.jpg": lambda: encoded(NOISE, "JPEG")[:1_000],
    "truncated.gif": lambda: encoded(NOISE, "GIF")[:900],
    "text.jpg": lambda: b"not an image\n" * 50,
    "no_pixels.png": lambda: encoded(NOISE, "PNG")[:33],
}


@pytest.fixture
def model(_exported: Path) -> Path:
    """An exported run of three folds; it must not be changed."""
    return _exported / "model"


@pytest.fixture
def predictor(model: Path) -> en.Predictor:
    return en.load(model, device="cpu", verify=False)


@pytest.mark.parametrize("name", USABLE)
def test_unusual_images_have_the_pixels_of_the_training(
    name: str, model: Path, predictor: en.Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, meant = USABLE[name]
    content = make()
    (tmp_path / name).write_bytes(content)
    pixels = decode_image(content, SETTINGS).pixels
    seen = np.asarray(meant.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC), np.float64)
    assert np.abs(pixels - seen).mean() < 12  # the meant picture, whatever a filter or JPEG changes
    expected = predictor.predict_proba(pixels)
    for images in (name, [name], content, tmp_path):
        np.testing.assert_allclose(predictor.predict_proba(images), expected, atol=1e-5)
    found = en.predict(model, [tmp_path / name], progress=False)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_images_are_refused_as_by_the_training(
    name: str, model: Path, predictor: en.Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = DAMAGED[name]()
    Path(name).write_bytes(content)
    Path("whole.png").write_bytes(encoded(NOISE, "PNG"))
    with pytest.raises(UnreadableImageError) as training:
        decode_image(content, SETTINGS)
    calls: list[Callable[[], object]] = [
        lambda: en.predict(model, [name, "whole.png"], progress=False),
        lambda: predictor.predict_proba([name, "whole.png"]),
        lambda: predictor.predict_proba([content]),
    ]
    for call in calls:
        with pytest.raises(EnsembleError) as refused:
            call()
        assert str(training.value) in "\n".join(refused.value.lines())
    found = en.predict(model, [name, "whole.png"], skip_unreadable=True, progress=False)
    assert found.ids.tolist() == ["whole.png"]


def test_images_with_other_channels_are_predicted_together(
    model: Path, predictor: en.Predictor, tmp_path: Path
) -> None:
    for mode in ("L", "LA", "RGB", "RGBA", "P", "1", "CMYK"):
        NOISE.convert(mode).save(tmp_path / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}")
    files = sorted(tmp_path.iterdir())
    names = [file.stem for file in files]
    found = en.predict(model, tmp_path, progress=False)
    assert len(found) == len(files) == 7
    alone = np.concatenate([predictor.predict_proba(file) for file in files])
    np.testing.assert_allclose(found.probabilities, alone, atol=1e-5)
    np.testing.assert_allclose(alone[names.index("RGBA")], alone[names.index("RGB")], atol=1e-5)


def test_one_image_is_one_row_and_none_is_refused(model: Path, predictor: en.Predictor, tmp_path: Path) -> None:
    NOISE.save(tmp_path / "one.png")
    found = en.predict(model, tmp_path / "one.png", progress=False)
    assert found.probabilities.shape == (1, 18)
    np.testing.assert_allclose(predictor.predict_proba(tmp_path / "one.png"), found.probabilities, atol=1e-5)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").write_text("path\n")
    for nothing in ([], tmp_path / "empty", tmp_path / "empty.csv"):
        with pytest.raises(EnsembleError):
            en.predict(model, nothing, progress=False)
    with pytest.raises(EnsembleError):
        predictor.predict_proba(tmp_path / "empty")


def test_ids_that_repeat_are_refused(model: Path, tmp_path: Path) -> None:
    NOISE.save(tmp_path / "one.png")
    OTHER.save(tmp_path / "two.png")
    (tmp_path / "t.csv").write_text("id,path\na,one.png\na,two.png\n")
    with pytest.raises(EnsembleError, match=r"ids .*are not unique"):
        en.predict(model, tmp_path / "t.csv", progress=False)
    with pytest.raises(EnsembleError, match=r"ids .*are not unique"):
        en.predict(model, [tmp_path / "one.png", tmp_path / "one.png"], progress=False)
