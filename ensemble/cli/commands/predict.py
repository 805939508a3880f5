"""`ensemble predict`: predict new images with a checkpoint, a run or a blend."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import EXECUTION, REPORT, RUN, takes_settings

WRITTEN = "Written"


@takes_settings("path", "id", "label", "person", "person_regex", "images")
def predict(
    what: Annotated[
        str,
        typer.Argument(
            help="a checkpoint, the name of a run or of a blend, a blend.toml, or an exported model",
            metavar="CKPT|RUN|BLEND|MODEL",
        ),
    ],
    inputs: Annotated[
        list[str], typer.Argument(help="a folder, a table (CSV, Parquet), images or a pattern", metavar="IMAGES...")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="prediction file [runs/predict/WHAT-IMAGES.npy]",
            metavar="FILE.npy",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="also write a CSV, e.g. a submission", metavar="FILE", rich_help_panel=WRITTEN),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            help="columns of the CSV: label, or probabilities (one per class) [label, or as --like]",
            metavar="FORM",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="names of the CSV's columns, id first: ImageID,ans", metavar="A,B", rich_help_panel=WRITTEN),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            help="sample submission whose rows, order and columns the CSV gets", metavar="FILE", rich_help_panel=WRITTEN
        ),
    ] = None,
    per: Annotated[
        str | None,
        typer.Option(
            help="person: one row per person (group), the mean of the images' probabilities",
            metavar="person",
            rich_help_panel=REPORT,
        ),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="metric of the score, if the table has labels", rich_help_panel=REPORT)
    ] = "macro_f1",
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="compare with the test predictions of the training, or a model with its expected ones",
            rich_help_panel=REPORT,
        ),
    ] = False,
    devices: Annotated[str, typer.Option(help="auto, cpu, or a GPU number", rich_help_panel=EXECUTION)] = "auto",
    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable", help="leave out images that cannot be used, and exit with 3", rich_help_panel=RUN
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace existing files", rich_help_panel=RUN)] = False,
    **given: Any,
) -> int:
    """Predict new images, write a prediction file and, if asked, a CSV.

    A run predicts with the models of all its folds. A blend predicts with its runs, views, weights and calibration; on
    the test images of its training it gives its own test predictions (--verify). An exported model (ensemble export)
    predicts like what was exported. Each image is decoded once for all
    models of one size. If interrupted, the same command continues. Images with labels are scored.
    """
    from ensemble.cli.terminal.progress import TerminalProgress
    from ensemble.prediction.face import FOLDER, TOLERANCE, save, save_csv
    from ensemble.prediction.face import predict as run_prediction
    from folds.data.table import DataSpec
    from folds.errors import EnsembleError, UsageError
    from folds.utils.files import check_not_existing

    if per not in (None, "person"):
        raise UsageError(f"`per={per}`: expected person", hint="remove it for one row per image")
    if csv is None and (form, columns, like) != (None, None, None):
        raise UsageError("`form`, `columns` and `like` describe a CSV", hint="name it with `csv=FILE`")
    names = None if columns is None else [name.strip() for name in columns.split(",")]
    path = output or FOLDER / f"{_stem(what)}-{_stem(inputs[0])}.npy"
    path = path if path.suffix == ".npy" else path.with_name(f"{path.name}.npy")
    for file in (path, *([] if csv is None else [csv])):
        check_not_existing(file, "the file", force)
    columns_given = {key: value for key, value in given.items() if value is not None}
    if "images" in columns_given:  # folders in which the names of a table are looked for
        folders = tuple(part.strip() for part in str(columns_given["images"]).split(",") if part.strip())
        columns_given |= {"images": folders, "test_images": folders}
    found = run_prediction(
        what,
        inputs[0] if len(inputs) == 1 else inputs,
        spec=DataSpec(Path(), **columns_given) if columns_given else None,
        per_person=per is not None,
        metric=metric,
        device=devices,
        skip_unreadable=skip_unreadable,
        verify=verify,
        progress=TerminalProgress(),
    )
    rows = found.by_person() if per is not None else found
    content = None if csv is None else rows.csv(form, names, like)
    save(rows, path, force)
    if csv is not None and content is not None:
        save_csv(content, csv, force)
    record = rows.to_dict() | {"file": str(path), "csv": None if csv is None else str(csv)}
    files = ", ".join(map(str, [path, *([] if csv is None else [csv])]))
    console.result(f"{rows.display_table().text(100)}\n\n{files} written", record)
    if found.source.kind != "model" and found.difference is not None and found.difference > TOLERANCE:
        raise EnsembleError(
            f"the predictions differ from the test predictions of the training by up to {found.difference:.1e}",
            hint="were the images changed, or predicted on another device?",
        )
    if csv is None:
        console.next_step(f"ensemble predict {shlex.join([what, *inputs])} --csv submission.csv --force")
    return 3 if found.unreadable.rows else 0


def _stem(name: str) -> str:
    """Return the last part of a path, without its suffix, as a part of a file name."""
    path = Path(name)
    path = path.parent if path.name in ("blend.toml", "model.toml") else path
    text = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in path.resolve().stem)
    return text.strip("._") or "images"
