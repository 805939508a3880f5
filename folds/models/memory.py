"""Recognize that a device has run out of memory, and let it use what it has."""

from __future__ import annotations

import os

# cuBLAS, cuDNN and the driver have no error class of their own for it.
_TEXTS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDA_ERROR_OUT_OF_MEMORY")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of a device is too small."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def allocator_variables() -> dict[str, str]:
    """Return the variables for torch's memory of a GPU that the user has not set.

    Batches of two sizes alternate; with segments that can grow, the memory that one has left fits the other.
    """
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    return {} if any(name in os.environ for name in names) else {names[1]: "expandable_segments:True"}
