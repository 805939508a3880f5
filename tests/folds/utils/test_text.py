from __future__ import annotations

import pytest

from folds.utils.text import duration, natural_order


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


def test_natural_order_is_that_of_the_numbers_in_the_names() -> None:
    assert natural_order(["10", "2", "1"]) == ["1", "2", "10"]
    assert natural_order(["30-59", ">=60", "<30"]) == ["<30", "30-59", ">=60"]
    assert natural_order(["p10", "p9", "p9", "a"]) == ["a", "p9", "p10"]
    assert natural_order(["2 (male)", "10 (female)", "x"]) == ["2 (male)", "10 (female)", "x"]
    assert natural_order(["9" * 5000, "x" + "9" * 5000, "x1", "²", ""])[0] == "9" * 5000
