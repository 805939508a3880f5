"""What the sections of a report are made from: aligned predictions, runs, the table, and images that can be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.units import IMAGE, PERSON, Unit
from folds.experiments.sites import NewSites
from folds.metrics.intervals import Interval
from folds.metrics.scored_units import known_rows
from folds.metrics.task_names import CLASSES, COLUMN_TASKS

if TYPE_CHECKING:
    from ensemble.blending.aligned import AlignedMembers

Kind = Literal["run", "tta", "blend"]
SOFT_VOTE = "soft vote of all runs"  # name of the mean that a report adds, which is not saved anywhere


@dataclass(frozen=True)
class Predicted:
    """The predictions of one member for the rows of a part.

    Attributes
    ----------
    name : as the user knows it: ``swin``, ``swin (hflip)``, ``blend greedy-1a2b3c4d``.
    kind : a run, a run with test-time views, or a blend.
    probabilities : float32 (n, classes), numbers for a regression; NaN in rows that the member does not predict. For a
        fitted blend, each person is predicted by a fit without them.
    passes : forward passes per image, if known.
    in_sample : for a fitted blend (n, classes) the predictions of the fit on all people; None otherwise.
    selected_on_validation : whether the epoch was chosen on the people who are scored.
    changed : ids of the images whose training label the run, or any run of the blend, has changed.
    """

    name: str
    kind: Kind
    probabilities: NDArray[np.float32]
    passes: float | None = None
    in_sample: NDArray[np.float32] | None = None
    selected_on_validation: bool = False
    changed: frozenset[str] = frozenset()

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Return (n,) whether the member predicts each row."""
        return ~np.isnan(self.probabilities[:, 0])


@dataclass(frozen=True)
class Part:
    """The rows of one split, and who predicts them.

    Attributes
    ----------
    name : ``oof`` or ``test``.
    ids : (n,) text, sorted by the table.
    labels : (n,) class index, −1 where the label is not known; of several labels or numbers (n, columns) float64, nan
        where one is not known.
    persons : (n,) text, the person (group) of each row; the ids if people are unknown.
    fold : (n,) int, the fold in whose validation part the row is; None for test rows, or if members disagree.
    members : in the order of the user.
    persons_known : whether `persons` are people.
    """

    name: Literal["oof", "test"]
    ids: NDArray[np.str_]
    labels: NDArray[Any]
    persons: NDArray[np.str_]
    fold: NDArray[np.int64] | None
    members: tuple[Predicted, ...]
    persons_known: bool = True

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def has_label(self) -> NDArray[np.bool_]:
        """Return (n,) whether the label of each row is known, or one of several."""
        return known_rows(self.labels)

    def with_changed_labels(self, members: Sequence[Predicted]) -> NDArray[np.bool_]:
        """Return (n,) whether the person of each row has an image whose training label any of the members changed."""
        changed = sorted(frozenset().union(*(one.changed for one in members)))
        if not changed:
            return np.zeros(len(self), bool)
        return np.isin(self.persons, self.persons[np.isin(self.ids, changed)])

    def without_changed_labels(self, members: Sequence[Predicted]) -> Part | None:
        """Return the part without the labels of these people, who say nothing about the gain of a change: one of the
        members has learned another label than the one that is scored. None if fewer than two labeled people are left.
        """
        touched = self.with_changed_labels(members)
        if not touched.any():
            return self
        labels = self.labels.copy()
        labels[touched] = -1 if labels.ndim == 1 else np.nan
        kept = replace(self, labels=labels)
        return kept if len(np.unique(self.persons[kept.has_label])) > 1 else None

    def member(self, name: str) -> Predicted | None:
        """Return the member of this name; None if there is none."""
        return next((one for one in self.members if one.name == name), None)


@dataclass(frozen=True)
class Pooled:
    """How images became people, on a page about a blend with ``--pool``: its rows are people, whose id is the person.

    Attributes
    ----------
    rule : as in ``--pool``; of ``auto`` the rule that was chosen.
    chosen : whether the rule was chosen by ``auto``.
    images : split → the images of the people, without members.
    values : split → float32 (n, classes) mean prediction of the runs for each of these images.
    source : the runs of the blend, from which other rules are scored; None if their files are not there any more.
    """

    rule: str
    chosen: bool = False
    images: Mapping[str, Part] = field(default_factory=dict)
    values: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    source: AlignedMembers | None = None

    @cached_property
    def images_of(self) -> dict[str, tuple[str, ...]]:
        """Return person → the ids of the images, in their order."""
        found: dict[str, list[str]] = {}
        for part in self.images.values():
            for person, sample in zip(part.persons.tolist(), part.ids.tolist(), strict=True):
                found.setdefault(person, []).append(sample)
        return {person: tuple(ids) for person, ids in found.items()}

    def rows_of(self, split: str) -> dict[str, list[int]]:
        """Return person → the rows of the images in ``images[split]``."""
        found: dict[str, list[int]] = {}
        if split in self.images:
            for row, person in enumerate(self.images[split].persons.tolist()):
                found.setdefault(person, []).append(row)
        return found


@dataclass(frozen=True)
class RunRecord:
    """What a trained run recorded about itself.

    Attributes
    ----------
    history : fold → one record per epoch: ``epoch``, ``loss``, ``lr``, ``seconds``, ``validation_macro_f1``, …
    done : fold → content of its done.json.
    config : content of config.toml.
    environment : versions with which the run was started.
    folds : content of folds.json: how its split was made; {} if it is not there.
    tested : folds whose models have predicted the test images.
    """

    name: str
    folder: Path
    k: int
    history: Mapping[int, Sequence[Mapping[str, float]]]
    done: Mapping[int, Mapping[str, Any]]
    config: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)
    folds: Mapping[str, Any] = field(default_factory=dict)
    tested: tuple[int, ...] = ()


