"""Progress that nobody sees takes what every implementation takes."""

from __future__ import annotations

from folds.utils.parallel import map_threads
from folds.utils.progress import SILENT, Progress


class Recorded:
    """Progress that is kept, as a test or a notebook would."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []
        self.title = ""

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((self.title, done, total))


def test_silence_takes_steps_and_jobs() -> None:
    progress: Progress = SILENT
    with progress.step("decoding images") as advance:
        assert map_threads(lambda at: at, 20, 2, advance) == list(range(20))
    with progress.jobs([], 1) as view:
        view.event(None, {"event": "step", "done": 1, "total": 2})
        view.outcome(None)


def test_a_step_counts_up_to_its_total() -> None:
    recorded = Recorded()
    map_threads(lambda at: at, 20, 2, recorded)
    assert [done for _, done, _ in recorded.calls] == [8, 16, 20]
    assert {total for *_, total in recorded.calls} == {20}
