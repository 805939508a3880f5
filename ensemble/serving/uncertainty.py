"""Measure how uncertain the prediction of one image is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def entropy(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the entropy of each row (n, classes), divided by that of equal probabilities: 0 is sure, 1 is a guess."""
    values = np.asarray(probabilities, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(values > 0, -values * np.log(values), 0.0)
    found: NDArray[np.float64] = np.clip(terms.sum(axis=1) / np.log(values.shape[1]), 0.0, 1.0)
    return found


def margin(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the difference of the two largest probabilities of each row (n, classes)."""
    values = np.sort(np.asarray(probabilities, np.float64), axis=1)
    found: NDArray[np.float64] = values[:, -1] - values[:, -2]
    return found


def disagreement(members: NDArray[np.floating], probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the share of the members that predict another class than their combination.

    Parameters
    ----------
    members : (members, n, classes), in the columns of `probabilities`.
    probabilities : (n, classes) of the combination.
    """
    found: NDArray[np.float64] = (members.argmax(axis=2) != probabilities.argmax(axis=1)).mean(axis=0)
    return found
