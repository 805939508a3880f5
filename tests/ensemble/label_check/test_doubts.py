"""Labels in doubt: wrong labels are found far more often than chance, by person where labels are of people."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from ensemble.analysis.mistakes import LabeledRows
from ensemble.label_check.doubts import columns_of, find_doubts
from folds.errors import EnsembleError
from tests.ensemble.label_check.flipped import flipped_world


@pytest.mark.parametrize("by", ["person", "image"])
def test_wrong_labels_are_found_far_more_often_than_chance(by: str) -> None:
    pytest.importorskip("cleanlab")
    precision, recall, first = [], [], []
    for seed in range(5):
        rows, wrong = flipped_world(by, seed)
        found = find_doubts(rows)
        assert found.unit == by
        precision.append(wrong[found.doubtful].mean())
        recall.append(found.doubtful[wrong].mean())
        first.append(wrong[found.order[:10]].mean())
    assert np.mean(precision) > 0.5  # chance: 0.1
    assert np.mean(recall) > 0.6
    assert np.mean(first) > 0.9


def test_each_person_counts_once_however_many_images_there_are() -> None:
    pytest.importorskip("cleanlab")
    rows, _ = flipped_world("person")
    plain = find_doubts(rows)
    doubled = rows.take(np.concatenate([np.arange(len(rows)), *[np.arange(5, 10)] * 30]))
    doubled = replace(doubled, ids=np.array([f"j{at:04d}" for at in range(len(doubled))]))
    found = find_doubts(doubled)
    assert found.doubtful[: len(rows)].tolist() == plain.doubtful.tolist()
    assert [one.person for one in found.people] == [one.person for one in plain.people]


def test_all_images_of_a_person_follow_each_other_with_one_suggestion() -> None:
    pytest.importorskip("cleanlab")
    rows, _ = flipped_world("person")
    found = find_doubts(rows)
    persons = rows.persons[found.order].tolist()
    assert persons == [person for person in dict.fromkeys(persons) for _ in range(5)]
    for one in found.people:
        assert (one.doubtful, one.images, len(one.labels), len(one.suggested)) == (5, 5, 1, 1)
    assert (np.diff(found.vote[found.order]) >= 0).all()


def test_the_order_of_the_rows_changes_nothing() -> None:
    pytest.importorskip("cleanlab")
    rows, _ = flipped_world("image")
    shuffled = rows.take(np.random.default_rng(3).permutation(len(rows)))
    assert columns_of(find_doubts(shuffled)) == columns_of(find_doubts(rows))


def test_an_attribute_that_people_have_once_is_checked_by_person() -> None:
    pytest.importorskip("cleanlab")
    random = np.random.default_rng(0)
    classes = ("mask old", "bare old", "mask young", "bare young")
    meaning = {name: dict(zip(("mask", "age"), name.split(), strict=True)) for name in classes}
    people, per = 80, 4
    age = random.integers(0, 2, people).repeat(per)
    mask = np.tile(np.arange(per) % 2, people)
    given = age.copy()
    given[: 3 * per] = 1 - given[: 3 * per]  # three people of the wrong age
    logits = random.normal(size=(people * per, 4)) * 0.8
    logits[np.arange(people * per), age * 2 + mask] += 2.5
    values = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    persons = np.array([f"p{at // per:02d}" for at in range(people * per)])
    rows = LabeledRows(
        np.array([f"i{at:03d}" for at in range(len(persons))]),
        persons,
        given * 2 + mask,
        classes,
        values,
        {"x": values},
    )
    found = find_doubts(rows, meaning)
    assert found.unit == "image"
    assert {(one.attribute, one.person) for one in found.attributes} == {("age", f"p0{one}") for one in range(3)}
    assert found.doubtful[: 3 * per].all()
    suggested = [meaning[classes[one]]["age"] for one in found.suggested[: 3 * per].tolist()]
    assert suggested == [("old", "young")[one] for one in age[: 3 * per].tolist()]


def test_labels_csv_has_empty_cells_to_fill_in_and_the_votes() -> None:
    pytest.importorskip("cleanlab")
    rows, _ = flipped_world("image")
    found = find_doubts(rows)
    columns = columns_of(found)
    assert list(columns)[:7] == ["id", "person", "label", "suggested", "confidence", "new_label", "decision"]
    assert set(columns["new_label"] + columns["decision"]) == {""}
    assert all(one != other for one, other in zip(columns["label"], columns["suggested"], strict=True))
    votes = np.array([[float(cell) for cell in columns[f"vote_{name}"]] for name in rows.classes])
    np.testing.assert_allclose(votes.sum(axis=0), 1, atol=1e-5)


def test_classes_without_a_label_are_never_suggested_by_an_error() -> None:
    pytest.importorskip("cleanlab")
    rows, _ = flipped_world("image")
    kept = rows.take(np.flatnonzero(rows.labels != 2))
    assert find_doubts(kept).doubtful.any()
    with pytest.raises(EnsembleError, match="only one class"):
        find_doubts(rows.take(np.flatnonzero(rows.labels == 2)))


def test_labels_of_a_single_person_are_not_judged() -> None:
    pytest.importorskip("cleanlab")
    rows, _ = flipped_world("image")
    labels = rows.labels.copy()
    labels[rows.persons == "p000"] = 2
    labels[(labels == 2) & (rows.persons != "p000")] = 1
    found = find_doubts(replace(rows, labels=labels))
    assert found.unjudged == ("eel",)
    assert not found.doubtful[rows.persons == "p000"].any()
    assert found.doubtful.any()


def test_without_cleanlab_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(EnsembleError, match="needs cleanlab") as error:
        find_doubts(flipped_world("image")[0])
    assert error.value.hint == "pip install 'ensemble-folds[clean]'"
