from __future__ import annotations

import pickle

import pytest

from folds.config.trust import code_in
from folds.errors import UsageError
from folds.metrics.classification import METRICS, built_in_metric, metric_forms, recorded_metric
from folds.metrics.custom import find_metric


def test_settings_make_another_metric_of_one_name() -> None:
    found = find_metric("f_beta: beta = 2.0")
    assert (found.name, found.title, found.family) == ("f_beta:beta=2", "F2", "f_beta")
    assert find_metric("f_beta:beta=1") is METRICS["f_beta"]
    assert built_in_metric("pauc:scaled=1:tpr=.9") is built_in_metric("pauc:tpr=0.9:scaled=1")
    assert pickle.loads(pickle.dumps(found)) is found


@pytest.mark.parametrize("form", metric_forms())
def test_every_metric_is_found_by_the_form_that_help_shows(form: str) -> None:
    assert find_metric(form) is METRICS[form.partition(":")[0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f_beta:betta=2", "setting of `metric=f_beta` 'betta'.*beta"),
        ("f_beta:2", "setting of `metric=f_beta`"),
        ("f_beta:beta=0", "beta must be above 0 to 100, found '0'"),
        ("f_beta:beta=two", "found 'two'"),
        ("f_beta:beta=1:beta=2", "beta is given twice"),
        ("top_k:k=1.5", "k must be a whole number from 1, found '1.5'"),
        ("sensitivity_at:specificity=95", "specificity must be from 0 to 1"),
        ("accuracy:k=3", "setting of `metric=accuracy` 'k'"),
        ("sensitivty_at:specificity=.9", "sensitivity_at"),
        ("avarage_precision", "average_precision"),
    ],
)
def test_wrong_settings_and_names_are_told(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        find_metric(text)
    whole = f"{error.value.message} {error.value.hint}"
    import re

    assert re.search(message, whole), whole


def test_a_file_may_name_built_in_metrics_only() -> None:
    assert recorded_metric("top_k:k=2") is built_in_metric("top_k:k=2")
    assert recorded_metric("f_beta:beta=-1") is recorded_metric("os:getpid") is recorded_metric(None) is None


def test_settings_of_a_metric_are_no_code() -> None:
    assert code_in({"metric": "f_beta:beta=2"}) == []
    assert code_in({"metric": "kappa:cost"}) == ["metric = kappa:cost"]
