"""The suggested next command can be typed, and repeats the options that were given."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ensemble.cli.commands.kfold import kfold
from ensemble.cli.terminal.parser import build_parser, typed_options
from tests.conftest import Called


def test_options_are_found_as_they_were_typed() -> None:
    words = ["--data", "a b.csv", "-k5", "--test-labels", "x", "--no-repair", "--arch=swin", "--person", "-1"]
    words += ["--", "--seed", "3"]
    found = typed_options(build_parser("kfold", kfold), words)
    assert found == [
        ("data", ["--data", "a b.csv"]),
        ("k", ["-k5"]),
        ("test_labels", ["--test-labels"]),
        ("repair", ["--no-repair"]),
        ("arch", ["--arch=swin"]),
        ("person", ["--person", "-1"]),
    ]


def suggested(done: Called) -> list[str]:
    """Return the words of the next command, which its parser accepts."""
    assert done.code == 0, done.err
    line = done.err.rstrip().splitlines()[-1]
    assert line.startswith("next: ensemble "), done.err
    name, *words = shlex.split(line.removeprefix("next: ensemble "))
    module = importlib.import_module(f"ensemble.cli.commands.{name}")
    build_parser(name, getattr(module, name)).make_context(name, list(words), resilient_parsing=True)
    return [name, *words]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"i{i},{'ab'[i % 2]},p{i // 2}\n" for i in range(24))
    Path("train.csv").write_text(f"image_id,grade,who\n{rows}")
    Path("test.csv").write_text("image_id\nt1\nt2\n")
    return tmp_path


OPTIONS = ["--data", "train.csv", "--label", "grade", "--person", "who"]


def test_folds_and_its_check_repeat_what_names_the_data(table: Path, call: Callable[..., Called]) -> None:
    assert suggested(call("folds", *OPTIONS, "--k", "2", "-o", "f.csv")) == ["kfold", "--folds", "f.csv", *OPTIONS]
    test = ["--test", "test.csv", "--test-images", "images", "--no-test-labels"]
    found = suggested(call("folds", "check", "f.csv", *OPTIONS, *test, "--no-images"))
    assert found == ["kfold", "--folds", "f.csv", *OPTIONS, *test]
    assert suggested(call("folds", "check", *OPTIONS, *test, "--no-images")) == ["folds", *OPTIONS]


def test_a_blend_of_other_programs_goes_on_with_these_files(table: Path, call: Callable[..., Called]) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        values = rng.dirichlet([1, 1], 24) + np.eye(2)[np.arange(24) % 2]
        np.save(f"{name}.npy", values / 2)
    words = ["a.npy", "b.npy", "--labels", "train.csv", "--label", "grade", "--person", "who", "--metric", "accuracy"]
    first = suggested(call("blend", *words, "--method", "soft"))
    assert first == ["blend", "./*.npy", *words[2:], "--method", "auto"], "no decisions of out-of-fold samples"
    done = call("blend", *words, "--csv", "answers.csv")
    assert "warning: answers.csv has out-of-fold samples, not test samples" in done.err
    assert "the decisions for the 24 out-of-fold samples" in done.err
    second = suggested(done)
    assert second == ["blend", "./*.npy", *words[2:], "--method", "auto"]
    assert suggested(call("blend", *words, "--method", "stacking", "--csv", "answers2.csv")) == ["runs"]


def test_a_blend_of_test_predictions_proposes_a_csv(table: Path, call: Callable[..., Called]) -> None:
    for name, value in (("sub1", 0.3), ("sub2", 0.4)):
        Path(f"{name}.csv").write_text(f"id,target\nt1,{value}\nt2,{value + 0.4:.1f}\n")
    found = suggested(call("blend", "sub1.csv", "sub2.csv"))
    assert found == ["blend", "sub1.csv", "sub2.csv", "--csv", "answers.csv"]
    assert "not test samples" not in call("blend", "sub1.csv", "sub2.csv", "--csv", "answers.csv").err


def test_predict_repeats_its_options(grid: Path, call: Callable[..., Called]) -> None:
    images = sorted(Path("people/eval/images").rglob("*.jpg"))[:4]
    Path("t.csv").write_text("image_id\n" + "".join(f"{one.stem}\n" for one in images))
    options = ["--images", str(images[0].parent), "--person-regex", "^(.{3})", "--metric", "accuracy"]
    found = suggested(call("predict", "test_resnet", "t.csv", *options, "-o", "x.npy"))
    assert found == ["predict", "test_resnet", "t.csv", *options, "-o", "x.npy", "--csv", "submission.csv", "--force"]
    assert call(*found).code == 0
    assert len(Path("submission.csv").read_text().splitlines()) == 5
