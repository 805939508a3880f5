"""New images are predicted as the training predicted its test images, whatever combination the blend makes."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ensemble as en
from ensemble.cli import main
from folds.errors import EnsembleError, UsageError
from tests.conftest import Called, made_once

TEST = "people/eval"
TRAIN = ["kfold", "--data", "people", "--arch", "test_resnet", "--k", "3", "--epochs", "1"]
TRAIN += ["--img-size", "32", "--no-pretrained"]
BLENDS = {
    "soft": ["--method", "soft"],
    "hard": ["--method", "hard"],
    "weighted": ["--method", "weighted", "--weights", "test_resnet=.7,test_vit=.3"],
    "geometric": ["--method", "geometric"],
    "median": ["--method", "median"],
    "rank": ["--method", "rank"],
    "per_class": ["--method", "per-class"],
    "stacking": ["--method", "stacking"],
    "bias": ["--method", "bias"],
    "calibrated": ["--method", "greedy", "--calibrate", "before:temperature"],
}


def typed(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return int(left.value.code or 0)


@pytest.fixture(scope="session")
def _blended(tmp_path_factory: pytest.TempPathFactory, _grid: tuple[Path, Called]) -> Path:
    """Blends of the grid's runs by every kind of combination, and of their views."""

    def make(folder: Path) -> None:
        shutil.copytree(_grid[0], folder / "grid")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder / "grid")
            files = sorted(Path("runs").glob("*.npy"))
            for name, words in BLENDS.items():
                assert typed("blend", *files, *words, "-o", name, "--quiet") == 0
            assert typed("tta", "test_resnet", "--views", "hflip,scale:1.1", "--merge", "weighted", "--quiet") == 0
            assert typed("tta", "test_vit", "--views", "hflip", "--adaptive", "--quiet") == 0
            views = sorted(Path("runs/tta").glob("*.npy"))
            assert typed("blend", *files, *views, "--method", "soft", "-o", "views", "--quiet") == 0
            assert typed(*TRAIN, "--sweep", "target=mask,gender,age", "--name", "only", "--quiet") == 0
            parts = sorted(Path("runs").glob("only*.npy"))
            assert typed("blend", *parts, "--method", "soft", "-o", "joined", "--quiet") == 0
            assert typed("blend", *parts, *files, "--method", "greedy", "-o", "mixed", "--quiet") == 0

    # A copy for each process of tests: predictions of two at once would see each other's work folders.
    made = made_once(tmp_path_factory, "blended", make) / "grid"
    own = tmp_path_factory.mktemp("own") / "grid"
    shutil.copytree(made, own)
    return own


