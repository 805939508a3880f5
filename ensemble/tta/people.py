"""Views of heads that predict an image from all images of its person: each view of them gives one prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from folds.data.table import SampleTable
from folds.errors import EnsembleError
from folds.models.checkpoint import Checkpoint
from folds.models.person_models import in_features, person_logits
from folds.models.timing import torch_threads
from folds.utils.csv_table import read_csv
from folds.utils.numeric import factorize


def person_numbers(table: SampleTable) -> NDArray[np.int64]:
    """Return (n,) the number of each row's person; without persons each image is on its own, as in the training."""
    return np.arange(len(table)) if table.persons is None else factorize(table.persons)[1].astype(np.int64)


def check_people(table: SampleTable, index: NDArray[np.int64], folds: Path, whose: str) -> None:
    """Raise EnsembleError if the rows `index` of a table have other persons than at training.

    The head would see other images together than those that its out-of-fold predictions were made from.

    Parameters
    ----------
    folds : ``runs/<run>/folds.csv``, which has the former persons; nothing is checked without it.
    whose : the checkpoint, for the error.
    """
    if not folds.is_file():
        return
    recorded = read_csv(folds)
    former_of = dict(zip(recorded.column("id"), recorded.column("person"), strict=True))
    ids = table.ids[index].tolist()
    if not all(name in former_of for name in ids):
        return
    former = factorize(np.array([former_of[name] for name in ids], dtype=str))[1]
    present = person_numbers(table)[index]
    pairs = np.unique(np.stack([former, present]), axis=1)
    for codes, one in zip((former, present), pairs, strict=True):
        people, counts = np.unique(one, return_counts=True)
        if (counts > 1).any():
            row = int(np.flatnonzero(codes == people[counts > 1][0])[0])
            raise EnsembleError(
                f"{whose} predicts an image from all images of its person, and {table.source} has other persons than "
                f"the training, e.g. of '{ids[row]}'",
                hint="`data` must name the table the checkpoint was trained on; train again if its persons were "
                "corrected",
            )


def logits_of_people(
    checkpoint: Checkpoint,
    head: nn.Module,
    people: NDArray[np.int64],
    missing: NDArray[np.bool_],
    features_of: Callable[[NDArray[np.bool_]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Return (rows missing, classes) the logits by a view of the images that are missing.

    Parameters
    ----------
    people : (n,) the person of each image.
    missing : (n,) whether the prediction of an image is missing.
    features_of : mask (n,) → (rows of it, features) of one view; called with all images of the persons of the missing
        ones, which a prediction is made from.
    """
    whole = np.isin(people, people[missing])
    features = in_features(features_of(whole), checkpoint.architecture.name)
    with torch_threads(1):  # as in the training: the sums depend on no number of cores
        return person_logits(checkpoint, head, features, people[whole])[missing[whole]]
