"""Combine what the single models make of images, for a model that needs the person or columns of the images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ensemble.serving.errors import ServingError
from ensemble.serving.model import Answer, ServedModel, split_answers
from ensemble.serving.needs import Cells
from ensemble.serving.parsing import Content, Upload

logger = logging.getLogger(__name__)

# The outputs of an image or of all images of a person, the values of the columns, and the name of the person.
Work = tuple[Sequence[Any], Cells, str]


def read_cells(model: ServedModel, content: Content) -> tuple[list[Upload], list[Cells]]:
    """Return the images of a request, and the values of the columns of each image without an error.

    Values of an image take the place of those of the request. What is wrong with them is an error of the image; what is
    wrong with those of the request is an error of all images.
    """
    uploads, cells = [], []
    for upload in content.uploads:
        if upload.error is None:
            try:
                cells.append(model.needs.read({**content.columns, **upload.columns}))
            except ServingError as error:
                upload = replace(upload, data=b"", error=error)
        uploads.append(upload)
    return uploads, cells


def combine(model: ServedModel, work: Sequence[Work | ServingError]) -> list[Answer | ServingError]:
    """Return the answer of each item of the work, or its error; one that cannot be combined gets an error."""
    return [one if isinstance(one, ServingError) else _combined(model, *one) for one in work]


def _combined(model: ServedModel, outputs: Sequence[Any], cells: Cells, person: str) -> Answer | ServingError:
    try:
        found = model.combined(outputs, cells.texts, person)
        (answer,) = split_answers(found, model.classes, 1)
        images = () if found.images is None else split_answers(found.images, model.classes, len(outputs))
    except ServingError as error:
        return error
    except Exception:
        logger.exception("the predictions of the models could not be combined")
        return ServingError(500, "model", "the predictions of the models could not be combined")
    return replace(answer, unknown_columns=cells.unknown, images=tuple(images))
