"""Student's t distribution for whole degrees of freedom, by its finite series: SciPy's takes a quarter of a second to import."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np


def t_two_sided(t: float, freedom: int) -> float:
    """P(|T| ≤ t) for t ≥ 0 and `freedom` ≥ 1 degrees of freedom (Abramowitz and Stegun, 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    k = np.arange(2 + odd, freedom - 1, 2)
    # 1, 1/2·cos², 1·3/(2·4)·cos⁴, … or, for odd degrees, cos, 2/3·cos³, 2·4/(3·5)·cos⁵, …
    terms = np.cumprod(np.concatenate([[1.0], (k - 1) / k * cosine**2]))
    if odd:
        return 2 / math.pi * (angle + (sine * cosine * float(terms.sum()) if freedom > 1 else 0.0))
    return sine * float(terms.sum())


@lru_cache
def t_quantile(level: float, freedom: int) -> float:
    """The t that `inside` gives `level` for: 2.262 for .95 and 9."""
    low, high = 0.0, 1.0
    while t_two_sided(high, freedom) < level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, freedom) < level else (low, middle)
    return high
