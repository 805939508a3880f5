"""Keep the persons of the test images with a run, for heads that predict an image from all images of its person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.predictions.files import read_array
from folds.training.job import Job
from folds.utils.files import write_atomic
from folds.utils.numeric import factorize

TEST_PERSONS = "test_persons.npy"  # in the folder of the run: (n, 1) the number of each test image's person


def write_test_persons(folder: Path, persons: NDArray[Any] | None) -> None:
    """Write the persons of the test images; nothing if the table names none: then each image is on its own."""
    if persons is not None:
        codes = factorize(persons)[1].astype(np.float64)[:, None]
        write_atomic(folder / TEST_PERSONS, lambda file: np.save(file, codes, allow_pickle=False))


def read_test_persons(job: Job) -> NDArray[np.int64] | None:
    """Return (n,) the person of each test image; None if they are not known."""
    path = Path(job.folder) / TEST_PERSONS
    if not path.is_file():
        return None
    values = read_array(path)
    if values.shape[1] != 1:
        raise EnsembleError(f"{path} is damaged", hint="`force=True` trains the run from scratch")
    return np.asarray(values[:, 0], np.int64)
