"""The layout of the mask-status competition: `train/train.csv` with `train/images/<folder>/`, `eval/info.csv` with
`eval/images/`.

Its traps are handled here: mixed suffixes, AppleDouble files among the images, an id that two people share, ids with a
suffix, columns that disagree with the folder names. A person is a folder.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from folds.data.image_folder import entries_of, is_image, stem_of
from folds.data.table import MISSING, RawColumns
from folds.errors import EnsembleError, combine_errors
from folds.utils.csv_table import CsvTable, read_csv, read_header

MASKS, GENDERS, AGES = ("wear", "incorrect", "normal"), ("male", "female"), ("<30", "30-59", ">=60")
# class = mask·6 + gender·3 + age; all 18 are declared, whether or not anybody has them.
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
    """The class name of three attribute values."""
    return str(MASKS.index(mask) * 6 + GENDERS.index(gender) * 3 + AGES.index(age))


def age_group(years: int) -> str:
    """``<30``, ``30-59`` or ``>=60``."""
    return AGES[0] if years < 30 else AGES[1] if years < 60 else AGES[2]


def train_folder(data: Path, label: str = "label") -> Path | None:
    """The folder with train.csv, where `data` (the whole folder, its `train`, or train.csv itself) is in this layout.

    A table that names the labels itself, in column `label`, is an ordinary one.
    """
    for folder in (data / "train", data) if data.is_dir() else (data.parent,) if data.name == "train.csv" else ():
        header = set(read_header(folder / "train.csv"))
        if header >= COLUMNS and label not in header:
            return folder
    return None


def is_evaluation(path: Path) -> Path | None:
    """The folder with info.csv, where `path` (the whole folder, its `eval`, or info.csv itself) names one."""
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
    """The training samples and notes; ids are ``<folder>/<stem>``.

    Where train.csv and a folder's name disagree about gender or age, the name wins: it travels with the images. Without
    ``images/`` (and where images are not needed) every person has the seven images of the competition.

    Raises
    ------
    EnsembleError : a row without a folder, a folder named twice, an unusable gender or age, two files of one stem.
    """
    table = read_csv(folder / "train.csv", source)
    notes: list[str] = []
    people = _people(table, notes)
    images = folder / "images"
    if not images.is_dir():
        if need_images:
            raise EnsembleError(
                f"{source} is there, its images are not: no folder {images}", hint="unpack the images beside train.csv"
            )
        notes.append(
            f"no folder {images}: each person is taken to have the {len(STANDARD_STEMS)} images of the competition"
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
    for i, (folder, where) in enumerate(zip(folders, table.location())):
        if folder in MISSING:
            problems.append(f"{where}: no path")
            continue
        if first.setdefault(folder, where) != where:
            problems.append(f"{where}: folder {folder} is named in {first[folder]} too")
            continue
        named = _FOLDER.fullmatch(folder)
        gender, years = csv_genders[i].lower(), csv_ages[i].removesuffix(".0")
        if named:
            if (gender, years) != (named["gender"].lower(), str(int(named["age"]))):
                disagree.append(folder)
            gender, years = named["gender"].lower(), named["age"]
        if gender not in GENDERS or not years.isdecimal():
            problems.append(
                f"{where}: gender '{csv_genders[i]}' and age '{csv_ages[i]}', expected male or female and a whole "
                "number"
            )
            continue
        name = named["id"] if named else csv_ids[i] or folder
        people.append(
            _Person(folder, where, name, gender, int(years), {name: cells[i] for name, cells in others.items()})
        )
    if problems:
        raise combine_errors(problems, f"rows of {table.source} cannot be used", "correct or remove these rows")
    if disagree:
        notes.append(
            f"{len(disagree):,} rows of {table.source} disagree with their folder's name about gender or age; the "
            f"name was taken ({_some(disagree)})"
        )
    _note_ids(people, notes)
    return people


def _note_ids(people: list[_Person], notes: list[str]) -> None:
    folders: dict[str, int] = defaultdict(int)
    for person in people:
        folders[person.id] += 1
    for name, count in folders.items():
        if count > 1:
            notes.append(f"id {name} belongs to {count} folders: persons are told apart by folder")
    both = [name for name in folders if (match := _SUFFIXED.fullmatch(name)) and match["plain"] in folders]
    if both:
        notes.append(
            f"{len(both):,} ids with a suffix ({_some(both)}) stand beside the plain id: persons are told apart by "
            "folder"
        )


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
    """Folder → its (stem, file), sorted; ._ files and what is no known image are passed over and counted."""
    listed = [entry.name for entry in entries_of(images)]
    present = {name for name in listed if not name.startswith(".")}
    files: dict[str, list[tuple[str, Path]]] = {}
    problems, strange, hidden = [], [], sum(name.startswith("._") for name in listed)
    for person in people:
        if person.folder not in present:
            problems.append(f"{person.location}: no folder {images / person.folder}")
            continue
        stems: dict[str, Path] = {}
        for entry in sorted(entries_of(images / person.folder), key=lambda entry: entry.name):
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
            f"rows of {source} do not fit the images",
            "restore the images, or remove these rows from train.csv",
        )
    if hidden:
        notes.append(f"{hidden:,} '._' files skipped")
    if strange:
        notes.append(
            f"{len(strange):,} files that are neither mask*, incorrect_mask nor normal were ignored ({_some(strange)})"
        )
    unnamed = sorted(present - set(files))
    if unnamed:
        notes.append(f"{len(unnamed):,} folders of {images} are not in {source} and were ignored ({_some(unnamed)})")
    return files


def read_evaluation(folder: Path, source: str, need_images: bool) -> tuple[RawColumns, list[str]]:
    """The test samples, in the order of info.csv; its `ans` is a form to fill in, never a label.

    Labels and persons come from ``answers.csv`` (``ImageID,ans[,person]``) where there is one, matched by ImageID.
    """
    table = read_csv(folder / "info.csv", source)
    ids = table.column("ImageID")
    notes: list[str] = []
    images = folder / "images"
    paths: list[Path] | None = None
    if images.is_dir():
        by_stem = {
            stem_of(entry.name): entry.name
            for entry in entries_of(images)
            if is_image(entry.name) and entry.name[0] != "."
        }
        paths = [images / (name if is_image(name) else by_stem.get(name, name)) for name in ids]
    elif need_images:
        raise EnsembleError(
            f"{source} is there, its images are not: no folder {images}", hint="unpack the images beside info.csv"
        )
    columns = RawColumns(source, ids, table.location(), paths)
    if (folder / "answers.csv").is_file():
        answers = read_csv(folder / "answers.csv")
        position = {name: i for i, name in enumerate(answers.column("ImageID"))}
        absent = [f"{where}: {name}" for name, where in zip(ids, columns.locations) if name not in position]
        if absent:
            raise combine_errors(
                absent,
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
        notes.append(f"labels of {source} were taken from {folder / 'answers.csv'}")
    return columns, notes
