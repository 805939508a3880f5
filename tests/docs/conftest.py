"""The real parsers of the command line, and small data in the form that the pages' examples expect."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

COMMANDS = (
    "demo",
    "prepare",
    "folds",
    "kfold",
    "tune",
    "blend",
    "tta",
    "explain",
    "decide",
    "mistakes",
    "labels",
    "distill",
    "predict",
    "export",
    "push",
    "soup",
    "report",
    "costs",
    "serve",
    "runs",
    "trust",
    "doctor",
    "completion",
)
AFTER_RUNS = ("diff", "note", "show", "rm", "rename", "mv")


@pytest.fixture(scope="session")
def parsers() -> Mapping[str, Any]:
    """The click command behind each command, as `main` builds it."""
    import typer.core

    from ensemble.cli.app import main

    made: dict[str, Any] = {}

    def keep(command: Any, *_: Any, **__: Any) -> int:
        made[command.name] = command
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.core.TyperCommand, "main", keep)
        for words in [*([name] for name in COMMANDS), *(["runs", word] for word in AFTER_RUNS)]:
            with pytest.raises(SystemExit):
                main(words)
    return made


@pytest.fixture
def own_data(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos.csv (path, label, person), test.csv (path) and images, made the current one."""
    folder = tmp_path / "own"
    shutil.copytree(drawn, folder / "images")
    train = sorted((folder / "images" / "train" / "images").glob("[!.]*/[!.]*"))
    test = sorted((folder / "images" / "eval" / "images").glob("[!.]*"))
    _write(folder / "photos.csv", "path,label,person", [(_path(folder, f), _label(f), f.parent.name) for f in train])
    _write(folder / "test.csv", "path", [(_path(folder, file),) for file in test])
    monkeypatch.chdir(folder)
    return folder


def _path(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()


def _label(file: Path) -> str:
    """The mask state and gender of a synthetic face, from its names: classes that 30 people have enough of."""
    state = "wear" if file.stem.startswith("mask") else file.stem.partition("_")[0]
    return f"{state} {file.parent.name.split('_')[1]}"


def _write(path: Path, header: str, rows: list[tuple[str, ...]]) -> None:
    assert rows
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(","), *rows])


@pytest.fixture
def places(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """The folder that `<!-- run: WHERE -->` names, made the current one."""

    def place(where: str) -> Path:
        return request.getfixturevalue({"own data": "own_data", "trained runs": "grid"}[where])

    return place
