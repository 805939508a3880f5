"""`ensemble trust`: the settings file of a folder names code only after it is trusted."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    Path("evil.py").write_text("open('was-run', 'w')\ndef f(image): return image\n", encoding="utf-8")
    Path("ensemble.toml").write_text("transform = 'evil:f'\n", encoding="utf-8")


def test_a_lying_file_runs_nothing(call):
    called = call("kfold", "--dry-run")
    assert called.code == 1
    assert called.err.startswith("error: ensemble.toml names code (transform = evil:f)")
    assert "hint: read ensemble.toml and the module, then ensemble trust ensemble.toml" in called.err
    assert not Path("was-run").exists()


def test_trust_says_what_it_allows_and_runs_nothing(call):
    called = call("trust")
    assert (called.code, called.out) == (0, "ensemble.toml: trusted (transform = evil:f)\n")
    assert not Path("was-run").exists()
    assert "names code" not in call("kfold", "--dry-run", "--k", "1").err
    assert call("trust", "--remove").out == "ensemble.toml: no longer trusted (transform = evil:f)\n"


def test_a_file_that_is_not_there_cannot_be_trusted(call):
    assert call("trust", "nowhere.toml").err.startswith("error: nowhere.toml cannot be read")


def test_the_record_of_a_run_that_was_found_names_no_code(grid, call):
    Path("evil.py").write_text("open('ran', 'w').close()\n\ndef f(image): return image\n")
    record = Path("runs/test_vit/config.toml")
    record.write_text('transform = "evil:f"\n' + record.read_text())
    called = call("kfold", "--resume", "test_vit")
    assert called.code == 1
    assert "runs/test_vit/config.toml names code (transform = evil:f)" in called.err
    assert not Path("ran").exists()
