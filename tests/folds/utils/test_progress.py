"""Progress that nobody sees takes what every implementation takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from folds.utils.parallel import map_threads
from folds.utils.progress import SILENT, Advance, Progress


class Steps:
    """Progress that is kept, as a notebook's would be shown."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.calls: list[tuple[int, int]] = []
        self.events: list[tuple[str, str]] = []
        self.ended: list[str] = []

    @contextmanager
    def step(self, title: str) -> Iterator[Advance]:
        self.titles.append(title)
        yield lambda done, total: self.calls.append((done, total))

    @contextmanager
    def jobs(self, jobs: Sequence[Any], slots: int) -> Iterator[Steps]:
        yield self

    def event(self, job: Any, event: Mapping[str, Any]) -> None:
        self.events.append((job.title, event["event"]))

    def outcome(self, outcome: Any) -> None:
        self.ended.append(outcome.job.title)


def test_silence_takes_steps_and_jobs() -> None:
    progress: Progress = SILENT
    with progress.step("decoding images") as advance:
        assert map_threads(lambda at: at, 20, 2, advance) == list(range(20))
    with progress.jobs([], 1) as view:
        view.event(None, {"event": "step", "done": 1, "total": 2})
        view.outcome(None)


def test_a_step_counts_up_to_its_total() -> None:
    steps = Steps()
    progress: Progress = steps
    with progress.step("working") as advance:
        map_threads(lambda at: at, 20, 2, advance)
    assert steps.titles == ["working"]
    assert steps.calls == [(8, 20), (16, 20), (20, 20)]
