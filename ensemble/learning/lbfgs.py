"""Minimize a smooth convex loss plus an L2 penalty by preconditioned L-BFGS; numpy only.

SciPy's L-BFGS-B has no preconditioner, starts every fit without curvature, and costs more to import than all of numpy.
Here, what one fit has learned about the curvature serves the next one with another penalty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Loss = Callable[[Vector], tuple[float, Vector]]
Preconditioner = Callable[[Vector], Vector]

MAX_STEPS = 200
_PAIRS = 10  # remembered steps
_SUFFICIENT = 1e-4  # share of the predicted decrease that a step must reach (Armijo)
_ROUNDING = 1e-9  # relative error of a loss that is summed from float32 values
_HALVINGS = 12


@dataclass
class Descent:
    """A point of a minimization, with what is known about the loss there.

    Attributes
    ----------
    point : (size,) the parameters.
    loss, gradient : of the data, without the penalty; None if not computed yet.
    pairs : steps, and the change of the data's gradient over each; they are valid for any penalty.
    """

    point: Vector
    loss: float = 0.0
    gradient: Vector | None = None
    pairs: list[tuple[Vector, Vector]] = field(default_factory=list)


def descend(
    at: Descent, data_loss: Loss, penalty: float, precondition: Preconditioner, tolerance: float, steps: int = MAX_STEPS
) -> None:
    """Move `at` to the minimum of ``data_loss(x) + penalty / 2 · Σ x²``.

    Parameters
    ----------
    data_loss : returns the loss and its gradient (size,).
    precondition : returns about H⁻¹ g for a gradient g, where H is the curvature of the penalized loss.
    tolerance : stop when the next step is expected to lower the loss by less than this fraction.
    """
    gradient = at.gradient
    if gradient is None:
        at.loss, gradient = data_loss(at.point)
    for _ in range(steps):
        slope = gradient + penalty * at.point
        value = at.loss + penalty / 2 * float(at.point @ at.point)
        direction = -_two_loops(slope, at.pairs, penalty, precondition)
        decrease = -float(slope @ direction)
        if not decrease / 2 > tolerance * max(abs(value), 1.0):
            break
        moved = _step(at, gradient, data_loss, penalty, direction, decrease, value)
        if moved is None:
            break
        gradient = moved
    at.gradient = gradient


def _step(
    at: Descent, before: Vector, data_loss: Loss, penalty: float, direction: Vector, decrease: float, value: float
) -> Vector | None:
    """Move along `direction` by a step that lowers the loss, and return the gradient there; None if there is none."""
    size = 1.0
    for _ in range(_HALVINGS):
        step = size * direction
        point = at.point + step
        loss, gradient = data_loss(point)
        found = loss + penalty / 2 * float(point @ point)
        if found <= value - _SUFFICIENT * size * decrease + _ROUNDING * abs(value):
            change = gradient - before
            if float(step @ change) > 0:
                at.pairs.append((step, change))
                del at.pairs[:-_PAIRS]
            at.point, at.loss = point, loss
            return gradient
        # The minimum of the parabola through both values and the slope at the start.
        curve = 2 * (found - value + size * decrease) / size**2
        size = float(np.clip(decrease / curve, 0.1 * size, 0.5 * size)) if curve > 0 else 0.1 * size
    return None


def _two_loops(
    slope: Vector, pairs: list[tuple[Vector, Vector]], penalty: float, precondition: Preconditioner
) -> Vector:
    """Return about H⁻¹ times the slope (Nocedal & Wright, Numerical Optimization, algorithm 7.4)."""
    rest, shares = slope.copy(), []
    for step, change in reversed(pairs):
        curvature = float(step @ change) + penalty * float(step @ step)
        share = float(step @ rest) / curvature
        rest -= share * change
        rest -= share * penalty * step
        shares.append((share, curvature))
    found = precondition(rest)
    for (step, change), (share, curvature) in zip(pairs, reversed(shares), strict=True):
        found += (share - (float(change @ found) + penalty * float(step @ found)) / curvature) * step
    return found
