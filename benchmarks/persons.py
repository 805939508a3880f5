"""What one prediction per person claims by each pooling rule, and what fresh people show, on drawn worlds.

    python benchmarks/persons.py --worlds 200

Each world has people with 1 to 8 images, 30% of them positive, and three runs whose errors are alike. In the world ``one``
a single image of a positive person shows it, in ``all`` every image does a little. Everything is fitted and scored as by
`ensemble.blend`; beside the nested score is that of the same combination on 4,000 fresh people. ``--order`` compares the
two orders of pooling: the images of each run first, or the runs of each image.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from ensemble.learning.auto import choose
from ensemble.learning.combination import combine
from ensemble.learning.nested import nested_cv, outer_fold_ids
from ensemble.learning.pooled import pooled, pooled_choices
from ensemble.learning.registry import FITTERS
from ensemble.learning.stack import Stack, StackImages
from ensemble.pooling.bags import Bags
from ensemble.pooling.rules import pool_images
from ensemble.pooling.spec import AUTO, FIXED, parse_pool
from folds.metrics.classification import METRICS
from folds.metrics.intervals import interval_over_people

RULES = ("mean", "median", "max", "top-k:k=3", "noisy-or", "log-odds", "learned", "auto")
RUNS, FRESH = 3, 4000
METHODS = ("soft", "stacking")


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


def score_world(
    stack: Stack, fresh: Stack, metric_name: str, method: str
) -> dict[str, tuple[float, float, float, bool]]:
    """Return rule → (in-sample score, nested score, that of fresh people, whether the interval holds it)."""
    metric, found = METRICS[metric_name], {}
    for text in RULES:
        spec = parse_pool(text)
        if spec.name == AUTO:
            fitters = pooled_choices(FITTERS[method], spec, False)
            made = choose(stack, fitters, metric, plain=fitters[0].name).nested
        else:
            made = nested_cv(stack, pooled(FITTERS[method], spec, False), metric)
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
    parser.add_argument("--metric", default="log_loss")
    parser.add_argument("--method", default="soft", choices=METHODS)
    parser.add_argument("--order", action="store_true", help="compare the orders of pooling instead")
    parser.add_argument("--world", choices=("one", "all"), help="only this world")
    options = parser.parse_args()
    if options.order:
        compare_orders(options.worlds, options.people)
        return
    began = time.perf_counter()
    print(
        "| world | rule | in-sample | nested | fresh people | difference | 95% CI holds it |\n|---|---|---|---|---|---|---|"
    )
    for world in ("one", "all") if options.world is None else (options.world,):
        fresh = draw(world, FRESH, np.random.default_rng(10**6))
        rows: dict[str, list[tuple[float, float, float, bool]]] = {rule: [] for rule in RULES}
        for seed in range(options.worlds):
            stack = draw(world, options.people, np.random.default_rng(seed))
            for rule, row in score_world(stack, fresh, options.metric, options.method).items():
                rows[rule].append(row)
        for rule, found in rows.items():
            inner, nested, true, inside = np.array(found, dtype=float).mean(axis=0)
            print(
                f"| {world} | {rule} | {inner:.3f} | {nested:.3f} | {true:.3f} | {nested - true:+.3f} | {inside:.1%} |",
                flush=True,
            )
    print(f"\n{options.people} people, {options.metric}, method {options.method}: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
