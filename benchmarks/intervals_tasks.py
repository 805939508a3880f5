"""Measure how often 95% intervals of the metrics of binary decisions, grades and orders cover the true value.

    python benchmarks/intervals_tasks.py                500 simulated data sets of each world: tables in Markdown
    python benchmarks/intervals_tasks.py --seeds 50     a quick look

In each world people have 1 to 7 images; half of the difficulty of an image is shared by the images of its person and by
both members. The class belongs to the person, as a disease does, or to the image. The true value is the score of the
same member on 100,000 images of other people.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import METRICS, built_in_metric
from folds.metrics.intervals import difference_over_people, interval_over_people

BINARY = (
    "average_precision", "roc_auc", "pauc", "pauc:tpr=0.5", "sensitivity_at", "sensitivity_at:specificity=0.8",
    "specificity_at", "specificity_at:sensitivity=0.8", "probabilistic_f1", "f_beta", "f_beta:beta=2", "mcc", "youden",
    "balanced_accuracy", "column_log_loss",
)  # fmt: skip
GRADES = (
    "quadratic_kappa", "grade_mae", "top_k:k=2", "column_log_loss", "mcc", "youden", "average_precision", "roc_auc",
    "roc_auc_micro", "pauc", "sensitivity_at", "specificity_at", "probabilistic_f1", "f_beta:beta=2",
)  # fmt: skip
MANY = 100_000


@dataclass(frozen=True)
class World:
    """People and two members.

    Attributes
    ----------
    shares : of the classes.
    of_person : whether a person has one class.
    skills : of the two members.
    """

    people: int
    shares: tuple[float, ...]
    of_person: bool
    skills: tuple[float, float] = (1.8, 2.2)

    def draw(self, random: np.random.Generator, people: int) -> tuple[NDArray, NDArray, list[NDArray]]:
        """Return labels, persons and the probabilities of both members."""
        persons = np.repeat(np.arange(people), random.integers(1, 8, people))
        classes = len(self.shares)
        prior = np.array(self.shares) / sum(self.shares)
        drawn = random.choice(classes, people if self.of_person else len(persons), p=prior)
        labels = drawn[persons] if self.of_person else drawn
        grades = np.arange(classes)
        hard = 0.7 * random.normal(size=people)[persons] + 0.7 * random.normal(size=len(persons))
        members = []
        for skill in self.skills:
            place = skill * labels + hard + 0.6 * random.normal(size=len(persons))
            # p ∝ share · normal density around the place of each grade: sharp, but not calibrated
            logits = np.log(prior) - (place[:, None] - skill * grades) ** 2 / 2
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            members.append(p / p.sum(axis=1, keepdims=True))
        return labels, persons, members


WORLDS = {
    "binary, 10% positive people of 300": (World(300, (0.9, 0.1), True), BINARY),
    "binary, 5% positive images, 150 people": (World(150, (0.95, 0.05), False), BINARY),
    "binary, 10% positive people of 60": (World(60, (0.9, 0.1), True), BINARY),
    "binary, half of 60 people positive": (World(60, (0.5, 0.5), True), BINARY),
    "five grades of 150 people": (World(150, (0.5, 0.25, 0.12, 0.08, 0.05), True), GRADES),
}


@dataclass(frozen=True)
class Found:
    """Whether an interval covered the true value, its width, and the number of people in the rarest class."""

    held: bool
    width: float
    rarest: int


def study(number: int, world: World, names: Sequence[str], seeds: int) -> dict[str, list[Found]]:
    """Return metric, or metric and "difference" → what was found in each data set."""
    metrics = {name: built_in_metric(name) or METRICS["accuracy"] for name in names}
    labels, _, members = world.draw(np.random.default_rng(10**6), MANY // 4)
    truths = {name: [metric(labels, one) for one in members] for name, metric in metrics.items()}
    found: dict[str, list[Found]] = {}
    for seed in range(seeds):
        labels, persons, members = world.draw(np.random.default_rng([number, seed]), world.people)
        if len(np.unique(labels)) < len(world.shares):
            continue  # a class without any person leaves most of these scores undefined
        rarest = int(min(len(np.unique(persons[labels == one])) for one in range(len(world.shares))))
        for name, metric in metrics.items():
            one = interval_over_people(metric, labels, members[0], persons)
            found.setdefault(name, []).append(Found(one.contains(truths[name][0]), one.high - one.low, rarest))
            change = difference_over_people(metric, labels, members[0], members[1], persons).difference
            truth = truths[name][1] - truths[name][0]
            found.setdefault(f"{name}, difference", []).append(
                Found(change.contains(truth), change.high - change.low, rarest)
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--world", type=int, action="append", choices=range(len(WORLDS)), help="only these")
    chosen = parser.parse_args()
    began = time.process_time()
    pooled: dict[str, list[Found]] = {}
    table: dict[str, list[str]] = {}
    for place, (world, names) in enumerate(WORLDS.values()):
        if chosen.world is not None and place not in chosen.world:
            continue
        for what, every in study(place, world, names, chosen.seeds).items():
            pooled.setdefault(what, []).extend(every)
            table.setdefault(what, ["–"] * len(WORLDS))[place] = _share(every)
    print(_markdown(["held (%), mean width", *WORLDS], [[what, *cells] for what, cells in table.items()]))
    print("\nby the people in the rarest class, all worlds (% of how many)\n")
    groups = ((1, 1), (2, 2), (3, 4), (5, 9), (10, 10**9))
    rows = [
        [what, *(_share([one for one in every if low <= one.rarest <= high], True) for low, high in groups)]
        for what, every in pooled.items()
    ]
    print(_markdown(["", "1", "2", "3–4", "5–9", "10 and more"], rows))
    print(f"\n{time.process_time() - began:.0f} s of one core")


def _share(found: Sequence[Found], counted: bool = False) -> str:
    if not found:
        return "–"
    held = f"{100 * np.mean([one.held for one in found]):.1f}"
    return f"{held} of {len(found)}" if counted else f"{held}, {np.nanmean([one.width for one in found]):.3f}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


if __name__ == "__main__":
    main()
