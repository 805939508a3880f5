"""Find problems of data and folds before training: leaks, copies, classes that cannot be in every fold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.data.table import Dataset, SampleTable
from folds.errors import without_marks
from folds.images.cache import DecodedImages
from folds.images.duplicates import Pair, identical, near_duplicates, thumbnails
from folds.metrics.columns import counted_cells, units_with
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.splits.assignment import FoldAssignment
from folds.splits.checks import check_folds
from folds.utils.numeric import distinct_numbers, factorize

_ONE_LABEL = {MULTILABEL: "set of labels", REGRESSION: "number"}
_WORDS = {MULTILABEL: ("label", "labels"), REGRESSION: ("number", "numbers")}
NOTE, WARNING, ERROR = "note", "warning", "error"
# Number of images above which comparing all pairs takes minutes; only `audit` compares them then, not training.
MAX_COMPARED = 40_000


@dataclass(frozen=True)
class SampleRef:
    """One sample of a finding; `part` is train or test, `position` its row index in that table."""

    part: str
    position: int
    location: str
    id: str
    person: str | None
    label: str | None
    fold: int | None

    def __str__(self) -> str:
        about = [f"person {self.person}" if self.person is not None else "", self.label or ""]
        about += ["test"] if self.part == "test" else [f"fold {self.fold}"] if self.fold is not None else []
        # In a folder, the location of a sample is its id.
        place = self.id if self.location == self.id else f"{self.location}: {self.id}"
        return f"{place} ({', '.join(filter(None, about))})"


@dataclass(frozen=True)
class Occurrence:
    """One case of a finding: its rows and their similarity if it was measured, or a line of text without rows."""

    rows: tuple[SampleRef, ...] = ()
    detail: str = ""
    similarity: float | None = None

    def __str__(self) -> str:
        # One placeholder image can be shared by thousands of people.
        rest = len(self.rows) - 4
        named = "  =  ".join(map(str, self.rows if rest < 2 else self.rows[:4])) + (
            f"  and {rest:,} more rows" if rest > 1 else ""
        )
        return "  ".join(filter(None, (named, self.detail)))


@dataclass(frozen=True)
class Finding:
    """One kind of problem (`error`, `warning`) or information (`note`).

    Attributes
    ----------
    count : number of cases, in `unit` (set, pair, person, class, image).
    message : one line that explains the finding.
    """

    kind: str
    severity: str
    count: int
    unit: str
    message: str
    cases: tuple[Occurrence, ...] = ()

    @property
    def amount(self) -> str:
        """Return the count with its unit: ``2 pairs``."""
        plural = {"person": "people", "class": "classes", "": ""}
        return f"{self.count:,} {self.unit if self.count == 1 else plural.get(self.unit, f'{self.unit}s')}".rstrip()

    def lines(self, shown: int = 3) -> list[str]:
        """Return the message, the first `shown` cases, and the number of further ones."""
        rest = len(self.cases) - shown
        return [
            self.message,
            *(f"  {case}" for case in self.cases[:shown]),
            *([f"  … and {rest:,} more"] if rest > 0 else []),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values, for ``--json``."""
        return asdict(self) | {"message": without_marks(self.message)}


@dataclass(frozen=True, eq=False)
class AuditImages:
    """The images of one table.

    Attributes
    ----------
    table : its samples.
    content : n hashes of the image files.
    thumbs : (n, SIDE, SIDE) uint8, gray thumbnails.
    fold : (n,) fold of each sample; None if unknown.
    part : train or test.
    """

    table: SampleTable
    content: Sequence[str]
    thumbs: NDArray[np.uint8]
    fold: NDArray[np.integer] | None = None
    part: str = "train"

    def row(self, at: int) -> SampleRef:
        """Return the sample at row index `at`."""
        table = self.table
        person, label = (None if column is None else str(column[at]) for column in (table.persons, table.labels))
        return SampleRef(
            self.part,
            at,
            table.locations[at],
            str(table.ids[at]),
            person,
            label,
            None if self.fold is None else int(self.fold[at]),
        )


def pictures(
    table: SampleTable, cache: DecodedImages, fold: NDArray[np.integer] | None = None, part: str = "train"
) -> AuditImages:
    """Return the images to audit, from the cache of decoded images."""
    return AuditImages(table, cache.content, thumbnails(cache.pixels), fold, part)


