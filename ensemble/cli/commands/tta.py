"""`ensemble tta`: test-time augmentation of a checkpoint or a run."""

from __future__ import annotations

from typing import Annotated

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import (
    RUN,
    ImageFoldersOption,
    PredictingDevicesOption,
    ScoreByOption,
    TableOption,
    TestImageFoldersOption,
    TestTableOption,
    listed,
    scored_by_person,
)

VIEWS = "Views"


def tta(
    target: Annotated[
        str, typer.Argument(help="a checkpoint, or the name of a run for all its folds", metavar="CKPT|RUN")
    ],
    views: Annotated[
        str,
        typer.Option(
            help="hflip, vflip, rot90, d4, scale:F, hshift:F, vshift:F, multiply:F, add:F, contrast:F, fivecrop:F, "
            "tencrop:F; joined by , or *",
            metavar="V,…",
            rich_help_panel=VIEWS,
        ),
    ] = "hflip",
    merge: Annotated[
        str,
        typer.Option(
            help="how probabilities of views are combined: mean or geometric; weighted or classwise, with weights "
            "fitted on out-of-fold predictions; auto, the best of these; of numbers median instead of geometric",
            metavar="HOW",
            rich_help_panel=VIEWS,
        ),
    ] = "mean",
    budget: Annotated[
        int | None,
        typer.Option(
            help="use at most N views per image, chosen by out-of-fold score", metavar="N", rich_help_panel=VIEWS
        ),
    ] = None,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive", help="use more views only where the plain image is uncertain", rich_help_panel=VIEWS
        ),
    ] = False,
    data: TableOption = None,
    test: TestTableOption = None,
    images: ImageFoldersOption = None,
    test_images: TestImageFoldersOption = None,
    score_by: ScoreByOption = None,
    devices: PredictingDevicesOption = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="predict the views of these checkpoints again", rich_help_panel=RUN)
    ] = False,
) -> int:
    """Predict each fold's validation rows (and the test rows) in several views; compare the merged score with no TTA.

    The plain image is always one of the views. Each view's logits are stored in runs/tta/<run>/views and reused for the
    same checkpoint, table and images, so that another merge needs no prediction. Fitted weights are scored on people
    who were not used for fitting.
    """
    from ensemble.tta.merge import MergeConfig
    from ensemble.tta.views import parse_views

    per_person = scored_by_person(score_by)
    request = MergeConfig(merge, budget, adaptive)
    request.check()
    chosen = parse_views(views)

    from folds.utils.startup import lasting_imports

    with lasting_imports():
        from ensemble.cli.reports.tta import tta_report
        from ensemble.cli.terminal.progress import TerminalProgress
        from ensemble.tta.run import augment_folds
        from ensemble.tta.scores import gain_of, tta_record

    made, scored = augment_folds(
        target,
        chosen,
        request,
        data=data,
        test=test,
        images=listed(images),
        test_images=listed(test_images),
        per_person=per_person,
        device=devices,
        force=force,
        progress=TerminalProgress(),
    )
    gains = gain_of(made, per_person)
    console.result(tta_report(made, scored, gains), tta_record(made, scored, gains))
    console.next_step(f"ensemble blend runs/*.npy runs/tta/{made.run}.*.npy --method soft", console.again("score_by"))
    return 0