@dataclass(frozen=True)
class TableRecord:
    """The table of the images, as far as the report may show it; each array has one entry per image.

    Attributes
    ----------
    ids, labels, persons : text.
    attributes : attribute → (n,) text: attributes of the class, and columns of the table.
    width, height : pixels of the file; 0 if it was not read.
    brightness, sharpness : means of the decoded image, 0 to 255, and of its Laplacian; NaN if it was not read.
    test : whether the image is a test image.
    persons_known : whether `persons` are people, and not the ids.
    left_out : number of images that cannot be used and are not in the table; None if that is not known.
    of_predictions : whether no table was read, so that only images that are predicted are there.
    """

    ids: NDArray[np.str_]
    labels: NDArray[np.str_]
    persons: NDArray[np.str_]
    test: NDArray[np.bool_]
    attributes: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    width: NDArray[np.int64] | None = None
    height: NDArray[np.int64] | None = None
    brightness: NDArray[np.float32] | None = None
    sharpness: NDArray[np.float32] | None = None
    persons_known: bool = True
    left_out: int | None = None
    of_predictions: bool = False


@dataclass(frozen=True)
class Evidence:
    """Everything a report is made from.

    Attributes
    ----------
    classes : in the order of the columns.
    metric : name of the metric of the report.
    recommended : name of the member that the report suggests to submit.
    simple : name of the simple choice that it is compared with: the best single run, or the soft vote of all.
    paths : id → file of the image, for those that can be read now.
    warnings : what was doubtful about the inputs.
    thumbnail : id → source of a `Picture`: a reference that the page decodes, or "" if the image cannot be read.
    per_person : whether the probabilities of each person's images are averaged before scoring.
    heat_maps : out-of-fold images that get a heat map; 0 for none, because they cost time.
    window, max_pixels, channels, frame : with which images are decoded, as in `folds.images.settings.ImageSettings`.
    blend_name : the member that `blend` describes; None if that is not known.
    by_image : run whose folds split the images of people → the score that it claims; it is no candidate.
    task : ``ordinal`` if the classes are grades; ``multilabel`` or ``regression`` if every column of the predictions
        has labels or numbers of its own, which `classes` names.
    new_sites : what runs that left sites out say of a new site; they are no candidates if there are others.
    pooled : how images became the rows, if these are people; None if they are images.
    person_thumbnail : person → source of a `Picture` of all images of the person.
    people_table : the table with one row per person, if the rows are people; or with columns of numbers that a blend
        uses in ranges. None if it is the table itself.
    """

    classes: tuple[str, ...]
    oof: Part | None
    test: Part | None
    metric: str = "macro_f1"
    recommended: str | None = None
    simple: str | None = None
    runs: Mapping[str, RunRecord] = field(default_factory=dict)
    blend: Mapping[str, Any] | None = None
    table: TableRecord | None = None
    paths: Mapping[str, Path] = field(default_factory=dict)
    class_attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    findings: Sequence[Mapping[str, Any]] = ()
    warnings: Sequence[str] = ()
    root: Path = Path()
    thumbnail: Callable[[str], str] = lambda sample: ""
    per_person: bool = False
    heat_maps: int = 0
    window: tuple[float, float] | None = None
    max_pixels: int | None = None
    channels: tuple[int, ...] = ()
    frame: int | str | None = None
    by_image: Mapping[str, Interval] = field(default_factory=dict)
    blend_name: str | None = None
    task: str = CLASSES
    new_sites: Sequence[NewSites] = ()
    pooled: Pooled | None = None
    person_thumbnail: Callable[[str], str] = lambda person: ""
    people_table: TableRecord | None = None

    @property
    def row_table(self) -> TableRecord | None:
        """Return what the table says of each row: of an image, or of a person if the rows are people."""
        return self.table if self.people_table is None else self.people_table

    @property
    def picture(self) -> Callable[[str], str]:
        """Return id of a row → source of a `Picture`: of the image, or of all images of the person."""
        return self.thumbnail if self.pooled is None else self.person_thumbnail

    @cached_property
    def memory(self) -> dict[Any, Any]:
        """Return what sections keep for each other, so that it is computed once."""
        return {}

    def unit_of(self, part: Part) -> Unit:
        """Return what a row is whose predictions are scored: a person, if scores are by person and people are known."""
        return PERSON if self.pooled is not None or self.averages(part) else IMAGE

    def row_of(self, part: Part) -> Unit:
        """Return what a row of a part is, before it is averaged for a score by person."""
        return IMAGE if self.pooled is None else PERSON

    def averages(self, part: Part) -> bool:
        """Return whether the rows of each person are averaged before they are scored."""
        return self.per_person and part.persons_known

    def image_part(self, name: str) -> Part | None:
        """Return the images of a split, ``oof`` or ``test``: without members, if the rows of the page are people."""
        if self.pooled is not None:
            return self.pooled.images.get(name)
        return self.oof if name == "oof" else self.test

    @property
    def has_columns(self) -> bool:
        """Return whether every column of the predictions has labels or numbers of its own."""
        return self.task in COLUMN_TASKS

    def class_title(self, name: str) -> str:
        """Return a class with its meaning, if its name is a number: ``2 (wear male >=60)``."""
        meaning = " ".join(self.class_attributes.get(name, {}).values())
        return f"{name} ({meaning})" if meaning and name.isdecimal() else name

    @property
    def main(self) -> Predicted | None:
        """Return the out-of-fold predictions of the recommended member."""
        return None if self.oof is None or self.recommended is None else self.oof.member(self.recommended)
