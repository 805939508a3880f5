"""Measure what the out-of-fold score of a student is worth.

The soft label of a person in fold j is the prediction of teachers that were not trained on fold j. But they were trained
on fold i, on which the student of fold i is scored: what they learned about the people of fold i can reach the student
through the soft labels of the others. Four kinds of students are compared on synthetic people:

- labels: no soft labels, which has no such leak;
- distilled: as ``ensemble distill`` does it, teachers trained without fold j;
- doubly nested: for the student of fold i, teachers trained without folds i and j, which has no such leak either;
- same fold: for the student of fold i, teachers trained without fold i only. They have seen the people whose soft labels
  they make, but not those that the student is scored on. This needs no further training; it is not in the program.

Each student is scored out of fold and on many new people. The difference is the bias of the out-of-fold score; that of
a doubly nested student has only the noise and the small-sample bias of the metric. Intervals are over worlds (t).

Models are small networks on features, so that hundreds of worlds take minutes: people have a random offset of their
own, which networks of this size memorize. Run with ``python benchmarks/distill.py [--people 60] [--features 16] [--worlds 40]``.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

K, CLASSES, IMAGES, HIDDEN, STEPS = 5, 3, 4, 64, 120
SHARES = (0.5, 0.3, 0.2)
NEW_PEOPLE, TEACHERS = 4000, 2
METRICS = ("accuracy", "macro F1", "log loss")


@dataclass(frozen=True)
class World:
    """Images x (n, features) of people, with their class, and new people from the same distribution."""

    x: Tensor
    y: Tensor
    fold: NDArray[np.int64]
    new_x: Tensor
    new_y: Tensor


def draw(people: int, features: int, seed: int) -> World:
    """Draw a world: person-level classes, class means, a random offset of each person, noise of each image."""
    rng = np.random.default_rng([seed, people])
    means = rng.normal(0, 2.8 / math.sqrt(features), (CLASSES, features))  # equally far apart in any dimension

    def sample(count: int, images: int) -> tuple[Tensor, Tensor]:
        of_person = rng.choice(CLASSES, count, p=SHARES)
        of_person[:CLASSES] = np.arange(CLASSES)
        offset = rng.normal(0, 1.2, (count, features))
        x = (means[of_person] + offset).repeat(images, axis=0) + rng.normal(0, 0.5, (count * images, features))
        return torch.tensor(x, dtype=torch.float32), torch.tensor(of_person.repeat(images))

    x, y = sample(people, IMAGES)
    fold = np.empty(people, np.int64)
    of_person, start = y.numpy()[::IMAGES], 0
    for name in range(CLASSES):  # stratified by class
        members = rng.permutation(np.flatnonzero(of_person == name))
        fold[members] = (np.arange(len(members)) + start) % K
        start += len(members)
    return World(x, y, fold.repeat(IMAGES), *sample(NEW_PEOPLE, 1))


class Networks:
    """Networks with one hidden layer that are trained side by side, each on rows and targets of its own."""

    def __init__(self, count: int, features: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        first = torch.randn(count, features, HIDDEN, generator=generator) / math.sqrt(features)
        last = torch.randn(count, HIDDEN, CLASSES, generator=generator) / math.sqrt(HIDDEN)
        parts = [first, torch.zeros(count, 1, HIDDEN), last, torch.zeros(count, 1, CLASSES)]
        self.parts = [part.requires_grad_() for part in parts]

    def logits(self, x: Tensor) -> Tensor:
        """Return (networks, rows, classes)."""
        a, b, c, d = self.parts
        return torch.baddbmm(d, torch.relu(torch.baddbmm(b, x.expand(len(a), *x.shape), a)), c)

    def fit(self, x: Tensor, targets: Tensor, rows: Tensor) -> Networks:
        """Train with targets (networks, rows, classes) on the rows of each network, a mask (networks, rows)."""
        optimizer = torch.optim.AdamW(self.parts, lr=0.01, weight_decay=0.01)
        share = rows / rows.sum(1, keepdim=True)
        for _ in range(STEPS):
            optimizer.zero_grad()
            losses = -(targets * self.logits(x).log_softmax(2)).sum(2)
            (losses * share).sum().backward()
            optimizer.step()
        return self

    def predict(self, x: Tensor) -> Tensor:
        """Return probabilities (networks, rows, classes)."""
        with torch.no_grad():
            return self.logits(x).softmax(2)


def scores(p: Tensor, y: Tensor) -> NDArray[np.float64]:
    """Return accuracy, macro F1 and log loss of probabilities (rows, classes)."""
    predicted, found = p.argmax(1), []
    for name in range(CLASSES):
        hit = int(((predicted == name) & (y == name)).sum())
        found.append(2 * hit / max(1, int((predicted == name).sum() + (y == name).sum())))
    loss = -p[torch.arange(len(y)), y].clamp_min(1e-12).log().mean()
    return np.array([float((predicted == y).float().mean()), np.mean(found), float(loss)])


def soft_labels(world: World, seed: int) -> dict[str, Tensor]:
    """Return the soft labels (K, n, classes) of all rows for the student of each fold, by their kind."""
    pairs = [(i, j) for i in range(K) for j in range(i, K)]  # (j, j): without fold j only
    masks = torch.stack([torch.tensor((world.fold != i) & (world.fold != j)) for i, j in pairs]).float()
    masks = masks.repeat(TEACHERS, 1)
    hard = torch.nn.functional.one_hot(world.y, CLASSES).float()
    made = (
        Networks(len(masks), world.x.shape[1], seed)
        .fit(world.x, hard.expand(len(masks), *hard.shape), masks)
        .predict(world.x)
    )
    mean = made.reshape(TEACHERS, len(pairs), *hard.shape).mean(0)
    without = {pair: mean[at] for at, pair in enumerate(pairs)}
    of_fold = [torch.tensor(world.fold == j)[:, None] for j in range(K)]
    plain = torch.stack([of_fold[j] * without[j, j] for j in range(K)]).sum(0)
    nested = [torch.stack([of_fold[j] * without[min(i, j), max(i, j)] for j in range(K)]).sum(0) for i in range(K)]
    return {
        "distilled": plain.expand(K, *hard.shape),
        "doubly nested": torch.stack(nested),
        "same fold": torch.stack([without[i, i] for i in range(K)]),
    }


def students(world: World, seed: int, weights: list[float]) -> dict[str, tuple[NDArray, NDArray]]:
    """Return for each kind of student its scores out of fold and on new people (mean over the models of the folds)."""
    soft = soft_labels(world, seed)
    hard = torch.nn.functional.one_hot(world.y, CLASSES).float()
    targets = {"labels": hard.expand(K, *hard.shape)}
    for weight in weights:
        targets |= {f"{kind} {weight:g}": (1 - weight) * hard + weight * values for kind, values in soft.items()}
    rows = torch.stack([torch.tensor(world.fold != i) for i in range(K)]).float().repeat(len(targets), 1)
    # All kinds begin with the same networks, so that differences between them are paired.
    made = Networks(K, world.x.shape[1], seed + 1)
    made.parts = [part.detach().repeat(len(targets), 1, 1).requires_grad_() for part in made.parts]
    made.fit(world.x, torch.cat(list(targets.values())), rows)
    inside, new = made.predict(world.x), made.predict(world.new_x)
    found, row = {}, torch.arange(len(world.y))
    for at, name in enumerate(targets):
        own = slice(at * K, (at + 1) * K)
        out_of_fold = inside[own][torch.tensor(world.fold), row]
        unseen = np.mean([scores(one, world.new_y) for one in new[own]], axis=0)
        found[name] = scores(out_of_fold, world.y), unseen
    return found


def interval(values: NDArray[np.float64]) -> str:
    """Return the mean and its 95% CI over worlds."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return f"{values.mean():+.4f} [{values.mean() - half:+.4f}, {values.mean() + half:+.4f}]"


