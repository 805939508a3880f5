"""Read the layout of the mask-status competition.

`train/train.csv` has its images in `train/images/<folder>/`, `eval/info.csv` in `eval/images/`. A person is a folder.
Irregularities of the original files are handled: mixed suffixes, AppleDouble files among the images, one id shared by
two people, ids with a suffix, columns that disagree with the folder names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from folds.data.image_folder import is_image, scan_folder, stem_of
from folds.data.raw_columns import MISSING, RawColumns
from folds.errors import EnsembleError, combine_errors
from folds.utils.csv_table import CsvTable, read_csv, read_header

MASKS, GENDERS, AGES = ("wear", "incorrect", "normal"), ("male", "female"), ("<30", "30-59", ">=60")
# class = mask·6 + gender·3 + age; all 18 are declared, also those without a sample.
CLASS_ATTRIBUTES = {
    str(m * 6 + g * 3 + a): {"mask": mask, "gender": gender, "age": age}
    for m, mask in enumerate(MASKS)
    for g, gender in enumerate(GENDERS)
    for a, age in enumerate(AGES)
}
CLASSES = tuple(CLASS_ATTRIBUTES)
STANDARD_STEMS = ("incorrect_mask", "mask1", "mask2", "mask3", "mask4", "mask5", "normal")
COLUMNS = frozenset({"id", "gender", "age", "path"})

_FOLDER = re.compile(r"(?P<id>.+?)_(?P<gender>male|female)_(?P<race>.*)_(?P<age>\d{1,3})", re.IGNORECASE)
_SUFFIXED = re.compile(r"(?P<plain>.+)-\d+")


def class_of(mask: str, gender: str, age: str) -> str:
    """Return the class name for three attribute values."""
    return str(MASKS.index(mask) * 6 + GENDERS.index(gender) * 3 + AGES.index(age))


def age_group(years: int) -> str:
    """Return ``<30``, ``30-59`` or ``>=60``."""
    return AGES[0] if years < 30 else AGES[1] if years < 60 else AGES[2]


def train_folder(data: Path, label: str = "label") -> Path | None:
    """Return the folder with train.csv if `data` is in this layout, else None.

    `data` may be the whole folder, its `train`, or train.csv itself. A table with a column `label`, or
    all columns that it lists, is an ordinary CSV.
    """
    labels = {part.strip() for part in label.split(",")}
    for folder in (data / "train", data) if data.is_dir() else (data.parent,) if data.name == "train.csv" else ():
        header = set(read_header(folder / "train.csv"))
        if header >= COLUMNS and not labels <= header:
            return folder
    return None


def is_evaluation(path: Path) -> Path | None:
    """Return the folder with info.csv if `path` is an evaluation set of this layout, else None.

    `path` may be the whole folder, its `eval`, or info.csv itself.
    """
    for folder in (path / "eval", path) if path.is_dir() else (path.parent,) if path.name == "info.csv" else ():
        if "ImageID" in read_header(folder / "info.csv"):
            return folder
    return None


@dataclass(frozen=True)
class _Person:
    folder: str
    location: str
    id: str
    gender: str
    years: int
    others: dict[str, str]  # further columns, e.g. race


def read_train(folder: Path, source: str, need_images: bool) -> tuple[RawColumns, list[str]]:
    """Return the training samples and notes; ids are ``<folder>/<stem>``.

    If train.csv and the name of a folder disagree about gender or age, the folder name is used, because it stays with
    the images. If ``images/`` is missing and images are not needed, every person has the seven images of the
    competition.

    Raises
    ------
    EnsembleError : a row without a folder, a folder in two rows, an invalid gender or age, two files with one stem.
    """
    table = read_csv(folder / "train.csv", source)
    notes: list[str] = []
    people = _people(table, notes)
    images = folder / "images"
    if not images.is_dir():
        if need_images:
            raise EnsembleError(
                f"the images of {source} are missing: there is no folder {images}",
                hint="unpack the images next to train.csv",
            )
        notes.append(
            f"there is no folder {images}: each person gets the {len(STANDARD_STEMS)} standard images of the "
            "competition"
        )
        files = {person.folder: [(stem, images) for stem in STANDARD_STEMS] for person in people}
    else:
        files = _files(images, people, source, notes)
    ids: list[str] = []
    locations: list[str] = []
    paths: list[Path] = []
    labels: list[str] = []
    persons: list[str] = []
    rows: dict[str, list[str]] = defaultdict(list)
    for person in people:
        age = age_group(person.years)
        stems = [stem for stem, _ in files[person.folder]]
        masks = [_mask_of(stem) or "" for stem in stems]
        ids += [f"{person.folder}/{stem}" for stem in stems]
        locations += [f"{person.location}, {stem}" for stem in stems]
        paths += [path for _, path in files[person.folder]]
        labels += [class_of(mask, person.gender, age) for mask in masks]
        persons += [person.folder] * len(stems)
        rows["mask"] += masks
        for name, value in {"gender": person.gender, "age": age, "years": str(person.years), **person.others}.items():
            rows[name] += [value] * len(stems)
    return RawColumns(source, ids, locations, paths if images.is_dir() else None, labels, persons, dict(rows)), notes


def _people(table: CsvTable, notes: list[str]) -> list[_Person]:
    folders, csv_genders, csv_ages = (table.column(name) for name in ("path", "gender", "age"))
    csv_ids = table.columns.get("id", [""] * len(folders))
    others = {
        name: cells
        for name, cells in table.columns.items()
        if name not in {"id", "path", "gender", "age", "mask", "years"}
    }
    people, problems, disagree = [], [], []
    first: dict[str, str] = {}
    for i, (folder, location) in enumerate(zip(folders, table.location())):
        if folder in MISSING:
            problems.append(f"{location}: no path")
            continue
        if first.setdefault(folder, location) != location:
            problems.append(f"{location}: folder {folder} is also in {first[folder]}")
            continue
        named = _FOLDER.fullmatch(folder)
        gender, years = csv_genders[i].lower(), csv_ages[i].removesuffix(".0")
        if named:
            if (gender, years) != (named["gender"].lower(), str(int(named["age"]))):
                disagree.append(folder)
            gender, years = named["gender"].lower(), named["age"]
        if gender not in GENDERS or not years.isdecimal():
            problems.append(
                f"{location}: expected gender male or female and age a whole number, found '{csv_genders[i]}' and "
                f"'{csv_ages[i]}'"
            )
            continue
        name = named["id"] if named else csv_ids[i] or folder
        people.append(
            _Person(folder, location, name, gender, int(years), {name: cells[i] for name, cells in others.items()})
        )
    if problems:
        raise combine_errors(problems, f"rows of {table.source} cannot be used", "correct or remove these rows")
    if disagree:
        notes.append(
            f"{len(disagree):,} rows of {table.source} disagree with the folder name about gender or age; the folder "
            f"name is used ({_some(disagree)})"
        )
    _note_ids(people, notes)
    return people


def _note_ids(people: list[_Person], notes: list[str]) -> None:
    folders: dict[str, int] = defaultdict(int)
    for person in people:
        folders[person.id] += 1
    for name, count in folders.items():
        if count > 1:
            notes.append(f"id {name} belongs to {count} folders: each folder is one person")
    both = [name for name in folders if (match := _SUFFIXED.fullmatch(name)) and match["plain"] in folders]
    if both:
        notes.append(f"{len(both):,} ids occur with and without a suffix ({_some(both)}): each folder is one person")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _mask_of(stem: str) -> str | None:
    stem = stem.lower()
    return next(
        (
            mask
            for start, mask in (("incorrect", "incorrect"), ("normal", "normal"), ("mask", "wear"))
            if stem.startswith(start)
        ),
        None,
    )


def _files(images: Path, people: list[_Person], source: str, notes: list[str]) -> dict[str, list[tuple[str, Path]]]:
    """Return folder → its (stem, file) pairs, sorted; add notes with the counts of ``._`` and unknown files."""
    listed = [entry.name for entry in scan_folder(images)]
    present = {name for name in listed if not name.startswith(".")}
    files: dict[str, list[tuple[str, Path]]] = {}
    problems, strange, hidden = [], [], sum(name.startswith("._") for name in listed)
    for person in people:
        if person.folder not in present:
            problems.append(f"{person.location}: no folder {images / person.folder}")
            continue
        stems: dict[str, Path] = {}
        for entry in sorted(scan_folder(images / person.folder), key=lambda entry: entry.name):
            stem = stem_of(entry.name)
            if entry.name.startswith("."):
                hidden += entry.name.startswith("._")
            elif not is_image(entry.name) or _mask_of(stem) is None:
                strange.append(f"{person.folder}/{entry.name}")
            elif stem in stems:
                problems.append(f"{person.location}: {person.folder} holds both {stems[stem].name} and {entry.name}")
            else:
                stems[stem] = Path(entry.path)
        if not stems:
            problems.append(f"{person.location}: no images in {images / person.folder}")
        files[person.folder] = sorted(stems.items())
    if problems:
        raise combine_errors(
            problems,
            f"rows of {source} do not match the images",
            "restore the images, or remove these rows from train.csv",
        )
    if hidden:
        notes.append(f"{hidden:,} '._' files skipped")
    if strange:
        notes.append(
            f"{len(strange):,} files not named mask*, incorrect_mask or normal were ignored ({_some(strange)})"
        )
    unnamed = sorted(present - set(files))
    if unnamed:
        notes.append(f"{len(unnamed):,} folders of {images} are not in {source} and were ignored ({_some(unnamed)})")
    return files


def read_evaluation(folder: Path, source: str, need_images: bool) -> tuple[RawColumns, list[str]]:
    """Return the test samples in the order of info.csv, and notes.

    The column `ans` of info.csv is a submission form, never a label. Labels and persons come from ``answers.csv``
    (``ImageID,ans[,person]``) if it exists, matched by ImageID.
    """
    table = read_csv(folder / "info.csv", source)
    ids = table.column("ImageID")
    notes: list[str] = []
    images = folder / "images"
    paths: list[Path] | None = None
    if images.is_dir():
        by_stem = {
            stem_of(entry.name): entry.name
            for entry in scan_folder(images)
            if is_image(entry.name) and entry.name[0] != "."
        }
        paths = [images / (name if is_image(name) else by_stem.get(name, name)) for name in ids]
    elif need_images:
        raise EnsembleError(
            f"the images of {source} are missing: there is no folder {images}",
            hint="unpack the images next to info.csv",
        )
    columns = RawColumns(source, ids, table.location(), paths)
    if (folder / "answers.csv").is_file():
        answers = read_csv(folder / "answers.csv")
        position = {name: i for i, name in enumerate(answers.column("ImageID"))}
        missing = [f"{location}: {name}" for name, location in zip(ids, columns.locations) if name not in position]
        if missing:
            raise combine_errors(
                missing,
                f"of {len(ids):,} images in {source} have no answer in {folder / 'answers.csv'}",
                "complete or remove answers.csv",
            )
        columns.labels = [answers.column("ans")[position[name]] for name in ids]
        if "person" in answers.columns:
            columns.persons = [answers.columns["person"][position[name]] for name in ids]
        for attribute in ("mask", "gender", "age"):
            columns.attributes[attribute] = [
                CLASS_ATTRIBUTES.get(label, {}).get(attribute, "") for label in columns.labels
            ]
        notes.append(f"labels of {source} are from {folder / 'answers.csv'}")
    return columns, notes
