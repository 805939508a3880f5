"""Compare greedy selection of members with replacement, AutoGluon's EnsembleSelection and ours, on the same arrays.

    python -m venv /somewhere/else && /somewhere/else/bin/pip install autogluon.core
    python benchmarks/greedy.py --autogluon /somewhere/else/bin/python             20,000 images × 18 classes × 50 members, 100 steps
    python benchmarks/greedy.py --autogluon PYTHON --images 3000 --steps 30        seconds instead of minutes
    python benchmarks/greedy.py                                                    ours alone

Both get the same float32 probabilities from files; reading them is not counted, everything else is, including what ours
prepares. AutoGluon runs in its own interpreter with its own metrics and defaults, in float32 or float64, whichever is
faster for it in two steps. The two alternate; seconds and ratios are medians of the repeats. "Six" are five selections
on 80% of the rows and one on all, as the nested score of the weights needs them, against one of AutoGluon's. The best
scores must agree to the six decimals that AutoGluon compares them at.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ensemble.cli.terminal.console import table
from ensemble.learning.greedy import Prepared, select
from folds.metrics.classification import METRICS

THEIR_NAMES = {
    "log_loss": "log_loss",
    "accuracy": "accuracy",
    "macro_f1": "f1_macro",
    "balanced_accuracy": "balanced_accuracy",
}

OPPONENT = """
import json, sys, time
from pathlib import Path
import numpy as np
from autogluon.core import metrics
from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection

folder, name, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
clock = getattr(time, sys.argv[4])
values, labels = np.load(folder / "probabilities.npy"), np.load(folder / "labels.npy")
metric = getattr(metrics, name)

def fitted(dtype, steps):
    members = [np.ascontiguousarray(member, dtype=dtype) for member in values]
    chosen = EnsembleSelection(ensemble_size=steps, problem_type="multiclass", metric=metric)
    started = clock()
    chosen.fit(members, labels)
    return clock() - started, chosen

fitted("float32", 1)
faster = min(("float32", "float64"), key=lambda dtype: fitted(dtype, 2)[0])
seconds, chosen = fitted(faster, steps)
score = metric.convert_score_to_original(metric.convert_error_to_score(chosen.train_score_))
print(json.dumps({"seconds": seconds, "dtype": faster, "score": float(score), "order": [int(i) for i in chosen.indices_]}))
"""


def correlated(
    seed: int, images: int, classes: int, members: int, per_person: int = 7
) -> tuple[np.ndarray, np.ndarray]:
    """(members, images, classes) float32 and (images,) labels.

    Members err alike: half of what misleads them belongs to the person, half to the image, and each adds noise, a
    temper
    and a liking for some classes of its own.
    """
    random = np.random.default_rng(seed)
    labels = random.choice(classes, images, p=random.dirichlet(np.full(classes, 2.0)))
    persons = np.arange(images) // per_person
    common = (
        random.normal(size=(persons[-1] + 1, classes))[persons] + random.normal(size=(images, classes))
    ) / np.sqrt(2)
    out = np.empty((members, images, classes), np.float32)
    for member in out:
        z = common + random.uniform(0.8, 1.6) * random.normal(size=common.shape) + random.normal(0, 0.3, classes)
        z[np.arange(images), labels] += random.uniform(1.6, 2.6)
        z /= random.uniform(0.5, 1.6)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        member[:] = e / e.sum(axis=1, keepdims=True)
    return out, labels


def ours(
    values: np.ndarray, labels: np.ndarray, name: str, steps: int, clock: str
) -> tuple[float, float, float, list[int]]:
    """Seconds of one selection and of six, the best score, and the members taken."""
    metric, now = METRICS[name], getattr(time, clock)
    started = now()
    found = select(values, labels, metric, steps=steps)
    one = now() - started
    fold = np.random.default_rng(0).integers(0, 5, len(labels))
    started = now()
    prepared = Prepared(values, labels)
    for i in range(5):
        prepared.select(metric, steps=steps, rows=fold != i)
    prepared.select(metric, steps=steps)
    return one, now() - started, found.trajectory[len(found.order) - 1], list(found.order)


def theirs(python: str, folder: Path, name: str, steps: int, clock: str) -> dict[str, Any]:
    """Seconds of one selection, the best score and the members taken."""
    command = [python, "-c", OPPONENT, str(folder), THEIR_NAMES[name], str(steps), clock]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{python} cannot run AutoGluon's selection:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def common(first: list[int], second: list[int]) -> int:
    """How many members are the same before the first that is not."""
    return next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autogluon", metavar="PYTHON", help="interpreter that has autogluon.core")
    parser.add_argument(
        "--metric",
        choices=list(THEIR_NAMES),
        action="append",
        help="may be given several times [log_loss, macro_f1, accuracy]",
    )
    for name, default in (
        ("images", 20_000),
        ("classes", 18),
        ("members", 50),
        ("steps", 100),
        ("repeats", 3),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"[{default}]")
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="CPU seconds of all threads, for a machine that others use; wall seconds without it",
    )
    options = parser.parse_args()
    clock = "process_time" if options.cpu else "perf_counter"
    values, labels = correlated(options.seed, options.images, options.classes, options.members)
    header = [
        "",
        "AutoGluon",
        "dtype",
        "ours",
        "times as quick",
        "six of ours",
        "times as quick",
        "its best score",
        "ours",
    ]
    header += ["steps kept", "the same members"]
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "probabilities.npy", values)
        np.save(folder / "labels.npy", labels)
        for metric in options.metric or ["log_loss", "macro_f1", "accuracy"]:
            mine, other = [], []
            for _ in range(options.repeats):
                if options.autogluon:
                    other.append(theirs(options.autogluon, folder, metric, options.steps, clock))
                mine.append(ours(values, labels, metric, options.steps, clock))
            one, six = median(run[0] for run in mine), median(run[1] for run in mine)
            score, order = mine[0][2:]
            if not other:
                rows.append(
                    [metric, "–", "–", f"{one:.3f}", "–", f"{six:.3f}", "–", "–", f"{score:.6f}", len(order), "–"]
                )
                continue
            assert abs(other[0]["score"] - score) < 1.01e-6, (other[0], score)
            quicker = [f"{median(b['seconds'] / run[i] for run, b in zip(mine, other)):.1f}" for i in (0, 1)]
            seconds, dtype = median(b["seconds"] for b in other), "/".join(sorted({str(b["dtype"]) for b in other}))
            same = "yes" if other[0]["order"] == order else f"up to step {common(other[0]['order'], order)}"
            its = f"{other[0]['score']:.6f}"
            rows.append(
                [
                    metric,
                    f"{seconds:.1f}",
                    dtype,
                    f"{one:.3f}",
                    quicker[0],
                    f"{six:.3f}",
                    quicker[1],
                    its,
                    f"{score:.6f}",
                    len(order),
                    same,
                ]
            )
    print("CPU seconds;" if options.cpu else "seconds;", end=" ")
    print(f"{options.images:,} images × {options.classes} classes × {options.members} members, {options.steps} steps")
    print(table(header, rows))


if __name__ == "__main__":
    main()
