from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from folds.errors import UsageError
from folds.optim.schedules import SCHEDULES, Schedule, check_schedule


def of_torch(kind: Callable[..., Any], steps: int, **options: Any) -> list[float]:
    """The rates of one of torch's schedulers with a peak of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = kind(optimizer, **options)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("name", "options", "kind", "of_theirs"),
    [
        ("cosine", {}, lr_scheduler.CosineAnnealingLR, {"T_max": 80}),
        ("cosine", {"final": 0.1}, lr_scheduler.CosineAnnealingLR, {"T_max": 80, "eta_min": 0.1}),
        ("onecycle", {}, lr_scheduler.OneCycleLR, {"max_lr": 1.0, "total_steps": 80, "cycle_momentum": False}),
        (
            "onecycle",
            {"start": 5, "rise": 0.5, "end": 10},
            lr_scheduler.OneCycleLR,
            {
                "max_lr": 1.0,
                "total_steps": 80,
                "cycle_momentum": False,
                "div_factor": 5,
                "pct_start": 0.5,
                "final_div_factor": 10,
            },
        ),
        (
            "cyclic",
            {},
            lr_scheduler.CyclicLR,
            {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 20, "cycle_momentum": False},
        ),
        (
            "cyclic",
            {"cycle": 2, "shrink": 0.5},
            lr_scheduler.CyclicLR,
            {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 10, "cycle_momentum": False, "mode": "triangular2"},
        ),
        ("step", {"every": 2, "factor": 0.3}, lr_scheduler.StepLR, {"step_size": 20, "gamma": 0.3}),
        ("constant", {}, lr_scheduler.ConstantLR, {"factor": 1.0}),
    ],
)
def test_a_schedule_is_that_of_torch(
    name: str, options: dict[str, float], kind: Callable[..., Any], of_theirs: dict[str, Any]
) -> None:
    schedule = Schedule(name, epochs=8, steps=10, options=options)
    assert [schedule.share(step) for step in range(80)] == pytest.approx(of_torch(kind, 80, **of_theirs), abs=1e-6)


@pytest.mark.parametrize(("patience", "factor", "least"), [(2, 0.1, 1e-4), (0, 0.5, 0.1), (1, 0.3, 0.0)])
def test_a_plateau_is_that_of_torch(patience: int, factor: float, least: float) -> None:
    losses = [1.0, 0.9, 0.95, 0.9, 0.91, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, factor=factor, patience=patience, threshold=least, eps=0.0)
    options = {"patience": patience, "factor": factor, "least": least}
    schedule = Schedule("plateau", epochs=13, steps=5, options=options)
    for epoch, loss in enumerate(losses):
        assert schedule.share(epoch * 5, losses[:epoch]) == pytest.approx(optimizer.param_groups[0]["lr"])
        theirs.step(loss)
    assert schedule.share(60, losses) < 0.5


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_warm_up_is_linear_and_the_schedule_starts_after_it(name: str) -> None:
    schedule, bare = Schedule(name, epochs=6, steps=10, warmup=2), Schedule(name, epochs=4, steps=10)
    assert [schedule.share(step) for step in range(20)] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert [schedule.share(step) for step in range(20, 60)] == pytest.approx([bare.share(step) for step in range(40)])


def test_rate_is_from_zero_to_peak_even_after_the_last_step() -> None:
    for name in SCHEDULES:
        for warmup in (0, 0.5, 7):  # also one that is longer than the training
            schedule = Schedule(name, epochs=3, steps=7, warmup=warmup)
            assert all(0 <= schedule.share(step, [1.0] * (step // 7)) <= 1 for step in range(30)), (name, warmup)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosin", {}, "did you mean cosine"),
        ("cyclic", {"cycl": 2}, "did you mean cycle"),
        ("constant", {"factor": 0.5}, "factor"),
        ("step", {"factor": 1.5}, "factor must be from 0 to 1, found 1.5"),
        ("step", {"every": 0}, "every must be 1 or more, found 0"),
        ("plateau", {"patience": -1}, "patience must be 0 or more"),
        ("step", {"every": True}, "every must be a number, found True"),
        ("step", {"every": "2"}, "every must be a number, found '2'"),
        ("onecycle", {"rise": float("nan")}, "rise must be a number"),
    ],
)
def test_what_cannot_be_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_schedule(name, options)


@pytest.mark.parametrize("epochs", [1, 3, 5, 6, 10, 15, 17])
@pytest.mark.parametrize("cycle", [2, 4])
def test_a_cyclic_schedule_ends_in_a_valley(epochs: int, cycle: int) -> None:
    schedule = Schedule("cyclic", epochs=epochs, steps=20, options={"cycle": cycle})
    shares = [schedule.share(step) for step in range(epochs * 20)]
    assert shares[-1] < 0.2
    peaks = [i for i in range(1, len(shares) - 1) if shares[i - 1] < shares[i] >= shares[i + 1]]
    assert len(peaks) == max(1, round(epochs / cycle))
    assert max(shares) > 0.9


def test_the_rate_rises_anew_after_frozen_epochs() -> None:
    bare = Schedule("cosine", epochs=8, steps=10, warmup=1)
    frozen = Schedule("cosine", epochs=8, steps=10, warmup=1, frozen=3)
    for step in range(80):
        rise = (step - 30 + 1) / 11 if 30 <= step < 40 else 1.0
        assert frozen.share(step) == pytest.approx(bare.share(step) * rise)
    # Schedules that begin low have no warm-up of their own, but the body begins in their middle.
    assert Schedule("onecycle", 8, 10, frozen=2).share(20) < Schedule("onecycle", 8, 10).share(20) / 10


def test_cycles_are_not_stretched_if_that_is_asked_for() -> None:
    stretched, plain = (
        Schedule("cyclic", epochs=10, steps=20, options={"cycle": 4, "whole": whole}) for whole in (1, 0)
    )
    assert plain.share(199) > 0.9 > 0.2 > stretched.share(199)


@pytest.mark.parametrize(("warmup", "frozen"), [(2.0, 1), (3.0, 2), (0.0, 1), (1.0, 3)])
def test_the_body_begins_low_whatever_the_warm_up(warmup: float, frozen: int) -> None:
    schedule = Schedule("cosine", epochs=8, steps=10, warmup=warmup, frozen=frozen)
    body = [schedule.share(step) for step in range(frozen * 10, 80)]
    assert body[0] < 0.1
    peak = body.index(max(body))
    assert body[: peak + 1] == sorted(body[: peak + 1])  # one rise, then the fall of the cosine
    assert body[peak:] == sorted(body[peak:], reverse=True)
