"""Splits of tables with several labels or numbers: balanced by person, printed, saved, read back and audited."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ensemble.cli.reports.folds import folds_text
from folds.auditing.checks import audit_table
from folds.auditing.run import load_audited
from folds.data.table import Dataset, SampleTable
from folds.errors import EnsembleError, UsageError
from folds.splits.assignment import FoldAssignment, load_folds
from folds.splits.checks import check_folds
from folds.splits.columns import folds_of_column
from folds.splits.repeated import max_rand_index, repeated_holdouts
from folds.splits.sklearn_splitters import StratifiedPersonKFold
from folds.splits.split import split
from folds.splits.strata import columns_named, count_groups
from tests.folds.sample_tables import table_of_columns

PEOPLE, EACH, NAMES = 40, 6, ("hat", "glasses", "beard")


@pytest.fixture(scope="module")
def labeled() -> SampleTable:
    """240 samples of 40 people: common, rare and partly unknown labels, and two sites."""
    rng = np.random.default_rng(0)
    persons = np.repeat(np.arange(PEOPLE), EACH)
    shares = np.stack([rng.beta(0.5, b, PEOPLE) for b in (0.8, 1.5, 2.0)], axis=1)
    values = (rng.random((len(persons), 3)) < shares[persons]).astype(float)
    values[:, 2] = np.where(persons >= 6, 0, 1)  # six people have it, always
    values[rng.random(len(persons)) < 0.1, 0] = np.nan
    return table_of_columns(values, NAMES, "multilabel", persons, site=["a" if one % 3 else "b" for one in persons])


@pytest.fixture(scope="module")
def numbered() -> SampleTable:
    rng = np.random.default_rng(1)
    persons = np.repeat(np.arange(PEOPLE), EACH)
    age = np.round(rng.normal(45, 15, PEOPLE), 1)[persons]
    weight = np.where(rng.random(len(persons)) < 0.1, np.nan, rng.integers(45, 95, PEOPLE)[persons])
    return table_of_columns(np.stack([age, weight], axis=1), ("age", "weight"), "regression", persons)


def deviations(made: FoldAssignment, table: SampleTable) -> np.ndarray:
    values = table.label_values()
    folds = [made.validation_index(fold) for fold in range(made.k)]
    return np.array([np.abs(np.nanmean(values[rows], axis=0) - np.nanmean(values, axis=0)) for rows in folds])


def test_every_label_is_in_every_fold_and_its_share_is_even(labeled: SampleTable) -> None:
    made = split(labeled)
    assert isinstance(made, FoldAssignment)
    assert (made.task, made.classes) == ("multilabel", NAMES)
    assert made.check() == []
    assert deviations(made, labeled)[:, :2].max() < 0.06
    assert deviations(made, labeled)[:, 2].max() < 0.11, "six people for five folds"
    assert made.repair is not None
    assert "deviation of a label share" in made.repair_text
    plain = split(labeled, repair=False)
    assert isinstance(plain, FoldAssignment)
    assert deviations(plain, labeled).mean() > deviations(made, labeled).mean()


def test_the_folds_are_those_of_the_splitter_for_arrays(labeled: SampleTable, numbered: SampleTable) -> None:
    age = table_of_columns(numbered.label_values()[:, :1], ("age",), "regression", np.repeat(np.arange(PEOPLE), EACH))
    for table, y in ((labeled, labeled.label_values()), (age, age.label_values()[:, 0])):
        made = split(table, seed=3)
        assert isinstance(made, FoldAssignment)
        parts = StratifiedPersonKFold(5, random_state=3).split(y, y, groups=table.persons)
        assert all((made.validation_index(fold) == test).all() for fold, (_, test) in enumerate(parts))


def test_other_columns_repeats_and_a_held_out_part(labeled: SampleTable) -> None:
    within = split(labeled, group_within="site")
    assert isinstance(within, FoldAssignment)
    share = [np.mean(labeled.attributes["site"][within.validation_index(fold)] == "b") for fold in range(5)]
    assert max(share) - min(share) < 0.15
    assert within.check() == []
    people = count_groups(labeled, columns_named(labeled, ["site"]), 5)
    assert people.overlapping
    assert people.values == 6  # three labels, those known to be without a hat, two sites
    assert people.counts.shape[1] > people.values, "a label in each site"
    several = split(labeled, repeats=2)
    assert isinstance(several, list)
    assert max_rand_index(several) < 0.3
    assert all(one.check() == [] for one in several)
    held = split(labeled, holdout=0.25)
    assert isinstance(held, FoldAssignment)
    assert abs(len(held.validation_index(0)) / len(labeled) - 0.25) < 0.06
    assert deviations(held, labeled).max() < 0.06
    assert [one.task for one in repeated_holdouts(labeled, 0.25, 2)] == ["multilabel"] * 2
    sites = split(labeled, leave_out="site")
    assert isinstance(sites, FoldAssignment)
    assert (sites.names, sites.task) == (("a", "b"), "multilabel")


def test_numbers_are_spread_by_their_quantiles(numbered: SampleTable) -> None:
    made = split(numbered)
    assert isinstance(made, FoldAssignment)
    assert made.check() == []
    spread = np.nanstd(numbered.label_values(), axis=0)
    assert (deviations(made, numbered) / spread).max() < 0.35
    whole = np.random.default_rng(0).integers(5, size=PEOPLE)[np.repeat(np.arange(PEOPLE), EACH)]
    random = FoldAssignment(numbered.ids, numbered.labels, numbered.persons, whole, 5, 0)  # type: ignore[arg-type]
    assert deviations(made, numbered).mean() < deviations(random, numbered).mean()


def test_what_no_fold_can_have_is_warned_of(labeled: SampleTable) -> None:
    persons = np.repeat(np.arange(PEOPLE), EACH)
    values = labeled.label_values()
    values[:, 1] = persons < 2  # two people for five folds
    values[:, 2] = persons != 0  # one person without it
    made = split(table_of_columns(values, NAMES, "multilabel", persons))
    assert isinstance(made, FoldAssignment)
    lines = made.check()
    assert lines[0].startswith("label glasses: 2 people for 5 folds: absent from validation of folds")
    assert lines[1].startswith("images known to be without beard: 1 person for 5 folds: absent from validation of")
    assert lines[1].endswith(f"and from training of fold {made.fold[0]}")
    two = np.stack([np.where(persons < 2, persons, np.nan), persons], axis=1)
    numbers = table_of_columns(two, ("a", "b"), "regression", persons)
    assert check_folds(split(numbers), numbers.classes)[0].startswith("number a: 2 people for 5 folds")  # type: ignore[arg-type]


def test_the_printed_table_has_shares_or_means(labeled: SampleTable, numbered: SampleTable) -> None:
    made = split(labeled)
    assert isinstance(made, FoldAssignment)
    shown = made.display_table()
    assert list(shown.header) == ["label", *(f"fold {i}" for i in range(5)), "all", "people", "deviation"]
    values = labeled.label_values()
    assert shown.rows[2][6] == f"36 (.{36 / 240 * 1000:.0f})"
    assert shown.rows[2][7] == "6"
    assert shown.rows[0][6] == f"{int((values[:, 0] == 1).sum())} ({np.nanmean(values[:, 0]):.3f})".replace("0.", ".")
    text = folds_text(made, NAMES, {})
    assert "36 (.150)" in text
    record = made.to_dict()
    assert record["mean"]["beard"] == pytest.approx(0.15)
    assert sum(record["images"][2]) == 36
    assert sum(record["samples"]) == 240
    assert record["people_per_class"][2] == 6
    means = split(numbered)
    assert isinstance(means, FoldAssignment)
    fold = means.validation_index(1)
    assert means.display_table().rows[0][2] == f"{numbered.label_values()[fold, 0].mean():.4g}"
    assert means.to_dict()["deviation"]["age"] == pytest.approx(deviations(means, numbered)[:, 0].max())


def test_folds_are_written_and_read_back(labeled: SampleTable, tmp_path: Path) -> None:
    made = split(labeled)
    assert isinstance(made, FoldAssignment)
    path = made.save(tmp_path / "folds.csv")
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert (record["task"], record["classes"]) == ("multilabel", list(NAMES))
    for again in (load_folds(path, labeled), load_folds(path)):
        assert (again.task, again.classes, again.sha) == ("multilabel", NAMES, made.sha)
        assert again.to_dict() | {"table_sha": ""} == made.to_dict() | {"table_sha": ""}
    turned = table_of_columns(
        labeled.label_values()[:, ::-1], NAMES[::-1], "multilabel", np.repeat(np.arange(PEOPLE), EACH)
    )
    assert (load_folds(path, turned).fold == made.fold).all(), "the order of the columns does not matter"
    fewer = table_of_columns(labeled.label_values()[:, :2], NAMES[:2], "multilabel", np.repeat(np.arange(PEOPLE), EACH))
    with pytest.raises(EnsembleError, match="another label"):
        load_folds(path, fewer)
    data, assignment = load_audited(None, path)
    assert (data.train.task, data.train.classes) == ("multilabel", NAMES)
    assert assignment is not None


def test_a_column_of_folds(labeled: SampleTable) -> None:
    table = table_of_columns(
        labeled.label_values(), NAMES, "multilabel", np.repeat(np.arange(PEOPLE), EACH),
        fold=[str(i // EACH % 5) for i in range(len(labeled))],
    )  # fmt: skip
    assert folds_of_column(table).task == "multilabel"
    with pytest.raises(UsageError):
        folds_of_column(table, "label")


def test_the_audit_names_labels_and_numbers(labeled: SampleTable, numbered: SampleTable) -> None:
    found = {one.kind: one for one in audit_table(Dataset(labeled), k=7)}
    assert [one.detail for one in found["labels not in every fold"].cases] == ["label beard: 6 people for 7 folds"]
    assert "only one set of labels" in found["people with a constant label"].message
    made = split(labeled)
    assert isinstance(made, FoldAssignment)
    assert "labels not in every fold" not in {one.kind for one in audit_table(Dataset(labeled), made)}
    assert "numbers not in every fold" in {one.kind for one in audit_table(Dataset(numbered), k=PEOPLE + 1)}
