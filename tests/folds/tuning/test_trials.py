from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from folds.config.command_settings import Settings
from folds.config.files import load_settings
from folds.config.recipe import Recipe
from folds.errors import EnsembleError
from folds.tuning.space import TuneOptions
from folds.tuning.trials import Trial, best_of, read_trial, sort_trials, write_best, write_table, write_trial


def trial(number: int, score: float | None, state: str = "finished", **more: Any) -> Trial:
    values = {"folds": {} if score is None else {0: score}, "epochs": 3, "of": 3, "seconds": 1.25} | more
    return Trial(number, {"lr": 10.0**-number, "epochs": 9}, state, score, **values)


TRIALS = [
    trial(0, 0.5),
    trial(1, 0.9, "stopped", epochs=1),
    trial(2, None, "failed", reason="the loss is nan"),
    trial(3, 0.7),
    trial(4, 0.7),
]


def test_finished_trials_come_first_and_the_best_is_one_of_them() -> None:
    assert [one.number for one in sort_trials(TRIALS, TuneOptions())] == [3, 4, 0, 1, 2]
    assert [one.number for one in sort_trials(TRIALS, TuneOptions(metric="log_loss"))] == [0, 3, 4, 1, 2]
    assert best_of(TRIALS, TuneOptions()) == TRIALS[3]
    assert best_of(TRIALS[1:3], TuneOptions()) is None


def test_the_table_holds_every_trial(tmp_path: Path) -> None:
    with open(write_table(tmp_path, TRIALS, TuneOptions()), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["t003", "t004", "t000", "t001", "t002"]
    assert rows[3] | {"seconds": ""} == {
        **{
            "trial": "t001",
            "lr": "0.1",
            "epochs": "9",
            "macro_f1": "0.9",
            "trained": "1",
            "of": "3",
            "state": "stopped",
            "seconds": "",
            "reason": "",
        }
    }
    assert (rows[4]["macro_f1"], rows[4]["reason"]) == ("", "the loss is nan")
    assert [one["trial"] for one in json.loads((tmp_path / "trials.json").read_text())] == [
        row["trial"] for row in rows
    ]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_trial(tmp_path) is None
    for one in TRIALS:
        write_trial(tmp_path, one)
        assert read_trial(tmp_path) == one


@pytest.mark.parametrize(
    "change",
    [
        {"score": "high"},
        {"score": None},
        {"state": "done"},
        {"folds": {"a": 1}},
        {"folds": [1]},
        {"epochs": -1},
        {"more": 1},
        {"settings": 3},
    ],
)
def test_a_damaged_record_is_an_error_that_names_it(tmp_path: Path, change: dict[str, Any]) -> None:
    write_trial(tmp_path, TRIALS[0])
    path = tmp_path / "trial.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(EnsembleError, match=r"trial\.json is damaged"):
        read_trial(tmp_path)


def test_best_toml_is_a_file_for_kfold_and_names_its_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings, recipe = (
        Settings(arch=("swin",), k=4, name="mine"),
        Recipe(lr=1e-3, epochs=7, schedule_args={"cycle": 4}, schedule="cyclic"),
    )
    path = write_best(tmp_path, "mine-best", TRIALS[3], settings, recipe, "macro_f1", 4)
    assert "optimistic" in path.read_text().splitlines()[1]
    assert "resolved" not in tomllib.loads(path.read_text())
    again = load_settings({}, path)
    assert (again[0].name, again[0].k, again[0].arch) == ("mine-best", 4, ("swin",))
    assert again[1] == recipe
