"""Mistakes: who is wrong, where, and what members said; against scikit-learn, SciPy and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix, roc_auc_score

from ensemble.analysis.mistakes import (
    LabeledRows,
    agreement_of,
    confusion_of,
    exact_interval,
    group_accuracies,
    member_mistakes,
    mistake_columns,
    people_mistakes,
    quantile_groups,
)

CLASSES = ("a", "b", "c")


def one_hot(predicted: list[int], confidence: float = 0.8) -> np.ndarray:
    values = np.full((len(predicted), 3), (1 - confidence) / 2)
    values[np.arange(len(predicted)), predicted] = confidence
    return values


def judged(
    labels: list[int], predicted: list[int], persons: list[str], members: dict[str, list[int]] | None = None
) -> LabeledRows:
    return LabeledRows(
        np.array([f"i{at:03d}" for at in range(len(labels))]),
        np.array(persons),
        np.array(labels),
        CLASSES,
        one_hot(predicted),
        {name: one_hot(answers, 0.6) for name, answers in (members or {"only": predicted}).items()},
    )


def drawn(people: int = 60, per_person: int = 4, seed: int = 0) -> LabeledRows:
    random = np.random.default_rng(seed)
    n = people * per_person
    labels = random.integers(0, 3, people).repeat(per_person)
    shared = random.normal(size=(people, 3)).repeat(per_person, axis=0) * 0.7
    members = {}
    for name, skill in (("x", 1.5), ("y", 1.0), ("z", 0.7)):
        logits = shared + random.normal(size=(n, 3))
        logits[np.arange(n), labels] += skill
        members[name] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    persons = np.array([f"p{at // per_person:03d}" for at in range(n)])
    mean = np.mean(list(members.values()), axis=0)
    return LabeledRows(np.array([f"i{at:03d}" for at in range(n)]), persons, labels, CLASSES, mean, members)


def test_confusion_counts_are_those_of_scikit_learn() -> None:
    rows = drawn()
    found = confusion_of(rows)
    np.testing.assert_array_equal(found.counts, confusion_matrix(rows.labels, rows.predicted))
    np.testing.assert_allclose(found.share, confusion_matrix(rows.labels, rows.predicted, normalize="true"))
    assert (found.low <= found.share).all()
    assert (found.share <= found.high).all()
    pairs = found.pairs()
    assert [found.counts[pair] for pair in pairs] == sorted((found.counts[pair] for pair in pairs), reverse=True)
    assert all(true != predicted for true, predicted in pairs)


def test_shares_of_people_who_vary_have_wider_intervals_than_images() -> None:
    rows = drawn()
    alone = LabeledRows(rows.ids, rows.ids, rows.labels, CLASSES, rows.probabilities, rows.members)
    widths = [np.mean(np.diag(found.high - found.low)) for found in (confusion_of(rows), confusion_of(alone))]
    assert widths[0] > 1.2 * widths[1]


def test_a_class_of_one_person_has_no_interval_and_one_without_images_no_text() -> None:
    found = confusion_of(judged([0, 0, 1, 1], [0, 1, 1, 1], ["p", "p", "q", "r"]))
    assert found.text(0, 0) == "0.500 [0.000, 1.000]"
    assert found.text(2, 0) == ""


@pytest.mark.parametrize(("wrong", "images"), [(0, 5), (5, 5), (1, 1), (3, 40), (700, 1000)])
def test_exact_intervals_are_those_of_scipy(wrong: int, images: int) -> None:
    expected = stats.binomtest(wrong, images).proportion_ci(method="exact")
    assert exact_interval(wrong, images) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_people_are_ordered_by_wrong_images_and_compared_with_the_rate_of_others() -> None:
    persons = ["always"] * 6 + [f"p{at:02d}" for at in range(30) for _ in range(2)] + ["once"] * 4
    labels = [0] * len(persons)
    predicted = [1] * 6 + [0] * 60 + [1, 0, 0, 0]
    found = people_mistakes(judged(labels, predicted, persons))
    first, second = found.worst
    assert (first.person, first.wrong, first.images) == ("always", 6, 6)
    rate = 2 / 65  # 1 of 64 images of others in the class, and one wrong image added
    assert first.expected == pytest.approx(6 * rate)
    assert first.p_value == pytest.approx(stats.binom.sf(5, 6, rate), rel=1e-6)
    assert first.clustered
    assert (second.person, second.clustered) == ("once", False)
    assert second.p_value == pytest.approx(stats.binom.sf(0, 4, 7 / 67), rel=1e-6)
    assert (found.always, found.people) == (1, 32)
    expected = 30 * (8 / 69) ** 2 + rate**6 + (7 / 67) ** 4
    assert found.always_by_chance == pytest.approx(expected)


def test_no_chance_is_zero_where_others_are_never_wrong() -> None:
    rows = judged([0] * 3 + [1] * 2 + [0] * 9, [1] * 3 + [0] * 2 + [0] * 9, ["p"] * 3 + ["q"] * 2 + ["r"] * 9)
    first, second = people_mistakes(rows).worst
    assert (first.person, second.person) == ("p", "q")
    assert first.p_value == pytest.approx((1 / 10) ** 3)  # no wrong image among 9 of others in the class
    assert second.p_value == pytest.approx((4 / 13) ** 2)  # nobody else in the class: 3 of 12 images of all others


def test_mistakes_that_are_independent_of_people_are_no_clusters() -> None:
    random = np.random.default_rng(1)
    clustered = 0
    for _ in range(6):
        predicted = np.where(random.random(400) < 0.2, 1, 0).tolist()
        rows = judged([0] * 400, predicted, [f"p{at // 5}" for at in range(400)])
        found = people_mistakes(rows)
        clustered += sum(one.clustered for one in found.worst)
        assert abs(found.always - found.always_by_chance) < 2
    assert clustered <= 1  # 5% of 6 worlds, corrected for 80 people


def test_groups_are_compared_with_all_other_images() -> None:
    rows = drawn()
    groups = np.arange(len(rows)) % 2
    groups[:8] = -1
    found = group_accuracies(rows, groups, ["even", "odd"])
    right = ~rows.wrong
    for one, group in zip(found, (0, 1), strict=True):
        assert one.images == (groups == group).sum()
        assert one.accuracy.value == pytest.approx(right[groups == group].mean())
        assert one.against_others is not None
        expected = right[groups == group].mean() - right[groups == 1 - group].mean()
        assert one.against_others.difference.value == pytest.approx(expected)
    assert not any(one.against_others.is_significant for one in found if one.against_others)


def test_few_people_who_are_all_right_or_all_wrong_are_no_finding() -> None:
    random = np.random.default_rng(0)
    found = []
    for world in range(60):
        size = 1 + world % 3
        predicted = np.where(random.random(60) < 0.3, 1, 0)
        predicted[:size] = world % 2  # all wrong, or all right
        rows = judged([0] * 60, predicted.tolist(), [f"p{at}" for at in range(60)])
        found.append(group_accuracies(rows, (np.arange(60) < size).astype(int), ["others", "few"])[1].against_others)
    assert not any(one.is_significant for one in found[::2] if one is not None)  # right like most of the others
    few = [one for world, one in enumerate(found) if world % 3 < 2 and one is not None]
    assert len(few) == 40
    assert not any(one.is_significant for one in few)  # also if both of two are wrong: by chance in 9% of worlds
    both = found[1]  # two people, both wrong, and 58 others
    assert both is not None
    share = both.first
    jackknife = 59 / 60 * 58 * share * (1 - share) / 57**2
    error = np.sqrt(jackknife + 0.25 * 0.75 / 4)  # of two wrong people: with one right and one wrong more
    assert both.difference.standard_error == pytest.approx(error)


def test_a_group_that_is_wrong_more_often_is_found() -> None:
    random = np.random.default_rng(0)
    dark = np.arange(300) % 3 == 0
    predicted = np.where(random.random(300) < np.where(dark, 0.5, 0.1), 1, 0).tolist()
    rows = judged([0] * 300, predicted, [f"p{at // 6}" for at in range(300)])
    found = group_accuracies(rows, dark.astype(int), ["bright", "dark"])[1].against_others
    assert found is not None
    assert found.is_significant_among(12)
    assert found.difference.high < 0
    # the jackknife over people, by hand
    right, persons = ~rows.wrong, rows.persons
    each = []
    for name in np.unique(persons):
        rest = persons != name
        each.append(right[rest & dark].mean() - right[rest & ~dark].mean())
    error = np.sqrt(49 / 50 * np.sum((np.array(each) - np.mean(each)) ** 2))
    assert found.difference.standard_error == pytest.approx(error)


def test_quantiles_keep_equal_values_together() -> None:
    values = np.array([1.0, 1, 1, 1, 1, 2, 3, np.nan, 4, 5])
    groups, ends = quantile_groups(values)
    assert groups[7] == -1
    assert len(set(groups[:5].tolist())) == 1
    assert ends[0][0] == 1
    assert ends[-1][1] == 5
    assert all(a <= b for a, b in ends)
    assert quantile_groups(np.full(4, 7.0))[1] == []
    assert quantile_groups(np.full(4, np.nan))[1] == []


def test_members_that_are_right_where_others_are_wrong_are_counted() -> None:
    rows = judged(
        [0, 0, 0, 0, 0],
        [0, 1, 1, 0, 1],
        ["p", "p", "q", "q", "r"],
        {"x": [0, 0, 1, 0, 1], "y": [0, 1, 1, 0, 1], "z": [0, 1, 1, 1, 1]},
    )
    found, images = member_mistakes(rows)
    assert images == 5
    assert [(one.name, one.alone_right, one.alone_wrong, one.rescues) for one in found] == [
        ("x", 1, 0, 1),
        ("y", 0, 0, 0),
        ("z", 0, 1, 0),
    ]
    assert found[0].rescued_share is not None
    assert found[0].rescued_share.value == pytest.approx(1 / 3)


def test_rows_that_a_member_lacks_are_left_out_of_its_comparison() -> None:
    rows = judged([0, 0, 0], [0, 1, 0], ["p", "q", "r"], {"x": [0, 0, 0], "y": [0, 1, 0]})
    rows.members["y"][1] = np.nan
    assert rows.answers["y"].tolist() == [0, -1, 0]
    assert member_mistakes(rows)[1] == 2
    assert rows.agreement.tolist() == [2, 0, 2]
    assert mistake_columns(rows)["y: predicted"] == [""]
    assert mistake_columns(rows)["y: confidence"] == [""]


def test_agreement_is_scored_as_scikit_learn_does() -> None:
    rows = drawn()
    found = agreement_of(rows)
    assert found is not None
    assert sum(one.images for one in found.levels) == len(rows)
    for one in found.levels:
        assert one.accuracy.value == pytest.approx((~rows.wrong[rows.agreement == one.agreeing]).mean())
    assert found.disagreement is not None
    assert found.doubt is not None
    assert found.difference is not None
    assert found.disagreement.value == pytest.approx(roc_auc_score(rows.wrong, -rows.agreement))
    assert found.doubt.value == pytest.approx(roc_auc_score(rows.wrong, -rows.confidence))
    assert found.difference.difference.value == pytest.approx(found.doubt.value - found.disagreement.value)
    assert agreement_of(judged([0], [0], ["p"])) is None


def test_the_worst_mistakes_come_first_whatever_the_order_of_the_rows() -> None:
    rows = drawn()
    order = rows.worst()
    assert rows.wrong[order].all()
    assert len(order) == rows.wrong.sum()
    assert (np.diff(rows.confidence[order]) <= 0).all()
    shuffled = rows.take(np.random.default_rng(0).permutation(len(rows)))
    assert shuffled.ids[shuffled.worst()].tolist() == rows.ids[order].tolist()
    columns = mistake_columns(rows)
    assert columns["id"] == rows.ids[order].tolist()
    assert {len(cells) for cells in columns.values()} == {len(order)}
    assert {"x: predicted", "z: label_probability", "agreement"} <= columns.keys()


def test_nothing_wrong_is_no_error() -> None:
    rows = judged([0, 1], [0, 1], ["p", "q"], {"x": [0, 1], "y": [0, 1]})
    assert people_mistakes(rows).worst == ()
    assert mistake_columns(rows)["id"] == []
    found = agreement_of(rows)
    assert found is not None
    assert found.disagreement is None
    assert [one.rescued_share for one in member_mistakes(rows)[0]] == [None, None]
