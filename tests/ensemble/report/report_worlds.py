"""Write small runs with images to a folder, as `ensemble kfold` and `ensemble tta` leave them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ensemble.report.evidence.evidence import Part, Predicted
from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction
from folds.utils.files import write_json
from tests.ensemble.report.evidence_worlds import draw_evidence


def write_world(root: Path, *, images: bool = True, runs: int = 3, views: bool = True, **drawn: Any) -> Path:
    """Write `runs` runs with a table and images; return the root."""
    evidence = draw_evidence(**{"people": 24, "per_person": 4, **drawn})
    assert evidence.oof is not None
    assert evidence.test is not None
    _write_table(root, evidence.oof, evidence.test, evidence.classes, images)
    for at in range(runs):
        name = f"run{at}"
        write_run(root / "runs", name, evidence.oof, evidence.oof.members[at], evidence.classes)
        write_run(root / "runs", name, evidence.test, evidence.test.members[at], evidence.classes)
        write_record(root / "runs" / name)
    if views:
        turned = Predicted("run0", "tta", _sharper(evidence.oof.members[0].probabilities))
        write_run(root / "runs" / "tta", "run0", evidence.oof, turned, evidence.classes, views=("none", "hflip"))
    return root


def _sharper(values: Any) -> Any:
    raised = values**1.1
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)


def write_run(
    runs: Path, name: str, part: Part, member: Predicted, classes: tuple[str, ...], views: tuple[str, ...] = ()
) -> Path:
    """Write the predictions of a run for one part."""
    runs.mkdir(parents=True, exist_ok=True)
    names = np.array(classes)
    rows = SampleRows(part.ids, names[part.labels], part.persons)
    test = part.name == "test"
    metadata = PredictionMetadata(
        "probability", part.name, classes, rows, fold=0 if test else part.fold, run=name, arch="resnet18", views=views
    )
    end = ".fold0.test.npy" if test else ".oof.npy"
    return write_prediction(runs / f"{name}{end}", member.probabilities, metadata)


def write_record(folder: Path, epochs: int = 10, folds: int = 5, **environment: str) -> None:
    """Write config.toml, histories and the other records of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(
        f'data = "table.csv"\narch = ["resnet18"]\nk = {folds}\nsplit = "split"\nname = "{folder.name}"\n'
    )
    write_json(folder / "environment.json", {"ensemble": "0.2.0", "torch": "2.11.0", **environment})
    for fold in range(folds):
        (folder / f"fold{fold}").mkdir(exist_ok=True)
        rows = [f"{one},{2 / one:.3f},0.001,1.5,{0.7 - 0.5 / one**2:.3f}" for one in range(1, epochs + 1)]
        text = "\n".join(["epoch,loss,lr,seconds,validation_macro_f1", *rows])
        (folder / f"fold{fold}" / "history.csv").write_text(text + "\n")
        write_json(
            folder / f"fold{fold}" / "done.json", {"fold": fold, "epochs": epochs, "seconds": 15.0, "optimistic": False}
        )


def _write_table(root: Path, oof: Part, test: Part, classes: tuple[str, ...], images: bool) -> None:
    lines, random = ["id,path,label,person,split,site"], np.random.default_rng(1)
    for part in (oof, test):
        for row, sample in enumerate(part.ids.tolist()):
            path = Path("images") / sample
            site = "north" if row % 3 else "south"
            split = "test" if part is test else "train"
            lines.append(f"{sample},{path},{classes[part.labels[row]]},{part.persons[row]},{split},{site}")
            if images:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                shade = random.integers(30, 220, 3)
                pixels = np.clip(shade + random.integers(-25, 25, (24, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / path)
    root.mkdir(parents=True, exist_ok=True)
    (root / "table.csv").write_text("\n".join(lines) + "\n")


def by_image(part: Part) -> Part:
    """Return a part whose folds split the images of people."""
    return replace(part, fold=np.arange(len(part)) % 5)
