"""Compute the learning rate from the step and the recorded losses, so that a resumed training restores no scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from folds.errors import UsageError, unknown_name
from folds.utils.schema import shown


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule, as a share of the peak rate.

    Attributes
    ----------
    name : one of `SCHEDULES`.
    epochs : number of epochs of the training.
    steps : steps per epoch.
    warmup : epochs of linear warm-up; the schedule starts after them.
    options : options of this schedule by name; missing options have the defaults in `SCHEDULES`.
    frozen : epochs at the start in which only the head is trained; the rate then rises anew, because the first steps of
        the body at the full rate would undo what it has learned.
    """

    name: str
    epochs: int
    steps: int
    warmup: float = 0.0
    options: Mapping[str, float] = field(default_factory=dict)
    frozen: int = 0

    def share(self, step: int, losses: Sequence[float] = ()) -> float:
        """Return the share of the peak rate at a step, counted from 0.

        Parameters
        ----------
        losses : training losses of the finished epochs, for ``plateau``.
        """
        warmup = self.warmup * self.steps
        share = (step + 1) / (warmup + 1) if step < warmup else self._share(step, warmup, losses)
        rise = (self.warmup or 1.0) * self.steps
        since = step - self.frozen * self.steps
        # A warm-up that is longer than the frozen epochs is not over yet: the body begins low all the same.
        return share * (since + 1) / (rise + 1) if self.frozen and 0 <= since < rise else share

    def _share(self, step: int, warmup: float, losses: Sequence[float]) -> float:
        schedule_type = SCHEDULES[self.name]
        options = {**schedule_type.options, **self.options}
        return schedule_type.share(
            step - warmup, max(self.epochs * self.steps - warmup, 1), self.steps, losses, options
        )


Share = Callable[[float, float, int, Sequence[float], Mapping[str, float]], float]


@dataclass(frozen=True)
class _ScheduleType:
    share: Share
    options: Mapping[str, float] = field(default_factory=dict)


def _constant(step: float, total: float, steps: int, losses: Sequence[float], options: Mapping[str, float]) -> float:
    return 1.0


def _cosine(step: float, total: float, steps: int, losses: Sequence[float], options: Mapping[str, float]) -> float:
    """Return half a cosine from the peak to `final` (Loshchilov and Hutter, 2017, without restarts)."""
    return options["final"] + (1 - options["final"]) * 0.5 * (1 + math.cos(math.pi * min(step / total, 1.0)))


def _onecycle(step: float, total: float, steps: int, losses: Sequence[float], options: Mapping[str, float]) -> float:
    """Return the 1cycle schedule (Smith and Topin, 2018), with half a cosine up and half a cosine down.

    The rate rises from 1/`start` to the peak in the share `rise` of the steps, then falls to 1/(`start`·`end`).
    """
    low, lowest = 1 / options["start"], 1 / (options["start"] * options["end"])
    top = options["rise"] * total - 1
    if step <= top:
        return low + (1 - low) * 0.5 * (1 - math.cos(math.pi * step / max(top, 1e-9)))
    down = (step - top) / max(total - 1 - top, 1e-9)
    return lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * min(down, 1.0)))


def _cyclic(step: float, total: float, steps: int, losses: Sequence[float], options: Mapping[str, float]) -> float:
    """Return the triangular cyclic schedule between 1/`start` and the peak (Smith, 2017).

    A cycle takes about `cycle` epochs: with `whole`, cycles are stretched so that a whole number of them fills the
    training, which otherwise could end at its peak rate. Each peak is `shrink` times the previous one.
    """
    low, half = 1 / options["start"], max(options["cycle"] * steps / 2, 1.0)
    if options["whole"]:
        half = max(total / max(1, round(total / (2 * half))) / 2, 1.0)
    cycle = math.floor(1 + step / (2 * half))
    height = max(0.0, 1 - abs(step / half - 2 * cycle + 1))
    return low + (1 - low) * height * options["shrink"] ** (cycle - 1)


def _step(step: float, total: float, steps: int, losses: Sequence[float], options: Mapping[str, float]) -> float:
    """Return a rate that is multiplied by `factor` every `every` epochs."""
    return options["factor"] ** math.floor(step / (options["every"] * steps))


def _plateau(step: float, total: float, steps: int, losses: Sequence[float], options: Mapping[str, float]) -> float:
    """Return a rate that is multiplied by `factor` when the training loss stops falling.

    The loss must fall by at least the share `least` within `patience` epochs. Only the training loss is used: a rate
    that follows the validation loss would be tuned on the fold that is scored.
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


# Name → the function, and the defaults of its options.
SCHEDULES: dict[str, _ScheduleType] = {
    "cosine": _ScheduleType(_cosine, {"final": 0.0}),
    "constant": _ScheduleType(_constant),
    "onecycle": _ScheduleType(_onecycle, {"start": 25.0, "rise": 0.3, "end": 1e4}),
    "cyclic": _ScheduleType(_cyclic, {"start": 10.0, "cycle": 4.0, "shrink": 1.0, "whole": 1.0}),
    "step": _ScheduleType(_step, {"every": 5.0, "factor": 0.1}),
    "plateau": _ScheduleType(_plateau, {"patience": 2.0, "factor": 0.1, "least": 1e-4}),
}
RISING = ("onecycle", "cyclic")  # they start low, so after a warm-up to the peak the rate would drop at once
_SHARES = {"final", "rise", "shrink", "factor", "least", "whole"}  # from 0 to 1


def check_schedule(name: str, options: Mapping[str, Any]) -> None:
    """Raise UsageError for an unknown schedule or option, or for a value outside its range."""
    if name not in SCHEDULES:
        raise unknown_name("`schedule`", name, list(SCHEDULES))
    known = SCHEDULES[name].options
    for key, value in options.items():
        if key not in known:
            raise unknown_name(
                f"schedule_args of {name}", key, list(known), hint=None if known else f"{name} has no options"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"schedule_args: {key} must be a number, found {shown(value)}")
        if key in _SHARES and not 0 <= value <= 1:
            raise UsageError(f"schedule_args: {key} must be from 0 to 1, found {value:g}")
        if key not in _SHARES and value < (0 if key == "patience" else 1):
            raise UsageError(f"schedule_args: {key} must be {0 if key == 'patience' else 1} or more, found {value:g}")
