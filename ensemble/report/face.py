"""Provide the public function `report`, which writes the page."""

from __future__ import annotations

import importlib.util
import webbrowser
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ensemble.report.contents import SECTIONS, check_sections, sections_of
from ensemble.report.evidence.evidence import Evidence
from ensemble.report.evidence.load import load_evidence, thumbnails_of
from ensemble.report.header import summary_of, title_of
from ensemble.report.page.blocks import Section
from ensemble.report.page.page import Page, page_html
from ensemble.report.page.tables import check_free, plain_tables, write_tables
from folds.errors import EnsembleError, unknown_name
from folds.experiments.loggers.reports import check_report_trackers, report_stores, store_report
from folds.utils.arguments import FLAG, NAMES, PATH, PROGRESS, check_arguments, whole
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.files import check_not_existing, check_not_folder, write_atomic
from folds.utils.progress import SILENT, Progress
from folds.utils.schema import ONE_LINE, optional

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
    path, names, trackers = Path(output), _names(section), _names(log_to)
    _check(path, force, names, trackers)
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
    check_sections(evidence, names)
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


def _check(path: Path, force: bool, names: Sequence[str], trackers: Sequence[str]) -> None:
    """Raise an error before anything is read: the page exists, a name is unknown, or jinja2 is missing."""
    check_not_folder(path)
    check_not_existing(path, "the report", force)
    if importlib.util.find_spec("jinja2") is None:
        raise EnsembleError(
            "the report needs jinja2, which is not installed", hint="pip install 'ensemble-folds[report]'"
        )
    check_report_trackers(trackers)
    for name in names:
        if name not in SECTIONS:
            raise unknown_name("section", name, list(SECTIONS))


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
