"""What nested scores of decisions about grades claim, and what fresh people show, on drawn worlds with a known truth.

    python benchmarks/grades.py --worlds 200

Each world has people with a latent severity, five images each, and grades 0 to 4 that are frequent in this order. A model's
probabilities are of the right order but pulled toward the frequent grades, as those of a short training are. Rules are
fitted and scored as by `ensemble.decide`; beside that is the score of the same rule on 4,000 fresh people.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.face import request_of
from ensemble.decisions.fit import nested_decisions
from ensemble.decisions.oof import prepare_rows
from ensemble.decisions.rounder import fit_cuts, round_grades
from folds.metrics.classification import METRICS
from folds.metrics.grades import decided_as, expected_grades
from folds.metrics.intervals import interval_over_people

SHARES = (0.5, 0.2, 0.15, 0.1, 0.05)
IMAGES, FRESH = 5, 4000
CLASSES = tuple(map(str, range(len(SHARES))))


def draw(people: int, random: np.random.Generator) -> tuple[NDArray, NDArray, NDArray]:
    """Return labels (n,), people (n,) and probabilities (n, grades) of the images of some people."""
    grades = np.arange(len(SHARES))
    label = random.choice(len(SHARES), people, p=SHARES)
    label[: len(SHARES)] = grades  # no grade is absent
    persons = np.repeat(np.arange(people), IMAGES)
    effect = random.normal(0, 0.6, people)[persons]  # the images of a person are alike
    seen = label[persons] + effect + random.normal(0, 0.5, len(persons))
    logits = -((grades - seen[:, None]) ** 2) / 4 + np.log(SHARES)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return label[persons].astype(np.int64), persons, p / p.sum(axis=1, keepdims=True)


def score_world(
    people: int, seed: int, fresh: tuple[NDArray, NDArray, NDArray]
) -> dict[str, tuple[float, float, bool]]:
    """Return rule → (claimed kappa, that on fresh people, whether the interval of the claim holds it)."""
    labels, persons, p = draw(people, np.random.default_rng(seed))
    new_labels, _, new_p = fresh
    metric, classes = METRICS["quadratic_kappa"], len(SHARES)

    def plain(decide: object) -> tuple[float, float, bool]:
        found = interval_over_people(metric, labels, decided_as(decide(p), classes), persons)  # type: ignore[operator]
        truth = metric(new_labels, decided_as(decide(new_p), classes))  # type: ignore[operator]
        return found.value, truth, found.low <= truth <= found.high

    names = (persons.astype(str), None, np.array([f"{seed}-{i}" for i in range(len(labels))]))
    rows, _ = prepare_rows(p, labels, *names, CLASSES, False, ("", "arrays"))
    request = request_of(CLASSES, "rounder")
    cuts = fit_cuts(p, labels, metric)
    truth = metric(new_labels, decided_as(round_grades(new_p, cuts), classes))
    unseen = nested_decisions(rows, request)[0].decided  # what `ensemble.decide` scores
    nested = interval_over_people(metric, labels, decided_as(unseen, classes), persons)
    own = interval_over_people(metric, labels, decided_as(round_grades(p, cuts), classes), persons)
    return {
        "most probable grade": plain(lambda values: values.argmax(axis=1)),
        "nearest to the expected grade": plain(lambda values: np.rint(expected_grades(values)).astype(np.int64)),
        "rounder, claimed by its own fit": (own.value, truth, own.low <= truth <= own.high),
        "rounder, nested": (nested.value, truth, nested.low <= truth <= nested.high),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--people", type=int, nargs="+", default=[40, 100, 300])
    options = parser.parse_args()
    fresh = draw(FRESH, np.random.default_rng(10**6))
    print(
        "| people | decision | claimed kappa | fresh people | difference | 95% CI holds it |\n|---|---|---|---|---|---|"
    )
    for people in options.people:
        began = time.perf_counter()
        found = [score_world(people, seed, fresh) for seed in range(options.worlds)]
        for rule in found[0]:
            stated, fresh_score, holds = (np.array([one[rule][part] for one in found], float) for part in range(3))
            print(
                f"| {people} | {rule} | {stated.mean():.3f} | {fresh_score.mean():.3f} | {(stated - fresh_score).mean():+.3f} | "
                f"{holds.mean():.1%} |"
            )
        print(f"{people} people: {(time.perf_counter() - began) / options.worlds:.2f} s a world", flush=True)


if __name__ == "__main__":
    main()
