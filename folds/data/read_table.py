"""`read_table` of the face: samples from a CSV, a folder or a DataFrame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from folds.data.readers import read_data
from folds.data.sources import find_data
from folds.data.table import Dataset, DataSpec, SampleTable
from folds.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    Data: TypeAlias = Dataset | SampleTable | pd.DataFrame | str | Path


def read_table(
    source: str | Path | pd.DataFrame | None = None,
    *,
    path: str = "path",
    label: str = "label",
    person: str = "person",
    id: str | None = None,
    split: str | None = None,
    person_regex: str | None = None,
    test: str | Path | None = None,
    classes: Sequence[str] | None = None,
    need_images: bool = True,
) -> Dataset:
    """Return the training samples, and the test samples where there are any: which images there are, of what class, of whom.

    Parameters
    ----------
    source : a CSV or Parquet file, a folder with a CSV or of class folders, the mask-competition layout, or a DataFrame. Without
        it ``./data``, or else the synthetic people.
    path, label, person, id : names of columns; without `id` a column named ``id``, else the path, names the samples.
    split : a column whose value ``test`` keeps a row apart from training.
    person_regex : takes the person from an image's path where no column names it.
    test : further images to predict: a CSV or a folder.
    classes : the declared classes, in order; without it those that occur.
    need_images : False where images need not be there, to split or to score.

    Raises
    ------
    EnsembleError : one kind of problem at a time, with the first rows that have it.
    UsageError : an unknown column, or arguments that do not go together.

    Examples
    --------
    >>> import folds, pandas as pd
    >>> frame = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "label": ["cat", "dog"], "patient": ["ann", "bob"]})
    >>> data = folds.read_table(frame, person="patient", need_images=False)
    >>> len(data.train), data.train.classes
    (2, ('cat', 'dog'))
    """
    declared = None if classes is None else tuple(map(str, classes))
    if source is None:
        source = find_data(None)[0]
    if not isinstance(source, str | Path):
        raise NotImplementedError
    spec = DataSpec(
        Path(source), path, label, person, id, split, person_regex, None if test is None else Path(test), declared
    )
    return read_data(spec, need_images=need_images)


def training_table(data: Data | None = None, **columns: Any) -> SampleTable:
    """Return the training samples of whatever holds them; images need not be there."""
    if isinstance(data, Dataset | SampleTable):
        if columns:
            raise UsageError(f"`{next(iter(columns))}` goes with a file or a DataFrame: these samples are read already")
        return data if isinstance(data, SampleTable) else data.train
    return read_table(data, need_images=False, **columns).train
