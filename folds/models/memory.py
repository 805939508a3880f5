"""Recognize that a device has run out of memory, and let it use what it has."""

from __future__ import annotations

import os

# cuBLAS, cuDNN and the driver have no error class of their own for it.
_TEXTS: tuple[str, ...] = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA_ERROR_OUT_OF_MEMORY",
)
# Intel's driver, and Metal, of which a buffer has a largest size.
_TEXTS += ("OUT_OF_DEVICE_MEMORY", "OUT_OF_HOST_MEMORY", "Invalid buffer size")


class DeviceSharedError(Exception):
    """Memory ran out in a job that shares its device with others: it waits until it has more room."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of a device is too small."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


_HEAP = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


def allocator_variables() -> dict[str, str]:
    """Return the variables for the memory of a process that trains, of those that the user has not set.

    On a GPU, batches of two sizes alternate; with segments that can grow, the memory that one has left fits the other.
    On a CPU with glibc, memory that a step frees is kept for the next one (1 GiB at most) instead of given back and
    cleared again: a twentieth of the pages, and 4% of the time of a step of ResNet18 at 64 px in bf16.
    """
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    of_gpu = {} if any(name in os.environ for name in names) else {names[1]: "expandable_segments:True"}
    tuned = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ)
    return of_gpu | ({} if tuned else _HEAP)
