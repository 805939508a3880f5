"""Pool the probabilities of a person's images by rules that fit nothing; numpy only.

Rules that look for something in any image (max, top-k, noisy-or) need to know what. With two classes it is the
positive class, which is the last one, and with grades "at least this grade" for each grade; the probabilities of grades
are the differences. Among classes without an order each class is pooled against the others, and the results are scaled
to the sum 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.pooling.bags import Bags
from ensemble.pooling.spec import MAX, MEAN, MEDIAN, NOISY_OR, TOP_K
from ensemble.voting.base import FLOOR


def pool_images(
    probabilities: NDArray[np.floating], bags: Bags, rule: str, k: int, ordered: bool
) -> NDArray[np.float64]:
    """Return (people, classes) the predictions of people; rows sum to 1, or are 0 for people without an image.

    Parameters
    ----------
    probabilities : (n, classes) of the images, rows sum to 1.
    rule : one of `ensemble.pooling.spec.FIXED`.
    k : images of ``top-k``.
    ordered : whether the classes are grades in their order; two classes always are.
    """
    values = np.asarray(probabilities, np.float64)
    mean = bags.mean(values)
    if rule == MEAN:
        return mean
    if ordered or values.shape[1] == 2:
        at_least = np.clip(np.cumsum(values[:, ::-1], axis=1)[:, ::-1][:, 1:], 0, 1)
        pooled = np.minimum.accumulate(pool_values(at_least, bags, rule, k), axis=1)
        edges = np.concatenate([np.ones((len(pooled), 1)), pooled, np.zeros((len(pooled), 1))], axis=1)
        result = edges[:, :-1] - edges[:, 1:]
    else:
        result = pool_values(values, bags, rule, k)
        total = result.sum(axis=1, keepdims=True)
        result = np.where(total > 0, result / np.where(total > 0, total, 1), mean)
    result[bags.counts == 0] = 0
    return result


def pool_values(values: NDArray[np.float64], bags: Bags, rule: str, k: int) -> NDArray[np.float64]:
    """Return (people, columns) values (n, columns) pooled over each person's images, each column by itself.

    They are the probabilities of something, from 0 to 1, or numbers, which have no ``noisy-or``.
    """
    if rule == MEAN:
        return bags.mean(values)
    if rule == MAX:
        return bags.reduce(np.maximum, values)
    if rule == TOP_K:
        return bags.largest(values, k)
    if rule == MEDIAN:
        return bags.quantile(values, 0.5)
    if rule == NOISY_OR:  # 1 − Π (1 − p); an image that is certain must not hide how many others there are
        return -np.expm1(bags.reduce(np.add, np.log1p(-np.minimum(values, 1 - FLOOR))))
    raise ValueError(f"{rule} is fitted")
