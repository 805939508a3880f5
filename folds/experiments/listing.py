"""All runs there are, by the ledger and by their files: chosen, sorted, and as columns."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from folds.config.recipe import default_of, key_of
from folds.errors import EnsembleError, UsageError, unknown_name
from folds.experiments.comparison import changes_text
from folds.experiments.ledger import Ledger
from folds.experiments.record import entry_from_files, trained_folds
from folds.metrics.intervals import Difference, Interval
from folds.utils.files import sha256_file
from folds.utils.text import value_text

logger = logging.getLogger(__name__)

NOT_IN_LEDGER, REMOVED = "not in the ledger", "its files are gone"
CHANGED, BASELINE_CHANGED = "trained further since", "its baseline was trained since"


@dataclass(frozen=True)
class RunListing:
    """A run as the ledger or, where it says nothing, its files have it.

    Attributes
    ----------
    entry : as a line of the ledger.
    notes : remarks, oldest first.
    marks : what a reader must know.
    among : how many runs there are that are compared with the same baseline.
    """

    run: str
    entry: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    among: int = 1

    @property
    def baseline(self) -> str:
        """Return the run that it is compared with, or nothing."""
        return (self.entry.get("baseline") or {}).get("run", "")

    @property
    def difference(self) -> Mapping[str, Any] | None:
        """Macro F1 against the baseline: ``first``, ``second``, ``difference``, ``low``, ``high``, ``chance``."""
        return ((self.entry.get("baseline") or {}).get("differences") or {}).get("macro_f1")

    @property
    def significance(self) -> str:
        """Return whether that difference is significant: ``yes``, ``no`` with the reason, nothing where there is
        none.
        """
        found = self.difference
        return "" if found is None else Difference.from_dict(found).verdict(self.among)


def list_runs(ledger: Ledger, runs: Path = Path("runs")) -> list[RunListing]:
    """Return every run that has a trained fold, in the order of its last line; those without a line last, by name.

    A run whose files cannot be read is left out, with a warning in the log.
    """
    latest = ledger.latest()
    there = {path.parent.name for path in runs.glob("*/config.toml")}
    listed = []
    for name, entry in latest.items():
        marks = _marks(entry, runs) if name in there else [REMOVED]
        listed.append(RunListing(name, entry, tuple(ledger.notes_of(name)), tuple(marks)))
    for name in sorted(there - set(latest)):
        try:
            found = entry_from_files(name, runs)
        except EnsembleError as error:
            logger.warning(f"{name}: {error.message}")
            continue
        if found is not None:
            listed.append(RunListing(name, found, tuple(ledger.notes_of(name)), (NOT_IN_LEDGER, *_marks(found, runs))))
    counted = Counter(one.baseline for one in listed if one.difference is not None)
    return [replace(one, among=max(1, counted[one.baseline])) for one in listed]


def _marks(entry: Mapping[str, Any], runs: Path) -> list[str]:
    marks = ["optimistic"] if entry["optimistic"] else []
    baseline = entry.get("baseline")
    try:
        if (
            trained_folds(entry["run"], runs) != entry["folds"]
            or sha256_file(runs / entry["run"] / "config.toml") != entry["config_sha"]
        ):
            marks.append(CHANGED)
        if baseline is not None and (now := trained_folds(baseline["run"], runs)) and now != baseline["folds"]:
            marks.append(BASELINE_CHANGED)
    except (EnsembleError, OSError):
        marks.append("its files are damaged")
    return marks


def _interval(value: Mapping[str, Any] | None, key: str, text: Callable[[Mapping[str, float]], str]) -> str:
    return "" if not value or key not in value else text(value[key])


def _score(value: Mapping[str, float]) -> str:
    return f"{value['score']:.3f}"


def _ci(value: Mapping[str, float]) -> str:
    return Interval.from_dict(value).ci_text()


def _paired_ci(value: Mapping[str, Any]) -> str:
    return Difference.from_dict(value).difference.ci_text(signed=True)


def _against(listed: RunListing, text: Callable[[Mapping[str, Any]], str]) -> str:
    return "" if listed.difference is None else text(listed.difference)


def _folds(listed: RunListing) -> str:
    return f"{len(listed.entry['folds'])}/{listed.entry['k']}"


def _commit(listed: RunListing) -> str:
    git = listed.entry.get("git")
    return "" if git is None else git["commit"][:10] + ("+" if git["dirty"] else "")


# Name → title in a table, and the text of a cell. Settings are columns, too, under their own names.
COLUMNS: dict[str, tuple[str, Callable[[RunListing], str]]] = {
    "run": ("run", lambda one: one.run),
    "arch": ("arch", lambda one: one.entry["arch"]),
    "date": ("date (UTC)", lambda one: one.entry["time"][:16].replace("T", " ")),
    "folds": ("folds", _folds),
    "macro_f1": ("OOF macro F1", lambda one: _interval(one.entry["oof"], "macro_f1", _score)),
    "interval": ("95% CI (over people)", lambda one: _interval(one.entry["oof"], "macro_f1", _ci)),
    "accuracy": ("accuracy", lambda one: _interval(one.entry["oof"], "accuracy", _score)),
    "log_loss": ("log loss", lambda one: _interval(one.entry["oof"], "log_loss", _score)),
    "test": ("test macro F1", lambda one: _interval(one.entry.get("test"), "macro_f1", _score)),
    "test_interval": ("test 95% CI", lambda one: _interval(one.entry.get("test"), "macro_f1", _ci)),
    "baseline": ("baseline", lambda one: one.baseline),
    "varied": ("varied", lambda one: changes_text((one.entry.get("baseline") or {}).get("varied", {}))),
    "difference": ("difference", lambda one: _against(one, lambda found: f"{found['difference']:+.3f}")),
    "paired": ("paired 95% CI", lambda one: _against(one, _paired_ci)),
    "distinguishable": ("distinguishable", lambda one: one.significance),
    "hypothesis": ("hypothesis", lambda one: one.entry.get("hypothesis") or ""),
    "notes": ("notes", lambda one: "; ".join(one.notes)),
    "time": ("time", lambda one: str(timedelta(seconds=round(one.entry["cost"]["seconds"])))),
    "images": ("images trained on", lambda one: f"{one.entry['cost']['images']:,}"),
    "parameters": (
        "parameters",
        lambda one: "" if not (n := one.entry["cost"].get("parameters")) else f"{n / 1e6:.1f} M",
    ),
    "devices": ("devices", lambda one: ", ".join(one.entry["cost"]["devices"])),
    "jobs": ("jobs", lambda one: str(one.entry["cost"].get("jobs") or "")),
    "commit": ("commit", _commit),
    "marks": ("", lambda one: ", ".join(one.flags)),
}
USUAL = (
    "run",
    "folds",
    "macro_f1",
    "interval",
    "accuracy",
    "baseline",
    "difference",
    "paired",
    "distinguishable",
    "time",
    "date",
    "marks",
)


SORTS: dict[str, Callable[[RunListing], Any]] = {
    "score": lambda one: -one.entry["oof"]["macro_f1"]["score"],
    "date": lambda one: one.entry["time"],
    "name": lambda one: one.run,
    "time": lambda one: one.entry["cost"]["seconds"],
}


def sort_runs(listed: Sequence[RunListing], key: str) -> list[RunListing]:
    """Return the best first (`score`), the newest last (`date`), the quickest first (`time`), or by `name`."""
    if key not in SORTS:
        raise unknown_name("--sort", key, list(SORTS))
    return sorted(listed, key=SORTS[key])


def column(name: str, listed: Sequence[RunListing]) -> tuple[str, Callable[[RunListing], str]]:
    """Return a column by name: one of `COLUMNS`, or a setting of any of the runs.

    Raises
    ------
    UsageError : there is none, with the nearest.
    """
    key = name.strip().replace("-", "_")
    if key in COLUMNS:
        return COLUMNS[key]
    settings = {setting for one in listed for setting in one.entry["settings"]}
    if key not in settings and key_of(key) is None:
        raise unknown_name("column", name.strip(), [*COLUMNS, *sorted(settings - set(COLUMNS))])
    return key, lambda one: "" if (value := _setting(one, key)) is None else value_text(value)


def _setting(one: RunListing, key: str) -> Any:
    """Return the value of a setting, in any spelling, of a run; its default where the run does not record it."""
    return one.entry["settings"].get(key_of(key) or key, default_of(key))


def filter_runs(listed: Sequence[RunListing], filters: Sequence[str]) -> list[RunListing]:
    """Return the runs that all of ``loss=focal`` (is), ``loss!=ce`` (is not) and ``run~swin`` (contains) hold for;
    numbers are compared as numbers.

    Raises
    ------
    UsageError : a filter of another form, or on what is no column and no setting.
    """
    kept = list(listed)
    for text in filters:
        match = re.fullmatch(r"\s*([\w-]+)\s*(!=|=|~)(.*)", text, flags=re.DOTALL)
        if match is None:
            raise UsageError(
                f"--filter {text}: expected KEY=VALUE, KEY!=VALUE or KEY~PART",
                hint="--filter loss=focal, --filter run~swin",
            )
        key, how, wanted = match[1], match[2], match[3].strip()
        cell = column(key, listed)[1]
        kept = [one for one in kept if _holds(cell(one), _setting(one, key.replace("-", "_")), how, wanted)]
    return kept


def _holds(cell: str, raw: Any, how: str, wanted: str) -> bool:
    texts = [cell.lower(), *([] if raw is None else [str(raw).lower()])]
    if how == "~":
        return any(wanted.lower() in text for text in texts)
    same = wanted.lower() in texts or any(
        _number(text) is not None and _number(text) == _number(wanted) for text in texts
    )
    return same if how == "=" else not same


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
