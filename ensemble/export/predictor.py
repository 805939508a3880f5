"""`ensemble.load`: an exported model in memory that predicts images; usable from several threads at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensemble.decisions.decision import Decision
from ensemble.decisions.label_decision import AnyDecided, AnyDecision, DecidedLabels, LabelDecision
from ensemble.decisions.labels import ABSTAINED, THRESHOLDS, LabelRule
from ensemble.decisions.number_decision import DecidedNumbers, NumberDecision
from ensemble.decisions.rows import PERSON
from ensemble.export.inputs import ImageList, Problems, images_of, images_of_table
from ensemble.export.rows import needs_record, needs_text, sample_rows
from ensemble.model_files.reading import StoredModel, is_model, read_model
from ensemble.model_files.record import ModelRecord
from ensemble.pooling.people import people_rows
from ensemble.prediction.arrays import LoadedModels, check_expected
from ensemble.prediction.cascade import check_cascade_alone, loss_line
from ensemble.prediction.combine import combine_members
from ensemble.prediction.inputs import images_table
from ensemble.prediction.member_spread import member_spread
from ensemble.prediction.models import check_rows_compared
from ensemble.prediction.recorded import stack_of
from ensemble.prediction.source import source_of
from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError, unknown_name
from folds.metrics.arrays import check_same_index, names_of
from folds.metrics.grouping import average_by_person
from folds.metrics.intervals import Interval
from folds.metrics.label_scores import is_predicted
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, MULTILABEL, REGRESSION
from folds.models.inference import BATCH
from folds.predictions.label_columns import COLUMN_NAMES, label_texts
from folds.predictions.rows import SampleRows
from folds.utils.arguments import FLAG, NAME, PATH, check_arguments, described, whole
from folds.utils.display import Displayed, Table
from folds.utils.schema import either, named

if TYPE_CHECKING:
    import pandas as pd

DEVICE = named(either(NAME, whole(0)), "auto, cpu, or the number of a GPU")
_AT_ONCE = 4 * BATCH  # images decoded before they are predicted


class Predictor(Displayed):
    """An exported model that predicts images.

    It holds all networks in memory, and nothing in it changes after `load`, so threads can share it. The same images
    give the same probabilities, on one device and with one number of threads.

    Attributes
    ----------
    path : the folder or archive it was loaded from.
    difference : largest difference from the expected probabilities; None if they were not computed.
    """

    def __init__(self, model: StoredModel, device: str = "auto", verify: bool = True) -> None:
        self.path = model.path
        self._record = model.record
        self._source = source_of(model)
        self._models = LoadedModels(self._source, device)
        tolerance = model.record.expected["tolerance"]
        self.difference = check_expected(self._models, model.expected, tolerance) if verify else None

    @property
    def classes_(self) -> tuple[str, ...]:
        """Return the class of each column, as scikit-learn calls it."""
        return self._record.classes

    @property
    def score(self) -> Interval | None:
        """Return the score that the training stated: nested or out-of-fold; None if it is not known."""
        return _interval(self._record.score)

    @property
    def record(self) -> ModelRecord:
        """Return the content of ``model.toml``."""
        return self._record

    @property
    def device(self) -> str:
        """Return the device that predicts, as torch calls it."""
        return self._models.device

    @property
    def unit(self) -> str:
        """Return what a row of the answer is: ``image``, or ``person`` if the images of a person are pooled."""
        return self._record.unit

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Return the names of the columns that are needed beside the images; () for most models."""
        return self._record.extra_columns

    def predict_proba(
        self, images: Any, persons: ArrayLike | None = None, columns: Mapping[str, ArrayLike] | None = None
    ) -> NDArray[np.float32]:
        """Return (n, classes) float32 probabilities; the columns are `classes_`.

        A model for people (`unit`) returns (people, classes), in the order of their sorted names (``numpy.unique``):
        those of the column id of `predict_frame`.

        Parameters
        ----------
        images : a path, an array, a PIL image or the bytes of an image file, or a list of these; a DataFrame with a
            column ``path``; or the path of a folder or a table. Arrays are uint8, (height, width, 3), with transparency
            (height, width, 4), gray (height, width), or several images (n, height, width, 3). A model of chosen
            channels takes arrays with all channels of a file, one of a stack of files those of the stack.
        persons : (n,) the person of each image, as text or numbers (1.0 is ``1``), for a model for people, or one that
            predicts an image from all images of its person (``record.person_head``); by default the column of persons
            of a table.
        columns : mapping or DataFrame, name → (n,) values, for a model with `extra_columns`; by default those of a
            table. None, nan and an empty text are values that are not known; further columns are ignored.

        Raises
        ------
        UsageError : the images are of another type or shape, the combination needs more than one, the model predicts
            numbers, or persons or columns are missing, or are given to a model that does not use them.
        EnsembleError : images cannot be read, all of them in one error.
        """
        if self.task == REGRESSION:
            raise UsageError("a model of the task regression has no probabilities", hint="predict(images) has numbers")
        return self._predicted(images, persons, columns, drawn=False)[0]

    @property
    def task(self) -> str:
        """Return what the columns are, one of `folds.metrics.task_names.ALL_TASKS`."""
        return self._source.task

    @property
    def decision(self) -> AnyDecision | None:
        """Return the decision rules that were exported with the model; None if there are none."""
        return self._source.decision

    def decide(
        self, images: Any, persons: ArrayLike | None = None, columns: Mapping[str, ArrayLike] | None = None
    ) -> AnyDecided:
        """Return what the decision rules of the model say: labels or no answer, confidences, sets of classes.

        Of several labels, which of them are given; of numbers the intervals.

        Parameters
        ----------
        images, columns : see `predict_proba`.
        persons : (n,) the person of each image; rules for people average their images. A model for people, or with a
            head that needs persons, takes them as `predict_proba` does, and the persons of the result are theirs.

        Raises
        ------
        UsageError : the model has no decision rules, or they are for people and there are no `persons`.
        UsageError, EnsembleError : see `predict_proba`.
        """
        if self.decision is None:
            raise UsageError("the model has no decision rules", hint="export it with `threshold`, `abstain` or `sets`")
        return self._decided(self.decision, images, persons, columns)[0]

    def predict(
        self,
        images: Any,
        threshold: float | Mapping[str, float] | None = None,
        persons: ArrayLike | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
    ) -> NDArray[Any]:
        """Return (n,) the predicted classes, by the decision rules of the model if it has any.

        A model of several labels returns (n, labels) int64, 1 where a label is there and −1 where its rules are unsure,
        and one of numbers (n, numbers) float32, or (n,) for a single number: as scikit-learn does; nan where its rules
        leave one unanswered (`max_width`).

        Parameters
        ----------
        images, persons, columns : see `predict_proba`; a model for people has one answer per person, in the order of
            their sorted names. So has a model whose rules are for people: they decide about the mean of a person's
            images, and `persons` is given for them.
        threshold : for two classes, a number: the second class is predicted from this probability on. For any number of
            classes, class → probability from which on it is predicted: among the classes that reach theirs, the one
            that exceeds it by the largest factor; without one, the most probable class that has no threshold. Used in
            place of the decision rules of the model. Of several labels, the probability from which on each of them, or
            the named one, is there; others are there above .5. None for the rules of the model, else above .5.

        Raises
        ------
        UsageError : a threshold is not above 0 and at most 1, or not of a class; or it meets a cascade; or the rules of
            the model are for people, and no `persons` are given.
        """
        if (rules := self._rules_for_people(threshold, persons)) is not None:
            decided = self._decided(rules, images, persons, columns)[0]
            if isinstance(decided, DecidedLabels):
                return _codes(decided.answers())
            return self._numbers(decided.answers()) if isinstance(decided, DecidedNumbers) else decided.labels
        limits = self._thresholds(threshold)
        spreads: list[NDArray[np.float64] | None] = []
        # Labels have no random part.
        values, _, drawn = self._predicted(images, persons, columns, drawn=False, spreads=spreads)
        if self.task == MULTILABEL:
            return _codes(self._given(values, limits))
        if isinstance(self.decision, NumberDecision) and self.decision.max_widths:
            return self._numbers(self.decision.apply(values, spread=spreads[0]).answers())
        if self.task == REGRESSION:
            return self._numbers(values)
        return self._labels(values, drawn, limits)

    def predict_frame(
        self,
        images: Any,
        threshold: float | Mapping[str, float] | None = None,
        persons: ArrayLike | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
    ) -> pd.DataFrame:
        """Return a DataFrame with the columns id, prediction and one of probabilities per class.

        The prediction of several labels is their names, joined by ``;``; numbers have their own columns, and with
        intervals of the model ``<number>_low`` and ``<number>_high``.

        The id is the path of an image, its id in a table, or its number; of a model or of rules for people it is the
        person, whose probabilities are then the mean of the images.

        Raises
        ------
        UsageError, EnsembleError : see `predict`.
        """
        import pandas as pd

        if (rules := self._rules_for_people(threshold, persons)) is not None:
            decided, means = self._decided(rules, images, persons, columns)
            if isinstance(decided, DecidedNumbers):
                return decided.frame(decided.persons)
            frame = pd.DataFrame({"id": decided.persons, "prediction": decided.labels})
            return pd.concat([frame, pd.DataFrame(means, columns=list(self.classes_))], axis=1)
        limits = self._thresholds(threshold)
        spreads: list[NDArray[np.float64] | None] = []
        values, ids, drawn = self._predicted(images, persons, columns, drawn=False, spreads=spreads)
        frame = pd.DataFrame({"id": list(ids)})
        if isinstance(self.decision, NumberDecision):
            return self.decision.apply(values, spread=spreads[0] if spreads else None).frame(ids)
        if self.task == MULTILABEL:
            frame["prediction"] = label_texts(self._given(values, limits), self.classes_, MULTILABEL)
        elif self.task != REGRESSION:
            frame["prediction"] = self._labels(values, drawn, limits)
        return pd.concat([frame, pd.DataFrame(values, columns=list(self.classes_))], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: name, classes, scores, counts, models and the version that exported it."""
        record = self._record
        return {
            "path": str(self.path),
            "name": record.name,
            "program": record.program,
            "sha256": record.sha256,
            "target": record.target,
            "classes": list(record.classes),
            **({"task": self.task} if self.task in COLUMN_TASKS else {}),
            **needs_record(record),
            "precision": record.precision,
            "device": self.device,
            "models": [f"{model['run']} fold {model['fold']}" for model in record.models],
            "passes": sum(len(run.models) * len(run.merge.views) for run in record.runs),
            "score": dict(record.score) or None,
            "test_score": dict(record.test_score) or None,
            "trained": dict(record.trained),
            "difference": self.difference,
        }

    def display_table(self) -> Table:
        """Return the table to display: runs with architectures, folds and views, and the score."""
        record = self._record
        rows: list[list[object]] = []
        shares = dict(zip(record.combination.runs, record.combination.shares.tolist(), strict=True))
        for run in record.runs:
            arch = record.models[run.models[0]]["architecture"]["timm_name"] if run.models else "joined"
            weight = f"{shares[run.name]:.3f}" if run.name in shares else "–"
            rows.append([run.name, arch, len(run.models), len(run.merge.views) if run.models else 0, weight])
        people = record.trained.get("people")
        trained = f"{record.trained.get('images', 0):,} images" + (f" of {people:,} people" if people else "")
        columns = COLUMN_NAMES.get(self.task, "classes")
        notes = [f"{len(record.classes)} {columns}, trained on {trained}, exported by {record.program}"]
        notes += [f"answers for {needs_text(record)}"] if needs_record(record) else []
        if self.score is not None:
            notes.append(f"{record.score['metric']} {self.score} ({record.score['basis']})")
            notes += [f"warning: {record.score['warning']}"] if record.score.get("warning") else []
        cascade = self._source.cascade
        if cascade is not None:
            loss = "no decision changes" if cascade.loses_nothing else loss_line(cascade)
            notes.append(f"a cascade skips models that an image does not need: {loss}")
        if self.difference is not None:
            notes.append(f"largest difference from the expected probabilities: {self.difference:.1e}")
        return Table(f"model {record.name}", ["run", "architecture", "folds", "views", "weight"], rows, tuple(notes), 2)

    def _labels(self, values: NDArray[np.float32], ids: Sequence[str], limits: NDArray[np.float64]) -> NDArray[np.str_]:
        if isinstance(self.decision, Decision) and np.isnan(limits).all():
            return self.decision.apply(values, ids=ids).labels
        rule = LabelRule(THRESHOLDS, self.classes_, limits)
        return np.array(self.classes_)[rule.decide(np.asarray(values, np.float64))]

    def _given(self, values: NDArray[np.float32], limits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, labels) 1 where a label is there: from its limit on, by the rules, or above a half without one.

        nan where the rules are unsure, else 0.
        """
        if isinstance(self.decision, LabelDecision) and np.isnan(limits).all():
            return self.decision.apply(values).answers()
        return np.where(np.isnan(limits), is_predicted(values), values >= limits).astype(np.float64)

    def _check_images(self) -> None:
        """Raise UsageError if the rules of the model are for people, which single images are not."""
        if self.unit != PERSON and self.decision is not None and self.decision.unit == PERSON:
            raise UsageError(
                f"the decision rules of {self._record.name} are for people, and no persons are given",
                hint="`persons` gives one answer per person; predict_proba has the probabilities of images",
            )

    def _rules_for_people(self, threshold: Any, persons: ArrayLike | None) -> AnyDecision | None:
        """Return the rules of the model if they answer for people of whom it predicts the images, else None."""
        if self.unit == PERSON or self.decision is None or self.decision.unit != PERSON or threshold is not None:
            return None
        return self.decision if persons is not None or self._record.person_head is not None else None

    def _decided(
        self, rules: AnyDecision, images: Any, persons: Any, columns: Any
    ) -> tuple[AnyDecided, NDArray[np.float32]]:
        """Return the answers of the rules, and the predictions that they are of: of people the mean of their images."""
        if self.unit == PERSON:
            values, names, drawn = self._predicted(images, persons, columns)
            return rules.apply(values, names, drawn), values
        spreads: list[NDArray[np.float64] | None] = []
        if self._record.person_head is not None:
            values, _, drawn, rows = self._with_rows(images, persons, columns, spreads=spreads)
            persons = rows.persons if rules.unit == PERSON else None
        else:
            if persons is None:
                self._check_images()
            check_same_index({"`images`": images, "`persons`": persons})
            values, _, drawn = self._predicted(images, None, columns, spreads=spreads)
        if isinstance(rules, NumberDecision):
            decided: AnyDecided = rules.apply(values, persons, drawn, spreads[0])
        else:
            decided = rules.apply(values, persons, drawn)
        if rules.unit != PERSON:
            return decided, values
        codes = np.unique(names_of(persons, "persons", len(values)), return_inverse=True)[1]
        means = average_by_person(np.zeros(len(codes), np.int64), values, codes, values.shape[1], CLASSES)[1]
        return decided, means.astype(np.float32)

    def _numbers(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return numbers (n, columns) as scikit-learn does: (n,) of a single one."""
        found = values.astype(np.float32)
        return found[:, 0] if len(self.classes_) == 1 else found

    def _predicted(
        self,
        images: Any,
        persons: ArrayLike | None,
        columns: Any,
        drawn: bool = True,
        spreads: list[NDArray[np.float64] | None] | None = None,
    ) -> tuple[NDArray[np.float32], tuple[str, ...], tuple[str, ...]]:
        """Return the probabilities and the ids of images, and what the random part of their sets is derived from.

        Of a model for people the ids are the persons, from which the random part is derived.

        Parameters
        ----------
        drawn : whether the last is needed: if sets have a random part, the hash of the content of each image.
        spreads : gets how much the runs of a blend of numbers differ, (n, numbers), or None of other models.
        """
        return self._with_rows(images, persons, columns, drawn, spreads)[:3]

    def _with_rows(
        self,
        images: Any,
        persons: ArrayLike | None,
        columns: Any,
        drawn: bool = True,
        spreads: list[NDArray[np.float64] | None] | None = None,
    ) -> tuple[NDArray[np.float32], tuple[str, ...], tuple[str, ...], SampleRows]:
        """Return what `_predicted` returns, and the rows of the images."""
        others = any(one.channels or one.stack for one in self._models.settings)
        given = images_of(images, stack_of(self._source), others)
        if isinstance(given, Path):
            given = images_table(str(given), self._source)
        table = given if isinstance(given, SampleTable) else None
        if isinstance(given, SampleTable):
            given = images_of_table(given)
        rows = sample_rows(self._source, len(given), images, table, persons, columns)
        names, pooling = given.ids, self._source.combination.pooling
        if pooling is not None:
            names = tuple(people_rows(rows, self.classes_, "new", pooling).rows.ids.tolist())
        check_rows_compared(self._source, len(names))
        values = self._of_list(given, rows, spreads)
        sets = self.decision.sets if isinstance(self.decision, Decision) else None
        if pooling is not None:
            return values, names, names, rows
        contents = drawn and sets is not None and sets.is_random
        return values, given.ids, tuple(one() for one in given.contents) if contents else given.ids, rows

    def _of_list(
        self, images: ImageList, rows: SampleRows, spreads: list[NDArray[np.float64] | None] | None = None
    ) -> NDArray[np.float32]:
        parts: list[dict[str, NDArray[np.floating]]] = []
        skipping: list[NDArray[np.float32]] = []
        problems: Problems = []
        for start in range(0, len(images), _AT_ONCE):
            index = range(start, min(start + _AT_ONCE, len(images)))
            pixels, found = images.decoded(index, self._models.settings)
            problems += found
            if problems:  # after one, the others are only looked for
                continue
            if self._source.cascade is not None:
                skipping.append(self._models.cascaded(pixels))
            else:
                parts.append(self._models.outputs(pixels))
        if problems:
            raise images.refusal(problems)
        if skipping:
            if spreads is not None:
                spreads.append(None)
            return np.concatenate(skipping)
        outputs = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        members = self._models.with_people(outputs, rows.persons)
        if spreads is not None:
            spreads.append(member_spread(self._source, members))
        return combine_members(self._source, members, rows)

    def _thresholds(self, threshold: float | Mapping[str, float] | None) -> NDArray[np.float64]:
        """Return (classes,) the threshold of each class; nan for none."""
        limits = np.full(len(self.classes_), np.nan)
        if threshold is not None and self.task == REGRESSION:
            raise UsageError("`threshold` is for probabilities, and the task is regression", hint="leave it out")
        if threshold is None:
            self._check_images()
            return limits
        check_cascade_alone(self._source, None, rules=True)
        named = threshold
        if not isinstance(named, Mapping):
            if self.task == MULTILABEL:
                return np.full(len(limits), _probability(named))
            if len(limits) != 2:
                raise UsageError(
                    f"`threshold={threshold}` is a number, and there are {len(limits)} classes",
                    hint=f"name a class: `threshold={{'{self.classes_[0]}': .5}}`",
                )
            return np.array([np.nan, _probability(named)])
        for name, value in named.items():
            if name not in self.classes_:
                raise unknown_name("class", str(name), list(self.classes_))
            limits[self.classes_.index(name)] = _probability(value)
        return limits


def _codes(answers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the answers of several labels as whole numbers, −1 where the rules are unsure."""
    return np.where(np.isnan(answers), ABSTAINED, answers).astype(np.int64)


def _probability(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not 0 < value <= 1:
        raise UsageError(f"`threshold` must be a probability above 0 and at most 1, found {described(value)}")
    return float(value)


def _interval(score: Mapping[str, Any]) -> Interval | None:
    if not score:
        return None
    low, high = (float(score.get(name, np.nan)) for name in ("low", "high"))
    people = int(score.get("people") or 0)
    return Interval(
        float(score["score"]), low, high, level=score["level"], people=people, warning=score.get("warning") or ""
    )


def load(path: str | Path, device: str | int = "auto", verify: bool = True) -> Predictor:
    """Load an exported model, a folder or a ``.zip``; no code in it can run.

    The hash of every file is checked. The networks then predict the model's synthetic images, and the probabilities
    must be the expected ones.

    Parameters
    ----------
    device : ``auto`` (the first GPU, else the CPU), ``cpu``, or the number of a GPU.
    verify : whether to compute the expected probabilities again; hashes are checked in any case.

    Raises
    ------
    EnsembleError : it is not a model, something in it was changed, a newer version exported it, or its probabilities
        are not the expected ones.

    Examples
    --------
    >>> import ensemble as en
    >>> en.load("/nowhere/model")
    Traceback (most recent call last):
    ...
    folds.errors.EnsembleError: there is no model /nowhere/model
    """
    check_arguments(locals(), {"path": PATH, "device": DEVICE, "verify": FLAG})
    place = Path(path)
    if place.name == "model.toml":
        place = place.parent
    if place.exists() and not is_model(place):
        raise EnsembleError(
            f"{place} is not an exported model: it has no model.toml", hint="ensemble export BLEND -o model/ writes one"
        )
    return Predictor(read_model(place), str(device), verify)
