"""Find what the methods of a paper are about: the images of each part, the suggested member, and the runs behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.report.evidence.evidence import SOFT_VOTE, Evidence, Predicted, RunRecord
from ensemble.report.evidence.image_table import texts_of
from ensemble.report.evidence.people import extra_of
from ensemble.report.evidence.scoring import labeled
from ensemble.report.method.method_runs import listed, to_state


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
class MethodSource:
    """What the sentences about the methods are made from."""

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

    @property
    def k(self) -> int | None:
        """Return the number of folds that all runs record; None if they do not."""
        found = {run.folds.get("k", run.k) for run in self.runs}
        only = next(iter(found)) if len(found) == 1 else None
        return only if type(only) is int and only > 0 else None

    @property
    def is_scored(self) -> bool:
        """Return whether predictions of labeled images are there."""
        return labeled(self.evidence.oof) is not None or labeled(self.evidence.test) is not None

    def predictors(self) -> str:
        """Return what is predicted from: the images, and columns of the table that a blend uses."""
        extra = extra_of(self.blend)
        if not extra:
            return "The images are the only predictors." if self.all_recorded else to_state("the predictors")
        return (
            f"The predictors are the images and the columns {listed([f'`{one}`' for one in extra], 12)} of the table."
        )

    def _not_read(self, what: str) -> list[str]:
        """Return the gap for what only a table says, if none was read."""
        return [] if all(rows.whole for _, rows in self.parts) else [to_state(f"{what}: no table was read")]
