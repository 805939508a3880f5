"""A whole preparation with a stub detector and with the real one: what is written, that originals stay, that a kill
costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from folds.data.images_to_predict import read_test
from folds.data.readers import read_data
from folds.data.synthetic.people import generate_people
from folds.data.table import Dataset, DataSpec
from folds.errors import EnsembleError, UsageError
from folds.preparation.boxes import Box
from folds.preparation.detectors import DetectorSettings
from folds.preparation.output import JOURNAL, LOCK, RECORD
from folds.preparation.pipeline import Prepared, encode, prepare
from folds.preparation.results import PreparedImage, uneven_label_misses, uneven_misses
from folds.preparation.settings import Preparation
from folds.utils.csv_table import read_csv
from tests.folds.tiny_models import write_model

FACES = Preparation(detector=DetectorSettings())


class Marked:
    """A stub detector: the face is what is pure red; nothing red, no face. It counts the images it is shown."""

    shown = 0

    def find(self, image: NDArray[np.uint8]) -> list[Box]:
        Marked.shown += 1
        rows, columns = np.nonzero((image == (255, 0, 0)).all(axis=2))
        if not len(rows):
            return []
        return [Box(int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1, 0.75)]


def picture(at: int, face: bool = True, size: tuple[int, int] = (60, 80)) -> Image.Image:
    pixels = np.random.default_rng(at).integers(0, 120, (size[1], size[0], 3), dtype=np.uint8)
    if face:
        pixels[20 + at : 40 + at, 10:30] = (255, 0, 0)
    return Image.fromarray(pixels)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight images of four people; those at 3 and 6 show no face."""
    folder = tmp_path / "photos"
    (folder / "img").mkdir(parents=True)
    rows = ["path,label,person,site"]
    for at in range(8):
        picture(at, face=at not in (3, 6)).save(folder / "img" / f"{at}.png")
        rows.append(f"img/{at}.png,{'cat' if at % 2 else 'dog'},p{at // 2},s{at}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder


def read(folder: Path) -> Dataset:
    return read_data(DataSpec(folder / "index.csv" if (folder / "index.csv").is_file() else folder))


def run(folder: Path, out: Path, settings: Preparation = FACES, **more: object) -> Prepared:
    return prepare(read(folder), out, settings, detector=Marked, **more)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, str]:
    """Each file's hash; the lock holds a process id and is left out."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != LOCK]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_images_are_cut_to_their_faces_and_the_table_says_where(photos: Path, tmp_path: Path) -> None:
    before = contents(photos)
    made = run(photos, tmp_path / "out")
    assert contents(photos) == before, "originals are never touched"
    table = read_csv(tmp_path / "out" / "index.csv").columns
    assert table["id"] == [f"img/{at}.png" for at in range(8)]
    assert table["site"] == [f"s{at}" for at in range(8)]
    assert table["face_found"] == ["yes", "yes", "yes", "no", "yes", "yes", "no", "yes"]
    assert table["face_box"][1] == "10 21 20 20"
    assert table["face_confidence"][1] == "0.7500"
    assert table["face_crop"][1] == "4 15 36 47"
    assert (table["face_box"][3], table["face_confidence"][3], table["face_crop"][3]) == ("", "", "0 10 60 70")
    assert table["prepared_from"][0] == "../photos/img/0.png"
    original = np.asarray(Image.open(photos / "img" / "1.png"))
    cut = np.asarray(Image.open(tmp_path / "out" / table["path"][1]))
    assert np.array_equal(cut, original[15:47, 4:36]), "no pixel is changed"
    assert [image.missed for image in made.images] == [at in (3, 6) for at in range(8)]
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["complete"] is True
    assert record["counts"] == {"train": {"images": 8, "without_face": 2, "without_foreground": None}}


def test_the_new_table_is_the_same_samples_to_the_program(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out")
    old, new = read(photos).train, read(tmp_path / "out").train
    assert new.sha == old.sha
    assert new.ids.tolist() == old.ids.tolist()
    assert new.paths is not None
    assert all(path.is_file() for path in new.paths)


@pytest.mark.parametrize(
    ("label", "task", "columns", "images"),
    [
        ("hat,beard", None, ("hat", "beard"), {"hat": 4, "beard": 3}),
        ("tags", "multilabel", ("beard", "hat"), {"beard": 4, "hat": 4}),
        ("age,weight", None, ("age", "weight"), {}),
        ("age", "regression", ("age",), {}),
    ],
)
def test_several_labels_and_numbers_have_a_column_each(
    photos: Path, tmp_path: Path, label: str, task: str | None, columns: tuple[str, ...], images: dict[str, int]
) -> None:
    rows = ["path,person,hat,beard,age,weight,tags"]
    for at in range(8):
        beard, tags = ("" if at == 4 else at // 4), ("beard", "hat", "-", "beard|hat")[at % 4]
        rows.append(f"img/{at}.png,p{at // 2},{at % 2},{beard},{20.5 + at},{60 - at},{tags}")
    (photos / "index.csv").write_text("\n".join(rows) + "\n")
    old = read_data(DataSpec(photos / "index.csv", label=label, task=task))
    made = prepare(old, tmp_path / "out", FACES, detector=Marked)
    again = read_data(DataSpec(made.table, label=",".join(made.labels), task=made.task)).train
    assert (made.labels, again.sha, again.task) == (columns, old.train.sha, old.train.task)
    record = made.to_dict()
    assert {name: one["images"] for name, one in record["columns"].items()} == images
    assert "classes" not in record


def test_every_fallback_says_what_becomes_of_a_miss(photos: Path, tmp_path: Path) -> None:
    crops = {}
    for fallback in ("center", "typical", "keep"):
        made = run(photos, tmp_path / fallback, replace(FACES, fallback=fallback))
        crops[fallback] = made.images[3].crop
        assert made.images[1].crop == (4, 15, 36, 47), "a found face is cut the same"
    assert crops["center"] == (0, 10, 60, 70)
    assert crops["keep"] == (0, 0, 60, 80)
    left, top, right, bottom = crops["typical"]
    assert (right - left, bottom - top, left) == (32, 32, 4)
    assert 15 <= top <= 21


def test_misses_of_one_class_give_a_warning_unless_typical(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    rows = ["path,label,person"]
    for at in range(40):
        picture(at % 7, face=at % 2 > 0).save(tmp_path / "img" / f"{at}.png")
        rows.append(f"img/{at}.png,{'none' if at % 2 else 'mask'},p{at // 4}")
    (tmp_path / "index.csv").write_text("\n".join(rows))
    assert "faces are missed in 100% of the images of class mask" in run(tmp_path, tmp_path / "out").warnings[0]
    assert run(tmp_path, tmp_path / "typical", replace(FACES, fallback="typical")).warnings == ()


@pytest.mark.parametrize("threads", [1, 3])
def test_the_bytes_depend_on_neither_threads_nor_place(photos: Path, tmp_path: Path, threads: int) -> None:
    run(photos, tmp_path / "a", threads=2)
    run(photos, tmp_path / "b", threads=threads)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_resume_makes_missing_images_with_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(photos, out)
    whole = contents(out)
    (out / "images" / "train" / "img" / "2.png").unlink()
    (out / "images" / "train" / "img" / "5.png").write_bytes(b"torn")
    lines = (out / JOURNAL).read_text().splitlines(keepends=True)
    (out / JOURNAL).write_text("".join(lines[1:-1]) + lines[-1][:20])
    (out / "index.csv").unlink()
    Marked.shown = 0
    made = run(photos, out, resume=True)
    assert Marked.shown == 1, "one file's boxes were lost"
    assert made.made_now == 3, "one was gone, one torn, one not in the journal"
    assert contents(out) == whole


def test_an_original_that_changed_is_made_again_on_a_resume(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out")
    picture(1, face=False).save(photos / "img" / "1.png")
    made = run(photos, tmp_path / "out", resume=True)
    assert made.made_now == 1
    assert made.images[1].missed
    run(photos, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_another_table_or_other_settings_are_no_resume(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(EnsembleError, match="prepared with other settings") as caught:
        run(photos, tmp_path / "out", replace(FACES, margin=0.5), resume=True)
    assert caught.value.details == ("crop margin: expected 0.5, found 0.3",)
    (photos / "index.csv").write_text(
        (photos / "index.csv").read_text().replace("img/7.png,cat,p3", "img/7.png,dog,p3")
    )
    with pytest.raises(EnsembleError, match="prepared with other settings") as caught:
        run(photos, tmp_path / "out", resume=True)
    assert caught.value.details[0].startswith("tables train: ")
    with pytest.raises(EnsembleError, match="holds a prepared set, which is complete"):
        run(photos, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    run(photos, tmp_path / "out", replace(FACES, margin=0.5), force=True)
    run(photos, tmp_path / "fresh", replace(FACES, margin=0.5))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_unusable_images_are_one_error_and_nothing_is_written(photos: Path, tmp_path: Path) -> None:
    (photos / "img" / "2.png").write_text("no image")
    whole = (photos / "img" / "5.png").read_bytes()
    (photos / "img" / "5.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EnsembleError, match="2 images cannot be used") as caught:
        run(photos, tmp_path / "out")
    assert [line.split(": ")[0] for line in caught.value.details] == ["index.csv row 4", "index.csv row 7"]
    assert not (tmp_path / "out").exists()


def test_files_of_equal_bytes_are_looked_at_once_and_made_twice(photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "img" / "0.png", photos / "img" / "2.png")
    Marked.shown = 0
    made = run(photos, tmp_path / "out")
    assert Marked.shown == 7
    assert (made.images[0].crop, made.made_now) == (made.images[2].crop, 8)


def test_a_second_process_in_the_same_folder_is_refused(photos: Path, tmp_path: Path) -> None:
    from folds.utils.locks import exclusive_lock

    (tmp_path / "out").mkdir()
    with exclusive_lock(tmp_path / "out" / LOCK, "test"), pytest.raises(EnsembleError, match="is in use by process"):
        run(photos, tmp_path / "out")


SCRIPT = """
import sys, time
from pathlib import Path
from folds.preparation.detectors import DetectorSettings
from folds.preparation.settings import Preparation
from folds.preparation.pipeline import prepare
from folds.data.readers import read_data
from folds.data.table import DataSpec
from tests.folds.preparation.test_pipeline import Marked

