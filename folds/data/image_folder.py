"""Read images from folders: class folders for training, plain folders for prediction, persons from file names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from folds.data.folder_tables import listed_tables, tables_in
from folds.data.image_paths import DICOM_SUFFIXES, IMAGE_SUFFIXES, OTHER_SUFFIXES, PICTURE_SUFFIXES, ImagePaths
from folds.data.patients import are_dicom, patients_of
from folds.data.raw_columns import RawColumns
from folds.data.table import AUTO_COPIES, DataSpec
from folds.errors import EnsembleError, UsageError, combine_errors
from folds.utils.bounded import search_each
from folds.utils.csv_table import cannot_read

EACH_ITS_OWN = "`person_regex='(.+)'` makes every image its own person"
TRAINING_NAMES = frozenset({"train", "training", "val", "valid", "validation", "dev"})
TEST_NAMES = frozenset({"test", "testing"})
_SPLIT = re.compile(r"(?:train(?:ing)?|val(?:id(?:ation)?)?|dev|test(?:ing)?)(?:[-_ .].*|\d*)", re.IGNORECASE)
# Folders that programs add: thumbnails of a NAS, copies made on a Mac, waste baskets.
_SKIPPED = frozenset({"__macosx", "@eadir", "@sharedbin", "#recycle", "$recycle.bin", "lost+found"})


@dataclass
class Found:
    """Images below a folder (sorted paths relative to it, separated by /) and counts of skipped files."""

    folder: Path
    images: list[str] = field(default_factory=list)
    hidden: int = 0
    others: Counter[str] = field(default_factory=Counter)
    unused: dict[str, Counter[str]] = field(default_factory=dict)  # top folder → its files that are no images

    def warnings(self) -> list[str]:
        """Return a line for each top folder without an image that is read: a class that would be lost silently."""
        used = {name.split("/", 1)[0] for name in self.images}
        return [
            f"the folder {self.folder / top} has no image that can be read "
            f"({_kinds(kinds) if kinds else 'it is empty'}), so it is no class"
            for top, kinds in sorted(self.unused.items())
            if top not in used
        ]

    def notes(self) -> list[str]:
        """Return a line for each kind of skipped files."""
        lines = (
            [f"{self.hidden:,} hidden files and folders ('._*' and other names with a leading dot) skipped"]
            if self.hidden
            else []
        )
        if self.others:
            lines.append(
                f"{sum(self.others.values()):,} files below {self.folder} are not readable as images; ignored "
                f"({_kinds(self.others)})"
            )
        return lines


def _kinds(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in counts.most_common())


def find_images(folder: Path) -> Found:
    """Return all images below `folder`, at any depth, sorted by their relative paths.

    DICOM files and arrays (.npy) are images where there are no pictures. Names with a leading dot are skipped:
    AppleDouble files (``._x.jpg``) have image suffixes but hold no image, and ``.ipynb_checkpoints`` holds second
    copies. Folders that programs add (``__MACOSX``, ``@eaDir``) are skipped too.
    """
    found = Found(folder)
    _walk(folder, "", found, {os.path.realpath(folder)})
    found.images = _of_one_kind(found)
    found.images.sort()
    return found


def _of_one_kind(found: Found) -> list[str]:
    """Return the pictures, or without any the DICOM files, or without any the arrays; others are no images then."""
    kinds = Counter(_suffix(name) for name in found.images)
    if kinds.keys() <= PICTURE_SUFFIXES:
        return found.images
    wanted = next(kind for kind in (PICTURE_SUFFIXES, DICOM_SUFFIXES, OTHER_SUFFIXES) if kind & kinds.keys())
    for name in found.images:
        if _suffix(name) not in wanted:
            found.others[_suffix(name)] += 1
            if "/" in name:
                found.unused.setdefault(name.split("/", 1)[0], Counter())[_suffix(name)] += 1
    return [name for name in found.images if _suffix(name) in wanted]


def _walk(folder: Path, prefix: str, found: Found, seen: set[str]) -> None:
    for entry in scan_folder(folder):
        if entry.name.startswith(".") or entry.name.lower() in _SKIPPED:
            found.hidden += 1
        elif entry.is_dir():
            # Each linked folder is visited once, because a link can lead back to a parent.
            real = os.path.realpath(entry.path)
            if real not in seen:
                seen.add(real)
                if not prefix:
                    found.unused[entry.name] = Counter()
                _walk(Path(entry.path), f"{prefix}{entry.name}/", found, seen)
        elif is_image(entry.name):
            found.images.append(prefix + entry.name)
        else:
            found.others[_suffix(entry.name)] += 1
            if prefix:
                found.unused[prefix.split("/", 1)[0]][_suffix(entry.name)] += 1


def scan_folder(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder; raise EnsembleError if it cannot be read, instead of treating it as empty."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise cannot_read(folder, error) from None


def is_image(name: str) -> bool:
    """Return whether a file name has an image suffix, in upper or lower case."""
    return _suffix(name) in IMAGE_SUFFIXES


def _suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return dot + suffix.lower() if stem else ""


def stem_of(name: str) -> str:
    """Return a file name without its suffix."""
    return name.rpartition(".")[0] or name


def persons_by_regex(names: Sequence[str], regex: str, locations: Sequence[str]) -> list[str]:
    """Return the person in each name: the regex group ``person``, else the first group, else the whole match.

    Parameters
    ----------
    locations : location of each name in the table or folder, for messages.

    Raises
    ------
    UsageError : `regex` is not a regular expression, or takes too long.
    EnsembleError : `regex` does not match every name; the message lists the first names without a match.
    """
    try:
        pattern = re.compile(regex)
    except (re.error, RecursionError, OverflowError) as error:
        message = f"`person_regex='{regex[:200]}'` is not a regular expression: {error}"
        raise UsageError(message, hint=EACH_ITS_OWN) from None
    group: str | int = "person" if "person" in pattern.groupindex else min(1, pattern.groups)
    found: dict[str, str] = {}  # one string object per person instead of one per image, to save memory
    persons = []
    for match in search_each(pattern, group, names, "person_regex"):
        person = (match or "").strip()
        persons.append(found.setdefault(person, person))
    if "" in found:
        places = ((name, locations[i]) for i, name in enumerate(names) if not persons[i])
        unmatched = [place if place == name else f"{place}: {name}" for name, place in places]
        raise combine_errors(
            unmatched,
            f"of {len(names):,} images have no match for `person_regex='{regex}'`",
            hint=example_regex(names[0]),
        )
    return persons


def regex_warnings(regex: str, names: Sequence[str]) -> list[str]:
    """Return a warning if a regular expression has several groups and none of them is named ``person``."""
    pattern = re.compile(regex)
    match = next(filter(None, map(pattern.search, names[:1])), None)
    if pattern.groups < 2 or "person" in pattern.groupindex or match is None:
        return []
    others = ", ".join(f"'{text}'" for text in match.groups()[1:])
    return [
        f"`person_regex='{regex}'` has {pattern.groups} groups, and the first is taken as the person: "
        f"'{match.group(1)}' in '{names[0]}', not {others}; write (?P<person>…) for the group that is the "
        "person, and (?:…) for the others"
    ]


def example_regex(name: str) -> str:
    """Return a hint that suggests a `person_regex` and shows its match in the file name `name`."""
    regex = r"([^/]+)[-_][^-_/]+$"
    match = re.search(regex, name)
    if match is None:
        regex = r"([^/.]+)[^/]*$"
        match = re.search(regex, name)
    example = f"`person_regex='{regex}'` takes '{match.group(1)}' from '{name}'; " if match else ""
    return f"{example}{EACH_ITS_OWN}"


def read_class_folders(found: Found, spec: DataSpec, source: str) -> RawColumns:
    """Return training samples from a folder whose subfolders are the classes; ids are relative paths.

    Raises
    ------
    EnsembleError : there are no class folders, the subfolders are splits (``train``, ``test``), or `spec` has no
        `person_regex`.
    """
    folder = found.folder
    inside = [name for name in found.images if "/" in name]
    if not inside:
        raise EnsembleError(
            f"expected one CSV with the columns '{spec.path}' and '{spec.label}', class folders, or train/train.csv in "
            f"{source}; found none of them",
            hint="`data` is a CSV, a folder with one subfolder of images per class, or a folder in the "
            "mask-competition layout",
        )
    notes = found.notes()
    loose = len(found.images) - len(inside)
    if loose:
        notes.append(f"{loose:,} images outside the class folders were ignored")
    names = [name.strip() for name in inside]
    labels = _tops(names)
    _check_tops(list(dict.fromkeys(labels)), folder, source)
    return _training_columns(found, spec, source, inside, labels, notes)


def _check_tops(tops: Sequence[str], folder: Path, source: str) -> None:
    """Raise EnsembleError if subfolders are splits instead of classes, or if there is only one."""
    if are_splits(tops):
        last = f" `test={folder / tops[-2]}`" if len(tops) > 1 and tops[-1].lower().startswith("train") else ""
        last = last or next((f" `test={folder / top}`" for top in tops if top.lower().startswith("test")), "")
        train = next((top for top in tops if top.lower().startswith("train")), tops[0])
        raise EnsembleError(
            f"the subfolders of {source} are splits, not classes: {', '.join(tops)}",
            hint=f"name each split separately: `data={folder / train}`{last}; if a table has the labels, `data=TABLE` "
            f"`images={folder / train}`",
        )
    if len(tops) == 1:
        tables = sorted(tables_in(folder), key=lambda path: "train" not in path.name.lower())
        others = f"; the tables are {listed_tables(tables)}" if len(tables) > 1 else ""
        hint = (
            f"to read the {'CSV' if tables[0].suffix == '.csv' else 'table'}: `data={tables[0]}` `path=COLUMN` "
            f"`label=COLUMN`{others}"
            if tables
            else "expected one subfolder per class"
        )
        raise EnsembleError(
            f"all images of {source} are in one subfolder, '{tops[0]}'; training needs at least 2 classes", hint=hint
        )


def _training_columns(
    found: Found, spec: DataSpec, source: str, files: list[str], labels: list[str], notes: list[str]
) -> RawColumns:
    names = [name.strip() for name in files]
    paths = ImagePaths(found.folder.absolute(), files)
    if spec.person == AUTO_COPIES and spec.person_regex is None:
        return RawColumns(source, names, names, paths, labels, notes=notes, warnings=found.warnings())
    if spec.person_regex is None and are_dicom(files):
        persons, more, warned = patients_of(paths, names, source)
        warnings = [*found.warnings(), *warned]
        return RawColumns(source, names, names, paths, labels, persons, notes=[*notes, *more], warnings=warnings)
    if spec.person_regex is None:
        tables = tables_in(found.folder)
        beside = f"; not read: {listed_tables(tables)} (`data={tables[0]}` reads it)" if tables else ""
        raise EnsembleError(
            f"the person (group) of the images in {source} is unknown, e.g. of '{names[0]}'{beside}",
            hint=example_regex(names[0]),
        )
    persons = persons_by_regex(names, spec.person_regex, names)
    warnings = [*found.warnings(), *regex_warnings(spec.person_regex, names)]
    return RawColumns(source, names, names, paths, labels, persons, notes=notes, warnings=warnings)


def are_splits(tops: Sequence[str]) -> bool:
    """Return whether all names of subfolders are those of splits: ``train``, ``test_images``, ``val2017``.

    Several may have one prefix in common: ``stage_2_train`` and ``stage_2_test``.
    """
    found = {_prefix_and_kind(top) for top in tops}
    if None in found:
        return False
    prefixes, kinds = {one[0] for one in found if one}, {one[1] for one in found if one}
    return bool(tops) and (prefixes == {""} or (len(prefixes) == 1 and len(kinds) > 1))


def _prefix_and_kind(top: str) -> tuple[str, str] | None:
    """Return the text before the name of a split, and whether it is ``test``; None if it is no such name."""
    if _SPLIT.fullmatch(top):
        return "", top.lower()[:4]
    match = re.fullmatch(rf"(.*[-_ .])({_SPLIT.pattern})", top, re.IGNORECASE)
    return None if match is None else (match[1].lower(), match[2].lower()[:4])


def split_folders(found: Found) -> tuple[list[str], list[str]] | None:
    """Return the files of training and of testing in a folder ``train/CLASS/…``, ``val/CLASS/…``, ``test/CLASS/…``.

    None if it is no such folder: another subfolder, or no two classes for training. ``train`` and ``val`` are both for
    training, because the folds validate.
    """
    parts = [(name, name.strip().split("/")) for name in found.images]
    if not all(len(part) > 1 and part[0].lower() in TRAINING_NAMES | TEST_NAMES for _, part in parts):
        return None
    training = [(name, part) for name, part in parts if part[0].lower() in TRAINING_NAMES]
    if not all(len(part) > 2 for _, part in training) or len({part[1] for _, part in training}) < 2:
        return None
    return [name for name, _ in training], [name for name, part in parts if part[0].lower() in TEST_NAMES]


def read_split_folders(
    found: Found, spec: DataSpec, source: str, files: tuple[list[str], list[str]]
) -> tuple[RawColumns, RawColumns | None]:
    """Return training samples, and test samples if there are any, from the `files` of `split_folders`.

    The class is the second folder of a path. Test images without such a folder have no labels.
    """
    training, test = files
    labels = [name.strip().split("/")[1].strip() for name in training]
    tops = Counter(name.split("/", 1)[0] for name in found.images)
    counts = ", ".join(f"{top} ({count:,})" for top, count in tops.items())
    uses = "test is the test set, the others are for training" if test else "all of them are for training"
    notes = [*found.notes(), f"the subfolders of {source} are splits: {counts}; {uses}, and the folds validate"]
    columns = _training_columns(found, spec, source, training, labels, notes)
    if spec.person_regex is not None:
        columns.warnings = regex_warnings(spec.person_regex, columns.ids)
    if not test:
        return columns, None
    names = [name.strip() for name in test]
    parts = [name.split("/") for name in names]
    persons = persons_by_regex(names, spec.person_regex, names) if spec.person_regex is not None else None
    of_test = [part[1] for part in parts] if all(len(part) > 2 for part in parts) else None
    return columns, RawColumns(source, names, names, ImagePaths(found.folder.absolute(), test), of_test, persons)


def _tops(names: Sequence[str]) -> list[str]:
    """Return the top subfolder of each image, "" if it has none; one string object per subfolder, to save memory."""
    known: dict[str, str] = {}
    tops = (name.split("/", 1)[0].strip() if "/" in name else "" for name in names)
    return [known.setdefault(top, top) for top in tops]


def read_plain_folder(
    folder: Path, spec: DataSpec, source: str, classes: Sequence[str] | None
) -> tuple[RawColumns, list[str]]:
    """Return images to predict, all below `folder`; they have labels if every subfolder is a class of the training.

    Returns
    -------
    columns, notes

    Raises
    ------
    EnsembleError : there are no images.
    """
    found = find_images(folder)
    if not found.images:
        raise EnsembleError(
            f"there are no images in {source}", hint=f"image suffixes: {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    names = [name.strip() for name in found.images]
    notes = found.notes()
    tops = _tops(names)
    known = set(classes or ())
    labels = tops if set(tops) <= known else None
    if labels is None and set(tops) & known:
        strange = sorted(set(tops) - known)[0]
        notes.append(
            f"{source}: read without labels, because not all of its subfolders are classes "
            f"('{strange or 'images without a subfolder'}')"
        )
    persons = persons_by_regex(names, spec.person_regex, names) if spec.person_regex is not None else None
    return RawColumns(source, names, names, ImagePaths(folder.absolute(), found.images), labels, persons), notes
