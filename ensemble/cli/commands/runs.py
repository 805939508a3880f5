"""`ensemble runs`: list, filter and compare runs, and add notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import ScoreByOption, scored_by_person

if TYPE_CHECKING:
    from folds.experiments.ledger import Ledger
    from folds.experiments.listing import RunListing

RUNS = Path("runs")
LISTED = "List"


def runs(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[diff A B | note RUN TEXT]",
            help="compare two runs, or add a note to one",
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
    score_by: ScoreByOption = None,
) -> int:
    """List the runs of the ledger, runs/ledger.jsonl, and those in runs/ that are not in it yet.

    With diff, compare two runs: the settings that differ, and the paired difference of their out-of-fold scores on the
    samples that both predict, with its 95% CI over people. With note, add a note about a run to the ledger.
    """
    from folds.errors import UsageError

    per_person = scored_by_person(score_by)
    if words:
        if filter or columns or markdown or sort != "date":
            raise UsageError(
                "`filter`, `sort`, `columns` and `markdown` apply only to the list of runs", hint="ensemble runs --help"
            )
        return _act(words, per_person)
    if per_person:
        raise UsageError("`score_by` applies only to diff", hint="ensemble runs diff A B --score-by person")
    return _show(filter or [], sort, columns, markdown)


def _act(words: Sequence[str], per_person: bool) -> int:
    from folds.errors import UsageError, unknown_name

    what, *rest = words
    if what == "diff" and len(rest) == 2:
        return _diff(rest[0], rest[1], per_person)
    if what == "note" and len(rest) >= 2:
        return _note(rest[0], " ".join(rest[1:]))
    if what in ("diff", "note"):
        raise UsageError(
            f"ensemble runs {' '.join(words)}: expected {'two runs' if what == 'diff' else 'a run and a text'}",
            hint="ensemble runs --help",
        )
    raise unknown_name(
        "word", what, ["diff", "note"], hint="ensemble runs, ensemble runs diff A B, ensemble runs note RUN TEXT"
    )


def _read() -> tuple[Ledger, list[RunListing]]:
    from folds.experiments.ledger import ledger_file, read_ledger
    from folds.experiments.listing import list_runs

    ledger = read_ledger(ledger_file(RUNS))
    for line in ledger.skipped_lines():
        console.warn(line)
    return ledger, list_runs(ledger, RUNS)


def _show(filters: Sequence[str], sort: str, columns: str | None, markdown: bool) -> int:
    from folds.experiments.listing import NOT_IN_LEDGER, USUAL, column, filter_runs, sort_runs

    ledger, listed = _read()
    names = [name for name in (columns or "").split(",") if name.strip()] or list(USUAL)
    cells = [column(name, listed) for name in names]
    kept = sort_runs(filter_runs(listed, filters), sort)
    rows = [[cell(one) for _, cell in cells] for one in kept]
    if columns is None:  # leave out empty columns
        used = [i for i, name in enumerate(names) if name == "run" or any(row[i] for row in rows)]
        cells, rows = [cells[i] for i in used], [[row[i] for i in used] for row in rows]
    header = [title for title, _ in cells]
    text = console.table(header, rows) if rows else "no runs"
    if markdown:
        text = "\n".join([_markdown(header, rows), *([] if columns else filter(None, map(_section, kept)))])
    record = [dict(one.entry) | {"notes": list(one.notes), "marks": list(one.flags)} for one in kept]
    console.result(
        text, {"runs": record, "passed_over": {"damaged": list(ledger.damaged), "newer": list(ledger.newer)}}
    )
    if len(kept) < len(listed):
        console.note(f"{len(kept)} of {len(listed)} runs")
    if any(NOT_IN_LEDGER in one.flags for one in kept):
        console.note("not in the ledger: run the same command with --resume to add it")
    compared = next((one for one in reversed(kept) if one.entry.get("baseline")), None)
    if len(kept) > 1:
        a, b = (compared.entry["baseline"]["run"], compared.run) if compared else (kept[0].run, kept[1].run)
        console.next_step(f"ensemble runs diff {a} {b}")
    elif not listed:
        console.next_step('ensemble kfold --k 5 --arch swin --hypothesis "…"')
    return 0


def _diff(first: str, second: str, per_person: bool) -> int:
    from ensemble.cli.reports.compare import diff_tables
    from folds.config.recipe import spelling_of
    from folds.experiments.comparison import compare_runs
    from folds.experiments.record import comparison_record

    for name in (first, second):
        _check_still_there(name)
    found = compare_runs(first, second, RUNS, per_person)
    verdict = {"distinguishable": {name: found.verdict(name) for name in found.differences}}
    console.result(
        diff_tables(found, "people" if per_person else "images"),
        {"first": first, "second": second} | comparison_record(found) | verdict,
    )
    for text in found.notes:
        console.note(text)
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
    from folds.experiments.comparison import known_runs
    from folds.experiments.ledger import ledger_file, read_ledger

    if run not in known_runs(RUNS) and run in read_ledger(ledger_file(RUNS)).latest() and not (RUNS / run).is_dir():
        message = f"the predictions of {run} are deleted, only its line in the ledger is left"
        raise EnsembleError(message, hint=f"ensemble runs --filter run={run} shows it; train it again to compare it")


def _note(run: str, text: str) -> int:
    from folds.errors import UsageError, unknown_name
    from folds.experiments.ledger import append, ledger_file, now

    names = sorted(one.run for one in _read()[1])
    if run not in names:
        raise unknown_name("run", run, names, hint=None if names else "ensemble kfold trains the first one")
    line = " ".join(text.split())
    if not line:
        raise UsageError("ensemble runs note: the text is empty", hint=f'ensemble runs note {run} "your conclusion"')
    record = {"run": run, "time": now(), "text": line}
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
    oof, difference = Interval.from_dict(entry["oof"]["macro_f1"]), one.difference
    people = (
        f"{entry['oof']['rows']:,} images of {entry['oof']['people']:,} people, {len(entry['folds'])} of {entry['k']} "
        "folds"
    )
    lines.append(f"measured: OOF macro F1 {oof.text()} on {people}")
    if difference is not None:
        change = Difference.from_dict(difference).difference
        lines.append(f"difference: {change.signed_text()}, paired; significant: {one.significance}")
    lines += [f"note: {note}" for note in (baseline or {}).get("notes") or []] + [f"note: {flag}" for flag in one.flags]
    lines += [f"conclusion: {note}" for note in one.notes]
    return "\n".join([f"\n### {_cell(one.run)}\n", *(f"- {_cell(line)}" for line in lines)])
