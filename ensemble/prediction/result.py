"""Hold the predictions of new images with their score, decisions and provenance; show and write them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ensemble.cascade.fit import FittedCascade
from ensemble.decisions.decision import Decided, Decision
from ensemble.decisions.label_decision import AnyDecided, AnyDecision, DecidedLabels
from ensemble.decisions.number_decision import DecidedNumbers, NumberDecision
from ensemble.decisions.record import MeasuredValue
from ensemble.decisions.rows import IMAGE, PERSON
from ensemble.prediction.cascade import cascade_notes, cascade_record, check_cascade_alone
from ensemble.prediction.comparison import is_fitted, stated_procedure
from ensemble.prediction.decisions import decision_notes, scores_here
from ensemble.prediction.inputs import content_ids
from ensemble.prediction.interval_csv import interval_submission, writes_intervals
from ensemble.prediction.optimism import teacher_of
from ensemble.prediction.predict import SkippedImages
from ensemble.prediction.source import PredictionSource
from ensemble.prediction.verification import Verification
from folds.errors import EnsembleError, UsageError
from folds.metrics.classification import recorded_metric
from folds.metrics.grouping import average_by_person
from folds.metrics.label_scores import is_predicted
from folds.metrics.report import ScoreReport
from folds.metrics.task_names import COLUMN_TASKS, REGRESSION
from folds.predictions.files import write_prediction
from folds.predictions.label_columns import encode_labels, label_texts
from folds.predictions.links import answers_of
from folds.predictions.optimism import student_text
from folds.predictions.predictions import Predictions
from folds.predictions.reading import is_by_person
from folds.predictions.rows import SampleRows
from folds.predictions.submission import SET_FORM, submission
from folds.utils.display import Displayed, Table
from folds.utils.files import check_not_existing, check_not_folder, remove, write_atomic

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


NO_PERSONS = "one row per person needs the persons of the images, which are not known"


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
    verification : comparison with the test predictions that the training wrote, or of an exported model with its
        expected probabilities; None if it was not asked for.
    decision : rules for labels, abstention and sets, or thresholds of several labels; None for the most probable class,
        or the labels with a probability above .5.
    unit : ``image``, or ``person`` if each row is the mean of a person's images.
    cascade : the nested score of the cascade, if one was fitted.
    procedure : of models of all people, the out-of-fold score of the procedure that they are a result of.
    trained_on : images that models of the source were trained on, by their ids.
    formats : architecture → how it was computed: number format, reason, measured rates, difference from float32.
    work : folder of the predictions of each model, if it was kept (`clear_work`).
    paths : the files of the images, from whose content the random part of prediction sets is derived.
    spread : (n, columns) how much the runs of a blend of numbers differ; None of other models.
    """

    predictions: Predictions
    source: PredictionSource
    unreadable: SkippedImages
    passes: float
    score: ScoreReport | None
    verification: Verification | None = None
    decision: AnyDecision | None = None
    unit: str = IMAGE
    cascade: FittedCascade | None = None
    procedure: ScoreReport | None = None
    trained_on: int = 0
    formats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    work: Path | None = None
    paths: Sequence[Path] = ()
    spread: NDArray[np.float64] | None = None

    @property
    def difference(self) -> float | None:
        """Return the largest difference that the verification found; None without one."""
        return None if self.verification is None else self.verification.difference

    def clear_work(self) -> None:
        """Remove the work folder, after the result was written."""
        if self.work is not None:
            remove(self.work)

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def probabilities(self) -> np.ndarray:
        """Return (n, classes) float32 probabilities; of several labels one for each, of numbers the numbers."""
        return self.predictions.probabilities

    @property
    def task(self) -> str:
        """Return what the columns are, one of `folds.metrics.task_names.ALL_TASKS`."""
        return self.predictions.metadata.task

    @property
    def ids(self) -> np.ndarray:
        """Return (n,) the ids of the images."""
        return self.predictions.ids

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class of each column."""
        return self.predictions.classes

    @cached_property
    def decided(self) -> AnyDecided | None:
        """Return the labels and sets by the decision rules, or which of several labels are given; None without rules.

        Raises
        ------
        UsageError : the rules are for people, and the rows are images.
        """
        if self.decision is None:
            return None
        if self.decision.unit != self.unit:
            raise UsageError(
                f"the decision rules are for one row per {self.decision.unit}, found one row per {self.unit}",
                hint="by_person() gives one row per person" if self.unit == IMAGE else "predict without `per_person`",
            )
        if isinstance(self.decision, NumberDecision):
            return self.decision.apply(self.probabilities, spread=self.spread)
        if not isinstance(self.decision, Decision):
            return self.decision.apply(self.probabilities)
        rule, ids = self.decision.sets, self.ids.tolist()
        if rule is not None and rule.is_random and self.unit == IMAGE and self.paths:
            ids = content_ids(self.paths)
        return self.decision.apply(self.probabilities, ids=ids)

    @property
    def labels(self) -> np.ndarray:
        """Return (n,) the predicted classes: by the decision rules, else the most probable ones.

        Several labels are joined by ``;`` (``-`` for none): those of the rules, else those with a probability above .5.
        Numbers are texts.
        """
        decided = self.decided
        return answers_of(self.task, self.probabilities, self.classes) if decided is None else decided.labels

    def _refit_notes(self) -> list[str]:
        """Return whose score stands for models of all people."""
        procedure = ""
        if self.procedure is not None:
            nested = "nested " if is_fitted(self.source) else ""
            procedure = (
                f": the score of the procedure is its {nested}out-of-fold {self.procedure.metric} "
                f"{self.procedure.interval.text()}"
            )
            teacher = teacher_of(self.source)
            procedure += f" ({student_text(teacher)})" if teacher else ""
        elif self.source.kind == "model":
            procedure = stated_procedure(self.source)
        own = "" if self.score is not None else "; these models themselves were never tested on unseen people"
        return [f"predicted by models of all people{procedure}{own}"]

    def frame(self) -> pd.DataFrame:
        """Return the predictions as a DataFrame: id, one column per class, and the known labels and persons.

        With decision rules also ``decision`` (the class, or no answer; several labels or numbers in one text) and, with
        prediction sets, ``set``; of numbers ``<number>_low`` and ``<number>_high``.
        """
        frame, decided = self.predictions.frame(), self.decided
        if decided is None:
            return frame
        sets = _set_texts(decided)
        columns: dict[str, Any] = {"decision": decided.labels} | ({} if sets is None else {"set": sets})
        columns |= decided.interval_columns() if isinstance(decided, DecidedNumbers) else {}
        clash = next((name for name in columns if name in frame.columns), None)
        if clash is not None:
            raise UsageError(
                f"the class '{clash}' has the name of another column", hint="use `decided` and `predictions`"
            )
        return frame.assign(**columns)

    def csv(
        self, form: str | None = None, columns: Sequence[str] | None = None, like: str | Path | None = None
    ) -> bytes:
        """Return a CSV; see `folds.predictions.submission.submission`, and `interval_submission` of numbers."""
        decided = self.decided
        labels = None if decided is None else decided.labels.tolist()
        sets = None if form != SET_FORM else _set_texts(decided)
        sample = None if like is None else Path(like)
        if isinstance(decided, DecidedNumbers):
            return interval_submission(self.predictions, decided, form, columns, sample)
        writes_intervals(False, form, columns, like)
        return submission(self.predictions, form, columns, sample, labels, sets)

    def by_person(self) -> PredictedImages:
        """Return one row per person: the mean of the probabilities of the person's images, with the person as id.

        Raises
        ------
        UsageError : the persons are not known.
        """
        if self.unit == PERSON:
            return self
        persons, rows = self.predictions.persons, self.predictions.metadata.rows
        task = self.task
        check_cascade_alone(self.source, None, False, per_person=True)
        if persons is None:
            raise UsageError(NO_PERSONS, hint="predict a table with a column of persons")
        classes = len(self.classes)
        nothing = np.zeros(len(self), np.int64)
        _, values, names, _ = average_by_person(nothing, self.probabilities, persons, classes, task)
        labels = None
        if rows.labels is not None and task in COLUMN_TASKS:
            matrix: NDArray[Any] = encode_labels(rows.labels, self.classes, task)
            of_people: NDArray[Any] = average_by_person(matrix, self.probabilities, persons, classes, task)[0]
            labels = label_texts(of_people, self.classes, task)
        elif rows.labels is not None and {""} < {"", *rows.labels.tolist()} <= {"", *self.classes}:
            known = encode_labels(rows.labels, self.classes, task)
            codes = average_by_person(known, self.probabilities, persons, classes, task)[0]
            labels = np.where(codes >= 0, np.array(self.classes)[codes], "")
        people = np.array(names, dtype=str)
        metadata = replace(self.predictions.metadata, rows=SampleRows(people, labels, people), samples_sha=None)
        spread = self.spread
        if spread is not None:
            spread = average_by_person(nothing, spread, persons, classes, task)[1]
        return replace(self, predictions=Predictions(values.astype(np.float32), metadata), unit=PERSON, spread=spread)

    def decision_scores(self) -> list[MeasuredValue]:
        """Return what the decisions achieve on these images, over people; [] without rules or known labels."""
        decided = self.decided if self._has_decisions else None
        return [] if decided is None else scores_here(decided, self.predictions)

    @property
    def _has_decisions(self) -> bool:
        return self.decision is not None and self.decision.unit == self.unit

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``ensemble predict --json`` prints them."""
        record: dict[str, Any] = {"trained_on": self.trained_on} if self.trained_on else {}
        if self.source.refit:
            record |= {"refit": True, "procedure": None if self.procedure is None else self.procedure.to_dict()}
        return (
            record
            | {
                "source": self.source.name,
                "kind": self.source.kind,
                "models": [str(model.path) for model in self.source.models],
                "images": len(self),
                "classes": list(self.classes),
                **({"task": self.task} if self.task in COLUMN_TASKS else {}),
                "passes": self.passes,
                "unreadable": list(self.unreadable.problems),
                "score": None if self.score is None else self.score.to_dict(),
                "difference": self.difference,
                "verification": None if self.verification is None else self.verification.to_dict(),
                "cascade": cascade_record(self.source, self.cascade),
                "formats": {name: dict(one) for name, one in self.formats.items()},
            }
            | self._decision_record()
        )

    def _decision_record(self) -> dict[str, Any]:
        """Return the decision rules and the number of images with each label; {} without rules."""
        if self.decision is None:
            return {}
        record: dict[str, Any] = {"decision": self.decision.to_dict()}
        if self._has_decisions:
            record["decided"] = self._decided_counts()
            record["decision_scores"] = [score.to_dict() for score in self.decision_scores()]
        return record

    def _decided_counts(self) -> dict[str, int]:
        """Return answer → images that have it; of several labels, label → images; of numbers those with an answer."""
        if isinstance(self.decided, DecidedNumbers):
            return dict(zip(self.classes, (~self.decided.asked).sum(axis=0).tolist(), strict=True))
        if isinstance(self.decided, DecidedLabels):
            return dict(zip(self.classes, self.decided.given.sum(axis=0).tolist(), strict=True))
        names, counts = np.unique(self.labels, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def display_table(self) -> Table:
        """Return the table to display: images or people per predicted class, and the score if labels are known.

        Of several labels the images or people that have each of them, of numbers their mean and range.
        """
        if self.task in COLUMN_TASKS:
            return Table(self._title(), *self._columns_table(), tuple(self._notes()), left=1)
        decided = self.decided if self._has_decisions else None
        assert decided is None or isinstance(decided, Decided)  # noqa: S101 - others have another table
        codes = self.probabilities.argmax(axis=1) if decided is None else decided.codes
        confidence = self.probabilities.max(axis=1) if decided is None else decided.confidence
        names = list(enumerate(self.classes))
        if decided is not None and not decided.answered.all():
            names.append((-1, decided.decision.abstain_label))
        rows: list[list[object]] = []
        for i, name in names:
            inside = codes == i
            mean = f"{confidence[inside].mean():.3f}" if inside.any() else "–"
            rows.append([name, f"{inside.sum():,}", mean])
        return Table(self._title(), ["class", self._noun(), "mean confidence"], rows, tuple(self._notes()), left=1)

    def _title(self) -> str:
        return f"{len(self):,} {self._noun()} predicted by {self.source.kind} {self.source.name}"

    def _noun(self) -> str:
        """Return what a row is."""
        return "people" if self.unit == PERSON else "images"

    def _columns_table(self) -> tuple[list[str], list[list[object]]]:
        """Return the header and one row per label or number."""
        rows: list[list[object]] = []
        decided = self.decided if self._has_decisions else None
        given = decided.given if isinstance(decided, DecidedLabels) else is_predicted(self.probabilities)
        unsure = decided.unsure if isinstance(decided, DecidedLabels) else None
        widths = (decided.high - decided.low).mean(axis=0) if isinstance(decided, DecidedNumbers) else ()
        for at, (name, values, has) in enumerate(zip(self.classes, self.probabilities.T, given.T, strict=True)):
            if self.task == REGRESSION:
                measured = (values.mean(), values.min(), values.max(), *widths[at : at + 1])
                rows.append([name, *(f"{one:.4g}" for one in measured)])
            else:
                left = [] if unsure is None else [f"{unsure[:, at].sum():,}"]
                rows.append([name, f"{has.sum():,}", *left, f"{values.mean():.3f}"])
        if self.task == REGRESSION:
            return ["number", "mean", "lowest", "highest", *(["mean width"] if len(widths) else [])], rows
        return ["label", self._noun(), *([] if unsure is None else ["unsure"]), "mean probability"], rows

    def _notes(self) -> list[str]:
        """Return the lines below the table."""
        notes = self._decision_notes() + (self._refit_notes() if self.source.refit else [])
        if self.trained_on:
            worth = "no score is given" if self.source.refit else "a score is optimistic"
            notes.append(f"{self.trained_on:,} of the images were trained on (by their ids): {worth}")
        if self.score is not None:
            score = self.score
            whose = "" if self.decision is None else self._plain_answers(score.metric)
            accuracy = "" if self.task in COLUMN_TASKS else f", accuracy {score.accuracy:.3f}"
            people = " people" if self.unit == PERSON or is_by_person(self.predictions.metadata) else ""
            notes.append(f"{whose}{score.metric} {score.interval.text()}{accuracy} ({score.rows:,} labeled{people})")
            notes += [f"warning: {score.interval.warning}"] if score.interval.warning else []
            if self.predictions.persons is None:
                notes.append("persons are unknown: the 95% CI is over images, and too narrow if people have several")
        notes += cascade_notes(self.source, self.cascade, self.passes)
        if self.unreadable.rows:
            notes.append(f"{len(self.unreadable.rows):,} images cannot be used and are left out")
        notes += [] if self.verification is None else [self.verification.text()]
        return notes

    def _plain_answers(self, metric: str) -> str:
        """Return the answers that a score is of, where there are decision rules: it is not of those of the rules."""
        if self.task not in COLUMN_TASKS:
            return "most probable class: "
        found = recorded_metric(metric)
        return "labels above 0.5: " if found is not None and found.columns and found.columns.of_decisions else ""

    def _decision_notes(self) -> list[str]:
        if self.decision is None:
            return []
        return decision_notes(self.decision, self.decision_scores() if self._has_decisions else None)


def _set_texts(decided: AnyDecided | None) -> list[str] | None:
    """Return the texts of the prediction sets; None if there are none."""
    return decided.set_texts() if isinstance(decided, Decided) and decided.sets is not None else None


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


def check_csv_place(path: Path) -> None:
    """Raise EnsembleError if a CSV cannot be written because its folder does not exist, or it is one itself."""
    if not path.parent.is_dir():
        raise EnsembleError(f"`csv={path}`: folder {path.parent} does not exist", hint="create it, or name another one")
    check_not_folder(path)


def save_csv(content: bytes, path: Path, force: bool = False) -> None:
    """Write the bytes of a CSV.

    Raises
    ------
    EnsembleError : the file exists with other content and `force` is false, or its folder does not exist.
    """
    check_csv_place(path)
    if not (path.is_file() and path.read_bytes() == content):
        check_not_existing(path, "the file", force)
        write_atomic(path, content)
