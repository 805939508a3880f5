"""Measure cuts between which a label stays open on new people of synthetic worlds.

    python benchmarks/coverage_labels.py                          200 draws, 120 to 500 people
    python benchmarks/coverage_labels.py --share .1 --error .05

A draw is a set of people with 1 to 12 images, of whom the share has a label (all images of a person or none, but for
one in twenty), and the same 4,000 new people. The logits of a person's images share 70% of their errors. The cuts are fitted
to the error that is allowed among the yes and among the no (``ensemble decide --abstain``), with 90% confidence and to
the observed values, and measured on the new people. Nothing is trained.

`missed` is the share of draws in which either error of new people is larger than allowed; the confidence allows 10%.
`nested` is the share that the report states as decided, of cuts that are fitted without a fifth of the people.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from ensemble.decisions.label_bands import fit_band, nested_bands
from ensemble.decisions.labels import ABSTAINED
from ensemble.decisions.rows import LabeledRows, person_shares, share_interval

NEW_PEOPLE = 4000
SHARED, STEP = 0.7, 3.5


def world(random: np.random.Generator, people: int, share: float) -> LabeledRows:
    """Return the probabilities of a label for the images of people, calibrated up to the errors that they share."""
    images = random.integers(1, 13, people)
    persons = np.repeat(np.arange(people), images)
    has = (random.random(people) < share)[persons]
    has = np.where(random.random(len(persons)) < 0.05, random.random(len(persons)) < share, has)
    noise = SHARED**0.5 * random.normal(size=people)[persons] + (1 - SHARED) ** 0.5 * random.normal(size=len(persons))
    logit = math.log(share / (1 - share)) + STEP * (has - 0.5) + 1.5 * noise
    p = 1 / (1 + np.exp(-logit))
    parts = (random.permutation(people) % 5)[persons]
    ids = np.arange(len(persons)).astype(str)
    return LabeledRows(np.stack([1 - p, p], axis=1), has.astype(np.int64), persons, parts, ids, ("not", "label"))


def measure(people: int, draws: int, share: float, limit: float) -> None:
    """Print what cuts are worth that are fitted to an allowed error."""
    test = world(np.random.default_rng(10**6), NEW_PEOPLE, share)
    every = np.ones(len(test), bool)
    for name, error in (("observed", 0.0), ("90% confidence", 0.1)):
        rows = []
        for draw in range(draws):
            own = world(np.random.default_rng(draw), people, share)
            codes = fit_band(own, limit, error).decide(test.probabilities[:, 1])
            wrong = codes != test.labels
            errors = [
                share_interval(*person_shares(wrong, codes == code, test.persons, NEW_PEOPLE)).value for code in (1, 0)
            ]
            decided = share_interval(*person_shares(codes != ABSTAINED, every, test.persons, NEW_PEOPLE)).value
            unseen = nested_bands(own, limit, error)
            stated = share_interval(
                *person_shares(unseen != ABSTAINED, np.ones(len(own), bool), own.persons, own.people)
            ).value
            missed = float(any(one > limit for one in errors))
            never = [float(not (codes == code).any()) for code in (1, 0)]
            rows.append([*errors, missed, decided, *never, stated])
        yes, no, missed, decided, no_yes, no_no, nested = np.array(rows).T
        shown = [f"{np.nanmean(one):.3f}" if np.isfinite(one).any() else "–" for one in (yes, no)]
        print(
            f"{people:>6}  {name:<15} {shown[0]:>7} {shown[1]:>7} {missed.mean():>7.1%} {decided.mean():>8.1%} "
            f"{nested.mean():>7.1%} {no_yes.mean():>9.0%} {no_no.mean():>9.0%}"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--people", type=int, nargs="+", default=[120, 250, 500])
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--error", type=float, default=0.1)
    given = parser.parse_args()
    began = time.perf_counter()
    print(f"a label of {given.share:.0%} of the people, an error of yes and of no of at most {given.error:g}")
    header = f"{'people':>6}  {'fitted':<15} {'yes':>7} {'no':>7} {'missed':>7} {'decided':>8} {'nested':>7}"
    print(f"{header} {'never yes':>9} {'never no':>9}")
    for people in given.people:
        measure(people, given.draws, given.share, given.error)
    print(f"{given.draws} draws, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
