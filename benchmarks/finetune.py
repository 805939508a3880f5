"""Measure the defaults for fine-tuning: small models are pretrained on one population and fine-tuned on another.

Pretrained weights of real images are not needed: a small ResNet18 and a small Swin learn the mask and the age of
synthetic people (seed 101), then the gender of a few other people (seed 202) with different settings. Each setting is
trained with several seeds on the same folds. The score is the out-of-fold macro F1, averaged over the seeds; a
difference has a 95% CI over people, paired: a person is left out of both.

    python benchmarks/finetune.py                       all settings of `SETTINGS`
    python benchmarks/finetune.py --only former,ema     some of them
    python benchmarks/finetune.py --quick               a minute, to see that it works

Interrupted, the same command continues.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import folds
from folds.data.readers import read_data
from folds.data.synthetic.people import generate_people
from folds.data.table import DataSpec
from folds.metrics.confusion import argmax_classes, macro_f1
from folds.metrics.intervals import jackknife_standard_error, t_interval
from folds.models.model_names import SMALL_SIZE, SMALL_VARIANTS
from folds.utils.toml import toml_value

ARCHS = ("resnet18", "swin")
FORMER = {"lr": 2e-4, "layer_decay": 1.0, "ema": 0.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "former": FORMER,
    "table": {},  # the defaults of the program, which has a row for models this small
    "literature": {},  # the row of the table for larger models of the family, see `LARGER`
    "rate-3e-3": FORMER | {"lr": 3e-3},
    "ema": FORMER | {"lr": 1e-3, "ema": 0.99},
}
LARGER = {"resnet18": FORMER | {"lr": 5e-4}, "swin": FORMER | {"lr": 1e-4, "layer_decay": 0.9}}


def table(folder: Path, people: int, seed: int, label: Sequence[str]) -> Path:
    """Write synthetic people as a CSV whose label joins some of their attributes."""
    data = read_data(DataSpec(generate_people(folder / f"people{seed}", people=people, test_people=6, seed=seed))).train
    path = folder / f"people{seed}.csv"
    assert data.paths is not None
    assert data.persons is not None
    assert data.labels is not None
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "person", *(label if len(label) > 1 else ())])
        for image, code, person in zip(data.paths, data.labels.tolist(), data.persons.tolist(), strict=True):
            values = [data.class_attributes[code][name] for name in label]
            writer.writerow([image.resolve(), " ".join(values), person, *(values if len(label) > 1 else ())])
    return path


def pretrain(arguments: argparse.Namespace, root: Path, arch: str) -> Path:
    """Return the weights of a small model that knows the masks and ages of other people."""
    variant, name = SMALL_VARIANTS[arch], f"pretrained-{arch}"
    folds.kfold(
        str(table(root, arguments.pretraining_people, 101, ("mask", "age"))),
        name=name,
        arch=[variant.timm_name],
        model_args=dict(variant.arguments),
        img_size=str(SMALL_SIZE),
        pretrained=False,
        target="mask+age",
        holdout=0.1,
        epochs=arguments.pretraining_epochs,
        amp=arguments.amp,
        devices=arguments.devices,
        jobs=1,
        root=root,
        **dict(variant.recipe),
    )
    return root / "checkpoints" / name / "fold0.pt"


def fine_tune(arguments: argparse.Namespace, root: Path, arch: str, weights: Path, names: Sequence[str]) -> None:
    """Train all settings with all seeds on the same folds of few people."""
    variant = SMALL_VARIANTS[arch]
    lines = [f"model_args = {toml_value(dict(variant.arguments))}"]
    for name in names:
        settings = LARGER[arch] if name == "literature" else SETTINGS[name]
        lines += ["", "[[run]]", f'arch = "{variant.timm_name}"', f'name = "{arch}-{name}"']
        lines += [f"{key} = {toml_value(value)}" for key, value in settings.items()]
    config = root / f"{arch}.toml"
    config.write_text("\n".join([*lines, ""]))
    folds.kfold(
        str(table(root, arguments.people, 202, ("gender",))),
        config=config,
        img_size=str(SMALL_SIZE),
        init_weights=str(weights),
        k=arguments.k,
        seeds=arguments.seeds,
        epochs=arguments.epochs,
        amp=arguments.amp,
        devices=arguments.devices,
        jobs=1,
        root=root,
    )


def predicted(root: Path, run: str, seeds: int) -> tuple[list[NDArray[np.int64]], NDArray[np.int64], NDArray[Any]]:
    """Return the predicted classes of each seed, the labels and the persons of the same rows."""
    found, labels, persons = [], np.zeros(0, np.int64), np.zeros(0)
    for seed in range(seeds):
        oof = folds.load_run(run + (f"-s{seed}" if seed else ""), root=root).oof
        assert oof.labels is not None
        code = {name: i for i, name in enumerate(oof.classes)}
        labels = np.array([code[name] for name in np.asarray(oof.labels).tolist()])
        persons = np.asarray(oof.persons)
        found.append(argmax_classes(np.asarray(oof.probabilities)))
    return found, labels, persons


def mean_scores(
    runs: Sequence[NDArray[np.int64]], labels: NDArray[np.int64], persons: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the macro F1 averaged over seeds: of all people, then without each of them in turn."""
    people = np.unique(persons)
    keep = [np.ones(len(labels), bool), *(persons != person for person in people)]
    classes = int(labels.max()) + 1
    return np.array([np.mean([macro_f1(labels[rows], run[rows], classes) for run in runs]) for rows in keep])


