from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from folds.errors import EnsembleError
from folds.execution import local as manager
from folds.experiments.ledger import read_ledger
from folds.experiments.record import entry_from_files, trained_folds
from folds.predictions.files import read_sidecar
from tests.conftest import GRID, Called
from tests.folds.runs.test_execute import InProcess

Call = Callable[..., Called]
LEDGER = Path("runs/ledger.jsonl")
QUICK = [
    "kfold",
    "--data",
    "people",
    "--arch",
    "test_resnet",
    "--k",
    "3",
    "--epochs",
    "1",
    "--img-size",
    "32",
    "--no-pretrained",
]


def latest(run: str) -> dict[str, Any]:
    return read_ledger(LEDGER).latest()[run]


@pytest.fixture
def trainer(grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`ensemble kfold` in the folder of the grid, without processes."""
    monkeypatch.setattr(manager, "Worker", InProcess)
    return call


def test_every_run_has_a_line_with_the_scores_of_its_predictions(grid: Path) -> None:
    ledger = read_ledger(LEDGER)
    assert [entry["run"] for entry in ledger.entries] == ["test_resnet", "test_vit"]
    entry = ledger.entries[0]
    sidecar = read_sidecar(Path("runs/test_resnet.oof.npy"))
    assert sidecar is not None
    labels, values = sidecar.rows.labels, np.load("runs/test_resnet.oof.npy")
    predicted = np.array(sidecar.classes)[values.argmax(1)]
    expected = {
        "macro_f1": f1_score(labels, predicted, labels=list(sidecar.classes), average="macro", zero_division=0),
        "accuracy": accuracy_score(labels, predicted),
    }
    order = sorted(sidecar.classes)  # as scikit-learn wants the columns
    expected["log_loss"] = log_loss(labels, values[:, [sidecar.classes.index(name) for name in order]], labels=order)
    for name, score in expected.items():
        found = entry["oof"][name]
        assert found["score"] == pytest.approx(score, abs=1e-6)
        assert found["low"] < found["score"] < found["high"]
    assert (entry["oof"]["rows"], entry["oof"]["people"], entry["test"]["rows"], entry["test"]["people"]) == (
        210,
        30,
        42,
        6,
    )


def test_a_line_says_what_the_run_was_made_with_and_what_it_cost(grid: Path) -> None:
    entry = read_ledger(LEDGER).entries[1]
    assert entry["arch"] == "test_vit"
    assert (entry["k"], sorted(entry["folds"])) == (3, ["0", "1", "2"])
    assert (
        entry["settings"] | {"epochs": 1, "img_size": "32", "arch": "test_vit", "loss": "ce", "amp": "off"}
        == entry["settings"]
    )
    assert {"epochs", "img_size", "k", "pretrained", "lr"} <= set(entry["changed"])
    assert not {"loss", "seed", "weight_decay"} & set(entry["changed"])
    assert (entry["cost"]["images"], entry["cost"]["devices"], entry["cost"]["threads"]) == (448, ["cpu"], 1)
    assert entry["cost"]["parameters"] > 10_000
    assert entry["cost"]["jobs"] >= 1
    done = [json.loads(Path(f"runs/test_vit/fold{fold}/done.json").read_text()) for fold in range(3)]
    assert entry["cost"]["seconds"] == pytest.approx(sum(one["seconds"] for one in done), abs=0.06)
    assert entry["folds"] == {str(one["fold"]): one["checkpoint_sha"] for one in done}
    assert {"torch", "timm", "ensemble"} <= set(entry["versions"])
    assert (entry["hypothesis"], entry["baseline"], entry["optimistic"], entry["data"]) == (None, None, False, "people")


def test_a_line_names_no_machine_and_nobody(grid: Path) -> None:
    import getpass
    import platform

    text = LEDGER.read_text()
    assert str(Path.cwd()) not in text
    assert str(Path.home()) not in text
    words = {word for entry in read_ledger(LEDGER).entries for word in json.dumps(entry).replace('"', " ").split()}
    assert not {getpass.getuser(), platform.node()} & words


def test_a_resume_appends_a_line_only_after_a_crash(trainer: Call) -> None:
    before = LEDGER.read_bytes()
    trainer(*GRID, "--resume")
    assert LEDGER.read_bytes() == before
    whole = [dict(entry) for entry in read_ledger(LEDGER).entries]
    LEDGER.write_bytes(before[:-30])  # the last line is torn
    assert trainer(*GRID, "--resume").code == 0
    ledger = read_ledger(LEDGER)
    assert ledger.damaged == (2,)
    assert [entry["run"] for entry in ledger.entries] == ["test_resnet", "test_vit"]
    assert {**ledger.entries[1], "time": "", "git": None} == {**whole[1], "time": "", "git": None}


def test_a_run_that_gets_further_folds_gets_a_further_line(trainer: Call) -> None:
    assert trainer(*QUICK, "--name", "part", "--fold", "1", "--hypothesis", "one fold tells all").code == 0
    assert sorted(latest("part")["folds"]) == ["1"]
    assert latest("part")["oof"]["rows"] < 210
    assert trainer(*QUICK, "--name", "part", "--fold", "0,2").code == 0
    assert sorted(latest("part")["folds"]) == ["0", "1", "2"]
    assert latest("part")["oof"]["rows"] == 210
    assert (latest("part")["hypothesis"], latest("part")["stated_after"]) == ("one fold tells all", 0)
    assert [entry["run"] for entry in read_ledger(LEDGER).entries].count("part") == 2


def test_a_hypothesis_stated_after_the_result_is_recorded_so(trainer: Call) -> None:
    called = trainer(*QUICK, "--resume", "--hypothesis", "I knew it")
    assert called.code == 0, called.err
    assert (latest("test_resnet")["hypothesis"], latest("test_resnet")["stated_after"]) == ("I knew it", 3)
    trainer(*QUICK, "--resume", "--hypothesis", "I knew it")
    assert [entry["run"] for entry in read_ledger(LEDGER).entries].count("test_resnet") == 2


def test_a_baseline_is_compared_and_stays_that_of_the_run(trainer: Call) -> None:
    words = [*QUICK, "--name", "bright", "--augment", "none", "--lr", "3e-3"]
    assert trainer(*words, "--fold", "0", "--baseline", "test_resnet").code == 0
    assert trainer(*words, "--fold", "1,2").code == 0
    found = latest("bright")["baseline"]
    assert found["run"] == "test_resnet"
    assert found["varied"] == {"augment": ["standard", "none"], "lr": [0.001, 0.003]}
    assert {"epochs", "data", "folds", "seed"} <= set(found["controlled"])
    assert set(found["differences"]) == {"macro_f1", "accuracy", "log_loss"}
    accuracy = found["differences"]["accuracy"]
    assert accuracy["difference"] == pytest.approx(
        latest("bright")["oof"]["accuracy"]["score"] - latest("test_resnet")["oof"]["accuracy"]["score"]
    )
    assert accuracy["low"] <= accuracy["difference"] <= accuracy["high"]
    assert found["folds"] == trained_folds("test_resnet")


def test_a_baseline_that_was_trained_again_makes_a_further_line(trainer: Call) -> None:
    words = [*QUICK, "--name", "bright", "--augment", "none"]
    assert trainer(*words, "--baseline", "test_resnet").code == 0
    assert trainer(*QUICK, "--lr", "3e-3", "--force").code == 0
    assert trainer(*words, "--resume").code == 0
    lines = [entry for entry in read_ledger(LEDGER).entries if entry["run"] == "bright"]
    assert len(lines) == 2
    assert lines[0]["baseline"]["differences"] != lines[1]["baseline"]["differences"]
    assert lines[1]["baseline"]["folds"] == trained_folds("test_resnet")


def test_settings_are_compared_where_scores_cannot_be(trainer: Call) -> None:
    assert trainer(*QUICK, "--name", "bright", "--augment", "none", "--baseline", "test_resnet").code == 0
    Path("runs/test_resnet.oof.npy").unlink()
    Path("runs/test_resnet.oof.json").unlink()
    found = entry_from_files("bright")
    assert found is not None
    assert found["baseline"]["differences"] is None
    assert found["baseline"]["varied"] == {"augment": ["standard", "none"]}
    assert "no fold is trained yet" in found["baseline"]["notes"][0]


def test_a_ledger_that_cannot_be_written_costs_no_training(trainer: Call) -> None:
    LEDGER.unlink()
    LEDGER.mkdir()
    called = trainer(*QUICK, "--name", "other")
    assert called.code == 0
    assert "warning: other is not in the ledger: cannot read runs/ledger.jsonl" in called.err
    assert "other" in called.out


def test_a_run_without_a_line_is_told_from_its_files(grid: Path) -> None:
    entry = dict(read_ledger(LEDGER).entries[0])
    found = entry_from_files("test_resnet")
    assert found is not None
    of_the_command = {"time", "git", "cost", "schema", "kind"}
    assert {key: value for key, value in entry.items() if key not in of_the_command} == {
        k: v for k, v in found.items() if k not in of_the_command
    }
    assert entry["cost"]["seconds"] == found["cost"]["seconds"]
    assert entry_from_files("nowhere") is None
    shutil.rmtree("runs/test_resnet/fold0")
    Path("runs/begun").mkdir()
    Path("runs/begun/config.toml").touch()
    assert entry_from_files("begun") is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda: Path("runs/test_resnet/fold0/done.json").write_text("{}"),
            "done.json is damaged: 'checkpoint_sha' is missing",
        ),
        (
            lambda: Path("runs/test_resnet/experiment.json").write_text('{"hypothesis": 3}'),
            "'hypothesis' is 3, expected text",
        ),
        (lambda: Path("runs/test_resnet.oof.json").unlink(), "the predictions of test_resnet cannot be scored"),
        (lambda: Path("runs/test_resnet/config.toml").write_text("="), "config.toml cannot be read"),
    ],
)
def test_damaged_files_of_a_run_are_one_clear_error(grid: Path, damage: Callable[[], object], said: str) -> None:
    damage()
    with pytest.raises(EnsembleError) as raised:
        entry_from_files("test_resnet")
    assert said in raised.value.message
    assert raised.value.hint