def audit_table(data: Dataset, assignment: FoldAssignment | None = None, k: int = 5) -> list[Finding]:
    """Return the findings from the table and the folds, without reading images.

    Parameters
    ----------
    assignment : folds of `data.train`; None: report the classes with too few people for `k` folds.

    Raises
    ------
    EnsembleError : see `check_folds`, e.g. a person in two folds.
    """
    train, test = data.train, data.test
    found = [Finding("the table", WARNING, 1, "remark", line) for line in data.warnings]
    lines = _rare(train, k) if assignment is None else check_folds(assignment, train.classes, train.class_attributes)
    if lines:
        one, many = _WORDS.get(train.task, ("class", "classes"))
        message = (
            f"{_counted(len(lines), f'{one} is', f'{many} are')} missing from a fold"
            if assignment is not None
            else f"{_counted(len(lines), f'{one} has', f'{many} have')} fewer people than folds"
        )
        found.append(
            Finding(
                f"{many} not in every fold",
                WARNING,
                len(lines),
                one,
                message,
                tuple(Occurrence(detail=line) for line in lines),
            )
        )
    found += _people(train)
    if test is not None and test.labels is not None and train.labels is not None:
        found += _contradicted(train, test)
    return found


def _rare(train: SampleTable, k: int) -> list[str]:
    if train.labels is None or train.persons is None:
        return []
    if train.has_columns:
        return _rare_columns(train, k)
    width = len(train.classes)
    pairs = distinct_numbers(train.factorized_persons[1] * width + train.label_codes())
    people = dict(zip(train.classes, np.bincount(pairs % width, minlength=width).tolist(), strict=True))
    return [
        f"class {name}: {_counted(count, 'person', 'people')} for {k} folds"
        for name, count in people.items()
        if count < k
    ]


def _rare_columns(train: SampleTable, k: int) -> list[str]:
    """Return a line for each label that fewer than `k` people have, or are known not to have; likewise for numbers."""
    values, owners = train.label_values(), train.factorized_persons[1]
    one = _WORDS[train.task][0]
    parts = {f"{one} {{}}": counted_cells(values, train.task)}
    if train.task == MULTILABEL:
        parts["images known to be without {}"] = values == 0
    return [
        f"{text.format(name)}: {_counted(count, 'person', 'people')} for {k} folds"
        for text, rows in parts.items()
        for name, count in zip(train.classes, units_with(rows, owners).tolist(), strict=True)
        if count < k
    ]


