"""Compute the decay of the moving average of the weights, which grows to its final value during the training."""

from __future__ import annotations

DEFAULT_POWER = 2 / 3


def ema_decay(step: int, decay: float, power: float | None = None) -> float:
    """Return the decay of timm's moving average at a step, counted from 0: min(decay, 1 − step^−power), and 0 at first.

    At a constant decay the average would consist of the initial weights for many steps. With the power 2/3 the decay
    is .997 after 7,500 steps, with 1 it is .9999 after 10,000: a larger final value is not reached before.

    Parameters
    ----------
    decay : the final value.
    power : of the warm-up; 0 for none, None for 2/3, the value of timm.
    """
    power = DEFAULT_POWER if power is None else power
    if step <= 1:
        return 0.0
    return decay if not power else min(decay, 1 - step**-power)


def ema_note(steps: int, decay: float, power: float | None = None) -> str:
    """Return one line if the decay of a training is clearly below its final value at the end; "" if it is reached."""
    reached = ema_decay(max(steps - 1, 0), decay, power)
    if not decay or 1 - reached <= 1.05 * (1 - decay):
        return ""
    return (
        f"`ema={decay:g}` is not reached: with its warm-up the decay is {reached:.4f} after the {steps:,} steps of a "
        "fold (`ema_warmup=1` warms up faster, `ema_warmup=0` not at all)"
    )
