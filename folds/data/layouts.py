"""Find the table in a folder, and say what to type where several could be meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from folds.data.folder_tables import listed_tables, tables_in
from folds.data.image_folder import TEST_NAMES, Found, are_splits, find_images, scan_folder, split_folders, stem_of
from folds.data.one_hot import one_hot_columns
from folds.data.table import AUTO_COPIES, DataSpec
from folds.errors import EnsembleError
from folds.predictions.columns import find_columns
from folds.utils.csv_table import read_header
from folds.utils.tables import read_table_file, table_header

_FOLDERS_NAMED = 5  # of the folders of the images of a table, in a hint


def only_table(folder: Path, spec: DataSpec, training: bool = True) -> Path | None:
    """Return the CSV in `folder` that has the requested columns; None if there is none.

    Raises
    ------
    EnsembleError : several CSVs have them, or its labels are not the classes of the folders of the images.
    """
    wanted = {spec.path} | (_labels(spec) if training else set())
    tables = _csvs(folder)
    found = [path for path in tables if wanted <= set(read_header(path))]
    if len(found) > 1 and training:
        raise _several(folder, found, spec, ())
    if not found and training and wanted != {"path", "label"}:
        found = tables  # column names imply a CSV; reading it reports the missing columns
    table = found[0] if len(found) == 1 else None
    if table is not None and training and not _implies_table(spec):
        _check_folder_classes(folder, table, spec)
    return table


def _check_folder_classes(folder: Path, table: Path, spec: DataSpec) -> None:
    """Raise EnsembleError if a table and class folders give an image different labels, as predictions may do."""
    tops = [entry for entry in scan_folder(folder) if entry.is_dir() and entry.name[0] != "."]
    if len(tops) < 2:
        return  # no class folders; the images need not be listed
    images = find_images(folder)
    splits = split_folders(images)
    if splits is None and are_splits(_tops(images)):
        return
    files = images.images if splits is None else [name for part in splits for name in part]
    level = 0 if splits is None else 1
    classes = {name.strip(): name.split("/")[level].strip() for name in files if name.count("/") > level}
    columns = read_table_file(table).columns
    for name, label in zip(columns[spec.path], columns[spec.label], strict=True):
        found = classes.get(name.replace("\\", "/").removeprefix("./"), label)
        if found != label and len(set(classes.values())) > 1:
            raise _both_ways(folder, [table], images, f"'{name}' is {label} in it and {found} by its folder")


def _implies_table(spec: DataSpec) -> bool:
    """Return whether the user named columns, or folders of images: then a table is meant."""
    plain = DataSpec(spec.data)
    columns = ("path", "label", "person", "id", "split", "images", "stack")
    return any(getattr(spec, name) not in (getattr(plain, name), AUTO_COPIES) for name in columns)


def table_beside_images(folder: Path, spec: DataSpec, images: Found) -> Path | None:
    """Return the table of a folder whose subfolders are not classes, by known names of its columns.

    Raises
    ------
    EnsembleError : several tables could be meant, as in the folder of a competition: train.csv and
        sample_submission.csv beside ``train_images`` and ``test_images``; or a table and class folders
        hold the same images, and the table does not name these classes. Tables of other images are not meant.
    """
    tops = _tops(images)
    if len(tops) > 1 and not are_splits(tops):
        _check_not_listed(folder, images)
        return None
    tables = tables_in(folder)
    fitting = [path for path in tables if _has_samples(table_header(path), spec)]
    if not fitting and spec.label == DataSpec(folder).label:
        fitting = [path for path in tables if _has_one_hot(path, spec)]
    splits = split_folders(images)
    if splits is not None and not _implies_table(spec):
        stems = {_stem(name) for name in splits[0]}
        fitting = [path for path in fitting if not stems.isdisjoint(_stems(path, spec))]
        if fitting:
            raise _both_ways(folder, fitting, images, "the table lists images of the class folders, too")
        return None
    if len(fitting) > 1:
        raise _several(folder, fitting, spec, _image_folders(images))
    return fitting[0] if fitting else None


def _check_not_listed(folder: Path, images: Found) -> None:
    """Raise EnsembleError if tables name the images of subfolders, but not the subfolders as their classes: the
    subfolders (``photos`` and ``photos_eval``) may be no classes, and the table may have the labels.
    """
    tops = _tops(images)
    found = {path: names for path in tables_in(folder) if (names := _images_named(path, images, tops))}
    if not found:
        return
    tables = sorted(
        found, key=lambda path: (_is_template(path) or _is_test(path.name), "train" not in path.name.lower())
    )
    first, rest = tables[0], tables[1:]
    ways = f"{_with_folders(folder, 'data', 'images', first, found[first])} reads the table"
    apart = next((path for path in rest if not set(found[path]) & set(found[first])), None)
    if apart is not None:
        ways += f", and where a test set is read, {_with_folders(folder, 'test', 'test_images', apart, found[apart])}"
        ways += " `test_labels=False`" * _is_template(apart) + " its images"
    are = "is" if len(tables) == 1 else "are"
    raise EnsembleError(
        f"{folder} has the folders {', '.join(tops[:5])}{', …' if len(tops) > 5 else ''}, and {listed_tables(tables)} "
        f"beside them list{'s' * (len(tables) == 1)} their images without these names as classes: whether the folders "
        "are the classes cannot be known",
        hint=f"{ways}; the folders are read as classes if {listed_tables(tables)} {are} not in {folder}",
    )


def _with_folders(folder: Path, data: str, option: str, table: Path, tops: Sequence[str]) -> str:
    """Return the parameters that read a table and the folders of its images; folders in its paths are not named."""
    named = ",".join(str(folder / top) for top in tops if top)
    return f"`{data}={table}`" + (f" `{option}={named}`" if named else "")


def _images_named(table: Path, images: Found, tops: Sequence[str]) -> list[str]:
    """Return the folders of the images that a table names, "" for one in its paths; [] if it names no image, has no
    other column, or names the folders as classes, as labels or predictions of these classes do.
    """
    try:
        columns = read_table_file(table).columns
    except EnsembleError:
        return []  # no table of images; it is named as not read
    classes = {top.strip().casefold() for top in tops}
    if len(columns) < 2 or sum(_last_part(name, classes) for name in columns) > 1:
        return []
    roles = find_columns(list(columns), "", ("path", "id", "label", "prediction"))
    of_role = {role: (name,) for role, name in roles.names.items()} | dict(roles.ambiguous)
    known = {*of_role.get("path", ()), *of_role.get("id", ())}
    labels = [*of_role.get("label", ()), *of_role.get("prediction", ())]
    stems: dict[str, list[str]] = {}
    for name in images.images:
        if "/" in name:
            stems.setdefault(_stem(name), []).append(name.split("/", 1)[0])
    for name, cells in columns.items():
        # Numbers name images only in a column that is called so: the epochs of a log are no images.
        named = [cell for cell in cells if (name in known or not _is_number(cell)) and _stem(cell) in stems]
        if not named or 2 * len(named) < min(len(cells), len(images.images)):  # of the table, or of the images
            continue
        if any(_are_classes(columns[other], classes) for other in labels or columns if other != name):
            return []
        first = {cell.replace("\\", "/").removeprefix("./").split("/", 1)[0] for cell in named if "/" in cell}
        held = list(dict.fromkeys(top for cell in named for top in stems[_stem(cell)]))
        return [""] if first & set(tops) or len(held) > _FOLDERS_NAMED else held
    return []


def _are_classes(cells: Sequence[str], classes: set[str]) -> bool:
    """Return whether all filled cells of a column are names of folders in lower case, and not only of splits."""
    found = {cell.strip().casefold() for cell in cells} - {""}
    return bool(found) and found <= classes and not are_splits(sorted(found))


def _last_part(name: str, classes: set[str]) -> bool:
    """Return whether the name of a column is that of a class, with or without a prefix: ``prob_cat``."""
    name = name.strip().casefold()
    return name in classes or any(name[at + 1 :] in classes for at, mark in enumerate(name) if mark in "_.- ")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _has_one_hot(path: Path, spec: DataSpec) -> bool:
    """Return whether a table has names of images and one-hot labels; the template of the answers has none."""
    roles = find_columns(table_header(path), "", ("path", "id"))
    known = {*roles.names.values(), *(name for names in roles.ambiguous.values() for name in names)}
    return bool(known or spec.path in table_header(path)) and bool(one_hot_columns(read_table_file(path), known))


def _image_folders(images: Found) -> list[str]:
    """Return the folders of the images: the top ones, or the only ones below a single top folder (``jpeg/train``)."""
    tops = _tops(images)
    inner = list(dict.fromkeys("/".join(name.split("/")[:2]) for name in images.images if name.count("/") > 1))
    deep = len(tops) == 1 and all(name.count("/") > 1 for name in images.images)
    return inner if deep and are_splits([name.split("/")[1] for name in inner]) else tops


def ignored_tables(folder: Path) -> list[str]:
    """Return a note about the tables beside class folders, which are not read."""
    found = tables_in(folder)
    if not found:
        return []
    return [
        f"the classes are those of the subfolders of {folder}; not read: {listed_tables(found)} (`data={found[0]}` "
        "reads it)"
    ]


def _stem(name: str) -> str:
    return stem_of(name.replace("\\", "/").rpartition("/")[2].strip())


def _stems(table: Path, spec: DataSpec) -> set[str]:
    """Return the names of the images in a table, without folders and suffixes."""
    columns = read_table_file(table).columns
    roles = find_columns(list(columns), "", ("path", "id"))
    named = [spec.path, *roles.names.values(), *(name for names in roles.ambiguous.values() for name in names)]
    return {_stem(cell) for name in named if name in columns for cell in columns[name]}


def _both_ways(folder: Path, tables: Sequence[Path], images: Found, why: str) -> EnsembleError:
    """Return the error for a folder with a table and with class folders, which gives both commands."""
    names = ", ".join(path.name for path in tables)
    tops = {top.lower(): top for top in _tops(images)}
    train, test = tops.get("train", tops.get("training")), tops.get("test", tops.get("testing"))
    ways = [f"`data={tables[0]}` reads the table"]
    if train is not None and set(tops) <= {"train", "training", "test", "testing"}:
        ways.append(
            f"`data={folder / train}`" + (f" `test={folder / test}`" if test else "") + " reads the class folders"
        )
    else:
        ways.append(f"the class folders are read if {names} {'is' if len(tables) == 1 else 'are'} not in {folder}")
    return EnsembleError(
        f"{folder} has class folders and the table{'s' * (len(tables) > 1)} {names}, and either could be meant: {why}",
        hint="; ".join(ways),
    )


def unread_test(table: Path) -> list[str]:
    """Return a note about tables of test images beside a table that was found in a folder; they are not read."""
    beside = [path for path in tables_in(table.parent) if path != table and (_is_test(path.name) or _is_template(path))]
    beside.sort(key=lambda path: (_is_template(path), path.name))
    if not beside:
        return []
    return [f"not read: {', '.join(path.name for path in beside[:5])} (`test={beside[0]}` predicts its images)"]


def _labels(spec: DataSpec) -> set[str]:
    return {part.strip() for part in spec.label.split(",")}


def _csvs(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.csv")) if path.name[0] != "."]


def _tops(images: Found) -> list[str]:
    return list(dict.fromkeys(name.split("/", 1)[0] for name in images.images if "/" in name))


def _has_samples(header: Sequence[str], spec: DataSpec) -> bool:
    """Return whether a header has names of images and labels, by known names or those of `spec`."""
    if not header:
        return False
    roles = find_columns(header, "", ("path", "id", "label"))
    known = {*roles.names, *roles.ambiguous}
    named = spec.path in header or (spec.path == "path" and bool({"path", "id"} & known))
    labeled = _labels(spec) <= set(header) or (spec.label == "label" and "label" in known)
    return named and labeled


def _several(folder: Path, tables: Sequence[Path], spec: DataSpec, tops: Sequence[str]) -> EnsembleError:
    """Return the error for several tables in a folder, with what to type."""
    names = ", ".join(path.name for path in tables)
    first = next((path for path in tables if "train" in path.name.lower()), tables[0])
    others = [path for path in tables_in(folder) if _is_test(path.name)]  # it need not have labels
    others += [path for path in tables if _is_template(path) and path != first]
    others = [path for path in others if path != first]
    typed = [f"`data={first}`"]
    training = [top for top in tops if not _is_test(top.rpartition("/")[2])]
    typed += [f"`images={','.join(str(folder / top) for top in training)}`"] if training else []
    if others:
        typed.append(f"`test={others[0]}`")
        testing = [top for top in tops if _is_test(top.rpartition("/")[2])]
        typed += [f"`test_images={','.join(str(folder / top) for top in testing)}`"] if testing else []
        if _is_template(others[0]):
            typed.append("`test_labels=False`")
    beside = f", beside the folders {', '.join(tops)}" if tops else ""
    return EnsembleError(
        f"several tables of {folder} could list the images: {names}{beside}; which one is meant cannot be known",
        hint=f"name it: {' '.join(typed)}",
    )


def _is_template(path: Path) -> bool:
    return "sample" in path.name.lower()


def _is_test(top: str) -> bool:
    return re.match(rf"(?:.*[-_ .])?(?:{'|'.join(TEST_NAMES)})", top, re.IGNORECASE) is not None
