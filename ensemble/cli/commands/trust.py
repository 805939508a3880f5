"""`ensemble trust`: let a settings file that lies in a folder name code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensemble.cli.terminal import console


def trust(
    file: Annotated[Path, typer.Argument(help="the settings file", metavar="FILE")] = Path("ensemble.toml"),
    remove: Annotated[bool, typer.Option("--remove", help="trust it no longer")] = False,
) -> int:
    """Trust the transform that ./ensemble.toml names, as long as the file stays where it is and is not changed.

    A folder may come from elsewhere, so a file that merely lies in it runs no code. Read the file and the module that
    it names first. The file's place and content are remembered as a hash in ~/.config/ensemble/trusted
    ($XDG_CONFIG_HOME). A file given with -c needs no trust.
    """
    from folds.config import trust as trusted

    named = trusted.trust(file, remove)
    state = "no longer trusted" if remove else "trusted"
    code = ", ".join(named) if named else "it names no code"
    console.result(
        f"{file}: {state} ({code})",
        {"file": str(file), "trusted": not remove, "code": named, "remembered": str(trusted.trusted_file())},
    )
    return 0
