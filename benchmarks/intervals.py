"""Measure how often 95% intervals cover the true value: simulated members with known true scores, new ones per seed.

    python benchmarks/intervals.py                200 seeds of each of three worlds: tables in Markdown
    python benchmarks/intervals.py --seeds 20     a quick look

A world has 18 classes and people with 7 images each; the difficulty of an image is shared by the members, half of it by
the images of a person. Classes are as rare as in the mask competition or less so (the root of their shares). They are
drawn for each image or, as in the competition, a person's gender and age hold for all 7 images. The true value is the
score of the same member on 36,000 images of other people, equally many of each class and weighted back to their shares.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import METRICS, Metric
from folds.metrics.confusion import argmax_classes
from folds.metrics.grouping import confusion_counts_by_group
from folds.metrics.intervals import Interval, difference_over_people, interval_over_images, interval_over_people

# Images of each of the 18 classes of the mask competition.
MASK_TASK = np.array(
    [2765, 2045, 415, 3640, 4090, 545, 553, 409, 83, 728, 818, 109, 553, 409, 83, 728, 818, 109], float
)
CLASSES, MEMBERS, PER_PERSON, SHARED, DRAWS = 18, 3, 7, 0.5, 1000
TAILS = np.array([0.025, 0.975])
SINGLE = ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "log_loss", "brier", "roc_auc")
PAIRED = ("accuracy", "macro_f1", "log_loss")


@dataclass(frozen=True)
class Member:
    """Skill, noise and temperature of a member, and the classes that it prefers."""

    skill: float
    noise: float
    temperature: float
    preferred: NDArray[np.floating]


@dataclass(frozen=True)
class Found:
    """Whether an interval covered the true value, its width, and the number of people in the rarest class."""

    held: bool
    width: float
    rarest: int


def members_of(random: np.random.Generator, stronger: float) -> list[Member]:
    """The members of a world."""
    return [
        Member(
            random.uniform(1.6, 2.6) + stronger,
            random.uniform(0.8, 1.6),
            random.uniform(0.5, 1.6),
            random.normal(0, 0.3, CLASSES),
        )
        for _ in range(MEMBERS)
    ]


def predicted(
    random: np.random.Generator, members: Sequence[Member], labels: NDArray, persons: NDArray
) -> list[NDArray]:
    """(n, classes) probabilities of each member, and of their mean."""

    def normal(*shape: int) -> NDArray:
        return random.standard_normal(shape, dtype=np.float32)

    hard = SHARED**0.5 * normal(int(persons.max()) + 1, CLASSES)[persons] + (1 - SHARED) ** 0.5 * normal(
        len(labels), CLASSES
    )
    found = []
    for member in members:
        logits = hard + np.float32(member.noise) * normal(len(labels), CLASSES) + member.preferred.astype(np.float32)
        logits[np.arange(len(labels)), labels] += member.skill
        logits = np.exp((logits - logits.max(axis=1, keepdims=True)) / np.float32(member.temperature))
        found.append(logits / logits.sum(axis=1, keepdims=True))
    return [*found, np.mean(found, axis=0)]


def true_score(metric: Metric, labels: NDArray, probabilities: NDArray, prior: NDArray) -> float:
    """The score where class c has the share prior[c], from rows that have equally many of each."""
    weights = prior * CLASSES
    if metric.from_counts is not None:
        counts = confusion_counts_by_group(labels, argmax_classes(probabilities), CLASSES, labels, CLASSES)
        return float(metric.from_counts(np.tensordot(weights, counts, axes=1)))
    if metric.per_row is not None:
        return float(np.average(metric.per_row(labels, probabilities), weights=weights[labels]))
    areas = []
    labels, probabilities = labels[:12_000], probabilities[:12_000]  # sorting takes long
    for one, column in enumerate(probabilities.T):
        order = np.argsort(column)
        mine = labels[order] == one
        below = np.cumsum(np.where(mine, 0, weights[labels[order]]))
        areas.append(below[mine].mean() / below[-1])
    return float(np.mean(areas))


def bootstrapped(
    metric: Metric, labels: NDArray, values: Sequence[NDArray], persons: NDArray, weights: NDArray
) -> NDArray | None:
    """(draws, len(values)) the scores of people drawn with replacement; None for ROC-AUC."""
    people = weights.shape[1]
    if metric.from_counts is not None:
        stats = [
            confusion_counts_by_group(labels, argmax_classes(one), CLASSES, persons, people).reshape(people, -1)
            for one in values
        ]
        return np.stack(
            [metric.from_counts((weights @ one).reshape(len(weights), 3, CLASSES)) for one in stats], axis=1
        )
    if metric.per_row is not None:
        rows = weights @ np.bincount(persons)
        return np.stack([weights @ np.bincount(persons, metric.per_row(labels, one)) / rows for one in values], axis=1)
    return None


def rules(
    drawn: NDArray | None, score: float, chosen: Interval, by_image: Interval | None
) -> dict[str, tuple[float, float]]:
    """The ends of the interval by each rule."""
    ends = {"this program's": (chosen.low, chosen.high)} | (
        {} if by_image is None else {"over images": (by_image.low, by_image.high)}
    )
    if drawn is None:
        return ends
    normal, below = (
        NormalDist(),
        np.clip(np.mean(drawn < score) + np.mean(drawn == score) / 2, 1 / DRAWS, 1 - 1 / DRAWS),
    )
    shifted = [normal.cdf(2 * normal.inv_cdf(float(below)) + normal.inv_cdf(tail)) for tail in TAILS]
    low, high = np.quantile(drawn, TAILS)
    corrected = np.quantile(drawn, shifted)
    return {"percentile": (low, high), "bias-corrected": (corrected[0], corrected[1])} | ends


def labelled(random: np.random.Generator, people: int, prior: NDArray, by_person: bool) -> NDArray[np.int64]:
    """(people × 7,) classes; by person the same of the last six for all images, five of them with a mask, one
    incorrect, one without.
    """
    if not by_person:
        return random.choice(CLASSES, people * PER_PERSON, p=prior)
    kinds = random.choice(6, people, p=prior[12:] / prior[12:].sum())
    return (kinds[:, None] + 6 * np.array([0, 0, 0, 0, 0, 1, 2])).ravel()


def study(
    seeds: range, people: int, prior: NDArray, by_person: bool, stronger: float
) -> Iterator[tuple[str, str, Found]]:
    """What is scored, the rule and how its interval was, for each seed."""
    for seed in seeds:
        random = np.random.default_rng(seed)
        members = members_of(random, stronger)
        many = np.arange(36_000) % CLASSES
        truths = predicted(random, members, many, np.arange(len(many)))
        labels, persons = labelled(random, people, prior, by_person), np.repeat(np.arange(people), PER_PERSON)
        values = predicted(random, members, labels, persons)
        rarest = int(min(len(np.unique(persons[labels == one])) for one in range(CLASSES)))
        weights = random.multinomial(people, np.full(people, 1 / people), DRAWS).astype(float)
        for name in SINGLE:
            metric = METRICS[name]
            for which in (0, MEMBERS):
                truth, score = true_score(metric, many, truths[which], prior), metric(labels, values[which])
                drawn = bootstrapped(metric, labels, [values[which]], persons, weights)
                by_image = interval_over_images(metric, labels, values[which])
                chosen = interval_over_people(metric, labels, values[which], persons)
                for rule, (low, high) in rules(None if drawn is None else drawn[:, 0], score, chosen, by_image).items():
                    yield metric.title, rule, Found(low <= truth <= high, high - low, rarest)
        for name in PAIRED:
            metric = METRICS[name]
            truth = true_score(metric, many, truths[MEMBERS], prior) - true_score(metric, many, truths[0], prior)
            found = difference_over_people(metric, labels, values[0], values[MEMBERS], persons).difference
            drawn = bootstrapped(metric, labels, [values[0], values[MEMBERS]], persons, weights)
            by_image = difference_over_people(
                metric, labels, values[0], values[MEMBERS], np.arange(len(labels))
            ).difference
            assert drawn is not None
            for rule, (low, high) in rules(drawn[:, 1] - drawn[:, 0], found.value, found, by_image).items():
                yield f"{metric.title}, difference", rule, Found(low <= truth <= high, high - low, rarest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--people", type=int, default=143)
    chosen = parser.parse_args()
    began = time.perf_counter()
    found: dict[tuple[str, str], list[Found]] = {}
    worlds = {
        "rare classes, drawn for each image": (1.0, False, 0.0),
        "rare classes, gender and age of a person": (1.0, True, 2.0),
        "less rare classes, gender and age of a person": (0.5, True, 2.0),
    }
    columns = ("percentile", "bias-corrected", "this program's", "over images")
    pooled: dict[str, list[Found]] = {}
    for world, (power, by_person, stronger) in worlds.items():
        found.clear()
        prior = MASK_TASK**power if not by_person else np.outer([5, 1, 1], MASK_TASK[12:] ** power).ravel()
        for what, rule, one in study(range(chosen.seeds), chosen.people, prior / prior.sum(), by_person, stronger):
            found.setdefault((what, rule), []).append(one)
        rows = []
        for what in dict.fromkeys(what for what, _ in found):
            cells = [found.get((what, rule)) for rule in columns]
            rows.append([what, *("–" if cell is None else shown(cell) for cell in cells)])
            pooled.setdefault(what, []).extend(found[what, "this program's"])
        print(f"\n{world}: {chosen.seeds} seeds of {chosen.people} people\n")
        print(markdown(["held, mean width", *columns], rows))
    print("\nby the people in the rarest class, this program's, all worlds\n")
    groups = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 9), (10, 10**9))
    rows = [
        [what, *(shown([one for one in every if low <= one.rarest <= high], counted=True) for low, high in groups)]
        for what, every in pooled.items()
    ]
    print(markdown(["", "0", "1", "2", "3–4", "5–9", "10 and more"], rows))
    print(f"\n{time.perf_counter() - began:.0f} s")


def shown(found: Sequence[Found], counted: bool = False) -> str:
    """``94.5 %, .061``, or with how many there are."""
    if not found:
        return "–"
    held = f"{100 * np.mean([one.held for one in found]):.1f} %"
    return f"{held} of {len(found)}" if counted else f"{held}, {np.mean([one.width for one in found]):.3f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


if __name__ == "__main__":
    main()
