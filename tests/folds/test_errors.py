from __future__ import annotations

import pickle

import pytest

from folds.errors import (
    EnsembleError,
    FoldsFailed,
    Interrupted,
    UsageError,
    close_matches,
    combine_errors,
    did_you_mean,
    no_column,
    respelled,
    unknown_name,
    with_flags,
    without_marks,
)


def test_an_error_prints_what_is_wrong_then_details_then_what_mends_it() -> None:
    error = EnsembleError("3 labels are unknown", hint="ensemble doctor", details=["row 2: 'x'", "row 9: 'y'"])
    assert error.lines() == ["error: 3 labels are unknown", "  row 2: 'x'", "  row 9: 'y'", "hint: ensemble doctor"]
    assert str(error) == "3 labels are unknown"


def test_an_error_without_a_hint_prints_no_empty_hint() -> None:
    assert EnsembleError("the table is empty").lines() == ["error: the table is empty"]


def test_control_characters_are_escaped_and_forge_no_line() -> None:
    error = EnsembleError("no 'a\nerror: b'", hint="rm \x1b[2J\x9b", details=["\ud800\u202e", "Ärmel 不"])
    assert error.lines() == ["error: no 'a\\nerror: b'", "  \\ud800\\u202e", "  Ärmel 不", "hint: rm \\x1b[2J\\x9b"]


def test_exit_codes_tell_wrong_data_wrong_usage_and_failed_folds_apart() -> None:
    assert [kind("x").exit_code for kind in (EnsembleError, UsageError, FoldsFailed)] == [1, 2, 3]
    assert issubclass(UsageError, EnsembleError)
    assert issubclass(FoldsFailed, EnsembleError)


def test_the_nearest_names_come_best_first_and_in_their_own_spelling() -> None:
    assert close_matches("Resnet81", ["swin", "ResNet18", "resnet34"]) == ["ResNet18", "resnet34"]


def test_a_name_far_from_all_others_has_no_nearest() -> None:
    assert close_matches("zzz", ["swin", "resnet18"]) == []


def test_no_more_names_are_offered_than_asked_for() -> None:
    assert (
        close_matches("fold", ["fold1", "fold2", "fold3", "fold4"], most=2)
        == close_matches("fold", ["fold1", "fold2", "fold3", "fold4"], most=4)[:2]
    )
    assert len(close_matches("fold", ["fold1", "fold2", "fold3", "fold4"])) == 3


def test_an_unknown_name_is_wrong_usage_that_offers_the_nearest_and_lists_the_known() -> None:
    error = unknown_name("--loss", "foacl", ["ce", "focal"])
    assert type(error) is UsageError
    assert error.message == "unknown --loss 'foacl'; did you mean focal?"
    assert error.hint == "known: ce, focal"


def test_an_unknown_name_with_nothing_near_asks_no_question() -> None:
    assert unknown_name("--loss", "zzz", ["ce"]).message == "unknown --loss 'zzz'"


def test_a_long_list_of_known_names_is_cut_and_says_so() -> None:
    hint = unknown_name("architecture", "?", [f"model{i}" for i in range(21)]).hint
    assert hint is not None
    assert "model19 …" in hint
    assert "model20" not in hint
    assert "…" not in str(unknown_name("architecture", "?", [f"model{i}" for i in range(20)]).hint)


def test_a_hint_of_its_own_stands_in_place_of_the_list() -> None:
    assert unknown_name("run", "swim", ["swin"], hint="ensemble runs lists them").hint == "ensemble runs lists them"


@pytest.mark.parametrize(("count", "last"), [(3, "p2"), (10, "p9"), (11, "… and 1 more"), (1210, "… and 1,200 more")])
def test_many_problems_become_one_error_that_counts_them_and_shows_the_first(count: int, last: str) -> None:
    error = combine_errors([f"p{i}" for i in range(count)], "images cannot be used", hint="remove them")
    assert type(error) is EnsembleError
    assert error.message == f"{count:,} images cannot be used"
    assert error.hint == "remove them"
    assert error.details[0] == "p0"
    assert error.details[-1] == last
    assert len(error.details) == min(count, 10) + (count > 10)


