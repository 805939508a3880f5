"""`ensemble folds check` on images, and the audit before a training, as they are typed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble.cli.terminal import console
from folds.auditing.checks import Finding, Occurrence
from folds.auditing.run import log_findings
from folds.data.readers import read_data
from folds.data.synthetic.people import generate_people
from folds.data.table import DataSpec
from tests.conftest import Called

Call = Callable[..., Called]
TINY = ["--arch", "test_resnet", "--k", "2", "--epochs", "1", "--img-size", "32", "--no-pretrained"]


@pytest.fixture(scope="module")
def _photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    drawn = read_data(DataSpec(generate_people(folder / "people", people=12, test_people=1, size=(72, 96)))).train
    assert drawn.paths is not None
    assert drawn.persons is not None
    lines = ["path,person,label"]
    for at in [i for i in range(len(drawn)) if i % 7 in (0, 6)]:
        with Image.open(drawn.paths[at]) as image:
            image.convert("RGB").save(folder / f"{at}.png")
        lines.append(f"{at}.png,p{at // 7},{'mask' if at % 7 == 0 else 'none'}")
    shutil.rmtree(folder / "people")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def here(_photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve people with two images each in data/, none of them a copy; the current folder is beside it."""
    shutil.copytree(_photographs, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "as_json", False)
    monkeypatch.setattr(console, "quiet", False)
    return tmp_path


def add_copy(folder: Path, of: str = "0.png", person: str = "stranger", altered: bool = True) -> None:
    with Image.open(folder / "data" / of) as image:
        if altered:
            image.save(folder / "data/copy.jpg", quality=60)
        else:
            shutil.copy(folder / "data" / of, folder / "data/copy.jpg")
    with open(folder / "data/index.csv", "a") as file:
        file.write(f"copy.jpg,{person},mask\n")


def test_clean_data_have_no_warnings_and_the_next_step_is_folds(here: Path, call: Call) -> None:
    called = call("folds", "check", "--strict")
    assert called.code == 0, called.err
    assert "24 images of 12 people" in called.out
    assert "warning" not in called.out
    assert called.err.splitlines()[-1] == "next: ensemble folds"


def test_copies_are_a_table_on_stdout_and_errors_under_strict(here: Path, call: Call) -> None:
    add_copy(here)
    assert call("folds", "--k", 2).code == 0
    called = call("folds", "check")
    assert called.code == 0
    assert "altered copies, different people warning 1 pair" in [
        " ".join(line.split()) for line in called.out.splitlines()
    ]
    assert "index.csv row 2: 0.png (person p0, mask, fold" in called.out
    assert "=  index.csv row 26: copy.jpg (person stranger, mask, fold" in called.out
    assert "folds.csv: no person is in two folds" in called.out, "folds.csv is taken where there is one"
    assert called.err.splitlines()[-1] == "next: ensemble kfold --folds folds.csv"
    strict = call("folds", "check", "folds.csv", "--data", "data", "--strict")
    assert strict.code == 1
    assert strict.out == called.out
    assert "error: 1 finding is an error under --strict" in strict.err
    assert "hint: correct the table, then: ensemble folds check folds.csv --data data --strict" in strict.err


def test_json_holds_every_row(here: Path, call: Call) -> None:
    add_copy(here, altered=False)
    record = json.loads(call("folds", "check", "--json").out)
    [found] = [finding for finding in record["findings"] if finding["severity"] == "warning"]
    assert (found["kind"], found["count"]) == ("identical images, different people", 1)
    assert [row["id"] for row in found["cases"][0]["rows"]] == ["0.png", "copy.jpg"]
    assert record["counts"] == {"error": 0, "warning": 1, "note": len(record["findings"]) - 1}
    assert (record["samples"], record["people"], record["folds"]) == (25, 13, None)


def test_no_images_looks_at_the_table_alone(here: Path, call: Call) -> None:
    add_copy(here)
    called = call("folds", "check", "--no-images", "--strict")
    assert called.code == 0
    assert not (here / ".ensemble").exists()


def test_images_that_are_all_absent_are_no_error_but_a_few_are(here: Path, call: Call) -> None:
    (here / "data/0.png").unlink()
    (here / "data/7.png").write_bytes((here / "data/7.png").read_bytes()[:500])
    add_copy(here, of="14.png")
    called = call("folds", "check")
    assert called.code == 1
    assert "error: 2 of 25 images of data/index.csv cannot be used: training will fail" in called.out
    assert "data/0.png does not exist" in called.out
    assert "14.png (person p2, mask)  =  index.csv row 26: copy.jpg" in called.out, (
        "the others are looked at all the same"
    )
    for path in [*(here / "data").glob("*.png"), *(here / "data").glob("*.jpg")]:
        path.unlink()
    called = call("folds", "check")
    assert called.code == 0
    assert "warning: none of the 25 images of data/index.csv was found" in called.out
    assert "image files: none was found" in called.out
    assert call("folds", "check", "--strict").code == 1
    called = call("folds", "check", "--no-images")
    assert "image files: not looked at" in called.out
    assert "none of the" not in called.out


