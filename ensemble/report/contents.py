"""Decide which sections a page has, for its task and for what its rows are, and make them."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Sequence

from ensemble.report.evidence.evidence import Evidence
from ensemble.report.page.blocks import Section
from ensemble.report.page.page import block_of_error
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.utils.progress import SILENT, Progress

logger = logging.getLogger(__name__)

# Name of a section → its module, in the order of the page; the module has a function NAME_section(evidence).
SECTIONS = {
    "verdict": "ensemble.report.verdict.verdict",
    "data": "ensemble.report.data.data",
    "training": "ensemble.report.training.training",
    "compare": "ensemble.report.compare.compare",
    "pooling": "ensemble.report.compare.pooling_rules",
    "mistakes": "ensemble.report.mistakes.mistakes",
    "heatmaps": "ensemble.report.heatmaps.heatmaps",
    "calibration": "ensemble.report.calibration.calibration",
    "learning": "ensemble.report.training.learning",
    "labels": "ensemble.report.labels.labels",
    "method": "ensemble.report.method.method",
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
        "data": "ensemble.report.data.column_data",
        "mistakes": "ensemble.report.mistakes.several_labels",
        "calibration": "ensemble.report.calibration.label_calibration",
        "labels": "ensemble.report.labels.label_doubts",
    },
    REGRESSION: {
        "data": "ensemble.report.data.column_data",
        "mistakes": "ensemble.report.mistakes.numbers",
        "calibration": "",
        "labels": "ensemble.report.labels.number_doubts",
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
OF_PEOPLE = {"pooling": "it is for blends made with `pool`, whose rows are people"}


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
    own, left_out = _OWN.get(task, {}), _OF_IMAGES if of_people else OF_PEOPLE
    found = {name: own.get(name, module) for name, module in SECTIONS.items() if name not in left_out}
    return {name: module for name, module in found.items() if module}


def why_not(evidence: Evidence) -> dict[str, str]:
    """Return section → why the page does not have it, of sections that other pages have."""
    own = {name: _WHY_NOT[name] for name, module in _OWN.get(evidence.task, {}).items() if not module}
    return own | (OF_PEOPLE if evidence.pooled is None else _OF_IMAGES)


def check_sections(evidence: Evidence, names: Sequence[str]) -> None:
    """Raise UsageError if a section, or heat maps, are asked for that the page of this task does not have."""
    kept = modules_of(evidence.task, evidence.pooled is not None)
    asked = [*names, *(["heatmaps"] if evidence.heat_maps else [])]
    if left := [name for name in asked if name not in kept]:
        what = evidence.task if evidence.pooled is None else "people, pooled from images,"
        raise UsageError(
            f"the report of {what} has no section {left[0]}: {why_not(evidence)[left[0]]}",
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
