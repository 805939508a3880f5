"""The code uses the field's terms: no old names, no words of the old dialect in docstrings, comments and messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dialect import OLD_NAMES, dialect_of_code, old_names

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path for package in ("folds", "ensemble", "benchmarks", "examples") for path in (ROOT / package).rglob("*.py")
)
# Packages whose docstrings, comments and strings are checked.
CHECKED = ("ensemble", "folds", "benchmarks", "examples")
# Strings that are contracts: keys of JSON, columns, options and their values.
ALLOWED = {
    "distinguishable": "a key of --json and a column of ensemble runs",
    "nobody": "a key of blend.json",
    "grey": "a value of --fill",
    "new background: grey, white, black or blur": "the values of --fill",
}
# Words that are values of contracts, by the module that has them.
WORDS_ALLOWED = {
    "folds/execution/progress_log.py": {"begun": "an event in files of progress"},
    "folds/execution/ray_cluster.py": {"begun": "an event in files of progress"},
    "folds/images/bit_depth.py": {"grey": "a kind of image in the cache", "colour": "a kind of image in the cache"},
    "folds/preparation/settings.py": {"grey": "a value of --fill"},
    "folds/preparation/face.py": {"grey": "a value of --fill"},
    "folds/features/embed.py": {"normalise": "a key of a recipe in a job"},
    "ensemble/report/method/method_runs.py": {"normalise": "a key of a recipe in config.toml"},
    "folds/runs/initial_weights.py": {"normalise": "a key of a recipe in a checkpoint"},
}
# Old names that stay where they are the name of a contract.
NAMES_ALLOWED = {"Evidence": "what a report is made from"}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _is_checked(path: Path) -> bool:
    return any(path.is_relative_to(ROOT / package) for package in CHECKED)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_no_name_of_the_old_glossary_is_defined(path: Path) -> None:
    found = old_names(path.read_text(encoding="utf-8"))
    assert [one for one in found if one.split()[1] not in NAMES_ALLOWED] == []


@pytest.mark.parametrize("path", list(filter(_is_checked, MODULES)), ids=_name)
def test_no_word_of_the_old_dialect_is_in_the_code(path: Path) -> None:
    found = dialect_of_code(path.read_text(encoding="utf-8"), ALLOWED)
    assert [one for one in found if one.split()[1] not in WORDS_ALLOWED.get(_name(path), ())] == []


def test_every_checked_package_exists() -> None:
    assert all((ROOT / package).is_dir() for package in CHECKED)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("def vote_as_learnt(): ...", "vote_as_learnt"),
        ("class Sidecar: ...", "Sidecar"),
        ("def fit(person_codes): ...", "person_codes"),
        ("COOLEST = 0.1", "COOLEST"),
        ("class A:\n    told: bool = False", "told"),
        ("def f(self):\n    self.begun = 1", "begun"),
        ("def _refuse_blind(): ...", "_refuse_blind"),
    ],
)
def test_an_old_name_is_found_wherever_it_is_defined(source: str, name: str) -> None:
    assert [one.split()[1] for one in old_names(source)] == [name]


def test_a_name_that_is_only_used_or_only_contains_an_old_one_is_not_found() -> None:
    assert old_names("record.said\nsidecar_of = untold = refused = 1") == []
    assert not {"share", "place", "expected", "chosen", "unknown"} & OLD_NAMES.keys()


@pytest.mark.parametrize(
    "source",
    [
        '"""An honest score."""',
        "x = 1  # an honest score",
        'raise ValueError("not an honest score")',
        'text = f"{x} is an honest score of {y}"',
        'def f():\n    """Return it.\n\n    An honest score.\n    """',
    ],
)
def test_an_old_word_is_found_in_docstrings_comments_and_strings(source: str) -> None:
    [found] = dialect_of_code(source)
    assert found.endswith("honest → nested, unbiased, leakage-free")


def test_identifiers_and_allowed_strings_are_not_prose() -> None:
    assert dialect_of_code('learnt = record["nobody"]  # `honest` is a key', ALLOWED) == []
    assert dialect_of_code('text = "nobody knows"', ALLOWED) != []
