"""Weights of runs as they are typed: by name, or in the order of the runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from folds.errors import UsageError, unknown


def parse_weights(text: str, runs: Sequence[str]) -> dict[str, float]:
    """``swin=.7,resnet18=.3``, or ``.7,.3`` in the order of `runs`, as run → weight; they sum to 1.

    Raises
    ------
    UsageError : a run that is unknown or has no weight, another number of weights than runs, a weight that is not a
        number ≥ 0, or a sum of 0.
    """
    parts = [part.strip() for part in text.split(",")]
    named = ["=" in part for part in parts]
    example = ",".join(f"{name}={1 / len(runs):.2g}" for name in runs)
    if any(named) and not all(named):
        raise UsageError(f"--weights {text}: some weights have a name and some have none", hint=f"--weights {example}")
    if not any(named):
        if len(parts) != len(runs):
            raise UsageError(
                f"number of weights and runs must be equal: got {len(parts)} weights for {len(runs)} runs ({', '.join(runs)})",
                hint=f"--weights {example}",
            )
        given = dict(zip(runs, (_number(part, text) for part in parts), strict=True))
    else:
        given = {}
        for part in parts:
            name, _, value = part.rpartition("=")
            name = name.strip()
            if name not in runs:
                raise unknown("run in --weights", name, runs)
            if name in given:
                raise UsageError(f"--weights names {name} twice", hint=f"--weights {example}")
            given[name] = _number(value.strip(), text)
        missing = [name for name in runs if name not in given]
        if missing:
            raise UsageError(f"--weights has no weight for {', '.join(missing)}", hint=f"{missing[0]}=0 leaves it out, and so does --run")
    largest = max(given.values())
    if largest <= 0:
        raise UsageError(f"--weights {text}: the weights sum to 0", hint=f"--weights {example}")
    # By a power of two first, which changes no digit: the sum of the largest floats is infinite.
    scaled = {name: math.ldexp(value, -math.frexp(largest)[1]) for name, value in given.items()}
    total = sum(scaled.values())
    return {name: scaled[name] / total for name in runs}


def _number(part: str, text: str) -> float:
    try:
        value = float(part)
    except ValueError:
        raise UsageError(f"--weights {text}: '{part}' is not a number", hint="--weights .7,.3 or --weights swin=.7,resnet18=.3") from None
    if not math.isfinite(value) or value < 0:
        raise UsageError(f"--weights {text}: a weight must be a finite number from 0 up, found {part}", hint="weights are scaled to sum to 1")
    return value
