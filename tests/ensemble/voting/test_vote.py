"""Votes equal explicit counts and means, with ties and absent runs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ensemble.voting.vote import METHODS, vote
from folds.errors import UsageError
from tests.ensemble.small_runs import answer_run, draw, grid, probability_run, split_of, values_of

# Few distinct values, so that ties are frequent.
COARSE = st.integers(0, 3)

shapes = given(
    n=st.integers(1, 9),
    classes=st.integers(2, 5),
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
)


@settings(max_examples=40, deadline=None)
@shapes
def test_soft_is_the_mean_over_runs_of_the_mean_over_folds(n: int, classes: int, seed: int, sizes: list[int]) -> None:
    runs = grid(n, classes, seed, sizes)
    result = vote(split_of(*runs, n=n)).probabilities
    expected = [
        [sum(sum(v[i, c] for v in values_of(r)) / len(r.parts) for r in runs) / len(runs) for c in range(classes)]
        for i in range(n)
    ]
    np.testing.assert_allclose(result, expected, atol=1e-6)
    np.testing.assert_allclose(result.sum(1), 1, atol=1e-6)


@settings(max_examples=25, deadline=None)
@shapes
def test_equal_weights_are_soft_and_one_weight_is_that_run(n: int, classes: int, seed: int, sizes: list[int]) -> None:
    runs = grid(n, classes, seed, sizes)
    split = split_of(*runs, n=n)
    equal = vote(split, "weighted", {run.name: 1 / len(runs) for run in runs}).probabilities
    assert np.array_equal(equal, vote(split, "soft").probabilities)
    alone = vote(split, "weighted", {runs[-1].name: 0.3}).probabilities
    assert np.array_equal(alone, vote(split_of(runs[-1], n=n)).probabilities)


def test_votes_agree_with_the_voting_classifier_of_scikit_learn() -> None:
    from sklearn.ensemble import VotingClassifier

    n, classes, weights = 200, 4, [0.5, 0.3, 0.2]
    runs = [probability_run(f"r{i}", np.random.default_rng(i).dirichlet(np.ones(classes), n)) for i in range(3)]

    class Fixed:
        def __init__(self, values: NDArray) -> None:
            self.values = values

        def predict_proba(self, rows: NDArray) -> NDArray:
            return self.values[rows]

        def predict(self, rows: NDArray) -> NDArray:
            return self.values[rows].argmax(1)

    for method in ("soft", "hard"):
        reference = VotingClassifier([], voting=method, weights=weights)
        reference.estimators_ = [Fixed(values_of(run)[0]) for run in runs]
        reference.estimators = [(run.name, None) for run in runs]
        reference.le_ = type("Encoder", (), {"inverse_transform": staticmethod(lambda codes: codes)})
        ours = vote(
            split_of(*runs, n=n),
            "weighted" if method == "soft" else "hard",
            {f"r{i}": w for i, w in enumerate(weights)},
        )
        expected = reference.predict(np.arange(n))
        # .5 against .3 + .2 is a tie, which scikit-learn gives to the lower class.
        settled = np.array(
            [
                len({int(values_of(run)[0][row].argmax()) for run in runs[1:]}) > 1 or method == "soft"
                for row in range(n)
            ]
        )
        assert np.array_equal(ours.probabilities.argmax(1)[settled], expected[settled])
        assert settled.sum() > 100


@settings(max_examples=60, deadline=None)
@shapes
def test_hard_is_the_count_of_votes_with_ties_to_the_higher_mean(
    n: int, classes: int, seed: int, sizes: list[int]
) -> None:
    runs = grid(n, classes, seed, sizes)
    split = split_of(*runs, n=n)
    result = vote(split, "hard")
    means = sum(np.mean(values_of(run), axis=0) for run in runs) / len(runs)
    ties = 0
    for row in range(n):
        count: Counter[int] = Counter()
        for run in runs:
            for values in values_of(run):
                count[int(values[row].argmax())] += 12 // len(run.parts)  # whole numbers: 1 to 3 folds
        top = max(count.values())
        best = [c for c in range(classes) if count[c] == top]
        ties += len(best) > 1
        decided = int(result.probabilities[row].argmax())
        assert decided in best
        assert means[row, decided] >= max(means[row, c] for c in best) - 1e-9
        np.testing.assert_allclose(
            result.probabilities[row], [count[c] / (12 * len(runs)) for c in range(classes)], atol=3e-6
        )
    assert result.ties == ties


def test_each_fold_model_has_its_share_of_its_runs_vote() -> None:
    one, other = np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    split = split_of(probability_run("many", one, one, one), probability_run("few", other), n=1)
    assert vote(split, "hard").ties == 1, "three folds of one run do not outvote the one of another"
    np.testing.assert_allclose(vote(split, "hard", {"many": 0.4, "few": 0.6}).probabilities, [[0.4, 0.6]], atol=1e-7)


def test_a_hard_label_tie_goes_to_the_first_ranked_tied_run() -> None:
    runs = [
        answer_run(name, np.array(codes), 3)
        for name, codes in (("a", [0, 2]), ("b", [1, 1]), ("c", [1, 0]), ("d", [0, 1]), ("e", [2, 0]))
    ]
    split = split_of(*runs, n=2)
    # Row 0: 0 and 1 tie with two votes each, e's 2 is not among them. Row 1: 1 (b, d) and 0 (c, e).
    assert vote(split, "hard").probabilities.argmax(1).tolist() == [0, 1]
    ranked = vote(split, "hard", ranking=["e", "c", "b", "a", "d"])
    assert ranked.probabilities.argmax(1).tolist() == [1, 0]
    assert ranked.ties == 2


def test_a_tie_is_decided_by_runs_with_probabilities() -> None:
    soft_run = probability_run("p", np.array([[0.1, 0.5, 0.4]]))
    runs = [
        answer_run("a", np.array([2]), 3),
        answer_run("b", np.array([0]), 3),
        answer_run("c", np.array([0]), 3),
        answer_run("d", np.array([2]), 3),
    ]
    assert vote(split_of(*runs, soft_run, n=1), "hard", ranking=["b"]).probabilities.argmax(1).tolist() == [2]


@settings(max_examples=40, deadline=None)
@given(codes=st.lists(st.lists(COARSE, min_size=3, max_size=3), min_size=1, max_size=7))
def test_hard_label_shares_are_counts_and_argmax_decides(codes: list[list[int]]) -> None:
    runs = [answer_run(f"r{i}", np.array(row), 4) for i, row in enumerate(codes)]
    result = vote(split_of(*runs, n=3), "hard")
    for row in range(3):
        count = Counter(answers[row] for answers in codes)
        first = next(answers[row] for answers in codes if count[answers[row]] == max(count.values()))
        assert result.probabilities[row].argmax() == first
        np.testing.assert_allclose(result.probabilities[row], [count[c] / len(codes) for c in range(4)], atol=3e-6)


def test_weights_equal_up_to_rounding_are_a_tie() -> None:
    runs = [answer_run(name, np.array([code]), 2) for name, code in (("a", 1), ("b", 0), ("c", 0))]
    assert vote(split_of(*runs, n=1), "hard", {"a": 0.3, "b": 0.1, "c": 0.2}).ties == 1


def test_geometric_is_the_normalized_root_of_the_product() -> None:
    values = [np.random.default_rng(i).dirichlet(np.ones(5), 30) for i in range(3)]
    expected = np.prod(values, axis=0) ** (1 / 3)
    result = vote(
        split_of(*(probability_run(f"r{i}", v) for i, v in enumerate(values)), n=30), "geometric"
    ).probabilities
    np.testing.assert_allclose(result, expected / expected.sum(1, keepdims=True), atol=1e-6)


def test_geometric_survives_zeros_and_many_members() -> None:
    certain = np.array([[1.0, 0.0, 0.0]])
    result = vote(
        split_of(*(probability_run(f"r{i}", np.roll(certain, i % 3, 1)) for i in range(60)), n=1), "geometric"
    ).probabilities
    np.testing.assert_allclose(result, [[1 / 3] * 3], atol=1e-6)


def test_an_absent_run_leaves_its_weight_to_the_others() -> None:
    a, b, c = (np.random.default_rng(i).dirichlet(np.ones(3), 4) for i in range(3))
    runs = probability_run("a", a), probability_run("b", b, rows=np.array([0, -1, 2, 3])), probability_run("c", c)
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    expected = 0.5 * a + 0.3 * b + 0.2 * c
    expected[1] = (0.5 * a[1] + 0.2 * c[1]) / 0.7
    np.testing.assert_allclose(vote(split_of(*runs, n=4), "weighted", weights).probabilities, expected, atol=1e-7)
    assert vote(split_of(*runs, n=4), "hard", weights).probabilities[1].argmax() == a[1].argmax()


def test_splitting_into_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [*grid(1000, 4, 0, [2, 1, 3]), answer_run("h", np.arange(1000) % 4, 4)]
    whole = vote(split_of(*runs, n=1000), "hard")
    monkeypatch.setattr("ensemble.voting.blocks.NUMBERS_AT_ONCE", 1)  # 16 rows, the minimum
    blocks = vote(split_of(*runs, n=1000), "hard")
    assert np.array_equal(whole.probabilities, blocks.probabilities)
    assert whole.ties == blocks.ties > 0


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"grades"}))
@settings(max_examples=8, deadline=None)
@given(n=st.integers(1, 9), seed=st.integers(0, 10**6), runs=st.integers(1, 4))
def test_votes_ignore_the_order_of_runs_rows_and_classes(method: str, n: int, seed: int, runs: int) -> None:
    rng, names = np.random.default_rng(seed), [f"r{i}" for i in range(runs)]
    values = [rng.dirichlet(np.ones(4), n) for _ in names]
    rows, columns = rng.permutation(n), rng.permutation(4)
    one = split_of(*(probability_run(name, v) for name, v in zip(names, values)), n=n)
    other = split_of(
        *(probability_run(name, v[rows][:, columns]) for name, v in reversed(list(zip(names, values)))), n=n
    )
    weights = None if method == "soft" else {name: float(rng.integers(1, 4)) for name in names}
    a, b = vote(one, method, weights, names), vote(other, method, weights, names)
    assert a.ties == b.ties
    np.testing.assert_allclose(b.probabilities, a.probabilities[rows][:, columns], atol=1e-7, rtol=0)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"hard", "grades"}))
def test_a_blend_of_one_member_is_that_member(method: str) -> None:
    values = np.concatenate([np.random.default_rng(0).dirichlet(np.full(5, 0.1), 50), np.eye(5)]).astype(np.float32)
    assert np.array_equal(vote(split_of(probability_run("a", values), n=55), method).probabilities, values)


def test_hard_voting_of_one_member_is_its_decision() -> None:
    values = np.random.default_rng(0).dirichlet(np.ones(5), 50)
    assert np.array_equal(
        vote(split_of(probability_run("a", values), n=50), "hard").probabilities, np.eye(5)[values.argmax(1)]
    )


@pytest.mark.parametrize("method", sorted(METHODS))
def test_uniform_rows_stay_uniform(method: str) -> None:
    split = split_of(*(probability_run(f"r{i}", np.full((300, 4), 0.25)) for i in range(3)), n=300)
    result = vote(split, method)
    np.testing.assert_allclose(
        result.probabilities, np.eye(4)[[0] * 300] if method in ("hard", "grades") else 0.25, atol=1e-6
    )
    assert result.ties == 0, "the largest value of each run is its first class"


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_invalid_weights_are_an_error(bad: float) -> None:
    split = split_of(*(probability_run(f"r{i}", draw(2, 3, i)) for i in range(2)), n=2)
    with pytest.raises(UsageError, match="weights must be finite numbers ≥ 0"):
        vote(split, "weighted", {"r0": 1.0, "r1": bad})
    with pytest.raises(ValueError, match="no run with a weight above 0 predicts the sample '0'"):
        vote(split, "weighted", {"r0": 0.0})


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"hard", "grades"}))
def test_methods_that_need_probabilities_refuse_hard_labels(method: str) -> None:
    with pytest.raises(UsageError, match="needs probabilities, found only hard labels in h"):
        vote(split_of(answer_run("h", np.array([0]), 2), n=1), method)


def test_an_unknown_method_has_a_suggestion() -> None:
    with pytest.raises(UsageError, match="unknown method 'sofd'; did you mean soft"):
        vote(split_of(answer_run("h", np.array([0]), 2), n=1), "sofd")
    assert set(METHODS) >= {"soft", "hard", "weighted"}
