"""Measure how much each setting of a tuning explains of the variance of the score.

A forest of randomised trees predicts the score of trials it has not seen from their settings (cross-validated). Then
one
setting at a time is shuffled among those trials: the squared error grows by twice the variance that the setting
accounts for
(where settings act on their own; Breiman 2001, Gregorutti et al. 2017). On trials that the forest was grown on, every
setting would seem to matter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.utils.files import derive_seed

FEWEST = 6  # trials with a score; of fewer, hardly anything can be predicted from the others
ENOUGH = 10  # trials a setting, below which it is said that they are few
_PARTS, _REPEATS, _TREES, _SHUFFLES = 5, 5, 64, 10


@dataclass(frozen=True)
class Importance:
    """What the settings say about the score.

    Attributes
    ----------
    share : setting → the share of the variance of the score that it explains, in [0, 1], the largest first.
    spread : setting → standard deviation of that share between repeats.
    explained : the share of the variance that all settings together predict on unseen trials (R²); at 0 or below,
        `share` means nothing.
    trials : that had a score.
    """

    share: Mapping[str, float]
    spread: Mapping[str, float]
    explained: float
    trials: int

    @property
    def verdict(self) -> str:
        """Return what a reader must know about the numbers."""
        if self.explained <= 0:
            return (
                f"from the settings of {self.trials} trials the score of another one cannot be told: the shares mean "
                "nothing yet"
            )
        said = f"the settings tell {self.explained:.0%} of the variance of the score of unseen trials"
        few = self.trials < ENOUGH * len(self.share)
        return said + (
            f"; {self.trials} trials are few for {len(self.share)} settings: the order may be luck" if few else ""
        )

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        share = {key: {"share": value, "sd": self.spread[key]} for key, value in self.share.items()}
        return {"settings": share, "explained": self.explained, "trials": self.trials, "verdict": self.verdict}


def measure(settings: Sequence[Mapping[str, Any]], scores: Sequence[float], seed: int = 0) -> Importance | None:
    """Return the importance of each setting; None for fewer than `FEWEST` trials, or where all scores are the same.

    Parameters
    ----------
    settings : of each trial, the same keys in all.
    scores : (trials,) of each.
    """
    values = np.asarray(scores, np.float64)
    if len(values) < FEWEST or np.ptp(values) == 0:
        return None
    keys = list(settings[0])
    inputs = np.column_stack([encoded([one[key] for one in settings]) for key in keys])
    repeats = [_cross_validated(inputs, values, derive_seed("importance", seed, repeat)) for repeat in range(_REPEATS)]
    errors, growth = np.array([error for error, _ in repeats]), np.array([grown for _, grown in repeats])
    variance = float(values.var()) * len(values)
    shares = np.clip(growth / (2 * variance), 0, 1)
    means, spreads = shares.mean(0), shares.std(0)
    order = sorted(range(len(keys)), key=lambda i: (-means[i], keys[i]))
    share, spread = ({keys[i]: float(numbers[i]) for i in order} for numbers in (means, spreads))
    return Importance(share, spread, float(1 - errors.mean() / variance), len(values))


def _cross_validated(
    inputs: NDArray[np.float64], values: NDArray[np.float64], seed: int
) -> tuple[float, NDArray[np.float64]]:
    """Return the squared error of predicting trials from the others, and by how much it grows with each setting
    shuffled.

    As ``sklearn.inspection.permutation_importance`` on the held-out part of each fold, but for what is put in a
    setting's place:
    that shuffles within the part, where of two trials one half stays as it was, of m one m-th, and the growth is short
    by as
    much. Here the values come from all trials.

    Parameters
    ----------
    inputs : (trials, settings).
    values : (trials,) scores.

    Returns
    -------
    The sum of squared errors over all trials, and (settings,) how much that grows.
    """
    from sklearn.ensemble import ExtraTreesRegressor

    rng = np.random.default_rng(seed)
    error, growth = 0.0, np.zeros(inputs.shape[1])
    for part in np.array_split(rng.permutation(len(values)), min(_PARTS, len(values))):
        rest = np.setdiff1d(np.arange(len(values)), part)
        forest = ExtraTreesRegressor(_TREES, min_samples_leaf=1, random_state=int(rng.integers(2**31)), n_jobs=1)
        forest.fit(inputs[rest], values[rest])
        squared = (forest.predict(inputs[part]) - values[part]) ** 2
        error += squared.sum()
        for column in range(inputs.shape[1]):
            shuffled = np.repeat(inputs[part][None], _SHUFFLES, 0)
            shuffled[:, :, column] = rng.choice(inputs[:, column], (_SHUFFLES, len(part)))
            worse = (forest.predict(shuffled.reshape(-1, inputs.shape[1])).reshape(_SHUFFLES, -1) - values[part]) ** 2
            growth[column] += worse.mean(0).sum() - squared.sum()
    return error, growth


def encoded(values: Sequence[Any]) -> NDArray[np.float64]:
    """Return (n,) numbers for values of one setting: themselves, or the place of each in their order. Trees ask for no
    more than an order.
    """
    if all(isinstance(value, int | float) for value in values):
        return np.array(values, np.float64)
    names = [json.dumps(value, sort_keys=True, default=str) for value in values]
    place = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([place[name] for name in names], np.float64)
