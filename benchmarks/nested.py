"""Compare nested scores of fitted combinations with their scores on thousands of new people of the same world.

    python benchmarks/nested.py                                    greedy, macro F1, 1,000 samples, 50 members, 100 worlds
    python benchmarks/nested.py --methods all --seeds 20           every fitted method
    python benchmarks/nested.py --methods auto --members 10 --seeds 20
    python benchmarks/nested.py --metric log_loss --calibrate after:vector

Worlds are simulated: 7 images per person, 18 classes as frequent as in a data set of masks, members whose errors are
correlated, half by images and half by people. Each method is fitted to one sample of people, in folds, and applied to
new ones. All figures are relative to the soft vote, which fits nothing: a sample of easy people raises both scores. The
columns are the optimism of the in-sample score, the optimism of the nested score, and the gain over the soft vote on
new people; each is a mean over the worlds ± its standard error. Positive is better, or optimistic, for every metric.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.auto import choose
from ensemble.learning.calibration import calibrated, parse_calibration
from ensemble.learning.combination import Fitter, combine
from ensemble.learning.nested import nested_cv
from ensemble.learning.registry import FITTERS, candidates
from ensemble.learning.stack import Stack
from folds.metrics.classification import METRICS

IMAGES = np.array([2765, 2045, 415, 3640, 4090, 545, 553, 409, 83, 728, 818, 109, 553, 409, 83, 728, 818, 109], float)
EVERYTHING = Fitter("auto", "the best of all, chosen inside the nest", FITTERS["soft"].fit)  # a name; `choose` does it
PER_PERSON = 7
FOLDS = 5


def worlds(seed: int, sizes: list[int], members: int) -> list[Stack]:
    """One stack for each number of samples, of the same members and of other people."""
    random = np.random.default_rng(seed)
    classes = len(IMAGES)
    skill, noise = random.uniform(1.6, 2.6, members), random.uniform(0.8, 1.6, members)
    sureness, favour = random.uniform(0.6, 2, members), random.normal(0, 0.3, (members, classes))
    return [_drawn(random, n, skill, noise, sureness, favour) for n in sizes]


def _drawn(
    random: np.random.Generator, n: int, skill: NDArray, noise: NDArray, sureness: NDArray, favour: NDArray
) -> Stack:
    members, classes = favour.shape
    persons = np.arange(n) // PER_PERSON
    people = int(persons[-1]) + 1
    labels = random.choice(classes, n, p=IMAGES / IMAGES.sum())
    # What makes a sample hard makes it hard for all members; half of it is the person's.
    shared = 0.5**0.5 * (random.normal(size=(people, classes))[persons] + random.normal(size=(n, classes)))
    values = np.empty((members, n, classes), np.float32)
    for m in range(members):
        logits = shared + noise[m] * random.standard_normal((n, classes), np.float32) + favour[m]
        logits[np.arange(n), labels] += skill[m]
        logits *= sureness[m]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        values[m] = odds / odds.sum(axis=1, keepdims=True)
    names = tuple(f"m{m:03}" for m in range(members))
    return Stack(names, values, None, labels, persons, (random.permutation(people) % FOLDS)[persons])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--methods", default="greedy", help=f"all, or some of {','.join(FITTERS)},auto")
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--fresh", type=int, default=20_000)
    parser.add_argument("--metric", default="macro_f1", choices=list(METRICS))
    parser.add_argument("--calibrate", help="before or after pooling: after:temperature")
    arguments = parser.parse_args()
    metric = METRICS[arguments.metric]
    sign = 1 if metric.greater_is_better else -1
    names = [name for name in FITTERS if name != "soft"] if arguments.methods == "all" else arguments.methods.split(",")
    chosen: list[Fitter] = [EVERYTHING if name == "auto" else FITTERS[name] for name in names]
    if arguments.calibrate:
        chosen = [calibrated(fitter, *parse_calibration(arguments.calibrate)) for fitter in chosen]
    found: dict[str, list[tuple[float, float, float]]] = {fitter.name: [] for fitter in chosen}
    seconds = dict.fromkeys(found, 0.0)
    for seed in range(arguments.seeds):
        stack, fresh = worlds(seed, [arguments.rows, arguments.fresh], arguments.members)
        vote = nested_cv(stack, FITTERS["soft"], metric)
        luck = [metric(stack.labels, vote.in_sample), metric(fresh.labels, combine(fresh, vote.combination))]
        for fitter in chosen:
            began = time.process_time()
            made = (
                choose(stack, candidates(metric), metric, seed).nested
                if fitter is EVERYTHING
                else nested_cv(stack, fitter, metric, seed)
            )
            seconds[fitter.name] += time.process_time() - began
            in_sample, out_of_sample = (
                sign * (metric(stack.labels, values) - luck[0]) for values in (made.in_sample, made.out_of_sample)
            )
            true = sign * (metric(fresh.labels, combine(fresh, made.combination)) - luck[1])
            found[fitter.name].append((in_sample - true, out_of_sample - true, true))
    print(
        f"{metric.title}, {arguments.rows:,} samples, {arguments.members} members, {arguments.seeds} worlds, "
        f"{arguments.fresh:,} fresh samples each\n"
    )
    print("| method | own samples − fresh | nested − fresh | fresh, over soft | s a nested fit |")
    print("|---|---|---|---|---|")
    for name, rows in found.items():
        values = np.array(rows)
        error = values.std(axis=0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.full(3, np.nan)
        cells = " | ".join(f"{mean:+.4f} ± {spread:.4f}" for mean, spread in zip(values.mean(axis=0), error))
        print(f"| {name} | {cells} | {seconds[name] / len(values):.2f} |")


if __name__ == "__main__":
    main()
