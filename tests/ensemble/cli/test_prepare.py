"""`ensemble prepare` as it is typed: with OpenCV's own cascades and a real ONNX file, and what the next command makes
of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folds.data.synthetic.faces import random_face
from folds.data.synthetic.portraits import draw_portrait
from folds.utils.csv_table import read_csv
from tests.conftest import Called, call_process
from tests.folds.tiny_models import write_model

Call = Callable[..., Called]


@pytest.fixture(scope="module")
def _photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "img").mkdir()
    lines = ["file,finding,patient,site"]
    for person in range(6):
        for state in ("wear", "normal"):
            face = random_face(person % 2, person % 3, np.random.default_rng(person))
            draw_portrait(face, state, np.random.default_rng(person), (96, 128)).save(
                folder / "img" / f"{person}_{state}.jpg", quality=90
            )
            lines.append(f"img/{person}_{state}.jpg,{state},p{person},north")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def here(_photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six drawn people, masked and unmasked, in data/; the current folder is beside it, and names the columns."""
    (tmp_path / "data").symlink_to(_photographs)
    (tmp_path / "ensemble.toml").write_text('path = "file"\nlabel = "finding"\nperson = "patient"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_faces_are_cropped_and_the_next_command_trains_on_them(here: Path, call: Call) -> None:
    called = call("prepare", "--crop", "faces")
    assert called.code == 0, called.err
    rows = {line.split()[0]: line.split()[1:] for line in called.out.splitlines() if line}
    assert rows["class"] == ["images", "faces", "found"]
    assert rows["normal"][0] == "6"
    assert int(rows["normal"][1]) >= 5
    assert rows["all"][0] == "12"
    assert called.out.splitlines()[-1] == "prepared: 12 images, 12 new; check prepared/worst.png"
    lines = called.err.splitlines()
    assert lines[0] == "data: ./data (no --data given)"
    assert lines[-1] == "next: ensemble kfold --data prepared/index.csv"
    assert Image.open("prepared/worst.png").width > 500
    (here / "ensemble.toml").unlink()
    trained = call(
        "kfold",
        "--data",
        "prepared/index.csv",
        "--k",
        2,
        "--arch",
        "test_resnet",
        "--img-size",
        32,
        "--no-pretrained",
        "--dry-run",
    )
    assert trained.code == 0, trained.err


def test_json_is_one_object_with_the_counts_of_each_class(here: Path, call: Call) -> None:
    called = call("prepare", "--crop", "faces", "--json", "--min-confidence", 0.3, "--fallback", "typical", "-o", "cut")
    record = json.loads(called.out)
    assert record["folder"] == "cut"
    assert record["counts"]["train"]["images"] == 12
    assert record["classes"]["normal"]["images"] == 6
    missed = [row == "no" for row in read_csv(Path("cut/index.csv")).columns["face_found"]]
    assert record["counts"]["train"]["without_face"] == sum(missed)
    assert record["made_now"] == 12


def test_backgrounds_are_replaced_and_the_original_is_untouched(here: Path, call: Call) -> None:
    write_model(here / "u2net.onnx")
    before = (here / "data" / "img" / "0_wear.jpg").read_bytes()
    called = call("prepare", "--background", "u2net.onnx", "--fill", "white", "-o", "clean")
    assert called.code == 0, called.err
    assert "no foreground" in called.out.splitlines()[0]
    assert "backgrounds are replaced by white, segmented by u2net.onnx" in called.err
    assert Image.open("clean/images/train/img/0_wear.png").size == (96, 128)
    assert (here / "data" / "img" / "0_wear.jpg").read_bytes() == before


def test_several_labels_have_a_row_each_and_the_next_command_reads_them(here: Path, call: Call) -> None:
    write_model(here / "u2net.onnx")
    files = sorted(Path("data/img").glob("*.jpg"))
    cells = [f"{file},p{i // 2},{i % 2},{-1 if i == 5 else i // 6}" for i, file in enumerate(files)]
    Path("labels.csv").write_text("\n".join(["file,patient,hat,beard", *cells]) + "\n")
    words = ["--data", "labels.csv", "--label", "hat,beard", "--uncertain", "unknown", "--background", "u2net.onnx"]
    called = call("prepare", *words)
    assert called.code == 0, called.err
    rows = {line.split()[0]: line.split()[1:] for line in called.out.splitlines() if line}
    assert rows["label"][0] == "images"
    assert (rows["hat"][0], rows["beard"][0], rows["all"][0]) == ("6", "6", "12")
    assert "12 images with 2 labels" in called.err
    assert "1 uncertain label (-1) is read as an empty cell, not known: beard 1" in called.err
    command = "next: ensemble kfold --data prepared/index.csv --label hat,beard --task multilabel"
    assert called.err.splitlines()[-1] == command
    assert read_csv(Path("prepared/index.csv")).columns["beard"] == ["0"] * 5 + [""] + ["1"] * 6


def test_a_set_that_is_there_is_gone_on_with_or_made_again(here: Path, call: Call) -> None:
    words = ["prepare", "--crop", "faces", "--fallback", "keep"]
    assert call(*words).code == 0
    called = call(*words)
    assert called.code == 1
    assert "error: prepared holds a prepared set, which is complete" in called.err
    assert "--force makes it again" in called.err
    called = call(*words, "--resume")
    assert called.code == 0
    assert "12 images, all finished before" in called.out
    called = call(*words, "--margin", 0.5, "--resume")
    assert called.code == 1
    assert "  crop margin: expected 0.5, found 0.3" in called.err
    called = call(*words, "--margin", 0.5, "--force")
    assert "12 new" in called.out


def test_test_images_are_prepared_into_a_table_of_their_own(here: Path, call: Call) -> None:
    (here / "more").mkdir()
    Image.open("data/img/1_normal.jpg").save("more/täst.png")
    called = call("prepare", "--crop", "faces", "--test", "more")
    assert called.code == 0, called.err
    assert called.err.splitlines()[-1] == "next: ensemble kfold --data prepared/index.csv --test prepared/test.csv"
    table = read_csv(Path("prepared/test.csv")).columns
    assert table["id"] == ["täst.png"]
    assert "label" not in table
    assert table["face_found"] == ["yes"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "neither --crop nor --background is given"),
        (["--crop", "face"], 2, "unknown --crop 'face'; did you mean faces?"),
        (["--detector", "mediapipe"], 2, "a detector is given, but images are not cropped"),
        (["--crop", "faces", "--detector", "mediapipe"], 2, "needs a model file"),
        (["--crop", "faces", "--detector", "yolo"], 2, "unknown --detector 'yolo'"),
        (["--crop", "faces", "--aspect", "wide"], 2, "--aspect must be width:height"),
        (["--crop", "faces", "--margin", "-1"], 2, "--margin must be from 0 to 5"),
        (["--crop", "faces", "--resume", "--force"], 2, "--resume and --force contradict each other"),
        (["--background", "gone.onnx"], 1, "there is no model file gone.onnx"),
        (["--crop", "faces", "-o", "data"], 1, "data is inside the data"),
        (["--crop", "faces", "-o", "data/new"], 1, "data/new is inside the data"),
        (["--crop", "faces", "--test", "mine", "-o", "mine/new"], 1, "mine/new is inside the data, mine"),
        (["--crop", "faces", "-o", "."], 1, "expected a new or empty folder to write to, found data in ."),
        (["--crop", "faces", "-o", "mine"], 1, "expected a new or empty folder to write to, found a.txt in mine"),
    ],
)
def test_invalid_options_are_one_error_with_a_hint_and_no_files(
    here: Path, call: Call, words: list[str], code: int, message: str
) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "a.txt").touch()
    Image.new("RGB", (9, 9)).save("mine/b.png")
    called = call("prepare", *words)
    assert called.code == code
    errors = [line for line in called.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "hint: " in called.err
    assert sorted(path.name for path in here.iterdir()) == ["data", "ensemble.toml", "mine"]


def test_no_job_at_a_time_is_wrong_usage(here: Path, call: Call) -> None:
    called = call("prepare", "--crop", "faces", "--jobs", "0")
    assert (called.code, called.err) == (2, "error: --jobs must be 1 or more, or auto, found 0\n")


def test_an_unreadable_image_is_named_before_any_file_is_written(here: Path, call: Call) -> None:
    (here / "own").mkdir()
    for path in sorted((here / "data" / "img").iterdir())[:4]:
        (here / "own" / path.name).write_bytes(path.read_bytes())
    (here / "own" / "0_wear.jpg").write_bytes(b"no image")
    rows = [f"{path.name},{path.stem.split('_')[1]},{path.stem[0]}" for path in sorted((here / "own").iterdir())]
    (here / "own.csv").write_text("\n".join(["file,finding,patient", *(f"own/{row}" for row in rows)]))
    called = call("prepare", "--data", "own.csv", "--crop", "faces")
    assert called.code == 1
    assert "error: 1 image cannot be used" in called.err
    assert "own.csv row 3: " in called.err
    assert not (here / "prepared").exists()


def test_the_help_is_quick_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys\nfrom ensemble.cli import main\ntry: main(['prepare', '--help'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert "Usage: ensemble prepare" in done.stdout
    assert not set(done.stdout.split()) & {"torch", "numpy", "cv2", "onnxruntime", "PIL", "pandas"}


def test_interrupted_it_says_how_to_go_on(here: Path) -> None:
    code = "import folds.preparation.pipeline as p\ndef stop(*a, **k): raise KeyboardInterrupt\np._detect = stop\nfrom ensemble.cli import main\nmain()"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", code, "prepare", "--crop", "faces"],
        capture_output=True,
        text=True,
        cwd=here,
        env=environment,
        check=False,
    )
    assert done.returncode == 130
    assert "interrupted: finished images are kept" in done.stderr
    assert done.stderr.splitlines()[-1] == "next: ensemble prepare --crop faces --resume"
    again = call_process(["prepare", "--crop", "faces", "--resume"], here)
    assert again.code == 0, again.err
