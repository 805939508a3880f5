"""Measure how much of the variance of the score each setting of a study explains.

A forest of randomized trees is fitted on some trials and predicts the score of the others from their settings
(cross-validation). Then one setting at a time is shuffled among the held-out trials: the squared error grows by twice
the variance that the setting explains if settings do not interact (Breiman 2001, Gregorutti et al. 2017). The trials
used for fitting would give every setting a positive importance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.utils.files import derive_seed

MIN_TRIALS = 6  # trials with a score; with fewer, the forest can hardly predict a held-out trial
MIN_TRIALS_PER_SETTING = 10  # with fewer, the verdict warns that the order of the importances is unreliable
_PARTS, _REPEATS, _TREES, _SHUFFLES = 5, 5, 64, 10


@dataclass(frozen=True)
class Importance:
    """Importance of each setting of a study for the score.

    Attributes
    ----------
    share : setting → the share of the variance of the score that it explains, in [0, 1], the largest first.
    spread : setting → standard deviation of that share between repeats.
    r_squared : R² of the score of held-out trials, predicted from all settings; at 0 or below, ignore `share`.
    trials : number of trials with a score.
    """

    share: Mapping[str, float]
    spread: Mapping[str, float]
    r_squared: float
    trials: int

    @property
    def verdict(self) -> str:
        """Return one sentence about how far the importances can be trusted."""
        if self.r_squared <= 0:
            return (
                f"{self.trials} trials: the settings do not predict the score of unseen trials (R² ≤ 0): ignore the "
                "importances"
            )
        verdict = f"the settings explain {self.r_squared:.0%} of the variance of the score of unseen trials (R²)"
        if self.trials < MIN_TRIALS_PER_SETTING * len(self.share):
            verdict += f"; {self.trials} trials are few for {len(self.share)} settings: the order may be random"
        return verdict

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json``."""
        share = {key: {"share": value, "sd": self.spread[key]} for key, value in self.share.items()}
        return {"settings": share, "explained": self.r_squared, "trials": self.trials, "verdict": self.verdict}


def measure(settings: Sequence[Mapping[str, Any]], scores: Sequence[float], seed: int = 0) -> Importance | None:
    """Return the importance of each setting; None for fewer than `MIN_TRIALS` trials, or if all scores are the same.

    Parameters
    ----------
    settings : the settings of each trial, with the same keys in all.
    scores : (trials,) the score of each trial.
    """
    values = np.asarray(scores, np.float64)
    if len(values) < MIN_TRIALS or np.ptp(values) == 0:
        return None
    keys = list(settings[0])
    inputs = np.column_stack([encode_values([one[key] for one in settings]) for key in keys])
    repeats = [_cross_validated(inputs, values, derive_seed("importance", seed, repeat)) for repeat in range(_REPEATS)]
    errors, growth = np.array([error for error, _ in repeats]), np.array([grown for _, grown in repeats])
    variance = float(values.var()) * len(values)
    shares = np.clip(growth / (2 * variance), 0, 1)
    means, spreads = shares.mean(0), shares.std(0)
    order = sorted(range(len(keys)), key=lambda i: (-means[i], keys[i]))
    share, spread = ({keys[i]: float(statistic[i]) for i in order} for statistic in (means, spreads))
    return Importance(share, spread, float(1 - errors.mean() / variance), len(values))


def _cross_validated(
    inputs: NDArray[np.float64], values: NDArray[np.float64], seed: int
) -> tuple[float, NDArray[np.float64]]:
    """Return the cross-validated squared error of the scores, and its increase with each setting shuffled.

    Differs from ``sklearn.inspection.permutation_importance`` on the held-out part of each fold only in the values that
    replace a setting. Scikit-learn shuffles within the part: of m held-out trials, 1/m keep their value on average,
    which makes the increase too small by that share. Here the values are drawn from all trials.

    Parameters
    ----------
    inputs : (trials, settings).
    values : (trials,) scores.

    Returns
    -------
    The sum of squared errors over all trials, and its increase (settings,).
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


def encode_values(values: Sequence[Any]) -> NDArray[np.float64]:
    """Return (n,) the values of one setting as numbers: unchanged, or the index of each in their sorted order.

    Trees use only the order of the values.
    """
    if all(isinstance(value, int | float) for value in values):
        return np.array(values, np.float64)
    names = [json.dumps(value, sort_keys=True, default=str) for value in values]
    index = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([index[name] for name in names], np.float64)
