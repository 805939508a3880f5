from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from folds.errors import UsageError
from folds.experiments.ledger import append, read_ledger
from folds.experiments.listing import (
    BASELINE_CHANGED,
    CHANGED,
    NOT_IN_LEDGER,
    REMOVED,
    RunListing,
    list_runs,
    with_metric,
)
from folds.experiments.run_columns import COLUMNS, SCORE, USUAL, column, filter_runs, sort_runs
from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction
from folds.utils.files import write_atomic, write_json
from tests.conftest import Logged
from tests.folds.ledger_lines import against, line, scores

LEDGER = Path("runs/ledger.jsonl")


def listed() -> dict[str, RunListing]:
    return {one.run: one for one in list_runs(read_ledger(LEDGER))}


def names(runs: Sequence[RunListing]) -> list[str]:
    return [one.run for one in runs]


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunListing]:
    """Three runs that are in the ledger alone."""
    monkeypatch.chdir(tmp_path)
    common = {"arch": "swin", "epochs": 15, "lr": 0.001, "loss": "ce"}
    append(LEDGER, "run", line("swin-ce", settings=common, oof=scores(0.5), cost=line()["cost"] | {"seconds": 300}))
    later = {"time": "2026-01-03T00:00:00+00:00", "oof": scores(0.7), "hypothesis": "Focal | is better"}
    append(
        LEDGER,
        "run",
        line(
            "swin-focal",
            settings=common | {"loss": "focal"},
            baseline=against("swin-ce", loss=["ce", "focal"]),
            **later,
        ),
    )
    append(
        LEDGER,
        "run",
        line(
            "resnet18",
            settings=common | {"arch": "resnet18", "lr": 3e-4},
            arch="resnet18",
            oof=scores(0.6),
            test=scores(0.4),
        ),
    )
    append(LEDGER, "note", {"run": "swin-ce", "time": "now", "text": "one"})
    append(LEDGER, "note", {"run": "swin-ce", "time": "now", "text": "two"})
    return list(listed().values())


