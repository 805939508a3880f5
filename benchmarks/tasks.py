"""What the out-of-fold score of each task states, and what fresh people show: the recipes of `recipes/` on synthetic people.

    python benchmarks/tasks.py --task multilabel --folder work

Every image of the synthetic people is labeled without an error, so the score on fresh people is that of the models. The
recipe of a task is trained by k-fold on `--people` people and predicts `--fresh` others. Stated is the out-of-fold
score of a run, or the nested score of a blend, with its interval over people. Beside it is the mean score of the k
models on the fresh people, which is what the out-of-fold score speaks of, and that of the mean of their predictions,
which is what a submission has.
"""

from __future__ import annotations

import argparse
import logging
import time
import tomllib
from pathlib import Path

import numpy as np

import ensemble as en
import folds
from folds.metrics.tasks import metric_for_task
from folds.predictions.files import fold_files
from folds.predictions.label_columns import encode_labels
from folds.predictions.predictions import read_predictions

METHODS = {"binary": "greedy", "ordinal": "soft", "multilabel": "per-class", "regression": "nnls"}
RECIPES = Path(__file__).parents[1] / "recipes"


def measure(task: str, folder: Path, people: int, fresh: int, epochs: int, size: str, seed: int) -> None:
    """Train the recipe of a task, and print its table as the rows are known."""
    recipe = tomllib.loads((RECIPES / f"{task}.toml").read_text())
    missing = 0.1 if task == "multilabel" else 0.0
    drawn = folds.make_people(
        folder / f"people-{seed}-{missing:g}", people=people, test_people=fresh, images=4, seed=seed, missing=missing
    )
    metric = metric_for_task(recipe.get("metric"), task)
    root, names = folder / f"{task}-{seed}", [run["name"] for run in recipe["run"]]
    print(f"{task}: {people} people, {fresh} fresh ones, 4 images each; metric {metric.title}", flush=True)
    print(
        "| prediction | stated, 95% CI | one model, fresh people | mean of the k models |\n|---|---|---|---|",
        flush=True,
    )
    for run in recipe["run"]:
        started = time.perf_counter()
        settings = {key: value for key, value in recipe.items() if key not in ("run", "epochs", "data", "test")} | run
        en.kfold(
            data=drawn / "train.csv", test=drawn / "test.csv", epochs=epochs, img_size=size, pretrained=False,
            root=root, progress=False, **settings,
        )  # fmt: skip
        found = read_predictions(root / f"runs/{run['name']}.oof.npy")
        stated = found.score(metric.name)
        tests = [read_predictions(path) for path in fold_files(root / "runs", run["name"]).values()]
        truth = encode_labels(np.asarray(tests[0].labels), tests[0].classes, task)
        each = [metric(truth, one.probabilities) for one in tests]
        mean = metric(truth, np.mean([one.probabilities for one in tests], axis=0))
        row = f"| {run['name']} | {stated.text()} | {np.mean(each):.3f} | {mean:.3f} |"
        print(f"{row}   ({time.perf_counter() - started:.0f} s)", flush=True)
    files = [path for name in names for path in sorted((root / "runs").glob(f"{name}.*.npy"))]
    blend = en.blend(files, method=METHODS[task], metric=metric, progress=False)
    nested, new = (blend.total[split].score for split in ("oof", "test"))
    assert nested is not None, "every image has labels"
    assert new is not None, "every image has labels"
    print(f"| blend, {METHODS[task]}, nested | {nested.interval.text()} | | {new.interval.value:.3f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(METHODS), action="append")
    parser.add_argument("--folder", type=Path, default=Path("tasks"))
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--fresh", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--size", default="64x48")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    for task in given.task or sorted(METHODS):
        measure(task, given.folder, given.people, given.fresh, given.epochs, given.size, given.seed)
