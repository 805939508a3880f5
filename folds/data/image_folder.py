"""Images found by walking folders: class folders to learn from, plain folders to predict, persons read off file
names.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from folds.data.table import IMAGE_SUFFIXES, DataSpec, ImagePaths, RawColumns
from folds.errors import EnsembleError, UsageError, combine_errors
from folds.utils.csv_table import cannot_read

EACH_ITS_OWN = "--person-regex '(.+)' makes every image its own person"
SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


@dataclass
class Found:
    """The images below a folder: their paths relative to it, with /, sorted; and what was passed over."""

    folder: Path
    images: list[str] = field(default_factory=list)
    hidden: int = 0
    others: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        """What was passed over, in words."""
        said = (
            [f"{self.hidden:,} hidden files and folders ('._*' and other names with a dot) skipped"]
            if self.hidden
            else []
        )
        if self.others:
            kinds = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in self.others.most_common(5))
            said.append(
                f"{sum(self.others.values()):,} files below {self.folder} are no images and were ignored ({kinds})"
            )
        return said


def find_images(folder: Path) -> Found:
    """All images below `folder`, at any depth, in the order of their relative paths.

    Names that begin with a dot are passed over: AppleDouble files (``._x.jpg``) look like images and are none, and
    ``.ipynb_checkpoints`` holds second copies.
    """
    found = Found(folder)
    _walk(folder, "", found, {os.path.realpath(folder)})
    found.images.sort()
    return found


def _walk(folder: Path, prefix: str, found: Found, seen: set[str]) -> None:
    for entry in entries_of(folder):
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            found.hidden += 1
        elif entry.is_dir():
            # Linked folders are followed, but each once: a link may lead back up.
            real = os.path.realpath(entry.path)
            if real not in seen:
                seen.add(real)
                _walk(Path(entry.path), f"{prefix}{entry.name}/", found, seen)
        elif is_image(entry.name):
            found.images.append(prefix + entry.name)
        else:
            found.others[_suffix(entry.name)] += 1


def entries_of(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder; one that cannot be read is an error, not an empty folder."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise cannot_read(folder, error) from None


def is_image(name: str) -> bool:
    """Whether a file name ends like an image's, in either case."""
    return _suffix(name) in IMAGE_SUFFIXES


def _suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return dot + suffix.lower() if stem else ""


def stem_of(name: str) -> str:
    """A file name without its suffix."""
    return name.rpartition(".")[0] or name


def persons_by_regex(names: Sequence[str], regex: str, where: Sequence[str]) -> list[str]:
    """The person in each name: the group ``person``, else the first group, else the whole match.

    Raises
    ------
    UsageError : `regex` is none.
    EnsembleError : it does not match every name; the first that it does not match are listed.
    """
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise UsageError(f"--person-regex '{regex}' is not a regular expression: {error}", hint=EACH_ITS_OWN) from None
    group: str | int = "person" if "person" in pattern.groupindex else min(1, pattern.groups)
    found: dict[str, str] = {}  # one object for each person, not for each image
    persons = []
    for name in names:
        match = pattern.search(name)
        person = (match.group(group) or "").strip() if match else ""
        persons.append(found.setdefault(person, person))
    if "" in found:
        places = ((name, where[i]) for i, name in enumerate(names) if not persons[i])
        unmatched = [place if place == name else f"{place}: {name}" for name, place in places]
        raise combine_errors(
            unmatched,
            f"of {len(names):,} images get no person from --person-regex '{regex}'",
            hint=example_regex(names[0]),
        )
    return persons


def example_regex(name: str) -> str:
    """A hint: what --person-regex might be, on a file name of the user's own."""
    regex = r"([^/]+)[-_][^-_/]+$"
    match = re.search(regex, name)
    if match is None:
        regex = r"([^/.]+)[^/]*$"
        match = re.search(regex, name)
    example = f"--person-regex '{regex}' takes '{match.group(1)}' from '{name}'; " if match else ""
    return f"{example}{EACH_ITS_OWN}"


def read_class_folders(folder: Path, spec: DataSpec, source: str) -> tuple[RawColumns, list[str]]:
    """Training samples from a folder whose subfolders are the classes; ids are relative paths.

    Returns
    -------
    columns, notes

    Raises
    ------
    EnsembleError : there are no class folders, they are splits (``train``, ``test``), or nothing names the persons.
    """
    found = find_images(folder)
    inside = [name for name in found.images if "/" in name]
    if not inside:
        raise EnsembleError(
            f"{source} holds neither one CSV with the columns '{spec.path}' and '{spec.label}', nor class folders, "
            "nor train/train.csv",
            hint="--data takes a CSV, a folder with one subfolder of images a class, or a folder in the "
            "mask-competition layout",
        )
    notes = found.notes()
    loose = len(found.images) - len(inside)
    if loose:
        notes.append(f"{loose:,} images that lie in no class folder were ignored")
    names = [name.strip() for name in inside]
    labels = _tops(names)
    tops = list(dict.fromkeys(labels))
    if all(top.lower() in SPLIT_NAMES for top in tops):
        last = f" --test {folder / tops[-2]}" if len(tops) > 1 and tops[-1].lower().startswith("train") else ""
        last = last or next((f" --test {folder / top}" for top in tops if top.lower().startswith("test")), "")
        train = next((top for top in tops if top.lower().startswith("train")), tops[0])
        raise EnsembleError(
            f"the subfolders of {source} are splits, not classes: {', '.join(tops)}",
            hint=f"name them apart: --data {folder / train}{last}",
        )
    if len(tops) == 1:
        tables = [path for path in sorted(folder.glob("*.csv")) if path.name[0] != "."]
        hint = (
            f"is a CSV meant? --data {tables[0]} --path COLUMN --label COLUMN"
            if tables
            else "one subfolder a class is expected"
        )
        raise EnsembleError(f"all images of {source} lie in one subfolder, '{tops[0]}': nothing to learn", hint=hint)
    if spec.person_regex is None:
        raise EnsembleError(
            f"nothing says whose images those in {source} are, e.g. '{names[0]}'", hint=example_regex(names[0])
        )
    persons = persons_by_regex(names, spec.person_regex, names)
    return RawColumns(source, names, names, ImagePaths(folder.absolute(), inside), labels, persons), notes


def _tops(names: Sequence[str]) -> list[str]:
    """Return the subfolder that each image is in, "" where in none; one object for each subfolder."""
    known: dict[str, str] = {}
    tops = (name.split("/", 1)[0].strip() if "/" in name else "" for name in names)
    return [known.setdefault(top, top) for top in tops]


def read_plain_folder(
    folder: Path, spec: DataSpec, source: str, classes: Sequence[str] | None
) -> tuple[RawColumns, list[str]]:
    """Images to predict: all below `folder`, labelled where its subfolders are exactly classes of the training."""
    found = find_images(folder)
    if not found.images:
        raise EnsembleError(
            f"there are no images in {source}", hint=f"known suffixes: {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    names = [name.strip() for name in found.images]
    notes = found.notes()
    tops = _tops(names)
    known = set(classes or ())
    labels = tops if set(tops) <= known else None
    if labels is None and set(tops) & known:
        strange = sorted(set(tops) - known)[0]
        notes.append(
            f"{source}: taken as unlabelled, since not all its subfolders are classes "
            f"('{strange or 'images without a subfolder'}')"
        )
    persons = persons_by_regex(names, spec.person_regex, names) if spec.person_regex is not None else None
    return RawColumns(source, names, names, ImagePaths(folder.absolute(), found.images), labels, persons), notes
