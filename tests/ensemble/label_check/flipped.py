"""Draw votes about people of whom some labels are wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.mistakes import LabeledRows


def flipped_world(
    by: str, seed: int = 0, people: int = 120, per_person: int = 5, share: float = 0.1
) -> tuple[LabeledRows, NDArray[np.bool_]]:
    """Return out-of-fold votes of three members, and (n,) whether each label is wrong.

    Parameters
    ----------
    by : ``person`` if all images of a person have one label, which is wrong for `share` of the people; ``image``.
    """
    random = np.random.default_rng(seed)
    classes, n = 3, people * per_person
    person = np.arange(people).repeat(per_person)
    unit = person if by == "person" else np.arange(n)
    units = int(unit.max()) + 1
    true, given = random.integers(0, classes, units), None
    wrong = np.zeros(units, bool)
    wrong[random.choice(units, round(units * share), replace=False)] = True
    given = np.where(wrong, (true + random.integers(1, classes, units)) % classes, true)
    shared = random.normal(size=(people, classes))[person] * 0.8
    members = {}
    for name in ("x", "y", "z"):
        logits = shared + random.normal(size=(n, classes))
        logits[np.arange(n), true[unit]] += 2.0
        members[name] = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    mean = np.mean(list(members.values()), axis=0)
    ids, persons = np.array([f"i{at:04d}" for at in range(n)]), np.array([f"p{one:03d}" for one in person])
    return LabeledRows(ids, persons, given[unit], ("cat", "dog", "eel"), mean, members), wrong[unit]
