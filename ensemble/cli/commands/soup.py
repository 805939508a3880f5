"""`ensemble soup`: average the models of several runs fold by fold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import RUN, DeviceOption


def soup(
    runs: Annotated[
        list[str],
        typer.Argument(help="two or more runs of one architecture with the same folds", metavar="RUN..."),
    ],
    name: Annotated[str | None, typer.Option(help="name of the new run [soup-RUN]", rich_help_panel=RUN)] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="metric of the choice of runs [macro_f1; roc_auc for several labels, mae for numbers]",
            rich_help_panel=RUN,
        ),
    ] = None,
    batch_norm: Annotated[
        str,
        typer.Option(
            help="recompute batch statistics on the training images of each fold, or average those of the runs",
            metavar="recompute|average",
            rich_help_panel=RUN,
        ),
    ] = "recompute",
    data: Annotated[
        Path | None, typer.Option(help="the table the runs were trained on, if it was moved", rich_help_panel=RUN)
    ] = None,
    devices: DeviceOption = "auto",
    force: Annotated[bool, typer.Option("--force", help="replace a run of that name", rich_help_panel=RUN)] = False,
) -> int:
    """Average the weights of several runs fold by fold into one run, if it is better out of fold.

    The runs differ in seed or settings and started from the same weights. For each fold, the runs are chosen by the
    scores of the other folds. The soup costs as much as one run. If it is not better than the best single run, nothing
    is written, and the exit code is 3.
    """
    from ensemble.cli.terminal.progress import TerminalProgress
    from folds.runs.soup import soup as make_soup

    made = make_soup(
        runs,
        name=name,
        metric=metric,
        batch_norm=batch_norm,
        data=data,
        device=devices,
        force=force,
        progress=TerminalProgress(),
    )
    console.result(made.display_table().text(100), made.to_dict())
    if made.kept:
        console.note(f"\nrun {made.name} is written")
        console.next_step(f"ensemble blend runs/{made.name}.*.npy …")
    return 0 if made.kept else 3
