from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings

from folds.metrics.confusion import confusion_counts
from folds.metrics.grouping import average_by_person, confusion_counts_by_group, people_with_class
from folds.utils.numeric import factorize
from tests.folds.scored_people import CLASSES, Data, scored


def test_codes_of_people_do_not_depend_on_the_order_of_rows() -> None:
    names = np.array(["p9", "p10", "p1", "p9", "p1"])
    order = [4, 2, 0, 3, 1]
    assert factorize(names)[1].tolist() == [2, 1, 0, 2, 0]
    assert factorize(names[order])[1].tolist() == factorize(names)[1][order].tolist()


@settings(max_examples=60)
@given(scored())
def test_the_counts_of_a_person_are_those_of_its_rows(data: Data) -> None:
    labels, probabilities, persons = data
    predicted, codes = probabilities.argmax(1), factorize(persons)[1]
    found = confusion_counts_by_group(labels, predicted, CLASSES, codes, codes.max() + 1)
    for one in range(codes.max() + 1):
        rows = codes == one
        np.testing.assert_array_equal(found[one], confusion_counts(labels[rows], predicted[rows], CLASSES))
    expected = [
        len({person for person, label in zip(persons.tolist(), labels.tolist()) if label == one})
        for one in range(CLASSES)
    ]
    assert people_with_class(labels, persons, CLASSES).tolist() == expected


@settings(max_examples=60)
@given(scored())
def test_a_person_has_the_mean_row_and_most_frequent_label(data: Data) -> None:
    labels, probabilities, codes = data
    persons = np.array([f"p{code}" for code in codes])
    found_labels, found, names, mixed = average_by_person(labels, probabilities, persons, CLASSES, "classes")
    assert names.tolist() == sorted(set(persons.tolist()))
    several = 0
    for i, name in enumerate(names):
        rows = persons == name
        np.testing.assert_allclose(found[i], probabilities[rows].mean(0), atol=1e-12)
        counts = Counter(labels[rows].tolist())
        assert found_labels[i] == min(label for label in counts if counts[label] == max(counts.values()))
        several += len(counts) > 1
    assert mixed == several


def test_numbers_of_people_are_numbered_like_any_names() -> None:
    persons = np.array([30, 10, 20, 10])
    assert factorize(persons)[1].tolist() == [2, 0, 1, 0]
    for names in (persons.astype(np.uint8), persons * 10**9, -persons[::-1], np.array([], int)):
        assert factorize(names)[1].tolist() == np.unique(names, return_inverse=True)[1].tolist()
