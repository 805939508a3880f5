"""A loaded model predicts whatever people hold images in, from several threads, and the same each time."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ensemble as en
from folds.errors import EnsembleError, UsageError
from tests.conftest import ROOT, made_once
from tests.ensemble.prediction.test_predict import TEST, _blended, blended  # noqa: F401


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, _blended: Path) -> Path:  # noqa: F811
    def make(folder: Path) -> None:
        for name in ("views", "rank"):
            en.export(name, folder / name, root=_blended)

    return made_once(tmp_path_factory, "models", make)


@pytest.fixture
def model(exported: Path) -> en.Predictor:
    return en.load(exported / "views", device="cpu")


@pytest.fixture
def images(_blended: Path) -> list[Path]:  # noqa: F811
    return sorted((_blended / TEST / "images").rglob("*.jpg"))[:5]


def test_paths_bytes_and_lists_are_the_same(model: en.Predictor, images: list[Path]) -> None:
    whole = model.predict_proba(images)
    assert whole.shape == (5, 18)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba([file.read_bytes() for file in images]), whole, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(str(images[0])), whole[:1], atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(np.array(list(map(str, images)))), whole, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(iter(images)), whole, atol=1e-6)


def test_arrays_and_pil_images_are_those_of_a_png(model: en.Predictor, images: list[Path], tmp_path: Path) -> None:
    pictures = [Image.open(file) for file in images]
    for i, one in enumerate(pictures):
        one.save(tmp_path / f"{i}.png")
    expected = model.predict_proba(sorted(tmp_path.glob("*.png")))
    arrays = [np.asarray(one) for one in pictures]
    np.testing.assert_allclose(model.predict_proba(pictures), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(arrays), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(np.stack(arrays)), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(arrays[0]), expected[:1], atol=1e-5)
    mixed = model.predict_proba([arrays[0], tmp_path / "1.png", pictures[2]])
    np.testing.assert_allclose(mixed, expected[:3], atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "CMYK", "P", "1"])
def test_modes_of_images_are_those_of_files(model: en.Predictor, images: list[Path], tmp_path: Path, mode: str) -> None:
    picture = Image.open(images[0]).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    file = tmp_path / f"x.{'tif' if mode == 'CMYK' else 'png'}"
    picture.save(file)
    expected = model.predict_proba(file)
    np.testing.assert_allclose(model.predict_proba(picture), expected, atol=1e-6)
    if mode in ("L", "RGBA"):
        np.testing.assert_allclose(model.predict_proba(np.asarray(picture)), expected, atol=1e-6)


def test_tables_and_folders_are_read_as_by_predict(model: en.Predictor, images: list[Path], tmp_path: Path) -> None:
    import pandas as pd

    whole = model.predict_proba(images)
    frame = pd.DataFrame({"path": list(map(str, images))})
    np.testing.assert_allclose(model.predict_proba(frame), whole, atol=1e-6)
    frame.to_csv(tmp_path / "t.csv", index=False)
    np.testing.assert_allclose(model.predict_proba(tmp_path / "t.csv"), whole, atol=1e-5)
    assert model.predict_proba(images[0].parent).shape == (42, 18)
    assert model.predict_proba(f"{images[0].parent}/*.jpg").shape == (42, 18)


def test_a_frame_has_ids_classes_and_probabilities(model: en.Predictor, images: list[Path]) -> None:
    frame, values = model.predict_frame(images), model.predict_proba(images)
    assert frame["id"].tolist() == list(map(str, images))
    assert (
        frame["prediction"].tolist() == [model.classes_[i] for i in values.argmax(1)] == model.predict(images).tolist()
    )
    np.testing.assert_array_equal(frame[list(model.classes_)].to_numpy(), values)


def test_threads_get_what_one_thread_gets(model: en.Predictor, images: list[Path]) -> None:
    expected = [model.predict_proba(file) for file in images]
    with ThreadPoolExecutor(8) as executor:
        found = list(executor.map(model.predict_proba, images * 8))
    for i, one in enumerate(found):
        np.testing.assert_array_equal(one, expected[i % 5])


def test_the_model_shows_itself(model: en.Predictor) -> None:
    assert "test_vit" in repr(model)
    assert "macro_f1" in model._repr_html_()
    record = model.to_dict()
    assert record["passes"] == 3 * 3 + 3 * 2
    assert record["score"]["score"] == model.score.value  # type: ignore[union-attr]
    assert model.score.people == 30  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([], "expected one image or more, found none"),
        (3, "`?images`? must be paths"),
        (np.zeros((4, 4, 3)), "image 0 has the type float64, expected uint8"),
        (np.zeros((3, 8, 8), np.uint8), "image 0 is an array of shape 3 × 8 × 8"),
        (np.zeros((0, 8, 3), np.uint8), "image 0 is an array of shape 0 × 8 × 3"),
        ([None], "image 0 must be a path"),
        ({"a": 1}, "`?images`? must be paths"),
        ("nothing.jpg", "does not exist"),
        (b"", "is empty"),
        (b"GIF89a of nothing", "image cannot be used|cannot be decoded|is not an image"),
    ],
)
def test_wrong_images_are_one_clear_error(model: en.Predictor, images: object, expected: str) -> None:
    with pytest.raises(EnsembleError) as caught:
        model.predict_proba(images)
    assert re.search(expected, " ".join([caught.value.message, *caught.value.details]))


def test_all_unreadable_images_are_one_error(
    model: en.Predictor, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensemble.export.predictor._AT_ONCE", 2)
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "b.jpg").write_bytes(images[0].read_bytes()[:300])
    with pytest.raises(EnsembleError, match="2 images cannot be used") as caught:
        model.predict_proba([tmp_path / "a.jpg", *images, tmp_path / "b.jpg"])
    assert [name in line for name, line in zip(("a.jpg", "b.jpg"), caught.value.details, strict=True)] == [True, True]
    whole = model.predict_proba(images)
    np.testing.assert_allclose(whole, np.concatenate([model.predict_proba(one) for one in images]), atol=1e-5)


def test_rank_voting_needs_more_than_one_image(exported: Path, images: list[Path]) -> None:
    loaded = en.load(exported / "rank")
    with pytest.raises(UsageError, match="compares the images of a table"):
        loaded.predict_proba(images[0])
    assert loaded.predict_proba(images).shape == (5, 18)


def test_a_threshold_is_of_a_class(model: en.Predictor, images: list[Path]) -> None:
    assert set(model.predict(images, threshold={"4": 1e-9}).tolist()) == {"4"}
    with pytest.raises(UsageError, match="is a number, and there are 18 classes"):
        model.predict(images, threshold=0.5)
    with pytest.raises(UsageError, match="unknown class"):
        model.predict(images, threshold={"40": 0.5})
    with pytest.raises(UsageError, match="probability above 0"):
        model.predict(images, threshold={"4": 40})


def test_a_new_process_gives_the_same(exported: Path, model: en.Predictor, images: list[Path], tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np, ensemble as en\n"
        "np.save(sys.argv[3], en.load(sys.argv[1], device='cpu').predict_proba([sys.argv[2]]))"
    )
    words = [sys.executable, "-c", code, str((exported / "views").resolve()), str(images[0]), str(tmp_path / "p.npy")]
    subprocess.run(words, check=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""})
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), model.predict_proba(images[0]), atol=1e-5)


@pytest.mark.parametrize(("path", "expected"), [("nothing", "there is no model"), (".", "is not an exported model")])
def test_what_is_no_model_is_named(tmp_path: Path, path: str, expected: str) -> None:
    with pytest.raises(EnsembleError, match=expected):
        en.load(tmp_path / path)