def _people(train: SampleTable) -> list[Finding]:
    """Return notes on people with a constant label, whom a split by image would leak, and with a single image."""
    if train.labels is None or train.persons is None:
        return []
    names, person = train.factorized_persons
    images, (labels, codes) = np.bincount(person), factorize(train.labels)
    width = len(labels)
    pairs = distinct_numbers(person * width + codes)
    several = images > 1
    constant = int(((np.bincount(pairs // width, minlength=len(names)) == 1) & several).sum())
    found = []
    if constant:
        message = (
            f"{constant:,} of the {several.sum():,} people with several images have only one "
            f"{_ONE_LABEL.get(train.task, 'label')}: a split by image "
            "would leak it"
        )
        found.append(Finding("people with a constant label", NOTE, constant, "person", message))
    single = int((~several).sum())
    if single:
        message = f"{single:,} of {len(images):,} people have a single image"
        found.append(Finding("people with a single image", NOTE, single, "person", message))
    return found


def _contradicted(train: SampleTable, test: SampleTable) -> list[Finding]:
    index = {name: at for at, name in enumerate(train.ids.tolist())}
    none = np.empty((0, 0, 0), np.uint8)
    sides = AuditImages(train, (), none), AuditImages(test, (), none, part="test")
    cases = []
    for at, name in enumerate(test.ids.tolist()):
        there = index.get(name)
        if (
            there is not None
            and train.labels is not None
            and test.labels is not None
            and train.labels[there] != test.labels[at]
        ):
            cases.append(Occurrence((sides[0].row(there), sides[1].row(at))))
    message = f"{_counted(len(cases), 'id has', 'ids have')} different labels in training and test"
    return [Finding("ids with two labels", WARNING, len(cases), "id", message, tuple(cases))] if cases else []


def audit_images(train: AuditImages, test: AuditImages | None = None, near: bool = True) -> list[Finding]:
    """Return findings on identical and altered copies, between people, labels, folds, training and test.

    Parameters
    ----------
    near : whether to look for altered copies too, which compares all pairs of images.
    """
    sides = [train] if test is None else [train, test]
    # One numbering for both parts: training first, then test.
    every = [(side, at) for side in sides for at in range(len(side.content))]
    content = [side.content[at] for side, at in every]

    def rows(positions: Iterable[int]) -> tuple[SampleRef, ...]:
        return tuple(side.row(at) for side, at in (every[i] for i in positions))

    sets = [rows(positions) for positions in identical(content)]
    inside = [own for own in (tuple(row for row in one if row.part == "train") for one in sets) if len(own) > 1]
    found = _identical(inside)
    crossing = [Occurrence(one) for one in sets if {row.part for row in one} == {"train", "test"}]
    if crossing:
        shared = sum(row.part == "test" for case in crossing for row in case.rows)
        message = (
            f"{_counted(shared, 'test image is', 'test images are')} identical to training images: test scores will be "
            "optimistic"
        )
        found.append(
            Finding("identical images in training and test", WARNING, len(crossing), "set", message, tuple(crossing))
        )
    if not near:
        message = f"no search for altered copies among {len(content):,} images"
        return [*found, Finding("altered copies", NOTE, len(content), "image", message)]
    return found + _near(sides, content, rows)


def _identical(inside: Sequence[tuple[SampleRef, ...]]) -> list[Finding]:
    """Return findings on sets of identical training images: different people, different labels, same person."""
    across = [one for one in inside if len({row.person for row in one}) > 1]
    found = []
    if across:
        message = (
            f"{_counted(len(across), 'set of identical images is', 'sets of identical images are')} shared by "
            "different people"
        )
        found.append(
            Finding(
                "identical images, different people",
                WARNING,
                len(across),
                "set",
                message + _leak(across),
                tuple(map(Occurrence, across)),
            )
        )
    differ = [one for one in inside if len({row.label for row in one}) > 1]
    if differ:
        message = (
            f"{_counted(len(differ), 'set of identical images has', 'sets of identical images have')} more than one "
            "label: at most one is correct"
        )
        found.append(
            Finding(
                "identical images, different labels",
                WARNING,
                len(differ),
                "set",
                message,
                tuple(map(Occurrence, differ)),
            )
        )
    within = [one for one in inside if one not in across and one not in differ]
    if within:
        message = (
            f"{_counted(len(within), 'set of identical images is', 'sets of identical images are')} of one person: "
            "the image counts more than once"
        )
        found.append(
            Finding("identical images, same person", NOTE, len(within), "set", message, tuple(map(Occurrence, within)))
        )
    return found


def _near(sides: Sequence[AuditImages], content: Sequence[str], rows: Any) -> list[Finding]:
    """Return findings on altered copies; of identical files only the first is compared."""
    own = sides[0].table.persons
    # All test images form one group, because copies within the test set leak nothing.
    group = np.arange(len(sides[0].content)) if own is None else np.unique(own, return_inverse=True)[1]
    groups = np.concatenate([group, *(np.full(len(side.content), -1) for side in sides[1:])])
    first = np.sort(np.unique(np.array(content), return_index=True)[1])
    result = near_duplicates(np.concatenate([side.thumbs for side in sides])[first], groups[first])

    def case(pair: Pair) -> Occurrence:
        both = rows((int(first[pair.first]), int(first[pair.second])))
        label = (
            ", labels differ" if None not in (both[0].label, both[1].label) and both[0].label != both[1].label else ""
        )
        return Occurrence(
            both, f"[{'mirrored, ' if pair.mirrored else ''}similarity {pair.similarity:.2f}{label}]", pair.similarity
        )

    cases = [case(pair) for pair in result.pairs]
    people = [one for one in cases if one.rows[1].part == "train"]
    found = []
    if people:
        message = (
            f"{_counted(len(people), 'pair of images is', 'pairs of images are')} altered copies of each other, of "
            "different people"
        )
        message += _leak([one.rows for one in people])
        found.append(Finding("altered copies, different people", WARNING, len(people), "pair", message, tuple(people)))
    apart = [one for one in cases if one.rows[1].part == "test"]
    if apart:
        images = len({one.rows[1].position for one in apart})
        one, several = (
            "test image is an altered copy of a training image",
            "test images are altered copies of training images",
        )
        message = _counted(images, one, several)
        found.append(
            Finding(
                "altered copies in training and test",
                WARNING,
                len(apart),
                "pair",
                f"{message}: test scores will be optimistic",
                tuple(apart),
            )
        )
    if result.flat:
        message = f"{_counted(len(result.flat), 'image is', 'images are')} almost uniform and cannot be compared"
        empty = tuple(Occurrence(rows((int(first[at]),))) for at in result.flat)
        found.append(Finding("images without structure", NOTE, len(result.flat), "image", message, empty))
    if result.left_off:
        message = (
            f"{result.left_off:,} of the least similar candidate pairs were not compared, because there are too many: "
            "there may be more copies"
        )
        found.append(Finding("pairs left off", NOTE, result.left_off, "pair", message))
    return found


def _leak(sets: Iterable[tuple[SampleRef, ...]]) -> str:
    """Return the effect on the scores as text; "" if no set is in several folds, or folds are unknown."""
    apart = [len({row.fold for row in one}) > 1 for one in sets]
    if not any(apart):
        return ""
    verb = "is" if sum(apart) == 1 else "are"
    return (
        f", {'and ' + verb if all(apart) else f'{sum(apart):,} of them'} in different folds: models are scored on "
        "images they were trained on"
    )


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