def report(root: Path, arch: str, names: Sequence[str], seeds: int) -> list[str]:
    """Return the rows of the table: the score of each setting, and its paired difference from the first."""
    scores: Mapping[str, NDArray[np.float64]] = {
        name: mean_scores(*predicted(root, f"{arch}-{name}", seeds)) for name in names
    }
    first, rows = scores[names[0]], []
    for name in names:
        settings = folds.load_run(f"{arch}-{name}", root=root).config
        shown = f"lr {settings['lr']:g}, layer decay {settings['layer_decay']:g}, EMA {settings['ema']:g}"
        change, units = scores[name] - first, len(first) - 1
        error = np.array(jackknife_standard_error(change[1:], float(change[0])))
        low, high = (float(end) for end in t_interval(float(change[0]), error, units - 1, units, 0.95))
        difference = "" if name == names[0] else f"{change[0]:+.3f} | [{low:+.3f}, {high:+.3f}]"
        rows.append(f"| {arch} | {name} | {shown} | {scores[name][0]:.3f} | {difference or ' | '} |")
    return rows


def main() -> None:
    """Pretrain, fine-tune, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("finetune"), help="folder that everything is written to")
    parser.add_argument("--arch", default=",".join(ARCHS))
    parser.add_argument("--only", default=",".join(SETTINGS), help="settings to train; the first is the baseline")
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--pretraining-people", type=int, default=200)
    parser.add_argument("--pretraining-epochs", type=int, default=12)
    parser.add_argument("--amp", default="auto")
    parser.add_argument("--devices", default="cpu")
    parser.add_argument("--quick", action="store_true", help="few people, one epoch, two settings")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if arguments.quick:
        names = names[:2]
        arguments.people, arguments.pretraining_people, arguments.seeds, arguments.k = 12, 12, 1, 2
        arguments.epochs = arguments.pretraining_epochs = 1
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows: list[str] = []
    for arch in arguments.arch.split(","):
        weights = pretrain(arguments, arguments.folder, arch)
        fine_tune(arguments, arguments.folder, arch, weights, names)
        rows += report(arguments.folder, arch, names, arguments.seeds)
    print("| model | settings | | OOF macro F1 | difference | 95% CI, paired |\n|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
