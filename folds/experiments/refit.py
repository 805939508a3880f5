"""Read the model of a run that was trained on all people, and state whose score stands for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from folds.errors import EnsembleError
from folds.metrics.intervals import Interval
from folds.metrics.report import ScoreReport
from folds.predictions.file_names import FOLD_DONE
from folds.predictions.files import ALL, PredictionMetadata, read_array, read_sidecar, refit_file
from folds.predictions.reading import score_rows
from folds.utils.files import read_json
from folds.utils.schema import NUMBER, TEXT, integer, mapping_of, optional, validate_fields
from folds.utils.text import counted

_DONE = {"checkpoint_sha": TEXT, "seconds": NUMBER, "images": integer(), "epochs": integer(1)}
_DONE |= {"device": optional(TEXT), "threads": optional(integer(1))}
_REFIT = {"epochs": integer(1), "fold_epochs": mapping_of(integer(1)), "folds": mapping_of(TEXT)}


@dataclass(frozen=True)
class RefitSummary:
    """The model of a run that was trained on all people.

    Attributes
    ----------
    epochs : its epochs.
    fold_epochs : fold → the epochs that `epochs` follows from.
    seconds : training time.
    test : score of its test predictions; None without test images or without their labels.
    """

    run: str
    epochs: int
    fold_epochs: Mapping[int, int]
    seconds: float
    checkpoint_sha: str
    test: ScoreReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "epochs": self.epochs,
            "fold_epochs": {str(fold): epochs for fold, epochs in self.fold_epochs.items()},
            "seconds": self.seconds,
            "checkpoint_sha": self.checkpoint_sha,
            "test": None if self.test is None else self.test.to_dict(),
        }

    def lines(self, oof: Interval, title: str, folds: int) -> list[str]:
        """Return what is known about the score of the model, a line each.

        Parameters
        ----------
        oof : out-of-fold score of the run, by the metric with this title, over `folds` folds.
        """
        score = f"the OOF {title} of {counted(folds, 'fold')}, {oof.text()}, is the score of the procedure"
        own = (
            "this model itself was never tested on unseen people"
            if self.test is None
            else f"on the test images this model itself has {self.test.interval.text()}"
        )
        return [f"{self.run}, all people ({counted(self.epochs, 'epoch')}): {score}; {own}"]


def refit_done(folder: Path, folds: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """Return the content of ``runs/<run>/all/done.json``; None if no model was trained on all people.

    Parameters
    ----------
    folds : fold → hash of its checkpoint; a model that follows from other folds counts as none.

    Raises
    ------
    EnsembleError : the file is damaged.
    """
    path = folder / ALL / FOLD_DONE
    if not path.is_file():
        return None
    record = read_json(path)
    wrong = validate_fields(record, _DONE) or validate_fields(record.get("refit"), _REFIT)
    if wrong or not all(fold.isdecimal() for fold in record["refit"]["fold_epochs"]):
        raise EnsembleError(
            f"{path} is damaged: {wrong[0] if wrong else 'a fold is not a number'}",
            hint=f"rm -r {path.parent}, then `fold=all` trains this model again",
        )
    return dict(record) if folds is None or record["refit"]["folds"] == dict(folds) else None


def refit_predictions(runs: Path, run: str) -> tuple[np.ndarray, PredictionMetadata] | None:
    """Return the test predictions of the model of all people, and their metadata; None without them."""
    path = refit_file(runs, run)
    sidecar = read_sidecar(path) if path.is_file() else None
    return None if sidecar is None else (np.asarray(read_array(path)), sidecar)


def summarize_refit(
    run: str,
    folds: Mapping[str, str],
    runs: Path = Path("runs"),
    per_person: bool = False,
    metric: str = "macro_f1",
) -> RefitSummary | None:
    """Return what is known about the model of all people; None if there is none that follows from these folds.

    Parameters
    ----------
    folds : fold → hash of its checkpoint.
    """
    done = refit_done(runs / run, folds)
    if done is None:
        return None
    found = refit_predictions(runs, run)
    scored = found is not None and found[1].rows.labels is not None
    plan = done["refit"]
    return RefitSummary(
        run,
        plan["epochs"],
        {int(fold): epochs for fold, epochs in plan["fold_epochs"].items()},
        float(done["seconds"]),
        done["checkpoint_sha"],
        score_rows(found[0], found[1], metric, per_person) if scored and found is not None else None,
    )
