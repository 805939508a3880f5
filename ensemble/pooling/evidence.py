"""Pool the log-odds of a person's images by a damped sum, and these or numbers by a regression on statistics; numpy
only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.pooling.bags import Bags
from ensemble.voting.base import FLOOR
from folds.utils.numeric import softmax

# Statistics of the centered log-probabilities of each class over a person's images, in the order of coefficients. The
# number of images is log n, the same for every class.
STATISTICS = ("mean", "max", "sd", "q25", "q75", "log n")
# Of numbers. The log-odds of the two classes of a label are mirrored, so that their maxima are both ends; a number has
# both by itself.
NUMBER_STATISTICS = ("mean", "median", "min", "max", "sd", "log n")


def damped_log_odds(
    probabilities: NDArray[np.floating], bags: Bags, damping: float, prior: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (people, classes) softmax(log prior + n^(1 − damping) · mean of (log p − log prior)); 0 without an image.

    With damping 0 the log-odds of the images are added to those of the prior, which is right for images that are
    independent given the class; with damping 1 it is their mean, which is right for images that all say the same.
    """
    log_prior = np.log(np.maximum(prior, FLOOR))
    mean = bags.mean(np.log(np.maximum(np.asarray(probabilities, np.float64), FLOOR)) - log_prior)
    logits = log_prior + np.maximum(bags.counts, 1)[:, None] ** (1 - damping) * mean
    result = softmax(logits)
    result[bags.counts == 0] = 0
    return result


def statistics(probabilities: NDArray[np.floating], bags: Bags) -> NDArray[np.float64]:
    """Return (statistics, people, classes) the `STATISTICS` of each person; 0 without an image."""
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), FLOOR))
    logs -= logs.mean(axis=1, keepdims=True)
    mean = bags.mean(logs)
    found = [mean, bags.reduce(np.maximum, logs)]
    found.append(np.sqrt(np.maximum(bags.mean((logs - mean[bags.codes]) ** 2), 0)))
    found += [bags.quantile(logs, 0.25), bags.quantile(logs, 0.75)]
    size = np.log(np.maximum(bags.counts, 1))[:, None]
    return np.stack([*found, np.broadcast_to(size, mean.shape)])


def learned_pool(
    probabilities: NDArray[np.floating], bags: Bags, coefficients: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (people, classes) softmax(Σ coefficients · statistics + intercept); 0 without an image.

    Parameters
    ----------
    coefficients : (classes, statistics + 1), the intercept last.
    """
    logits = np.einsum("spc,cs->pc", statistics(probabilities, bags), coefficients[:, :-1]) + coefficients[:, -1]
    result = softmax(logits)
    result[bags.counts == 0] = 0
    return result


def number_statistics(numbers: NDArray[np.floating], bags: Bags) -> NDArray[np.float64]:
    """Return (statistics, people, columns) the `NUMBER_STATISTICS` of each person; 0 without an image.

    Parameters
    ----------
    numbers : (n, columns) of the images.
    """
    values = np.asarray(numbers, np.float64)
    mean = bags.mean(values)
    spread = np.sqrt(np.maximum(bags.mean((values - mean[bags.codes]) ** 2), 0))
    ends = bags.reduce(np.minimum, values), bags.reduce(np.maximum, values)
    size = np.log(np.maximum(bags.counts, 1))[:, None]
    return np.stack([mean, bags.quantile(values, 0.5), *ends, spread, np.broadcast_to(size, mean.shape)])


def learned_numbers(
    numbers: NDArray[np.floating], bags: Bags, coefficients: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (people, columns) Σ coefficients · statistics + intercept; 0 without an image.

    Parameters
    ----------
    numbers : (n, columns) of the images.
    coefficients : (columns, statistics + 1), the intercept last.
    """
    result = np.einsum("spc,cs->pc", number_statistics(numbers, bags), coefficients[:, :-1]) + coefficients[:, -1]
    result[bags.counts == 0] = 0
    return result
