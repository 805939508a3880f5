"""Write and read ``blend.npy.gz``: the numbers of a combination that are too many for the text of ``blend.toml``.

The file is one compressed array, without names: ``blend.toml`` gives the shape and the hash of each field in it, in
order. It is decompressed only as far as these shapes say, and cannot run code.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import ARRAYS, MAX_NUMBERS, array_sha
from folds.errors import EnsembleError
from folds.utils.bounded import check_regular
from folds.utils.files import write_atomic
from folds.utils.schema import FieldType, integer, list_of, validate_fields

FILE = "blend.npy.gz"
_HINT = "blend again to write both files anew"
_LEVEL = 1  # most coefficients of many classes are 0; the other numbers hardly get shorter
_MARGIN = 64 << 10  # bytes of a gzip header and of blocks that do not get shorter
_DIMENSIONS = 3
_APART = {
    "shape": list_of(integer(1, MAX_NUMBERS)),
    "sha": FieldType("a SHA-256 in hex", lambda value: isinstance(value, str) and len(value) == 64),
}


def write_coefficients(folder: Path, arrays: Mapping[str, NDArray[np.float64]]) -> list[Path]:
    """Write the arrays of `Combination.large_arrays` beside ``blend.toml``; without any, remove the file.

    Returns
    -------
    The written file; [] without arrays.
    """
    path = folder / FILE
    if not arrays:
        path.unlink(missing_ok=True)
        return []

    return [write_atomic(path, lambda file: pack_coefficients(file, arrays))]


def pack_coefficients(file: IO[bytes], arrays: Mapping[str, NDArray[np.float64]]) -> None:
    """Write the arrays of `Combination.large_arrays` to an open file; equal bytes for equal arrays."""
    with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as stream:  # without a name and a time
        stream.write(_header(sum(array.size for array in arrays.values())))
        for array in arrays.values():
            stream.write(np.ascontiguousarray(array, "<f8").data.cast("B"))


def read_coefficients(recipe: Path, record: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Return field → numbers of the fields that a record of a combination has in ``blend.npy.gz``.

    Parameters
    ----------
    recipe : the ``blend.toml`` with the record; the file is beside it.

    Raises
    ------
    EnsembleError : the file is missing, is not the one that was written with ``blend.toml``, or is too large.
    """
    path = recipe.with_name(FILE)

    def opened() -> IO[bytes]:
        check_regular(path)
        return path.open("rb")

    return unpack_coefficients(record, recipe, path, opened)


def unpack_coefficients(
    record: Mapping[str, Any], recipe: Path, path: Path, opened: Callable[[], IO[bytes]]
) -> dict[str, NDArray[np.float64]]:
    """Return field → numbers; see `read_coefficients`.

    Parameters
    ----------
    recipe, path : the files of the record and of the numbers, for errors.
    opened : opens the file of the numbers; called if the record needs it.
    """
    fields = {name: value for name in ARRAYS if isinstance(value := record.get(name), Mapping)}
    if not fields:
        return {}
    for name, value in fields.items():
        wrong = validate_fields(dict(value), _APART)
        if not wrong and len(value["shape"]) > _DIMENSIONS:
            wrong = [f"expected at most {_DIMENSIONS} numbers in 'shape', found {len(value['shape']):,}"]
        if wrong:
            raise EnsembleError(f"{recipe}: '{name}': {wrong[0]}", hint=_HINT)
    sizes = {name: math.prod(value["shape"]) for name, value in fields.items()}
    total = sum(sizes.values())
    if total > MAX_NUMBERS:
        raise EnsembleError(
            f"{recipe}: {', '.join(fields)}: expected at most {MAX_NUMBERS:,} numbers, found {total:,}", hint=_HINT
        )
    numbers, found, start = _read(path, total, opened), {}, 0
    for name, value in fields.items():
        found[name] = numbers[start : start + sizes[name]].reshape(value["shape"])
        start += sizes[name]
        if array_sha(found[name]) != value["sha"]:
            raise EnsembleError(f"{path} is not the file that was written with {recipe}", hint=_HINT)
    return found


def _header(total: int) -> bytes:
    """Return the bytes in front of `total` numbers; a file has exactly these, so nothing in it is parsed."""
    file = io.BytesIO()
    description = {"descr": "<f8", "fortran_order": False, "shape": (total,)}
    np.lib.format.write_array_header_1_0(file, description)  # type: ignore[arg-type]
    return file.getvalue()


def _read(path: Path, total: int, opened: Callable[[], IO[bytes]]) -> NDArray[np.float64]:
    """Return exactly `total` numbers."""
    header = _header(total)
    length = len(header) + 8 * total
    try:
        with opened() as file:
            # What is compressed is hardly longer than what it holds, whatever it is.
            content = file.read(length + length // 8 + _MARGIN + 1)
        if len(content) > length + length // 8 + _MARGIN:
            raise ValueError("it is longer than its numbers could be")
        unpacker = zlib.decompressobj(wbits=31)  # one gzip member
        numbers = unpacker.decompress(content, length + 1)
        if len(numbers) != length or not unpacker.eof or unpacker.unused_data or not numbers.startswith(header):
            raise ValueError(f"expected {total:,} numbers, found something else")
        return np.frombuffer(numbers, "<f8", total, len(header)).astype(np.float64)
    except FileNotFoundError:
        raise EnsembleError(
            f"{path} is missing: it has coefficients of the blend",
            hint=f"keep {FILE} beside its .toml file, or blend again",
        ) from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise EnsembleError(f"{path} cannot be read: {error}", hint=_HINT) from None
