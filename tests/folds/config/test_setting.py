from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest

from folds.config.command_settings import Settings
from folds.config.files import load_settings, read_run_tables, to_toml, variable_of
from folds.config.lookup import all_settings, by_key, default_of, key_of, setting_parameters, spelling_of, spellings_of
from folds.config.recipe import Recipe
from folds.config.setting import PANELS, Range
from folds.config.settings_page import settings_page
from folds.errors import EnsembleError, UsageError
from tests.conftest import ROOT

# Preferred spelling, the one before, a value, and what it becomes.
RENAMED: list[tuple[str, str, Any, Any]] = [
    ("resize", "fit", "crop", "crop"),
    ("select", "keep", "best", "best"),
    ("random_erasing", "erase", 0.5, 0.5),
    ("freeze_epochs", "freeze", 2, 2),
    ("grad_accum", "accumulate", 4, 4),
    ("normalize", "normalise", "data", "data"),
    ("init_weights", "init", "w.pt", Path("w.pt")),
]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("new", "old", "value", "read"), RENAMED)
def test_both_spellings_work_as_argument_key_and_variable(
    new: str, old: str, value: Any, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (key_of(new), key_of(old), spelling_of(old)) == (old, old, new)
    for name in (new, old, new.replace("_", "-")):
        assert getattr(load_settings({name: value})[1], old) == read
        Path("c.toml").write_text(f"{name} = {value!r}\n")
        assert getattr(load_settings({}, Path("c.toml"))[1], old) == read
        with monkeypatch.context() as patch:
            patch.setenv(variable_of(name.replace("-", "_")), str(value))
            assert getattr(load_settings({})[1], old) == read


@pytest.mark.parametrize(("new", "old", "value", "read"), RENAMED)
def test_a_run_records_the_spelling_of_before(new: str, old: str, value: Any, read: Any) -> None:
    recorded = to_toml(Settings(), load_settings({new: value})[1], {}).splitlines()
    assert any(line.startswith(f"{old} = ") for line in recorded)
    assert not any(line.startswith(f"{new} = ") for line in recorded)


def test_a_group_is_a_person() -> None:
    assert load_settings({"group": "patient"})[0].person == "patient"
    assert load_settings({"group_regex": "p(.*)"})[0].person_regex == "p(.*)"
    assert "also --group [person, or a known name" in all_settings()["person"].help_text


def test_a_stronger_place_may_use_the_other_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("ensemble.toml").write_text("fit = 'crop'\n")
    assert load_settings({"resize": "letterbox"})[1].fit == "letterbox"
    monkeypatch.setenv("ENSEMBLE_RESIZE", "squash")
    _, recipe, origins = load_settings({})
    assert (recipe.fit, origins) == ("squash", {"fit": "environment"})
    assert load_settings({"fit": "crop"})[1].fit == "crop"


@pytest.mark.parametrize("place", ["flag", "file", "environment", "run"])
def test_two_spellings_in_one_place_are_an_error(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"resize": "crop", "fit": "crop"}
    text = "resize = 'crop'\nfit = 'crop'\n"
    Path("c.toml").write_text(text if place == "file" else f"[[run]]\n{text}" if place == "run" else "")
    if place == "environment":
        monkeypatch.setenv("ENSEMBLE_RESIZE", "crop")
        monkeypatch.setenv("ENSEMBLE_FIT", "crop")
    with pytest.raises(UsageError, match="resize and fit are two spellings of one setting"):
        load_settings(both if place == "flag" else {}, Path("c.toml"), *read_run_tables(Path("c.toml")))


def test_runs_of_a_file_have_both_spellings() -> None:
    Path("ensemble.toml").write_text("[[run]]\nresize = 'crop'\n[[run]]\nfit = 'crop'\n")
    assert read_run_tables() == [{"fit": "crop"}, {"fit": "crop"}]


@pytest.mark.parametrize(
    ("typed", "meant"), [("resiz", "resize"), ("norm-alise", "normalise"), ("freeze_epoch", "freeze_epochs")]
)
def test_an_unknown_name_offers_the_nearest_of_all_spellings(typed: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"unknown setting '{typed}'; did you mean .*{meant}"):
        by_key({typed: 1})
    Path("c.toml").write_text(f"{typed} = 1\n")
    with pytest.raises(EnsembleError, match=rf"unknown key '{typed}'; did you mean .*{meant}"):
        load_settings({}, Path("c.toml"))


def test_no_spelling_means_two_settings() -> None:
    names = [name for one in all_settings().values() for name in one.spellings]
    assert len(set(names)) == len(names)
    assert sorted(spellings_of(all_settings())) == sorted(names)


def test_every_setting_says_what_it_is() -> None:
    for one in all_settings().values():
        assert one.help.strip(), one.key
        assert one.panel in PANELS, one.key
        assert all(choice in one.help for choice in one.choices), one.key
        one.check(one.default)
        assert default_of(one.spelling) == default_of(one.key)


@pytest.mark.parametrize(
    ("numbers", "text", "inside", "outside"),
    [
        (Range(minimum=2), "2 or more", [2, 1e9], [1, math.nan, math.inf]),
        (Range(above=0), "above 0", [1e-9], [0, -1, math.inf]),
        (Range(minimum=0, maximum=1), "from 0 to 1", [0, 1], [-0.1, 1.1, math.nan]),
        (Range(minimum=0, below=1, off=0), "from 0 (off) to below 1", [0, 0.99], [1]),
        (Range(above=0, below=1), "above 0 and below 1", [0.5], [0, 1]),
        (Range(above=0, maximum=1, off=1), "above 0 and at most 1 (off)", [1], [0, 1.1]),
        (Range(minimum=0, below=2**32), "from 0 to below 2**32", [2**32 - 1], [2**32]),
    ],
)
def test_a_range_holds_what_its_words_say(numbers: Range, text: str, inside: list[float], outside: list[float]) -> None:
    assert numbers.text() == text
    assert all(map(numbers.holds, inside))
    assert not any(map(numbers.holds, outside))


def test_a_default_is_shown_as_one_reads_it() -> None:
    shown = {key: one.default_text for key, one in all_settings().items()}
    assert (shown["epochs"], shown["mixup"], shown["freeze"], shown["clip"]) == ("15", "0: off", "0: off", "1")
    assert (shown["repair"], shown["compile"], shown["arch"], shown["holdout"]) == ("yes", "no", "swin", "")
    assert shown["lr"].startswith("by family and size from pretrained weights, 1e-3 from random ones")


def test_a_signature_of_all_settings_can_be_made() -> None:
    signature = inspect.Signature(setting_parameters())
    assert len(signature.parameters) == len(all_settings())
    assert signature.parameters["resize"].default == Recipe().fit
    assert signature.parameters["lr"].annotation == float | None
    assert load_settings({name: one.default for name, one in signature.parameters.items() if one.default != {}})[
        :2
    ] == (
        Settings(),
        Recipe(),
    )


def test_the_table_of_settings_in_the_docs_is_up_to_date() -> None:
    page = ROOT / "docs/settings.md"
    assert page.read_text(encoding="utf-8") == settings_page(), (
        "python -m folds.config.settings_page > docs/settings.md"
    )
