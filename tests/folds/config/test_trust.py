"""A settings file that merely lies in a folder names no code until the user trusts it."""

from pathlib import Path

import pytest

from folds.config.files import load_settings, read_run_tables, tuning_of
from folds.config.trust import code_in, is_trusted, trust, trusted_file
from folds.errors import EnsembleError

LIES = Path("ensemble.toml")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "work"


def test_a_lying_file_names_no_code():
    LIES.write_text("transform = 'evil:f'\n", encoding="utf-8")
    with pytest.raises(EnsembleError, match=r"ensemble.toml names code \(transform = evil:f\)") as caught:
        load_settings({})
    assert "ensemble trust ensemble.toml" in caught.value.hint


def test_what_the_user_names_may_name_code():
    LIES.write_text("transform = 'evil:f'\n", encoding="utf-8")
    assert load_settings({}, LIES)[1].transform == "evil:f"
    assert load_settings({"transform": "mine:f"})[1].transform == "mine:f"
    assert load_settings({}, runs_code=False)[1].transform == "evil:f"


def test_trust_lasts_until_the_file_is_changed():
    LIES.write_text("transform = 'mine:f'\n", encoding="utf-8")
    assert trust(LIES) == ["transform = mine:f"]
    assert load_settings({})[1].transform == "mine:f"
    LIES.write_text("transform = 'mine:g'\n", encoding="utf-8")
    with pytest.raises(EnsembleError, match="mine:g"):
        load_settings({})


def test_trust_does_not_extend_to_a_copy_elsewhere(here, monkeypatch):
    LIES.write_text("transform = 'mine:f'\n", encoding="utf-8")
    trust(LIES)
    (here.parent / "other").mkdir()
    LIES.rename(here.parent / "other" / LIES)
    monkeypatch.chdir(here.parent / "other")
    assert not is_trusted(LIES)


def test_trust_can_be_taken_back():
    LIES.write_text("transform = 'mine:f'\n", encoding="utf-8")
    trust(LIES)
    trust(LIES, remove=True)
    assert not is_trusted(LIES)
    assert trusted_file().read_text(encoding="utf-8").split() == []


def test_tables_of_a_lying_file_name_no_code():
    LIES.write_text("[[run]]\ntransform = 'evil:f'\n", encoding="utf-8")
    with pytest.raises(EnsembleError, match="names code"):
        read_run_tables()
    LIES.write_text("[space]\ntransform = ['evil:f', 'evil:g']\n", encoding="utf-8")
    with pytest.raises(EnsembleError, match="names code"):
        tuning_of()
    assert tuning_of(LIES)[1] == {"transform": ["evil:f", "evil:g"]}


def test_a_metric_is_code_only_as_module_and_function():
    assert code_in({"metric": "macro_f1", "tune": {"metric": "evil:cost"}}) == ["metric = evil:cost"]
    assert code_in({"loss": "focal:gamma=1"}) == []
