"""What one prediction per person claims by each pooling rule, and what fresh people show, on drawn worlds.

    python benchmarks/persons.py --worlds 200

Each world has people with 1 to 8 images, 30% of them positive, and three runs whose errors are alike. In the world ``one``
a single image of a positive person shows it, in ``all`` every image does a little. Everything is fitted and scored as by
`ensemble.blend`; beside the nested score is that of the same combination on 4,000 fresh people. ``--order`` compares the
two orders of pooling: the images of each run first, or the runs of each image.

    python benchmarks/persons.py --worlds 100 --world labels,near,far

The world ``labels`` has three labels (one as in ``one``, one as in ``all``, one rare as in ``one``), of which a tenth of the
cells is not known; ``near`` has one number that each image shows half as far from the mean of all people as it is, and
in ``far`` a fifth of the images are far off.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.auto import choose
from ensemble.learning.columns.registry import fitters_of
from ensemble.learning.columns.stack import ColumnStack
from ensemble.learning.combination import combine
from ensemble.learning.nested import nested_cv, outer_fold_ids
from ensemble.learning.pooled import pooled, pooled_choices
from ensemble.learning.stack import Stack, StackImages
from ensemble.pooling.bags import Bags
from ensemble.pooling.rules import pool_images
from ensemble.pooling.spec import AUTO, FIXED, parse_pool, rules_of
from folds.metrics.classification import METRICS
from folds.metrics.intervals import interval_over_people
from folds.metrics.task_names import CLASSES, MULTILABEL, REGRESSION
from folds.metrics.tasks import metric_for_task

RULES = ("mean", "median", "max", "top-k:k=3", "noisy-or", "log-odds", "learned", "auto")
RUNS, FRESH = 3, 4000
METHODS = ("soft", "stacking")
TASKS = {"one": CLASSES, "all": CLASSES, "labels": MULTILABEL, "near": REGRESSION, "far": REGRESSION}
DEFAULTS = {CLASSES: "log_loss", MULTILABEL: "log_loss", REGRESSION: "mae"}


def draw(world: str, people: int, random: np.random.Generator, alike: float = 1.1, own: float = 0.6) -> Stack:
    """Return people and their images; a run's error is shared by all runs (`alike`) and its own (`own`)."""
    labels = (random.random(people) < 0.3).astype(np.int64)
    labels[:4] = 0, 1, 0, 1  # no class is absent
    counts = random.integers(1, 9, people)
    codes = np.repeat(np.arange(people), counts)
    shows = labels[codes].astype(float) * 1.3
    if world == "one":
        shows = np.zeros(len(codes))
        shows[(np.cumsum(counts) - counts)[labels == 1]] = 4.0
    base = (-3.0 if world == "one" else -1.0) + shows
    base = base + random.normal(0, alike, len(codes)) + random.normal(0, 0.5, people)[codes]
    p = 1 / (1 + np.exp(-(base + random.normal(0, own, (RUNS, len(codes))))))
    values = np.stack([1 - p, p], axis=2).astype(np.float32)
    images = StackImages(values, np.ones(values.shape[:2], bool), Bags(codes, people))
    means = np.stack([images.bags.mean(one.astype(np.float64)) for one in values]).astype(np.float32)
    persons = np.arange(people)
    folds = outer_fold_ids(persons, labels, None)
    return Stack(tuple(f"r{run}" for run in range(RUNS)), means, None, labels, persons, folds, images)


def draw_columns(world: str, people: int, random: np.random.Generator) -> ColumnStack:
    """Return people with three labels or a number, and their images; see the top of the file."""
    counts = random.integers(1, 9, people)
    codes = np.repeat(np.arange(people), counts)
    first = np.cumsum(counts) - counts
    if world == "labels":
        labels = (random.random((people, 3)) < [0.3, 0.3, 0.1]).astype(float)
        base = np.full((len(codes), 3), [-3.0, -1.0, -3.0])
        base[:, 1] += 1.3 * labels[codes, 1]
        for column in (0, 2):
            base[first[labels[:, column] == 1], column] += 4
        base += random.normal(0, 1.1, base.shape) + random.normal(0, 0.5, labels.shape)[codes]
        values = 1 / (1 + np.exp(-(base + random.normal(0, 0.6, (RUNS, *base.shape)))))
        labels[random.random(labels.shape) < 0.1] = np.nan
    else:
        labels = random.normal(45, 15, (people, 1))
        shown = labels[codes] + random.normal(0, 4, labels.shape)[codes]
        if world == "near":
            shown = 45 + 0.5 * (shown + random.normal(0, 15, shown.shape) - 45)
        else:
            off = random.random(shown.shape) < 0.2
            shown += random.normal(0, 5, shown.shape) + off * random.normal(0, 25, shown.shape)
        values = shown + random.normal(0, 3, (RUNS, *shown.shape))
    predicted: NDArray[np.float32] = values.astype(np.float32)
    images = StackImages(predicted, np.ones(predicted.shape[:2], bool), Bags(codes, people))
    means = np.stack([images.bags.mean(one.astype(np.float64)) for one in predicted]).astype(np.float32)
    persons = np.arange(people)
    names, columns = tuple(f"r{run}" for run in range(RUNS)), tuple(f"c{i}" for i in range(labels.shape[1]))
    folds = outer_fold_ids(persons, labels, None)
    known = np.flatnonzero(~np.isnan(labels).all(axis=1))
    stack = ColumnStack(names, means, None, labels, persons, folds, images, columns=columns, task=TASKS[world])
    return stack if len(known) == people else stack.take(known)


