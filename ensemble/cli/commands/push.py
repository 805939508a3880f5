"""`ensemble push`: upload an exported model to a repository of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import RUN


def push(
    model: Annotated[Path, typer.Argument(help="an exported model, a folder or a .zip", metavar="MODEL")],
    repository: Annotated[str, typer.Argument(help="owner/name on the hub, created if needed", metavar="REPO")],
    public: Annotated[
        bool, typer.Option("--public", help="create a public repository [private]", rich_help_panel=RUN)
    ] = False,
    message: Annotated[
        str | None, typer.Option(help="message of the commit [the name of the model]", rich_help_panel=RUN)
    ] = None,
) -> int:
    """Upload an exported model; its parts are checked before.

    Log in first with: hf auth login. In Python, ensemble.from_hub("owner/name") loads it again.
    """
    from ensemble.export.hub import push as upload

    made = upload(model, repository, public=public, message=message)
    console.result(f"{made.repository} is at {made.url} (revision {made.revision})", made.to_dict())
    console.next_step(f"python -c \"import ensemble as en; print(en.from_hub('{made.repository}'))\"")
    return 0
