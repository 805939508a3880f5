"""Heads on frozen features that predict an image from all images of its person predict new people, and refuse the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ensemble as en
from ensemble.prediction import engine
from ensemble.prediction import predict as data_path
from ensemble.prediction.source import load_source
from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.errors import UsageError
from folds.execution import local
from folds.features.train import train_job
from folds.predictions.predictions import read_predictions
from folds.runs.execute import lock_runs, train
from folds.runs.open import prepare_jobs
from folds.runs.plan import build_plan
from folds.training.job import job_from_dict


class InProcess:
    """Stands in for a worker process: the same job, without the start-up."""

    def __init__(self, threads: int, variables: dict[str, str]) -> None:
        pass

    def run(self, job: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        return train_job(job_from_dict(json.loads(json.dumps(job))), report)

    def stop(self) -> None:
        pass


@pytest.fixture(scope="module")
def _trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs with the three heads on one backbone of random weights, in two folds."""
    folder = tmp_path_factory.mktemp("heads")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(local, "Worker", InProcess)
        for name, head in (("gated", "attention-person"), ("relative", "relative"), ("attention", "attention")):
            recipe = {"gated": {"target": "gender"}, "relative": {"target": "mask+gender+age"}}.get(name, {})
            settings = Settings(data=drawn, arch=("test_resnet",), k=2, name=name)
            values = {"features": True, "epochs": 2, "img_size": "32", "pretrained": False, "head": head}
            made = build_plan(settings, Recipe(**values | recipe))
            with lock_runs(made):
                assert not [one.error for one in train(made, prepare_jobs(made)) if one.error]
        frame = en.read_table(drawn).train.frame()
        frame["path"] = [str(Path(path).resolve()) for path in frame["path"]]
        frame.to_csv("all.csv", index=False)
        yield folder


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 images, so that the images of a person are in several."""
    monkeypatch.setattr(data_path, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(data_path, "BATCH", 16)


@pytest.fixture
def trained(_trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the runs, made the current one; it must not be changed."""
    monkeypatch.chdir(_trained)
    monkeypatch.setattr(engine, "cpu_count", lambda: 1)  # threads that wait for each other are slow beside other tests
    return _trained


def validation_of(run: str, fold: int) -> tuple[pd.DataFrame, np.ndarray]:
    """The images of six people of a fold's validation part, shuffled, without labels, and their out-of-fold predictions."""
    oof = read_predictions(Path(f"runs/{run}.oof.npy"))
    table = pd.read_csv("all.csv", dtype=str).drop(columns=["label"])
    own = table[table["id"].isin(oof.ids[oof.metadata.fold == fold])]
    own = own[own["person"].isin(sorted(set(own["person"]))[:6])].sample(frac=1, random_state=1)
    place = {name: i for i, name in enumerate(oof.ids.tolist())}
    return own, oof.probabilities[[place[name] for name in own["id"]]]


@pytest.mark.parametrize("run", ["gated", "relative"])
def test_new_images_get_what_the_training_predicted_for_them(trained: Path, small_chunks: None, run: str) -> None:
    for fold in range(2):
        own, expected = validation_of(run, fold)
        own.to_csv("own.csv", index=False)
        found = en.predict(f"checkpoints/{run}/fold{fold}.pt", "own.csv", progress=False)
        assert found.ids.tolist() == own["id"].tolist()
        np.testing.assert_allclose(found.probabilities, expected, atol=3e-4)
        assert expected.std(axis=0).max() > 3e-3
    alone = own.assign(person=own["id"])
    alone.to_csv("alone.csv", index=False)
    other = en.predict(f"checkpoints/{run}/fold1.pt", "alone.csv", progress=False)
    assert np.abs(other.probabilities - expected).max() > 3e-3


