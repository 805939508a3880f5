from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble.cli.commands import demo
from ensemble.tta import predict as view_predictions
from folds.data import sources
from folds.data.synthetic.people import generate_people
from folds.execution import local as manager
from tests.conftest import Called
from tests.folds.runs.test_execute import InProcess


def test_a_file_in_the_place_of_the_demo_s_folder_is_said(
    call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text("mine")
    called = call("demo")
    assert called.code == 1
    assert called.err.splitlines() == [
        "error: demo is a file, expected a folder",
        "hint: move it away: mv demo demo.old",
    ]


def test_only_people_with_several_labels_are_drawn(
    call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "QUICK_PEOPLE", 8)
    monkeypatch.setattr(demo, "QUICK_TEST_PEOPLE", 2)
    called = call("demo", "--quick", "--people", "drawn", "--missing", ".1")
    assert called.code == 0, called.err
    assert "48 samples of 8 people, 4 labels" in called.out
    assert "test: 12 samples" in called.out
    assert "--label hat,glasses,beard,scarf --group-within site" in called.err
    assert call("demo", "--missing", ".1").err.startswith("error: --missing is for --people")


def test_the_demo_runs_the_pipeline_once_and_then_only_prints_it(
    call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(manager, "Worker", InProcess)
    monkeypatch.setattr(demo, "FOLDS", 3)  # three show what five do
    monkeypatch.setattr(
        sources,
        "draw_built_in",
        lambda root: generate_people(root / sources.BUILT_IN, people=15, test_people=6, size=(48, 64)),
    )
    first = call("demo", "--epochs", "1", "--json")
    assert first.code == 0, first.err
    lines = json.loads(first.out)["lines"]
    assert [line["name"] for line in lines] == [
        "swin",
        "resnet18",
        "soft vote",
        "hard vote",
        "weighted vote 2:1",
        "swin + TTA",
        "resnet18 + TTA",
        "soft vote + TTA",
        "hard vote + TTA",
        "weighted vote 2:1 + TTA",
        "auto + TTA, nested",
    ]
    assert all(line[part]["low"] <= line[part]["high"] for line in lines for part in ("oof", "test"))
    page = (tmp_path / "demo/report.html").read_text()
    assert "Content-Security-Policy" in page
    assert "resnet18" in page
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo/checkpoints").rglob("*.pt")}
    assert len(trained) == 6
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        view_predictions, "predict_logits", lambda *arguments, **named: pytest.fail("views were predicted again")
    )
    again = call("demo", "--epochs", "1", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["lines"] == lines
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_quick_demo_takes_few_people_and_two_folds(
    call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(manager, "Worker", InProcess)
    monkeypatch.setattr(demo, "QUICK_PEOPLE", 12)
    monkeypatch.setattr(demo, "QUICK_TEST_PEOPLE", 6)
    # The test above walks these; `make package` walks all of it.
    monkeypatch.setattr(demo, "_blends", lambda root, files, added: [])
    monkeypatch.setattr(demo, "_views", lambda root, force: [])
    monkeypatch.setattr(demo, "_auto", lambda root, files: ([], "", ""))
    called = call("demo", "--quick", "--json")
    assert called.code == 0, called.err
    assert [line["name"] for line in json.loads(called.out)["lines"]] == ["swin", "resnet18"]
    assert [path.name for path in tmp_path.iterdir()] == ["demo-quick"]
    assert len(list(Path("demo-quick").glob("checkpoints/*/*.pt"))) == 4
    assert len(list(Path("demo-quick", sources.BUILT_IN, "train/images").iterdir())) == 12


def test_fewer_built_in_people_are_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generate_people(sources.BUILT_IN, people=2, test_people=1)
    before = {path: path.stat().st_mtime_ns for path in sources.BUILT_IN.rglob("*")}
    assert sources.find_data(None) == sources.BUILT_IN
    assert {path: path.stat().st_mtime_ns for path in sources.BUILT_IN.rglob("*")} == before


def test_a_demo_of_an_earlier_version_goes_on_with_its_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo._target(tmp_path, False) == "mask+gender+age"
    (tmp_path / "runs/swin").mkdir(parents=True)
    (tmp_path / "runs/swin/config.toml").write_text('target = "label"\n')
    assert demo._target(tmp_path, False) == "label"
    assert "was started with target=label" in capsys.readouterr().err
    assert demo._target(tmp_path, True) == "mask+gender+age"
