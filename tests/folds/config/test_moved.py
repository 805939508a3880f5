"""A test set that was moved together with its table is found from the table's new place."""

import logging
from pathlib import Path

import pytest

from folds.config.files import load_settings
from folds.utils.files import relocated


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "new" / "photos").mkdir(parents=True)
    (tmp_path / "new" / "table.csv").touch()
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text("data = '/old/table.csv'\ntest = '/old/photos'\n", encoding="utf-8")


def test_the_test_set_follows_the_table_and_is_said(caplog):
    with caplog.at_level(logging.INFO, "folds.config.files"):
        settings = load_settings({"data": "new/table.csv"}, Path("run.toml"))[0]
    assert (settings.data, settings.test) == (Path("new/table.csv"), Path("new/photos"))
    assert "test: new/photos (moved with the table; run.toml names /old/photos, which is not there)" in caplog.text


def test_a_test_set_that_is_named_or_elsewhere_is_kept():
    assert load_settings({"data": "new/table.csv", "test": "x"}, Path("run.toml"))[0].test == Path("x")
    assert load_settings({}, Path("run.toml"))[0].test == Path("/old/photos")
    assert relocated(Path("/other/photos"), Path("/old/table.csv"), Path("new/table.csv")) is None
    assert relocated(Path("/old/gone"), Path("/old/table.csv"), Path("new/table.csv")) is None
