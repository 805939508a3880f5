from __future__ import annotations

import pytest

from folds.utils.text import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "1 s"),
        (45, "45 s"),
        (89.4, "89 s"),
        (119.2, "2 min"),
        (600, "10 min"),
        (5399, "1 h 30 min"),
        (7860, "2 h 11 min"),
    ],
)
def test_a_duration_reads_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
