"""What is wrong with data and folds, found before anything is trained on them: leaks, copies, classes that cannot be
spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.auditing.duplicates import Pair, identical, near_duplicates, thumbnails
from folds.data.table import Dataset, SampleTable
from folds.images.cache import DecodedImages
from folds.splits.assignment import FoldAssignment
from folds.splits.checks import check_folds
from folds.utils.numeric import distinct_numbers

NOTE, WARNING, ERROR = "note", "warning", "error"
# Above it comparing every image with every other takes minutes: done by the audit that is asked for, not before each
# training.
MOST_COMPARED = 40_000


@dataclass(frozen=True)
class SampleRef:
    """One sample as a finding names it; `part` is train or test, `position` its place in that table."""

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
        return f"{self.location}: {self.id} ({', '.join(filter(None, about))})"


@dataclass(frozen=True)
class Occurrence:
    """One instance of a finding: the rows concerned, and how alike they are where that was measured, or a line where
    there are no rows.
    """

    rows: tuple[SampleRef, ...] = ()
    detail: str = ""
    similarity: float | None = None

    def __str__(self) -> str:
        # One placeholder picture can stand under thousands of people.
        rest = len(self.rows) - 4
        named = "  =  ".join(map(str, self.rows if rest < 2 else self.rows[:4])) + (
            f"  and {rest:,} more rows" if rest > 1 else ""
        )
        return "  ".join(filter(None, (named, self.detail)))


@dataclass(frozen=True)
class Finding:
    """One kind of thing that is wrong (`error`, `warning`) or worth knowing (`note`).

    Attributes
    ----------
    count : how many of `unit` (set, pair, person, class, image).
    message : one line that says what it means.
    """

    kind: str
    severity: str
    count: int
    unit: str
    message: str
    cases: tuple[Occurrence, ...] = ()

    @property
    def amount(self) -> str:
        """Return ``2 pairs``"""
        plural = {"person": "people", "class": "classes", "": ""}
        return f"{self.count:,} {self.unit if self.count == 1 else plural.get(self.unit, f'{self.unit}s')}".rstrip()

    def lines(self, shown: int = 3) -> list[str]:
        """Return the message and its first cases, the rest counted."""
        rest = len(self.cases) - shown
        return [
            self.message,
            *(f"  {case}" for case in self.cases[:shown]),
            *([f"  … and {rest:,} more"] if rest > 0 else []),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for --json."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class AuditImages:
    """The images of one table: its samples, the hash of each file (n), grey thumbnails (n, SIDE, SIDE) uint8, each
    sample's fold where known.
    """

    table: SampleTable
    content: Sequence[str]
    thumbs: NDArray[np.uint8]
    fold: NDArray[np.integer] | None = None
    part: str = "train"

    def row(self, at: int) -> SampleRef:
        """Return the sample at position `at`."""
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
    """Return what the audit looks at, from the cache of decoded images."""
    return AuditImages(table, cache.content, thumbnails(cache.pixels), fold, part)


def audit_table(data: Dataset, assignment: FoldAssignment | None = None, k: int = 5) -> list[Finding]:
    """Return what the table and the folds show without any image.

    Parameters
    ----------
    assignment : folds of `data.train`; without them it is asked which classes could not be in every one of `k`.

    Raises
    ------
    EnsembleError : see `check_folds`; above all, a person who stands in two folds.
    """
    train, test = data.train, data.test
    found = [Finding("the table", WARNING, 1, "remark", line) for line in data.warnings]
    lines = _rare(train, k) if assignment is None else check_folds(assignment, train.classes, train.class_attributes)
    if lines:
        message = (
            f"{_counted(len(lines), 'class', 'classes')} cannot be, or {'is' if len(lines) == 1 else 'are'} not, in "
            "every fold, counted in people"
        )
        found.append(
            Finding(
                "classes not in every fold",
                WARNING,
                len(lines),
                "class",
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
    width = len(train.classes)
    pairs = distinct_numbers(train.person_codes[1] * width + train.label_codes())
    people = dict(zip(train.classes, np.bincount(pairs % width, minlength=width).tolist(), strict=True))
    return [
        f"class {name}: {_counted(count, 'person', 'people')} for {k} folds"
        for name, count in people.items()
        if count < k
    ]


def _people(train: SampleTable) -> list[Finding]:
    """Return whether a split by image would leak, and how many people have one image only."""
    if train.labels is None or train.persons is None:
        return []
    names, person = train.person_codes
    images, width = np.bincount(person), len(train.classes)
    pairs = distinct_numbers(person * width + train.label_codes())
    several = images > 1
    constant = int(((np.bincount(pairs // width, minlength=len(names)) == 1) & several).sum())
    found = []
    if constant:
        message = (
            f"the label is constant in {constant:,} of the {several.sum():,} people with several images: a split by "
            "image would leak it"
        )
        found.append(Finding("people with a constant label", NOTE, constant, "person", message))
    single = int((~several).sum())
    if single:
        message = f"{single:,} of {len(images):,} people have a single image"
        found.append(Finding("people with a single image", NOTE, single, "person", message))
    return found


def _contradicted(train: SampleTable, test: SampleTable) -> list[Finding]:
    place = {name: at for at, name in enumerate(train.ids.tolist())}
    none = np.empty((0, 0, 0), np.uint8)
    sides = AuditImages(train, (), none), AuditImages(test, (), none, part="test")
    cases = []
    for at, name in enumerate(test.ids.tolist()):
        there = place.get(name)
        if (
            there is not None
            and train.labels is not None
            and test.labels is not None
            and train.labels[there] != test.labels[at]
        ):
            cases.append(Occurrence((sides[0].row(there), sides[1].row(at))))
    message = f"{_counted(len(cases), 'id has', 'ids have')} one label in training and another in test"
    return [Finding("ids with two labels", WARNING, len(cases), "id", message, tuple(cases))] if cases else []


def audit_images(train: AuditImages, test: AuditImages | None = None, near: bool = True) -> list[Finding]:
    """Copies: identical files and altered ones, between people, labels, folds, training and test.

    Parameters
    ----------
    near : look for altered copies too; compares every image with every other.
    """
    sides = [train] if test is None else [train, test]
    # Training and test in one numbering: test follows.
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
            f"{_counted(shared, 'test image is', 'test images are')} identical to training images: test scores will "
            "flatter"
        )
        found.append(
            Finding("identical images in training and test", WARNING, len(crossing), "set", message, tuple(crossing))
        )
    if not near:
        message = f"altered copies were not looked for among {len(content):,} images"
        return [*found, Finding("altered copies", NOTE, len(content), "image", message)]
    return found + _near(sides, content, rows)


def _identical(inside: Sequence[tuple[SampleRef, ...]]) -> list[Finding]:
    """Return what sets of identical training images mean, by whose they are."""
    across = [one for one in inside if len({row.person for row in one}) > 1]
    found = []
    if across:
        message = (
            f"{_counted(len(across), 'set of identical images stands', 'sets of identical images stand')} under "
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
            "label: at most one is right"
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
            f"{_counted(len(within), 'set of identical images stands', 'sets of identical images stand')} within one "
            "person: counted more than once"
        )
        found.append(
            Finding("identical images, same person", NOTE, len(within), "set", message, tuple(map(Occurrence, within)))
        )
    return found


def _near(sides: Sequence[AuditImages], content: Sequence[str], rows: Any) -> list[Finding]:
    """Return altered copies, among the first of each identical file (copies of copies are named once)."""
    own = sides[0].table.persons
    # Test images are one group of their own: among each other they harm nobody.
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
            f"{_counted(len(people), 'pair of images is', 'pairs of images are')} altered copies of each other, under "
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
                f"{message}: test scores will flatter",
                tuple(apart),
            )
        )
    if result.flat:
        message = (
            f"{_counted(len(result.flat), 'image shows', 'images show')} next to nothing and could not be compared"
        )
        empty = tuple(Occurrence(rows((int(first[at]),))) for at in result.flat)
        found.append(Finding("images without structure", NOTE, len(result.flat), "image", message, empty))
    if result.left_off:
        message = (
            f"the images are so alike that {result.left_off:,} pairs were left off, the least alike: there may be "
            "more copies"
        )
        found.append(Finding("pairs left off", NOTE, result.left_off, "pair", message))
    return found


def _leak(sets: Iterable[tuple[SampleRef, ...]]) -> str:
    """Return what it means for the scores, where the folds are known."""
    apart = [len({row.fold for row in one}) > 1 for one in sets]
    if not any(apart):
        return ""
    verb = "is" if sum(apart) == 1 else "are"
    return (
        f", {'and ' + verb if all(apart) else f'{sum(apart):,} of them'} in different folds: what is trained on them "
        "is scored on them"
    )


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
