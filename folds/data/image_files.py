"""Find the files of the images that a table names: names may lack the suffix, or be in another Unicode form or case."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from folds.data.image_paths import IMAGE_SUFFIXES, ImagePaths, path_texts
from folds.errors import EnsembleError, combine_errors
from folds.utils.frames import FRAME

# How a file was found → what is said about it.
UNICODE, CASE, SUFFIX = "in another Unicode form", "in another case", "with the suffix that the table lacks"
_MAX_FOLDERS = 200  # folders that are searched for a hint
_ALL_LEVELS = 64  # of folders below one that the user named
_MAX_NAMES = 2_000  # missing images that are looked for in them


@dataclass
class _Found:
    """The result of a search: rows without a file, rows with several, and rows whose file has another name."""

    missing: list[int] = field(default_factory=list)
    several: dict[int, list[str]] = field(default_factory=dict)
    renamed: dict[int, tuple[str, str]] = field(default_factory=dict)  # row → path, how it was found


def locate_images(
    paths: Sequence[Path],
    folders: Sequence[Path],
    source: str,
    locations: Sequence[str],
    required: bool,
    notes: list[str],
    option: str = "images",
) -> Sequence[Path]:
    """Return the files of the images; `paths` itself if all names are those of the files.

    A name that is not in its folder is looked for in another Unicode form, then in another case, then, if it has no
    suffix of an image, with such a suffix. Each is taken only if one file fits. Every folder is listed once.

    Parameters
    ----------
    folders : folders in which the names are looked for; empty for the folder of `paths` alone.
    required : whether a name without a file is an error; otherwise it is kept.
    notes : receives a line for each way of finding.
    option : the parameter that names `folders`, for hints.

    Raises
    ------
    EnsembleError : an image does not exist, or its name fits several files.
    """
    sides = [ImagePaths(folder, paths.names) for folder in folders] if isinstance(paths, ImagePaths) else []
    found = _search_all(sides) if len(sides) > 1 else _search(sides[0] if sides else paths)
    paths = sides[0] if sides else paths
    if found.several:
        lines = [f"{locations[i]}: {_name(paths, i)}: {', '.join(found.several[i])}" for i in sorted(found.several)]
        raise combine_errors(
            lines, f"names of images in {source} fit several files", "write the whole name, with its folder and suffix"
        )
    if found.missing and required:
        raise _missing_error(paths, sides, found.missing, source, locations, option)
    for how, count in sorted(Counter(how for _, how in found.renamed.values()).items()):
        i = min(row for row, (_, way) in found.renamed.items() if way == how)
        notes.append(
            f"{count:,} of {len(paths):,} images of {source} were found {how}, e.g. {found.renamed[i][0]} for "
            f"'{_name(paths, i)}'"
        )
    return _renamed(paths, found) if found.renamed else paths


def _name(paths: Sequence[Path], i: int) -> str:
    return str(paths.names[i]) if isinstance(paths, ImagePaths) else str(paths[i])


def _renamed(paths: Sequence[Path], found: _Found) -> Sequence[Path]:
    if not isinstance(paths, ImagePaths):
        return tuple(Path(found.renamed[i][0]) if i in found.renamed else path for i, path in enumerate(paths))
    names, start = list(map(str, paths.names)), str(paths.folder).rstrip("/") + "/"
    for i, (path, _) in found.renamed.items():
        names[i] = path.removeprefix(start)
    return ImagePaths(paths.folder, names)


def _search_all(sides: Sequence[ImagePaths]) -> _Found:
    """Return the files of names that may be in several folders; a file in two of them is ambiguous."""
    each, result = [_search(side) for side in sides], _Found()
    absent = [set(found.missing) for found in each]
    for i in range(len(sides[0])):
        files: dict[str, str] = {}
        for side, found, missing in zip(sides, each, absent, strict=True):
            if i in found.several:
                files |= dict.fromkeys(found.several[i], "")
            elif i in found.renamed:
                files[found.renamed[i][0]] = found.renamed[i][1]
            elif i not in missing:
                files[str(side[i])] = ""
        if not files:
            result.missing.append(i)
        elif len(files) > 1:
            result.several[i] = list(files)
        elif (path := next(iter(files))) != str(sides[0][i]):
            result.renamed[i] = path, files[path] or f"in {Path(path).parent}"
    return result


def _search(paths: Sequence[Path]) -> _Found:
    # One listing per folder instead of one stat per file: 200,000 stats on a network drive take minutes. One folder at
    # a time, because the names in 140,000 folders take a gigabyte.
    inside: dict[str, list[int]] = {}
    names: list[str] = []
    for i, path in enumerate(path_texts(paths)):
        folder, slash, name = path.rpartition("/")
        inside.setdefault(folder or slash, []).append(i)
        names.append(name)
    found = _Found()
    for folder, rows in inside.items():
        listed = _file_names(folder)
        # is_file() as well, because a file can be listed in another Unicode form of its name.
        absent = [i for i in rows if names[i] not in listed and not paths[i].is_file()]
        if absent:
            _search_folder(folder, listed, [(i, names[i]) for i in absent], found)
    found.missing.sort()
    return found


def _search_folder(folder: str, listed: set[str], wanted: Iterable[tuple[int, str]], found: _Found) -> None:
    how = ""
    if not listed:
        real = _real_folder(folder)
        if real is not None and real[0] != folder:
            folder, how = real
            listed = _file_names(folder)
    indexes = [(way, key, _index(listed, key)) for way, key in ((how, str), (UNICODE, _form), (CASE, _fold))]
    images = [name for name in listed if _suffix(name)] if listed else []
    stems = [(key, _index(images, partial(_key_of_stem, key))) for key in (str, _form, _fold)]
    for i, name in wanted:
        files, way = next(((index[key(name)], way) for way, key, index in indexes if key(name) in index), ([], ""))
        if not files and not _suffix(name):
            files, way = next((index[key(name)] for key, index in stems if key(name) in index), []), SUFFIX
        if not files:
            found.missing.append(i)
        elif len(files) > 1:
            found.several[i] = sorted(files)
        else:
            found.renamed[i] = f"{folder.rstrip('/')}/{files[0]}", way or how


def _index(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    index: dict[str, list[str]] = {}
    for name in names:
        index.setdefault(key(name), []).append(name)
    return index


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _key_of_stem(key: Callable[[str], str], name: str) -> str:
    return key(_stem(name))


def _suffix(name: str) -> str:
    """Return the suffix of an image in lower case; "" if the name has none."""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if stem and f"{dot}{suffix.lower()}" in IMAGE_SUFFIXES else ""


def _real_folder(folder: str) -> tuple[str, str] | None:
    """Return the existing folder of this name in another Unicode form or case, and which it is; None without one."""
    if Path(folder).is_dir() or not folder.strip("/"):
        return folder, ""
    parent, _, name = folder.rstrip("/").rpartition("/")
    above = _real_folder(parent or "/")
    if above is None:
        return None
    try:
        with os.scandir(above[0] or ".") as entries:
            listed = [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return None
    for way, key in ((above[1], str), (UNICODE, _form), (CASE, _fold)):
        fitting = [each for each in listed if key(each) == key(name)]
        if fitting:
            return (f"{above[0].rstrip('/')}/{fitting[0]}", way or above[1]) if len(fitting) == 1 else None
    return None


def _missing_error(
    paths: Sequence[Path],
    sides: Sequence[ImagePaths],
    missing: Sequence[int],
    source: str,
    locations: Sequence[str],
    option: str,
) -> EnsembleError:
    lines = [f"{locations[i]}: {paths[i]}" + (_sibling(paths[i]) if at < 10 else "") for at, i in enumerate(missing)]
    folder = paths.folder if isinstance(paths, ImagePaths) else Path(source).absolute().parent
    base = f"those of `{option}`" if sides else f"the folder of {source}"
    given = [side.folder for side in sides]
    names = [_name(paths, i) for i in missing[:_MAX_NAMES]]
    found, example = _folders_with(names, folder if not sides else folder.parent, given or [folder])
    start = f"relative paths start from {folder}" if source == FRAME and not sides else f"paths are relative to {base}"
    hint = _several_rows(names) or f"{start}; is `path` the right column?"
    if found:
        # Folders that were named and hold other images of the table are still needed.
        kept = given if len(missing) < len(paths) else []
        hint = f"there is {example}: `{option}={','.join(map(_shown, [*kept, *found]))}`"
        rest = len(names) - sum(found.values())
        if rest:
            hint += f" ({rest:,} of the {len(names):,} missing images are in none of these folders)"
    return combine_errors(lines, f"of {len(paths):,} images of {source} do not exist", hint)


def _several_rows(names: Sequence[str]) -> str:
    """Return a hint if a table has one row per finding, ``ID_1_epidural``, ``ID_1_any``; "" if it has not."""
    parts = [name.rpartition("_") for name in names]
    images, findings = {before for before, _, _ in parts}, list(dict.fromkeys(last for _, _, last in parts))
    if len(findings) < 2 or "" in images or len(images) < 2 or len(names) < 2 * len(images):
        return ""
    if len(names) not in range(len(images) * len(findings) - len(findings) + 1, len(images) * len(findings) + 1):
        return ""
    return (
        f"the ids are those of an image and a finding ({', '.join(findings[:4])}{', …' if len(findings) > 4 else ''}): "
        "write a table with one row per image and its class (docs/competition.md)"
    )


def _folders_with(names: Sequence[str], below: Path, not_here: Sequence[Path]) -> tuple[dict[Path, int], str]:
    """Return the folders that images of these names start from, with the number of names that each adds, and the file
    of the first name found; a folder that adds more names comes first. Files are looked for at most two levels below
    `below`, and at all levels of `not_here`; at most `_MAX_FOLDERS` folders are listed.
    """
    walk = _folders_below(below, not_here)
    of_folder: dict[str, list[tuple[int, str]]] = {}  # the folder in each name → its names
    for i, name in enumerate(names):
        before, _, last = name.rpartition("/")
        of_folder.setdefault(before, []).append((i, last))
    holds: dict[str, dict[int, str]] = {}
    for folder, listed in sorted(walk.items()):
        for before, wanted in of_folder.items() if listed else ():
            start = folder if not before else folder.removesuffix(f"/{before}")
            if (before and start == folder) or Path(start) in not_here:
                continue
            found = _Found()
            _search_folder(folder, listed, wanted, found)
            absent = {*found.missing, *found.several}
            here = {i: last for i, last in wanted if i not in absent}
            here |= {i: path.rpartition("/")[2] for i, (path, _) in found.renamed.items()}
            if here:
                holds.setdefault(start, {}).update(here)
    chosen: dict[Path, int] = {}
    example, left = "", set(range(len(names)))
    while holds:
        folder = max(holds, key=lambda one: len(left & holds[one].keys()))
        added = left & holds[folder].keys()
        if not added:
            break
        example = example or holds[folder][min(added)]
        chosen[Path(folder)] = len(added)
        left -= added
        del holds[folder]
    return chosen, example


def _folders_below(below: Path, named: Sequence[Path]) -> dict[str, set[str]]:
    """Return folder → the names of its files, for all folders in those that the user named and for folders at most two
    levels below `below`; those named first, and of each the nearest ones first. Linked folders are not entered.
    """
    found: dict[str, set[str]] = {}
    queue = deque([*((str(folder), _ALL_LEVELS) for folder in named), (str(below), 2)])
    while queue and len(found) < _MAX_FOLDERS:
        folder, levels = queue.popleft()
        if folder in found:
            continue
        try:
            with os.scandir(folder) as entries:
                inside = list(entries)
        except OSError:
            continue
        found[folder] = {entry.name for entry in inside if not entry.is_dir()}
        if levels:
            deeper = sorted(entry.path for entry in inside if entry.is_dir(follow_symlinks=False))
            queue.extend((path, levels - 1) for path in deeper)
    return found


def _shown(folder: Path) -> str:
    shown = os.path.relpath(folder)
    return shown if not shown.startswith("..") else os.path.normpath(folder)


def _sibling(path: Path) -> str:
    """Return a remark about a file that differs from `path` only in its suffix; "" if there is none."""
    other = next((name for name in sorted(_file_names(str(path.parent))) if name.startswith(f"{path.stem}.")), None)
    return f" (there is {other})" if other else ""


def _file_names(folder: str) -> set[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()
