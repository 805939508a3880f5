"""Show, sort and filter a list of runs: the columns by name, and the text of their cells."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from folds.config.lookup import default_of, key_of
from folds.errors import UsageError, unknown_name
from folds.experiments.compared_settings import changes_text
from folds.experiments.listing import RunListing
from folds.metrics.classification import METRICS, Metric
from folds.metrics.intervals import Difference, Interval
from folds.metrics.task_names import ALL_TASKS, CLASSES
from folds.metrics.tasks import metric_for_task
from folds.utils.text import duration, value_text


def _interval(value: Mapping[str, Any] | None, key: str, text: Callable[[Mapping[str, float]], str]) -> str:
    return "" if not value or key not in value or ("low" not in value[key] and text is _ci) else text(value[key])


def _score(value: Mapping[str, float]) -> str:
    return f"{value['score']:.3f}"


def _own_score(one: RunListing) -> str:
    """Return the score of a run with the name of its metric, for a list with several metrics."""
    return "" if one.score is None else f"{one.metric.title} {_score(one.score)}"


def _test_metric(one: RunListing) -> Metric:
    """Return the metric of the task, which every line has of test images."""
    return metric_for_task(None, one.task)


def _test_score(one: RunListing) -> str:
    return _interval(one.entry.get("test"), _test_metric(one).name, _score)


def _ci(value: Mapping[str, float]) -> str:
    return Interval.from_dict(value).ci_text()


def _paired_ci(value: Mapping[str, Any]) -> str:
    return Difference.from_dict(value).difference.ci_text(signed=True)


def _against(listed: RunListing, text: Callable[[Mapping[str, Any]], str]) -> str:
    return "" if listed.difference is None else text(listed.difference)


def _folds(listed: RunListing) -> str:
    """Return ``5/5``, and ``5/5 + all`` with a model of all people."""
    every = " + all" if listed.entry.get("refit") else ""
    return "" if listed.is_blend else f"{len(listed.entry['folds'])}/{listed.entry['k']}{every}"


def _commit(listed: RunListing) -> str:
    git = listed.entry.get("git")
    return "" if git is None else git["commit"][:10] + ("+" if git["dirty"] else "")


# Name → header, and text of a cell. A setting is a column, too, with its own name.
COLUMNS: dict[str, tuple[str, Callable[[RunListing], str]]] = {
    "run": ("run", lambda one: one.run),
    "arch": ("arch", lambda one: one.entry["arch"]),
    "date": ("date (UTC)", lambda one: one.entry["time"][:16].replace("T", " ")),
    "folds": ("folds", _folds),
    "macro_f1": ("OOF macro F1", lambda one: _interval(one.entry["oof"], "macro_f1", _score)),
    "interval": ("95% CI (over people)", lambda one: _interval(one.entry["oof"], one.metric.name, _ci)),
    "accuracy": ("accuracy", lambda one: _interval(one.entry["oof"], "accuracy", _score)),
    "log_loss": ("log loss", lambda one: _interval(one.entry["oof"], "log_loss", _score)),
    "test": ("test score", lambda one: _test_score(one)),
    "test_interval": ("test 95% CI", lambda one: _interval(one.entry.get("test"), _test_metric(one).name, _ci)),
    "baseline": ("baseline", lambda one: one.baseline),
    "varied": ("changed", lambda one: changes_text((one.entry.get("baseline") or {}).get("varied", {}))),
    "difference": ("difference", lambda one: _against(one, lambda found: f"{found['difference']:+.3f}")),
    "paired": ("paired 95% CI", lambda one: _against(one, _paired_ci)),
    "distinguishable": ("significant", lambda one: one.significance),
    "hypothesis": ("hypothesis", lambda one: one.entry.get("hypothesis") or ""),
    "notes": ("notes", lambda one: "; ".join(one.notes)),
    "time": ("time", lambda one: "" if not (n := one.entry["cost"]["seconds"]) else duration(n)),
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
SCORE = "score"  # the column of the metric that was asked for
USUAL = (
    "run",
    "folds",
    SCORE,
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


def _rank(one: RunListing) -> tuple[int, float]:
    """Return what is lower for a better score, task by task; runs without a score are last."""
    if one.score is None:
        return len(ALL_TASKS), math.inf
    return ALL_TASKS.index(one.task), -one.score["score"] if one.metric.greater_is_better else one.score["score"]


SORTS: dict[str, Callable[[RunListing], Any]] = {
    "score": lambda one: _rank(one),
    "date": lambda one: one.entry["time"],
    "name": lambda one: one.run,
    "time": lambda one: one.entry["cost"]["seconds"],
}


def sort_runs(listed: Sequence[RunListing], key: str) -> list[RunListing]:
    """Return the runs sorted by ``score`` (best first), ``date`` (newest last), ``time`` (fastest first) or ``name``.

    Raises
    ------
    UsageError : an unknown key.
    """
    if key not in SORTS:
        raise unknown_name("`sort`", key, list(SORTS))
    return sorted(listed, key=SORTS[key])


def column(name: str, listed: Sequence[RunListing]) -> tuple[str, Callable[[RunListing], str]]:
    """Return a column by name, as its header and the text of a cell: one of `COLUMNS`, or a setting of any of the runs.

    Raises
    ------
    UsageError : an unknown column; the message suggests the closest names.
    """
    key = name.strip().replace("-", "_")
    metric = listed[0].metric if listed else METRICS["macro_f1"]
    if key == SCORE and len({one.metric.name for one in listed}) > 1:
        return "OOF score", _own_score
    if key == metric.name or key == SCORE:
        lower = "" if metric.greater_is_better else " (lower is better)"
        return f"OOF {metric.title}{lower}", lambda one: "" if one.score is None else _score(one.score)
    if key == "test":
        usual = {one.task: _test_metric(one) for one in listed} or {CLASSES: METRICS["macro_f1"]}
        if len({found.name for found in usual.values()}) > 1:
            return "test score", lambda one: (score := _test_score(one)) and f"{_test_metric(one).title} {score}"
        found = next(iter(usual.values()))
        return f"test {found.title}{'' if found.greater_is_better else ' (lower is better)'}", _test_score
    if key in COLUMNS:
        return COLUMNS[key]
    settings = {setting for one in listed for setting in one.entry["settings"]}
    if key not in settings and key_of(key) is None:
        raise unknown_name("column", name.strip(), [SCORE, *COLUMNS, *sorted(settings - set(COLUMNS))])
    return key, lambda one: "" if (value := _setting(one, key)) is None else value_text(value)


def _setting(one: RunListing, key: str) -> Any:
    """Return the value of a setting, in any spelling, of a run; its default where the run does not record it."""
    return one.entry["settings"].get(key_of(key) or key, default_of(key))


def filter_runs(listed: Sequence[RunListing], filters: Sequence[str]) -> list[RunListing]:
    """Return the runs that match all filters; numbers are compared as numbers.

    Parameters
    ----------
    filters : ``loss=focal`` (is), ``loss!=ce`` (is not) or ``run~swin`` (contains).

    Raises
    ------
    UsageError : a filter of another form, or on a name that is neither a column nor a setting.
    """
    kept = list(listed)
    for text in filters:
        match = re.fullmatch(r"\s*([\w-]+)\s*(!=|=|~)(.*)", text, flags=re.DOTALL)
        if match is None:
            raise UsageError(
                f"`filter` expected KEY=VALUE, KEY!=VALUE or KEY~PART, found {text}",
                hint="e.g. loss=focal, or run~swin",
            )
        key, operator, wanted = match[1], match[2], match[3].strip()
        cell = column(key, listed)[1]
        kept = [one for one in kept if _matches(cell(one), _setting(one, key.replace("-", "_")), operator, wanted)]
    return kept


def _matches(cell: str, value: Any, operator: str, wanted: str) -> bool:
    texts = [cell.lower(), *([] if value is None else [str(value).lower()])]
    if operator == "~":
        return any(wanted.lower() in text for text in texts)
    same = wanted.lower() in texts or any(
        _number(text) is not None and _number(text) == _number(wanted) for text in texts
    )
    return same if operator == "=" else not same


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
