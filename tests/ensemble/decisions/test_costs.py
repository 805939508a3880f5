"""Costs of decisions: CSV, TOML, mappings, what is wrong with them, and the check of the calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble.decisions.costs import calibration_warning, read_costs
from ensemble.decisions.rows import LabeledRows
from folds.errors import EnsembleError
from tests.ensemble.decisions.decision_worlds import CLASSES

EXPECTED = [[0.0, 1.0], [10.0, 0.0]]


def test_the_forms_of_a_cost_table_are_equal(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("class,well,sick\nsick,10,0\nwell,0,1\n")
    (tmp_path / "c.toml").write_text("[well]\nsick = 1\n[sick]\nwell = 10\n")
    forms = [tmp_path / "c.csv", tmp_path / "c.toml", {"well": {"sick": 1}, "sick": {"well": 10, "sick": 0.0}}]
    assert [read_costs(form, CLASSES).tolist() for form in forms] == [EXPECTED] * 3


def test_no_answer_can_have_a_cost() -> None:
    found = read_costs({"well": {"sick": 1, "abstain": 0.5}, "sick": {"well": 10, "abstain": 1}}, CLASSES)
    assert found.tolist() == [[0, 1, 0.5], [10, 0, 1]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("class,well,sick\nwell,0,1\n", "the cost of deciding 'well' for 'sick' is missing"),
        ("class,well,ill\nwell,0,1\nsick,1,0\n", "'ill' is not a class"),
        ("class,well,sick\nwell,0,x\nsick,1,0\n", "expected a number"),
        ("class,well,sick\nwell,0,-1\nsick,1,0\n", "expected 0 to"),
        ("class,well,sick\nwell,0,nan\nsick,1,0\n", "expected"),
        ("class,well,sick\nwell,0,0\nsick,0,0\n", "every decision costs 0"),
        ("class,well,sick\nwell,0,1\nwell,0,1\n", "repeats a class"),
        ("", "is empty"),
    ],
)
def test_a_wrong_table_is_an_error_that_names_the_cell(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(EnsembleError, match=reason):
        read_costs(path, CLASSES)


def test_a_missing_file_and_wrong_toml_are_errors(tmp_path: Path) -> None:
    with pytest.raises(EnsembleError, match="cannot be read"):
        read_costs(tmp_path / "none.csv", CLASSES)
    (tmp_path / "c.toml").write_text("well = 3")
    with pytest.raises(EnsembleError, match="expected true class"):
        read_costs(tmp_path / "c.toml", CLASSES)
    (tmp_path / "d.toml").write_text("well = [")
    with pytest.raises(EnsembleError, match="cannot be read"):
        read_costs(tmp_path / "d.toml", CLASSES)


def _labeled(probabilities: np.ndarray, labels: np.ndarray) -> LabeledRows:
    n = len(labels)
    return LabeledRows(probabilities, labels, np.arange(n), np.arange(n) % 5, np.arange(n).astype(str), CLASSES)


def test_calibrated_probabilities_give_no_warning_and_sharpened_ones_do() -> None:
    random = np.random.default_rng(0)
    p = random.random(1500)
    labels = (random.random(1500) < p).astype(np.int64)
    assert calibration_warning(_labeled(np.stack([1 - p, p], axis=1), labels)) == ""
    sharp = p**3 / (p**3 + (1 - p) ** 3)
    assert "overconfident" in calibration_warning(_labeled(np.stack([1 - sharp, sharp], axis=1), labels))


def test_probabilities_shifted_towards_a_class_give_a_warning() -> None:
    random = np.random.default_rng(1)
    p = random.choice([0.3, 0.7], 1500)
    labels = (random.random(1500) < p).astype(np.int64)
    shifted = p + 0.15  # as overconfident for one class as underconfident for the other
    assert "the mean probability of" in calibration_warning(_labeled(np.stack([1 - shifted, shifted], axis=1), labels))
