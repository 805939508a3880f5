from __future__ import annotations

import pytest

from folds.errors import EnsembleError, FoldsFailed, UsageError, close_matches, combine_errors, unknown_name


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
