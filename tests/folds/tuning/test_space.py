from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folds.errors import EnsembleError
from folds.tuning.space import Parameter, TuneOptions, read_options, read_space, sample_settings

HERE = Path("space.toml")
SPACE = (
    Parameter("lr", low=1e-5, high=1e-1, log=True),
    Parameter("epochs", low=2, high=5, integer=True),
    Parameter("batch_size", (8, 16, 32)),
)


def test_lists_and_ranges_have_the_type_of_their_setting() -> None:
    table = {
        "lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "epochs": {"low": 2, "high": 5},
        "batch-size": [8, 16],
        "arch": ["swin", "resnet18"],
    }
    lr, epochs, batch, arch = read_space(HERE, table)
    assert (lr.log, lr.integer, epochs.log, epochs.integer) == (True, False, False, True)
    assert (batch.key, batch.choices, arch.choices) == ("batch_size", (8, 16), ("swin", "resnet18"))
    assert read_space(HERE, {"mixup": {"low": 0, "high": 1}})[0].integer is False
    assert read_space(HERE, {"weight_decay": {"low": 0, "high": 3, "int": True}})[0].integer is True


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "the table [space] is missing"),
        (3, "'space' must be a table, found 3"),
        ({"lrr": [1, 2]}, "unknown setting 'lrr'; did you mean lr"),
        ({"k": [3, 5]}, "'k' determines the data, the folds or the seed"),
        ({"seed": [0, 1]}, "'seed' determines"),
        ({"lr": 1e-3}, "expected a list of values, or a range"),
        ({"lr": [1e-3]}, "expected two values or more"),
        ({"lr": [1e-3, 1e-3]}, "found 0.001 twice"),
        ({"loss": {"low": 1, "high": 2}}, "loss is not a number"),
        ({"lr": {"low": 1e-4, "hihg": 1e-2}}, "unknown key 'hihg' of a range; did you mean high"),
        ({"lr": {"low": 1e-4}}, "high must be a number, found None"),
        ({"lr": {"low": True, "high": 2}}, "low must be a number, found True"),
        ({"lr": {"low": 1e-2, "high": 1e-4}}, "low must be below high, found 0.01 and 0.0001"),
        ({"lr": {"low": 0, "high": 1, "log": True}}, "must be above 0, found 0"),
        ({"lr": {"low": 0.1, "high": 1, "log": "yes"}}, "log must be true or false"),
        ({"epochs": {"low": 1.5, "high": 3}}, "low must be a whole number, found 1.5"),
        ({"epochs": {"low": 1, "high": 3, "int": False}}, "is a whole number, found int = false"),
    ],
)
def test_what_is_wrong_in_a_space_is_said_with_its_place(table: Any, message: str) -> None:
    with pytest.raises(EnsembleError) as error:
        read_space(HERE, table)
    assert message in str(error.value)
    assert "space.toml" in str(error.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"trails": 3}, "unknown key 'trails'; did you mean trials"),
        ({"trials": 0}, "trials: expected a whole number from 1 to 2,000, found 0"),
        ({"trials": True}, "found True"),
        ({"folds": 0}, "expected a list of folds"),
        ({"folds": []}, "expected a list of folds"),
        ({"folds": [-1]}, "expected a list of folds"),
        ({"metric": "macrof1"}, "within, found 'macrof1'; did you mean macro_f1"),
        ({"reduction": 1}, "expected a number above 1, found 1"),
        ({"gpus": 1.5}, "expected a fraction of one GPU, or a whole number"),
        ({"seed": -1}, "expected a whole number from 0"),
    ],
)
def test_what_is_wrong_in_the_options_is_said(table: dict[str, Any], message: str) -> None:
    with pytest.raises(EnsembleError) as error:
        read_options(HERE, table)
    assert message in str(error.value)


def test_the_flag_for_the_number_of_trials_comes_first() -> None:
    assert read_options(HERE, {"trials": 7, "folds": [2, 0, 2]}, trials=3) == TuneOptions(trials=3, folds=(0, 2))
    with pytest.raises(EnsembleError, match=r"^trials: expected a whole number from 1"):
        read_options(HERE, {}, trials=0)


def test_a_trial_is_drawn_from_its_number_alone() -> None:
    few, many = sample_settings(SPACE, TuneOptions(trials=5)), sample_settings(SPACE, TuneOptions(trials=30))
    assert many[:5] == few
    assert sample_settings(SPACE, TuneOptions(trials=5, seed=1)) != few
    # A further setting does not change what is drawn for the others.
    more = sample_settings((*SPACE, Parameter("mixup", (0.0, 0.2))), TuneOptions(trials=5))
    assert [{key: value for key, value in one.items() if key != "mixup"} for one in more] == few
    assert all(one not in many[:i] for i, one in enumerate(many))


def test_a_space_that_is_smaller_than_the_trials_is_tried_whole() -> None:
    small = (Parameter("batch_size", (8, 16, 32)), Parameter("loss", ("ce", "focal")))
    drawn = sample_settings(small, TuneOptions(trials=20))
    assert sorted((one["batch_size"], one["loss"]) for one in drawn) == [
        (b, loss) for b in (8, 16, 32) for loss in ("ce", "focal")
    ]
    assert sample_settings(small, TuneOptions(trials=4)) == drawn[:4]
    # Three digits of a narrow range are few numbers.
    assert len(sample_settings((Parameter("lr", low=0.1, high=0.102),), TuneOptions(trials=20))) == 3


def test_ranges_are_drawn_evenly_on_their_scale_with_both_ends() -> None:
    drawn = sample_settings(SPACE[:1], TuneOptions(trials=400))
    decades = np.histogram([math.log10(one["lr"]) for one in drawn], bins=4, range=(-5, -1))[0]
    assert 60 < decades.min() <= decades.max() < 140
    shares = np.linspace(0, 1, 1000, endpoint=False)
    for axis in (
        Parameter("epochs", low=2, high=5, integer=True),
        Parameter("epochs", low=2, high=16, integer=True, log=True),
    ):
        values = [axis.at(share) for share in shares]
        assert (min(values), max(values), {type(value) for value in values}) == (axis.low, axis.high, {int})
    assert all(1e-5 <= SPACE[0].at(share) <= 1e-1 for share in shares)
    assert len({SPACE[2].at(share) for share in shares}) == 3
