"""Write an average of models as a run: checkpoints, predictions, the record of the run, and what it was made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.metrics.confusion import accuracy, argmax_classes, macro_f1
from folds.metrics.task_names import COLUMN_TASKS
from folds.models.checkpoint import save_checkpoint
from folds.predictions.file_names import FOLD_DONE, RUN_CONFIG
from folds.predictions.files import PredictionMetadata, oof_file, read_sidecar, write_prediction
from folds.runs.soup_models import SoupModels
from folds.training.scores import column_scores
from folds.utils.files import read_json, remove, write_atomic, write_json
from folds.utils.toml import toml_value

RECORD = "soup.json"


def write_soup(
    models: SoupModels, name: str, chosen: Mapping[int, tuple[str, ...]], record: Mapping[str, Any], force: bool
) -> None:
    """Write the run: the folder last, so that a run that is there is complete.

    Parameters
    ----------
    chosen : fold → the runs that are averaged.
    record : content of ``soup.json``.
    force : whether a run of this name is replaced.

    Raises
    ------
    EnsembleError : the record of the first run is missing.
    """
    root, runs = models.root, models.root / "runs"
    base = runs / models.runs[0]
    config = _config(base / RUN_CONFIG, name, models.runs)
    sidecar = read_sidecar(oof_file(runs, models.runs[0]))
    if sidecar is None:
        raise EnsembleError(f"{oof_file(runs, models.runs[0])} has no sidecar", hint="ensemble kfold --resume")
    if force:
        _remove(root, name)
    folder, checkpoints = runs / name, root / "checkpoints" / name
    checkpoints.mkdir(parents=True, exist_ok=True)
    shas: dict[int, str] = {}
    tests: dict[int, NDArray[np.float32]] = {}
    test = models.data.test
    pixels = None if test is None else models.pixels(test)
    for fold in models.folds:
        checkpoint = replace(models.model(fold, chosen[fold]), run=name)
        shas[fold] = save_checkpoint(checkpoints / f"fold{fold}.pt", checkpoint)
        if test is not None and pixels is not None:
            tests[fold] = models.predict(checkpoint, pixels, np.arange(len(test)))
    _write_predictions(models, name, chosen, sidecar, shas, tests)
    for fold in models.folds:
        _write_fold(models, folder / f"fold{fold}", fold, chosen[fold], shas[fold], tests.get(fold))
    for file in ("folds.csv", "folds.json", "environment.json"):
        if (base / file).is_file():
            write_atomic(folder / file, (base / file).read_bytes())
    write_json(folder / RECORD, dict(record))
    write_atomic(folder / RUN_CONFIG, config)


def _config(path: Path, name: str, runs: tuple[str, ...]) -> str:
    """Return the record of the first run under the new name, with the names of all runs among the resolved values."""
    if not path.is_file():
        raise EnsembleError(f"{path} does not exist", hint="a soup needs the records of its runs")
    text = path.read_text(encoding="utf-8")
    head, found, rest = text.partition("\n[resolved]\n")
    line = f"name = {toml_value(name)}"
    head, count = re.subn(r"(?m)^name = .*$", lambda match: line, head)
    if not found or count != 1:
        raise EnsembleError(f"{path} is not the record of a run", hint="train the run again")
    return f"{head}{found}soup = {toml_value(list(runs))}\n{rest}"


def _remove(root: Path, name: str) -> None:
    runs = root / "runs"
    remove(runs / name)
    remove(root / "checkpoints" / name)
    remove(runs / "tta" / name)
    for folder in (runs, runs / "tta"):
        for path in [*folder.glob(f"{name}.oof.*"), *folder.glob(f"{name}.fold*.test.*")]:
            remove(path)


def _write_predictions(
    models: SoupModels,
    name: str,
    chosen: Mapping[int, tuple[str, ...]],
    sidecar: PredictionMetadata,
    shas: Mapping[int, str],
    tests: Mapping[int, NDArray[np.float32]],
) -> None:
    table, runs = models.data.train, models.root / "runs"
    index = np.concatenate([models.rows[fold] for fold in models.folds])
    folds = np.concatenate([np.full(len(models.rows[fold]), fold) for fold in models.folds])
    order = np.argsort(index, kind="stable")
    shared = replace(
        sidecar,
        rows=table.rows().take(index[order]),
        fold=folds[order],
        run=name,
        checkpoint_sha={str(fold): sha for fold, sha in shas.items()},
        samples_sha=None,
    )
    write_prediction(oof_file(runs, name), models.together(chosen)[order], shared, samples=table.rows())
    test = models.data.test
    for fold, values in tests.items():
        assert test is not None  # noqa: S101 - there are test predictions
        one = replace(shared, split="test", rows=test.rows(), fold=fold, checkpoint_sha=shas[fold])
        write_prediction(runs / f"{name}.fold{fold}.test.npy", values, one, samples=test.rows())


def _write_fold(
    models: SoupModels, folder: Path, fold: int, some: tuple[str, ...], sha: str, test: NDArray[np.float32] | None
) -> None:
    """Write the predictions of a fold and, last, its done.json; the cost is that of all averaged models."""
    values, labels = models.out_of_fold(fold, some), models.labels[models.rows[fold]]
    _save(folder / "oof.npy", values)
    if test is not None:
        _save(folder / "test.npy", test)
    done = [read_json(models.root / "runs" / run / f"fold{fold}" / FOLD_DONE) for run in some]
    task = models.first.task
    if task in COLUMN_TASKS:
        scores: dict[str, Any] = {"scores": column_scores(task, labels, values, models.metric.name)}
    else:
        predicted = argmax_classes(values)
        scores = {"macro_f1": macro_f1(labels, predicted, values.shape[1]), "accuracy": accuracy(labels, predicted)}
    record = {
        **{name: value for name, value in done[0].items() if name != "scores"},
        "run": folder.parent.name,
        **scores,
        "epochs": sum(int(one["epochs"]) for one in done),
        "seconds": sum(float(one["seconds"]) for one in done),
        "optimistic": any(bool(one.get("optimistic")) for one in done),
        "checkpoint_sha": sha,
        "soup": list(some),
    }
    write_json(folder / FOLD_DONE, record)


def _save(path: Path, values: NDArray[np.float32]) -> None:
    write_atomic(path, lambda file: np.save(file, values, allow_pickle=False))
