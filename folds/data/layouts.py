"""Find the table in a folder, and say what to type where several could be meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from folds.data.image_folder import TEST_NAMES, Found, are_splits
from folds.data.table import DataSpec
from folds.errors import EnsembleError
from folds.predictions.columns import find_columns
from folds.utils.csv_table import read_header
from folds.utils.tables import table_header, table_suffix


def only_table(folder: Path, spec: DataSpec, training: bool = True) -> Path | None:
    """Return the CSV in `folder` that has the requested columns; None if there is none.

    Raises
    ------
    EnsembleError : several CSVs have them.
    """
    wanted = {spec.path} | (_labels(spec) if training else set())
    tables = _csvs(folder)
    found = [path for path in tables if wanted <= set(read_header(path))]
    if len(found) > 1 and training:
        raise _several(folder, found, spec, ())
    if not found and training and wanted != {"path", "label"}:
        found = tables  # column names imply a CSV; reading it reports the missing columns
    return found[0] if len(found) == 1 else None


def table_beside_images(folder: Path, spec: DataSpec, images: Found) -> Path | None:
    """Return the table of a folder whose subfolders are not classes, by known names of its columns.

    Raises
    ------
    EnsembleError : several tables could be meant, as in the folder of a competition: train.csv and
        sample_submission.csv beside ``train_images`` and ``test_images``.
    """
    tops = _tops(images)
    if len(tops) > 1 and not are_splits(tops):
        return None
    fitting = [path for path in _tables(folder) if _has_samples(table_header(path), spec)]
    if len(fitting) > 1:
        raise _several(folder, fitting, spec, tops)
    return fitting[0] if fitting else None


def ignored_tables(folder: Path) -> list[str]:
    """Return a note about the tables beside class folders, which are not read."""
    found = _tables(folder)
    if not found:
        return []
    return [
        f"the classes are the subfolders of {folder}; not read: {', '.join(path.name for path in found[:5])}"
        f"{', …' if len(found) > 5 else ''} (`data={found[0]}` reads it)"
    ]


def _labels(spec: DataSpec) -> set[str]:
    return {part.strip() for part in spec.label.split(",")}


def _csvs(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.csv")) if path.name[0] != "."]


def _tables(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.iterdir()) if path.name[0] != "." and path.is_file()]
    return [path for path in files if table_suffix(path.name) not in ("", ".txt", ".txt.gz")]


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
    first = next((path for path in tables if path.name.lower().startswith("train")), tables[0])
    others = [path for path in tables if path.name.lower().startswith(("test", "sample")) and path != first]
    typed = [f"`data={first}`"]
    training = [top for top in tops if not _is_test(top)]
    typed += [f"`images={','.join(str(folder / top) for top in training)}`"] if training else []
    if others:
        typed.append(f"`test={others[0]}`")
        testing = [top for top in tops if _is_test(top)]
        typed += [f"`test_images={','.join(str(folder / top) for top in testing)}`"] if testing else []
        if others[0].name.lower().startswith("sample"):
            typed.append("`test_labels=False`")
    beside = f", beside the folders {', '.join(tops)}" if tops else ""
    return EnsembleError(
        f"several tables of {folder} could list the images: {names}{beside}; which one is meant cannot be known",
        hint=f"name it: {' '.join(typed)}",
    )


def _is_test(top: str) -> bool:
    return any(top.lower().startswith(name) for name in TEST_NAMES)
