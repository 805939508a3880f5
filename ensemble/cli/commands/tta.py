"""`ensemble tta`: test-time augmentation of a checkpoint or a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensemble.cli.terminal import console


def tta(
    target: Annotated[
        str, typer.Argument(help="a checkpoint, or the name of a run for all its folds", metavar="CKPT|RUN")
    ],
    views: Annotated[
        str,
        typer.Option(
            help="hflip, vflip, rot90, d4, scale:F, hshift:F, vshift:F, multiply:F, add:F, contrast:F, fivecrop:F, tencrop:F; joined by , or *",
            metavar="V,…",
        ),
    ] = "hflip",
    merge: Annotated[
        str,
        typer.Option(
            help="mean or geometric, of the views' probabilities; weighted or classwise, with weights fitted out of fold; auto, the best of these"
        ),
    ] = "mean",
    budget: Annotated[
        int | None, typer.Option(help="views an image at most, the best ones out of fold", metavar="N")
    ] = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="further views only where the plain image leaves doubt")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="the table it was trained on, where it has moved")] = None,
    per: Annotated[str | None, typer.Option(help="score per person", metavar="person")] = None,
    devices: Annotated[str, typer.Option(help="auto, cpu, or a GPU number")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="predict the views of these checkpoints again")] = False,
) -> int:
    """Predict a fold's own validation rows (and the test rows) in several views and score their merge against none.

    The plain image is always among the views. Each view's logits are kept in runs/tta/<run>/views; what is there already, of the
    same checkpoint, table and images, is not predicted again, so that another merge costs nothing. What is fitted is scored on
    people it was not fitted on.
    """
    from ensemble.tta.merge import MergeConfig
    from ensemble.tta.views import parse_views
    from folds.errors import UsageError

    if per not in (None, "person"):
        raise UsageError(f"--per {per}: expected person")
    request = MergeConfig(merge, budget, adaptive)
    request.check()
    chosen = parse_views(views)

    from ensemble.cli.reports.tta import tta_report
    from ensemble.cli.terminal.progress import TerminalProgress
    from ensemble.tta.run import augment_folds
    from ensemble.tta.scores import tta_record, worth_of

    per_person = per == "person"
    made, scored = augment_folds(
        target,
        chosen,
        request,
        data=data,
        per_person=per_person,
        device=devices,
        force=force,
        progress=TerminalProgress(),
    )
    worth = worth_of(made, per_person)
    console.result(tta_report(made, scored, worth), tta_record(made, scored, worth))
    console.next_step(f"ensemble blend runs/*.npy runs/tta/{made.run}.*.npy --method soft")
    return 0
