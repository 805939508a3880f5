"""Draw evidence of several labels, and of numbers, for the tests of a report: people with several images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ensemble.report.evidence.evidence import Evidence, Part, Predicted, TableRecord
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction
from folds.predictions.label_columns import label_texts
from folds.predictions.links import kind_of

LABELS = ("hat", "glasses", "beard", "scar", "crown", "mole")
_SHARES = (0.45, 0.4, 0.25, 0.12, 0.03, 0.2)


def draw_labels(seed: int = 0, people: int = 60, per_person: int = 4, unknown: float = 0.1, **changed: Any) -> Evidence:
    """Return evidence of several labels: hats and glasses occur together, crowns are rare, moles are not seen."""
    random = np.random.default_rng(seed)

    def part(name: Any, first: int, count: int) -> Part:
        person = np.repeat(np.arange(first, first + count), per_person)
        own = random.random((count, len(LABELS))) < _SHARES
        own[:, 1] |= own[:, 0] & (random.random(count) < 0.5)
        truth = own[person - first].astype(float)
        truth[:, :2] = np.where(random.random((len(person), 2)) < 0.15, 1 - truth[:, :2], truth[:, :2])
        common = random.normal(size=(count, len(LABELS)))[person - first] * 0.7
        skill = np.array([2.4, 2.0, 1.6, 1.4, 1.0, 0.0])
        offset = np.log(np.array(_SHARES) / (1 - np.array(_SHARES)))
        values = [
            common + random.normal(size=truth.shape) * noise + skill * (2 * truth - 1) + offset for noise in (0.7, 1.2)
        ]
        labels = np.where(random.random(truth.shape) < unknown, np.nan, truth)
        return _part(name, person, per_person, labels, [1 / (1 + np.exp(-one)) for one in values])

    return _evidence(part("oof", 0, people), part("test", people, people // 2), LABELS, MULTILABEL, random, changed)


def draw_numbers(
    seed: int = 0, people: int = 60, per_person: int = 4, names: tuple[str, ...] = ("age",), **changed: Any
) -> Evidence:
    """Return evidence of numbers that are pulled to the middle, and too low in the south."""
    random = np.random.default_rng(seed)

    def part(name: Any, first: int, count: int) -> Part:
        person = np.repeat(np.arange(first, first + count), per_person)
        truth = np.round(random.uniform(18, 80, (count, len(names))), 1)[person - first]
        common = random.normal(size=(count, len(names)))[person - first] * 4
        south = (np.arange(len(person)) % 3 == 0)[:, None]
        values = [
            45 + 0.7 * (truth - 45) + common + random.normal(size=truth.shape) * noise - 4 * south for noise in (4, 7)
        ]
        labels = np.where(random.random(truth.shape) < 0.03, np.nan, truth)
        return _part(name, person, per_person, labels, values)

    return _evidence(part("oof", 0, people), part("test", people, people // 2), names, REGRESSION, random, changed)


def _part(name: Any, person: NDArray, per_person: int, labels: NDArray, values: list[NDArray]) -> Part:
    ids = np.array([f"{name}/p{one:03d}_{i % per_person}.jpg" for i, one in enumerate(person)])
    members = [Predicted(f"run{at}", "run", one.astype(np.float32), passes=1.0) for at, one in enumerate(values)]
    members.append(Predicted("blend soft", "blend", np.mean(values, axis=0).astype(np.float32), passes=2.0))
    fold = (person % 5).astype(np.int64) if name == "oof" else None
    return Part(name, ids, labels, np.array([f"p{one:03d}" for one in person]), fold, tuple(members))


def _evidence(
    oof: Part, test: Part, classes: tuple[str, ...], task: str, random: np.random.Generator, changed: dict[str, Any]
) -> Evidence:
    n = len(oof) + len(test)
    table = TableRecord(
        np.concatenate([oof.ids, test.ids]),
        label_texts(np.concatenate([oof.labels, test.labels]), classes, task),
        np.concatenate([oof.persons, test.persons]),
        np.arange(n) >= len(oof),
        attributes={
            "site": np.where(np.concatenate([np.arange(len(oof)), np.arange(len(test))]) % 3 == 0, "south", "north")
        },
        width=np.full(n, 512),
        height=np.full(n, 384),
        brightness=random.uniform(40, 200, n).astype(np.float32),
        sharpness=random.uniform(1, 30, n).astype(np.float32),
    )
    metric = "mae" if task == REGRESSION else "roc_auc"
    given: dict[str, Any] = {
        "recommended": "blend soft",
        "simple": "run0",
        "table": table,
        "task": task,
        "metric": metric,
    }
    return Evidence(classes, oof, test, **given | changed)


def write_table(root: Path, evidence: Evidence) -> Path:
    """Write a table with a column for each label or number, and images of one color."""
    lines = [",".join(["id", "path", *evidence.classes, "person", "split", "site"])]
    for part in (evidence.oof, evidence.test):
        assert part is not None
        for row, sample in enumerate(part.ids.tolist()):
            path = root / "images" / sample
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 10), (20 * (row % 12), 90, 60)).save(path)
            cells = ["" if np.isnan(value) else f"{value:g}" for value in part.labels[row].tolist()]
            split, site = "train" if part.name == "oof" else "test", "south" if row % 3 == 0 else "north"
            lines.append(",".join([sample, f"images/{sample}", *cells, str(part.persons[row]), split, site]))
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    return root / "table.csv"


def write_runs(runs: Path, evidence: Evidence) -> None:
    """Write the single runs of the evidence as prediction files, out of fold and of the test part."""
    runs.mkdir(parents=True, exist_ok=True)
    for part in (evidence.oof, evidence.test):
        assert part is not None
        rows = SampleRows(part.ids, label_texts(part.labels, evidence.classes, evidence.task), part.persons)
        test = part.name == "test"
        for one in part.members:
            if one.kind == "run":
                metadata = PredictionMetadata(
                    kind_of(evidence.task), part.name, evidence.classes, rows, fold=0 if test else part.fold,
                    run=one.name, arch="resnet18", task=evidence.task,
                )  # fmt: skip
                end = ".fold0.test.npy" if test else ".oof.npy"
                write_prediction(runs / f"{one.name}{end}", one.probabilities, metadata)