class Slow(Marked):
    def find(self, image):
        time.sleep(float(sys.argv[3]))
        return super().find(image)

data = read_data(DataSpec(Path(sys.argv[1])))
prepare(data, Path(sys.argv[2]), Preparation(detector=DetectorSettings()), detector=Slow, resume="resume" in sys.argv, threads=2)
"""


def test_killed_and_resumed_it_ends_with_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    out = tmp_path / "out"
    command = [sys.executable, "-c", SCRIPT, str(photos / "index.csv"), str(out), "0.4"]
    process = subprocess.Popen(command, env=environment, cwd=root)
    journal, end = out / JOURNAL, time.monotonic() + 60
    while time.monotonic() < end and (not journal.exists() or journal.read_bytes().count(b"\n") < 2):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = journal.read_bytes().count(b"\n")
    assert 2 <= done < 8, "it was killed among the faces"
    assert json.loads((out / RECORD).read_text())["complete"] is False
    Marked.shown = 0
    run(photos, out, resume=True)
    assert Marked.shown == 8 - done
    run(photos, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_rotated_and_grey_photographs_are_cut_upright(photos: Path, tmp_path: Path) -> None:
    upright = picture(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(photos / "img" / "1.png", exif=exif)
    Image.fromarray(np.full((50, 40), 7, np.uint8)).save(photos / "img" / "3.png")
    made = run(photos, tmp_path / "out")
    cut = Image.open(tmp_path / "out" / made.images[1].made)
    assert np.array_equal(np.asarray(cut), np.asarray(upright)[15:47, 4:36])
    assert not cut.getexif()
    assert Image.open(tmp_path / "out" / made.images[3].made).mode == "L"


def test_deep_images_are_windowed_and_that_is_said(photos: Path, tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 4095, 48, dtype=np.uint16).reshape(8, 6)).save(photos / "img" / "3.png")
    made = run(photos, tmp_path / "out", replace(FACES, window=(0.0, 4095.0)))
    assert any("16-bit grey: the values 0 to 4095 become 0 to 255" in note for note in made.notes)
    assert made.images[3].crop == (0, 1, 6, 7)
    assert np.asarray(Image.open(tmp_path / "out" / made.images[3].made)).max() == round(255 * 41 / 47)


def test_background_and_face_are_found_on_the_whole_original(photos: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "u2net.onnx")
    made = run(photos, tmp_path / "both", replace(FACES, background=model, fill="white"))
    alone = run(photos, tmp_path / "alone", Preparation(background=model, fill="white"))
    assert made.images[1].box == Box(10, 21, 20, 20, 0.75)
    whole = np.asarray(Image.open(tmp_path / "alone" / alone.images[1].made))
    cut = np.asarray(Image.open(tmp_path / "both" / made.images[1].made))
    assert whole.shape == (80, 60, 3)
    assert np.array_equal(cut, whole[15:47, 4:36])
    table = read_csv(tmp_path / "alone" / "index.csv").columns
    assert "face_found" not in table
    assert all(0 < float(share) < 1 for share in table["foreground_share"])


def test_prepared_set_can_be_prepared_again_with_new_columns(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "one")
    run(tmp_path / "one", tmp_path / "two", Preparation(background=write_model(tmp_path / "u2net.onnx")))
    first, second = (read_csv(tmp_path / name / "index.csv").columns for name in ("one", "two"))
    assert second["id"] == first["id"]
    assert second["face_box"] == first["face_box"], "what the first preparation found is kept"
    assert second["prepared_from"][0] == "../one/images/train/img/0.png"


def test_rows_marked_test_are_kept_apart_in_a_table_of_their_own(photos: Path, tmp_path: Path) -> None:
    lines = (photos / "index.csv").read_text().splitlines()
    marked = [f"{line},{'part' if at == 0 else 'test' if at > 6 else 'train'}" for at, line in enumerate(lines)]
    (photos / "index.csv").write_text("\n".join(marked))
    prepare(read_data(DataSpec(photos / "index.csv", split="part")), tmp_path / "out", FACES, detector=Marked)
    train, test = (read_csv(tmp_path / "out" / name).columns for name in ("index.csv", "test.csv"))
    assert (train["id"], test["id"]) == ([f"img/{at}.png" for at in range(6)], ["img/6.png", "img/7.png"])
    assert (test["label"], test["person"]) == (["dog", "cat"], ["p3", "p3"])
    assert test["path"] == ["images/test/img/6.png", "images/test/img/7.png"]


@pytest.mark.parametrize("line", ["0.5", '"half"', "[1]", "true", "1e999"])
def test_a_journal_that_was_tampered_with_is_worked_over_again(photos: Path, tmp_path: Path, line: str) -> None:
    settings = replace(FACES, background=write_model(tmp_path / "u2net.onnx"))
    run(photos, tmp_path / "out", settings)
    whole = contents(tmp_path / "out")
    journal = tmp_path / "out" / JOURNAL
    entries = [json.loads(text) for text in journal.read_text().splitlines()]
    value = json.loads(line)
    tampered = [
        {**entry, **({"boxes": [value]} if "boxes" in entry else {"foreground": value, "sha": value})}
        for entry in entries
    ]
    journal.write_text("".join(json.dumps(entry) + "\n" for entry in tampered))
    run(photos, tmp_path / "out", settings, resume=True)
    assert contents(tmp_path / "out") == whole


def test_class_folders_are_read(tmp_path: Path) -> None:
    for at in range(4):
        path = tmp_path / "data" / ("cat", "dog")[at % 2] / f"p{at}_1.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(at).save(path)
    data = read_data(DataSpec(tmp_path / "data", person_regex=r"([^/_]+)_"))
    prepare(data, tmp_path / "out", FACES, detector=Marked)
    table = read_csv(tmp_path / "out" / "index.csv").columns
    assert table["id"] == ["cat/p0_1.png", "cat/p2_1.png", "dog/p1_1.png", "dog/p3_1.png"]
    assert table["person"] == ["p0", "p2", "p1", "p3"]
    assert read(tmp_path / "out").train.sha == data.train.sha


@pytest.mark.parametrize("answers", [True, False])
def test_mask_layout_gives_a_training_and_a_test_table(tmp_path: Path, answers: bool) -> None:
    people = generate_people(tmp_path / "people", people=12, test_people=2, size=(48, 64), traps=True)
    if not answers:
        (people / "eval" / "answers.csv").unlink()
    data = read_data(DataSpec(people))
    made = prepare(data, tmp_path / "out", replace(FACES, fallback="keep"), detector=Marked)
    assert data.test is not None
    test, _ = read_test(tmp_path / "out" / "test.csv", classes=data.train.classes)
    assert test.ids.tolist() == data.test.ids.tolist()
    assert (test.labels is not None) is answers
    assert read(tmp_path / "out").train.ids.tolist() == data.train.ids.tolist()
    again = read_data(DataSpec(tmp_path / "out" / "index.csv", test=tmp_path / "out" / "test.csv"))
    assert again.test is not None
    assert (again.train.sha, again.test.sha) == (data.train.sha, data.test.sha)
    assert not any("declared" in text for text in made.warnings)


def test_class_without_images_gives_a_warning(tmp_path: Path) -> None:
    people = generate_people(tmp_path / "people", people=2, test_people=0, size=(48, 64))
    (people / "eval" / "info.csv").unlink()
    made = prepare(read_data(DataSpec(people)), tmp_path / "out", FACES, detector=Marked)
    assert "declared classes have no image" in made.warnings[0]


def test_the_real_detector_cuts_drawn_people_to_their_faces(tmp_path: Path) -> None:
    people = generate_people(tmp_path / "people", people=6, test_people=0, size=(96, 128))
    (people / "eval" / "info.csv").unlink()
    data = read_data(DataSpec(people))
    at = np.array([i for i in range(len(data.train)) if data.train.attributes["mask"][i] == "normal"])
    made = prepare(Dataset(data.train.take(at)), tmp_path / "out", replace(FACES, margin=0.0))
    found = [image for image in made.images if not image.missed]
    assert len(found) >= 5
    for image in found:
        left, top, right, bottom = image.crop
        assert 25 <= right - left == bottom - top <= 80
        assert abs((left + right) / 2 - 48) < 12
        assert 42 < (top + bottom) / 2 < 78


def test_misses_that_gather_in_a_class_are_warned_about() -> None:
    def image(label: str, found: bool) -> PreparedImage:
        box = Box(0, 0, 1, 1, 1.0) if found else None
        return PreparedImage("train", "x", label, Path("x"), "x", True, box, (0, 0, 1, 1), None)

    even = [image(label, at % 4 > 0) for label in ("mask", "none") for at in range(40)]
    assert uneven_misses(even) == []
    uneven = [image("mask", at % 2 > 0) for at in range(40)] + [image("none", True) for _ in range(40)]
    assert uneven_misses(uneven)[0].startswith(
        "faces are missed in 50% of the images of class mask and in 0% of class none"
    )
    assert uneven_misses([*even, *[image("few", False)] * 19]) == []
    labels = [image(("hat;cap", "?hat;cap", "-")[at % 3], at % 3 > 0 or at % 6 == 0) for at in range(120)]
    assert uneven_label_misses(labels, ["hat", "cap"])[0].startswith(
        "faces are missed in 50% of the images with the label hat and in 0% of those without it: "
    )
    assert uneven_label_misses(labels[:50], ["hat", "cap"]) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing to do"),
        ({"choose": "largst"}, "unknown choose 'largst'; did you mean largest"),
        ({"fallback": "crop"}, "unknown fallback 'crop'"),
        ({"fill": "gray"}, "unknown fill 'gray'; did you mean grey"),
        ({"margin": -0.1}, "margin must be from 0 to 5"),
        ({"margin": float("nan")}, "margin must be from 0 to 5"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message) -> None:
    with pytest.raises(UsageError, match=message):
        Preparation(**({"detector": DetectorSettings()} if settings else {}), **settings)


def test_grey_is_one_channel_and_decodes_to_the_same_pixels() -> None:
    import io

    grey = np.random.default_rng(0).integers(0, 256, (9, 7, 1), dtype=np.uint8).repeat(3, axis=2)
    for pixels, mode in ((grey, "L"), (grey + np.array([0, 1, 0], np.uint8), "RGB")):
        image = Image.open(io.BytesIO(encode(pixels)))
        assert image.mode == mode
        assert np.array_equal(np.asarray(image.convert("RGB")), pixels)
