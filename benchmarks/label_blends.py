"""What nested scores of blends of several labels and of numbers state, and what fresh people show, on drawn worlds.

    python benchmarks/label_blends.py --worlds 200

Each world has people with three images each, four labels of which the rarest is on one person in ten, and an age; six
runs of unequal skill, pulled toward "no" or biased, whose errors are common to a person's images. Methods are fitted and
scored as by `ensemble blend`, thresholds as by `ensemble decide`; beside that is the score of the same combination on
2,000 fresh people. One tenth of the labels is unknown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ensemble.decisions.column_rows import columns_of_arrays
from ensemble.decisions.label_columns import fit_thresholds
from ensemble.learning.columns.registry import COLUMN_FITTERS
from ensemble.learning.columns.stack import ColumnStack
from ensemble.learning.combination import combine
from ensemble.learning.nested import nested_cv, outer_fold_ids
from folds.metrics.classification import Metric
from folds.metrics.intervals import interval_over_people
from folds.metrics.tasks import metric_for_task

SHARES, IMAGES, FRESH, RUNS = (0.5, 0.3, 0.2, 0.1), 3, 2000, 6
NAMES = tuple("abcd")
Row = tuple[str, float, float, float, bool]


def draw(people: int, task: str, random: np.random.Generator) -> ColumnStack:
    """Return the predictions of all runs for the images of some people."""
    persons = np.repeat(np.arange(people), IMAGES)
    n = len(persons)
    names = tuple(f"r{i}" for i in range(RUNS))
    skills = np.linspace(0.6, 0.9, RUNS)
    if task == "multilabel":
        truth = (random.random((people, len(SHARES))) < SHARES)[persons].astype(np.float64)
        common = random.normal(0, 0.8, (people, len(SHARES)))[persons]
        logits = [skill * (2 * truth - 1) + common + random.normal(0, 0.8, truth.shape) - 1.0 for skill in skills]
        values = 1 / (1 + np.exp(-np.array(logits)))
        truth[random.random(truth.shape) < 0.1] = np.nan
        columns: tuple[str, ...] = NAMES
    else:
        truth = random.normal(45, 15, people)[persons][:, None]
        common = random.normal(0, 4, people)[persons][:, None]
        values = np.array([
            truth + common + random.normal(3 * (1 - skill), 12 * (1.2 - skill), (n, 1)) for skill in skills
        ])  # fmt: skip
        columns = ("age",)
    parts = outer_fold_ids(persons, truth, None)
    return ColumnStack(names, values.astype(np.float32), None, truth, persons, parts, columns=columns, task=task)


def of_method(name: str, stack: ColumnStack, fresh: ColumnStack, metric: Metric) -> Row:
    """Return the scores of a method (of its own fit, and nested), its score on fresh people, and whether the interval of
    the nested one holds that.
    """
    found = nested_cv(stack, COLUMN_FITTERS[stack.task][name], metric)
    stated = interval_over_people(metric, stack.labels, found.out_of_sample, stack.persons)
    truth = metric(fresh.labels, combine(fresh, found.combination))
    own = metric(stack.labels, found.in_sample)
    return name, own, stated.value, truth, stated.low <= truth <= stated.high


def of_thresholds(stack: ColumnStack, fresh: ColumnStack, metric: Metric) -> Row:
    """Return the same for a threshold of each label, fitted to the mean of the runs."""
    mean, new = stack.probabilities.mean(axis=0), fresh.probabilities.mean(axis=0)
    ids = np.arange(len(stack)).astype(str)
    rows, source = columns_of_arrays(
        mean, stack.labels, stack.persons.astype(str), None, ids, NAMES, False, ("", "arrays")
    )
    found = fit_thresholds(rows, source, ["macro_f1"])
    stated = found.totals["macro F1"]
    truth = metric(fresh.labels, found.apply(new).astype(float))
    own = metric(stack.labels, found.apply(mean).astype(float))
    return "threshold of each label", own, stated.value, truth, stated.low <= truth <= stated.high


def rows_of(stack: ColumnStack, fresh: ColumnStack, metric: Metric, methods: Sequence[str]) -> list[Row]:
    """Return the rows of one world."""
    found = [of_method(name, stack, fresh, metric) for name in methods]
    if metric.name == "macro_f1":
        found.append(of_thresholds(stack, fresh, metric))
    return found


PARTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "age, MAE": ("regression", "mae", ("soft", "best", "greedy", "simplex", "nnls", "stacking")),
    "labels, macro F1": ("multilabel", "macro_f1", ("soft", "best", "greedy", "bias")),
    "labels, ROC-AUC": ("multilabel", "roc_auc", ("soft", "best", "greedy", "per-class")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--rows", type=Path, help="a file that keeps the rows of worlds, to continue from")
    options = parser.parse_args()
    lines = options.rows.read_text().splitlines() if options.rows and options.rows.exists() else []
    found = {(title, people, seed): rows for title, people, seed, rows in map(json.loads, lines)}
    fresh = {task: draw(FRESH, task, np.random.default_rng(10**6)) for task in ("multilabel", "regression")}
    for title, (task, name, methods) in PARTS.items():
        metric = metric_for_task(name, task)
        for seed in range(options.worlds):
            key = title, options.people, seed
            if key in found:
                continue
            stack = draw(options.people, task, np.random.default_rng(seed))
            found[key] = rows_of(stack, fresh[task], metric, methods)
            if options.rows:
                with options.rows.open("a") as file:
                    file.write(json.dumps([*key, [[*map(json_number, row)] for row in found[key]]]) + "\n")
        print_part(title, options.people, [found[title, options.people, seed] for seed in range(options.worlds)])


def json_number(value: object) -> object:
    """Return a number or a truth value of numpy as one of Python."""
    return value.item() if isinstance(value, np.generic) else value


def print_part(title: str, people: int, worlds: Sequence[Sequence[Row]]) -> None:
    """Print the means over the worlds, one line per method."""
    print(
        f"\n| {title} | its own fit | nested | fresh people | nested − fresh | 95% CI holds it |\n|---|---|---|---|---|---|"
    )
    for i, (method, *_) in enumerate(worlds[0]):
        own, nested, truth, holds = (np.array([world[i][part] for world in worlds], float) for part in range(1, 5))
        print(
            f"| {method} | {own.mean():.3f} | {nested.mean():.3f} | {truth.mean():.3f} | "
            f"{(nested - truth).mean():+.3f} | {holds.mean():.1%} |",
            flush=True,
        )
    print(f"({people} people, {len(worlds)} worlds)", flush=True)


if __name__ == "__main__":
    main()
