"""Say for the methods of a paper how the images were split, by which rule, and whether test people were in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.report.evidence.evidence import Part
from ensemble.report.method.method_runs import listed, to_state
from ensemble.report.method.method_source import MethodSource
from folds.metrics.task_names import COLUMN_TASKS, REGRESSION
from folds.utils.numeric import factorize, groups_in_several_folds
from folds.utils.text import counted


@dataclass(frozen=True, eq=False)
class SplitFacts(MethodSource):
    """Sentences about the split."""

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


def _span(counts: Sequence[int]) -> str:
    return f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"


def fold_rows(part: Part | None) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return (name, rows) of each fold of a part."""
    if part is None or part.fold is None:
        return []
    return [(f"fold {fold}", part.fold == fold) for fold in np.unique(part.fold[part.fold >= 0]).tolist()]
