"""Write and read weights as safetensors: numbers with names and shapes, and nothing that could run."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_MAX_HEADER = 8 << 20  # bytes; the largest models of timm need less than one MiB
_MAX_TENSORS = 100_000
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def pack_weights(weights: Mapping[str, torch.Tensor], half: bool = False) -> bytes:
    """Return weights as safetensors.

    Parameters
    ----------
    half : store float tensors of two or more dimensions in fp16, unless a value is too large for it. Biases and
        statistics of normalization, one number per channel, stay in fp32.
    """
    import torch
    from safetensors.torch import save

    packed = {}
    for name, value in weights.items():
        stored = value.detach().cpu()
        if stored.is_floating_point():
            stored = stored.float()
            if half and stored.dim() > 1 and not stored.to(torch.float16).isinf().any():
                stored = stored.to(torch.float16)
        packed[name] = stored.contiguous().clone()  # safetensors refuses tensors that share memory
    return save(packed)


def unpack_weights(data: bytes) -> dict[str, torch.Tensor]:
    """Return the weights of a safetensors file; fp16 becomes fp32.

    Raises
    ------
    ValueError : it is not a safetensors file, or its header promises what the file does not hold.
    """
    from safetensors.torch import load

    check_header(data)
    try:
        found = load(data)
    except Exception as error:  # the library has its own exceptions, and others for some damages
        raise ValueError(f"it is damaged ({str(error)[:100]})") from None
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}


def check_header(data: bytes) -> None:
    """Raise ValueError unless the header of a safetensors file describes exactly what follows it."""
    length = struct.unpack_from("<Q", data)[0] if len(data) >= 8 else 0
    if not 2 <= length <= len(data) - 8 or data[8:9] != b"{":
        raise ValueError("it is not a safetensors file (other formats, such as pickles, are never loaded)")
    if length > _MAX_HEADER:
        raise ValueError(f"its header has {length:,} bytes, at most {_MAX_HEADER:,} are read")
    header = data[8 : 8 + length]
    if header.count(b"{") > _MAX_TENSORS:
        raise ValueError(f"it has more than {_MAX_TENSORS:,} tensors")
    try:
        entries = json.loads(header, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is damaged ({str(error)[:100]})") from None
    entries.pop("__metadata__", None)
    size, end = len(data) - 8 - length, 0
    for name, entry in sorted(entries.items(), key=_start):
        start, stop, expected = _extent(entry)
        if start != end or stop - start != expected or stop > size:
            raise ValueError(f"tensor '{name[:60]}' does not fit into the file")
        end = stop
    if end != size:
        raise ValueError(f"it has {size - end:,} bytes that belong to no tensor")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is repeated")
    return found


def _start(item: tuple[str, Any]) -> tuple[int, int]:
    """Return the place of a tensor, for sorting; an entry that is not one comes first, and is refused."""
    try:
        start, stop = item[1]["data_offsets"]
        return (int(start), int(stop))
    except (TypeError, KeyError, ValueError, OverflowError):
        return (-1, -1)


def _extent(entry: Any) -> tuple[int, int, int]:
    """Return (first byte, byte after the last, bytes of the shape) of a tensor; (0, -1, 0) if it is not described."""
    if not isinstance(entry, dict):
        return 0, -1, 0
    shape, offsets, width = entry.get("shape"), entry.get("data_offsets"), _BYTES.get(str(entry.get("dtype")))
    lists = [shape, offsets]
    whole = all(isinstance(one, list) and all(type(v) is int and 0 <= v < 2**40 for v in one) for one in lists)
    if width is None or not whole or not isinstance(shape, list) or not isinstance(offsets, list):
        return 0, -1, 0
    if len(offsets) != 2 or len(shape) > 8:
        return 0, -1, 0
    return offsets[0], offsets[1], math.prod(shape) * width
