"""The built-in data: people drawn by the program, in the layout of the mask competition (the embedded default).

Seven pictures a person, in the competition's real imbalance. Who a person is shows in every picture and is constant;
gender and age
show through weak, noisy cues; the mask state is clear (`folds/data/synthetic/faces.py`,
`folds/data/synthetic/portraits.py`). So a split by image looks far better than a split by
person, as in life, and the test people, whom no fold ever sees, tell which of the two was right.
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
from folds.data.synthetic.portraits import MASK_STATES, draw_portrait
from folds.errors import EnsembleError, UsageError
from folds.utils.files import cannot_write, derive_seed, read_json, write_atomic, write_json
from folds.utils.locks import exclusive_lock

VERSION = 1  # raised when the pictures change
MARKER = "people.json"

# The pictures of one person, and the mask state of each.
SHOTS = {**{f"mask{number}": "wear" for number in range(1, 6)}, "incorrect_mask": "incorrect", "normal": "normal"}

# People of the competition by (gender, age class), GENDERS × AGE_CLASSES: 2,700 in all, 192 of them 60.
_REAL_PEOPLE = (553, 409, 83, 728, 818, 109)
# Their ages: the old are all exactly 60; 350 of the 1,227 in the middle are 57, 58 or 59; the rest is spread evenly
# here.
_MIDDLE_AGES = {57: 106, 58: 159, 59: 85, **dict.fromkeys(range(30, 57), (1227 - 350) / 27)}
_RACE = "Drawn"  # a column of the layout, constant as in the original; nobody drawn has one

_APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(38)
_TRAP_EXTENSIONS = ("jpg", "png", "jpg", "jpeg", "jpg")


@dataclass(frozen=True)
class SyntheticSpec:
    """What the pictures follow from; kept in the marker, so that a folder can say what it holds."""

    people: int
    test_people: int
    seed: int
    size: tuple[int, int]
    traps: bool
    version: int = VERSION


@dataclass(frozen=True)
class SyntheticPerson:
    """One person of one part ("train" or "test"): `number` from 0, the name used in the files, and the truth."""

    part: str
    number: int
    name: str
    gender: int
    age_class: int
    age: int

    @property
    def folder(self) -> str:
        return f"{self.name}_{GENDERS[self.gender]}_{_RACE}_{self.age}"

    def label(self, shot: str) -> int:
        """The class of one picture, 0 … 17."""
        return MASK_STATES.index(SHOTS[shot]) * 6 + self.gender * 3 + self.age_class


def generate_people(
    folder: Path,
    *,
    people: int = 150,
    test_people: int = 60,
    seed: int = 0,
    size: tuple[int, int] = (96, 128),
    traps: bool = False,
) -> Path:
    """Draw people into `folder`; the same arguments give the same bytes.

    A folder that holds these very people is left as it is. One whose drawing was cut off is drawn again.
    ``people.json`` says which:
    it stands there with ``"complete": false`` before the first picture, and with ``true`` after the last one.

    Parameters
    ----------
    people, test_people : how many people to train on (7 pictures each) and how many the folds never see.
        The six classes of person (gender × age) are shared out as in the competition by the largest remainder, at least
        one of each
        from 6 people on. With 150 people the rarest class, old men, would have 4.61 and gets 5: one for each of five
        folds.
    seed : draws other people.
    size : width and height of a picture in pixels; the default is the competition's 384 × 512 halved twice.
    traps : add what is wrong in the original files: jpg, png and jpeg side by side, AppleDouble ``._*`` files among the
        images, one id twice with different ages, ids with the suffix ``-1`` (one of them without the plain id).

    Returns
    -------
    `folder`, which then holds::

        train/train.csv      id,gender,race,age,path
        train/images/<id>_<gender>_<race>_<age>/{mask1 … mask5,incorrect_mask,normal}.jpg
        eval/info.csv        ImageID,ans: the submission to fill in, every answer 0; an ImageID is a file name
        eval/images/<ImageID>
        eval/answers.csv     ImageID,ans,person: the truth about the test people, in the order of info.csv

    Raises
    ------
    EnsembleError : the folder holds other files, or people drawn otherwise; nothing of it is touched.
    """
    folder = Path(folder)
    drawing = SyntheticSpec(people, test_people, seed, (int(size[0]), int(size[1])), traps)
    _check(drawing)
    if _is_complete(folder, drawing):
        return folder
    try:
        # Two processes that want the people at once must not both draw.
        with exclusive_lock(folder / ".people.lock", f"the drawing of people in {folder}"):
            if not _is_complete(folder, drawing):
                _mark(folder, drawing, complete=False)
                _draw_train(folder / "train", drawing)
                _draw_test(folder / "eval", drawing)
                _mark(folder, drawing, complete=True)
    except OSError as error:
        raise cannot_write(Path(error.filename or folder), error) from error
    return folder


def drawn_counts(folder: Path) -> dict[str, int]:
    """Return how many people a folder says it holds, as arguments of `generate_people`; {} where it says nothing."""
    marker = Path(folder) / MARKER
    found = read_json(marker) if marker.is_file() else {}
    counts = {name: found.get(name) for name in ("people", "test_people")} if isinstance(found, dict) else {}
    return {name: count for name, count in counts.items() if isinstance(count, int)}


def synthetic_people(drawing: SyntheticSpec, part: str) -> list[SyntheticPerson]:
    """Who is drawn in a part, "train" or "test", before any picture is: names, genders and ages.

    Ages below 30 are drawn from 18 … 29, those in the middle from the competition's skew towards 57 … 59; the old are
    all 60.
    """
    counts = apportion(drawing.people if part == "train" else drawing.test_people)
    rng = np.random.default_rng(derive_seed(drawing.seed, "people", part))
    kinds = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    middle = np.array(list(_MIDDLE_AGES.values())) / sum(_MIDDLE_AGES.values())
    drawn = []
    for number, kind in enumerate(kinds.tolist()):
        gender, age_class = divmod(kind, len(AGE_CLASSES))
        age = (int(rng.integers(18, 30)), int(rng.choice(list(_MIDDLE_AGES), p=middle)), 60)[age_class]
        name = f"{number + 1:06d}" if part == "train" else f"test-{number + 1:04d}"
        drawn.append(SyntheticPerson(part, number, name, gender, age_class, age))
    return _with_trapped_names(drawn) if drawing.traps and part == "train" else drawn


def apportion(people: int) -> list[int]:
    """How many of `people` are in each class of person, in the order male <30, 30-59, >=60, female <30, 30-59, >=60.

    Largest remainder (Hamilton's method) on the competition's counts; from 6 people on an empty class takes one from
    the fullest.
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


def _check(drawing: SyntheticSpec) -> None:
    if drawing.people < 1 or drawing.test_people < 0:
        raise UsageError(
            f"expected at least 1 person and no fewer than 0 test people, got {drawing.people} and "
            f"{drawing.test_people}"
        )
    if min(drawing.size) < 16:
        raise UsageError(f"expected a picture of at least 16 × 16 pixels, got {drawing.size[0]} × {drawing.size[1]}")
    if drawing.traps and drawing.people < 12:
        raise UsageError(f"expected at least 12 people to set the traps among, got {drawing.people}")


def _is_complete(folder: Path, drawing: SyntheticSpec) -> bool:
    """Whether the people are there already; False for a new, an empty and a half-drawn folder, an error for any
    other.
    """
    marker = folder / MARKER
    if not marker.exists():
        if folder.exists() and not folder.is_dir():
            raise EnsembleError(
                f"expected a folder to draw people in, found the file {folder}", hint="give another name"
            )
        # What a kill before the first marker leaves behind: the lock, a temporary marker.
        others = (
            sorted(path.name for path in folder.iterdir() if not path.name.startswith(".people."))
            if folder.exists()
            else []
        )
        if others:
            raise EnsembleError(
                f"expected a new or empty folder to draw people in, found {others[0]} in {folder}",
                hint="give another folder",
            )
        return False
    found = read_json(marker)
    found = found if isinstance(found, dict) else {}
    expected = _marker(drawing, complete=True)
    different = [
        f"{name}: {found.get(name)} there, {value} asked for"
        for name, value in expected.items()
        if name != "complete" and found.get(name) != value
    ]
    if different:
        hint = "give another folder, or remove this one to have them drawn again"
        raise EnsembleError(f"{folder} holds people that were drawn otherwise", hint=hint, details=different)
    return found["complete"] is True


def _marker(drawing: SyntheticSpec, complete: bool) -> dict[str, object]:
    fields = asdict(drawing)
    return {"what": "people drawn by the program", **fields, "size": list(drawing.size), "complete": complete}


def _mark(folder: Path, drawing: SyntheticSpec, complete: bool) -> None:
    write_json(folder / MARKER, _marker(drawing, complete))


def _draw_train(folder: Path, drawing: SyntheticSpec) -> None:
    rows = ["id,gender,race,age,path"]
    for person in synthetic_people(drawing, "train"):
        rows.append(f"{person.name},{GENDERS[person.gender]},{_RACE},{person.age},{person.folder}")
        images = folder / "images" / person.folder
        images.mkdir(parents=True, exist_ok=True)
        for position, (shot, picture) in enumerate(_pictures(person, drawing)):
            extension = _TRAP_EXTENSIONS[(person.number + position) % len(_TRAP_EXTENSIONS)] if drawing.traps else "jpg"
            (images / f"{shot}.{extension}").write_bytes(_encoded(picture, extension))
        if drawing.traps and person.number % 4 == 0:
            (images / "._normal.jpg").write_bytes(_APPLE_DOUBLE)
            images.with_name(f"._{person.folder}").write_bytes(_APPLE_DOUBLE)
    write_atomic(folder / "train.csv", "\n".join(rows) + "\n")


def _draw_test(folder: Path, drawing: SyntheticSpec) -> None:
    answers = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for person in synthetic_people(drawing, "test"):
        for shot, picture in _pictures(person, drawing):
            # Hashes, as in the original: neither a name nor the order tells which pictures are of one person.
            digest = hashlib.sha256(f"{drawing.seed}/{person.name}/{shot}".encode()).hexdigest()
            image_id = f"{digest[:40]}.jpg"
            (folder / "images" / image_id).write_bytes(_encoded(picture, "jpg"))
            answers.append((image_id, person.label(shot), person.name))
    answers.sort()
    if drawing.traps and answers:
        (folder / "images" / f"._{answers[0][0]}").write_bytes(_APPLE_DOUBLE)
    write_atomic(
        folder / "answers.csv",
        "".join(["ImageID,ans,person\n", *(f"{name},{label},{person}\n" for name, label, person in answers)]),
    )
    write_atomic(folder / "info.csv", "".join(["ImageID,ans\n", *(f"{name},0\n" for name, _, _ in answers)]))


def _pictures(person: SyntheticPerson, drawing: SyntheticSpec) -> Iterator[tuple[str, Image.Image]]:
    stream = (drawing.seed, "people", person.part, person.number)
    face = random_face(person.gender, person.age_class, np.random.default_rng(derive_seed(*stream)))
    for shot, state in SHOTS.items():
        yield shot, draw_portrait(face, state, np.random.default_rng(derive_seed(*stream, shot)), drawing.size)


def _encoded(picture: Image.Image, extension: str) -> bytes:
    buffer = io.BytesIO()
    if extension == "png":
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _with_trapped_names(drawn: list[SyntheticPerson]) -> list[SyntheticPerson]:
    """The same people, but two young women share an id at different ages, and two others have an id with a suffix."""
    twins = [person.number for person in drawn if (person.gender, person.age_class) == (1, 0)][:2]
    plain, suffixed, alone = [person.number for person in drawn if person.number not in twins][:3]
    renamed = {
        twins[0]: replace(drawn[twins[0]], age=20),
        twins[1]: replace(drawn[twins[1]], age=19, name=drawn[twins[0]].name),
        suffixed: replace(drawn[suffixed], name=f"{drawn[plain].name}-1"),
        alone: replace(drawn[alone], name=f"{drawn[alone].name}-1"),
    }
    return [renamed.get(person.number, person) for person in drawn]
