"""`ensemble runs`: list, filter and compare runs, and add notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble.cli.commands import run_files
from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import REPORT, ScoreByOption, scored_by_person
from folds.predictions.file_names import RUNS
from folds.utils.text import counted

if TYPE_CHECKING:
    from folds.experiments.ledger import Ledger
    from folds.experiments.listing import RunListing

LISTED = "List"
# Columns that a narrow table leaves out, the first one first.
OPTIONAL = ("date (UTC)", "accuracy", "time", "95% CI (over people)", "baseline", "paired 95% CI")

MetricOption = Annotated[
    str | None,
    typer.Option(
        help="the metric of the scores: any that blend knows, or your own function [macro_f1]",
        metavar="NAME|module:function",
        rich_help_panel=REPORT,
    ),
]


def runs(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND]",
            help="diff A B, note RUN TEXT, show RUN, rm RUN…, rename RUN NEW, mv RUN FOLDER; each has its own --help",
            show_default=False,
        ),
    ] = None,
    filter: Annotated[
        list[str] | None,
        typer.Option(
            help="only runs with this setting or column: loss=focal, lr!=1e-3, arch~swin; given again: all must hold",
            metavar="KEY=VALUE",
            rich_help_panel=LISTED,
        ),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            help="score (best first), date (newest last), name, or time (quickest first)",
            metavar="BY",
            rich_help_panel=LISTED,
        ),
    ] = "date",
    columns: Annotated[
        str | None,
        typer.Option(
            help="columns and settings to show, e.g. run,loss,lr,macro_f1,hypothesis,commit",
            metavar="A[,B]",
            rich_help_panel=LISTED,
        ),
    ] = None,
    markdown: Annotated[
        bool,
        typer.Option(
            "--markdown",
            help="print as Markdown: the table, then hypothesis and result of each run",
            rich_help_panel=LISTED,
        ),
    ] = False,
    anonymize: Annotated[
        bool,
        typer.Option(
            "--anonymize", help="leave out paths, for a list that is shared (also with --json)", rich_help_panel=LISTED
        ),
    ] = False,
    metric: MetricOption = None,
    score_by: ScoreByOption = None,
) -> int:
    """List the runs of the ledger, runs/ledger.jsonl, and those in runs/ that are not in it yet; then the blends.

    Runs without a trained fold are listed as unfinished. A blend is named blends/NAME; it is compared, shown, renamed
    and removed like a run.
    """
    from folds.errors import UsageError

    per_person = scored_by_person(score_by)
    if words:
        if filter or columns or markdown or anonymize or sort != "date":
            raise UsageError(
                "`filter`, `sort`, `columns`, `markdown` and `anonymize` apply only to the list of runs",
                hint="ensemble runs --help",
            )
        return _act(words, per_person, metric)
    if per_person:
        raise UsageError("`score_by` applies only to diff", hint="ensemble runs diff A B --score-by person")
    return _show(filter or [], sort, columns, markdown, anonymize, metric)


def diff(
    first: Annotated[str, typer.Argument(help="a run or a blend, the baseline", metavar="A")],
    second: Annotated[str, typer.Argument(help="a run or a blend", metavar="B")],
    metric: MetricOption = None,
    score_by: ScoreByOption = None,
) -> int:
    """Compare two runs or blends: the settings that differ, and the paired difference of their out-of-fold scores.

    They are compared on the samples that both predict, aligned by id and class name, with a 95% CI over people.
    """
    return _diff(first, second, scored_by_person(score_by), metric)


def note(
    run: Annotated[str, typer.Argument(help="a run or a blend", metavar="RUN")],
    text: Annotated[list[str], typer.Argument(help="what you conclude", metavar="TEXT")],
) -> int:
    """Add a note about a run to the ledger; ensemble runs --markdown shows it."""
    return _note(run, " ".join(text))


# Word after `ensemble runs` → its function, which `ensemble.cli.app` calls with its own options and help.
SUBCOMMANDS = {"diff": diff, "note": note, **run_files.SUBCOMMANDS}


def _act(words: Sequence[str], per_person: bool, metric: str | None) -> int:
    """Act on words that follow options: ``ensemble runs --score-by person diff A B``."""
    from folds.errors import UsageError, unknown_name

    what, *rest = words
    if what == "diff" and len(rest) == 2:
        return _diff(rest[0], rest[1], per_person, metric)
    if what == "note" and len(rest) >= 2:
        return _note(rest[0], " ".join(rest[1:]))
    if what in ("diff", "note"):
        raise UsageError(
            f"ensemble runs {' '.join(words)}: expected {'two runs' if what == 'diff' else 'a run and a text'}",
            hint=f"ensemble runs {what} --help",
        )
    if what in SUBCOMMANDS:
        raise UsageError(f"ensemble runs: {what} comes before its options", hint=f"ensemble runs {what} --help")
    raise unknown_name(
        "word",
        what,
        list(SUBCOMMANDS),
        hint="ensemble runs, ensemble runs diff A B, ensemble runs note RUN TEXT, ensemble runs show RUN",
    )


def _read() -> tuple[Ledger, list[RunListing]]:
    from folds.experiments.ledger import ledger_file, read_ledger
    from folds.experiments.listing import list_runs

    ledger = read_ledger(ledger_file(RUNS))
    for line in ledger.skipped_lines():
        console.warn(line)
    return ledger, list_runs(ledger, RUNS, others=True)


def _show(
    filters: Sequence[str], sort: str, columns: str | None, markdown: bool, anonymize: bool, metric: str | None
) -> int:
    from folds.experiments.anonymize import anonymous_entry, without_paths
    from folds.experiments.listing import NOT_IN_LEDGER, UNFINISHED, with_metric
    from folds.experiments.run_columns import USUAL, column, filter_runs, sort_runs
    from folds.experiments.sites import find_new_sites
    from folds.metrics.tasks import default_metric

    ledger, listed = _read()
    run_files.warn_of_pending()
    tasks = {one.entry["oof"].get("task") for one in listed if one.entry.get("oof") and not one.is_blend}
    if metric is None and len(tasks) == 1:
        (task,) = tasks
        metric = None if task is None else default_metric(task)  # all runs have several labels, or numbers
    if metric is not None:
        listed = with_metric(listed, metric, RUNS)
    names = [name for name in (columns or "").split(",") if name.strip()] or list(USUAL)
    if anonymize:
        listed = [
            replace(one, entry=anonymous_entry(one.entry), notes=tuple(map(without_paths, one.notes))) for one in listed
        ]
    cells = [column(name, listed) for name in names]
    kept = sort_runs(filter_runs(listed, filters), sort)
    rows = [[cell(one) for _, cell in cells] for one in kept]
    if columns is None:  # leave out empty columns
        used = [i for i, name in enumerate(names) if name == "run" or any(row[i] for row in rows)]
        cells, rows = [cells[i] for i in used], [[row[i] for i in used] for row in rows]
    header = [title for title, _ in cells]
    optional = [title for title in OPTIONAL if columns is None and title in header]
    text = console.table(header, rows, optional=optional) if rows else "no runs"
    if markdown:
        text = "\n".join([_markdown(header, rows), *([] if columns else filter(None, map(_section, kept)))])
    passed_over = {"damaged": list(ledger.damaged), "newer": list(ledger.newer)}
    sites = find_new_sites(RUNS, [one.run for one in kept], metric)
    of_sites = {"new_sites": [one.to_dict() for one in sites]} if sites else {}
    console.result(text, _by_kind(kept) | {"passed_over": passed_over} | of_sites)
    for text in () if anonymize else (line for one in sites for line in one.lines()):
        console.note(text)
    if len(kept) < len(listed):
        console.note(f"{len(kept)} of {counted(len(listed), 'run')}")
    if any(NOT_IN_LEDGER in one.flags for one in kept):
        console.note("not in the ledger: run the same command with --resume to add it")
    unfinished = next((one for one in kept if UNFINISHED in one.flags), None)
    if unfinished is not None:
        console.note(f"unfinished: no fold is trained yet; ensemble kfold --resume {unfinished.run} continues")
    compared = next((one for one in reversed(kept) if one.entry.get("baseline")), None)
    scored = [one for one in sort_runs(kept, "score") if one.score is not None]
    scored = [one for one in scored if one.metric.name == scored[0].metric.name]  # others are not comparable
    if compared or len(scored) > 1:
        a, b = (compared.entry["baseline"]["run"], compared.run) if compared else (scored[1].run, scored[0].run)
        console.next_step(f"ensemble runs diff {a} {b}")
    elif not listed:
        console.next_step('ensemble kfold --k 5 --arch swin --hypothesis "…"')
    return 0


def _by_kind(listed: Sequence[RunListing]) -> dict[str, Any]:
    """Return the runs as plain values; blends and runs without a trained fold, if any, under keys of their own."""
    from folds.experiments.listing import UNFINISHED

    found: dict[str, Any] = {"runs": []}
    for one in listed:
        kind = "blends" if one.is_blend else "unfinished" if UNFINISHED in one.flags else "runs"
        record = dict(one.entry) | {"notes": list(one.notes), "marks": list(one.flags)}
        found.setdefault(kind, []).append(record)
    return found


def _diff(first: str, second: str, per_person: bool, metric: str | None) -> int:
    from ensemble.cli.reports.compare import diff_tables
    from folds.config.lookup import spelling_of
    from folds.experiments.comparison import compare_runs
    from folds.experiments.record import comparison_record
    from folds.experiments.sites import left_out_by, new_sites
    from folds.predictions.named import is_blend

    for name in (first, second):
        _check_still_there(name)
    found = compare_runs(first, second, RUNS, per_person, metric)
    verdict = {"distinguishable": {name: found.verdict(name) for name in found.differences}}
    record = {"first": first, "second": second} | comparison_record(found) | verdict
    text = diff_tables(found, "people" if found.by_person else "images")
    left = [name for name in (first, second) if left_out_by(name, RUNS) is not None]
    sites = None
    if len(left) == 1:
        sites = new_sites(left[0], second if left == [first] else first, RUNS, metric, per_person)
        record |= {"new_sites": sites.to_dict()}
        table = sites.table()
        text += f"\n\n{console.table(table.header, table.rows)}"
    console.result(text, record)
    for text in [*found.notes, *(() if sites is None else sites.lines())]:
        console.note(text)
    if not (is_blend(first, RUNS) or is_blend(second, RUNS)):
        console.note(
            f"same in both: {', '.join(map(spelling_of, found.unchanged))}"
            if found.unchanged
            else "no settings are known to be the same in both"
        )
    console.note(f"{found.people:,} people; the CIs cover the variation between people, not between training seeds")
    console.next_step(f'ensemble runs note {second} "your conclusion"')
    return 0


def _check_still_there(run: str) -> None:
    """Raise an error if the files of a run are deleted and only its line in the ledger is left."""
    from folds.errors import EnsembleError
    from folds.experiments.ledger import ledger_file, read_ledger
    from folds.experiments.paired_rows import known_runs

    if run not in known_runs(RUNS) and run in read_ledger(ledger_file(RUNS)).latest() and not (RUNS / run).is_dir():
        message = f"the predictions of {run} are deleted, only its line in the ledger is left"
        raise EnsembleError(message, hint=f"ensemble runs --filter run={run} shows it; train it again to compare it")


def _note(run: str, text: str) -> int:
    from folds.errors import UsageError, unknown_name
    from folds.experiments.ledger import append, ledger_file, now

    names = sorted(one.run for one in _read()[1])
    if f"blends/{run}" in names and run not in names:
        run = f"blends/{run}"
    if run not in names:
        raise unknown_name("run", run, names, hint=None if names else "ensemble kfold trains the first one")
    line = " ".join(text.split())
    if not line:
        raise UsageError("ensemble runs note: the text is empty", hint=f'ensemble runs note {run} "your conclusion"')
    record = {"run": run.removeprefix("blends/"), "time": now(), "text": line}
    append(ledger_file(RUNS), "note", record)
    console.result(f"{run}: {line}", record)
    console.next_step("ensemble runs --markdown")
    return 0


def _unchanged(entry: Mapping[str, Any]) -> str:
    """Return the settings that are the same as in the baseline: names of those that were set, number of the others."""
    unchanged = entry["baseline"]["controlled"]
    named = [name for name in unchanged if name in {*entry["changed"], "data", "folds", "seed"}]
    more = len(unchanged) - len(named)
    return ", ".join([*named, *([f"{more} more"] if more else [])]) or "unknown"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    # A name must not change the table or its formatting, and must not add HTML to the user's page.
    for character in "\\|_*`<":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def _section(one: RunListing) -> str:
    """Return hypothesis, comparison and notes of a run in Markdown; "" for a run without any of them."""
    from folds.metrics.intervals import Difference, Interval
    from folds.utils.text import value_text

    entry, baseline = one.entry, one.entry.get("baseline")
    if not (entry.get("hypothesis") or baseline or one.notes):
        return ""
    lines = []
    if entry.get("hypothesis"):
        after = entry.get("stated_after")
        late = f" (stated when {after} of {entry['k']} folds were trained)" if after else ""
        lines.append(f"hypothesis: {entry['hypothesis']}{late}")
    if baseline:
        changed = ", ".join(
            f"{name} {value_text(before)} → {value_text(after)}" for name, (before, after) in baseline["varied"].items()
        )
        lines.append(f"changed from {baseline['run']}: {changed or 'no setting'}")
        lines.append(f"unchanged: {_unchanged(entry)}")
    if one.score is None or "low" not in one.score:
        return "\n".join([f"\n### {_cell(one.run)}\n", *(f"- {_cell(line)}" for line in [*lines, *_last_lines(one)])])
    oof, difference = Interval.from_dict(one.score), one.difference
    scored = counted(entry["oof"]["people"], "person", "people")
    if not entry["oof"].get("by_person"):
        scored = f"{counted(entry['oof']['rows'], 'image')} of {scored}"
    people = scored + ("" if one.is_blend else f", {len(entry['folds'])} of {counted(entry['k'], 'fold')}")
    lines.append(f"measured: OOF {one.metric.title} {oof.text()} on {people}")
    if difference is not None:
        change = Difference.from_dict(difference).difference
        lines.append(f"difference: {change.signed_text()}, paired; significant: {one.significance}")
    lines += _last_lines(one)
    return "\n".join([f"\n### {_cell(one.run)}\n", *(f"- {_cell(line)}" for line in lines)])


def _last_lines(one: RunListing) -> list[str]:
    notes = [f"note: {text}" for text in [*((one.entry.get("baseline") or {}).get("notes") or []), *one.flags]]
    return notes + [f"conclusion: {text}" for text in one.notes]
