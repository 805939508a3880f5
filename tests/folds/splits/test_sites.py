"""A second grouping: sites balanced over folds of whole people, or one fold for each site."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import folds
from folds.data.face import training_table
from folds.errors import EnsembleError, UsageError
from folds.splits.assignment import FoldAssignment
from folds.splits.sites import leave_out_sites, site_counts

N_PEOPLE = 60


def frame(seed: int = 0, sites: int = 4) -> pd.DataFrame:
    """People with 1 to 6 images at one site each; class mix and size differ from site to site."""
    rng = np.random.default_rng(seed)
    mixes, rows = rng.dirichlet(np.full(3, 0.7), sites), []
    for person in range(N_PEOPLE):
        site = int(rng.choice(sites, p=np.arange(sites, 0, -1) / (sites * (sites + 1) / 2)))
        label = "abc"[rng.choice(3, p=mixes[site])]
        rows += [(f"{person}-{i}.jpg", label, f"p{person}", f"h{site}") for i in range(int(rng.integers(1, 7)))]
    return pd.DataFrame(rows, columns=["path", "label", "person", "site"])


def spread(made: FoldAssignment, site: np.ndarray) -> float:
    """The largest difference of the share of a site in a fold from its share in all images."""
    _, counts = site_counts(made, site)
    return float(np.abs(counts / counts.sum(axis=0) - counts.sum(axis=1, keepdims=True) / counts.sum()).max())


def one_split(**settings: object) -> FoldAssignment:
    made = folds.split(frame(), **settings)  # type: ignore[call-overload]
    assert isinstance(made, FoldAssignment)
    return made


def test_sites_are_balanced_and_people_stay_whole() -> None:
    worse = 0
    for seed in range(5):
        table = frame(seed)
        plain, made = (folds.split(table, k=4, group_within=name) for name in (None, "site"))
        assert isinstance(made, FoldAssignment)
        assert isinstance(plain, FoldAssignment)
        assert made.check() is not None  # raises if a person is in two folds
        site = table["site"].to_numpy(str)
        assert spread(made, site) < 0.12
        worse += spread(made, site) > spread(plain, site)
    assert worse == 0


def test_each_site_is_one_fold_whatever_the_order_of_the_rows() -> None:
    table = frame()
    made = folds.split(table, leave_out="site")
    assert isinstance(made, FoldAssignment)
    assert (made.k, made.names, made.leave_out) == (4, ("h0", "h1", "h2", "h3"), "site")
    assert [made.names[fold] for fold in made.fold.tolist()] == table["site"].tolist()
    shuffled = table.sample(frac=1, random_state=1)
    again = folds.split(shuffled, leave_out="site")
    assert isinstance(again, FoldAssignment)
    assert again.sha == made.sha
    assert "fold 1: h1" in repr(made)


def test_numbers_of_sites_are_sorted_as_numbers() -> None:
    table = frame(sites=12).assign(site=lambda rows: rows["site"].str[1:])
    made = folds.split(table, leave_out="site")
    assert isinstance(made, FoldAssignment)
    assert made.names == tuple(map(str, range(made.k)))


def test_sites_that_share_people_are_one_fold(caplog: pytest.LogCaptureFixture) -> None:
    table = frame()
    people = table.groupby("person")["site"].transform("first")
    at = table.index[(people == "h1") & table["person"].duplicated()][0]
    table.loc[at, "site"] = "h3"
    made = folds.split(table, leave_out="site")
    assert isinstance(made, FoldAssignment)
    assert made.names == ("h0", "h1 + h3", "h2")
    name = table.loc[at, "person"]
    assert f"1 person has images of several values of column 'site' ({name}: h1, h3)" in caplog.text
    seen = [
        set(made.persons[made.training_index(fold)]) & set(made.persons[made.validation_index(fold)])
        for fold in range(3)
    ]
    assert seen == [set()] * 3


def test_sites_that_all_share_people_cannot_be_left_out() -> None:
    table = frame()
    first = table.drop_duplicates("person").index[:1]
    extra = pd.DataFrame(
        [(f"x{i}.jpg", table.loc[first[0], "label"], table.loc[first[0], "person"], f"h{i}") for i in range(4)],
        columns=table.columns,
    )
    with pytest.raises(EnsembleError, match="share people") as error:
        folds.split(pd.concat([table, extra]), leave_out="site")
    assert "group_within=site" in str(error.value.hint)
    assert error.value.details[0].endswith("h0, h1, h2, h3")


@pytest.mark.parametrize(
    ("column", "cell", "kind", "said"),
    [
        ("sit", None, UsageError, "unknown column 'sit'; did you mean site"),
        ("label", None, UsageError, "is the label of each sample"),
        ("site", "", EnsembleError, "have no value in column 'site'"),
        ("one", None, EnsembleError, "expected at least 2 values in column 'one'"),
    ],
)
def test_columns_that_are_no_sites_are_refused(column: str, cell: str | None, kind: type, said: str) -> None:
    table = frame().assign(one="x")
    if cell is not None:
        table.loc[3, column] = cell
    with pytest.raises(kind, match=said):
        leave_out_sites(training_table(table), column)


@pytest.mark.parametrize("other", [{"k": 3}, {"group_within": "site"}, {"stratify": "site"}, {"holdout": 0.2}])
def test_a_second_way_to_split_contradicts(other: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="contradict each other"):
        one_split(leave_out="site", **other)


def test_the_second_grouping_is_recorded_and_read_again(tmp_path: Path) -> None:
    left, within, plain = one_split(leave_out="site"), one_split(group_within="site", k=4), one_split(k=4)
    for name, made in (("left", left), ("within", within), ("plain", plain)):
        found = folds.load_folds(made.save(tmp_path / f"{name}.csv"))
        assert (found.leave_out, found.names, found.group_within) == (made.leave_out, made.names, made.group_within)
    record = json.loads((tmp_path / "plain.json").read_text())
    assert not {"leave_out", "group_within", "names"} & set(record)  # the bytes of earlier versions
    assert within.group_within == "site"


def test_a_changed_file_of_folds_is_no_longer_one_of_sites(tmp_path: Path) -> None:
    path = one_split(leave_out="site").save(tmp_path / "f.csv")
    text = path.read_text().splitlines()
    people = {line.split(",")[2] for line in text[1:] if line.endswith(",3")}
    path.write_text("\n".join(line[:-1] + "2" if line.split(",")[2] in people else line for line in text) + "\n")
    assert folds.load_folds(path).leave_out is None
