"""Measure the optimism of a split by image: the same model, recipe and images, split by person and by image.

    python benchmarks/leak.py                       synthetic faces, with their test people
    python benchmarks/leak.py --data index.csv      any table with columns path, label, person

Prints one line per split: the out-of-fold score, and the score of the same models on test people who were in no fold.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from ensemble.cli.reports.training import results_table
from ensemble.cli.terminal.console import printing_logs
from ensemble.cli.terminal.progress import TerminalProgress
from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.data.readers import read_data
from folds.data.synthetic.people import generate_people
from folds.data.table import DataSpec
from folds.models.model_names import SMALL_VARIANTS
from folds.runs.plan import build_plan
from folds.runs.session import train_runs


def built_in_table(folder: Path) -> Path:
    """Write the synthetic faces as a CSV, so that another column can be named as the person."""
    data = read_data(DataSpec(generate_people(folder / "people")))
    path = folder / "people.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "person", "split"])
        for split, table in (("train", data.train), ("test", data.test)):
            assert table is not None
            assert table.paths is not None
            assert table.labels is not None
            assert table.persons is not None
            for image, label, person in zip(table.paths, table.labels, table.persons, strict=True):
                writer.writerow([image.resolve(), label, person, split])
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("leak"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    data, split, model_args, own = arguments.data, None, {}, {}
    if data is None:
        data, split = built_in_table(arguments.folder), "split"
        sibling = SMALL_VARIANTS[arguments.arch]
        model_args, own = dict(sibling.arguments), dict(sibling.recipe)
    summaries = []
    for name, person in (("by-person", "person"), ("by-image", "path")):
        settings = Settings(data=data, person=person, split=split, arch=(arguments.arch,), k=arguments.k, name=name)
        recipe = Recipe(epochs=arguments.epochs, img_size="64", pretrained=False, model_args=model_args, **own)
        with printing_logs():
            trained = train_runs(build_plan(settings, recipe), resume=True, progress=TerminalProgress())
        summaries += trained.summaries
    print(results_table(summaries))


if __name__ == "__main__":
    main()
