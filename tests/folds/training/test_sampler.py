from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folds.errors import UsageError
from folds.training.sampler import EpochSampler, SamplerConfig, parse_sampler, parse_sampling
from folds.utils.files import derive_seed

CLASSES = ["wear-m", "wear-f", "normal-m", "normal-f", "nobody"]
ATTRIBUTES = {name: dict(zip(("mask", "gender"), name.split("-"))) for name in CLASSES[:4]}
SEED = (0, "run", 3)
EPOCHS = 7


@dataclass(frozen=True)
class Table:
    """A small table, and the rows of it that are trained on."""

    training: np.ndarray
    codes: np.ndarray
    persons: np.ndarray

    def epochs(self, sampling: SamplerConfig, seed: tuple[Any, ...] = SEED) -> EpochSampler:
        return sampling.over(self.training, self.codes, self.persons, seed)

    def counts(self) -> np.ndarray:
        return np.bincount(self.codes[self.training], minlength=len(CLASSES))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    n = draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = rng.choice(4, n, p=rng.dirichlet(np.full(4, 0.5)))
    persons = np.array([f"p{i}" for i in range(n)])[rng.integers(0, draw(st.integers(1, n)), n)]
    training = np.sort(rng.permutation(n)[: draw(st.integers(1, n))])
    return Table(training, codes, persons)


def photographs(people: int = 30) -> Table:
    """Seven images a person as in the competition: five with a mask, two without; half of the people are women."""
    codes = np.array([person % 2 + 2 * (shot >= 5) for person in range(people) for shot in range(7)])
    return Table(np.arange(7 * people), codes, np.repeat([f"p{i}" for i in range(people)], 7))


def parse(text: str = "none", **given: Any) -> SamplerConfig:
    return parse_sampling(text, CLASSES, class_attributes=ATTRIBUTES, **given)


caps = st.one_of(
    st.just({}),
    st.dictionaries(st.sampled_from(["mask=wear", "mask=normal"]), st.integers(1, 3), max_size=2),
    st.dictionaries(st.sampled_from(CLASSES), st.integers(1, 3)),
    st.dictionaries(st.sampled_from(["gender=f", "gender=m"]), st.integers(1, 4)),
)
anything = st.one_of(
    st.builds(
        lambda text, cap, fixed: parse(text, per_person=cap, fixed=fixed and bool(cap)),
        st.sampled_from(["none", "balanced", "sqrt", "power:.3"]),
        caps,
        st.booleans(),
    ),
    st.builds(
        lambda counts, cap: parse(counts=counts, per_person=cap),
        st.dictionaries(st.sampled_from(CLASSES), st.integers(1, 40)),
        caps,
    ),
)


@given(tables(), st.integers(0, 3))
def test_default_epoch_is_the_same_permutation_as_in_version_0(table: Table, epoch: int) -> None:
    order = np.random.default_rng(derive_seed(*SEED, epoch, "order")).permutation(len(table.training))
    assert table.epochs(parse()).rows(epoch).tolist() == table.training[order].tolist()


@settings(max_examples=150, deadline=None)
@given(tables(), anything)
def test_every_epoch_has_the_same_class_counts_of_training_rows(table: Table, sampling: SamplerConfig) -> None:
    epochs = table.epochs(sampling)
    for epoch in range(EPOCHS):
        rows = epochs.rows(epoch)
        assert rows.dtype == np.int64
        assert len(rows) == len(epochs) > 0
        assert set(rows.tolist()) <= set(table.training.tolist())
        assert np.bincount(table.codes[rows], minlength=5).tolist() == epochs.images.tolist()


@settings(max_examples=50, deadline=None)
@given(tables(), anything)
def test_an_epoch_follows_from_the_seed_and_its_number_alone(table: Table, sampling: SamplerConfig) -> None:
    forward, backward = table.epochs(sampling), table.epochs(sampling)
    first = [forward.rows(epoch).tolist() for epoch in range(EPOCHS)]
    assert first == [backward.rows(epoch).tolist() for epoch in reversed(range(EPOCHS))][::-1]


def test_another_seed_and_another_epoch_show_other_images() -> None:
    table, sampling = photographs(), parse("balanced", per_person={"mask=wear": 1})
    shown = [table.epochs(sampling, seed).rows(epoch).tolist() for seed in ((0,), (1,)) for epoch in (0, 1)]
    assert len({tuple(sorted(rows)) for rows in shown}) == 4


@settings(max_examples=80, deadline=None)
@given(tables(), anything)
def test_no_image_repeats_while_another_of_its_class_is_unused(table: Table, sampling: SamplerConfig) -> None:
    epochs = table.epochs(sampling)
    shown = Counter(epochs.rows(2).tolist())
    for code in range(4):
        times = [
            shown[row]
            for row in table.training[table.codes[table.training] == code].tolist()
            if sampling.max_per_person == () or row in shown
        ]
        if times:
            assert max(times) - min(times) <= 1


