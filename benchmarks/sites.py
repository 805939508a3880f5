"""How often a 95% interval holds the score at new sites: over sites and people, and over people alone.

    python benchmarks/sites.py [--worlds 200]

In each world, sites and people differ in how easy their images are. The true value is the score of 4,000 further sites.
"""

from __future__ import annotations

import argparse

import numpy as np

from ensemble.cli.terminal.console import table
from folds.metrics.classification import METRICS
from folds.metrics.intervals import interval_over_people
from folds.metrics.sites import interval_over_sites

World = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def draw(random: np.random.Generator, sites: int, people: int = 30, uneven: bool = False, classes: int = 3) -> World:
    """Labels (n,), probabilities (n, classes), sites and persons (n,): three images a person, `people` a site."""
    share = random.dirichlet(np.full(sites, 2.0)) if uneven else None
    sizes = np.full(sites, people) if share is None else np.maximum(4, random.multinomial(people * sites, share))
    ease = random.normal(0, 0.5, sites)
    site = np.repeat(np.arange(sites), sizes)
    person, site = np.repeat(np.arange(len(site)), 3), np.repeat(site, 3)
    count = int(person[-1]) + 1
    labels = random.integers(0, classes, count)[person]
    logits = random.normal(0, 1, (len(site), classes))
    logits[np.arange(len(site)), labels] += 1.2 + ease[site] + random.normal(0, 0.7, count)[person]
    values = np.exp(logits)
    return labels, values / values.sum(axis=1, keepdims=True), site, person


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    worlds = parser.parse_args().worlds
    rows: list[list[object]] = []
    for name in ("accuracy", "macro_f1", "roc_auc"):
        metric = METRICS[name]
        labels, values, *_ = draw(np.random.default_rng(1), 4000, 10)
        truth = metric(labels, values)
        for sites, uneven in ((3, False), (4, False), (6, False), (10, False), (6, True), (12, True)):
            held, width = np.zeros(2), 0.0
            for world in range(worlds):
                labels, values, site, person = draw(
                    np.random.default_rng([7, sites, uneven, world]), sites, uneven=uneven
                )
                wide = interval_over_sites(metric, labels, values, site, person)
                held += wide.contains(truth), interval_over_people(metric, labels, values, person).contains(truth)
                width += (wide.high - wide.low) / worlds
            size = "uneven" if uneven else "even"
            rows.append(
                [f"{metric.title}, {sites} sites", size, *(f"{one / worlds:.3f}" for one in held), f"{width:.3f}"]
            )
    print(table(["", "size", "over sites", "over people", "width"], rows, 2))


if __name__ == "__main__":
    main()
