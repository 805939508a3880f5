"""Measure how often 95% intervals of scores of several labels, and of numbers, cover the true value.

    python benchmarks/intervals_columns.py                500 simulated data sets of each world: tables in Markdown
    python benchmarks/intervals_columns.py --seeds 50     a quick look
    python benchmarks/intervals_columns.py --world 0      one of the worlds only
    python benchmarks/intervals_columns.py --one-label --seeds 300     one label that few of 40 people have

In each world people have 1 to 7 images, and a fifth of the cells is not known. Errors are shared in part by the images
of a person and by two members. The true value is the score of the same member on 25,000 other people.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from intervals_tasks import Found, _markdown, _share
from numpy.typing import NDArray

from folds.metrics.intervals import difference_over_people, interval_over_people
from folds.metrics.scored_rows import ScoredRows
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.metrics.tasks import metric_for_task, metrics_of_task

MANY = 25_000
UNKNOWN = 0.2
Drawn = tuple[NDArray, NDArray, list[NDArray]]


def labels_of(shares: Sequence[float], of_person: float) -> Callable[[np.random.Generator, int], Drawn]:
    """Return what draws labels with these shares, probabilities of two members, and persons.

    Parameters
    ----------
    of_person : how much of a label belongs to the person, as a disease does, from 0 to 1.
    """

    def draw(random: np.random.Generator, people: int) -> Drawn:
        persons = np.repeat(np.arange(people), random.integers(1, 8, people))
        n, columns = len(persons), len(shares)
        whole = random.normal(size=(people, 1)) * 0.5 + random.normal(size=(people, columns)) * np.sqrt(0.75)
        severity = np.sqrt(of_person) * whole[persons] + np.sqrt(1 - of_person) * random.normal(size=(n, columns))
        cut = np.array([_normal_quantile(1 - share) for share in shares])
        labels = (severity > cut).astype(float)
        hard = 0.7 * random.normal(size=(people, columns))[persons] + 0.7 * random.normal(size=(n, columns))
        members = []
        for skill in (1.4, 1.7):
            place = skill * (severity - cut) + hard + 0.6 * random.normal(size=(n, columns))
            members.append(1 / (1 + np.exp(-1.6 * place)))
        return np.where(random.random((n, columns)) < UNKNOWN, np.nan, labels), persons, members

    return draw


def one_label(share: float) -> Callable[[np.random.Generator, int], Drawn]:
    """Return what draws one label that exactly a share of the people have, who have three images each."""

    def draw(random: np.random.Generator, people: int) -> Drawn:
        persons = np.repeat(np.arange(people), 3)
        labels = (random.permutation(people) < round(share * people))[persons].astype(float)[:, None]
        hard = random.normal(size=people)[persons, None]
        members = [
            1 / (1 + np.exp(1.5 - skill * labels - hard - random.normal(size=labels.shape))) for skill in (2.0, 2.5)
        ]
        return labels, persons, members

    return draw


def numbers_of(columns: int, of_person: float, tails: float) -> Callable[[np.random.Generator, int], Drawn]:
    """Return what draws numbers of people, such as an age, predictions of two members, and persons.

    Parameters
    ----------
    of_person : share of the variance of an error that the images of a person share.
    tails : degrees of freedom of the errors; few make large errors frequent.
    """

    def draw(random: np.random.Generator, people: int) -> Drawn:
        persons = np.repeat(np.arange(people), random.integers(1, 8, people))
        n = len(persons)
        labels = random.uniform(20, 80, (people, columns))[persons] + 0.0
        shared = np.sqrt(of_person) * random.standard_t(tails, (people, columns))[persons]
        members = []
        for error in (8.0, 7.0):
            own = np.sqrt(1 - of_person) * random.standard_t(tails, (n, columns))
            members.append(50 + 0.85 * (labels - 50) + error * (shared + own))
        return np.where(random.random((n, columns)) < UNKNOWN, np.nan, labels), persons, members

    return draw


def _normal_quantile(share: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(share)


@dataclass(frozen=True)
class World:
    """How labels and predictions are drawn, of how many people, and for which task."""

    task: str
    people: int
    draw: Callable[[np.random.Generator, int], Drawn]


FREQUENT, RARE = (0.5, 0.4, 0.3, 0.25, 0.2), (0.4, 0.2, 0.1, 0.06, 0.04)
WORLDS = {
    "5 labels of 20 to 50%, 30 people": World(MULTILABEL, 30, labels_of(FREQUENT, 0.6)),
    "5 labels of 20 to 50%, 100 people": World(MULTILABEL, 100, labels_of(FREQUENT, 0.6)),
    "5 labels of 4 to 40%, 30 people": World(MULTILABEL, 30, labels_of(RARE, 0.6)),
    "5 labels of 4 to 40%, 100 people": World(MULTILABEL, 100, labels_of(RARE, 0.6)),
    "14 labels of 4 to 50%, of the person, 100 people": World(
        MULTILABEL, 100, labels_of((0.5, 0.4, 0.3, 0.3, 0.2, 0.2, 0.15, 0.1, 0.1, 0.08, 0.06, 0.06, 0.04, 0.04), 1.0)
    ),
    "a number, 30 people": World(REGRESSION, 30, numbers_of(1, 0.5, 30)),
    "a number, 100 people": World(REGRESSION, 100, numbers_of(1, 0.5, 30)),
    "a number with large errors, 30 people": World(REGRESSION, 30, numbers_of(1, 0.8, 4)),
    "a number with large errors, 100 people": World(REGRESSION, 100, numbers_of(1, 0.8, 4)),
    "3 numbers, 30 people": World(REGRESSION, 30, numbers_of(3, 0.5, 30)),
}
# One label that a number of 40 people have, on all of their three images.
ONE_LABEL = {
    f"{positive} of 40 people": World(MULTILABEL, 40, one_label(positive / 40)) for positive in (1, 2, 3, 4, 8, 12)
}
SETTINGS = {
    MULTILABEL: ("pauc:tpr=0.5", "sensitivity_at:specificity=0.8", "specificity_at:sensitivity=0.8", "f_beta:beta=2"),
    REGRESSION: ("within:error=10",),
}


def names_of(task: str) -> list[str]:
    """Return the metrics of a task, without those that are another's twin."""
    twins = ("column_log_loss", "f_beta")
    return [*(name for name in metrics_of_task(task) if name not in twins), *SETTINGS[task]]