@settings(max_examples=60, deadline=None)
@given(
    tables(),
    st.sampled_from(
        [
            parse("balanced", per_person={"mask=wear": 99}),
            parse("power:.8"),
            parse(counts={"wear-m": 3, "normal-f": 25}),
        ]
    ),
)
def test_images_of_a_class_are_used_equally_often_plus_minus_one(table: Table, sampling: SamplerConfig) -> None:
    epochs = table.epochs(sampling)
    shown = Counter(row for epoch in range(EPOCHS) for row in epochs.rows(epoch).tolist())
    for code in range(4):
        times = [shown[row] for row in table.training[table.codes[table.training] == code].tolist()]
        assert not times or max(times) - min(times) <= 1


def test_balanced_epoch_has_equal_classes_and_unchanged_length() -> None:
    table = photographs(31)
    assert table.counts().tolist() == [80, 75, 32, 30, 0]
    assert table.epochs(parse("balanced")).images.tolist() == [55, 54, 54, 54, 0]


@settings(max_examples=60, deadline=None)
@given(tables(), st.floats(0, 1))
def test_power_gives_each_class_its_share_within_one_image(table: Table, power: float) -> None:
    counts, images = table.counts(), table.epochs(parse(f"power:{power}")).images
    shares = np.array([n**power if n else 0 for n in counts.tolist()])
    assert images.sum() == counts.sum()
    assert np.abs(images - counts.sum() * shares / shares.sum()).max() < 1
    assert ((images > 0) == (counts > 0)).all()


def test_sample_counts_set_the_images_of_a_class_up_or_down() -> None:
    table = photographs(30)
    epochs = table.epochs(parse(counts={"wear-m": 10, "normal-f": 70, "nobody": 5}))
    assert epochs.images.tolist() == [10, 75, 30, 70, 0]
    shown = Counter(epochs.rows(0).tolist())
    up = [shown[row] for row in table.training[table.codes == 3].tolist()]
    assert Counter(up) == {2: 20, 3: 10}


def kept(rows: np.ndarray, table: Table, codes: set[int]) -> dict[str, set[int]]:
    """Person → the rows of these classes that an epoch shows."""
    found: dict[str, set[int]] = {}
    for row in rows.tolist():
        if table.codes[row] in codes:
            found.setdefault(str(table.persons[row]), set()).add(row)
    return found


@settings(max_examples=80, deadline=None)
@given(
    tables(),
    st.integers(1, 4),
    st.sampled_from(["none", "balanced"]),
    st.sampled_from(["mask=wear", "gender=f", "normal-m"]),
)
def test_epoch_has_at_most_the_allowed_images_per_person(table: Table, most: int, text: str, kind: str) -> None:
    codes = {"mask=wear": {0, 1}, "gender=f": {1, 3}, "normal-m": {2}}[kind]
    epochs = table.epochs(parse(text, per_person={kind: most}))
    everything = kept(table.training, table, codes)
    for epoch in range(3):
        found = kept(epochs.rows(epoch), table, codes)
        if text == "none":  # balancing may leave some of these out
            assert {person: len(rows) for person, rows in found.items()} == {
                p: min(most, len(rows)) for p, rows in everything.items()
            }
        assert all(len(rows) <= most for rows in found.values())


def test_capped_images_rotate_until_all_were_used() -> None:
    table = photographs()
    epochs = table.epochs(parse(per_person={"mask=wear": 1}))
    assert epochs.images.tolist() == [15, 15, 15 * 2, 15 * 2, 0]
    shown = [kept(epochs.rows(epoch), table, {0, 1}) for epoch in range(10)]
    for person in set(table.persons.tolist()):
        seen = [row for epoch in shown for row in epoch[person]]
        assert len(set(seen[:5])) == 5
        assert set(Counter(seen).values()) == {2}


def test_people_do_not_go_through_their_images_in_step() -> None:
    table = photographs(200)
    first = kept(table.epochs(parse(per_person={"mask=wear": 1})).rows(0), table, {0, 1})
    shots = Counter(row % 7 for rows in first.values() for row in rows)
    assert min(shots[shot] for shot in range(5)) > 20


def test_fixed_cap_uses_the_same_images_in_every_epoch() -> None:
    table = photographs()
    epochs = table.epochs(parse(per_person={"mask=wear": 2}, fixed=True))
    first, second = epochs.rows(0).tolist(), epochs.rows(1).tolist()
    assert first != second
    assert sorted(first) == sorted(second)
    assert len(first) == 30 * (2 + 2)


