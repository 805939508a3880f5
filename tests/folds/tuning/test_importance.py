from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from folds.tuning.importance import encode_values, measure
from folds.tuning.importance_plot import draw_importance
from folds.tuning.space import Parameter, TuneOptions
from folds.tuning.trials import Trial

SPACE = (
    Parameter("lr", low=1e-5, high=1e-2, log=True),
    Parameter("loss", ("ce", "focal")),
    Parameter("epochs", low=2, high=9, integer=True),
)


def settings(n: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "lr": float(10 ** rng.uniform(-5, -2)),
            "loss": ("ce", "focal")[rng.integers(2)],
            "epochs": int(rng.integers(2, 10)),
        }
        for _ in range(n)
    ]


def additive(one: dict[str, Any]) -> float:
    """Of the variance, log lr has 4 / (4 + 12 / 4) and the loss the rest: 0.57 and 0.43."""
    return float(2 * (np.log10(one["lr"]) + 3.5) / 3 * np.sqrt(12) + np.sqrt(12) * (one["loss"] == "focal"))


def test_shares_match_the_variance_that_each_setting_explains() -> None:
    some = settings(200)
    found = measure(some, [additive(one) for one in some])
    assert found is not None
    assert list(found.share) == ["lr", "loss", "epochs"]
    assert found.share["lr"] == pytest.approx(4 / 7, abs=0.1)
    assert found.share["loss"] == pytest.approx(3 / 7, abs=0.1)
    assert found.share["epochs"] < 0.02
    assert found.r_squared > 0.9
    assert "few" not in found.verdict


def test_of_noise_nothing_is_claimed() -> None:
    found = measure(settings(30), np.random.default_rng(1).normal(size=30).tolist())
    assert found is not None
    assert found.r_squared <= 0
    assert "ignore the importances" in found.verdict


def test_the_verdict_warns_of_few_trials() -> None:
    some = settings(12)
    found = measure(some, [additive(one) for one in some])
    assert found is not None
    assert "12 trials are few for 3 settings" in found.verdict or found.r_squared <= 0
    assert measure(some[:5], [1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert measure(some, [0.5] * 12) is None


def test_the_same_trials_give_the_same_numbers() -> None:
    some = settings(15)
    scores = [additive(one) for one in some]
    assert measure(some, scores) == measure(some, scores)


def test_values_that_are_no_numbers_are_told_apart() -> None:
    assert encode_values([3, 1.5]).tolist() == [3, 1.5]
    assert encode_values(["focal", "ce", "focal"]).tolist() == [1, 0, 1]
    assert encode_values([{"cycle": 4}, {"cycle": 2}]).tolist() == [1, 0]


@pytest.mark.parametrize("count", [1, 5, 40])
def test_the_plot_has_a_mark_for_every_trial(tmp_path: Path, count: int) -> None:
    trials = [
        Trial(i, one, "stopped" if i % 3 else "finished", additive(one), {0: 0.0}, 1, 3, 1.0)
        for i, one in enumerate(settings(count))
    ]
    failed = Trial(count, settings(1)[0], "failed", None, {}, 0, 3, 1.0, "the loss is nan")
    importance = measure([one.settings for one in trials], [one.score or 0.0 for one in trials])
    path = draw_importance(tmp_path / "importance.png", SPACE, [*trials, failed], importance, TuneOptions())
    assert path is not None
    with Image.open(path) as image:
        colours = dict(map(reversed, image.convert("RGB").getcolors(1 << 24) or []))  # type: ignore[arg-type]
    assert colours[(0xC2, 0x3B, 0x22)] > 20 * len(SPACE)  # the best, once a panel
    assert (colours.get((0x2F, 0x6D, 0xB5), 0) > 0) == (count > 1)


def test_without_a_score_there_is_no_plot(tmp_path: Path) -> None:
    failed = Trial(0, settings(1)[0], "failed", None, {}, 0, 3, 1.0, "the loss is nan")
    assert draw_importance(tmp_path / "importance.png", SPACE, [failed], None, TuneOptions()) is None
    assert not list(tmp_path.iterdir())