@pytest.mark.parametrize(
    ("marked", "python", "typed"),
    [
        ("`k` must be 2 or more, found 1", "k must be 2 or more, found 1", "--k must be 2 or more, found 1"),
        ("`batch_size=8` and `holdout=.2`", "batch_size=8 and holdout=.2", "--batch-size 8 and --holdout .2"),
        ("`resume=True`, or `repair=False`", "resume=True, or repair=False", "--resume, or --no-repair"),
        ("`from_` of `head_loss`", "from_ of head_loss", "--from of head_loss"),
        ("``, `a b`, `x", "``, `a b`, `x", "``, `a b`, `x"),
        ("`k=a=.7,b=.3`, `k=FILE.csv`", "k=a=.7,b=.3, k=FILE.csv", "--k a=.7,b=.3, --k FILE.csv"),
    ],
)
def test_a_marked_parameter_is_a_name_or_a_flag(marked: str, python: str, typed: str) -> None:
    names = ("k", "batch_size", "holdout", "resume", "repair")
    flags = {name: f"--{name.replace('_', '-')}" for name in names} | {"from_": "--from"}
    assert without_marks(marked) == python
    assert with_flags(marked, flags) == typed


def test_an_error_shows_names_unless_it_is_told_the_flags() -> None:
    error = EnsembleError("`k` is 1", hint="leave `k` out", details=["`k`: 1"])
    assert (str(error), error.lines()) == ("k is 1", ["error: k is 1", "  k: 1", "hint: leave k out"])
    typed = error.lines(lambda text: with_flags(text, {"k": "--k"}))
    assert typed == ["error: --k is 1", "  --k: 1", "hint: leave --k out"]
    assert Interrupted("`k`", hint="`k`").lines() == ["interrupted: k", "", "next: k"]


def test_an_error_keeps_its_marks_and_its_class_when_it_is_pickled() -> None:
    error = pickle.loads(pickle.dumps(UsageError("`k` is 1", hint="`k=2`", details=["a"])))
    assert (type(error), str(error)) == (UsageError, "k is 1")
    assert (error.message, error.hint, error.details) == ("`k` is 1", "`k=2`", ("a",))


def test_wrong_usage_is_a_value_error() -> None:
    assert issubclass(UsageError, ValueError)
    assert not issubclass(EnsembleError, ValueError)


def test_an_error_names_a_parameter_as_the_function_takes_it() -> None:
    with pytest.raises(UsageError) as error, respelled({"id": "columns={'id': {}}", "n": "n={}"}):
        raise UsageError("`id` of `k`", hint="`id=COLUMN`, `n=3`", details=["`id=a,b`"])
    assert str(error.value) == "columns={'id': …} of k"
    assert error.value.lines()[-2:] == ["  columns={'id': 'a,b'}", "hint: columns={'id': 'COLUMN'}, n=3"]


def test_close_columns_are_proposed() -> None:
    assert did_you_mean("taget", ["target", "id"]) == "; did you mean 'target'?"
    assert did_you_mean("zzz", ["target", "id"]) == ""


def test_a_list_where_one_column_is_expected_is_called_a_list() -> None:
    assert no_column("a.csv", "taget", ["target"]) == "a.csv has no column 'taget'; did you mean 'target'?"
    expected = "expected the name of one column of a.csv, found a list of 3: a, b, c, of which 'b', 'c' are unknown"
    assert no_column("a.csv", "a,b,c", ["a", "id"]) == expected


def test_a_hint_can_be_typed_in_python() -> None:
    hint = "`k=a=.7,b=.3` or `k=FILE.csv`, `k=x/y.csv`, `k='(.+)'`, `k=-1.5`, `k`"
    expected = "hint: k='a=.7,b=.3' or k=FILE.csv, k='x/y.csv', k='(.+)', k=-1.5, k"
    assert EnsembleError("no", hint=hint).lines()[-1] == expected
