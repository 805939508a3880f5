"""`ensemble costs`: what a blend, its parts and its replacements score and cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import REPORT, DeviceOption


def costs(
    what: Annotated[str, typer.Argument(help="name of a blend or of a run", metavar="BLEND")],
    images: Annotated[
        str | None,
        typer.Argument(
            help="images for the measurement, which no model has seen [the test images]", metavar="[IMAGES]"
        ),
    ] = None,
    cascade: Annotated[
        str,
        typer.Option(help="loss of the nested score that the cascade may have, or exact", metavar="exact|LOSS"),
    ] = ".001",
    student: Annotated[
        str | None,
        typer.Option(help="a run that was trained to replace the blend [the first one that is found]", metavar="RUN"),
    ] = None,
    soup: Annotated[str | None, typer.Option(help="a soup [the first one of the blend's runs]", metavar="RUN")] = None,
    metric: Annotated[str, typer.Option(help="metric of a run (a blend has its own)", rich_help_panel=REPORT)] = (
        "macro_f1"
    ),
    csv: Annotated[
        Path | None, typer.Option(help="also write the table as a CSV", metavar="FILE", rich_help_panel=REPORT)
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="measure time and memory", rich_help_panel=REPORT)
    ] = True,
    devices: DeviceOption = "auto",
    force: Annotated[bool, typer.Option("--force", help="replace an existing CSV")] = False,
) -> int:
    """Print the score and the cost of a blend, of its parts, and of what can replace it.

    Rows: the best fold, the folds of the best run, with views, the full blend, its cascade, and a refit, a student and
    a soup if they exist. Each has its score on people whom it has not seen, the difference to the full blend, forward
    passes and seconds per image on this machine, size on disk and peak memory.
    """
    print_costs(
        what,
        images=images,
        cascade=cascade,
        student=student,
        soup=soup,
        metric=metric,
        csv=csv,
        measure=measure,
        device=devices,
        force=force,
    )
    return 0


def print_costs(
    what: str,
    *,
    images: str | None = None,
    metric: str = "macro_f1",
    csv: Path | None = None,
    device: str = "auto",
    force: bool = False,
    **named: Any,
) -> None:
    """Print the table of a blend, and write it as a CSV if asked; `named` are arguments of `ensemble.costs`."""
    from ensemble.cli.terminal.progress import TerminalProgress
    from ensemble.prediction.costs import costs as compare_costs
    from ensemble.prediction.result import save_csv
    from folds.utils.files import check_not_existing

    if csv is not None:
        check_not_existing(csv, "the file", force)
    found = compare_costs(what, images, metric=metric, device=device, progress=TerminalProgress(), **named)
    if csv is not None:
        save_csv(found.csv(), csv, force)
    console.result(found.display_table().text(100), found.to_dict())