@pytest.fixture
def blended(_blended: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the blends, made the current one; it must not be changed."""
    monkeypatch.chdir(_blended)
    return _blended


@pytest.mark.parametrize("name", [*BLENDS, "views", "joined", "mixed"])
def test_a_blend_gives_its_own_test_predictions(blended: Path, name: str) -> None:
    found = en.predict(name, TEST, verify=True, progress=False)
    assert found.difference is not None
    assert found.difference <= 1e-6
    before = en.read_predictions(f"runs/blends/{name}/test.npy")
    assert found.ids.tolist() == before.ids.tolist()
    assert found.classes == before.classes
    assert (found.probabilities.argmax(1) == before.probabilities.argmax(1)).all()
    assert not list(Path(".ensemble/predict").glob("*"))


def test_a_run_is_the_mean_of_its_folds_and_a_checkpoint_is_one(blended: Path) -> None:
    run = en.predict("test_resnet", TEST, progress=False)
    folds = [en.predict(f"checkpoints/test_resnet/fold{i}.pt", TEST, progress=False) for i in range(3)]
    mean = np.mean([one.probabilities for one in folds], axis=0)
    np.testing.assert_allclose(run.probabilities, mean, atol=1e-6)
    assert run.passes == 3
    assert folds[0].passes == 1
    expected = en.load_run("test_resnet").test
    assert expected is not None
    np.testing.assert_allclose(run.probabilities, expected.probabilities, atol=1e-6)
    assert run.score is not None
    assert run.score.interval.value == pytest.approx(expected.score("macro_f1").value, abs=1e-9)


@pytest.mark.parametrize("what", ["test_resnet", "checkpoints/test_vit/fold1.pt"])
def test_a_run_and_a_checkpoint_are_verified(blended: Path, what: str) -> None:
    found = en.predict(what, TEST, verify=True, progress=False)
    assert found.difference is not None
    assert found.difference <= 1e-6


def test_images_may_be_a_list_a_pattern_or_a_folder(blended: Path) -> None:
    whole = en.predict("test_resnet", TEST, progress=False)
    folder = next(Path(TEST).glob("images"))
    files = sorted(folder.rglob("*.jpg"))[:5]
    listed = en.predict("test_resnet", files, progress=False)
    by_name = dict(zip([Path(name).stem for name in whole.ids.tolist()], whole.probabilities, strict=True))
    np.testing.assert_allclose(listed.probabilities, [by_name[file.stem] for file in files], atol=1e-5)
    assert listed.ids.tolist() == [file.as_posix() for file in files]
    assert len(en.predict("test_resnet", f"{folder}/*.jpg", progress=False)) == len(list(folder.glob("*.jpg")))
    assert len(en.predict("test_resnet", folder, progress=False)) == len(whole)


def test_small_chunks_give_the_same_and_an_interrupt_costs_one(
    blended: Path, monkeypatch: pytest.MonkeyPatch, logged
) -> None:
    from ensemble.prediction import predict as module
    from ensemble.prediction.engine import Engine

    whole = en.predict("soft", TEST, progress=False)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1)  # 64 images, of which there are 42
    monkeypatch.setattr(module, "BATCH", 16)
    calls: list[int] = []
    fill = Engine.fill

    def interrupted(self, pixels, usable, start, advance):
        calls.append(start)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fill(self, pixels, usable, start, advance)

    monkeypatch.setattr(Engine, "fill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        en.predict("soft", TEST, progress=False)
    again = en.predict("soft", TEST, progress=False)
    assert calls == [0, 16, 32, 32]
    assert "continuing with image 33 of 42" in logged.notes
    np.testing.assert_allclose(again.probabilities, whole.probabilities, atol=1e-5)


def test_unusable_images_are_one_error_or_left_out(blended: Path, tmp_path: Path, call: Callable[..., Called]) -> None:
    images = tmp_path / "new"
    images.mkdir()
    source = sorted((blended / TEST / "images").rglob("*.jpg"))[:4]
    for i, file in enumerate(source):
        shutil.copyfile(file, images / f"{i}.jpg")
    (images / "1.jpg").write_bytes(b"")
    (images / "2.jpg").write_bytes(source[2].read_bytes()[:200])
    with pytest.raises(EnsembleError, match="2 images cannot be used") as caught:
        en.predict("test_resnet", images, progress=False)
    assert "skip_unreadable" in str(caught.value.hint)
    assert len(caught.value.details) == 2
    out = tmp_path / "p.npy"
    done = call("predict", "test_resnet", images, "-o", out, "--skip-unreadable", "--json")
    assert done.code == 3
    assert json.loads(done.out)["images"] == 2
    found = en.read_predictions(out)
    assert found.ids.tolist() == ["0.jpg", "3.jpg"]
    alone = en.predict("test_resnet", [images / "0.jpg", images / "3.jpg"], progress=False)
    np.testing.assert_allclose(found.probabilities, alone.probabilities, atol=1e-6)


def test_the_command_writes_a_submission(blended: Path, tmp_path: Path, call: Callable[..., Called]) -> None:
    out, answers = tmp_path / "p.npy", tmp_path / "s.csv"
    done = call("predict", "soft", TEST, "-o", out, "--csv", answers, "--columns", "ImageID,ans")
    assert done.code == 0, done.err
    with answers.open() as file:
        rows = list(csv.DictReader(file))
    found = en.read_predictions(out)
    assert [row["ImageID"] for row in rows] == found.ids.tolist()
    assert [row["ans"] for row in rows] == [found.classes[i] for i in found.probabilities.argmax(1)]
    again = call("predict", "soft", TEST, "-o", out)
    assert again.code == 1
    assert "exists" in again.err


def test_one_row_per_person_is_the_mean_of_the_images(blended: Path, tmp_path: Path) -> None:
    train = en.read_table("people")
    frame = train.train.frame().head(28)
    table = tmp_path / "t.csv"
    frame["path"] = [str(Path(path).resolve()) for path in frame["path"]]
    frame.to_csv(table, index=False)
    found = en.predict("test_resnet", table, progress=False)
    people = found.by_person()
    persons = frame["person"].astype(str).to_numpy()
    assert people.ids.tolist() == sorted(set(persons))
    first = found.probabilities[persons == people.ids[0]].mean(axis=0)
    np.testing.assert_allclose(people.probabilities[0], first, atol=1e-6)


def test_rank_voting_of_one_image_is_refused_before_reading(blended: Path) -> None:
    image = next((blended / TEST / "images").rglob("*.jpg"))
    with pytest.raises(UsageError, match="compares the images of a table"):
        en.predict("rank", image, progress=False)


def test_a_checkpoint_that_was_replaced_or_is_gone_is_refused(grid: Path, call: Callable[..., Called]) -> None:
    assert call("blend", *sorted(Path("runs").glob("*.npy")), "-o", "both").code == 0
    first, second = Path("checkpoints/test_resnet/fold0.pt"), Path("checkpoints/test_resnet/fold1.pt")
    shutil.copyfile(second, first)
    with pytest.raises(EnsembleError, match=r"fold0\.pt is not the checkpoint that the blend was made of"):
        en.predict("both", TEST, progress=False)
    first.unlink()
    with pytest.raises(EnsembleError, match=r"needs checkpoints/test_resnet/fold0\.pt, which does not exist"):
        en.predict("both", TEST, progress=False)


@pytest.mark.parametrize("what", ["sof", "nothing", "../x", ".", "runs", "no.pt", "no/blend.toml"])
def test_what_does_not_exist_is_one_clear_error(blended: Path, what: str) -> None:
    with pytest.raises(EnsembleError) as caught:
        en.predict(what, TEST, progress=False)
    assert caught.value.hint
    if what == "sof":
        assert "did you mean soft" in str(caught.value)


@pytest.mark.parametrize(
    ("images", "expected"),
    [([], "expected one image or more"), ("no/*.jpg", "there is no no"), (["people", "x.jpg"], "there is no x.jpg")],
)
def test_images_that_do_not_exist_are_named(blended: Path, images: object, expected: str) -> None:
    with pytest.raises(EnsembleError, match=expected):
        en.predict("test_resnet", images, progress=False)  # type: ignore[arg-type]


def test_names_of_a_table_are_found_in_a_folder(blended: Path, tmp_path: Path, call: Callable[..., Called]) -> None:
    files = sorted((blended / TEST / "images").rglob("*.jpg"))[:3]
    (tmp_path / "test.csv").write_text("image_id\n" + "".join(f"{file.stem}\n" for file in files))
    out = tmp_path / "p.npy"
    done = call("predict", "soft", tmp_path / "test.csv", "--images", files[0].parent, "-o", out)
    assert done.code == 0, done.err
    found, whole = en.read_predictions(out), en.read_predictions("runs/blends/soft/test.npy")
    assert found.ids.tolist() == [file.stem for file in files]
    rows = [[Path(name).stem for name in whole.ids.tolist()].index(file.stem) for file in files]
    np.testing.assert_allclose(found.probabilities, whole.probabilities[rows], atol=1e-5)
