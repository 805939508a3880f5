"""What needs the persons or columns of images: checks, and heads that see all images of a person at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.further_columns import check_columns, encode
from ensemble.pooling.people import people_rows
from ensemble.prediction.cascade import OFF
from ensemble.prediction.combine import member_key
from ensemble.prediction.models import FoldModel, RunModels, check_rows_compared
from ensemble.prediction.source import PredictionSource, head_of_people
from ensemble.prediction.work import WorkState, models_of
from ensemble.tta.merge import merge_or_plain
from folds.data.table import SampleTable
from folds.errors import UsageError
from folds.models.person_models import person_head, person_logits
from folds.models.timing import torch_threads
from folds.utils.numeric import factorize

if TYPE_CHECKING:
    import torch


def check_people(source: PredictionSource, per_person: bool, cascade: str | float | None) -> None:
    """Raise UsageError if a blend for people is to predict images, or skips models that it needs."""
    made = source.combination
    if made.pooling is not None and not per_person:
        raise UsageError(
            f"{source.name} is a blend for people (images pooled by {made.pooling.text}), and gives no answer for an "
            "image",
            hint="add `per_person` and name the persons of the images, or blend again without `pool`",
        )
    check_without_cascade(source, cascade)


def check_without_cascade(source: PredictionSource, cascade: str | float | None) -> None:
    """Raise UsageError if a cascade is asked for where the persons or columns of the images are needed."""
    made = source.combination
    needs_more = made.pooling is not None or made.extra is not None or head_of_people(source) is not None
    if needs_more and cascade not in (None, OFF):
        raise UsageError(
            f"`cascade={cascade}` is not available for {source.name}, which needs the persons or columns of the images",
            hint="leave out `cascade`",
        )


def label_of(source: PredictionSource) -> str | None:
    """Return ``person`` if only the persons of the training had labels, so that scores are by person; else None."""
    return next((found for model in source.models if (found := model.checkpoint.data.get("label_of"))), None)


def check_rows(source: PredictionSource, table: SampleTable) -> None:
    """Raise UsageError if the images lack a column that the blend was fitted with, or persons that a head needs.

    Raises
    ------
    UsageError : see above, or there is one row of a combination that compares rows with each other.
    EnsembleError : a column of numbers has another text.
    """
    head = head_of_people(source)
    if head is not None and table.persons is None:
        raise UsageError(
            f"{source.name} predicts an image from all images of its person (head {head}), and the persons of these "
            "images are not known",
            hint="name them: `person=COLUMN` of a table, or `person_regex` for the names of the images",
        )
    made = source.combination
    if made.extra is not None:
        check_columns(made.extra.names, table.attributes, "new", UsageError)
    rows = table.rows()
    if made.pooling is not None:
        rows = people_rows(rows, source.classes, "new", made.pooling).rows
    check_rows_compared(source, len(rows.ids))
    for encoding in () if made.extra is None else made.extra.encodings:
        encode((encoding,), rows.attributes, len(rows.ids))  # a cell that is no number is an error


def check_precision_of_heads(source: PredictionSource, precision: str) -> None:
    """Raise UsageError if a reduced format is asked for, whose check needs models that predict a single image."""
    head = head_of_people(source)
    if head is not None and precision in ("bf16", "fastest"):
        raise UsageError(
            f"`precision={precision}` is checked by the predicted classes of some images, and the head {head} of "
            f"{source.name} predicts them from all images of their persons",
            hint="`precision=auto` is the fastest form in float32",
        )


def apply_heads(source: PredictionSource, table: SampleTable, state: WorkState, kept: NDArray[np.int64]) -> None:
    """Write the predictions of the models that predict an image from the features of all images of its person.

    Parameters
    ----------
    kept : rows of the table whose images could be used; the others are no images of anyone.
    """
    if not state.features:
        return
    assert table.persons is not None  # noqa: S101 - checked before an image was predicted
    people = factorize(table.persons)[1].astype(np.int64)
    left_out = np.setdiff1d(np.arange(len(table)), kept)
    people[left_out] = people.max() + 1 + np.arange(len(left_out))
    with torch_threads(1):  # as in the training: the sums depend on no number of cores
        for run, model in models_of(source):
            key = member_key(run, model)
            if key in state.features:
                head, features = person_head(model.checkpoint, model.path), state.features[key]
                state.arrays[key][:] = person_predictions(run, model, head, features, people)


def person_predictions(
    run: RunModels,
    model: FoldModel,
    head: torch.nn.Module,
    features: NDArray[np.floating],
    people: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return (n, classes of the run) the predictions of images, from all images of their persons, views merged.

    Each view of all images of a person gives one prediction; these are merged as those of other models.

    Parameters
    ----------
    head : of the model (`folds.models.person_models.person_head`).
    features : (n, views · features) of the images, one view after another.
    people : (n,) the number of each image's person.
    """
    checkpoint, views = model.checkpoint, len(run.merge.views)
    each = features.reshape(len(features), views, -1)
    logits = np.stack([person_logits(checkpoint, head, each[:, view], people) for view in range(views)])
    order = [checkpoint.classes.index(name) for name in run.classes]
    return merge_or_plain(run.merge, logits, checkpoint.task)[:, order]