def test_classes_are_balanced_over_the_images_after_the_cap() -> None:
    epochs = photographs().epochs(parse("balanced", per_person={"mask=wear": 1, "normal-m": 1}))
    assert epochs.pool.tolist() == [15, 15, 15, 30, 0]
    assert epochs.images.tolist() == [19, 19, 19, 18, 0]
    assert len(set(epochs.rows(0).tolist())) == 15 + 15 + 15 + 18


@pytest.mark.parametrize("number", [2, 4, 6])
def test_cap_and_class_sampling_together_use_every_image(number: int) -> None:
    """The class, ten images under the cap, would come round in five epochs, as the cap does."""
    table = photographs(20)
    epochs = table.epochs(parse(counts={"wear-m": number}, per_person={"mask=wear": 1}))
    shown = {row for epoch in range(200) for row in epochs.rows(epoch).tolist()}
    assert shown == set(table.training.tolist())


def test_cap_spreads_images_of_a_person_over_the_classes() -> None:
    """Five with a mask and two without: of four, two are of each; of three, the odd one falls now here, now there."""
    for most, allowed in ((4, {(2, 2)}), (3, {(1, 2), (2, 1)}), (6, {(4, 2)}), (1, {(1, 0), (0, 1)})):
        table = photographs(40)
        rows = table.epochs(parse(per_person={"gender=m": most})).rows(0)
        found = {
            tuple(int(np.sum((table.persons[rows] == person) & (table.codes[rows] == code))) for code in (0, 2))
            for person in {str(name) for name in table.persons[::14]}
        }
        assert found == allowed


def test_people_may_be_numbers() -> None:
    table = photographs()
    numbers = np.repeat(np.arange(30), 7)
    sampling = parse("sqrt", per_person={"mask=wear": 2})
    found = kept(sampling.over(table.training, table.codes, numbers, SEED).rows(0), table, {0, 1})
    assert max(map(len, found.values())) <= 2


def test_a_million_rows_take_no_time_worth_naming() -> None:
    rng = np.random.default_rng(0)
    table = Table(
        np.arange(1_000_000), rng.choice(4, 1_000_000, p=[0.6, 0.3, 0.09, 0.01]), np.repeat(np.arange(100_000), 10)
    )
    start = time.process_time()
    epochs = table.epochs(parse("balanced", per_person={"mask=wear": 2}))
    assert len(epochs.rows(0)) == len(epochs)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("text", "power"), [("none", 1.0), ("balanced", 0.0), ("sqrt", 0.5), ("power:.25", 0.25), ("power:1", 1.0)]
)
def test_a_sampler_is_a_power(text: str, power: float) -> None:
    assert parse_sampler(text) == power


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": "balance"}, "unknown sampler 'balance'; did you mean balanced"),
        ({"text": "power"}, "unknown sampler 'power'; did you mean power:ALPHA"),
        ({"text": "power:2"}, "sampler=power:2: expected a power from 0"),
        ({"text": "power:nan"}, "sampler=power:nan: expected a power from 0"),
        ({"text": "power:x"}, "sampler=power:x: expected a power from 0"),
        ({"counts": {"wear": 3}}, "unknown class in sample_counts 'wear'; did you mean wear-m or wear-f"),
        ({"counts": {"wear-m": 0}}, "counts: expected a whole number of images, 1 or more, for 'wear-m', found 0"),
        ({"counts": {"wear-m": 2.5}}, "counts: expected a whole number .* found 2.5"),
        ({"counts": {"wear-m": True}}, "counts: expected a whole number .* found True"),
        ({"text": "sqrt", "counts": {"wear-m": 3}}, "sampler=sqrt and sample_counts contradict each other"),
        ({"per_person": {"wear-n": 1}}, "unknown class in per_person 'wear-n'; did you mean wear-m"),
        ({"per_person": {"mosk=wear": 1}}, "unknown attribute in per_person 'mosk'; did you mean mask"),
        ({"per_person": {"mask=weer": 1}}, "unknown value of mask in per_person 'weer'; did you mean wear"),
        ({"per_person": {"mask=wear": "1"}}, "per_person: expected a whole number .* for 'mask=wear', found '1'"),
        (
            {"per_person": {"mask=wear": 1, "gender=f": 2}},
            "per_person: class 'wear-f' belongs to both mask=wear and gender=f",
        ),
        ({"fixed": True}, "per_person_fixed needs per_person, which is not set"),
    ],
)
def test_impossible_settings_are_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(**given)


def test_without_attributes_only_classes_can_be_named() -> None:
    with pytest.raises(UsageError, match="unknown attribute in per_person 'mask'") as error:
        parse_sampling("none", ["a", "b"], per_person={"mask=wear": 1})
    assert error.value.hint == "these classes have no attributes; use names of classes"


def test_a_class_may_have_an_equals_sign_in_its_name() -> None:
    assert parse_sampling("none", ["a", "x=1"], per_person={"x=1": 2}) == SamplerConfig(
        2, kinds=(-1, 0), max_per_person=(2,)
    )
