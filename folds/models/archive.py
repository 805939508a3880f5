"""Load a file of torch within limits: no code, no compressed parts, no values that take for ever to walk or hash."""

from __future__ import annotations

import argparse
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from folds.utils.bounded import check_bounded, check_regular
from folds.utils.files import sha256_bytes

_MAX_TUPLE = 20_000_000  # values in a tuple, nested ones counted each time: hashing or printing it visits all
_MAX_TUPLE_DEPTH = 50
# What the files of this program name. torch.load accepts more, such as quantized and sparse tensors.
_PLAIN = re.compile(
    r"torch (\w+Storage|Size)|torch\._utils _rebuild_(tensor_v2|parameter)|collections OrderedDict|"
    r"(builtins|__builtin__) set|_codecs encode"
)
# The pickles that this process has found harmless, by their hash: an export loads the same files several times, and a
# scan takes as long as loading.
_harmless: set[tuple[str, bool]] = set()
_MAX_HARMLESS = 10_000
# A number would make it allocate any amount of memory.
_NEVER = re.compile(r"(builtins|__builtin__) bytearray")


def load_archive(path: Path, plain: bool = True) -> Any:
    """Return the content of a file of torch: plain values and tensors on the CPU.

    Everything is checked before it is built, as far as it can be: types and nesting by a scan of the pickle, sizes by
    the table of contents of the archive.

    Parameters
    ----------
    plain : whether the file holds only what this program writes; otherwise everything that torch accepts with
        ``weights_only=True``, also in its old format without an archive.

    Raises
    ------
    ValueError : the file is hostile or damaged, or not a file.
    Exception : whatever torch raises for a file that it cannot load.
    """
    import torch

    try:
        check_regular(path)
        if zipfile.is_zipfile(path):
            _check_parts(path)
            reader = torch._C.PyTorchFileReader(str(path))
            _check_once(reader.get_record("data.pkl"), plain)
        else:
            _check_old(path, plain)
            if plain:
                raise ValueError("it is not an archive")
    except OSError as error:
        raise ValueError(str(error)) from None
    # timm's own training script stores its command line, an argparse.Namespace. Restoring one only sets attributes.
    with torch.serialization.safe_globals([] if plain else [argparse.Namespace]):
        found = torch.load(path, map_location="cpu", weights_only=True)
    _check_values(found)
    return found


def _check_once(pickle: bytes, plain: bool) -> None:
    """Check a pickle unless the same bytes were checked before."""
    known = (sha256_bytes(pickle), plain)
    if known in _harmless:
        return
    _check_pickle(pickle, plain)
    if len(_harmless) < _MAX_HARMLESS:
        _harmless.add(known)


def _check_parts(path: Path) -> None:
    """Raise ValueError if parts of an archive are compressed, named twice or overlap: a small file could need any
    memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise ValueError(f"its archive is damaged: {error}") from None
    if any(part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size for part in parts):
        raise ValueError("it has compressed parts, which torch does not write")
    if sum(part.file_size for part in parts) > path.stat().st_size:
        raise ValueError("its parts overlap")
    if len({part.filename for part in parts}) < len(parts):
        raise ValueError("it has two parts of the same name")


def _check_old(path: Path, plain: bool) -> None:
    """Check the pickles at the start of a file in the format that torch wrote before 1.6."""
    with open(path, "rb") as file:
        for _ in range(5):
            _check_pickle(file, plain)


def _check_pickle(pickle: bytes | IO[bytes], plain: bool) -> None:
    """Raise ValueError if a pickle names what it should not, or has tuples of nested repetitions.

    Lists and mappings are checked when they are loaded (`check_bounded`). Tuples can be keys of a mapping, and the hash
    of a tuple that holds the same tuple twice, and so on, would take for ever while it is loaded.
    """
    stack: list[Any] = []  # of every value: None, or (size, depth) of a tuple; "mark" for a mark
    memo: dict[Any, Any] = {}
    try:
        for code, value, _ in _operations(pickle):
            name = code.name
            if name == "GLOBAL":
                if (plain and not _PLAIN.fullmatch(str(value))) or _NEVER.fullmatch(str(value)):
                    kind = re.fullmatch(r"torch\._utils _rebuild_(\w+)", str(value))
                    if kind is not None:
                        raise ValueError(f"it holds tensors of another kind ({kind[1]}), expected ordinary tensors")
                    raise ValueError(f"it names {str(value)[:100].replace(' ', '.')}: unsupported GLOBAL")
                stack.append(None)
            elif name in ("TUPLE1", "TUPLE2", "TUPLE3", "TUPLE"):
                start = len(stack) - int(name[-1]) if name[-1] != "E" else _pop_mark(stack)
                stack[start:] = [_tuple_of(stack[start:])]
            elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
                memo[value] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET", "GET"):
                stack.append(memo[value])
            else:
                _pop_and_push(stack, code)
    except (IndexError, KeyError, TypeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise ValueError(f"its pickle is damaged: {error}") from None


def _operations(pickle: bytes | IO[bytes]) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the instructions of a pickle; raise ValueError, with one beginning, if it is damaged."""
    try:
        yield from pickletools.genops(pickle)
    except (ValueError, OverflowError, MemoryError) as error:
        raise ValueError(f"its pickle is damaged: {error}") from None


def _pop_mark(stack: list[Any]) -> int:
    """Remove the last mark and return its place."""
    at = len(stack) - 1 - stack[::-1].index("mark")
    del stack[at]
    return at


def _tuple_of(parts: list[Any]) -> tuple[int, int]:
    """Return (size, depth) of a tuple; raise ValueError if they are beyond the limits."""
    inner = [part for part in parts if isinstance(part, tuple)]
    size, depth = len(parts) + sum(part[0] for part in inner), 1 + max((part[1] for part in inner), default=0)
    if size > _MAX_TUPLE or depth > _MAX_TUPLE_DEPTH:
        raise ValueError("it has tuples of nested repetitions")
    return size, depth


def _pop_and_push(stack: list[Any], code: Any) -> None:
    """Apply any other instruction to the stack, where only the number of values matters."""
    if code.name in ("PROTO", "FRAME", "STOP"):
        return
    if code.name == "MARK":
        stack.append("mark")
        return
    before = code.stack_before
    if pickletools.markobject in before:
        del stack[_pop_mark(stack) :]
        before = before[: before.index(pickletools.markobject)]
    kept = stack[-1] if code.name == "DUP" else None
    if before:
        del stack[-len(before) :]
    stack += [kept] * len(code.stack_after)


def _check_values(found: Any) -> None:
    """Raise ValueError if loaded values are nested without end, or a tensor is not an ordinary one."""
    check_bounded(found)
    stack = [found]
    while stack:
        one = stack.pop()
        if isinstance(one, Mapping):
            stack += one.values()
        elif isinstance(one, list | tuple | set):
            stack += one
        elif reason := unusual(one):
            raise ValueError(f"it holds {reason}, expected ordinary tensors")


def unusual(value: Any) -> str:
    """Return what kind of tensor a value is if it cannot be the weights of a model; "" for ordinary ones and others."""
    import torch

    if not isinstance(value, torch.Tensor):
        return ""
    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        return f"a {type(value).__name__}"
    if value.is_meta:
        return "a meta tensor (a shape without values)"
    if value.layout is not torch.strided:
        return "a sparse tensor"
    if value.is_quantized:
        return "a quantized tensor"
    return "a tensor of complex numbers" if value.is_complex() else ""
