"""Expand and check the paths and patterns of the prediction files to blend."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ensemble.members.columns import ColumnNames, is_fractional, numbers
from ensemble.members.names import name_hint
from ensemble.members.true_labels import is_sample_table
from folds.errors import EnsembleError, UsageError, close_matches
from folds.predictions.columns import find_columns
from folds.utils.files import expand_pattern, is_pattern
from folds.utils.tables import TEXT, read_table_file, table_header, table_suffix

logger = logging.getLogger(__name__)


def find_files(paths: Sequence[Path], allow_duplicates: bool = False, names: ColumnNames | None = None) -> list[Path]:
    """Return the prediction files to blend; patterns that the shell did not expand are expanded.

    Parameters
    ----------
    paths : paths and patterns.
    allow_duplicates : return a file as often as it is given; by default it is returned once, with a warning.
    names : columns that the user named: a table that has them is not refused by its other columns.

    Raises
    ------
    UsageError : no file is given.
    EnsembleError : a file is missing, a pattern matches nothing, or a file does not hold predictions.
    """
    if not paths:
        raise UsageError("expected at least one prediction file, found none", hint="ensemble blend runs/*.npy")
    found: list[Path] = []
    for path in paths:
        if not is_pattern(path):
            found.append(path)
        else:
            found += _expand(path)
    kept: dict[Path, Path] = {}
    for path in found:
        _check_name(path, names or ColumnNames())
        if path.resolve() in kept and not allow_duplicates:
            logger.warning("%s is given twice and is used once (`allow_duplicates`: it votes each time)", path)
        kept.setdefault(path.resolve(), path)
    return found if allow_duplicates else list(kept.values())


def _expand(pattern: Path) -> list[Path]:
    matches = expand_pattern(pattern)
    if matches:
        return matches
    available = [*sorted(Path().glob("*.npy")), *sorted(Path().glob("*/*.npy"))]
    if available:
        listed = ", ".join(map(str, available[:5])) + (f" and {len(available) - 5} more" if len(available) > 5 else "")
        raise EnsembleError(f"no file matches {pattern}", hint=f"prediction files found: {listed}")
    raise EnsembleError(
        f"no file matches {pattern}, and this folder and its subfolders have no prediction files",
        hint="ensemble kfold --k 5 --arch swin",
    )


def _check_name(path: Path, names: ColumnNames) -> None:
    if path.is_dir():
        raise EnsembleError(f"{path} is a folder, expected prediction files", hint=f"ensemble blend {path}/*.npy")
    if not path.exists():
        beside = [str(other) for other in path.parent.glob("*.npy")] if path.parent.is_dir() else []
        close = close_matches(str(path), beside)
        raise EnsembleError(
            f"file not found: {path}" + (f"; did you mean {' or '.join(close)}?" if close else ""),
            hint=name_hint(str(path)) or f"{path.parent} has {', '.join(sorted(beside)[:5])}"
            if beside or name_hint(str(path))
            else "ensemble kfold --k 5 --arch swin writes predictions to runs/",
        )
    table = table_suffix(path.name)
    if not table and path.suffix.lower() not in (".npy", ".npz"):
        note = " (sidecars are found automatically)" if path.suffix == ".json" else ""
        raise EnsembleError(
            f"{path}: expected a .npy or .npz array, or a table (.csv, .tsv, .parquet, .feather){note}",
            hint=f"ensemble blend {path.parent}/*.npy" if path.suffix == ".json" else _conversion(path),
        )
    # Other formats are read as a whole, so the content of such a table is checked when it is read.
    header = table_header(path) if table in TEXT else []
    named = {names.prediction, *names.probabilities} & set(header)
    if table and not named and (path.name.startswith("samples-") or is_sample_table(header)) and not _predicts(path):
        raise EnsembleError(
            f"{path} lists samples with their true labels, expected predictions",
            hint=f"to score against these labels: ensemble blend runs/*.npy --labels {path}",
        )


def _predicts(path: Path) -> bool:
    """Return whether the column with a name of true labels holds probabilities, as in a submission."""
    columns = read_table_file(path).columns
    label = find_columns(list(columns), str(path), ("label",)).get("label")
    return label is not None and is_fractional(numbers(columns[label]))


def _conversion(path: Path) -> str:
    """Return how to save predictions of another format."""
    loads = {
        ".h5": "h5py.File({0!r})[KEY][:]",
        ".hdf5": "h5py.File({0!r})[KEY][:]",
        ".pt": "torch.load({0!r}, weights_only=True).numpy()",
        ".pth": "torch.load({0!r}, weights_only=True).numpy()",
        ".pkl": "pickle.load(open({0!r}, 'rb'))",
        ".pickle": "pickle.load(open({0!r}, 'rb'))",
        ".mat": "scipy.io.loadmat({0!r})[KEY]",
        ".xlsx": "pandas.read_excel({0!r})",
    }
    if path.suffix.lower() == ".xlsx":
        return f"save it as a CSV: {loads['.xlsx'].format(path.name)}.to_csv({path.stem + '.csv'!r}, index=False)"
    load = loads.get(path.suffix.lower(), "ARRAY").format(path.name)
    return (
        f"save the array: np.save({path.stem + '.npy'!r}, {load}); beside it {path.stem}.json with ids, classes, split "
        "and kind, or a CSV with id and one column per class"
    )
