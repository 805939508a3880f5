"""Build a tiny run of several labels or numbers, with two folds, as a training writes it: nothing is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from folds.data.readers import read_data
from folds.data.table import DataSpec
from folds.images.decode import decode_image
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.models.architecture import Architecture
from folds.models.checkpoint import Checkpoint, hash_ids, hash_labels, save_checkpoint
from folds.models.factory import create_model
from folds.models.inference import PixelSource, predict_logits
from folds.models.number_head import Units, set_units
from folds.predictions.files import PredictionMetadata, write_prediction
from folds.predictions.links import kind_of, predictions_of

NAMES = {MULTILABEL: ("hat", "glasses"), REGRESSION: ("age", "weight")}
PEOPLE, IMAGES, SIZE = 8, 3, 32
_HEADER = "path,person,hat,glasses,age,weight"


def write_table(root: Path) -> None:
    """Write ``train.csv``, ``test.csv`` and their images: 8 people and one other, three images each."""
    random = np.random.default_rng(0)
    (root / "img").mkdir(parents=True)
    lines: list[str] = []
    for person in range(PEOPLE + 1):
        for image in range(IMAGES):
            name = f"img/p{person}_{image}.png"
            Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(root / name)
            glasses = "" if (person, image) == (0, 0) else str(image % 2)  # one label is not known
            lines.append(f"{name},p{person},{person % 2},{glasses},{20 + 5 * person}.5,{60 + person + image}")
    (root / "train.csv").write_text("\n".join([_HEADER, *lines[:-IMAGES], ""]))
    (root / "test.csv").write_text("\n".join([_HEADER, *lines[-IMAGES:], ""]))


def write_run(
    root: Path, task: str, name: str, seed: int = 0, names: tuple[str, ...] = (), label: str | None = None
) -> None:
    """Write checkpoints, out-of-fold and test predictions of a run with random weights.

    Parameters
    ----------
    label : the column of the labels of a task with one label, whose classes are `names`.
    """
    names = names or NAMES[task]
    label = label or ",".join(names)
    data = {"data": str(root / "train.csv"), "path": "path", "label": label, "person": "person"}
    data |= {"id": None, "test": str(root / "test.csv"), "task": task}
    spec = DataSpec(root / "train.csv", test=root / "test.csv", label=label, person="person", task=task)
    read = read_data(spec)
    train, test = read.train, read.test
    assert test is not None
    assert train.labels is not None
    number = train.persons
    assert number is not None
    fold = np.array([int(one[1:]) % 2 for one in number.tolist()])
    mean = (0.5, 0.5, 0.5)
    head = {"head": "number"} if task == REGRESSION else {}
    arch = Architecture("test_resnet", "test_resnet.r160_in1k", SIZE, SIZE, mean, mean, {}, **head)
    oof = np.empty((len(train), len(names)), np.float32)
    shas = {}
    for i in range(2):
        torch.manual_seed(100 * seed + i)
        model = create_model(arch, len(names))
        torch.nn.init.normal_(model.get_classifier().weight, std=0.2)
        if task == REGRESSION:
            units = np.array([[40, 65], [12, 3]], np.float32)[:, : len(names)]
            set_units(model, Units(*units))
        rows = np.flatnonzero(fold == i)
        checkpoint = Checkpoint(
            run=name,
            fold=i,
            k=2,
            architecture=arch,
            weights=model.state_dict(),
            classes=names,
            class_attributes={},
            target="label",
            images={"height": SIZE, "width": SIZE, "fit": "squash", "window": None},
            data=data,
            recipe={"seed": 0, "task": task},
            amp="off",
            training_hashes=hash_ids(train.ids[fold != i].tolist()),
            validation_hashes=hash_ids(train.ids[rows].tolist()),
            folds_sha="f" * 64,
            versions={},
            labels_sha=hash_labels(hash_ids(train.ids[rows].tolist()), train.labels[rows].tolist()),
        )
        path = root / "checkpoints" / name / f"fold{i}.pt"
        shas[str(i)] = save_checkpoint(path, checkpoint)
        oof[rows] = _predicted(checkpoint, [train.paths[row] for row in rows.tolist()])  # type: ignore[index]
        values = _predicted(checkpoint, list(test.paths or ()))
        shared = {"classes": names, "task": task, "folds_sha": "f" * 64, "run": name}
        described = PredictionMetadata(
            kind_of(task), "test", rows=test.rows(), fold=i, checkpoint_sha=shas[str(i)], **shared
        )
        write_prediction(root / "runs" / f"{name}.fold{i}.test.npy", values, described)
    described = PredictionMetadata(kind_of(task), "oof", rows=train.rows(), fold=fold, checkpoint_sha=shas, **shared)
    write_prediction(root / "runs" / f"{name}.oof.npy", oof, described)


def _predicted(checkpoint: Checkpoint, paths: list[Path]) -> np.ndarray:
    pixels = np.stack([decode_image(path.read_bytes(), checkpoint.image_settings).pixels for path in paths])
    network, channels_last = checkpoint.build_on("cpu")
    arch = checkpoint.architecture
    source, rows = PixelSource(pixels, "cpu"), np.arange(len(pixels))
    outputs = predict_logits(network, source, rows, arch.mean, arch.std, device="cpu", channels_last=channels_last)
    return predictions_of(checkpoint.task, outputs[0])
