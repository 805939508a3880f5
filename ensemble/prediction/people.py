"""Check that images have what a blend for people, or one with columns beside the predictions, needs."""

from __future__ import annotations

from ensemble.learning.further_columns import check_columns
from ensemble.prediction.cascade import OFF
from ensemble.prediction.source import PredictionSource
from folds.data.table import SampleTable
from folds.errors import UsageError


def check_people(source: PredictionSource, per_person: bool, cascade: str | float | None) -> None:
    """Raise UsageError if a blend for people is to predict images, or skips models that it needs."""
    made = source.combination
    if made.pooling is not None and not per_person:
        raise UsageError(
            f"{source.name} is a blend for people (images pooled by {made.pooling.text}), and gives no answer for an "
            "image",
            hint="add `per_person` and name the persons of the images, or blend again without `pool`",
        )
    if (made.pooling is not None or made.extra is not None) and cascade not in (None, OFF):
        raise UsageError(
            f"`cascade={cascade}` is not available for {source.name}, which needs the persons or columns of the images",
            hint="leave out `cascade`",
        )


def label_of(source: PredictionSource) -> str | None:
    """Return ``person`` if only the persons of the training had labels, so that scores are by person; else None."""
    return next((found for model in source.models if (found := model.checkpoint.data.get("label_of"))), None)


def check_rows(source: PredictionSource, table: SampleTable) -> None:
    """Raise UsageError if the images lack a column that the blend was fitted with."""
    if source.combination.extra is not None:
        check_columns(source.combination.extra.names, table.attributes, "new", UsageError)
