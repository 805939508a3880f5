"""Generate the built-in data: synthetic faces in the layout of the mask competition.

Every person has seven images; the class imbalance is that of the competition. The identity of a person is constant and
visible in every image. Gender and age are visible through weak, noisy cues, and the mask state is clear
(`folds/data/synthetic/faces.py`, `folds/data/synthetic/portraits.py`). So a split by image scores far higher than a
split by person, as with real photographs. The test people are in no fold, so their score shows which estimate is right.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from folds.data.synthetic.faces import AGE_CLASSES, GENDERS, random_face
from folds.data.synthetic.folder import is_complete
from folds.data.synthetic.portraits import MASK_STATES, draw_portrait
from folds.errors import UsageError
from folds.utils.files import cannot_write, derive_seed, read_json, write_atomic, write_json
from folds.utils.locks import exclusive_lock

VERSION = 1  # increased when the images change
MARKER = "people.json"

# The images of one person, and the mask state of each.
SHOTS = {**{f"mask{number}": "wear" for number in range(1, 6)}, "incorrect_mask": "incorrect", "normal": "normal"}

# People of the competition by (gender, age class), GENDERS × AGE_CLASSES: 2,700 in all, 192 of them 60.
_REAL_PEOPLE = (553, 409, 83, 728, 818, 109)
# Ages in the class 30-59: 350 of its 1,227 people are 57, 58 or 59; the others are spread evenly here. All people of
# the class >=60 are exactly 60.
_MIDDLE_AGES = {57: 106, 58: 159, 59: 85, **dict.fromkeys(range(30, 57), (1227 - 350) / 27)}
_RACE = "Drawn"  # a column of the layout, constant as in the original

_APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(38)
_TRAP_EXTENSIONS = ("jpg", "png", "jpg", "jpeg", "jpg")


@dataclass(frozen=True)
class SyntheticSpec:
    """Settings that determine the images; written to the marker file, so that a folder records its content."""

    people: int
    test_people: int
    seed: int
    size: tuple[int, int]
    traps: bool
    version: int = VERSION
    wrong_labels: int = 0


@dataclass(frozen=True)
class SyntheticPerson:
    """One person of one part ("train" or "test"): `number` from 0, `name` in the files, and the true attributes."""

    part: str
    number: int
    name: str
    gender: int
    age_class: int
    age: int
    shown: tuple[int, int] | None = None  # gender and age class in the images, if the label is a wrong one

    @property
    def folder(self) -> str:
        """Return the name of the image folder."""
        return f"{self.name}_{GENDERS[self.gender]}_{_RACE}_{self.age}"

    def label(self, shot: str) -> int:
        """Return the class of one image, 0 … 17."""
        return MASK_STATES.index(SHOTS[shot]) * 6 + self.gender * 3 + self.age_class


def generate_people(
    folder: Path,
    *,
    people: int = 150,
    test_people: int = 60,
    seed: int = 0,
    size: tuple[int, int] = (96, 128),
    traps: bool = False,
    wrong_labels: int = 0,
) -> Path:
    """Write images of synthetic people into `folder`; the same arguments give the same bytes.

    A folder that already holds these people is left unchanged. An interrupted folder is written again. ``people.json``
    marks the state: it has ``"complete": false`` before the first image and ``true`` after the last.

    Parameters
    ----------
    people, test_people : numbers of training people (7 images each) and of test people, who are in no fold. The six
        classes of person (gender × age) have the proportions of the competition, rounded by the largest remainder, with
        at least one person each from 6 people on. With 150 people the rarest class, old men, has a quota of 4.61 and
        gets 5 people: one for each of five folds.
    seed : random seed of the people.
    size : width and height of an image in pixels; the default is the competition's 384 × 512, halved twice.
    traps : add the irregularities of the original files: jpg, png and jpeg mixed, AppleDouble ``._*`` files among the
        images, one id twice with different ages, ids with the suffix ``-1`` (one of them without the plain id).
    wrong_labels : 0, 2 or 3 training people whose gender and age are exchanged in a circle, so that all their labels
        are wrong: `wrongly_labeled` names them, and the images are those without it.

    Returns
    -------
    `folder`, which then holds::

        train/train.csv      id,gender,race,age,path
        train/images/<id>_<gender>_<race>_<age>/{mask1 … mask5,incorrect_mask,normal}.jpg
        eval/info.csv        ImageID,ans: the submission to fill in, every answer 0; an ImageID is a file name
        eval/images/<ImageID>
        eval/answers.csv     ImageID,ans,person: the true labels of the test people, in the order of info.csv

    Raises
    ------
    UsageError : numbers or size out of range.
    EnsembleError : the folder holds other files, or people with other settings; it is left unchanged.
    """
    folder = Path(folder)
    spec = SyntheticSpec(people, test_people, seed, (int(size[0]), int(size[1])), traps, wrong_labels=wrong_labels)
    _check(spec)
    if _is_complete(folder, spec):
        return folder
    try:
        # The lock keeps two processes from writing the same people at once.
        with exclusive_lock(folder / ".people.lock", f"the generation of synthetic faces in {folder}"):
            if not _is_complete(folder, spec):
                _mark(folder, spec, complete=False)
                _write_train(folder / "train", spec)
                _write_test(folder / "eval", spec)
                _mark(folder, spec, complete=True)
    except OSError as error:
        raise cannot_write(Path(error.filename or folder), error) from error
    return folder


def drawn_counts(folder: Path) -> dict[str, int]:
    """Return the numbers of people and wrong labels in the marker of a folder, as arguments of `generate_people`."""
    marker = Path(folder) / MARKER
    found = read_json(marker) if marker.is_file() else {}
    names = ("people", "test_people", "wrong_labels") if isinstance(found, dict) else ()
    counts = {name: found.get(name) for name in names}
    return {name: count for name, count in counts.items() if isinstance(count, int)}


def synthetic_people(spec: SyntheticSpec, part: str) -> list[SyntheticPerson]:
    """Return the people of a part, "train" or "test": names, genders and ages, without images.

    Ages below 30 are uniform on 18 … 29; ages in the class 30-59 have the competition's skew towards 57 … 59; all other
    people are 60.
    """
    counts = apportion(spec.people if part == "train" else spec.test_people)
    rng = np.random.default_rng(derive_seed(spec.seed, "people", part))
    kinds = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    middle = np.array(list(_MIDDLE_AGES.values())) / sum(_MIDDLE_AGES.values())
    drawn = []
    for number, kind in enumerate(kinds.tolist()):
        gender, age_class = divmod(kind, len(AGE_CLASSES))
        age = (int(rng.integers(18, 30)), int(rng.choice(list(_MIDDLE_AGES), p=middle)), 60)[age_class]
        name = f"{number + 1:06d}" if part == "train" else f"test-{number + 1:04d}"
        drawn.append(SyntheticPerson(part, number, name, gender, age_class, age))
    if part == "train" and spec.wrong_labels:
        drawn = _with_wrong_labels(drawn, spec)
    return _with_trapped_names(drawn) if spec.traps and part == "train" else drawn


def wrongly_labeled(spec: SyntheticSpec) -> list[SyntheticPerson]:
    """Return the training people whose labels are wrong; `shown` is what their images show."""
    return [person for person in synthetic_people(spec, "train") if person.shown is not None]


def apportion(people: int) -> list[int]:
    """Return the number of people in each class, in the order male <30, 30-59, >=60, female <30, 30-59, >=60.

    Largest remainder (Hamilton's method) on the competition's counts. From 6 people on, an empty class gets one person
    from the largest class.
    """
    quotas = [people * count / sum(_REAL_PEOPLE) for count in _REAL_PEOPLE]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda kind: (counts[kind] - quotas[kind], kind))
    for kind in by_remainder[: people - sum(counts)]:
        counts[kind] += 1
    while people >= len(counts) and 0 in counts:
        counts[counts.index(max(counts))] -= 1
        counts[counts.index(0)] += 1
    return counts


def _check(spec: SyntheticSpec) -> None:
    if spec.people < 1 or spec.test_people < 0:
        raise UsageError(
            f"`people` must be 1 or more and `test_people` 0 or more, found {spec.people} and {spec.test_people}"
        )
    if min(spec.size) < 16:
        raise UsageError(f"`size` must be at least 16 × 16 pixels, found {spec.size[0]} × {spec.size[1]}")
    if spec.wrong_labels not in (0, 2, 3):
        raise UsageError(f"`wrong_labels` must be 0, 2 or 3, found {spec.wrong_labels}")
    if spec.wrong_labels and spec.people < 12:
        raise UsageError(f"`people` must be 12 or more with `wrong_labels`, found {spec.people}")
    if spec.traps and spec.people < 12:
        raise UsageError(f"`people` must be 12 or more with `traps`, found {spec.people}")


def _is_complete(folder: Path, spec: SyntheticSpec) -> bool:
    expected = _marker(spec, complete=True) | {"wrong_labels": spec.wrong_labels}
    return is_complete(folder, MARKER, expected, "synthetic faces", {"wrong_labels": 0})


def _marker(spec: SyntheticSpec, complete: bool) -> dict[str, object]:
    fields = asdict(spec)
    if not spec.wrong_labels:
        del fields["wrong_labels"]  # as in the folders of earlier versions
    # "what" keeps its wording: it identifies folders that exist already.
    return {"what": "people drawn by the program", **fields, "size": list(spec.size), "complete": complete}


def _mark(folder: Path, spec: SyntheticSpec, complete: bool) -> None:
    write_json(folder / MARKER, _marker(spec, complete))


def _write_train(folder: Path, spec: SyntheticSpec) -> None:
    rows = ["id,gender,race,age,path"]
    for person in synthetic_people(spec, "train"):
        rows.append(f"{person.name},{GENDERS[person.gender]},{_RACE},{person.age},{person.folder}")
        images = folder / "images" / person.folder
        images.mkdir(parents=True, exist_ok=True)
        for position, (shot, picture) in enumerate(_pictures(person, spec)):
            extension = _TRAP_EXTENSIONS[(person.number + position) % len(_TRAP_EXTENSIONS)] if spec.traps else "jpg"
            (images / f"{shot}.{extension}").write_bytes(_encoded(picture, extension))
        if spec.traps and person.number % 4 == 0:
            (images / "._normal.jpg").write_bytes(_APPLE_DOUBLE)
            images.with_name(f"._{person.folder}").write_bytes(_APPLE_DOUBLE)
    write_atomic(folder / "train.csv", "\n".join(rows) + "\n")


def _write_test(folder: Path, spec: SyntheticSpec) -> None:
    answers = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for person in synthetic_people(spec, "test"):
        for shot, picture in _pictures(person, spec):
            # Hashes, as in the original: neither names nor their order reveal which images show the same person.
            digest = hashlib.sha256(f"{spec.seed}/{person.name}/{shot}".encode()).hexdigest()
            image_id = f"{digest[:40]}.jpg"
            (folder / "images" / image_id).write_bytes(_encoded(picture, "jpg"))
            answers.append((image_id, person.label(shot), person.name))
    answers.sort()
    if spec.traps and answers:
        (folder / "images" / f"._{answers[0][0]}").write_bytes(_APPLE_DOUBLE)
    write_atomic(
        folder / "answers.csv",
        "".join(["ImageID,ans,person\n", *(f"{name},{label},{person}\n" for name, label, person in answers)]),
    )
    write_atomic(folder / "info.csv", "".join(["ImageID,ans\n", *(f"{name},0\n" for name, _, _ in answers)]))


def _pictures(person: SyntheticPerson, spec: SyntheticSpec) -> Iterator[tuple[str, Image.Image]]:
    stream = (spec.seed, "people", person.part, person.number)
    shown = person.shown or (person.gender, person.age_class)
    face = random_face(*shown, np.random.default_rng(derive_seed(*stream)))
    for shot, state in SHOTS.items():
        yield shot, draw_portrait(face, state, np.random.default_rng(derive_seed(*stream, shot)), spec.size)


def _encoded(picture: Image.Image, extension: str) -> bytes:
    buffer = io.BytesIO()
    if extension == "png":
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _with_wrong_labels(drawn: list[SyntheticPerson], spec: SyntheticSpec) -> list[SyntheticPerson]:
    """Return the people with gender and age exchanged in a circle among some, of the classes with most people."""
    kinds = sorted({(one.gender, one.age_class) for one in drawn})
    count = {kind: sum((one.gender, one.age_class) == kind for one in drawn) for kind in kinds}
    largest = sorted(kinds, key=lambda kind: (-count[kind], kind))[: spec.wrong_labels]
    rng = np.random.default_rng(derive_seed(spec.seed, "wrong labels"))
    chosen = [int(rng.choice([one.number for one in drawn if (one.gender, one.age_class) == kind])) for kind in largest]
    changed = {
        number: replace(
            drawn[number],
            gender=drawn[other].gender,
            age_class=drawn[other].age_class,
            age=drawn[other].age,
            shown=(drawn[number].gender, drawn[number].age_class),
        )
        for number, other in zip(chosen, [*chosen[1:], chosen[0]], strict=True)
    }
    return [changed.get(person.number, person) for person in drawn]


def _with_trapped_names(drawn: list[SyntheticPerson]) -> list[SyntheticPerson]:
    """Return the people with two young women of different ages sharing an id, and two others having a suffixed id."""
    twins = [person.number for person in drawn if (person.gender, person.age_class) == (1, 0)][:2]
    plain, suffixed, alone = [person.number for person in drawn if person.number not in twins][:3]
    renamed = {
        twins[0]: replace(drawn[twins[0]], age=20),
        twins[1]: replace(drawn[twins[1]], age=19, name=drawn[twins[0]].name),
        suffixed: replace(drawn[suffixed], name=f"{drawn[plain].name}-1"),
        alone: replace(drawn[alone], name=f"{drawn[alone].name}-1"),
    }
    return [renamed.get(person.number, person) for person in drawn]