def main() -> None:
    """Print the table of biases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.5, 1.0])
    given = parser.parse_args()
    started = time.perf_counter()
    found = [
        students(draw(given.people, given.features, seed), 10 * seed, given.weights) for seed in range(given.worlds)
    ]
    print(f"{given.worlds} worlds of {given.people} people with {IMAGES} images, {given.features} features, {K} folds")
    bias = {name: np.array([one[name][0] - one[name][1] for one in found]) for name in found[0]}
    for name, values in bias.items():
        new = np.mean([one[name][1] for one in found], axis=0)
        print(f"\n{name}: on new people " + ", ".join(f"{m} {v:.3f}" for m, v in zip(METRICS, new, strict=True)))
        for at, metric in enumerate(METRICS):
            print(f"  OOF - new, {metric:8}  {interval(values[:, at])}")
    for weight in given.weights:
        print(f"\nwhat the leak adds to the OOF score (distilled - doubly nested), soft weight {weight:g}")
        added = bias[f"distilled {weight:g}"] - bias[f"doubly nested {weight:g}"]
        gain = np.array([one[f"distilled {weight:g}"][1] - one["labels"][1] for one in found])
        for at, metric in enumerate(METRICS):
            print(f"  {metric:8}  {interval(added[:, at])}; the student gains on new people {interval(gain[:, at])}")
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
