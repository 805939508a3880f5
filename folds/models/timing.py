"""What choices by time share: number formats that a CPU has instructions for, fair timing, and a memory of results.

A choice by time must not differ between two identical commands, so what was measured is kept for the machine
(`recall`, `remember`), and a default is left only for a clear gain.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from folds.utils.files import write_atomic

_REPEATS = 2
_CLEAR = 1.25  # a ratio that is off the limit by this factor is not measured again
_CPU_INFO = Path("/proc/cpuinfo")
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}  # of x86; the last of ARM
_MOST_BYTES = 1 << 16  # of a remembered measurement


@lru_cache(maxsize=1)
def _cpu_info() -> tuple[str, frozenset[str]]:
    """Return the name of the processor and its flags; what the system does not tell is left empty."""
    try:
        lines = [line.partition(":")[::2] for line in _CPU_INFO.read_text(errors="replace").splitlines()]
    except OSError:
        return platform.processor(), frozenset()
    first: dict[str, str] = {}
    for name, value in lines:
        first.setdefault(name.strip().lower(), value.strip())
    model = " ".join(first.get(key, "") for key in ("vendor_id", "cpu family", "model", "model name", "cpu part"))
    return " ".join(model.split()), frozenset(first.get("flags", first.get("features", "")).split())


def has_bf16() -> bool:
    """Return whether this CPU computes in bfloat16, and torch uses its instructions."""
    return bool(_cpu_info()[1] & _BF16_FLAGS) and torch.backends.mkldnn.is_available()


def processor() -> str:
    """Return the processor and the version of torch: what a rate holds for."""
    name, flags = _cpu_info()
    known = sorted(flags & (_BF16_FLAGS | {"avx2", "avx512f", "amx_tile", "asimd", "sve"}))
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {name}, {' '.join(known)}, torch {torch.__version__}, {capability}"


def fastest_seconds(
    timed: Mapping[str, Callable[[], float]],
    repeats: int = _REPEATS,
    *,
    gain: float | None = None,
    warm: Collection[str] = (),
) -> dict[str, float]:
    """Return the smallest of the seconds of each way; the ways are timed in turn, after one pass that does not count.

    Parameters
    ----------
    timed : way → a function that does the work once and returns its seconds; the first way is the default.
    gain : how many times faster than the default another way must be to be taken. Where all of them are clearly faster
        or clearly not, they are not timed again. None: all repeats.
    warm : ways that have just been run, so that all their passes count.
    """
    for way, seconds in timed.items():
        if way not in warm:
            seconds()
    best = dict.fromkeys(timed, float("inf"))
    for _ in range(repeats):
        for way, seconds in timed.items():
            best[way] = min(best[way], seconds())
        default, *others = best.values()
        if gain is not None and all(not gain / _CLEAR < default / one < gain * _CLEAR for one in others):
            break
    return best


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let each operation of torch use this many threads while the context is open."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _memory(what: Mapping[str, Any]) -> Path:
    """Return the file of a measurement: ``$XDG_CACHE_HOME/ensemble/formats/<hash>.json``, else in ``~/.cache``."""
    key = hashlib.sha256(json.dumps([processor(), what], sort_keys=True, default=list).encode()).hexdigest()[:32]
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ensemble" / "formats" / f"{key}.json"


def recall(what: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the numbers that were measured for `what` on this machine; None if there are none that can be read."""
    with suppress(OSError, ValueError, RuntimeError):  # RuntimeError: no home folder
        path = _memory(what)
        if path.stat().st_size <= _MOST_BYTES:
            found = json.loads(path.read_text(encoding="utf-8"))
            measured = found.get("measured") if isinstance(found, dict) else None
            return measured if isinstance(measured, dict) else None
    return None


def remember(what: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
    """Keep numbers for `recall`; where nothing can be written, the next command measures again."""
    record = {"processor": processor(), "what": what, "measured": measured}
    with suppress(OSError, RuntimeError):
        path = _memory(what)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(record, indent=1, default=list) + "\n")
