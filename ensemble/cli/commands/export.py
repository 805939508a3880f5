"""`ensemble export`: write a blend, a run or a checkpoint as one folder that predicts without anything else."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ensemble.cli.commands.costs import print_costs
from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import (
    DECISIONS,
    REPORT,
    RUN,
    WRITTEN,
    CascadeOption,
    FoldsOption,
    PassCostOption,
    RefitOption,
    fold_numbers,
    rules_of,
    takes_settings,
)


@takes_settings(rules=True)
def export(
    what: Annotated[
        str,
        typer.Argument(
            help="the name of a blend or of a run, a blend.toml, a checkpoint, or an exported model",
            metavar="BLEND|RUN|CKPT",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="the new folder, or a name that ends in .zip",
            metavar="FOLDER",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    table: Annotated[
        bool,
        typer.Option(
            "--table",
            help="print score and cost of the blend and of what can replace it: ensemble costs",
            rich_help_panel=REPORT,
        ),
    ] = False,
    fold: FoldsOption = None,
    refit: RefitOption = False,
    half: Annotated[
        bool,
        typer.Option(
            "--half",
            help="store fp16 weights, half the size; the largest difference of probabilities is measured and stated",
            rich_help_panel=WRITTEN,
        ),
    ] = False,
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx",
            help="add model.onnx, one graph from pixels to probabilities, checked against torch",
            rich_help_panel=WRITTEN,
        ),
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option(help="metric of the stated score [that of the blend, or of the task]", rich_help_panel=REPORT),
    ] = None,
    per: Annotated[
        str | None,
        typer.Option(help="person: the rules decide for people", metavar="person", rich_help_panel=DECISIONS),
    ] = None,
    cascade: CascadeOption = None,
    cost: PassCostOption = None,
    force: Annotated[bool, typer.Option("--force", help="replace an existing model", rich_help_panel=RUN)] = False,
    **given: Any,
) -> int:
    """Write a model as one folder: weights, how they are combined, the score, and a model card.

    The folder needs no training data, no run folder and no network, and nothing in it can run code. Every part has a
    hash. Loading it predicts some synthetic images and compares the probabilities with the expected ones. Use it with
    ensemble predict FOLDER IMAGES, or ensemble.load(FOLDER) in Python.
    """
    from folds.utils.startup import lasting_imports

    with lasting_imports():
        from ensemble.decisions.rows import PERSON
        from ensemble.export.face import export as write_model
        from ensemble.model_files.record import DECISION
        from folds.errors import UsageError

    if table:
        print_costs(what, cascade=cascade or ".001", metric=metric or "macro_f1")
        return 0
    if output is None:
        raise UsageError("expected a folder to write", hint="`output=model/`, or `table` to see what it would cost")
    console.flags = {**console.flags, "per_person": "--per person"}
    if per not in (None, "person"):
        raise UsageError(f"`per={per}`: expected person", hint="remove it for rules for images")
    made = write_model(
        what,
        output,
        fold=fold if fold in (None, "all") else fold_numbers(fold),
        refit=refit,
        half=half,
        onnx=onnx,
        metric=metric,
        **rules_of(given),
        per_person=per is not None,
        cascade=cascade,
        cost=cost,
        force=force,
    )
    console.result(f"{made.display_table().text(100)}\n\n{output} written", made.to_dict())
    of_people = PERSON in (made.record.unit, made.record.extras.get(DECISION, {}).get("unit"))
    what = "TABLE --per person" if of_people else "TABLE" if made.record.person_head else "IMAGES"
    console.next_step(f"ensemble predict {shlex.quote(str(output))} {what}")
    return 0
