"""Import large packages faster."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause the collection of reference cycles while packages are imported; a collection that was off stays off.

    torch and timm create about a million objects that stay. Python looks at them again and again for cycles, which
    takes a fifth of the time of the import.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def lasting_imports() -> Iterator[None]:
    """As `collection_paused`, and never look for cycles among what exists after the imports.

    For the start of a process of our own: a program that imports this package has objects that should be collected.
    """
    with collection_paused():
        yield
        gc.freeze()
