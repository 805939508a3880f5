"""The collection of cycles is paused while packages are imported, and is as it was afterwards."""

from __future__ import annotations

import gc
import sys
import types

import pytest

from folds._lazy import attach
from folds.utils.startup import collection_paused


@pytest.fixture
def was_on():
    on = gc.isenabled()
    gc.enable()
    yield
    (gc.enable if on else gc.disable)()


def test_the_collection_is_off_inside_and_as_before_after_an_error(was_on: None) -> None:
    inside: list[bool] = []

    def fail() -> None:
        with collection_paused():
            inside.append(gc.isenabled())
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert inside == [False]
    assert gc.isenabled()
    gc.disable()
    with collection_paused():
        pass
    assert not gc.isenabled()


def test_names_of_the_python_face_are_loaded_without_it(was_on: None, monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("some_package")
    monkeypatch.setitem(sys.modules, "some_package", package)
    seen: list[bool] = []

    def module(name: str) -> types.SimpleNamespace:
        seen.append(gc.isenabled())
        return types.SimpleNamespace(value=3)

    monkeypatch.setattr("folds._lazy.importlib.import_module", module)
    load, _ = attach("some_package", {"value": "some_package.inner"})
    assert load("value") == 3
    assert seen == [False]
    assert gc.isenabled()
