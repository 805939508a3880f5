"""`ensemble explain`: heat maps of what the models of a run looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import (
    MODELS,
    RUN,
    WRITTEN,
    DeviceOption,
    ImageFoldersOption,
    TableOption,
    TestImageFoldersOption,
    TestTableOption,
    listed,
)


def explain(
    run: Annotated[str, typer.Argument(help="the name of a run, or a checkpoint", metavar="RUN|CKPT")],
    images: Annotated[
        list[str],
        typer.Argument(help="ids of the table of the training, files, folders or patterns", metavar="IMAGE..."),
    ],
    target_class: Annotated[
        str,
        typer.Option(
            "--class", help="the class to explain: predicted, true, or a name", metavar="C", rich_help_panel=MODELS
        ),
    ] = "predicted",
    head: Annotated[
        str | None,
        typer.Option(
            help="attribute of a model with one head per attribute [the label]",
            metavar="NAME",
            rich_help_panel=MODELS,
        ),
    ] = None,
    fold: Annotated[
        int | None,
        typer.Option(
            help="explain with the model of this fold alone [the model that has not seen the person]",
            metavar="F",
            rich_help_panel=MODELS,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="folder of the pictures [runs/explain/RUN]",
            metavar="FOLDER",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    data: TableOption = None,
    test: TestTableOption = None,
    image_folders: ImageFoldersOption = None,
    test_image_folders: TestImageFoldersOption = None,
    devices: DeviceOption = "auto",
    force: Annotated[bool, typer.Option("--force", help="replace existing pictures", rich_help_panel=RUN)] = False,
) -> int:
    """Show which parts of images the models of a run used: one PNG per image, and a table.

    An image of the training is explained by the model of the fold that has not seen its person. Other images are
    explained by all models: the picture shows the mean of their heat maps, and where they disagree. The heat is
    relative to the hottest place of each image; it says where, not why (docs/explain.md).
    """
    from ensemble.cli.terminal.progress import TerminalProgress
    from folds.utils.startup import lasting_imports

    with lasting_imports():
        from ensemble.explain.face import explain as explain_run

    found = explain_run(
        run,
        images,
        target_class=target_class,
        head=head,
        fold=fold,
        data=data,
        test=test,
        image_folders=listed(image_folders),
        test_image_folders=listed(test_image_folders),
        device=devices,
        progress=TerminalProgress(),
    )
    folder = output or Path("runs/explain") / found.run
    files = found.save(folder, force)
    record = found.to_dict() | {"files": [str(path) for path in files]}
    console.result(f"{found.display_table().text(100)}\n\n{len(files)} pictures written to {folder}", record)
    return 0
