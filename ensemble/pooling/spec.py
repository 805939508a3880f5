"""Parse ``--pool``: the name of a pooling rule with its setting, as in ``top-k:k=3``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from folds.errors import UsageError, unknown_name
from folds.metrics.task_names import REGRESSION

MEAN, MEDIAN, MAX, NOISY_OR, TOP_K = "mean", "median", "max", "noisy-or", "top-k"
LOG_ODDS, LEARNED, AUTO = "log-odds", "learned", "auto"
# Rules that fit nothing, rules that are fitted, and the choice among all of them.
FIXED = (MEAN, MEDIAN, MAX, TOP_K, NOISY_OR)
FITTED = (LOG_ODDS, LEARNED)
RULES = (*FIXED, *FITTED)
ANY_IMAGE = (MAX, TOP_K, NOISY_OR)  # whether any image shows it
NAMES = (*RULES, AUTO)
# Numbers have no odds, and an image does not show a number or not.
OF_NUMBERS = (MEAN, MEDIAN, MAX, TOP_K, LEARNED)
DEFAULT_K = 3
GRAMMAR = "mean|median|max|top-k[:k=3]|noisy-or|log-odds[:damping=D]|learned|auto"


@dataclass(frozen=True)
class PoolSpec:
    """How the images of a person become one prediction.

    Attributes
    ----------
    name : one of `NAMES`.
    k : images of ``top-k``.
    damping : of ``log-odds``, from 0 (sum) to 1 (mean); None: learned.
    """

    name: str
    k: int = DEFAULT_K
    damping: float | None = None

    @property
    def is_fitted(self) -> bool:
        """Return whether anything is fitted or chosen."""
        return self.name not in FIXED

    @property
    def text(self) -> str:
        """Return the one spelling."""
        if self.name == TOP_K:
            return f"{self.name}:k={self.k}"
        return self.name if self.damping is None else f"{self.name}:damping={self.damping:.10g}"


def parse_pool(text: str) -> PoolSpec:
    """Return the rule in ``NAME[:KEY=VALUE]``.

    Raises
    ------
    UsageError : an unknown rule or setting (with close matches), or a value out of range.
    """
    name, *settings = (part.strip() for part in text.split(":"))
    if name not in NAMES:
        raise unknown_name("rule of `pool`", name, list(NAMES), f"`pool={GRAMMAR}`")
    known = {TOP_K: "k", LOG_ODDS: "damping"}.get(name)
    values: dict[str, float] = {}
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        if key != known or not equals:
            hint = f"`pool={name}:{known}=…`" if known else f"{name} has no settings"
            raise unknown_name(f"setting of `pool={name}`", key, [known] if known else [], hint)
        if key in values:
            raise UsageError(f"`pool={text}`: {key} is given twice", hint=f"`pool={GRAMMAR}`")
        try:
            values[key] = float(value)
        except ValueError:
            values[key] = math.nan
    k, damping = values.get("k", DEFAULT_K), values.get("damping")
    if not (k >= 1 and k == int(k)) if math.isfinite(k) else True:
        raise UsageError(f"`pool={text}`: k must be a whole number from 1", hint="`pool=top-k:k=3`")
    if damping is not None and not 0 <= damping <= 1:
        raise UsageError(
            f"`pool={text}`: damping must be from 0 (sum of the log-odds) to 1 (their mean)",
            hint="`pool=log-odds` learns it",
        )
    return PoolSpec(name, int(k), damping)


def rules_of(task: str) -> tuple[str, ...]:
    """Return the rules for the predictions of a task, without ``auto``."""
    return OF_NUMBERS if task == REGRESSION else RULES


def check_rule(spec: PoolSpec, task: str) -> None:
    """Raise UsageError, with the rules of the task, if a rule does not pool its predictions."""
    if spec.name not in (*rules_of(task), AUTO):
        raise UsageError(
            f"`pool={spec.name}` does not support the task {task}: it is for probabilities",
            hint=f"its rules are {', '.join((*rules_of(task), AUTO))}",
        )
