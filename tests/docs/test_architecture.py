"""docs/architecture.md is true: its packages are those of the tree, in the order of their ranks, and the files it names
exist.
"""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT
from tests.test_layers import RANKS

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def packages_in_table(top: str) -> list[str]:
    """Return the packages of the table whose first header is the package's name, in its order."""
    rows = TEXT.split(f"| `{top}` |")[1].split("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([\w.]+)`", row.split("|")[1])]


def package(top: str, name: str) -> str:
    """Return the name a package has in the tables: the parts of the command line are in one row."""
    return name.split(".")[0] if top == "ensemble" else name


@pytest.mark.parametrize("top", ["folds", "ensemble"])
def test_the_tables_name_every_package_in_the_order_of_ranks(top: str) -> None:
    ranks = {
        package(top, name): rank for rank, row in enumerate(RANKS[top]) for name in row if not name.startswith("__")
    }
    named = packages_in_table(top)
    assert set(named) == set(ranks)
    assert [ranks[name] for name in named] == sorted(ranks[name] for name in named)


def test_the_files_it_names_exist() -> None:
    named = re.findall(r"`([\w/]+\.py)`", TEXT)
    assert named
    assert [name for name in named if not any((ROOT / top / name).is_file() for top in ("", "folds", "ensemble"))] == []


def test_it_fits_on_two_screens() -> None:
    assert len(TEXT.splitlines()) <= 100
