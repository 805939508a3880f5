"""Generate people whose images have several labels, a grade, an age in years and a site, all of them known.

Every image shows what its row says: a hat, glasses, a beard and a scarf, which co-occur; a grade from 0 to 4, as spots
on the skin, whose number and size grow; and an age, by noisy cues. People are of three sites with colors and a mix of
labels of their own. The test people are others than those for training, drawn in the same way.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from folds.data.synthetic.faces import GENDERS, Face, hsv, mix, random_face_of_age, shade
from folds.data.synthetic.folder import is_complete
from folds.data.synthetic.portraits import draw_portrait
from folds.data.synthetic.worn import Worn
from folds.errors import UsageError
from folds.utils.arguments import NUMBER, PATH, check_arguments, whole
from folds.utils.csv_table import csv_text
from folds.utils.files import cannot_write, derive_seed, write_atomic, write_json
from folds.utils.locks import exclusive_lock

VERSION = 1  # increased when the images change
MARKER = "labeled_people.json"
ACCESSORIES = ("hat", "glasses", "beard", "scarf")
SITES = ("north", "south", "east")
GRADES = 5

# By site: share of the people, color of the camera, cold weather (hats, scarves), and shares of the grades.
_SHARES = (0.5, 0.3, 0.2)
_TINTS = ((1.05, 1.0, 0.95), (0.94, 1.0, 1.07), (0.86, 0.9, 0.84))
_COLD = (0.7, -0.7, 0.2)
_OF_GRADE = ((0.58, 0.2, 0.12, 0.07, 0.03), (0.44, 0.22, 0.17, 0.11, 0.06), (0.25, 0.22, 0.23, 0.17, 0.13))
_YOUNGEST, _OLDEST = 18, 80
_SPOTS_PER_GRADE = 4
_DARK = (48.0, 38.0, 34.0)  # of a beard


@dataclass(frozen=True)
class LabeledSpec:
    """Settings that determine the people; written to the marker file of their folder."""

    people: int
    test_people: int
    images: int
    seed: int
    size: tuple[int, int]
    missing: float
    version: int = VERSION


@dataclass(frozen=True)
class LabeledImage:
    """One image of a person, and what it shows: `accessories` has 0 or 1 for each of `ACCESSORIES`."""

    id: str
    person: str
    site: str
    sex: str
    age: float
    severity: int
    accessories: tuple[int, ...]
    face: Face
    worn: Worn


def make_people(
    folder: str | Path,
    *,
    people: int = 150,
    test_people: int = 60,
    images: int = 6,
    seed: int = 0,
    size: tuple[int, int] = (96, 128),
    missing: float = 0.0,
) -> Path:
    """Write images of people with several labels, a grade, an age and a site; the same arguments give the same bytes.

    A folder that already holds these people is left unchanged, and an interrupted one is written again.

    Parameters
    ----------
    folder : a new or empty folder.
    people, test_people : numbers of people for training and for testing.
    images : images of each person.
    seed : random seed of the people.
    size : width and height of an image in pixels.
    missing : share of the cells of accessories that are empty in ``train.csv``, drawn at random; the images and
        ``truth.csv`` have all of them. A row keeps one of its cells or more.

    Returns
    -------
    `folder`, which then holds ``train.csv`` and ``test.csv`` (columns id, path, person, site, sex, age, severity, hat,
    glasses, beard, scarf), ``truth.csv`` (train.csv without missing cells) and ``images/``

    Raises
    ------
    UsageError : a number is out of range.
    EnsembleError : the folder holds other files, or people with other settings.

    Examples
    --------
    >>> import folds
    >>> folder = folds.make_people("people", people=4, test_people=0, images=2, size=(24, 32))
    >>> table = folds.read_table(folder / "train.csv", label="hat,glasses,beard,scarf", task="multilabel")
    >>> len(table.train), table.train.classes
    (8, ('hat', 'glasses', 'beard', 'scarf'))
    """
    kinds = {"people": whole(1), "test_people": whole(0), "images": whole(1), "seed": whole(0)}
    check_arguments(locals(), {"folder": PATH, **kinds, "missing": NUMBER})
    if not 0 <= missing < 1:
        raise UsageError(f"`missing` must be from 0 to below 1, found {missing:g}")
    spec = LabeledSpec(people, test_people, images, seed, (int(size[0]), int(size[1])), float(missing))
    if min(spec.size) < 16:
        raise UsageError(f"`size` must be at least 16 × 16 pixels, found {spec.size[0]} × {spec.size[1]}")
    folder = Path(folder)
    if is_complete(folder, MARKER, _marker(spec, complete=True), "synthetic people"):
        return folder
    try:
        with exclusive_lock(folder / ".people.lock", f"the generation of people in {folder}"):
            if not is_complete(folder, MARKER, _marker(spec, complete=True), "synthetic people"):
                _write(folder, spec)
    except OSError as error:
        raise cannot_write(Path(error.filename or folder), error) from error
    return folder


def labeled_images(spec: LabeledSpec, part: str) -> Iterator[LabeledImage]:
    """Yield the images of a part, "train" or "test", person by person, without drawing them."""
    for number in range(spec.people if part == "train" else spec.test_people):
        yield from _images_of(spec, part, number)


def _images_of(spec: LabeledSpec, part: str, number: int) -> Iterator[LabeledImage]:
    rng = np.random.default_rng(derive_seed(spec.seed, "labeled people", part, number))
    site = int(rng.choice(len(SITES), p=_SHARES))
    gender = int(rng.integers(2))
    age = round(float(rng.uniform(_YOUNGEST, _OLDEST)), 1)
    severity = int(rng.choice(GRADES, p=_OF_GRADE[site]))
    outdoors = float(rng.normal())
    wears_glasses = rng.random() < 0.15 + 0.006 * (age - _YOUNGEST)
    is_bearded = gender == 0 and rng.random() < 0.5 + 0.1 * np.tanh(outdoors)
    face = random_face_of_age(gender, age, rng)
    hat, scarf = (hsv(rng.random(), rng.uniform(0.5, 0.9), rng.uniform(0.35, 0.85)) for _ in range(2))
    glasses = int(rng.integers(1, 3))
    beard = mix(shade(face.hair, 0.55), _DARK, float(rng.uniform(0.3, 0.7)))
    places = _places(face, rng)
    name = f"{'p' if part == 'train' else 't'}{number + 1:04d}"
    for shot in range(spec.images):
        cold = _COLD[site] + 0.7 * outdoors + 1.1 * float(rng.normal())  # of the day: hats and scarves come together
        worn = (
            int(cold + 0.6 * float(rng.normal()) > 0.9),
            int(wears_glasses and rng.random() < 0.85),
            int(is_bearded and rng.random() < 0.95),
            int(cold + 0.6 * float(rng.normal()) > 1.3),
        )
        count = min(_SPOTS_PER_GRADE * severity + int(rng.integers(-1, 2)) * (severity > 0), len(places))
        radius = 1.2 + 0.45 * severity
        yield LabeledImage(
            f"{name}_{shot}",
            name,
            SITES[site],
            GENDERS[gender],
            age,
            severity,
            worn,
            replace(face, glasses=glasses * worn[1], beard=0.0),
            Worn(
                hat if worn[0] else None,
                scarf if worn[3] else None,
                beard if worn[2] else None,
                tuple((x, y, radius * scale) for x, y, scale in places[:count]),
                0.6 + 0.08 * severity,
                _TINTS[site],
            ),
        )


def _places(face: Face, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Return (x, y, scale of the radius) of the spots of a person, most of them on the cheeks, in random order."""
    found: list[tuple[float, float, float]] = []
    for _ in range(_SPOTS_PER_GRADE * (GRADES - 1) + 1):
        side = -1 if rng.random() < 0.5 else 1
        x, y = side * rng.uniform(0.25, 0.8) * face.half_width, rng.uniform(0.1, 0.55) * face.half_height
        if rng.random() < 0.3:
            x, y = rng.uniform(-0.6, 0.6) * face.half_width, rng.uniform(-0.42, -0.3) * face.half_height
        found.append((float(x), float(y), float(rng.uniform(0.8, 1.2))))
    return found