def test_folds_with_one_body_see_an_image_once(
    trained: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, _ = validation_of("relative", 0)
    first, second = sorted(set(own["person"]))[:2]
    corrected = own.assign(person=own["person"].replace({first: second}))
    corrected.to_csv("own.csv", index=False)
    folds = [en.predict(f"checkpoints/relative/fold{fold}.pt", "own.csv", progress=False) for fold in range(2)]
    own.to_csv("own.csv", index=False)
    built: list[str] = []
    build = engine.built_body
    monkeypatch.setattr(engine, "built_body", lambda model, *how: built.append(str(model.path)) or build(model, *how))
    seen: list[int] = []
    run = engine.Engine._run

    def stopped(self: engine.Engine, task: engine._Task, *more: object) -> int:
        seen.append(len(task.rows))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return run(self, task, *more)

    monkeypatch.setattr(engine.Engine, "_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        en.predict("relative", "own.csv", progress=False)
    corrected.to_csv("own.csv", index=False)  # the heads see the persons of the table as it is at the end
    found = en.predict("relative", "own.csv", progress=False)
    assert sum(seen) == len(own) + seen[2]  # it continued after the second chunk
    assert set(built) == {"checkpoints/relative/fold0.pt"}
    assert found.passes == 1
    mean = np.mean([one.probabilities for one in folds], axis=0)
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-6)


def test_blends_predict_images_and_persons(trained: Path) -> None:
    en.blend(["relative", "attention"], progress=False).save("both")
    en.blend(["gated"], pool="mean", progress=False).save("people")
    own, _ = validation_of("relative", 0)
    own.to_csv("own.csv", index=False)
    found = en.predict("both", "own.csv", progress=False)
    parts = [en.predict(run, "own.csv", progress=False).probabilities for run in ("relative", "attention")]
    np.testing.assert_allclose(found.probabilities, np.mean(parts, axis=0), atol=1e-6)
    of_people = en.predict("people", "own.csv", per_person=True, progress=False)
    gated = en.predict("gated", "own.csv", progress=False)
    assert of_people.ids.tolist() == sorted(set(own["person"]))
    columns = [gated.classes.index(name) for name in of_people.classes]
    for name, row in zip(of_people.ids.tolist(), of_people.probabilities, strict=True):
        images = gated.probabilities[(own["person"] == name).to_numpy()][:, columns]
        np.testing.assert_allclose(images, np.broadcast_to(row, images.shape), atol=1e-5)


def test_an_image_that_cannot_be_read_is_no_image_of_its_person(trained: Path) -> None:
    own, _ = validation_of("gated", 0)
    Path("broken.png").write_bytes(b"no image")
    own.to_csv("own.csv", index=False)
    broken = pd.concat([own.iloc[:5], own.iloc[:1].assign(id="broken", path=str(Path("broken.png").resolve()))])
    pd.concat([broken, own.iloc[5:]]).to_csv("broken.csv", index=False)
    found = en.predict("gated", "broken.csv", skip_unreadable=True, progress=False)
    np.testing.assert_allclose(
        found.probabilities, en.predict("gated", "own.csv", progress=False).probabilities, atol=1e-6
    )


def test_what_has_no_persons_is_refused_by_name(trained: Path) -> None:
    own, _ = validation_of("gated", 0)
    own.drop(columns=["person"]).to_csv("unnamed.csv", index=False)
    with pytest.raises(UsageError, match=r"gated predicts .* \(head attention-person\), and the persons .* not known"):
        en.predict("gated", "unnamed.csv", progress=False)
    with pytest.raises(UsageError, match="precision=bf16 is checked by the predicted classes"):
        en.predict("gated", "all.csv", precision="bf16", progress=False)
    one_image: dict[str, Callable[[], object]] = {
        "test-time augmentation": lambda: en.tta("relative", progress=False),
        "a heat map": lambda: en.explain("checkpoints/relative/fold0.pt", "all.csv", progress=False),
        "a soup": lambda: en.soup(["relative", "attention"], progress=False),
        "cascade=exact is not available": lambda: en.predict("relative", "all.csv", cascade="exact", progress=False),
        "this command": lambda: en.export("relative", "model"),
    }
    for what, call in one_image.items():
        with pytest.raises(UsageError, match=what):
            call()
    with pytest.raises(UsageError, match=r"this command sees one image at a time, and relative predicts an image from"):
        load_source("relative")
