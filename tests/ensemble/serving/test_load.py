"""Everything that predicts can be served, with the probabilities of `ensemble predict`."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import ensemble as en
from ensemble.prediction.arrays import LoadedModels
from ensemble.prediction.source import load_source
from ensemble.serving.load import SourceModel, check_scans, open_model
from ensemble.serving.model import split_answers
from folds.errors import EnsembleError, UsageError
from folds.images.content_index import UnreadableImageError
from tests.ensemble.serving.fake import picture

TEST = Path("people/eval")
LARGEST = 1_000_000


def answers(model: object, files: list[Path], batch: int) -> np.ndarray:
    """The probabilities (n, classes) of files that are predicted `batch` together."""
    assert isinstance(model, SourceModel)
    pixels = [model.decode(file.read_bytes(), LARGEST) for file in files]
    found = []
    for at in range(0, len(pixels), batch):
        part = pixels[at : at + batch]
        found += [one.probabilities for one in split_answers(model.answer(part), model.classes, len(part))]
    return np.array(found)


def test_runs_blends_and_checkpoints_answer_as_predict(grid: Path, call) -> None:
    files = sorted((TEST / "images").rglob("*.jpg"))[:20]
    assert call("blend", *sorted(Path("runs").glob("*.npy")), "--method", "hard", "-o", "both").code == 0
    for what in ("test_resnet", "both", "checkpoints/test_vit/fold1.pt"):
        model = open_model(what, "cpu", Path())
        expected = en.predict(what, files, progress=False)
        assert model.classes == expected.classes
        for batch in (1, 7, 20):
            np.testing.assert_allclose(answers(model, files, batch), expected.probabilities, atol=1e-6)


def test_disagreement_is_that_of_the_fold_models(grid: Path) -> None:
    files = sorted((TEST / "images").rglob("*.jpg"))[:10]
    model = open_model("test_resnet", "cpu", Path())
    found = split_answers(model.answer([model.decode(file.read_bytes(), LARGEST) for file in files]), model.classes, 10)
    folds = [
        en.predict(f"checkpoints/test_resnet/fold{i}.pt", files, progress=False)
        for i in range(len(model.source.models))
    ]
    together = en.predict("test_resnet", files, progress=False).probabilities.argmax(axis=1)
    other = np.mean([one.probabilities.argmax(axis=1) != together for one in folds], axis=0)
    np.testing.assert_allclose([one.uncertainty["disagreement"] for one in found], other, atol=1e-6)
    alone = open_model("checkpoints/test_resnet/fold0.pt", "cpu", Path())
    (one,) = split_answers(alone.answer([alone.decode(files[0].read_bytes(), LARGEST)]), alone.classes, 1)
    assert set(one.uncertainty) == {"entropy", "margin"}


def test_an_exported_model_answers_as_its_source(grid: Path) -> None:
    files = sorted((TEST / "images").rglob("*.jpg"))[:5]
    en.export("test_resnet", "model")
    model = open_model("model", "cpu", Path("/nowhere"))
    expected = en.predict("test_resnet", files, progress=False)
    np.testing.assert_allclose(answers(model, files, 5), expected.probabilities, atol=1e-6)
    record = model.describe()
    assert record["kind"] == "model"
    assert record["models"] == len(en.load_run("test_resnet").checkpoints)
    np.testing.assert_allclose(answers(model, files, 5), en.load("model", device="cpu").predict_proba(files), atol=1e-6)
    Path("checkpoints/model").mkdir()
    with pytest.raises(EnsembleError, match="'model' is an exported model here, and the name of a run"):
        open_model("model", "cpu", Path())
    Path("checkpoints/model").rmdir()
    weights = next(Path("model/weights").iterdir())
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    with pytest.raises(EnsembleError):
        open_model("model", "cpu", Path())


class Rules:
    """Decision rules as `ensemble.decisions` has them: no answer below a confidence, and sets of two classes."""

    unit = "image"

    def __init__(self, threshold: float) -> None:
        self.threshold, self.ids = threshold, []

    def apply(self, probabilities: np.ndarray, ids: list[str]) -> SimpleNamespace:
        self.ids += ids
        confidence = probabilities.max(axis=1)
        codes = np.where(confidence >= self.threshold, probabilities.argmax(axis=1), -1)
        sets = probabilities >= np.sort(probabilities, axis=1)[:, -2:-1]
        return SimpleNamespace(codes=codes, confidence=confidence, sets=sets)


def test_decision_rules_are_applied_to_each_image(grid: Path) -> None:
    files = sorted((TEST / "images").rglob("*.jpg"))[:6]
    source = load_source("test_resnet", Path())
    models = LoadedModels(source, "cpu")
    plain = SourceModel(source, models)
    images = [plain.decode(file.read_bytes(), LARGEST) for file in files]
    values = plain.answer(images).probabilities
    rules = Rules(float(np.median(values.max(axis=1))))
    found = split_answers(SourceModel(source, models, decision=rules).answer(images), plain.classes, 6)
    records = [one.to_dict() for one in found]
    assert [one["label"] is None for one in records] == [value < rules.threshold for value in values.max(axis=1)]
    assert len({one["label"] is None for one in records}) == 2
    for one, row in zip(records, values, strict=True):
        assert one["confidence"] == pytest.approx(row.max(), abs=1e-7)
        assert set(one["decision"]["set"]) == {plain.classes[at] for at in np.argsort(row)[-2:]}
    assert rules.ids == [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def test_ranks_cannot_be_served(grid: Path, call) -> None:
    assert call("blend", *sorted(Path("runs").glob("*.npy")), "--method", "rank", "-o", "ranks").code == 0
    with pytest.raises(UsageError, match="compares the images of a table"):
        open_model("ranks", "cpu", Path())


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_of_pixels_is_the_smaller_one(grid: Path) -> None:
    model = open_model("test_resnet", "cpu", Path())
    with pytest.raises(UnreadableImageError, match="more than 100 pixels"):
        model.decode(picture(size=(11, 10)), 100)
    assert [pixels.shape for pixels in model.decode(picture(size=(10, 10)), 100).pixels.values()] == [(32, 32, 3)]


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    check_scans(data, 64 * 64)
    last = data.rindex(b"\xff\xda")
    bomb = data[:-2] + data[last:-2] * 200 + data[-2:]
    check_scans(bomb, 1_000_000)
    with pytest.raises(UnreadableImageError, match=r"scans of 64 × 64 pixels and is not decoded"):
        check_scans(bomb, 64 * 64)
    check_scans(b"\x89PNG" + b"\xff\xda" * 1000, 1)