def score_world(
    stack: Stack, fresh: Stack, task: str, metric_name: str, method: str, rules: Sequence[str]
) -> dict[str, tuple[float, float, float, bool]]:
    """Return rule → (in-sample score, nested score, that of fresh people, whether the interval holds it)."""
    metric, fitter, found = metric_for_task(metric_name, task), fitters_of(task)[method], {}
    for text in rules:
        spec = parse_pool(text)
        if spec.name == AUTO:
            fitters = pooled_choices(fitter, spec, task)
            made = choose(stack, fitters, metric, plain=fitters[0].name).nested
        elif spec.name in rules_of(task):
            made = nested_cv(stack, pooled(fitter, spec, False), metric)
        else:
            continue
        interval = interval_over_people(metric, stack.labels, made.out_of_sample, stack.persons)
        true = metric(fresh.labels, combine(fresh, made.combination))
        inside = interval.low <= true <= interval.high
        found[text] = (metric(stack.labels, made.in_sample), interval.value, true, inside)
    return found


def compare_orders(worlds: int, people: int) -> None:
    """Print the ROC-AUC and the log loss of both orders, with equal weights of the runs."""
    print("| runs | world | rule | images first | runs first | difference |\n|---|---|---|---|---|---|")
    auc = METRICS["roc_auc"]
    for kind, alike, own in (("alike", 1.1, 0.6), ("unlike", 0.6, 1.2)):
        for world in ("one", "all"):
            for rule in FIXED:
                scores = np.zeros((worlds, 2))
                for seed in range(worlds):
                    stack = draw(world, people, np.random.default_rng(seed), alike, own)
                    assert stack.images is not None
                    values, bags = stack.images.probabilities.astype(np.float64), stack.images.bags
                    first = np.mean([pool_images(one, bags, rule, 3, False) for one in values], axis=0)
                    second = pool_images(values.mean(axis=0), bags, rule, 3, False)
                    scores[seed] = auc(stack.labels, first), auc(stack.labels, second)
                change = scores[:, 1] - scores[:, 0]
                mean = scores.mean(axis=0)
                error = change.std() / worlds**0.5
                print(
                    f"| {kind} | {world} | {rule} | {mean[0]:.4f} | {mean[1]:.4f} | {change.mean():+.4f} ± {error:.4f} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--metric", help="log_loss by default, of numbers mae")
    parser.add_argument("--method", default="soft", choices=METHODS)
    parser.add_argument("--order", action="store_true", help="compare the orders of pooling instead")
    parser.add_argument("--rules", default=",".join(RULES), help="only these rules")
    parser.add_argument("--world", default="one,all", help=f"some of {','.join(TASKS)}")
    options = parser.parse_args()
    if options.order:
        compare_orders(options.worlds, options.people)
        return
    began = time.perf_counter()
    print(
        "| world | rule | in-sample | nested | fresh people | difference | 95% CI holds it |\n|---|---|---|---|---|---|---|"
    )
    for world in options.world.split(","):
        task = TASKS[world]
        make = draw if task == CLASSES else draw_columns
        metric = options.metric or DEFAULTS[task]
        fresh = make(world, FRESH, np.random.default_rng(10**6))
        rows: dict[str, list[tuple[float, float, float, bool]]] = {}
        for seed in range(options.worlds):
            stack = make(world, options.people, np.random.default_rng(seed))
            for rule, row in score_world(stack, fresh, task, metric, options.method, options.rules.split(",")).items():
                rows.setdefault(rule, []).append(row)
        for rule, found in rows.items():
            inner, nested, true, inside = np.array(found, dtype=float).mean(axis=0)
            print(
                f"| {world} | {rule} | {inner:.3f} | {nested:.3f} | {true:.3f} | {nested - true:+.3f} | {inside:.1%} |",
                flush=True,
            )
    print(
        f"\n{options.people} people, {options.metric or 'log_loss (of numbers mae)'}, method {options.method}: {time.perf_counter() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
