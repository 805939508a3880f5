"""Measure prediction sets, abstention and thresholds on new people of synthetic worlds, against rules that ignore people.

    python benchmarks/coverage_sets.py                            all parts, 300 draws, 30 to 250 people
    python benchmarks/coverage_sets.py --part sets --draws 1000
    python benchmarks/coverage_sets.py --score aps --level .8
    python benchmarks/coverage_sets.py --models 5                 rules fitted to five fold models, applied to their mean

A draw is a set of people with predictions and labels, to which a rule is fitted, and the same 4,000 new people, on which
the rule is measured; these give the true value within about 0.003. Images of a person share most of what makes them hard.
A person has 1 to 12 images, and people who are hard have fewer. Nothing is trained: the predictions are those of one
fixed model; with --models those of several, each with further errors of its own, of which each person gets one in
calibration, and new people get the mean. `below` and `above` are the shares of draws in which the true value misses the stated one; a guarantee with a
confidence of 90% allows 10%. Coverage of sets is guaranteed on average over draws.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.abstention import NEVER
from ensemble.decisions.fit import RuleRequest, apply_rules, fit_rules
from ensemble.decisions.labels import SENSITIVITY, Aim
from ensemble.decisions.rows import LabeledRows, uniform_of
from ensemble.decisions.sets import (
    ALL_IMAGES,
    ANY_IMAGE,
    EVERYTHING,
    SCORES,
    SetRule,
    fit_sets,
    hierarchical_quantile,
    scores_of,
)

CLASSES = ("healthy", "mild", "severe")
SHARES = np.array([0.55, 0.3, 0.15])
NEW_PEOPLE = 4000
CONFIDENCE = 0.9


def world(
    random: np.random.Generator, people: int, models: int = 0, is_new: bool = False, difficulty: float = 1.5
) -> LabeledRows:
    """Return the predictions for people, each with one class, whose images share 70% of their difficulty.

    Parameters
    ----------
    models : number of fold models; 0 for one fixed model without errors of its own.
    is_new : whether people are predicted by the mean of the models, instead of one of them.
    """
    label = random.choice(len(CLASSES), people, p=SHARES)
    hard = random.normal(size=(people, len(CLASSES)))
    mistaken = hard.max(axis=1) - hard[np.arange(people), label]
    images = np.clip(np.round(8 - 3 * mistaken + random.normal(0, 3, people)), 1, 12).astype(int)
    persons = np.repeat(np.arange(people), images)
    labels = label[persons]
    noise = random.normal(size=(len(persons), len(CLASSES)))
    logits = difficulty * (0.7**0.5 * hard[persons] + 0.3**0.5 * noise)
    logits[np.arange(len(persons)), labels] += 3.0
    used = models if is_new and models else 1
    own = random.normal(size=(used, *logits.shape)) if models else np.zeros((1, 1, 1))
    odds = np.exp(logits + own - (logits + own).max(axis=2, keepdims=True))
    probabilities = (odds / odds.sum(axis=2, keepdims=True)).mean(axis=0)
    ids = np.arange(len(persons)).astype(str)
    parts = np.zeros(len(persons), np.int64)
    return LabeledRows(probabilities, labels, persons, parts, ids, CLASSES)


def new_ids(rows: LabeledRows) -> NDArray[np.float64]:
    """Return the random part of the scores of new images."""
    return uniform_of(np.char.add("new ", rows.ids))


def by_image(rows: LabeledRows, level: float, score: str) -> SetRule:
    """Return the split conformal rule that takes images as independent."""
    own = own_scores(rows, score)
    rank = int(np.ceil(level * (len(own) + 1)))
    limit = float(np.sort(own)[rank - 1]) if rank <= len(own) else EVERYTHING
    return SetRule(level, ANY_IMAGE, score, (limit,))


def one_image(rows: LabeledRows, level: float, score: str) -> SetRule:
    """Return the split conformal rule of the first image of each person, drawn once (Dunn et al., section 3)."""
    first = np.unique(rows.persons, return_index=True)[1]
    limit = hierarchical_quantile(own_scores(rows, score)[first], np.arange(len(first)), level)
    return SetRule(level, ANY_IMAGE, score, (limit,))


def own_scores(rows: LabeledRows, score: str) -> NDArray[np.float64]:
    """Return (n,) the score of the true class."""
    values = scores_of(rows.probabilities, uniform_of(rows.ids), score)
    return values[np.arange(len(rows)), rows.labels]


def hierarchical(target: str) -> Callable[[LabeledRows, float, str], SetRule]:
    """Return the fit of the rule of the program."""
    return lambda rows, level, score: fit_sets(
        rows.probabilities, rows.labels, rows.persons, uniform_of(rows.ids), level, target, score
    )


RULES = {
    "images as independent": by_image,
    "one image a person": one_image,
    "sets-for image": hierarchical(ANY_IMAGE),
    "sets-for person": hierarchical(ALL_IMAGES),
}


def sets(people: int, draws: int, models: int, level: float, score: str) -> None:
    """Print the coverage of prediction sets."""
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in RULES}
    test = world(np.random.default_rng(10**6), NEW_PEOPLE, models, is_new=True)
    uniform, weights = new_ids(test), test.weights / NEW_PEOPLE
    for draw in range(draws):
        rows = world(np.random.default_rng(draw), people, models)
        for name, rule in RULES.items():
            fitted = rule(rows, level, score)
            members = fitted.contains(test.probabilities, uniform)
            inside = members[np.arange(len(test)), test.labels]
            every = np.bincount(test.persons, ~inside, NEW_PEOPLE) == 0
            trivial = float(fitted.limits[0] >= EVERYTHING)
            measured = weights @ inside, every.mean(), weights @ members.sum(axis=1), trivial
            found[name].append(tuple(map(float, measured)))
    for name, values in found.items():
        image, every, size, trivial = np.array(values).T
        far = float(np.mean(image < level - 0.05))
        print(
            f"{people:>6}  {name:<22} {image.mean():>7.3f} {image.std():>6.3f} {far:>10.1%} {every.mean():>11.3f} "
            f"{size.mean():>6.2f} {trivial.mean():>8.0%}"
        )


def abstention(people: int, draws: int, models: int, limit: float) -> None:
    """Print the error of answered images."""
    test = world(np.random.default_rng(10**6), NEW_PEOPLE, models, is_new=True)
    weights = test.weights / NEW_PEOPLE
    for name, confidence in (("observed", 0.0), (f"{CONFIDENCE:.0%} confidence", CONFIDENCE)):
        errors, answered, none = [], [], 0
        for draw in range(draws):
            rules = fit_rules(
                world(np.random.default_rng(draw), people, models),
                RuleRequest((), None, limit, None, confidence=confidence),
            )
            if rules.threshold == NEVER:
                none += 1
                continue
            found = apply_rules(rules, test)
            given = weights @ found.answered
            errors.append(weights @ (found.answered & (found.decided != test.labels)) / given)
            answered.append(given)
        above = np.sum(np.array(errors) > limit) / draws
        error, share = (float(np.mean(one)) if one else float("nan") for one in (errors, answered))
        print(f"{people:>6}  {name:<22} {error:>7.3f} {above:>7.1%} {share:>9.1%} {none / draws:>10.0%}")


def sensitivity(people: int, draws: int, models: int, target: float) -> None:
    """Print the sensitivity of fitted thresholds."""
    test = world(np.random.default_rng(10**6), NEW_PEOPLE, models, is_new=True)
    column = CLASSES.index("severe")
    aims = (Aim(SENSITIVITY, "severe", target),)
    of_class = test.labels == column
    for name, confidence in (("observed", 0.0), (f"{CONFIDENCE:.0%} confidence", CONFIDENCE)):
        values, others, shown = [], [], []
        for draw in range(draws):
            rules = fit_rules(
                world(np.random.default_rng(draw), people, models), RuleRequest(aims, confidence=confidence)
            )
            hit = apply_rules(rules, test).decided == column
            values.append(np.average(hit[of_class], weights=test.weights[of_class]))
            others.append(np.average(~hit[~of_class], weights=test.weights[~of_class]))
            shown.append(rules.statuses == ("guaranteed",))
        known = np.array(shown) | (confidence == 0)
        below = np.sum((np.array(values) < target) & known) / draws
        print(
            f"{people:>6}  {name:<22} {np.mean(values):>7.3f} {below:>7.1%} {np.mean(others):>11.3f} "
            f"{1 - known.mean():>10.0%}"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="sets,abstain,threshold")
    parser.add_argument("--people", default="30,60,120,250")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--models", type=int, default=0)
    parser.add_argument("--level", type=float, default=0.9)
    parser.add_argument("--error", type=float, default=0.1)
    parser.add_argument("--target", type=float, default=0.9)
    parser.add_argument("--score", default="lac", choices=SCORES)
    options = parser.parse_args()
    start, sizes = time.perf_counter(), list(map(int, options.people.split(",")))
    if "sets" in options.part:
        print(
            f"sets of {options.level:g} ({options.score}): coverage of a random image of a new person, of all images of a person"
        )
        print(
            f"people  {'rule':<22} {'image':>7} {'sd':>6} {'below -.05':>10} {'all images':>11} {'size':>6} {'trivial':>8}"
        )
        for people in sizes:
            sets(people, options.draws, options.models, options.level, options.score)
    if "abstain" in options.part:
        print(f"\nabstention: the error of answers is to be at most {options.error:g}")
        print(f"people  {'threshold':<22} {'error':>7} {'above':>7} {'answered':>9} {'no answer':>10}")
        for people in sizes:
            abstention(people, options.draws, options.models, options.error)
    if "threshold" in options.part:
        print(f"\nthreshold of 'severe': the sensitivity is to be at least {options.target:g}")
        print(f"people  {'threshold':<22} {'sens.':>7} {'below':>7} {'specificity':>11} {'not shown':>10}")
        for people in sizes:
            sensitivity(people, options.draws, options.models, options.target)
    print(f"\n{options.draws} draws, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
