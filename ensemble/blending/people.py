"""Say what a blend for people is made of, and refuse what it does not support."""

from __future__ import annotations

from collections.abc import Mapping

from ensemble.alignment.split import AlignedSplit
from ensemble.blending.request import BlendConfig
from ensemble.pooling.people import people_rows
from ensemble.pooling.spec import AUTO, FIXED, LEARNED, LOG_ODDS, MAX, MEAN, MEDIAN, NOISY_OR, TOP_K, PoolSpec
from folds.errors import UsageError
from folds.metrics.classification import Metric
from folds.predictions.files import ORDINAL
from folds.predictions.label_columns import COLUMN_TASKS

_RULES = {
    MEAN: "the mean of the images",
    MEDIAN: "the median of the images",
    MAX: "the largest value of an image",
    TOP_K: "the mean of the largest values",
    NOISY_OR: "that at least one image shows it, if images are independent",
    LOG_ODDS: "the sum of the log-odds of the images, damped",
    LEARNED: "a regression on statistics of the images' log-odds",
    AUTO: "the rule that is best on other people",
}


def check_people_task(request: BlendConfig, task: str) -> None:
    """Raise UsageError if the task has no blend for people, or no columns beside the runs, yet."""
    option = "pool" if request.pool is not None else "extra" if request.extra else ""
    if option and task in COLUMN_TASKS:
        raise UsageError(
            f"`{option}` is not available for the task {task}, only for classes, binary and ordinal",
            hint=f"leave out `{option}`",
        )


def people_notes(
    spec: PoolSpec, images: Mapping[str, AlignedSplit], people: Mapping[str, AlignedSplit], metric: Metric
) -> list[str]:
    """Return what a row of the blend is, and which people have several labels."""
    first = next(iter(people.values()))
    of = ""
    if spec.name in (MAX, TOP_K, NOISY_OR):
        if first.task == ORDINAL and len(first.classes) > 2:
            of = ", of at least each grade"
        elif len(first.classes) == 2:
            of = f", of class {first.classes[1]} (`positive` names the other one)"
        else:
            of = ", of each class against the others, scaled to the sum 1"
    counts = ", ".join(f"{len(images[name]):,} {name} images of {len(one):,} people" for name, one in people.items())
    notes = [
        f"one prediction per person ({counts}): {spec.text}, {_RULES[spec.name]}{of}; learned and scored on people"
    ]
    if spec.name not in FIXED:
        notes.append("the scores of the runs alone are of the mean of a person's images")
    for name, split in images.items():
        mixed = people_rows(split.rows, split.classes, name).mixed
        if mixed:
            notes.append(f"{mixed:,} {name} people have several labels and count with their most frequent one")
    return notes
