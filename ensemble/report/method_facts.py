"""Say how the scores of a report came about, for the methods of a paper: only what its files say; the rest is a gap."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.registry import FITTERS
from ensemble.report import method_runs as records
from ensemble.report.column_facts import answers_of, counts_text, unknown_cells
from ensemble.report.evidence import SOFT_VOTE, Evidence, Part, Predicted, RunRecord
from ensemble.report.image_table import people_per_class, texts_of
from ensemble.report.method_runs import Reader, by_run, listed, sentence, setting, to_state
from ensemble.report.people import extra_of
from ensemble.report.scoring import changed_note, direction, labeled
from ensemble.voting.vote import METHODS
from folds.metrics.custom import metric_of
from folds.metrics.resampling import N_RESAMPLES
from folds.metrics.task_names import COLUMN_TASKS, REGRESSION
from folds.utils.numeric import factorize, groups_in_several_folds
from folds.utils.text import counted

MAX_CLASSES = 8  # that are counted in a sentence
MAX_SENTENCES = 4  # about models that differ
MAX_VALUES = 12  # values of an attribute that are counted; more are numbers, or names of images
# Versions in environment.json that a paper names.
_SOFTWARE = {
    "ensemble": "ensemble",
    "python": "Python",
    "torch": "PyTorch",
    "timm": "timm",
    "torchvision": "torchvision",
    "numpy": "NumPy",
    "scikit-learn": "scikit-learn",
}

_DEVICES = {"cpu": "CPU", "cuda": "GPU (CUDA)"}


@dataclass(frozen=True)
class PartRows:
    """The images of the training or of the test part.

    Attributes
    ----------
    labels, persons : (n,) text; a label is "" where it is not known.
    attributes : attribute → (n,) text, "" where it is not known.
    persons_known : whether `persons` are people.
    whole : whether these are all images of the part, as a table has them, and not only those that are predicted.
    """

    labels: NDArray[np.str_]
    persons: NDArray[np.str_]
    attributes: Mapping[str, NDArray[np.str_]]
    persons_known: bool = True
    whole: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def people(self) -> int:
        """Return the number of people."""
        return len(np.unique(self.persons))

    @property
    def unlabeled(self) -> int:
        """Return the number of images without a label."""
        return int((self.labels == "").sum())


@dataclass(frozen=True, eq=False)
class Facts:
    """Sentences about the methods, each a complete text; "" where a subject does not apply."""

    evidence: Evidence

    @cached_property
    def train(self) -> PartRows | None:
        """Return the training images; None if they are not known."""
        return self._rows(False)

    @cached_property
    def test(self) -> PartRows | None:
        """Return the test images; None if there are none."""
        return self._rows(True)

    def _rows(self, test: bool) -> PartRows | None:
        table = self.evidence.table
        of_images = table is not None and (not table.of_predictions or self.evidence.pooled is not None)
        if table is not None and of_images and (table.test == test).any():
            kept = table.test == test
            attributes = {name: values[kept] for name, values in table.attributes.items()}
            persons = table.persons[kept]
            known = table.persons_known or bool((persons != table.ids[kept]).any())
            return PartRows(table.labels[kept], persons, attributes, known, whole=not table.of_predictions)
        part = self.evidence.image_part("test" if test else "oof")
        if part is None or not len(part):
            return None
        labels = texts_of(part, self.evidence.classes, self.evidence.task)
        return PartRows(labels, part.persons, {}, part.persons_known, whole=False)

    @property
    def parts(self) -> list[tuple[str, PartRows]]:
        """Return (name, images) of the parts that are known; the name says if it is only what is predicted."""
        found = []
        for name, predicted, rows in (("training", "out of fold", self.train), ("test", "test", self.test)):
            if rows is not None:
                found.append((name if rows.whole else predicted, rows))
        return found

    @cached_property
    def member(self) -> Predicted | None:
        """Return the predictions that the report suggests."""
        part = self.evidence.oof or self.evidence.test
        return None if part is None or self.evidence.recommended is None else part.member(self.evidence.recommended)

    @cached_property
    def blend(self) -> Mapping[str, Any] | None:
        """Return blend.json of what the report suggests; None if that is no saved blend."""
        name, record = self.evidence.blend_name, self.evidence.blend
        if record is None or self.member is None or self.member.kind != "blend" or self.member.name == SOFT_VOTE:
            return None
        return record if name is None or name == self.member.name else None

    @cached_property
    def made_of(self) -> list[str]:
        """Return the runs or files that the suggested predictions are made of; all runs if nothing is suggested."""
        member, part = self.member, self.evidence.oof or self.evidence.test
        if member is None or part is None:
            return list(self.evidence.runs)
        if member.name == SOFT_VOTE:
            return [one.name for one in part.members if one.kind == "run"]
        if member.kind != "blend":
            names = (member.name, member.name.partition(" (")[0])
            return [next((name for name in names if name in self.evidence.runs), member.name)]
        inputs = None if self.blend is None else self.blend.get("inputs")
        given = [one.get("run") for one in (inputs if isinstance(inputs, list) else ()) if isinstance(one, dict)]
        return list(self.weights) or list(dict.fromkeys(one for one in given if isinstance(one, str))) or [member.name]

    @cached_property
    def runs(self) -> list[RunRecord]:
        """Return the records of the runs that the suggested predictions are made of, as far as they are there."""
        return [self.evidence.runs[name] for name in self.made_of if name in self.evidence.runs]

    @property
    def unknown(self) -> str:
        """Return the gap about models without a record: files of other programs, or runs that are not there; or ""."""
        names = [f"`{name.replace(']', ')')}`" for name in self.made_of if name not in self.evidence.runs]
        return to_state(f"how {listed(names)} {'was' if len(names) == 1 else 'were'} trained") if names else ""

    def predictors(self) -> str:
        """Return what is predicted from: the images, and columns of the table that a blend uses."""
        extra = extra_of(self.blend)
        if not extra:
            return "The images are the only predictors."
        return (
            f"The predictors are the images and the columns {listed([f'`{one}`' for one in extra], 12)} of the table."
        )

    @property
    def all_recorded(self) -> bool:
        """Return whether all models that the suggested predictions are made of have a record."""
        return bool(self.runs) and len(self.runs) == len(self.made_of)

    @property
    def weights(self) -> dict[str, float]:
        """Return run → weight in the suggested blend, without those that do not take part."""
        listed_runs = None if self.blend is None else self.blend.get("runs")
        found = {}
        for one in listed_runs if isinstance(listed_runs, list) else ():
            weight = one.get("weight") if isinstance(one, dict) else None
            if isinstance(weight, int | float) and weight and isinstance(one.get("run"), str):
                found[one["run"]] = float(weight)
        return found

    # Data

    def data(self) -> str:
        """Return how many images of how many people and classes each part has."""
        if self.train is None:
            return to_state("numbers of images, people and classes")
        whole, counts = self.train.whole, self._counts(self.train)
        lines = [f"The training data were {counts}." if whole else f"The out-of-fold predictions are of {counts}."]
        if self.test is not None:
            whole, counts = self.test.whole, self._counts(self.test)
            lines.append(f"The test data were {counts}." if whole else f"The test predictions are of {counts}.")
        return " ".join([*lines, *self._not_read("images, people and classes of the whole data")])

    def _not_read(self, what: str) -> list[str]:
        """Return the gap for what only a table says, if none was read."""
        return [] if all(rows.whole for _, rows in self.parts) else [to_state(f"{what}: no table was read")]

    def _counts(self, rows: PartRows) -> str:
        people = f" of {counted(rows.people, 'person', 'people')}" if rows.persons_known else ""
        found = f"{counted(len(rows), 'image')}{people}"
        if rows.unlabeled == len(rows):
            return f"{found}, without labels"
        if self.evidence.has_columns:
            task, names = self.evidence.task, self.evidence.classes
            return found + counts_text(task, names, rows.labels, rows.persons, rows.persons_known)
        classes = {name: one for name, one in people_per_class(rows.labels, rows.persons).items() if name}
        total = counted(len(self.evidence.classes) or len(classes), "class", "classes")
        if len(self.evidence.classes) > MAX_CLASSES:
            counts = [classes.get(name, (0, 0))[0] for name in self.evidence.classes]
            return f"{found} in {total} of {min(counts):,} to {max(counts):,} images (table of the parts)"
        each = [
            f"{name}, {counted(images, 'image')}"
            + (f" of {counted(count, 'person', 'people')}" if rows.persons_known else "")
            for name in self.evidence.classes
            for images, count in [classes.get(name, (0, 0))]
        ]
        return f"{found} in {total} ({'; '.join(each)})"

    def totals(self) -> str:
        """Return the numbers of people and images of each part, in short."""
        found = []
        for name, rows in self.parts:
            people = f"{counted(rows.people, 'person', 'people')}, " if rows.persons_known else ""
            found.append(f"{name}: {people}{counted(len(rows), 'image')}")
        return " ".join([f"{'; '.join(found).capitalize()}.", *self._not_read("numbers of the whole data")])

    def source(self) -> str:
        """Return the gaps about the source of the data."""
        return to_state(
            "source and dates of the images, setting, inclusion and exclusion criteria, how images were acquired"
        )

    def reference(self) -> str:
        """Return the gap about the reference standard."""
        return to_state("reference standard: how labels were obtained, by whom, and their agreement")

    def missing(self) -> str:
        """Return how much is missing: labels, values of attributes, image files."""
        lines = []
        for name, rows in self.parts:
            if not rows.whole:  # what is not there at all cannot be counted in predictions
                name = f"predicted {'training' if name == 'out of fold' else name}"
            if rows.unlabeled:
                lines.append(f"{rows.unlabeled:,} of {counted(len(rows), f'{name} image')} had no label (not scored).")
            if self.evidence.has_columns:
                unknown = unknown_cells(self.evidence.task, self.evidence.classes, rows.labels)
                if unknown:
                    lines.append(f"Of the other {name} images, {unknown:,} single values were not known.")
            gaps = {one: int((values == "").sum()) for one, values in rows.attributes.items()}
            gaps = {one: absent for one, absent in gaps.items() if absent}
            for attribute, absent in list(gaps.items())[:MAX_VALUES]:
                lines.append(f"`{attribute}` was missing for {absent:,} of {counted(len(rows), f'{name} image')}.")
            if len(gaps) > MAX_VALUES:
                lines.append(f"{len(gaps) - MAX_VALUES} further attributes of {name} images had missing values.")
        gaps_left = self._not_read("what is missing in the data")
        if not lines and self.train is not None and not gaps_left:
            with_attributes = " and no value of an attribute" if self.train.attributes else ""
            lines.append(f"No label{with_attributes} was missing.")
        return " ".join([*lines, *self._files(), *gaps_left])

    def _files(self) -> list[str]:
        table, lines = self.evidence.table, []
        if table is None:
            return []
        if table.left_out:
            lines.append(f"Images left out because they could not be used: {table.left_out:,}.")
        if table.width is not None and self.evidence.paths:
            found = np.array([sample in self.evidence.paths for sample in table.ids.tolist()])
            unreadable = int((found & (table.width == 0)).sum())
            absent = len(found) - int(found.sum())
            if absent:
                lines.append(f"{counted(absent, 'image file')} could not be found for this report.")
            if unreadable:
                lines.append(f"{counted(unreadable, 'image file')} could not be read.")
            if not (absent or unreadable or table.left_out):
                lines.append("Every image file could be read.")
        if any(run.config.get("missing_persons") == "own" for run in self.runs):
            lines.append(f"Images without a person counted as a person of their own {to_state('how many')}.")
        return lines

    def changed(self) -> str:
        """Return which training labels were changed."""
        part, member = self.evidence.oof, self.member
        if part is None or member is None or not member.changed:
            return ""
        images = counted(len(member.changed), "image")
        if self.evidence.pooled is not None:
            images = f"images of {counted(len(member.changed), 'person', 'people')}"
        note = changed_note(part, member)
        scored = f" Its out-of-fold predictions are {note}, by the labels of the table." if note else ""
        return f"For `{member.name}` the training labels of {images} were replaced, softened or not learned.{scored}"

    # Split

    def split(self) -> str:
        """Return how the folds were made, and how large they are."""
        return " ".join(one for one in (self.unit(), self.assignment(), self._sizes()) if one)

    def unit(self) -> str:
        """Return the unit of the split, as it is in the predictions."""
        part = self.evidence.image_part("oof")
        if part is None or part.fold is None:
            return to_state("how the images were split, and whether a person is in several parts")
        if not part.persons_known:
            return f"The people are not known. {to_state('the unit of the split')}"
        predicted, k = len(np.unique(part.fold)), self.k
        if predicted == 1 and k in (None, 1):
            return "One part of the people was held out of the training and predicted."
        folds = counted(k or predicted, "fold")
        across = len(groups_in_several_folds(factorize(part.persons)[1], part.fold))
        if across:
            return (
                f"The images were split into {folds} by image, not by person: {counted(across, 'person', 'people')} of "
                f"{len(np.unique(part.persons)):,} had images in more than one fold."
            )
        some = f"; {predicted} of these {'was' if predicted == 1 else 'were'} predicted" if predicted < (k or 0) else ""
        return f"The images were split into {folds}, so that all images of a person were in one fold{some}."

    @property
    def k(self) -> int | None:
        """Return the number of folds that all runs record; None if they do not."""
        found = {run.folds.get("k", run.k) for run in self.runs}
        only = next(iter(found)) if len(found) == 1 else None
        return only if type(only) is int and only > 0 else None

    def assignment(self) -> str:
        """Return by which rule people were assigned to folds."""
        made: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        for run in self.runs:
            one = run.folds
            stratified = one.get("stratify")
            columns = tuple(map(str, stratified)) if isinstance(stratified, list) else ()
            made.setdefault((one.get("seed"), one.get("k"), one.get("repeat"), columns, bool(one.get("repair"))), one)
        if len(made) != 1 or None in next(iter(made))[:1]:
            what = "how people were assigned to folds, and by what they were stratified"
            return (
                to_state(what) if len(made) < 2 else f"The models used {len(made)} different splits. {to_state(what)}"
            )
        seed, k, repeat, columns, repaired = next(iter(made))
        task = self.evidence.task
        what = "class" if task not in COLUMN_TASKS else "ranges of the numbers" if task == REGRESSION else "labels"
        by = listed([what, *(f"`{one}`" for one in columns)], 12)
        if k == 1:
            return f"People were assigned to the two parts stratified by {by} (seed {seed})."
        if repeat:
            return f"The folds were partition {repeat} of several random ones, balanced by {by} (seed {seed})."
        more = ", and whole people were then moved between folds to balance them" if repaired else ""
        if self.evidence.has_columns:
            return f"Folds were stratified by {by} (seed {seed}){more}."
        return f"Folds were stratified by {by} (StratifiedGroupKFold, seed {seed}){more}."

    def _sizes(self) -> str:
        part = self.evidence.image_part("oof")
        if part is None or part.fold is None:
            return ""
        images, people = [], []
        for fold in np.unique(part.fold[part.fold >= 0]):
            images.append(int((part.fold == fold).sum()))
            people.append(len(np.unique(part.persons[part.fold == fold])))
        of_people = f" of {_span(people)} people" if part.persons_known else ""
        which = "The held-out part" if len(images) == 1 and self.k in (None, 1) else "A fold"
        return f"{which} had {_span(images)} images{of_people}." if images else ""

    def partition(self) -> str:
        """Return whether people of the test part are in the training part."""
        if self.test is None and self.train is not None:
            return f"No test predictions are in this report {to_state('whether there is a separate test set')}."
        if self.test is None or self.train is None or not (self.train.persons_known and self.test.persons_known):
            return to_state("whether test people are in the training data")
        shared = len(set(np.unique(self.test.persons).tolist()) & set(np.unique(self.train.persons).tolist()))
        if shared:
            return (
                f"{counted(shared, 'test person', 'test people')} had images in the training data as well, so that "
                "test scores are optimistic."
            )
        if not self.train.whole:
            gap = to_state("whether test people are in the training data: no table was read")
            return f"No test person is among the people who are predicted out of fold. {gap}"
        if not self.test.whole:
            return "No person of the test predictions was in the training data."
        return "No person of the test data was in the training data."

    # Models

    def models(self) -> str:
        """Return which models were trained, on inputs of which size, from which weights."""
        if not self.runs:
            return self.unknown or to_state("architecture, input size and initial weights of the models")
        lines = [f"{counted(len(self.runs), 'model was', 'models were')} trained."] if len(self.runs) > 1 else []
        lines += grouped(self.runs, _model_text, "were", "architecture, input size and initial weights")
        targets = [run for run in self.runs if records.target(run)]
        if targets:
            lines.append(
                f"Attributes were predicted by one head each ({by_run(targets, records.target, 'attributes')}); the "
                "probability of a class is the product of those of its values."
            )
        return self._with_unknown(" ".join(lines))

    def _with_unknown(self, text: str) -> str:
        return f"{text} {self.unknown}".strip()

    def preprocessing(self) -> str:
        """Return how images become inputs."""
        if not self.runs:
            return to_state("preprocessing of the images")
        return self._with_unknown(
            sentence("Images were {}.", by_run(self.runs, records.preprocessing, "preprocessing of the images"))
        )

    def initial_weights(self) -> str:
        """Return what the training starts from."""
        if not self.runs:
            return to_state("initial weights")
        return self._with_unknown(
            sentence("Training started from {}.", by_run(self.runs, records.initialization, "initial weights"))
        )

    def training(self) -> str:
        """Return how the models were trained."""
        if not self.runs:
            return to_state("training: epochs, optimizer, learning rate, batch size, loss, augmentation")
        return self._with_unknown(" ".join(grouped(self.runs, _training_text, "were", "settings of the training")))

    def selection(self) -> str:
        """Return how the final weights and the suggested model were chosen."""
        lines = []
        trained = [run for run in self.runs if not records.is_frozen(run)]
        if trained or not self.runs:
            kept = by_run(trained, records.selection, "which epoch was kept") if trained else ""
            lines.append(sentence("The weights were those of {}.", kept or to_state("which epoch was kept")))
        part = self.evidence.oof
        if part is not None and self.member is not None and len(part.members) > 1:
            lines.append(
                f"`{self.member.name}` was one of {len(part.members)} candidates "
                f"{to_state('whether it was chosen before the scores were seen')}."
            )
        lines.append(to_state("how settings were chosen"))
        return " ".join(lines)

    def prediction(self) -> str:
        """Return which models predict an image."""
        lines = []
        if self.evidence.oof is not None and self.evidence.oof.fold is not None:
            lines.append(
                "Each image was predicted by the model that was not trained on its fold, and these out-of-fold "
                "predictions were pooled."
                if self.all_recorded
                else to_state("whether each image was predicted by a model that was not trained on it")
            )
        if self.evidence.test is not None:
            numbers = {len(run.tested) for run in self.runs}
            if not self.all_recorded:
                lines.append(to_state("which models predicted the test images"))
            elif len(numbers) == 1 and min(numbers) > 1:
                lines.append(
                    f"Test images were predicted by the mean {answers_of(self.evidence.task)} of the models of "
                    f"{min(numbers)} folds."
                )
            elif numbers == {1}:
                lines.append("Test images were predicted by the model of one fold.")
            else:
                lines.append(to_state("which models predicted the test images"))
        if self.member is not None and self.member.kind == "tta":
            lines.append(f"Test-time augmentation: `{self.member.name}`, the mean over several views of each image.")
        if (pooled := self.evidence.pooled) is not None:
            how = "chosen by its nested score" if pooled.chosen else to_state("why this rule was chosen")
            lines.append(
                f"The predictions of the images of each person by a model were pooled by the rule `{pooled.rule}`, "
                f"{how}; what followed was fitted and scored for people."
            )
        return " ".join(lines)

    def ensembling(self) -> str:
        """Return how predictions of several models were combined, and how that was scored."""
        member = self.member
        if member is None:
            return ""
        if member.kind != "blend":
            return (
                "Different models were not combined."
                if self.all_recorded
                else to_state("whether predictions of several models were combined")
            )
        if member.name == SOFT_VOTE:
            what = answers_of(self.evidence.task)
            return f"The models were combined by the mean of their {what}, without fitting anything."
        if self.blend is None:
            return f"`{member.name}` combines several models {to_state('how')}."
        weights = ", ".join(f"`{name}` {weight:.3f}" for name, weight in list(self.weights.items())[:12])
        fitted = self.blend.get("fitted")
        if not isinstance(fitted, Mapping):
            method = records.text(self.blend.get("method"))
            given = weights or to_state("weights")
            return f"The models were combined by {_title(method, {})}, weights {given}; nothing was fitted."
        chosen, parts = records.text(fitted.get("chosen")), fitted.get("parts")
        lines = [
            f"The models were combined by {_title(chosen, fitted)}" + (f" (weights: {weights})." if weights else ".")
        ]
        nested = f"the people of each of {parts} outer folds" if type(parts) is int else "people"
        lines.append(
            "This was fitted to the out-of-fold predictions and scored by nested cross-validation: "
            f"{nested} were predicted by a fit without them."
        )
        again = fitted.get("chosen_without_each_part")
        if isinstance(again, list) and again:
            lines.append("The method was chosen by its nested score; this choice was repeated without each outer fold.")
        return " ".join(lines)

    # Scores

    def metrics(self) -> str:
        """Return the metric, and what is averaged before it."""
        if not self.is_scored:
            return to_state("metrics")
        metric = metric_of(self.evidence.metric)
        what = answers_of(self.evidence.task)
        each = f", after averaging the {what} of each person's images" if self.evidence.per_person else ""
        return f"The main metric was {metric.title}{direction(metric)}{each}."

    def intervals(self) -> str:
        """Return how the confidence intervals and the differences are made."""
        if not self.is_scored:
            return to_state("how confidence intervals were computed")
        unit, metric = self._unit_of_intervals(), metric_of(self.evidence.metric)
        if metric.function is not None:
            how = f"a bootstrap over {unit} (up to {N_RESAMPLES:,} resamples)"
        elif metric.ranking is not None and metric.ranking.bounds is not None and len(self.evidence.classes) == 2:
            how = (
                f"a jackknife over {unit} (Tukey, 1958) with Student's t, whose bounds are taken at the quantile that "
                "is the threshold of the metric"
            )
        else:
            scale = ", on the logit scale" if math.isfinite(metric.upper_bound - metric.lower_bound) else ""
            how = f"a jackknife over {unit} (Tukey, 1958) with Student's t{scale}"
        return (
            f"95% confidence intervals (CIs) were computed by {how}.{self._comparisons()} The CIs do not cover the "
            "choice of the training seed."
        )

    def _unit_of_intervals(self) -> str:
        parts = [part for part in (labeled(self.evidence.oof), labeled(self.evidence.test)) if part is not None]
        known = {part.persons_known for part in parts}
        if len(known) == 1:
            return "people" if True in known else "images, because people are not known"
        without = next("out of fold" if one.name == "oof" else "of the test" for one in parts if not one.persons_known)
        return f"people ({without} over images, because people are not known there)"

    def _comparisons(self) -> str:
        members = max(len(part.members) for part in (self.evidence.oof, self.evidence.test) if part is not None)
        if members < 2:
            return ""
        corrected = ", with the Bonferroni correction for several comparisons" if members > 2 else ""
        by_function = metric_of(self.evidence.metric).function is not None
        same = "bootstrap" if by_function else "jackknife on the scale of the metric"
        return f" Models were compared by paired differences, by the same {same}{corrected}."

    @property
    def is_scored(self) -> bool:
        """Return whether predictions of labeled images are there."""
        return labeled(self.evidence.oof) is not None or labeled(self.evidence.test) is not None

    def external(self) -> str:
        """Return that a test set is there, whose origin only the authors know."""
        if self.test is None:
            return to_state("external test: none in these files")
        return (
            f"Test data: {counted(len(self.test), 'image')}. {to_state('whether they are from another center or time')}"
        )

    def software(self) -> str:
        """Return versions and hardware."""
        environments = [run.environment for run in self.runs]
        if not any(environments):
            return to_state("software and its versions, hardware")
        found = []
        for key, name in _SOFTWARE.items():
            versions = sorted({str(one[key]) for one in environments if records.text(one.get(key))})
            found += [f"{name} {' and '.join(versions)}"] if versions else []
        devices = by_run(self.runs, lambda run: records.text(records.resolved(run).get("device")), "hardware")
        verb = "was" if len(found) == 1 and " and " not in found[0] else "were"
        used = f"{listed(found, 12)} {verb} used." if found else to_state("software and its versions")
        return f"{used} {sentence('Device: {}.', _DEVICES.get(devices, devices))}"


def grouped(runs: Sequence[RunRecord], describe: Callable[[RunRecord], str], verb: str, what: str) -> list[str]:
    """Return a sentence for the runs of each description, whose first word is `was`; if there are more than
    `MAX_SENTENCES`, one that refers to the table of the settings.
    """
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(describe(run), []).append(f"`{run.name}`")
    if len(found) > MAX_SENTENCES:
        return [f"The models differ in their {what} (table of the settings)."]
    return [
        f"{listed(names, 12)} {verb if len(names) > 1 else 'was'} {words.removeprefix('was ')}"
        for words, names in found.items()
    ]


def _value(run: RunRecord, read: Reader, what: str) -> str:
    return read(run) or to_state(what)


def _model_text(run: RunRecord) -> str:
    if records.model(run) is None:
        return f"was a model of {to_state('architecture, input size and initial weights')}."
    size = _value(run, records.size, "input size")
    return (
        f"was timm's {_value(run, records.model, 'architecture')}, with inputs of {size} pixels, initialized with "
        f"{_value(run, records.initialization, 'initial weights')}."
    )


def _training_text(run: RunRecord) -> str:
    if records.is_frozen(run):
        views = _value(run, setting("feature_views"), "views of a training image")
        return (
            f"was not trained as a whole: {_value(run, records.head, 'head')} was fitted to features of the training "
            f"images (views {views})."
        )
    if not any(read(run) for read in (setting("epochs"), setting("lr"), records.optimizer, records.loss)):
        return f"was trained with {to_state('settings of the training')}."
    epochs = _value(run, setting("epochs"), "epochs")
    rate, decay = _value(run, setting("lr"), "learning rate"), _value(run, setting("weight_decay"), "weight decay")
    batch, seed = _value(run, setting("batch_size"), "batch size"), _value(run, setting("seed"), "seed")
    parts = (
        f"was trained for {epochs} epoch{'' if epochs == '1' else 's'} with "
        f"{_value(run, records.optimizer, 'optimizer')} (peak learning rate {rate}, weight decay {decay}, "
        f"batches of {batch} images, learning rate schedule: {_value(run, records.schedule, 'schedule')})",
        f"loss: {_value(run, records.loss, 'loss')}",
        f"augmentation: {_value(run, records.augmentation, 'augmentation')}",
        _value(run, records.precision, "number format"),
        f"seed {seed}",
        *records.further(run),
    )
    return f"{'; '.join(parts)}."


def _title(method: str | None, fitted: Mapping[str, Any]) -> str:
    methods = fitted.get("methods")
    for one in methods if isinstance(methods, list) else ():
        if isinstance(one, Mapping) and one.get("method") == method and records.text(one.get("title")):
            return str(one["title"])
    if method is not None and (method in FITTERS or method in METHODS):
        return FITTERS[method].title if method in FITTERS else METHODS[method].title
    return to_state("the method") if method is None else method


def _span(counts: Sequence[int]) -> str:
    return f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"


def balance_text(facts: Facts) -> str:
    """Return what was done about classes of different sizes."""
    found = {words: None for run in facts.runs for words in records.balances(run)}
    if found:
        return f"{'; '.join(found)}."
    recorded = facts.runs and all(records.text(run.config.get("sampler")) and records.loss(run) for run in facts.runs)
    return (
        "Classes were not weighted or sampled differently." if recorded else to_state("whether classes were balanced")
    )


def fold_rows(part: Part | None) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return (name, rows) of each fold of a part."""
    if part is None or part.fold is None:
        return []
    return [(f"fold {fold}", part.fold == fold) for fold in np.unique(part.fold[part.fold >= 0]).tolist()]
