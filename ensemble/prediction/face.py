"""`ensemble.predict`: predict new images with a checkpoint, a run or a blend."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble.prediction.predict import SkippedImages, check_source, predict_table
from ensemble.prediction.source import PredictionSource, load_source
from ensemble.prediction.submission import ID_FORMS, submission
from folds.data.image_folder import is_image
from folds.data.readers import not_there, read_test
from folds.data.table import DataSpec, RawColumns, SampleTable, build_table
from folds.errors import EnsembleError, UsageError
from folds.metrics.grouping import average_by_person
from folds.metrics.report import ScoreReport
from folds.models.checkpoint import hash_ids
from folds.predictions.files import LABEL, PredictionMetadata, fold_files, oof_file, refit_file, write_prediction
from folds.predictions.predictions import Predictions, mean_of_folds, read_predictions
from folds.predictions.reading import score_rows
from folds.predictions.rows import SampleRows
from folds.utils.arguments import FLAG, FOLDS, NAME, PATH, PROGRESS, check_arguments, whole
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.display import Displayed, Table
from folds.utils.files import check_not_existing, check_not_folder, write_atomic
from folds.utils.progress import Progress
from folds.utils.schema import either, named, optional

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_KINDS = {
    "what": PATH,
    "root": PATH,
    "device": named(either(NAME, whole(0)), "auto, cpu, or the number of a GPU"),
    "progress": PROGRESS,
    "fold": optional(named(either(NAME, FOLDS), f"{FOLDS.expected}, or 'all'")),
    **dict.fromkeys(("per_person", "skip_unreadable", "verify", "refit"), FLAG),
}
FOLDER = Path("runs/predict")
TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class PredictedImages(Displayed):
    """The predictions of new images.

    Attributes
    ----------
    predictions : probabilities with ids and classes, in the order of the images.
    source : what predicted.
    unreadable : images that were left out.
    passes : forward passes per image, on average.
    score : score against the labels of the table; None if it has none.
    difference : largest difference from the test predictions that the training wrote, if that was checked.
    procedure : of models of all people, the out-of-fold score of the procedure that they are a result of.
    trained_on : images that models of the source were trained on, by their ids.
    """

    predictions: Predictions
    source: PredictionSource
    unreadable: SkippedImages
    passes: float
    score: ScoreReport | None
    difference: float | None = None
    procedure: ScoreReport | None = None
    trained_on: int = 0

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def probabilities(self) -> np.ndarray:
        """Return (n, classes) float32 probabilities."""
        return self.predictions.probabilities

    @property
    def ids(self) -> np.ndarray:
        """Return (n,) the ids of the images."""
        return self.predictions.ids

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class of each column."""
        return self.predictions.classes

    @property
    def labels(self) -> np.ndarray:
        """Return (n,) the predicted classes."""
        return np.array(self.classes)[self.probabilities.argmax(axis=1)]

    def _refit_notes(self) -> list[str]:
        """Return whose score stands for models of all people."""
        procedure = ""
        if self.procedure is not None:
            nested = "nested " if self.source.kind == "blend" else ""
            procedure = (
                f": the score of the procedure is its {nested}out-of-fold {self.procedure.metric} "
                f"{self.procedure.interval.text()}"
            )
        own = "" if self.score is not None else "; these models themselves were never tested on unseen people"
        return [f"predicted by models of all people{procedure}{own}"]

    def frame(self) -> pd.DataFrame:
        """Return the predictions as a DataFrame: id, one column per class, and the known labels and persons."""
        return self.predictions.frame()

    def csv(
        self, form: str | None = None, columns: Sequence[str] | None = None, like: str | Path | None = None
    ) -> bytes:
        """Return a CSV; see `ensemble.prediction.submission.submission`."""
        return submission(self.predictions, form, columns, None if like is None else Path(like))

    def by_person(self) -> PredictedImages:
        """Return one row per person: the mean of the probabilities of the person's images, with the person as id.

        Raises
        ------
        UsageError : the persons are not known.
        """
        persons, rows = self.predictions.persons, self.predictions.metadata.rows
        if persons is None:
            raise UsageError(
                "one row per person needs the persons of the images, which are not known",
                hint="predict a table with a column of persons",
            )
        classes = len(self.classes)
        nothing = np.zeros(len(self), np.int64)
        _, values, names, _ = average_by_person(nothing, self.probabilities, persons, classes)
        labels = None
        if rows.labels is not None:
            code = {name: i for i, name in enumerate(self.classes)}
            known = np.array([code.get(name, -1) for name in rows.labels.tolist()])
            if (known >= 0).all():
                codes = average_by_person(known, self.probabilities, persons, classes)[0]
                labels = np.array(self.classes)[codes]
        people = np.array(names, dtype=str)
        metadata = replace(self.predictions.metadata, rows=SampleRows(people, labels, people), samples_sha=None)
        return replace(self, predictions=Predictions(values.astype(np.float32), metadata))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``ensemble predict --json`` prints them."""
        record: dict[str, Any] = {"trained_on": self.trained_on} if self.trained_on else {}
        if self.source.refit:
            record |= {"refit": True, "procedure": None if self.procedure is None else self.procedure.to_dict()}
        return record | {
            "source": self.source.name,
            "kind": self.source.kind,
            "models": [str(model.path) for model in self.source.models],
            "images": len(self),
            "classes": list(self.classes),
            "passes": self.passes,
            "unreadable": list(self.unreadable.problems),
            "score": None if self.score is None else self.score.to_dict(),
            "difference": self.difference,
        }

    def display_table(self) -> Table:
        """Return the table to display: images per predicted class, and the score if labels are known."""
        counts = np.bincount(self.probabilities.argmax(axis=1), minlength=len(self.classes))
        confidence = self.probabilities.max(axis=1)
        rows: list[list[object]] = []
        for i, name in enumerate(self.classes):
            inside = self.probabilities.argmax(axis=1) == i
            mean = f"{confidence[inside].mean():.3f}" if inside.any() else "–"
            rows.append([name, f"{counts[i]:,}", mean])
        title = f"{len(self):,} images predicted by {self.source.kind} {self.source.name}"
        notes = self._refit_notes() if self.source.refit else []
        if self.trained_on:
            worth = "no score is given" if self.source.refit else "a score is optimistic"
            notes.append(f"{self.trained_on:,} of the images were trained on (by their ids): {worth}")
        if self.score is not None:
            score = self.score
            notes.append(f"{score.metric} {score.interval}, accuracy {score.accuracy:.3f} ({score.rows:,} labeled)")
            notes += [f"warning: {score.interval.warning}"] if score.interval.warning else []
            if self.predictions.persons is None:
                notes.append("persons are unknown: the 95% CI is over images, and too narrow if people have several")
        if self.unreadable.rows:
            notes.append(f"{len(self.unreadable.rows):,} images cannot be used and are left out")
        if self.difference is not None:
            notes.append(
                f"largest difference from the test predictions of the training: {self.difference:.1e} "
                f"({'equal' if self.difference <= TOLERANCE else 'NOT equal'} within {TOLERANCE:.0e})"
            )
        return Table(title, ["class", "images", "mean confidence"], rows, tuple(notes), left=1)


def predict(
    what: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    spec: DataSpec | None = None,
    fold: int | Sequence[int] | str | None = None,
    refit: bool = False,
    per_person: bool = False,
    metric: str = "macro_f1",
    device: str | int = "auto",
    skip_unreadable: bool = False,
    verify: bool = False,
    root: str | Path = ".",
    progress: bool | Progress = True,
) -> PredictedImages:
    """Predict new images with a checkpoint, all folds of a run, or a blend.

    Each image is decoded once for all models of one input size. On the test images of its training, a blend gives its
    own test predictions. An interrupted call continues where it stopped.

    Parameters
    ----------
    what : path of a checkpoint, name of a run, or name, folder or ``blend.toml`` of a blend.
    images : a folder, a table (CSV, Parquet), an image, a pattern, or a list of images.
    spec : column names of a table (`folds.data.table.DataSpec`); its `data` is ignored.
    fold : of a run, the folds whose models predict, or ``"all"`` for its model of all people (``kfold`` with
        ``fold="all"``).
    refit : whether each run of a blend predicts with its model of all people instead of the models of its folds.
    per_person : whether to score people instead of images: the mean of the probabilities of a person's images.
    metric : metric of the score, if the table has labels.
    device : ``auto``, ``cpu``, or the number of a GPU.
    skip_unreadable : whether to leave out images that cannot be used.
    verify : whether to compare with the test predictions that the training wrote, for the images that have one.
    root : the folder that holds ``runs/`` and ``checkpoints/``.
    progress : False for no progress output.

    Raises
    ------
    EnsembleError : nothing of this name exists, a checkpoint was replaced, or images cannot be used.

    Examples
    --------
    >>> import ensemble as en
    >>> en.predict("swin", "new/", root="/nowhere")
    Traceback (most recent call last):
    ...
    folds.errors.EnsembleError: expected a checkpoint, a run or a blend, found 'swin'
    """
    log_in_notebook()
    check_arguments(locals(), _KINDS)
    root = Path(root)
    folds = [int(fold)] if isinstance(fold, Integral) else fold
    source = load_source(what, root, folds, refit)  # type: ignore[arg-type]
    table = images_table(images, source, spec)
    check_source(source, len(table))
    found = predict_table(
        source,
        table,
        work=root / ".ensemble" / "predict",
        device=str(device),
        skip_unreadable=skip_unreadable,
        progress=progress_of(progress),
    )
    kept = table if len(found.kept) == len(table) else table.take(found.kept)
    metadata = PredictionMetadata(
        kind="probability",
        split="test",
        classes=source.classes,
        rows=kept.rows(),
        target=source.target,
        class_attributes=source.class_attributes,
        run=source.name,
        arch="blend" if source.kind == "blend" else source.models[0].checkpoint.architecture.timm_name,
    )
    predictions = Predictions(found.probabilities, metadata)
    seen = _trained_on(source, predictions)
    if seen and source.refit and predictions.labels is not None:
        logger.warning(
            f"{seen:,} of {len(predictions):,} images have the id of an image that the models were trained on: no "
            "score is given (rename the ids if they are other images)"
        )
    score = None if seen and source.refit else _score(predictions, metric, per_person)
    procedure = _procedure(source, root, metric, per_person) if source.refit else None
    difference = _difference(source, predictions, root) if verify else None
    return PredictedImages(predictions, source, found.unreadable, found.passes, score, difference, procedure, seen)


def images_table(
    images: str | Path | Sequence[str | Path], source: PredictionSource, spec: DataSpec | None = None
) -> SampleTable:
    """Return the images as a table without the classes of the training where it has no labels.

    Raises
    ------
    EnsembleError : there are no such images, or a label is not a class of the training.
    """
    listed = [images] if isinstance(images, str | Path) else list(images)
    if not listed:
        raise UsageError("expected one image or more, found none", hint="name a folder, a table or images")
    classes = source.classes if source.target == LABEL else None
    if len(listed) == 1 and (Path(listed[0]).exists() or not any(mark in str(listed[0]) for mark in "*?[")):
        path = Path(listed[0])
        table, notes = read_test(
            path,
            None if spec is None else replace(spec, data=path),
            classes=classes,
            class_attributes=source.class_attributes,
        )
        for note in notes:
            logger.info(note)
        return table
    paths: list[Path] = []
    for one in listed:
        path = Path(one)
        if path.exists():
            paths.append(path)
            continue
        matches = sorted(_expand(path)) if any(mark in str(one) for mark in "*?[") else []
        if not matches:
            raise not_there(path)
        paths += [match for match in matches if match.is_file()]
    other = next((path for path in paths if path.is_dir() or not is_image(path.name)), None)
    if other is not None:
        raise UsageError(f"expected images, also found {other}", hint="name one folder or table, or images only")
    names = [path.as_posix() for path in paths]
    locations = [f"{name}" for name in names]
    columns = RawColumns("the images", names, locations, [path.absolute() for path in paths])
    return build_table(columns, training=False, classes=classes)


def _expand(pattern: Path) -> Iterable[Path]:
    root = Path(pattern.anchor)
    return root.glob(str(pattern.relative_to(root)))


def _score(predictions: Predictions, metric: str, per_person: bool) -> ScoreReport | None:
    rows = predictions.metadata.rows
    if predictions.labels is None:
        return None
    known = set(predictions.classes)
    if not set(predictions.labels.tolist()) <= known:
        return None
    if per_person and rows.persons is None:
        raise UsageError("scores per person need the persons of the images", hint="predict a table with persons")
    return score_rows(predictions.probabilities, predictions.metadata, metric, per_person)


def _trained_on(source: PredictionSource, predictions: Predictions) -> int:
    """Return how many images have the id of an image that a model was trained on."""
    trained = {one for model in source.models for one in model.checkpoint.training_hashes}
    return sum(one in trained for one in hash_ids(predictions.ids.tolist()))


def _procedure(source: PredictionSource, root: Path, metric: str, per_person: bool) -> ScoreReport | None:
    """Return the out-of-fold score of the run or the blend; None if its out-of-fold predictions are not there."""
    path = oof_file(root / "runs", source.runs[0].name) if source.folder is None else source.folder / "oof.npy"
    found = read_predictions(path) if path.is_file() else None
    return None if found is None else _score(found, metric, per_person)


def _difference(source: PredictionSource, predictions: Predictions, root: Path) -> float:
    """Return the largest difference from the test predictions that the training or the blend wrote, by id.

    Raises
    ------
    EnsembleError : there are none, or no image has one.
    """
    before = _stored_predictions(source, root)
    if before is None:
        raise EnsembleError(
            f"`verify` needs the test predictions of {source.name}, and there are none",
            hint="verify what was trained or blended with test images",
        )
    rows: list[tuple[int, int]] = []
    for key in ID_FORMS:
        ours, theirs = list(map(key, predictions.ids.tolist())), list(map(key, before.ids.tolist()))
        position = {name: row for row, name in enumerate(theirs)}
        unique = len(position) == len(theirs) and len(set(ours)) == len(ours)
        rows = [(row, position[name]) for row, name in enumerate(ours) if name in position] if unique else []
        if rows:
            break
    if not rows:
        raise EnsembleError(
            f"none of the images is a test image of {source.name}, e.g. '{predictions.ids[0]}' is not",
            hint="`verify` compares the test images of the training: predict the same table",
        )
    mine, stored = map(list, zip(*rows, strict=True))
    columns = [before.classes.index(name) for name in predictions.classes]
    return float(np.abs(predictions.probabilities[mine] - before.probabilities[stored][:, columns]).max())


def _stored_predictions(source: PredictionSource, root: Path) -> Predictions | None:
    """Return the test predictions that the training or the blend wrote; None if there are none."""
    if source.folder is not None or source.refit:
        # A blend of models of all people has no test predictions of its own.
        path = refit_file(root / "runs", source.runs[0].name) if source.folder is None else source.folder / "test.npy"
        return read_predictions(path) if path.is_file() and not (source.refit and source.folder) else None
    files = fold_files(root / "runs", source.runs[0].name)
    return mean_of_folds([files[fold] for fold in source.runs[0].folds if fold in files])


def save(found: PredictedImages, path: Path, force: bool = False) -> Path:
    """Write the prediction file and its sidecar; return its path.

    Raises
    ------
    EnsembleError : the file exists and `force` is false.
    """
    path = path if path.suffix == ".npy" else path.with_name(f"{path.name}.npy")
    check_not_folder(path)
    check_not_existing(path, "the file", force)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_prediction(path, found.probabilities, found.predictions.metadata)


def save_csv(content: bytes, path: Path, force: bool = False) -> None:
    """Write the bytes of a CSV.

    Raises
    ------
    EnsembleError : the file exists with other content and `force` is false, or its folder does not exist.
    """
    if not path.parent.is_dir():
        raise EnsembleError(f"`csv={path}`: folder {path.parent} does not exist", hint="create it, or name another one")
    check_not_folder(path)
    if not (path.is_file() and path.read_bytes() == content):
        check_not_existing(path, "the file", force)
        write_atomic(path, content)