def test_runs_are_sorted_by_what_is_asked(three: list[RunListing]) -> None:
    assert names(sort_runs(three, "score")) == ["swin-focal", "resnet18", "swin-ce"]
    assert names(sort_runs(three, "date"))[-1] == "swin-focal"
    assert names(sort_runs(three, "name")) == ["resnet18", "swin-ce", "swin-focal"]
    assert names(sort_runs(three, "time"))[-1] == "swin-ce"
    with pytest.raises(UsageError, match=r"unknown sort 'scroe'; did you mean score\?"):
        sort_runs(three, "scroe")


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (["loss=focal"], ["swin-focal"]),
        (["loss!=focal"], ["swin-ce", "resnet18"]),
        (["lr=3e-4"], ["resnet18"]),
        (["lr=0.00030"], ["resnet18"]),
        (["arch~SWIN"], ["swin-ce", "swin-focal"]),
        (["arch=swin"], ["swin-ce", "swin-focal"]),
        (["run~focal", "arch=swin"], ["swin-focal"]),
        (["run~focal", "arch=resnet18"], []),
        (["baseline=swin-ce"], ["swin-focal"]),
        (["hypothesis~better"], ["swin-focal"]),
        (["weight-decay=.05"], ["swin-ce", "swin-focal", "resnet18"]),  # not in the line: the default
        (["notes~two"], ["swin-ce"]),
        (["init_run="], ["swin-ce", "swin-focal", "resnet18"]),
    ],
)
def test_filters_are_settings_or_columns_and_all_must_hold(
    three: list[RunListing], filters: list[str], kept: list[str]
) -> None:
    assert names(filter_runs(three, filters)) == kept


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("loss", "expected KEY=VALUE, KEY!=VALUE or KEY~PART"),
        ("=ce", "expected KEY=VALUE"),
        ("los=ce", "unknown column 'los'; did you mean loss"),
    ],
)
def test_a_filter_that_is_none_is_refused(three: list[RunListing], text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        filter_runs(three, [text])
    assert said in raised.value.message


def test_columns_show_what_the_line_says(three: list[RunListing]) -> None:
    focal, base = three[1], three[0]
    shown = {name: text(focal) for name, (_, text) in COLUMNS.items()}
    assert shown == {
        "run": "swin-focal",
        "arch": "swin_tiny_patch4_window7_224",
        "date": "2026-01-03 00:00",
        "folds": "2/2",
        "macro_f1": "0.700",
        "interval": "[0.600, 0.800]",
        "accuracy": "0.600",
        "log_loss": "1.200",
        "test": "",
        "test_interval": "",
        "baseline": "swin-ce",
        "varied": "loss: ce → focal",
        "difference": "+0.100",
        "paired": "[+0.050, +0.150]",
        "distinguishable": "yes",
        "hypothesis": "Focal | is better",
        "notes": "",
        "time": "2 min",
        "images": "4,200",
        "parameters": "27.0 M",
        "devices": "cpu",
        "jobs": "2",
        "commit": "abcdef0123+",
        "marks": REMOVED,
    }
    assert column("notes", three)[1](base) == "one; two"
    assert column("test", three)[1](three[2]) == "0.400"
    assert column("lr", three)[1](three[2]) == "0.0003"
    assert [column("difference", three)[1](base), column("weight-decay", three)[1](base)] == ["", "0.05"]
    assert set(USUAL) - {SCORE} <= set(COLUMNS)
    with pytest.raises(UsageError, match="unknown column 'hypotesis'; did you mean hypothesis"):
        column("hypotesis", three)


def test_significance_is_corrected_for_the_number_of_comparisons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    append(LEDGER, "run", line("a", baseline=against("base", chance=0.02)))
    assert listed()["a"].significance == "yes"
    append(LEDGER, "run", line("b", baseline=against("base", chance=0.001)))
    append(LEDGER, "run", line("c", baseline=against("base", difference=0.01)))
    append(LEDGER, "run", line("d", baseline=against("other", chance=0.02)))
    assert {name: one.significance for name, one in listed().items()} == {
        "a": "no: not significant among 3 comparisons",
        "b": "yes",
        "c": "no",
        "d": "yes",
    }


def test_what_has_changed_since_a_line_was_written_is_marked(grid: Path) -> None:
    assert {name: one.flags for name, one in listed().items()} == {"test_resnet": (), "test_vit": ()}
    done = Path("runs/test_resnet/fold0/done.json")
    record = json.loads(done.read_text())
    done.write_text(json.dumps(record | {"checkpoint_sha": "another"}))
    entry = dict(read_ledger(LEDGER).latest()["test_vit"])
    append(LEDGER, "run", entry | {"optimistic": True, "baseline": against("test_resnet") | {"folds": entry["folds"]}})
    assert {name: one.flags for name, one in listed().items()} == {
        "test_resnet": (CHANGED,),
        "test_vit": ("optimistic", BASELINE_CHANGED),
    }
    done.write_text("{")
    assert listed()["test_resnet"].flags == ("files damaged",)
    shutil.rmtree("runs/test_vit")
    assert listed()["test_vit"].flags == (REMOVED,)


def test_a_run_without_a_line_is_listed_from_its_files(grid: Path, logged: Logged) -> None:
    expected = listed()["test_vit"].entry["oof"]
    LEDGER.unlink()
    Path("runs/test_resnet/fold1/done.json").write_text("{}")
    Path("runs/begun").mkdir()
    Path("runs/begun/config.toml").touch()
    found = listed()
    assert names(list(found.values())) == ["test_vit"]
    assert found["test_vit"].flags == (NOT_IN_LEDGER,)
    assert found["test_vit"].entry["oof"] == expected
    assert len(logged.warnings) == 1
    assert logged.warnings[0].startswith("test_resnet: ")
    assert all(text(found["test_vit"]) is not None for _, text in COLUMNS.values())


def test_unfinished_runs_and_blends_are_listed_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomic(Path("runs/half/config.toml"), 'arch = ["swin"]\nk = 3\n')
    score = {"macro_f1": {"score": 0.8, "low": 0.7, "high": 0.9}, "accuracy": 0.75, "rows": 50, "people": 9}
    record = {"method": "soft", "runs": [{"run": "a"}, {"run": "b"}], "blend": {"oof": {"score": score}}}
    write_json(Path("runs/blends/soft-1/blend.json"), record)
    write_json(Path("runs/blends/damaged/blend.json"), [])
    append(LEDGER, "run", line("swin", oof=scores(0.5)))
    assert list(listed()) == ["swin"]
    found = {one.run: one for one in list_runs(read_ledger(LEDGER), others=True)}
    assert list(found) == ["swin", "half", "blends/damaged", "blends/soft-1"]
    assert (found["half"].flags, COLUMNS["folds"][1](found["half"])) == (("unfinished",), "0/3")
    assert [
        COLUMNS[name][1](found["blends/soft-1"]) for name in ("macro_f1", "interval", "accuracy", "time", "folds")
    ] == [
        "0.800",
        "[0.700, 0.900]",
        "0.750",
        "",
        "",
    ]
    assert names(sort_runs(list(found.values()), "score"))[:2] == ["blends/soft-1", "swin"]


def test_another_metric_is_computed_from_the_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = SampleRows(np.array(list("abcd")), np.array(["cat", "cat", "dog", "dog"]), np.array(list("pqrs")))
    meaning = PredictionMetadata(kind="probability", split="oof", classes=("cat", "dog"), rows=rows)
    right = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.1, 0.9]])
    write_prediction(Path("runs/a.oof.npy"), right, meaning)
    append(LEDGER, "run", line("a"))
    append(LEDGER, "run", line("gone"))
    a, gone = with_metric(list(listed().values()), "brier")
    assert a.score is not None
    assert a.score["score"] == pytest.approx(2 * (0.01 + 0.36 + 0.04 + 0.01) / 4)
    assert gone.score is None
    title, cell = column("score", [a, gone])
    assert (title, cell(a), cell(gone)) == ("OOF Brier score (lower is better)", "0.210", "")
    with pytest.raises(UsageError, match="unknown metric 'brie'; did you mean brier"):
        with_metric([a], "brie")
