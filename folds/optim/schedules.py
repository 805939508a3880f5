"""Compute the learning rate from the step and what is recorded: a resume has no scheduler to restore."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from folds.errors import UsageError, unknown_name


@dataclass(frozen=True)
class Schedule:
    """A course of the learning rate, as a share of its peak.

    Attributes
    ----------
    name : one of `SCHEDULES`.
    epochs : of the whole training.
    steps : an epoch.
    warmup : epochs in which the rate rises linearly first; the course begins after them.
    options : of this course, by name; those not given have the values of `SCHEDULES`.
    """

    name: str
    epochs: int
    steps: int
    warmup: float = 0.0
    options: Mapping[str, float] = field(default_factory=dict)

    def share(self, step: int, losses: Sequence[float] = ()) -> float:
        """Return the share of the peak at a step counted from 0; `losses` are the training losses of the epochs done
        (for ``plateau``).
        """
        warmup = self.warmup * self.steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        course = SCHEDULES[self.name]
        options = {**course.options, **self.options}
        return course.share(step - warmup, max(self.epochs * self.steps - warmup, 1), self.steps, losses, options)


Share = Callable[[float, float, int, Sequence[float], Mapping[str, float]], float]


@dataclass(frozen=True)
class _Course:
    share: Share
    options: Mapping[str, float] = field(default_factory=dict)


def _constant(step: float, total: float, steps: int, losses: Sequence[float], options: Mapping[str, float]) -> float:
    return 1.0


def _cosine(step: float, total: float, steps: int, losses: Sequence[float], options: Mapping[str, float]) -> float:
    """Return half a cosine from the peak to `final` (Loshchilov and Hutter, 2017, without restarts)."""
    return options["final"] + (1 - options["final"]) * 0.5 * (1 + math.cos(math.pi * min(step / total, 1.0)))


def _onecycle(step: float, total: float, steps: int, losses: Sequence[float], options: Mapping[str, float]) -> float:
    """Up from 1/`start` to the peak in the share `rise` of the steps, then down to 1/(`start`·`end`), both half a
    cosine (Smith and Topin, 2018).
    """
    low, lowest = 1 / options["start"], 1 / (options["start"] * options["end"])
    top = options["rise"] * total - 1
    if step <= top:
        return low + (1 - low) * 0.5 * (1 - math.cos(math.pi * step / max(top, 1e-9)))
    down = (step - top) / max(total - 1 - top, 1e-9)
    return lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * min(down, 1.0)))


def _cyclic(step: float, total: float, steps: int, losses: Sequence[float], options: Mapping[str, float]) -> float:
    """Triangles between 1/`start` and the peak, `cycle` epochs from valley to valley; each peak `shrink` times the one
    before (Smith, 2017).
    """
    low, half = 1 / options["start"], max(options["cycle"] * steps / 2, 1.0)
    cycle = math.floor(1 + step / (2 * half))
    height = max(0.0, 1 - abs(step / half - 2 * cycle + 1))
    return low + (1 - low) * height * options["shrink"] ** (cycle - 1)


def _step(step: float, total: float, steps: int, losses: Sequence[float], options: Mapping[str, float]) -> float:
    """Times `factor` every `every` epochs."""
    return options["factor"] ** math.floor(step / (options["every"] * steps))


def _plateau(step: float, total: float, steps: int, losses: Sequence[float], options: Mapping[str, float]) -> float:
    """Times `factor` whenever the training loss has not fallen by the share `least` for `patience` epochs.

    It looks at the training part alone: a rate that followed the validation loss would be tuned on the fold that is
    scored.
    """
    share, best, waited = 1.0, math.inf, 0
    for loss in losses:
        if loss < best * (1 - options["least"]):
            best, waited = loss, 0
        else:
            waited += 1
        if waited > options["patience"]:
            share, waited = share * options["factor"], 0
    return share


# name → its course and the values of its options.
SCHEDULES: dict[str, _Course] = {
    "cosine": _Course(_cosine, {"final": 0.0}),
    "constant": _Course(_constant),
    "onecycle": _Course(_onecycle, {"start": 25.0, "rise": 0.3, "end": 1e4}),
    "cyclic": _Course(_cyclic, {"start": 10.0, "cycle": 4.0, "shrink": 1.0}),
    "step": _Course(_step, {"every": 5.0, "factor": 0.1}),
    "plateau": _Course(_plateau, {"patience": 2.0, "factor": 0.1, "least": 1e-4}),
}
RISING = ("onecycle", "cyclic")  # they begin low: after a warm-up to the peak they would fall back at once
_SHARES = {"final", "rise", "shrink", "factor", "least"}  # from 0 to 1


def check_schedule(name: str, options: Mapping[str, Any]) -> None:
    """Refuse names and values that cannot be.

    Raises
    ------
    UsageError : an unknown schedule or option (the nearest are offered), or a value outside its range.
    """
    if name not in SCHEDULES:
        raise unknown_name("`schedule`", name, list(SCHEDULES))
    known = SCHEDULES[name].options
    for key, value in options.items():
        if key not in known:
            raise unknown_name(
                f"schedule_args of {name}", key, list(known), hint=None if known else f"{name} has no options"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"schedule_args: {key} must be a number, found {value!r}")
        if key in _SHARES and not 0 <= value <= 1:
            raise UsageError(f"schedule_args: {key} must be from 0 to 1, found {value:g}")
        if key not in _SHARES and value < (0 if key == "patience" else 1):
            raise UsageError(f"schedule_args: {key} must be {0 if key == 'patience' else 1} or more, found {value:g}")
