"""Options that several commands take, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensemble.cli.terminal import console

DataOption = Annotated[
    Path | None,
    typer.Option(help="a CSV, class folders, or the mask-competition layout [./data, else the built-in people]"),
]
TestOption = Annotated[Path | None, typer.Option(help="further images to predict: a CSV or a folder, labelled or not")]
PathOption = Annotated[str | None, typer.Option(help="CSV column of the image path [path]", metavar="COL")]
LabelOption = Annotated[str | None, typer.Option(help="CSV column of the class [label]", metavar="COL")]
PersonOption = Annotated[
    str | None, typer.Option(help="CSV column of the group that must not be split [person]", metavar="COL")
]
IdOption = Annotated[
    str | None, typer.Option(help="CSV column that names the samples [id, else the path]", metavar="COL")
]
SplitOption = Annotated[str | None, typer.Option(help="CSV column whose value 'test' keeps a row apart", metavar="COL")]
PersonRegexOption = Annotated[
    str | None, typer.Option(help="class folders: takes the person from the image path", metavar="REGEX")
]
WindowOption = Annotated[
    str | None,
    typer.Option(help="values that become black and white in 16-bit images [the file's range]", metavar="LO,HI"),
]


def fold_numbers(text: str | None) -> list[int] | None:
    """The folds of ``--fold 0,3``; None for all."""
    from folds.errors import UsageError

    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--fold {text}: expected fold numbers", hint="--fold 0 or --fold 0,3") from None


def jobs_asked(text: str) -> int | None:
    """The number of ``--jobs N``; None for ``auto``."""
    from folds.errors import UsageError

    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--jobs must be 1 or more, or auto, found {text}")
    return int(text)


def resuming() -> str:
    """This command as it was typed, with --resume."""
    import shlex

    return shlex.join(
        ["ensemble", *(word for word in console.words if word not in ("--resume", "--force")), "--resume"]
    )
