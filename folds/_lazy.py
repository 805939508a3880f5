"""Load the names of a package's face on first use, and let a package be called as the function of its name."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from folds.utils.startup import collection_paused


def attach(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package (PEP 562) whose `names` are each loaded from their module.

    A name whose module is the package's own submodule of that name (``tta`` of ``ensemble.tta``) is that module, which
    `callable_package` has made callable: whatever is imported first, the attribute is the same object.
    """

    def load(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with collection_paused():
            module = importlib.import_module(names[name])
        found = module if names[name] == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, found)
        return found

    return load, lambda: sorted({*vars(sys.modules[package]), *names})


def callable_package(package: str, module: str) -> None:
    """Make a subpackage callable as the function of its own name in `module`, which is loaded by the first call.

    Importing a subpackage binds it as an attribute of its parent, over a function of the same name. So the two are one
    object here: ``ensemble.tta(...)`` calls, and ``ensemble.tta.run`` is still the module below.
    """
    name = package.rpartition(".")[2]

    def target() -> Callable[..., Any]:
        return getattr(importlib.import_module(module), name)

    class CallablePackage(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return target()(*args, **kwargs)

        @property
        def __doc__(self) -> str | None:  # type: ignore[override]
            """The text of the function, which `help` shows."""
            return target().__doc__

        @property
        def __signature__(self) -> inspect.Signature:
            return inspect.signature(target())

        @property
        def __wrapped__(self) -> Callable[..., Any]:
            return target()

    sys.modules[package].__class__ = CallablePackage
