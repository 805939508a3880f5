"""Splitting by person, held against scikit-learn and against what a split must never do."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folds.data.raw_columns import MISSING, RawColumns, build_table
from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError
from folds.splits.assignment import FoldAssignment, load_folds, read_folds, save_folds
from folds.splits.checks import check_folds, fold_counts
from folds.splits.kfold import hold_out, split_by_person
from tests.folds.sample_tables import table_of
from tests.folds.skewed import skewed_people


@st.composite
def tables(draw: st.DrawFn) -> tuple[SampleTable, int, int]:
    people = draw(st.integers(2, 12))
    sizes = draw(st.lists(st.integers(1, 6), min_size=people, max_size=people))
    persons = [f"p{i}" for i, size in enumerate(sizes) for _ in range(size)]
    persons = draw(st.permutations(persons))
    labels = draw(st.lists(st.sampled_from("abcd"), min_size=len(persons), max_size=len(persons)))
    return table_of(list(persons), labels), draw(st.integers(2, people)), draw(st.integers(0, 5))


quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(tables())
def test_people_are_in_one_fold_and_rows_in_exactly_one(case):
    table, k, seed = case
    folds = split_by_person(table, k, seed)
    seen = np.zeros(len(table), int)
    for i in range(k):
        training, validation = folds.training_index(i), folds.validation_index(i)
        assert not set(table.persons[training]) & set(table.persons[validation])
        assert len(validation)
        assert len(training)
        assert sorted([*training, *validation]) == list(range(len(table)))
        seen[validation] += 1
    assert (seen == 1).all()


@quick
@given(tables())
def test_the_folds_are_those_of_scikit_learn(case):
    from sklearn.model_selection import StratifiedGroupKFold

    table, k, seed = case
    expected = np.full(len(table), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for i, (_, index) in enumerate(
                StratifiedGroupKFold(k, shuffle=True, random_state=seed).split(table.ids, table.labels, table.persons)
            ):
                expected[index] = i
        except ValueError:
            return  # fewer than k rows of every class: refused there, split here (the tests above)
    if len(set(expected)) == k:
        assert split_by_person(table, k, seed, repaired=False).fold.tolist() == expected.tolist()


@settings(quick, max_examples=25)
@given(tables(), st.randoms(use_true_random=False))
def test_split_depends_on_table_and_seed_not_on_row_order(case, random):
    table, k, seed = case
    index = list(range(len(table)))
    random.shuffle(index)
    once, again, shuffled = (split_by_person(t, k, seed) for t in (table, table, table.take(np.array(index))))
    assert once.fold.tolist() == again.fold.tolist()
    assert once.sha == again.sha == shuffled.sha


def test_a_fold_that_scikit_learn_leaves_empty_is_filled():
    # Found by search: 11 people for 11 folds, of which scikit-learn 1.9.1 leaves one empty through rounding.
    sizes = [3, 3, 3, 1, 6, 4, 7, 4, 7, 1, 5]
    persons = [f"p{i}" for i, size in enumerate(sizes) for _ in range(size)]
    labels = list("00011010001100111111001000000101100010110101")
    folds = split_by_person(table_of(persons, labels), 11, 797, repaired=False)
    assert sorted(set(folds.fold.tolist())) == list(range(11))
    assert check_folds(folds, ("0", "1")) is not None


def test_another_seed_gives_another_split_also_seed_zero():
    table = table_of([f"p{i // 2}" for i in range(80)], ["a", "b"] * 40)
    folds = [split_by_person(table, 4, seed).fold.tolist() for seed in (0, 0, 1)]
    assert folds[0] == folds[1] != folds[2]


def test_stratify_spreads_another_column_than_the_label():
    rng = np.random.default_rng(0)
    persons = [f"p{i}" for i in range(60)]
    site = np.array(["north"] * 50 + ["south"] * 10)
    table = table_of(persons, rng.choice(["a", "b"], 60).tolist())
    folds = split_by_person(table, 5, 0, site)
    assert np.bincount(folds.fold[site == "south"], minlength=5).tolist() == [2] * 5


def test_columns_are_spread_even_if_joint_values_are_rare() -> None:
    # 60 people, all different jointly; of each label, gender and site there are many.
    rng = np.random.default_rng(1)
    columns = [rng.choice(list(values), 60) for values in ("abcdef", "mf", "nsew")]
    table = table_of([f"p{i}" for i in range(60)], columns[0].tolist())
    folds = split_by_person(table, 5, 0, columns)
    for column in columns:
        for value in set(column.tolist()):
            counts = np.bincount(folds.fold[column == value], minlength=5)
            assert counts.max() - counts.min() <= 2, (value, counts)


def test_joint_values_of_people_enough_are_spread_too() -> None:
    label, site = np.repeat(["a", "b"], 50), np.tile(["n", "s"], 50)
    folds = split_by_person(table_of([f"p{i}" for i in range(100)], label.tolist()), 5, 0, [label, site])
    for one in "ab":
        for other in "ns":
            assert np.bincount(folds.fold[(label == one) & (site == other)], minlength=5).tolist() == [5] * 5


def test_the_repair_is_on_unless_told_and_is_recorded(tmp_path) -> None:
    labels, persons = skewed_people(0)
    table = table_of([f"p{i}" for i in persons], [str(label) for label in labels])
    mended, plain = (split_by_person(table, 5, repaired=repaired) for repaired in (True, False))
    assert plain.repair is None
    assert mended.repair is not None
    assert (
        sum("absent from validation" in line for line in check_folds(mended, table.classes))
        == mended.repair.after.missing_classes
        == 0
    )
    path = save_folds(tmp_path / "folds.csv", mended)
    assert load_folds(path, table).repair == read_folds(path).repair == mended.repair
    assert load_folds(save_folds(tmp_path / "plain.csv", plain), table).repair is None


def test_repaired_folds_do_not_depend_on_row_order() -> None:
    labels, persons = skewed_people(4)
    table = table_of([f"p{i}" for i in persons], [str(label) for label in labels])
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    assert split_by_person(table, 5).sha == split_by_person(shuffled, 5).sha


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_holdout_has_the_requested_share_and_splits_by_person(share) -> None:
    labels, persons = skewed_people(1, people=60, classes=6)
    table = table_of([f"p{i}" for i in persons], [str(label) for label in labels])
    held = hold_out(table, share, 3)
    assert (held.k, held.held_out, set(held.fold.tolist())) == (1, True, {-1, 0})
    training, validation = held.training_index(0), held.validation_index(0)
    assert sorted([*training, *validation]) == list(range(len(table)))
    assert not set(table.persons[training]) & set(table.persons[validation])
    assert len(validation) / len(table) == pytest.approx(share, rel=0.06)
    assert check_folds(held, table.classes) == []
    for label in table.classes:
        assert np.mean(labels[validation] == int(label)) == pytest.approx(np.mean(labels == int(label)), abs=0.04)


def test_a_held_out_part_comes_back_from_its_file(tmp_path, table) -> None:
    held = hold_out(table, 0.25)
    path = save_folds(tmp_path / "holdout.csv", held)
    assert ",-1\n" in path.read_text()
    for back in (load_folds(path, table), read_folds(path)):
        assert (back.k, back.fold.tolist(), back.sha) == (1, held.fold.tolist(), held.sha)
    with pytest.raises(UsageError, match="fold must be from 0 to 0, found 1"):
        held.training_index(1)


def test_table_of_a_holdout_shows_the_training_part() -> None:
    images, people = fold_counts(
        assigned(["p", "p", "q", "r"], ["a", "b", "b", "a"], [0, 0, -1, -1], k=1), ("a", "b", "c")
    )
    assert images.tolist() == [[1, 1], [1, 1], [0, 0]]
    assert people.tolist() == [1, 2]


def test_class_in_one_part_of_a_holdout_gives_a_warning() -> None:
    found = check_folds(assigned(["p", "q", "r", "s"], ["a", "b", "c", "c"], [0, -1, -1, 0], k=1), ("a", "b", "c"))
    assert found == [
        "class a: 1 person for the held-out part: absent from training of fold 0",
        "class b: 1 person for the held-out part: absent from validation of fold 0",
    ]


@pytest.mark.parametrize("fold", [0, -1])
def test_a_held_out_part_and_its_rest_are_not_empty(fold) -> None:
    with pytest.raises(EnsembleError, match=f"all 2 samples are in fold {fold}"):
        check_folds(assigned(["p", "q"], ["a", "b"], [fold, fold], k=1), ("a", "b"))


@pytest.mark.parametrize("share", [0, 1, -0.1, 20])
def test_a_share_that_holds_out_nothing_or_all_is_wrong_usage(share) -> None:
    with pytest.raises(UsageError, match=f"holdout must be above 0 and below 1, found {share}"):
        hold_out(table_of(["p", "q"], ["a", "b"]), share)


def test_scikit_learns_own_warnings_are_not_passed_on():
    table = table_of([f"p{i}" for i in range(9)], ["a"] * 8 + ["b"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split_by_person(table, 3)


@pytest.mark.parametrize("k", [1, 0, -3])
def test_fewer_than_two_folds_are_wrong_usage(k):
    with pytest.raises(UsageError, match=f"k must be 2 or more, found {k}") as error:
        split_by_person(table_of(["p", "q"], ["a", "b"]), k)
    assert error.value.exit_code == 2


def test_a_seed_numpy_does_not_take_is_wrong_usage():
    with pytest.raises(UsageError, match="seed must be from 0"):
        split_by_person(table_of(["p", "q"], ["a", "b"]), 2, -1)


def test_more_folds_than_people_are_refused_with_a_k_that_works():
    table = table_of(["p", "p", "q", "r"], ["a", "b", "a", "b"])
    with pytest.raises(EnsembleError, match=r"5 folds need at least 5 people, table.csv has 3") as error:
        split_by_person(table, 5)
    assert error.value.hint == "try `k=3`"
    assert split_by_person(table, 3).k == 3


def test_one_person_alone_cannot_be_split():
    with pytest.raises(EnsembleError, match=r"all 3 samples of table.csv are of one person, 'p'"):
        split_by_person(table_of(["p"] * 3, ["a", "b", "a"]), 2)


def test_a_table_without_persons_cannot_be_split():
    table = build_table(RawColumns("t.csv", ["1", "2"], ["row 2", "row 3"], None, ["a", "b"]), training=False)
    with pytest.raises(EnsembleError, match=r"t.csv has no persons"):
        split_by_person(table, 2)


def test_a_fold_that_does_not_exist_is_named():
    with pytest.raises(UsageError, match="fold must be from 0 to 1, found 2"):
        split_by_person(table_of(["p", "q"], ["a", "b"]), 2).validation_index(2)


def assigned(persons: list[str], labels: list[str], fold: list[int], k: int | None = None) -> FoldAssignment:
    ids = np.array([f"s{i}" for i in range(len(fold))])
    return FoldAssignment(ids, np.array(labels), np.array(persons), np.array(fold), k or max(fold) + 1, 0)


def test_person_in_two_folds_is_an_error_with_folds_and_counts():
    with pytest.raises(EnsembleError, match="1 of 3 people are in more than one fold") as error:
        check_folds(assigned(["p", "p", "p", "q", "r"], list("ababa"), [0, 0, 1, 1, 0]), ("a", "b"))
    assert error.value.details == ("p: fold 0 (2 samples), fold 1 (1 sample)",)


def test_an_empty_fold_is_an_error():
    with pytest.raises(EnsembleError, match="fold 1 of 3 is empty"):
        check_folds(assigned(["p", "q"], ["a", "b"], [0, 2]), ("a", "b"))


def test_a_fold_number_outside_the_folds_is_an_error():
    with pytest.raises(EnsembleError, match="1 samples are in none of the folds 0 to 1"):
        check_folds(assigned(["p", "q", "r"], ["a", "b", "a"], [0, 1, 7], k=2), ("a", "b"))


def test_missing_class_is_counted_in_people_not_images():
    persons = ["p", "p", "p", "q", "r", "s", "t"]
    labels = ["17", "17", "17", "17", "0", "0", "0"]
    meaning = {"17": {"mask": "normal", "gender": "female", "age": ">=60"}}
    found = check_folds(assigned(persons, labels, [0, 0, 0, 2, 1, 2, 0]), ("0", "17"), meaning)
    assert found == ["class 17 (normal female >=60): 2 people for 3 folds: absent from validation of fold 1"]


def test_class_of_one_person_is_missing_from_training_too():
    found = check_folds(assigned(["p", "q", "r", "s"], ["a", "b", "b", "b"], [1, 1, 0, 2]), ("a", "b"))
    assert found == ["class a: 1 person for 3 folds: absent from validation of folds 0, 2 and from training of fold 1"]


def test_a_declared_class_that_nobody_has_is_said_once():
    assert check_folds(assigned(["p", "q"], ["a", "a"], [0, 1]), ("a", "b")) == ["class b: no person has it"]


def test_fold_counts_are_images_by_class_and_people_by_fold():
    images, people = fold_counts(assigned(["p", "p", "q", "r"], ["a", "b", "b", "a"], [0, 0, 1, 1]), ("a", "b", "c"))
    assert images.tolist() == [[1, 1], [1, 1], [0, 0]]
    assert people.tolist() == [1, 2]


@pytest.fixture
def table() -> SampleTable:
    return table_of([f"p{i // 3}" for i in range(36)], ["1", "2", "10"] * 12)


def rewrite(path: Path, change) -> None:
    """`change` the lines of a folds.csv, as one does by hand."""
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def test_saved_folds_come_back_the_same(tmp_path, table):
    made = split_by_person(table, 4, 3)
    save_folds(tmp_path / "folds.csv", made)
    back = load_folds(tmp_path / "folds.csv", table)
    assert (back.fold.tolist(), back.k, back.seed, back.sha, back.table_sha) == (
        made.fold.tolist(),
        4,
        3,
        made.sha,
        table.sha,
    )
    assert (tmp_path / "folds.csv").read_text().startswith("id,label,person,fold\ns0,1,p0,")
    assert json.loads((tmp_path / "folds.json").read_text())["versions"].keys() == {"ensemble", "scikit-learn", "numpy"}


def test_folds_are_lined_up_by_id_not_by_position(tmp_path, table):
    made = split_by_person(table, 4)
    save_folds(tmp_path / "folds.csv", made)
    order = np.random.default_rng(1).permutation(len(table))
    back = load_folds(tmp_path / "folds.csv", table.take(order))
    assert back.fold.tolist() == made.fold[order].tolist()
    assert back.seed == 0


def test_folds_without_a_table_are_taken_as_they_stand(tmp_path, table):
    made = split_by_person(table, 4)
    back = read_folds(save_folds(tmp_path / "folds.csv", made))
    assert (back.ids.tolist(), back.persons.tolist(), back.labels.tolist()) == (
        made.ids.tolist(),
        made.persons.tolist(),
        made.labels.tolist(),
    )
    assert (back.sha, back.table_sha) == (made.sha, table.sha)


def test_a_folds_file_from_elsewhere_needs_only_id_and_fold(tmp_path, table):
    made = split_by_person(table, 3)
    rows = [f"{fold},{name}" for name, fold in zip(made.ids, made.fold)]
    (tmp_path / "theirs.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(["fold,id", *reversed(rows)]).encode())
    back = load_folds(tmp_path / "theirs.csv", table)
    assert (back.fold.tolist(), back.k, back.seed) == (made.fold.tolist(), 3, None)


def test_edited_folds_file_has_no_seed(tmp_path, table):
    save_folds(tmp_path / "folds.csv", split_by_person(table, 3, 5))
    rewrite(
        tmp_path / "folds.csv",
        lambda lines: [lines[0], *(line[:-1] + "0" if ",p0," in line else line for line in lines[1:])],
    )
    rewrite(
        tmp_path / "folds.csv",
        lambda lines: [lines[0], *(line[:-1] + "1" if ",p1," in line else line for line in lines[1:])],
    )
    rewrite(
        tmp_path / "folds.csv",
        lambda lines: [lines[0], *(line[:-1] + "1" if ",p2," in line else line for line in lines[1:])],
    )
    assert load_folds(tmp_path / "folds.csv", table).seed is None


def test_equal_folds_can_be_saved_again_others_need_force(tmp_path, table):
    path = tmp_path / "folds.csv"
    save_folds(path, split_by_person(table, 3))
    before = path.stat().st_mtime_ns
    save_folds(path, split_by_person(table, 3))
    assert path.stat().st_mtime_ns == before
    with pytest.raises(EnsembleError, match="exists and holds other folds") as error:
        save_folds(path, split_by_person(table, 4))
    assert "`force=True`" in error.value.hint
    assert load_folds(path, table).k == 3
    save_folds(path, split_by_person(table, 4), force=True)
    assert load_folds(path, table).k == 4


def test_folds_are_not_written_over_their_own_json(tmp_path, table):
    with pytest.raises(UsageError, match="expected the name of a CSV file"):
        save_folds(tmp_path / "folds.json", split_by_person(table, 3))


names = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1)
    .map(str.strip)
    .filter(lambda name: name not in MISSING)
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(names, min_size=2, max_size=5, unique=True))
def test_any_name_survives_the_file(tmp_path, odd):
    table = build_table(RawColumns("t.csv", odd, odd, None, odd, odd), training=False)
    made = split_by_person(table, 2)
    path = save_folds(tmp_path / "folds.csv", made, force=True)
    assert load_folds(path, table).sha == read_folds(path).sha == made.sha


BAD = {
    "a sample without a fold": (lambda lines: lines[:-2], "2 of 36 samples of table.csv have no fold in"),
    "an id that the table lacks": (lambda lines: [*lines, "ghost,1,p0,0"], "1 of 37 ids in .* are not in table.csv"),
    "an id twice": (lambda lines: [*lines, lines[-1]], "1 ids of .* are repeated"),
    "another person": (
        lambda lines: [line.replace(",p3,", ",p4,") for line in lines],
        "3 samples have another person in",
    ),
    "another label": (
        lambda lines: [lines[0], lines[1].replace(",1,", ",2,"), *lines[2:]],
        "1 samples have another label in",
    ),
    "a fold that is no number": (
        lambda lines: [*lines[:-1], lines[-1][:-1] + "x"],
        "1 folds of .* are not whole numbers from 0",
    ),
    "a fold below 0": (lambda lines: [*lines[:-1], lines[-1][:-1] + "-1"], "are not whole numbers from 0"),
    "an absurd fold": (
        lambda lines: [*lines[:-1], lines[-1][:-1] + "99999999999999999999"],
        "are not whole numbers from 0",
    ),
    "no column fold": (
        lambda lines: [line.replace("fold", "food") for line in lines],
        "has no column 'fold'; did you mean 'food'",
    ),
    "no rows": (lambda lines: lines[:1], "has a header and no rows"),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_folds_files_are_refused_with_the_location(tmp_path, table, case):
    change, message = BAD[case]
    path = save_folds(tmp_path / "folds.csv", split_by_person(table, 3))
    rewrite(path, change)
    with pytest.raises(EnsembleError, match=message) as error:
        load_folds(path, table)
    assert error.value.hint


@pytest.mark.parametrize("text", ["{}", "{}.0"], ids=["whole numbers", "floats of pandas"])
@pytest.mark.parametrize("start", [0, 1])
def test_folds_from_one_or_as_floats_are_the_same_folds(tmp_path, table, text, start, caplog):
    made = split_by_person(table, 3)
    path = tmp_path / "theirs.csv"
    rows = [f"{name},{text.format(fold + start)}\n" for name, fold in zip(made.ids, made.fold)]
    path.write_text("id,fold\n" + "".join(rows))
    with caplog.at_level("INFO"):
        found = load_folds(path, table)
    assert (found.k, found.fold.tolist()) == (3, made.fold.tolist())
    assert ("counted from 1" in caplog.text) == (start == 1)


def test_folds_with_a_gap_are_refused(tmp_path, table):
    made = split_by_person(table, 3)
    path = tmp_path / "theirs.csv"
    path.write_text("id,fold\n" + "".join(f"{name},{[1, 2, 4][fold]}\n" for name, fold in zip(made.ids, made.fold)))
    with pytest.raises(EnsembleError, match="folds 0, 3 of 5 are empty") as error:
        check_folds(load_folds(path, table), table.classes)
    assert "counted from 0" in error.value.hint


@pytest.mark.parametrize("given", [{}, {"id": "image_name", "fold": "kfold"}], ids=["by name", "as asked"])
def test_folds_of_another_program_need_no_renaming(tmp_path, table, given):
    made = split_by_person(table, 3)
    path = tmp_path / "theirs.csv"
    rows = zip(made.ids, made.labels, made.persons, made.fold)
    path.write_text("image_name,target,patient_id,kfold\n" + "".join(f"{i},{y},{p},{f}\n" for i, y, p, f in rows))
    for found in (load_folds(path, table, given), read_folds(path, given)):
        assert found.sha == made.sha
        assert found.persons.tolist() == made.persons.tolist()


def test_the_id_column_is_the_one_with_the_ids(tmp_path, table):
    made = split_by_person(table, 3)
    path = tmp_path / "theirs.csv"
    rows = [f"{at},{name},{fold}\n" for at, (name, fold) in enumerate(zip(made.ids, made.fold))]
    path.write_text("id,file,fold\n" + "".join(rows))
    assert load_folds(path, table).sha == made.sha


def test_a_named_fold_column_must_exist(tmp_path, table):
    path = save_folds(tmp_path / "folds.csv", split_by_person(table, 3))
    with pytest.raises(EnsembleError, match="no column 'kfold'"):
        load_folds(path, table, {"fold": "kfold"})


def test_a_folds_file_without_persons_needs_the_table(tmp_path):
    (tmp_path / "theirs.csv").write_text("id,label,fold\n1,a,0\n2,b,1\n")
    with pytest.raises(EnsembleError, match="no column 'person'") as error:
        read_folds(tmp_path / "theirs.csv")
    assert "`data`" in error.value.hint
