"""The road of images of five channels, from a table of arrays to an exported model; a training that is shared."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble as en
import folds
from ensemble.export.predictor import load
from ensemble.report.page.thumbnails import Thumbnails
from ensemble.serving.load import open_model
from folds.errors import EnsembleError, UsageError
from folds.images.content_index import UnreadableImageError
from folds.images.settings import ImageSettings
from folds.models.checkpoint import load_checkpoint
from folds.runs.results import Runs

SMALL: dict[str, Any] = {"k": 2, "epochs": 1, "img_size": 32, "pretrained": False, "batch_size": 8, "progress": False}
PEOPLE, EACH = 8, 2


def table(folder: Path) -> Path:
    random = np.random.default_rng(0)
    rows = []
    for at in range(PEOPLE * EACH):
        values = random.integers(0, 4000, (32, 32, 6)).astype(np.uint16)
        np.save(folder / f"i{at}.npy", values)
        for name, channel in (("t1", 0), ("t2", 5)):
            np.save(folder / f"{name}_{at}.npy", values[:, :, channel])
        rows.append([f"i{at}.npy", f"t1_{at}.npy", f"t2_{at}.npy", "ab"[at // EACH % 2], f"p{at // EACH}"])
    with open(folder / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "t1", "t2", "label", "person"], *rows])
    return folder / "table.csv"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Runs]:
    root = tmp_path_factory.mktemp("channels")
    given = {"channels": [0, 1, 2, 3, 5], "window": "0,4000", "augment": "strong", "mixup": 0.2}
    return root, folds.kfold(table(root), arch="test_resnet", root=root, test=root / "table.csv", **given, **SMALL)


@pytest.fixture(scope="module")
def exported(trained: tuple[Path, Runs]) -> Path:
    root, _ = trained
    en.export("test_resnet", root / "model", root=root)
    return root / "model"


def test_a_checkpoint_records_the_channels_and_their_statistics(trained: tuple[Path, Runs]) -> None:
    _, runs = trained
    run = runs["test_resnet"]
    checkpoint = load_checkpoint(run.checkpoints[0])
    assert checkpoint.image_settings == ImageSettings(32, 32, window=(0, 4000), channels=(0, 1, 2, 3, 5))
    assert checkpoint.architecture.channels == 5
    assert checkpoint.recipe["normalise"] == "data"
    assert all(0.4 < mean < 0.6 for mean in checkpoint.architecture.mean)
    assert len(set(checkpoint.architecture.mean)) == 5  # measured, not those of colors
    assert run.config["channels"] == ["0", "1", "2", "3", "5"]


def test_new_images_are_predicted_as_in_training(trained: tuple[Path, Runs]) -> None:
    root, runs = trained
    found = en.predict("test_resnet", root / "table.csv", root=root, progress=False)
    test = runs["test_resnet"].test
    assert test is not None
    assert np.abs(found.probabilities - test.probabilities).max() < 1e-5
    np.save(root / "few.npy", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(EnsembleError, match="cannot be used") as error:
        en.predict("test_resnet", root / "few.npy", root=root, progress=False)
    assert "has 3 channels, counted from 0, and channels names 3" in error.value.details[0].replace("`", "")


def test_views_and_an_exported_model_have_the_channels_too(trained: tuple[Path, Runs], exported: Path) -> None:
    root, runs = trained
    views = en.tta("test_resnet", views="hflip,contrast:1.1", root=root, progress=False)
    assert views is not None
    model = load(exported)
    assert model.difference is not None
    test = runs["test_resnet"].test
    assert test is not None
    files = [root / f"i{at}.npy" for at in range(4)]
    assert np.abs(model.predict_proba(files) - test.probabilities[:4]).max() < 1e-4
    eight = [np.round(np.load(path) * (255 / 4000)).astype(np.uint8) for path in files]
    assert np.abs(model.predict_proba(eight) - test.probabilities[:4]).max() < 1e-3
    with pytest.raises(EnsembleError, match="cannot be used"):
        model.predict_proba(eight[0][:, :, :3])


def test_a_server_reads_arrays_that_it_is_sent(exported: Path, trained: tuple[Path, Runs]) -> None:
    root, runs = trained
    served = open_model(exported, "cpu", root)
    answers = served.answer([served.decode((root / "i0.npy").read_bytes(), 10_000)])
    test = runs["test_resnet"].test
    assert test is not None
    assert np.abs(answers.probabilities[0] - test.probabilities[0]).max() < 1e-4
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        served.decode((root / "i0.npy").read_bytes(), 100)


def test_pictures_of_a_report_show_the_first_channels(trained: tuple[Path, Runs]) -> None:
    root, _ = trained
    shown = Thumbnails({"a": root / "i0.npy"}, (0, 4000), None, (0, 1, 2, 3, 5))
    assert shown.data_uri("a").startswith("data:image/jpeg;base64,")
    assert Thumbnails({"a": root / "i0.npy"}, (0, 4000)).data_uri("a")


def test_a_stack_is_recorded_and_read_again(trained: tuple[Path, Runs]) -> None:
    root, _ = trained
    given = {"stack": ["t1", "t2"], "window": "0,4000", "name": "stacked", "fold": 0}
    folds.kfold(root / "table.csv", arch="test_resnet", root=root, test=root / "table.csv", **given, **SMALL)
    checkpoint = root / "checkpoints" / "stacked" / "fold0.pt"
    assert load_checkpoint(checkpoint).image_settings.stack == ("t1", "t2")
    found = en.predict(checkpoint, root / "table.csv", root=root, progress=False)
    written = np.load(root / "runs" / "stacked.fold0.test.npy")
    assert np.abs(found.probabilities - written).max() < 1e-5
    with pytest.raises(UsageError, match="stack of files in the columns t1, t2"):
        en.predict(checkpoint, root / "i0.npy", root=root, progress=False)
    with pytest.raises(EnsembleError, match="a server is sent one file"):
        open_model(checkpoint, "cpu", root)


def test_settings_that_do_not_fit_channels_are_refused(trained: tuple[Path, Runs]) -> None:
    root, _ = trained
    for given, text in (
        ({"channels": "0,1", "normalize": "imagenet"}, "the mean and std of 3 channels"),
        ({"channels": "0,x"}, "expected numbers of channels"),
        ({"frame": "last"}, "expected the number of a frame"),
        ({"channels": "0,1", "stack": "t1,t2"}, "makes each file one channel"),
    ):
        with pytest.raises(UsageError, match=text):
            folds.kfold(root / "table.csv", arch="test_resnet", root=root, name="x", **given, **SMALL)
