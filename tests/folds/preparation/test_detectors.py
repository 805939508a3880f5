"""One interface for all detectors: settings that cannot be are refused, and each thread has a detector of its own."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from folds.errors import UsageError
from folds.preparation.boxes import Box
from folds.preparation.detectors import DetectorSettings, OnePerThread, describe_detector


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "opncv"}, "unknown detector 'opncv'; did you mean opencv"),
        ({"name": "mediapipe"}, "needs a model file"),
        ({"model": Path("x.tflite")}, "OpenCV includes its models"),
        ({"min_confidence": 1.5}, "min_confidence must be from 0 to 1, found 1.5"),
        ({"min_face": -0.1}, "min_face must be from 0 to 1"),
        ({"min_face": float("nan")}, "min_face must be from 0 to 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message) -> None:
    with pytest.raises(UsageError, match=message):
        DetectorSettings(**settings)


def test_the_record_tells_versions_and_settings_apart() -> None:
    record = describe_detector(DetectorSettings(min_confidence=0.3))
    assert (record["name"], record["min_confidence"], record["min_face"]) == ("opencv", 0.3, 0.25)
    assert str(record["version"])[0] == "4"


class Counted:
    made: list[Counted] = []  # noqa: RUF012 - shared on purpose

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.closed = False
        Counted.made.append(self)

    def find(self, image: np.ndarray) -> list[Box]:
        self.threads.add(threading.get_ident())
        return [Box(0, 0, image.shape[1], image.shape[0], 1.0)]

    def close(self) -> None:
        self.closed = True


def test_each_thread_has_its_own_detector_and_all_are_closed() -> None:
    Counted.made.clear()
    shared, barrier = OnePerThread(Counted), threading.Barrier(3)

    def work() -> None:
        barrier.wait(timeout=10)
        for _ in range(5):
            shared.find(np.zeros((4, 6, 3), np.uint8))
        barrier.wait(timeout=10)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(detector.threads) for detector in Counted.made] == [1, 1, 1]
    shared.close()
    assert all(detector.closed for detector in Counted.made)
