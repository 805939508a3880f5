"""Find the images to predict: a folder, a table, a pattern, or a list of images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.prediction.recorded import spec_as_trained, stack_of
from ensemble.prediction.source import PredictionSource
from folds.data.image_folder import is_image
from folds.data.images_to_predict import read_test
from folds.data.raw_columns import RawColumns, build_table
from folds.data.reading_errors import no_stack, not_there
from folds.data.table import DataSpec, SampleTable
from folds.errors import EnsembleError, UsageError
from folds.images.content_index import UnreadableImageError, read_content
from folds.images.stacks import shown_path, stack_parts
from folds.predictions.files import LABEL
from folds.utils.files import expand_pattern, is_pattern, sha256_file
from folds.utils.parallel import cpu_count, map_threads

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)


def content_ids(paths: Sequence[Path]) -> list[str]:
    """Return the hash of the content of each file, from which the random part of prediction sets is derived.

    It is the same for every way to predict a file (`ensemble.predict`, an exported model, the server), whatever the
    file is called.

    Raises
    ------
    EnsembleError : a file cannot be read any more.
    """
    found = [""] * len(paths)

    def read(at: int) -> None:
        try:
            parts = stack_parts(paths[at])
            found[at] = sha256_file(paths[at]) if len(parts) == 1 else read_content(paths[at]).digest
        except UnreadableImageError as error:
            raise EnsembleError(f"{shown_path(paths[at])} {error.reason}") from None
        except OSError as error:
            raise EnsembleError(
                f"{paths[at]} cannot be read again ({error.strerror}); prediction sets are derived from its content",
                hint="keep the images until the decisions are made",
            ) from None

    map_threads(read, len(paths), cpu_count(), None)
    return found


def images_table(
    images: str | Path | Sequence[str | Path], source: PredictionSource, spec: DataSpec | None = None
) -> SampleTable:
    """Return the images as a table without the classes of the training where it has no labels.

    Raises
    ------
    EnsembleError : there are no such images, or a label is not a class of the training.
    """
    listed = [images] if isinstance(images, str | Path) else list(images)
    if not listed:
        raise UsageError("expected one image or more, found none", hint="name a folder, a table or images")
    classes = source.classes if source.target == LABEL else None
    if len(listed) == 1 and not is_pattern(Path(listed[0])):
        path = Path(listed[0])
        read, lines = spec_as_trained(path, source, spec)
        for line in lines:
            logger.info(line)
        table, notes = read_test(
            path,
            read,
            classes=classes,
            class_attributes=source.class_attributes,
        )
        for note in notes:
            logger.info(note)
        return table
    paths: list[Path] = []
    for one in listed:
        path = Path(one)
        if path.exists():
            paths.append(path)
            continue
        matches = expand_pattern(path) if is_pattern(path) else []
        if not matches:
            raise not_there(path)
        paths += matches
    if stack_of(source):
        raise no_stack(listed[0], stack_of(source))
    other = next((path for path in paths if path.is_dir() or not is_image(path.name)), None)
    if other is not None:
        raise UsageError(f"expected images, also found {other}", hint="name one folder or table, or images only")
    names = [path.as_posix() for path in paths]
    locations = [f"{name}" for name in names]
    columns = RawColumns("the images", names, locations, [path.absolute() for path in paths])
    return build_table(columns, training=False, classes=classes)
