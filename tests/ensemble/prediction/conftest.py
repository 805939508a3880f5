"""Two small blends of the trained grid, for tests of how they are predicted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import Called, made_once


@pytest.fixture(scope="session")
def _two_blends(tmp_path_factory: pytest.TempPathFactory, _grid: tuple[Path, Called]) -> Path:
    def make(folder: Path) -> None:
        from ensemble.cli import main

        def typed(*words: object) -> None:
            with pytest.raises(SystemExit) as left:
                main([str(word) for word in words])
            assert not left.value.code

        shutil.copytree(_grid[0], folder / "grid")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder / "grid")
            files = sorted(Path("runs").glob("*.npy"))
            typed("blend", *files, "--method", "soft", "-o", "soft", "--quiet")
            typed("tta", "test_resnet", "--views", "hflip", "--adaptive", "--quiet")
            views = sorted(Path("runs/tta").glob("*.npy"))
            typed("blend", *files, *views, "--method", "soft", "-o", "views", "--quiet")

    # A copy for each process of tests: predictions of two at once would see each other's work folders.
    own = tmp_path_factory.mktemp("own") / "grid"
    shutil.copytree(made_once(tmp_path_factory, "two_blends", make) / "grid", own)
    return own


@pytest.fixture
def two_blends(_two_blends: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the blends soft and views, made the current one; it must not be changed."""
    monkeypatch.chdir(_two_blends)
    return _two_blends