def study(number: int, world: World, seeds: int, names: Sequence[str] = ()) -> dict[str, list[Found]]:
    """Return metric, or metric and "difference" → what was found in each data set."""
    known = metrics_of_task(world.task)
    chosen = [name for name in names if name.partition(":")[0] in known] if names else names_of(world.task)
    metrics = {name: metric_for_task(name, world.task) for name in chosen}
    labels, _, members = world.draw(np.random.default_rng(10**6), MANY)
    truths = {name: [metric(labels, one) for one in members] for name, metric in metrics.items()}
    found: dict[str, list[Found]] = {}
    for seed in range(seeds):
        labels, persons, members = world.draw(np.random.default_rng([number, seed]), world.people)
        rows = ScoredRows(labels, persons, labels.shape[1])
        rarest = rows.fewest_people if world.task == MULTILABEL else world.people
        for name, metric in metrics.items():
            one = interval_over_people(metric, labels, members[0], persons, rows=rows)
            found.setdefault(name, []).append(Found(one.contains(truths[name][0]), one.high - one.low, rarest))
            change = difference_over_people(metric, labels, members[0], members[1], persons).difference
            held = change.contains(truths[name][1] - truths[name][0])
            found.setdefault(f"{name}, difference", []).append(Found(held, change.high - change.low, rarest))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--world", type=int, action="append", choices=range(len(WORLDS)), help="only these")
    parser.add_argument("--metric", action="append", default=[], help="only these")
    parser.add_argument("--one-label", action="store_true", help="worlds of one label that few people have")
    chosen = parser.parse_args()
    worlds = ONE_LABEL if chosen.one_label else WORLDS
    began = time.process_time()
    for task in (MULTILABEL, REGRESSION):
        places = [i for i, world in enumerate(worlds.values()) if world.task == task]
        places = [i for i in places if chosen.world is None or i in chosen.world]
        if not places:
            continue
        pooled: dict[str, list[Found]] = {}
        table: dict[str, list[str]] = {}
        for column, place in enumerate(places):
            for what, every in study(place, list(worlds.values())[place], chosen.seeds, chosen.metric).items():
                pooled.setdefault(what, []).extend(every)
                table.setdefault(what, ["–"] * len(places))[column] = _share(every)
        header = ["coverage (%), mean width", *(list(worlds)[i] for i in places)]
        print(_markdown(header, [[what, *cells] for what, cells in table.items()]), flush=True)
        if task == MULTILABEL:
            print("\nby the people of the rarest label, all worlds (% of how many)\n")
            groups = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 9), (10, 10**9))
            rows = [
                [what, *(_share([one for one in every if low <= one.rarest <= high], True) for low, high in groups)]
                for what, every in pooled.items()
            ]
            print(_markdown(["", "0", "1", "2", "3–4", "5–9", "10 and more"], rows), flush=True)
    print(f"\n{time.process_time() - began:.0f} s of one core")


if __name__ == "__main__":
    main()
