"""`ensemble report`: write one page that shows what the numbers mean, and the images behind them."""

from __future__ import annotations

import shlex
from pathlib import Path

from ensemble.cli.commands.report_options import (
    DataOption,
    ForceOption,
    HeatMapsOption,
    LabelOption,
    LogToOption,
    MetricOption,
    NoFormulasOption,
    OpenOption,
    OutputOption,
    SectionOption,
    TablesOption,
    TaskOption,
    UncertainOption,
    WhatArgument,
)
from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import ScoreByOption


def report(
    what: WhatArgument = None,
    output: OutputOption = Path("report.html"),
    show: OpenOption = False,
    data: DataOption = None,
    metric: MetricOption = None,
    score_by: ScoreByOption = None,
    label: LabelOption = None,
    task: TaskOption = None,
    uncertain: UncertainOption = None,
    section: SectionOption = None,
    heat_maps: HeatMapsOption = 0,
    tables: TablesOption = None,
    no_formulas: NoFormulasOption = False,
    log_to: LogToOption = None,
    force: ForceOption = False,
) -> int:
    """Write one page: what to submit and how sure that is, the data, the scores, the mistakes, and the images.

    The page is one HTML file without network, for a browser, a phone, a screen reader or a printer. It is made from
    what is on disk; a part whose inputs are missing says how to get it.
    """
    from folds.utils.startup import lasting_imports

    with lasting_imports():
        from ensemble.cli.terminal.progress import TerminalProgress
        from ensemble.report.face import report as write_report
        from folds.errors import UsageError
        from folds.utils.text import size_text

    if score_by not in (None, "person"):
        raise UsageError(f"`score_by={score_by}`: expected person", hint="remove it to score images")
    if no_formulas and tables is None:
        raise UsageError("`no_formulas` applies to the files of `tables`", hint="name their folder: `tables=tables`")
    path = write_report(
        list(what or ()),
        output=output,
        data=data,
        metric=metric,
        per_person=score_by is not None,
        label=label,
        task=task,
        uncertain=uncertain,
        section=list(section or ()) or None,
        heat_maps=heat_maps,
        tables=tables,
        no_formulas=no_formulas,
        open=show,
        log_to=list(log_to or ()) or None,
        force=force,
        progress=TerminalProgress(),
    )
    size = path.stat().st_size
    beside = "" if tables is None else f"; its tables are in {tables}"
    folder = {} if tables is None else {"tables": str(tables)}
    console.result(f"{path} written ({size_text(size)}){beside}", {"path": str(path), "bytes": size, **folder})
    if not show:
        console.next_step(f"ensemble report {shlex.join([*(what or ()), '-o', str(output)])} --open --force")
    return 0
