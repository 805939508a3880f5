"""`ensemble mistakes` and `ensemble labels`: tables, CSV files, and what they refuse."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import folds
from tests.conftest import Called


def rows_of(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_prints_its_worst_mistakes(grid: Path, call: Callable[..., Called]) -> None:
    done = call("mistakes", "test_vit", "-n", 3, "--people", 2, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    oof = folds.load_run("test_vit").oof
    assert oof.labels is not None
    predicted = np.array(oof.classes)[oof.probabilities.argmax(1)]
    wrong = predicted != oof.labels
    assert (found["images"], found["wrong"]) == (len(oof), int(wrong.sum()))
    worst = oof.ids[wrong][np.argsort(-oof.probabilities[wrong].max(1), kind="stable")[0]]
    assert found["mistakes"][0]["id"] == worst
    assert len(found["mistakes"]) == 3
    assert len(found["worst_people"]) == 2


def test_several_runs_say_what_each_said_in_a_csv(grid: Path, call: Callable[..., Called]) -> None:
    done = call("mistakes", "test_vit", "test_resnet", "-n", 2, "-o", "mistakes.csv")
    assert done.code == 0, done.err
    assert "soft vote of test_vit, test_resnet" in done.out
    rows = rows_of("mistakes.csv")
    vit = folds.load_run("test_vit").oof
    at = vit.ids.tolist().index(rows[0]["id"])
    assert rows[0]["test_vit: predicted"] == vit.classes[vit.probabilities[at].argmax()]
    assert rows[0]["test_vit: confidence"] == f"{vit.probabilities[at].max():.4f}"
    assert [float(row["confidence"]) for row in rows] == sorted(
        (float(row["confidence"]) for row in rows), reverse=True
    )
    again = call("mistakes", "test_vit", "test_resnet", "-o", "mistakes.csv")
    assert again.code == 1
    assert "--force" in again.err


def test_a_blend_is_judged_with_the_runs_it_was_made_of(grid: Path, call: Callable[..., Called]) -> None:
    assert call("blend", "test_vit", "test_resnet", "-o", "both").code == 0
    found = json.loads(call("mistakes", "both", "-n", 1, "--json").out)
    assert found["name"] == "both"
    assert set(found["mistakes"][0]["members"]) == {"test_vit", "test_resnet"}
    soft = json.loads(call("mistakes", "test_vit", "test_resnet", "-n", 1, "--json").out)
    assert soft["wrong"] == found["wrong"]


def test_labels_in_doubt_are_written_to_fill_in_and_trained_with(grid: Path, call: Callable[..., Called]) -> None:
    pytest.importorskip("cleanlab")
    done = call("labels", "test_vit", "test_resnet", "-o", "labels.csv")
    assert done.code == 0, done.err
    rows = rows_of("labels.csv")
    assert rows
    assert {row["new_label"] + row["decision"] for row in rows} == {""}
    assert done.err.rstrip().endswith("ensemble kfold --relabel labels.csv")
    people: dict[str, set[str]] = {}
    table = folds.read_table("people").train
    assert table.labels is not None
    for label, person in zip(table.labels.tolist(), table.persons.tolist(), strict=True):
        people.setdefault(label, set()).add(person)
    rows = [row for row in rows if len(people[row["label"]]) > 2]  # classes that no fold loses
    rows[0]["new_label"], rows[0]["decision"] = rows[0]["suggested"], "relabel"
    rows[1]["decision"] = "drop"
    kept = rows[:2]
    with Path("labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)
    trained = call(
        *("kfold", "--data", "people", "--arch", "test_vit", "--k", 3, "--epochs", 1, "--img-size", 32),
        *("--no-pretrained", "--name", "clean", "--relabel", "labels.csv", "--drop", "labels.csv"),
    )
    assert trained.code == 0, trained.err
    assert "training labels: 1 image relabeled, 1 image not learned" in trained.err
    assert "clean: scored on the 28 people whose training labels were not changed, without 2 people" in trained.err
    changed = rows_of("runs/clean/changed_labels.csv")
    assert {(row["id"], row["change"]) for row in changed} == {(rows[0]["id"], "relabel"), (rows[1]["id"], "drop")}
    compared = call("runs", "diff", "test_vit", "clean")
    assert compared.code == 0, compared.err
    assert "people whose labels were not changed" in compared.err
    listed = {one["run"]: one for one in json.loads(call("runs", "--json").out)["runs"]}
    assert (listed["clean"]["oof"]["people"], listed["clean"]["oof"]["changed_people"]) == (28, 2)
    assert "scored without 2 people of changed labels" in listed["clean"]["marks"]
    assert listed["test_vit"]["oof"]["people"] == 30
    ledger = Path("runs/ledger.jsonl")  # as an earlier version wrote it, with the scores of all people
    earlier = [json.loads(line) for line in ledger.read_text().splitlines()]
    for entry in earlier:
        entry.get("oof", {}).pop("changed_people", None)
        entry.get("oof", {}).pop("left_out", None)
    ledger.write_text("".join(json.dumps(entry) + "\n" for entry in earlier))
    again = {one["run"]: one["oof"] for one in json.loads(call("runs", "--json").out)["runs"]}
    assert again == {name: one["oof"] for name, one in listed.items()}


def test_test_labels_are_not_doubted(grid: Path, call: Callable[..., Called]) -> None:
    files = [str(path) for path in sorted(Path("runs").glob("test_vit.fold*.test.npy"))]
    truth = folds.read_predictions(files[0])
    labels = ["id,label", *(f"{name},{truth.classes[0]}" for name in truth.ids.tolist())]
    Path("truth.csv").write_text("\n".join(labels) + "\n")
    assert call("mistakes", *files, "--labels", "truth.csv").code == 0
    done = call("labels", *files)
    assert done.code == 1
    assert "labels" in done.err


def test_what_does_not_exist_is_refused(grid: Path, call: Callable[..., Called]) -> None:
    done = call("mistakes", "test_vi")
    assert done.code == 1
    assert "test_vi" in done.err
