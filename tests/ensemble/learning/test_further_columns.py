"""Columns of the samples beside the runs: what they become, that they are nested, and what is refused."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from ensemble.learning.combination import Combination, combine
from ensemble.learning.further_columns import (
    Column,
    ColumnModel,
    Encoding,
    encode,
    fit_encodings,
    parse_columns,
    read_columns,
)
from ensemble.learning.nested import nested_cv
from ensemble.learning.registry import FITTERS
from ensemble.learning.stack import Stack
from folds.errors import EnsembleError, UsageError
from folds.metrics.classification import METRICS
from tests.ensemble.stacks import drawn

LOSS = METRICS["log_loss"]
AGE = np.array(["30", "", "50", " 40 ", "nan"])
SITE = np.array(["B", "A", "", "B", "A"])


def informed(seed: int = 0) -> Stack:
    """Runs that know little, and columns that know the class of half of the samples."""
    stack, random = drawn(seed, runs=2, n=240, classes=2), np.random.default_rng(seed)
    known = random.random(240) < 0.5
    age = np.where(known, np.round(50 + 20 * stack.labels + random.normal(size=240), 1).astype(str), "")
    site = random.choice(["A", "B", "C"], 240)
    return replace(stack, extra=(Column("age", True, age), Column("site", False, site)))


def test_columns_become_numbers() -> None:
    columns = read_columns([("age", ""), ("site", "")], {"age": AGE, "site": SITE}, np.arange(5))
    assert [one.is_number for one in columns] == [True, False]
    encodings = fit_encodings(columns)
    found = encode(encodings, {"age": AGE, "site": SITE}, 5)
    z = 10 / np.std([30, 50, 40])
    assert found[:, :2] == pytest.approx(np.array([[-z, 0], [0, 1], [z, 0], [0, 0], [0, 1]]))
    assert found[:, 2:].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    new = encode(encodings, {"age": np.array(["60"]), "site": np.array(["Z"])}, 1)
    assert new[0].tolist() == pytest.approx([2 * z, 0, 0, 0, 1])  # an unknown category is missing


def test_a_text_in_a_column_of_numbers_is_refused() -> None:
    encodings = fit_encodings([Column("age", True, AGE)])
    with pytest.raises(EnsembleError, match="cell 'old', expected a number"):
        encode(encodings, {"age": np.array(["3", "old"])}, 2)


def test_columns_beside_the_runs_help_and_are_nested() -> None:
    stack, part = informed(), 3
    made = nested_cv(stack, FITTERS["stacking"], LOSS)
    assert LOSS(stack.labels, made.out_of_sample) < LOSS(
        stack.labels, nested_cv(replace(stack, extra=()), FITTERS["stacking"], LOSS).out_of_sample
    )
    rest, inside = (np.flatnonzero(at) for at in (stack.outer_folds != part, stack.outer_folds == part))
    alone = FITTERS["stacking"].fit(stack.take(rest), LOSS, 0)
    assert (combine(stack.take(inside), alone) == made.out_of_sample[inside]).all()
    # What the columns of the part itself are must not change the mean and deviation of the others.
    age = stack.extra[0].texts.astype("U9")
    age[inside] = "99999"
    other = replace(stack, extra=(Column("age", True, age), stack.extra[1]))
    assert FITTERS["stacking"].fit(other.take(rest), LOSS, 0).as_record() == alone.as_record()


def test_without_columns_the_fit_is_the_same() -> None:
    stack = drawn(1, runs=2, n=150, classes=3)
    made = FITTERS["stacking"].fit(stack, LOSS, 0)
    assert made.extra is None
    assert "extra" not in made.as_record()
    assert "pooling" not in made.as_record()


def test_a_record_gives_the_same_predictions() -> None:
    stack = informed()
    made = FITTERS["stacking-bias"].fit(stack, METRICS["macro_f1"], 0)
    record = made.as_record()
    read = Combination.from_record(record, 2, "blend.toml")
    assert combine(stack, read) == pytest.approx(combine(stack, made), abs=1e-6)
    assert read.as_record() == record
    for name, value in (("deviations", [0.0, 0.0]), ("coefficients", [[1.0]]), ("names", ["age", "age"])):
        with pytest.raises(EnsembleError, match=r"blend\.toml: columns"):
            ColumnModel.from_record(record["extra"] | {name: value}, 2, "blend.toml")


def test_new_samples_without_the_column_are_refused() -> None:
    made = FITTERS["stacking"].fit(informed(), LOSS, 0)
    assert made.extra is not None
    with pytest.raises(EnsembleError, match="uses the column 'age' of the table, and the new samples have no such"):
        made.extra.logits({"site": SITE}, 5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("agee", "did you mean age"), ("same", "has one value"), ("id", "different texts"), ("site:number", "found 'A'")],
)
def test_a_column_that_cannot_be_used_is_refused(text: str, expected: str) -> None:
    ids = np.array([f"p{i}" for i in range(60)])
    attributes = {"age": np.resize(AGE, 60), "site": np.resize(SITE, 60), "same": np.resize(["x"], 60), "id": ids}
    with pytest.raises(UsageError) as error:
        read_columns(parse_columns([text]), attributes, np.arange(60))
    assert expected in f"{error.value.message} {error.value.hint}"


def test_names_are_given_once() -> None:
    assert parse_columns(["age", "site:category", "a:b"]) == (("age", ""), ("site", "category"), ("a:b", ""))
    with pytest.raises(UsageError, match="different names"):
        parse_columns(["age", "age:number"])


def test_numbers_are_compared_as_numbers_in_any_spelling(caplog: pytest.LogCaptureFixture) -> None:
    columns = read_columns([("dose", "")], {"dose": np.array(["0.", "10.", "0.", "NA"])}, np.arange(4))
    assert not columns[0].is_number
    encodings = fit_encodings(columns)
    assert encodings[0].categories == ("0", "10")
    new = {"dose": np.array(["0", "10.0", "1e1", "7", "", "x"])}
    assert encode(encodings, new, 6).argmax(axis=1).tolist() == [0, 1, 1, 2, 2, 2]
    older = Encoding("dose", categories=("0.", "10."))  # as an earlier version wrote them
    assert older.encode(np.array(["0", "10"])).argmax(axis=1).tolist() == [0, 1]
    texts = Encoding("code", categories=("01", "1", "A"))  # codes, not numbers
    assert texts.encode(np.array(["1", "01", "1.0"])).argmax(axis=1).tolist() == [1, 0, 3]
    model = ColumnModel(encodings, np.zeros((3, 2)))
    with caplog.at_level(logging.WARNING):
        model.warn_of_unknown(new, "test")
    assert "column 'dose': 2 of 6 test cells are texts unknown to the fit" in caplog.text


def test_a_kind_that_was_asked_for_is_used() -> None:
    column = read_columns([("dose", "number")], {"dose": np.array(["0", "10", "0"])}, np.arange(3))[0]
    assert column.is_number
    assert fit_encodings([column])[0].encode(np.array(["5"]))[0, 0] == pytest.approx((5 - 10 / 3) / np.std([0, 10, 0]))
    many = read_columns([("site", "category")], {"site": np.array(["3.0", "10", "3", "7"])}, np.arange(4))[0]
    assert many.texts.tolist() == ["3", "10", "3", "7"]


def test_what_is_written_of_large_numbers_is_what_is_applied() -> None:
    stack, random = informed(), np.random.default_rng(1)
    times = (1_700_000_000 + stack.labels + random.normal(size=len(stack))).astype(str)
    made = FITTERS["stacking"].fit(replace(stack, extra=(Column("time", True, times),)), LOSS, 0)
    assert made.extra is not None
    read = Combination.from_record(made.as_record(), 2, "blend.toml").extra
    assert read is not None
    assert read.encodings == made.extra.encodings
    assert read.logits({"time": times}, len(times)) == pytest.approx(
        made.extra.logits({"time": times}, len(times)), rel=1e-6, abs=1e-8
    )


def test_logits_stay_finite_for_any_deviation() -> None:
    record = {"names": ["age"], "means": [0.0], "deviations": [1e-308], "categories": [[]]}
    model = ColumnModel.from_record(record | {"coefficients": [[1e6, -1e6], [0.0, 0.0]]}, 2, "blend.toml")
    assert model.logits({"age": np.array(["50", "-1e300", ""])}, 3).tolist() == [[1e12, -1e12], [-1e12, 1e12], [0, 0]]
