"""Say in the header of a page what it is about: models, rows, the metric, and what is left out."""

from __future__ import annotations

from ensemble.report.contents import OF_PEOPLE, why_not
from ensemble.report.evidence.evidence import Evidence, Part
from folds import __version__
from folds.metrics.custom import metric_of
from folds.metrics.task_names import REGRESSION
from folds.utils.text import counted


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
    if left := [text for name, text in why_not(evidence).items() if name not in OF_PEOPLE]:
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


def _people(part: Part) -> str:
    return f" of {counted(len(set(part.persons.tolist())), 'person', 'people')}" if part.persons_known else ""
