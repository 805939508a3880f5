"""How many jobs a GPU trains at once: the choice by numbers, and the processes that measure them (here on the CPU)."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import pytest

from folds.execution import gpu_sharing as sharing
from folds.execution.gpu_sharing import Cost, Headroom, choose_jobs, measure_cost
from folds.models.model_names import resolve

GIB = 2**30
H100 = Headroom(78 * GIB, 80 * GIB, GIB)
SMALL = Cost(2 * GIB, 0.98, (400.0, 760.0, 1000.0, 1300.0))


@pytest.mark.parametrize(
    ("cost", "room", "waiting", "expected"),
    [
        (SMALL, H100, 20, 4),
        (SMALL, H100, 3, 3),
        (SMALL, H100, 1, 1),
        # Four at once leave one alone in the last round, which is no gain over three.
        (Cost(GIB, 1.0, (400.0, 760.0, 1100.0, 1190.0)), H100, 6, 3),
        (Cost(GIB, 1.0, (400.0, 430.0, 440.0)), H100, 20, 1),
        (Cost(GIB, 1.0, (400.0, 700.0)), H100, 20, 2),
        # The GPU is busy: the host has started a step long before it is computed.
        (Cost(GIB, 0.4, (400.0,)), H100, 20, 1),
        # 3 × (2 + 1) GiB fit into 0.9 × 10.5 GiB, 4 times do not.
        (SMALL, Headroom(int(10.5 * GIB), 12 * GIB, GIB), 20, 3),
        (SMALL, Headroom(5 * GIB, 12 * GIB, GIB), 20, 1),
        # Images of 10 GiB would leave a GPU of 48 GiB with three jobs, which each have a sixth of it for images.
        (SMALL, Headroom(47 * GIB, 48 * GIB, 10 * GIB), 20, 2),
        # They are too many in any case, and are sent batch by batch.
        (SMALL, Headroom(47 * GIB, 48 * GIB, 30 * GIB), 20, 4),
    ],
)
def test_as_many_jobs_as_fit_and_pay(cost: Cost, room: Headroom, waiting: int, expected: int) -> None:
    assert choose_jobs(cost, room, waiting)[0] == expected


def test_the_reason_has_the_numbers() -> None:
    assert choose_jobs(SMALL, H100, 20)[1] == (
        "4 jobs on each GPU: one takes 3.0 of 78.0 GiB that are free, and images/s of jobs together are 1 400, 2 760, "
        "3 1,000, 4 1,300 (measured)"
    )
    assert "the host needs 40% of a step" in choose_jobs(Cost(GIB, 0.4, (400.0,)), H100, 20)[1]
    assert choose_jobs(SMALL, Headroom(5 * GIB, 12 * GIB, GIB), 9)[1].startswith(
        "1 job on each GPU: one takes 3.0 of 5.0"
    )


def test_what_was_measured_can_be_read_again_and_may_not_suffice() -> None:
    assert Cost.from_record(vars(SMALL)) == SMALL
    for broken in (
        {},
        vars(SMALL) | {"rates": []},
        vars(SMALL) | {"rates": [0]},
        vars(SMALL) | {"host": 2},
        {"bytes": 1},
    ):
        assert Cost.from_record(broken) is None
    two = Cost(GIB, 1.0, (400.0, 700.0))
    assert two.is_enough_for(2)
    assert not two.is_enough_for(3)
    assert Cost(GIB, 1.0, (400.0, 410.0)).is_enough_for(4)
    assert Cost(GIB, 0.3, (400.0,)).is_enough_for(4)


class Trials:
    """Stand for the processes: `rates` are those of each process, by how many run; `fails` have no memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rates: dict[int, float], **found: Any) -> None:
        self.now, self.most, self.started, self.fails = 0, 0, 0, set[int]()
        self.found = {"bytes": 2 * GIB, "free": 78 * GIB, "total": 80 * GIB, "host": 0.95} | found
        outer = self

        class Fake:
            def __init__(self, order: Any, device: str) -> None:
                assert device == "cuda:1"
                outer.started += 1
                self.number, self.first, self.ended = outer.started, True, False

            def __enter__(self) -> Fake:
                return self

            def __exit__(self, *error: object) -> None:
                outer.started -= 1

            def say(self, what: Any) -> None:
                outer.now += 1
                outer.most = max(outer.most, outer.now)

            def answer(self) -> dict[str, Any]:
                if self.number in outer.fails:
                    raise RuntimeError("CUDA out of memory")
                if self.first:
                    self.first = False
                    return outer.found
                running, outer.now = outer.now, outer.now - 1
                self.running = running
                return {"rate": rates[outer.most]}

        monkeypatch.setattr(sharing, "_Trial", Fake)


def test_processes_are_added_while_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = Trials(monkeypatch, {1: 400, 2: 350, 3: 240, 4: 200})
    cost, room = measure_cost({}, "cuda:1", partial(Headroom, images=GIB), 20)
    assert cost == Cost(2 * GIB, 0.95, (400, 700, 720))  # the fourth is not tried
    assert room == Headroom(78 * GIB, 80 * GIB, GIB)
    assert trials.started == 0  # all have ended


def test_a_busy_gpu_and_a_full_one_get_no_second_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in ({"host": 0.5}, {"free": 4 * GIB}):
        trials = Trials(monkeypatch, {1: 400}, **found)
        assert measure_cost({}, "cuda:1", partial(Headroom, images=GIB), 20)[0].rates == (400,)
        assert trials.most == 1


def test_a_process_without_memory_ends_the_measurement_not_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = Trials(monkeypatch, {1: 400, 2: 390, 3: 380, 4: 370})
    trials.fails = {3}
    assert measure_cost({}, "cuda:1", partial(Headroom, images=GIB), 20)[0].rates == (400,)
    trials.fails = {1}
    with pytest.raises(RuntimeError, match="out of memory"):
        measure_cost({}, "cuda:1", partial(Headroom, images=GIB), 20)


ORDER: dict[str, Any] = {
    "architecture": asdict(resolve("test_resnet", (32, 32))),
    "outputs": 3,
    "batch": 4,
    "accumulate": 2,
    "image_size": [40, 40],
    "amp": "off",
    "channels_last": None,
    "grad_checkpointing": False,
    "opt": "adamw",
    "opt_args": {},
    "ema": 0.9,
    "augment": "strong",
    "threads": 1,
}


def test_a_process_trains_and_says_its_rate() -> None:
    with sharing._Trial(ORDER, "cpu") as trial:
        found = trial.answer()
        assert (found["bytes"], found["free"], found["total"]) == (0, 0, 0)  # of a CPU nothing is known
        assert 0 < found["host"] <= 1
        trial.say({"seconds": 0.01})
        assert trial.answer()["rate"] > 0


def test_a_training_that_does_not_run_is_an_error_with_its_reason() -> None:
    with sharing._Trial(ORDER | {"accumulate": 0}, "cpu") as trial, pytest.raises(RuntimeError, match="sections"):
        trial.answer()


def test_a_process_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_PATIENCE", 0.0)
    with sharing._Trial(ORDER, "cpu") as trial, pytest.raises(RuntimeError, match="has ended"):
        trial.answer()
