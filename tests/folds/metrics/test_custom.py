from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from folds.errors import EnsembleError, UsageError
from folds.metrics.classification import METRICS
from folds.metrics.custom import find_metric, load_metric

SCORES = """
import numpy as np

def right(labels, probabilities):
    return np.mean(probabilities.argmax(1) == labels)

def cost(labels, probabilities):
    probabilities[:] = 0  # what it does to them stays with it
    return float((labels == 1).sum())
cost.greater_is_better = False

def odd(labels, probabilities): return 1.0
odd.greater_is_better = "no"
def one(labels): return 1.0
def text(labels, probabilities): return "good"
def undefined(labels, probabilities): return float("nan")
def fails(labels, probabilities): return 1 / 0
class Score: pass
number = 3
"""
LABELS, PROBABILITIES = np.array([0, 1, 1]), np.array([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("their_scores.py").write_text(SCORES)
    yield
    sys.modules.pop("their_scores", None)


def test_a_function_of_the_folder_is_a_metric() -> None:
    found = find_metric("their_scores:right")
    assert (found.name, found.title, found.greater_is_better) == ("their_scores:right", "right", True)
    assert found(LABELS, PROBABILITIES) == pytest.approx(2 / 3)
    assert len(found.sha) == 64
    before = PROBABILITIES.copy()
    cost = find_metric("their_scores:cost")
    assert (cost(LABELS, PROBABILITIES), cost.greater_is_better) == (2.0, False)
    np.testing.assert_array_equal(PROBABILITIES, before)
    assert sys.path[0] != str(Path.cwd())


def test_a_name_without_a_colon_is_one_of_ours() -> None:
    assert find_metric("macro_f1") is METRICS["macro_f1"]
    with pytest.raises(UsageError, match="unknown metric 'acuracy'; did you mean accuracy"):
        find_metric("acuracy")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("their_scores:odd", "greater_is_better is 'no', expected True or False"),
        ("their_scores:one", r"takes \(labels\), expected \(labels, probabilities\)"),
        ("their_scores:Score", "is a class, expected a function"),
        ("their_scores:number", "is a int, expected a function"),
        ("their_scores:rihgt", "has no 'rihgt'; did you mean right"),
        ("no_scores:right", "there is no module no_scores"),
        ("their_scores:", "expected MODULE:OBJECT"),
    ],
)
def test_what_is_no_metric_is_refused_and_said_why(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"metric={name}.*{said}"):
        load_metric(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("text", "returned 'good' on 3 rows of 2 classes"),
        ("undefined", "returned nan on 3 rows of 2 classes"),
        ("fails", "failed on 3 rows of 2 classes"),
    ],
)
def test_what_it_cannot_score_is_an_error_that_names_it(name: str, said: str) -> None:
    with pytest.raises(EnsembleError, match=f"metric=their_scores:{name} {said}"):
        load_metric(f"their_scores:{name}")(LABELS, PROBABILITIES)


def test_a_failure_on_a_subset_names_the_subset() -> None:
    with Path("their_scores.py").open("a") as file:
        file.write(
            "\ndef halves(labels, probabilities): return np.min([np.nan if not np.sum(labels == one) else one for one in (0, 1)])\n"
        )
    metric = load_metric("their_scores:halves")
    assert metric(LABELS, PROBABILITIES) == 0
    with pytest.raises(EnsembleError, match="returned nan on 2 rows of 2 classes") as failed:
        metric(LABELS[1:], PROBABILITIES[1:])
    assert "subsets of the people are scored" in str(failed.value.hint)