def test_further_images_are_looked_for_among_those_of_training(here: Path, call: Call) -> None:
    (here / "more").mkdir()
    with Image.open(here / "data/0.png") as image:
        image.save(here / "more/a.jpg", quality=60)
    called = call("folds", "check", "--test", "more")
    assert "1 test image is an altered copy of a training image: test scores will be optimistic" in called.out


def test_the_sheet_is_a_png_and_is_not_written_over(here: Path, call: Call) -> None:
    add_copy(here)
    called = call("folds", "check", "--sheet", "pairs.png")
    assert called.code == 0, called.err
    assert "pairs.png: 1 case" in called.err
    with Image.open(here / "pairs.png") as sheet:
        assert np.asarray(sheet).std() > 10
    assert call("folds", "check", "--sheet", "pairs.png").code == 1
    assert call("folds", "check", "--sheet", "pairs.png", "--force").code == 0
    assert call("folds", "check", "--sheet", "pairs.jpg").code == 2


def test_16_bit_images_are_checked_in_the_window_of_the_training(here: Path, call: Call) -> None:
    for path in sorted((here / "data").glob("*.png")):
        with Image.open(path) as image:
            dark = np.asarray(image.convert("L")).astype(np.uint16)  # 0 to 255 of 65535
        Image.fromarray(dark).save(path)
    shutil.copy(here / "data/0.png", here / "data/copy.png")
    with Image.open(here / "data/copy.png") as image:
        Image.fromarray((np.asarray(image) * 0.9).astype(np.uint16)).save(here / "data/copy.png")
    with open(here / "data/index.csv", "a") as file:
        file.write("copy.png,stranger,mask\n")
    dark = call("folds", "check")
    assert dark.code == 0, dark.err
    assert "25 images are almost uniform and cannot be compared" in dark.out
    assert "copies" not in dark.out
    seen = call("folds", "check", "--window", "0,255", "--sheet", "pairs.png", "--k", "2")
    assert "almost uniform" not in seen.out
    assert "1 pair of images is altered copies of each other, of different people" in seen.out
    assert "the values 0 to 255 become 0 to 255" in seen.err
    assert seen.err.splitlines()[-1] == "next: ensemble folds"
    with Image.open(here / "pairs.png") as sheet:
        assert len(np.unique(np.asarray(sheet.convert("L"))[20:-80, 10:80])) > 20, (
            "on the sheet they are as dark as in the file"
        )
    # As for kfold, it can stand in ensemble.toml.
    (here / "ensemble.toml").write_text("window = '0,255'\n")
    assert call("folds", "check", "--k", "2").out == seen.out
    assert call("folds", "--k", "2").code == 0
    assert (
        call("folds", "check", "folds.csv", "--data", "data", "--window", "0,255")
        .err.splitlines()[-1]
        .endswith("--data data --window 0,255")
    )


@pytest.mark.parametrize(
    "words",
    [
        ["chek"],
        ["check", "a.csv", "b.csv"],
        ["--sheet", "a.png"],
        ["--window", "0,9"],
        ["check", "--no-images", "--sheet", "a.png"],
        ["check", "--no-images", "--window", "0,9"],
        ["check", "folds.csv", "--window", "0,9"],
        ["check", "--window", "9,0"],
    ],
)
def test_wrong_usage_leaves_with_2_and_a_hint(here: Path, call: Call, words: list[str]) -> None:
    called = call("folds", *words)
    assert called.code == 2
    assert "hint: " in called.err
    assert not (here / "folds.csv").exists()


def test_kfold_strict_trains_nothing_where_there_is_a_copy(here: Path, call: Call) -> None:
    add_copy(here)
    called = call("kfold", *TINY, "--strict")
    assert called.code == 1
    assert "error: 1 warning about the data or the folds, an error with --strict: nothing was trained" in called.err
    assert "copy.jpg (person stranger, mask, fold" in called.err
    assert not list(here.glob("runs/*/config.toml"))


def test_kfold_strict_counts_the_warnings_about_classes(here: Path, call: Call) -> None:
    with open(here / "data/index.csv", "a") as file:
        file.write("0.png,p0,mask\n".replace("0.png", "1.png"))
    shutil.copy(here / "data/0.png", here / "data/1.png")
    (here / "data/index.csv").write_text(
        (here / "data/index.csv").read_text().replace("1.png,p0,mask", "1.png,p0,rare")
    )
    called = call("kfold", *TINY, "--strict", "--dry-run")
    assert called.code == 1
    assert "class rare" in called.err


def test_without_strict_a_training_is_told_and_goes_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finding = Finding("kind", "warning", 1, "pair", "1 pair is wrong", (Occurrence(detail="this one"),))
    with console.printing_logs():
        log_findings([finding])
    assert capsys.readouterr().err == "warning: 1 pair is wrong\n  this one\n"


def test_the_drawn_people_are_no_copies_of_each_other(grid_output: Called) -> None:
    assert "copies" not in grid_output.err
    assert "identical" not in grid_output.err
