"""Splitting by person: scikit-learn's StratifiedGroupKFold against ours, with and without the repair.

    python benchmarks/splits.py                 both parts
    python benchmarks/splits.py --part skewed   60 sets of 30 people who differ strongly: what folds lack, how balanced they are
    python benchmarks/splits.py --part large    a million images of 140,000 people: seconds, and that the folds are the same

The shares are of a fold's images; a class counts as lacking in a fold if at least k people have it.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from ensemble.cli.terminal.console import table
from folds.data.table import SampleTable
from folds.splits.kfold import split_by_person

# Images of each of the 18 classes of the mask competition.
MASK_TASK = np.array(
    [2765, 2045, 415, 3640, 4090, 545, 553, 409, 83, 728, 818, 109, 553, 409, 83, 728, 818, 109], float
)


def skewed_people(seed: int, people: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels, persons), an entry an image: 10 to 59 images a person, whose classes follow a Dirichlet(.3)."""
    random = np.random.default_rng(seed)
    persons = np.repeat(np.arange(people), random.integers(10, 60, people))
    mix = random.dirichlet(np.full(classes, 0.3), people)
    return np.array([random.choice(classes, p=mix[person]) for person in persons]), persons


def table_of(labels: np.ndarray, persons: np.ndarray) -> SampleTable:
    """A table of these, without images."""
    ids = np.array([f"image{i:07d}" for i in range(len(labels))])
    names = [f"c{i:02d}" for i in range(int(labels.max()) + 1)]
    people = np.array([f"person{i:06d}" for i in range(int(persons.max()) + 1)])
    return SampleTable("benchmark", ids, None, np.array(names)[labels], people[persons], tuple(names), {}, {}, ())


def of_scikit_learn(labels: np.ndarray, persons: np.ndarray, k: int) -> np.ndarray:
    """The fold of each image."""
    fold = np.full(len(labels), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, (_, index) in enumerate(
            StratifiedGroupKFold(k, shuffle=True, random_state=0).split(labels, labels, persons)
        ):
            fold[index] = i
    return fold


def judged(labels: np.ndarray, persons: np.ndarray, fold: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """Folds × classes that are lacking, worst and mean deviation of a class share, worst deviation of a fold's size."""
    lacking, deviations = 0, []
    for name in np.unique(labels):
        mine = labels == name
        if len(np.unique(persons[mine])) >= k:
            lacking += k - len(np.unique(fold[mine]))
        deviations += [abs(mine[fold == i].mean() - mine.mean()) for i in range(k)]
    return (
        lacking,
        max(deviations),
        float(np.mean(deviations)),
        float(np.abs(np.bincount(fold, minlength=k) / len(fold) * k - 1).max()),
    )


def skewed(people: int, classes: int, k: int = 5, sets: int = 60) -> list[list[object]]:
    """A row for each way to split."""
    ways = {
        "scikit-learn": lambda labels, persons: of_scikit_learn(labels, persons, k),
        "ours, --no-repair": lambda labels, persons: split_by_person(table_of(labels, persons), k, repaired=False).fold,
        "ours": lambda labels, persons: split_by_person(table_of(labels, persons), k).fold,
    }
    rows: list[list[object]] = []
    results = {}
    for way, split in ways.items():
        found, seconds = [], 0.0
        for seed in range(sets):
            labels, persons = skewed_people(seed, people, classes)
            started = time.process_time()
            fold = split(labels, persons)
            seconds += time.process_time() - started
            found.append(judged(labels, persons, fold, k))
        results[way] = np.array(found)
        lacking, worst, mean, size = results[way].T
        worse = (results[way][:, :3] > results["scikit-learn"][:, :3] + 1e-12).any(axis=1).sum()
        row = [
            f"{people} people, {classes} classes",
            way,
            f"{(lacking > 0).sum()} of {sets}",
            f"{worst.mean():.4f}",
            f"{worst.max():.4f}",
        ]
        rows.append([*row, f"{mean.mean():.4f}", f"{size.mean():.3f}", worse, f"{seconds / sets:.3f}"])
    return rows


def large(people: int = 140_000, images: int = 1_000_000, k: int = 5) -> list[list[object]]:
    """Seconds on one table, and whether the folds are the same."""
    random = np.random.default_rng(0)
    persons = np.concatenate([np.arange(people), random.integers(people, size=images - people)])
    labels = random.choice(len(MASK_TASK), images, p=MASK_TASK / MASK_TASK.sum())
    sample = table_of(labels, persons)
    rows: list[list[object]] = []
    times = []
    for way in ("scikit-learn", "ours, --no-repair", "ours"):
        wall, cpu = time.perf_counter(), time.process_time()
        if way == "scikit-learn":
            expected = of_scikit_learn(sample.labels, sample.persons, k)
            same = "–"
        else:
            fold = split_by_person(sample, k, repaired=way == "ours").fold
            same = "yes" if np.array_equal(fold, expected) else "NO"
            assert same == "yes"
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
        rows.append([way, f"{times[-1][0]:.1f}", f"{times[-1][1]:.1f}", f"{times[0][1] / times[-1][1]:.1f}", same])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["skewed", "large"])
    part = parser.parse_args().part
    if part != "large":
        header = [
            "60 sets of",
            "",
            "sets lacking a class",
            "worst deviation, mean",
            "max",
            "mean deviation",
            "size off",
            "sets worse",
            "CPU s a set",
        ]
        print(
            table(
                header,
                [row for people, classes in ((30, 18), (26, 10), (100, 18)) for row in skewed(people, classes)],
                2,
            )
        )
    if part != "skewed":
        print("\na million images of 140,000 people, 18 classes, k=5")
        print(table(["", "s", "CPU s", "times as quick", "same folds"], large()))


if __name__ == "__main__":
    main()
