"""`ensemble runs show|rm|rename|mv`: the files of a run or a blend in every place where it lives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble.cli.terminal import console
from folds.utils.text import counted, duration, score_text, size_text, value_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from folds.experiments.stored_runs import StoredRun

ROOT = Path()
RunArgument = Annotated[str, typer.Argument(help="a run, or a blend: blends/NAME", metavar="RUN")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="show what would be done, change nothing")]


def show(run: RunArgument) -> int:
    """Show a run or a blend: its scores, its folds, the settings that were chosen, its files, and what uses it."""
    from folds.experiments.ledger import ledger_file, read_ledger
    from folds.experiments.listing import RunListing, list_runs
    from folds.experiments.run_columns import sort_runs
    from folds.experiments.stored_runs import find_stored

    warn_of_pending()
    stored = find_stored(run, ROOT)
    listed = list_runs(read_ledger(ledger_file(stored.runs)), stored.runs, others=True)
    one = next((entry for entry in listed if entry.run == stored.title), RunListing(stored.title, {}))
    folds, used = _folds(stored), stored.used_by()
    parts = [_about(stored.title, one.entry, one.flags), _folds_table(folds), _settings(one.entry, stored.blend)]
    parts += [_places(stored), "\n".join(f"note: {text}" for text in one.notes)]
    parts += [f"used by: {_some(used)}" if used else ""]
    record = dict(one.entry) | {
        "run": stored.title,
        "notes": list(one.notes),
        "marks": list(one.flags),
        "trained": {str(fold): done for fold, done in folds},
        "files": [{"path": str(place.path), "content": place.what, "bytes": place.size} for place in stored.places()],
        "used_by": used,
    }
    console.result("\n\n".join(filter(None, parts)), record)
    if not stored.blend and one.entry and len(folds) < one.entry.get("k", 0):
        console.next_step(f"ensemble kfold --resume {stored.name}")
    else:
        others = [other.run for other in sort_runs(listed, "score") if other.run != stored.title and other.score]
        console.next_step(f"ensemble runs diff {others[0]} {stored.title}" if others else "ensemble runs")
    return 0


def _folds_table(folds: Sequence[tuple[int, dict[str, Any]]]) -> str:
    if not folds:
        return ""
    scores = [_fold_scores(one) for _, one in folds]
    rows = [
        [fold, *(score_text(value) for value in own.values()), one["epochs"], duration(one["seconds"])]
        for (fold, one), own in zip(folds, scores, strict=True)
    ]
    return console.table(["fold", *scores[0], "epochs", "time"], rows)


def _fold_scores(done: Mapping[str, Any]) -> dict[str, float | None]:
    """Return title → score of a fold."""
    from folds.experiments.curves import curve_title

    if "scores" in done:
        return {curve_title(name): value for name, value in done["scores"].items()}
    return {"macro F1": done["macro_f1"], "accuracy": done["accuracy"]}


def _settings(entry: Mapping[str, Any], blend: bool) -> str:
    settings = entry.get("settings", {})
    keys = list(settings) if blend else [key for key in entry.get("changed", []) if key in settings]
    title = "made of" if blend else "settings that are not at their default"
    lines = [f"  {key} = {settings[key] if blend else value_text(settings[key])}" for key in keys]
    return "\n".join([title, *lines]) if lines else ""


def rm(
    runs: Annotated[list[str], typer.Argument(help="runs and blends (blends/NAME)", metavar="RUN...")],
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="remove without asking")] = False,
) -> int:
    """Remove runs or blends: settings, checkpoints, predictions and TTA; the ledger marks their lines as removed.

    What is removed is listed first. On a terminal the command then asks; elsewhere it needs --force.
    """
    from folds.errors import EnsembleError
    from folds.experiments.storage import finish_pending, remove_run
    from folds.experiments.stored_runs import find_stored

    if not dry_run:
        _finish(finish_pending)
    found = [find_stored(name, ROOT) for name in dict.fromkeys(runs)]
    text = "\n\n".join(map(_places, found))
    record = {
        "removed": [one.title for one in found],
        "files": [str(place.path) for one in found for place in one.places()],
    }
    used = [f"{one.title} is used by {_some(by)}" for one in found if (by := one.used_by())]
    if dry_run:
        console.result(f"would remove\n\n{text}", record | {"removed": [], "dry_run": True})
        _say_used(used)
        console.note("\nnothing was removed (--dry-run)")
        return 0
    if not force:
        console.note(f"to be removed\n\n{text}\n")
        _say_used(used)
        if console.as_json or not sys.stdin.isatty():
            raise EnsembleError(
                f"{counted(len(found), 'run')} to be removed for good: {', '.join(one.title for one in found)}",
                hint="--force removes without asking; --dry-run shows what would go",
            )
        if not typer.confirm(f"Remove {', '.join(one.title for one in found)} for good?", err=True):
            console.note("nothing was removed")
            return 1
    for one in found:
        remove_run(one)
    console.result(f"removed {', '.join(one.title for one in found)}", record)
    if force:
        _say_used(used)
    console.next_step("ensemble runs")
    return 0


def rename(
    run: RunArgument,
    new: Annotated[str, typer.Argument(help="its new name, which nothing has yet", metavar="NEW")],
    dry_run: DryRun = False,
) -> int:
    """Give a run or a blend another name, in every place: folders, predictions, checkpoints, ledger, other runs."""
    return _move(run, new, ROOT, dry_run)


def mv(
    run: RunArgument,
    folder: Annotated[
        Path,
        typer.Argument(help="an existing folder; any other word is a new name", metavar="FOLDER|NEW"),
    ],
    dry_run: DryRun = False,
) -> int:
    """Move a run or a blend with all its files to the working folder of another project, or give it another name."""
    from folds.errors import EnsembleError

    if not folder.is_dir():
        if folder.name != str(folder):
            raise EnsembleError(
                f"there is no folder {folder}", hint=f"mkdir -p {folder}; or ensemble runs rename {run} NEW"
            )
        return _move(run, str(folder), ROOT, dry_run)
    if folder.resolve() == ROOT.resolve():
        raise EnsembleError(f"{run} is in {folder} already", hint="ensemble runs rename RUN NEW gives it another name")
    return _move(run, None, folder, dry_run)


SUBCOMMANDS = {"show": show, "rm": rm, "rename": rename, "mv": mv}


def warn_of_pending() -> None:
    """Warn of a removal or a move that was interrupted."""
    from folds.experiments.storage import pending

    left = pending(ROOT)
    if left is not None:
        console.warn(f"{left} was interrupted; the next ensemble runs rm, rename or mv finishes it first")


def _finish(finish: Any) -> None:
    from folds.experiments.storage import pending

    left = pending(ROOT)
    if left is not None:
        console.note(f"finishing what was interrupted: {left}")
        finish(ROOT)


def _move(run: str, new: str | None, root: Path, dry_run: bool) -> int:
    from folds.experiments.storage import finish_pending, move_run
    from folds.experiments.stored_runs import check_new_name, find_stored

    if not dry_run:
        _finish(finish_pending)
    stored = find_stored(run, ROOT)
    wanted = check_new_name(stored, stored.name if new is None else new, root)
    where = wanted.title if root == ROOT else str(wanted.folder)
    record = {
        "run": stored.title,
        "to": wanted.title,
        "folder": str(root),
        "files": [str(p.path) for p in stored.places()],
    }
    if dry_run:
        console.result(f"would become {where}\n\n{_places(stored)}", record | {"dry_run": True})
        console.note("\nnothing was changed (--dry-run)")
        return 0
    move_run(stored, wanted)
    console.result(f"{stored.title} is now {where}", record)
    if root != ROOT:
        data = "its settings name the data relative to this folder: give --data there if it is elsewhere"
        console.note(data if not stored.blend else "the runs it was made of stay here")
    console.next_step(f"ensemble runs show {wanted.title}" if root == ROOT else f"cd {root} && ensemble runs")
    return 0


def _some(names: Sequence[str], most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _say_used(used: Sequence[str]) -> None:
    for line in used:
        console.note(line)


def _places(stored: StoredRun) -> str:
    places = stored.places()
    rows = [
        [f"  {place.path}{'/' if place.path.is_dir() else ''}", place.what, size_text(place.size) if place.size else ""]
        for place in places
    ]
    width = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{row[0].ljust(width[0])}  {row[1].ljust(width[1])}  {row[2].rjust(width[2])}".rstrip() for row in rows]
    return "\n".join([f"{stored.title}: {size_text(sum(place.size for place in places))}", *lines])


def _folds(stored: StoredRun) -> list[tuple[int, dict[str, Any]]]:
    from folds.utils.files import read_json

    found = []
    for path in stored.folder.glob("fold*/done.json"):
        number, done = path.parent.name.removeprefix("fold"), read_json(path)
        if not (number.isdecimal() and isinstance(done, dict)):
            continue
        # Several labels and numbers have the scores of their task.
        by_task = isinstance(done.get("task"), str) and isinstance(done.get("scores"), dict)
        wanted = ("epochs", "seconds") if by_task else ("macro_f1", "accuracy", "epochs", "seconds")
        own = {"scores": done["scores"]} if by_task else {}
        if all(isinstance(done.get(key), int | float) for key in wanted):
            found.append((int(number), own | {key: done[key] for key in wanted} | {"device": done.get("device")}))
    return sorted(found, key=lambda pair: pair[0])


def _refit(entry: Mapping[str, Any]) -> str:
    """Return the line about the model of all people: whose score stands for it, and its own test score."""
    from folds.metrics.intervals import Interval
    from folds.predictions.task_scores import main_score

    refit, procedure = entry["refit"], "the out-of-fold score is that of the procedure"
    title, test = main_score(refit.get("test") or {})
    own = (
        f"its own test {title} {Interval.from_dict(test).text()}"
        if test
        else "this model itself was never tested on unseen people"
    )
    return f"all people: one model of {counted(refit['epochs'], 'epoch')}; {procedure}, {own}"


def _about(title: str, entry: Mapping[str, Any], flags: Sequence[str]) -> str:
    from folds.metrics.intervals import Interval
    from folds.predictions.task_scores import main_score

    if not entry:
        return f"{title}: predictions without a training of this program"
    state = f", {len(entry['folds'])} of {counted(entry['k'], 'fold')} trained" if entry["k"] else ""
    lines = [f"{title}: {entry['arch']}{state}{', ' + ', '.join(flags) if flags else ''}"]
    for split, shown in (("oof", "OOF"), ("test", "test")):
        metric, found = main_score(entry.get(split) or {})
        if found:
            scores = entry[split]
            accuracy = f", accuracy {scores['accuracy']['score']:.3f}" if "accuracy" in scores else ""
            unit = ("person", "people") if scores.get("by_person") else ("image",)
            on = counted(scores["rows"], *unit)
            lines.append(f"{shown} {metric} {Interval.from_dict(found).text()}{accuracy}, on {on}")
    if entry.get("refit"):
        lines.append(_refit(entry))
    if entry.get("hypothesis"):
        lines.append(f"hypothesis: {entry['hypothesis']}")
    if entry.get("baseline"):
        lines.append(f"baseline: {entry['baseline']['run']}")
    return "\n".join(lines)
