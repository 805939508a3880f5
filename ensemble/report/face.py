"""Provide the public function `report`, which writes the page."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import webbrowser
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ensemble.report.blocks import Section
from ensemble.report.evidence import Evidence, Part
from ensemble.report.load import load_evidence, thumbnails_of
from ensemble.report.page import Page, block_of_error, page_html
from ensemble.report.tables import check_free, plain_tables, write_tables
from folds import __version__
from folds.errors import EnsembleError, UsageError, unknown_name
from folds.experiments.loggers.reports import check_report_trackers, report_stores, store_report
from folds.metrics.custom import metric_of
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.utils.arguments import FLAG, NAMES, PATH, PROGRESS, check_arguments, whole
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.files import check_not_existing, check_not_folder, write_atomic
from folds.utils.progress import SILENT, Progress
from folds.utils.schema import ONE_LINE, optional
from folds.utils.text import counted

logger = logging.getLogger(__name__)

# Name of a section → its module, in the order of the page; the module has a function NAME_section(evidence).
SECTIONS = {
    "verdict": "ensemble.report.verdict",
    "data": "ensemble.report.data",
    "training": "ensemble.report.training",
    "compare": "ensemble.report.compare",
    "pooling": "ensemble.report.pooling_rules",
    "mistakes": "ensemble.report.mistakes",
    "heatmaps": "ensemble.report.heatmaps",
    "calibration": "ensemble.report.calibration",
    "learning": "ensemble.report.learning",
    "labels": "ensemble.report.labels",
    "method": "ensemble.report.method",
}
TITLES = {
    "heatmaps": "Heat maps",
    "pooling": "Images of a person",
    "labels": "Labels in doubt",
    "learning": "More people",
}
# Sections that are others for several labels and for numbers; "" for those that are left out, with the reason below.
_OWN = {
    MULTILABEL: {
        "data": "ensemble.report.column_data",
        "mistakes": "ensemble.report.several_labels",
        "calibration": "ensemble.report.label_calibration",
        "labels": "ensemble.report.label_doubts",
    },
    REGRESSION: {
        "data": "ensemble.report.column_data",
        "mistakes": "ensemble.report.numbers",
        "calibration": "",
        "labels": "ensemble.report.number_doubts",
    },
}
_WHY_NOT = {
    "calibration": "Calibration (numbers have no probabilities)",
}
# Sections about single images, which a page whose rows are people leaves out; and the other way round.
_OF_IMAGES = {
    "heatmaps": "Heat maps (of images: name runs instead of a blend for people)",
    "labels": "Labels in doubt (of images: name runs instead of a blend for people)",
}
_OF_PEOPLE = {"pooling": "it is for blends made with `pool`, whose rows are people"}

_KINDS = {
    "output": PATH,
    "data": optional(PATH),
    **dict.fromkeys(("section", "log_to"), optional(NAMES)),
    "tables": optional(PATH),
    **dict.fromkeys(("label", "task", "uncertain"), optional(ONE_LINE)),
    "root": PATH,
    "progress": PROGRESS,
    "heat_maps": whole(0),
    **dict.fromkeys(("per_person", "open", "force", "no_formulas"), FLAG),
}


def report(
    runs: Any = None,
    blend: Any = None,
    *,
    output: str | Path = "report.html",
    data: str | Path | None = None,
    metric: str | None = None,
    per_person: bool = False,
    label: str | None = None,
    task: str | None = None,
    uncertain: str | None = None,
    section: str | Sequence[str] | None = None,
    heat_maps: int = 0,
    tables: str | Path | None = None,
    no_formulas: bool = False,
    open: bool = False,
    log_to: str | Sequence[str] | None = None,
    force: bool = False,
    root: str | Path = ".",
    progress: bool | Progress = True,
) -> Path:
    """Write one page that shows what the numbers of runs and blends mean, and the images behind them; return its path.

    The page is made from what is on disk; a part whose inputs are missing says how to get it.

    Parameters
    ----------
    runs : runs (from `kfold` or `load_run`), names of runs and blends, prediction files, or a list of these; by
        default all runs in ``runs/``, and the newest blend.
    blend : a blend: its name, its folder, or a list of these.
    output : the file to write.
    data : the table that the runs were trained on, if it has moved.
    metric : of the scores, by the names that `score` takes; by default macro F1, for several labels ROC-AUC, for
        numbers the mean absolute error.
    per_person : whether to average the probabilities of each person's images before scoring.
    label, task : of a table that is shown without predictions: its columns of labels or numbers, as in `read_table`,
        and what they are (``classes``, ``multilabel``, ``regression``); found by name and from the cells by default.
    uncertain : of such a table: what -1 among several labels is read as, ``unknown``, ``absent`` or ``present``.
    section : names of the sections to show; all by default.
    heat_maps : number of out-of-fold images that get a heat map, for which models predict; 0 for none.
    tables : a folder, into which each table of the page is also written as ``NAME.csv``, ``NAME.md`` and ``NAME.tex``
        (LaTeX with booktabs).
    no_formulas : whether cells of the CSV files that a spreadsheet would take for formulas get an apostrophe.
    open : whether to show the page in the browser.
    log_to : trackers that also get the page, as an artifact of the runs that it shows: ``mlflow``, ``wandb`` or
        ``trackio``. The runs must have been logged there (`kfold` with `logger`).
    force : whether to replace existing files.
    root : the folder that holds ``runs/``.
    progress : False for no progress output.

    Raises
    ------
    UsageError : an unknown metric, section or tracker, or one that the task of the predictions does not have.
    EnsembleError : nothing has a name, there are no runs, a file exists and `force` is false, jinja2 is missing, or
        none of the runs was logged to a tracker of `log_to`.

    Examples
    --------
    Everything in ``runs/``::

        en.report(open=True)

    Names are checked before anything is written:

    >>> import ensemble as en
    >>> en.report("swim")
    Traceback (most recent call last):
    ...
    folds.errors.EnsembleError: expected a run, a blend, a prediction file or a table, found 'swim'
    """
    log_in_notebook()
    check_arguments(locals(), _KINDS)
    path = Path(output)
    check_not_folder(path)
    check_not_existing(path, "the report", force)
    if importlib.util.find_spec("jinja2") is None:
        raise EnsembleError(
            "the report needs jinja2, which is not installed", hint="pip install 'ensemble-folds[report]'"
        )
    names, trackers = _names(section), _names(log_to)
    check_report_trackers(trackers)
    for name in names:
        if name not in SECTIONS:
            raise unknown_name("section", name, list(SECTIONS))
    folder = None if tables is None else Path(tables)
    if folder is not None:
        check_free(folder, ())
    shown = progress_of(progress)
    what = [*_listed(runs), *_listed(blend)]
    evidence = load_evidence(
        what,
        Path(root),
        metric=metric,
        per_person=per_person,
        data=None if data is None else Path(data),
        label=label,
        task=task,
        uncertain=uncertain,
        progress=shown,
    )
    stores = report_stores(trackers, {name: run.folder for name, run in evidence.runs.items()})
    evidence = replace(evidence, heat_maps=heat_maps)
    _check_sections(evidence, names)
    sections = sections_of(evidence, names, shown)
    plain = plain_tables(sections)
    if folder is not None:
        check_free(folder, plain, force)
    write_atomic(path, _html(evidence, sections, shown).encode())
    if folder is not None:
        write_tables(folder, plain, force, no_formulas)
    store_report(path, stores)
    if open:
        webbrowser.open(path.absolute().as_uri())
    return path


def _names(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


def _listed(what: Any) -> list[Any]:
    if what is None:
        return []
    single = isinstance(what, str | Path) or not isinstance(what, Iterable) or hasattr(what, "keys")
    return [what] if single else list(what)


def html_of(evidence: Evidence, names: Sequence[str] = (), progress: Progress = SILENT) -> str:
    """Return the page of some evidence.

    Parameters
    ----------
    names : sections to show; all by default.
    """
    return _html(evidence, sections_of(evidence, names, progress), progress)


def _html(evidence: Evidence, sections: tuple[Section, ...], progress: Progress = SILENT) -> str:
    page = Page(title_of(evidence), sections, summary_of(evidence))
    return page_html(page, thumbnails_of(evidence), progress)


def sections_of(evidence: Evidence, names: Sequence[str] = (), progress: Progress = SILENT) -> tuple[Section, ...]:
    """Return the sections in the order of the page. One that fails is replaced by what went wrong."""
    modules = modules_of(evidence.task, evidence.pooled is not None)
    wanted = [name for name in modules if (not names or name in names) and _exists(modules[name])]
    made = []
    with progress.step("making the sections") as advance:
        for number, name in enumerate(wanted):
            advance(number, len(wanted))
            made.append(_section(name, modules[name], evidence))
        advance(len(wanted), len(wanted))
    return tuple(made)


def _exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def modules_of(task: str, of_people: bool = False) -> dict[str, str]:
    """Return the sections of the page of a task, each with its module, in the order of the page.

    Parameters
    ----------
    of_people : whether the rows of the page are people, pooled from images.
    """
    own, left_out = _OWN.get(task, {}), _OF_IMAGES if of_people else _OF_PEOPLE
    found = {name: own.get(name, module) for name, module in SECTIONS.items() if name not in left_out}
    return {name: module for name, module in found.items() if module}


def _why_not(evidence: Evidence) -> dict[str, str]:
    """Return section → why the page does not have it, of sections that other pages have."""
    own = {name: _WHY_NOT[name] for name, module in _OWN.get(evidence.task, {}).items() if not module}
    return own | (_OF_PEOPLE if evidence.pooled is None else _OF_IMAGES)


def _check_sections(evidence: Evidence, names: Sequence[str]) -> None:
    """Raise UsageError if a section, or heat maps, are asked for that the page of this task does not have."""
    kept = modules_of(evidence.task, evidence.pooled is not None)
    asked = [*names, *(["heatmaps"] if evidence.heat_maps else [])]
    if left := [name for name in asked if name not in kept]:
        what = evidence.task if evidence.pooled is None else "people, pooled from images,"
        raise UsageError(
            f"the report of {what} has no section {left[0]}: {_why_not(evidence)[left[0]]}",
            hint=f"its sections are {', '.join(kept)}",
        )


def _section(name: str, module: str, evidence: Evidence) -> Section:
    try:
        return getattr(importlib.import_module(module), f"{name}_section")(evidence)
    except Exception as error:  # a page with one part less is better than none
        if not isinstance(error, EnsembleError):
            logger.warning("the section %s could not be made: %s: %s", name, type(error).__name__, error)
            logger.debug("", exc_info=True)
        return Section(name, TITLES.get(name, name.capitalize()), "", (block_of_error(name, error),))


def title_of(evidence: Evidence) -> str:
    """Return the title of the page."""
    return f"Report: {evidence.recommended}" if evidence.recommended else "Report: the data"


def summary_of(evidence: Evidence) -> tuple[str, ...]:
    """Return the facts of the header."""
    lines = []
    part = evidence.oof or evidence.test
    if part is not None:
        kinds = {kind: sum(one.kind == kind for one in part.members) for kind in ("run", "tta", "blend")}
        named = {"run": "run", "tta": "run with views", "blend": "blend"}
        plurals = {"run": "runs", "tta": "runs with views", "blend": "blends"}
        lines.append(", ".join(counted(kinds[one], named[one], plurals[one]) for one in named if kinds[one]))
        counts = [
            f"{_size(evidence, one)} ({'out of fold' if one.name == 'oof' else 'test'})"
            for one in (evidence.oof, evidence.test)
            if one is not None
        ]
        each = "; scored by person" if evidence.per_person else ""
        if evidence.pooled is not None:
            each = f"; a row is a person, whose images are pooled by {evidence.pooled.rule}"
        lines.append(
            f"{', '.join(counts)}, {_columns_text(evidence)}; metric: {metric_of(evidence.metric).title}{each}"
        )
    if left := [text for name, text in _why_not(evidence).items() if name not in _OF_PEOPLE]:
        lines.append(f"Left out: {', '.join(left)}")
    lines.append(f"Made by ensemble {__version__}")
    return tuple(lines)


def _columns_text(evidence: Evidence) -> str:
    if evidence.has_columns:
        return counted(len(evidence.classes), "number" if evidence.task == REGRESSION else "label")
    return counted(len(evidence.classes), "class", "classes")


def _size(evidence: Evidence, part: Part) -> str:
    """Return ``200 images of 40 people``, or ``40 people with 200 images`` if the rows are people."""
    if evidence.pooled is None:
        return f"{counted(len(part), 'image')}{_people(part)}"
    images = evidence.image_part(part.name)
    more = "" if images is None else f" with {counted(len(images), 'image')}"
    return f"{counted(len(part), 'person', 'people')}{more}"


def _people(part: Any) -> str:
    return f" of {counted(len(set(part.persons.tolist())), 'person', 'people')}" if part.persons_known else ""
