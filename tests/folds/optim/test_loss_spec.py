from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folds.errors import UsageError
from folds.optim.loss_spec import LOSSES, WEIGHTS, Term, parse_loss


def test_name_alone_has_defaults_and_the_smoothing_of_the_recipe() -> None:
    assert parse_loss("ce", 0.1).terms == (Term("ce", smoothing=0.1),)
    assert parse_loss("wce", 0.1).terms == (Term("wce", smoothing=0.1, weights="inverse", beta=0.999),)
    assert parse_loss("focal").terms == (Term("focal", gamma=2.0, beta=0.999),)
    assert parse_loss("ldam").terms == (Term("ldam", weights="effective", beta=0.999, drw=0.6, margin=0.5),)
    assert parse_loss("bce").terms == (Term("bce", beta=0.999),)


def test_f1_has_no_smoothing() -> None:
    assert parse_loss("f1", 0.1).terms == (Term("f1"),)


def test_terms_have_weights_and_own_smoothing_takes_precedence() -> None:
    first, second = parse_loss(" .5*ce:smoothing=.3 + 2 * focal : gamma=1 ", 0.1).terms
    assert first == Term("ce", factor=0.5, smoothing=0.3)
    assert second == Term("focal", factor=2.0, gamma=1.0, smoothing=0.1, beta=0.999)


def test_every_setting_reaches_its_term() -> None:
    (term,) = parse_loss("ldam:margin=.7:s=30:weights=effective:beta=.99:drw=.4:smoothing=.2").terms
    assert term == Term("ldam", margin=0.7, s=30.0, weights="effective", beta=0.99, drw=0.4, smoothing=0.2)


@pytest.mark.parametrize(
    ("expression", "needs"),
    [
        ("ce", False),
        ("focal+f1", False),
        ("bce", False),
        ("wce", True),
        ("ce+ldam:weights=none", True),
        ("focal:weights=effective", True),
    ],
)
def test_expression_knows_whether_it_needs_class_counts(expression: str, needs: bool) -> None:
    assert parse_loss(expression).needs_counts == needs


def test_an_unknown_loss_is_wrong_usage_that_lists_the_known() -> None:
    with pytest.raises(UsageError, match="unknown loss 'cee'; did you mean ce") as error:
        parse_loss("f1+cee")
    assert error.value.hint == f"known: {', '.join(LOSSES)}"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("focal:gama=2", "unknown key of loss=focal 'gama'; did you mean gamma"),
        ("focal:weights=inverted", "unknown weights of loss 'inverted'; did you mean inverse"),
        ("f1:smoothing=.1", "unknown key of loss=f1 'smoothing'"),
        ("ce:weights=inverse", "unknown key of loss=ce 'weights'"),
        ("", "expected the name of a loss, found ''"),
        ("focal+", "expected the name of a loss, found ''"),
        (".5*", r"expected the name of a loss, found '.5\*'"),
        ("0*ce", "the weight of ce must be a number above 0, found '0'"),
        ("x*ce", "the weight of ce must be a number above 0, found 'x'"),
        ("*ce", "the weight of ce must be a number above 0, found ''"),
        ("inf*ce", "the weight of ce must be a number above 0, found 'inf'"),
        ("focal:gamma=-1", "gamma of focal must be from 0 to 100, found '-1'"),
        ("focal:gamma", "gamma of focal must be from 0 to 100, found ''"),
        ("focal:gamma=nan", "gamma of focal must be from 0 to 100, found 'nan'"),
        ("ce:smoothing=1", "smoothing of ce must be from 0 to below 1, found '1'"),
        ("ldam:s=0", "s of ldam must be above 0, up to 1000, found '0'"),
        ("ldam:margin=-.5", "margin of ldam must be from 0 to 1000"),
        ("ldam:drw=1.5", r"drw of ldam must be from 0 \(from the start\) to 1 \(never\)"),
        ("wce:weights=effective:beta=1", "beta of wce must be from 0 to below 1"),
        ("focal:gamma=1:gamma=2", "gamma of focal is given twice"),
        ("wce:beta=.99", "beta of wce needs weights=effective, found weights=inverse"),
        ("focal:drw=.5", "drw of focal needs class weights, found weights=none"),
        ("ldam:weights=none:drw=.5", "drw of ldam needs class weights, found weights=none"),
    ],
)
def test_what_cannot_be_is_refused_and_said(expression: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_loss(expression)


@given(st.text(st.sampled_from("cefocalw1:=+*.- smoothing"), max_size=20))
def test_any_text_is_either_understood_or_wrong_usage(text: str) -> None:
    with suppress(UsageError):
        assert parse_loss(text).terms


@pytest.mark.parametrize("hinted", ["wce:beta=.9", "focal:drw=.5"])
def test_what_a_hint_proposes_is_understood(hinted: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_loss(hinted)
    assert parse_loss(str(error.value.hint)).terms


def test_every_kind_of_weights_can_be_asked_for() -> None:
    assert [parse_loss(f"wce:weights={weights}").terms[0].weights for weights in WEIGHTS] == list(WEIGHTS)


def test_reading_an_expression_needs_no_torch() -> None:
    code = "import sys, folds.optim.loss_spec; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