def _marker(spec: LabeledSpec, complete: bool) -> dict[str, object]:
    return {"what": "people with labels, drawn by the program", **asdict(spec), "size": list(spec.size)} | {
        "complete": complete
    }


def _write(folder: Path, spec: LabeledSpec) -> None:
    write_json(folder / MARKER, _marker(spec, complete=False))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        every = list(labeled_images(spec, part))
        for one in every:
            stream = derive_seed(spec.seed, "labeled people", part, one.id, "image")
            picture = draw_portrait(one.face, "normal", np.random.default_rng(stream), spec.size, one.worn)
            (folder / _path(one)).write_bytes(_jpeg(picture))
        if part == "train":
            write_atomic(folder / "truth.csv", _table(every))
        write_atomic(folder / f"{part}.csv", _table(every, _missing(every, spec) if part == "train" else None))
    write_json(folder / MARKER, _marker(spec, complete=True))


def _path(image: LabeledImage) -> str:
    return f"images/{image.id}.jpg"


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _missing(images: Sequence[LabeledImage], spec: LabeledSpec) -> np.ndarray:
    """Return (n, accessories): whether the cell is empty; at least one of a row is not."""
    rng = np.random.default_rng(derive_seed(spec.seed, "labeled people", "missing"))
    drawn = rng.random((len(images), len(ACCESSORIES)))
    return (drawn < spec.missing) & (drawn < drawn.max(axis=1, keepdims=True))


def _table(images: Sequence[LabeledImage], missing: np.ndarray | None = None) -> str:
    columns: dict[str, list[str]] = {
        "id": [one.id for one in images],
        "path": [_path(one) for one in images],
        **{name: [str(getattr(one, name)) for one in images] for name in ("person", "site", "sex", "age", "severity")},
    }
    for at, name in enumerate(ACCESSORIES):
        columns[name] = [
            "" if missing is not None and missing[row, at] else str(one.accessories[at])
            for row, one in enumerate(images)
        ]
    return csv_text(columns)
