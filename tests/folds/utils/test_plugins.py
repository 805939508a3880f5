from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from folds.errors import UsageError
from folds.utils.plugins import load_object


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    yield
    sys.modules.pop("edited", None)


def value() -> object:
    return load_object("edited:value", "metric", "")[1]


def test_a_file_that_changed_is_imported_anew() -> None:
    """Also with the size and the time of the version before, which compiled files are compared by."""
    file = Path("edited.py")
    file.write_text("value = 1\nkept = []")
    assert value() == 1
    first = sys.modules["edited"]
    assert value() == 1
    assert sys.modules["edited"] is first
    times = file.stat()
    file.write_text("value = 2\nkept = []")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert value() == 2
    assert not Path("__pycache__").exists()
    assert not sys.dont_write_bytecode


def test_a_file_that_was_broken_meanwhile_is_an_error_until_it_is_mended() -> None:
    file = Path("edited.py")
    file.write_text("value = 1")
    assert value() == 1
    file.write_text("value = (")
    for _ in range(2):
        with pytest.raises(UsageError, match="importing edited failed: SyntaxError"):
            value()
    file.write_text("value = 1")
    assert value() == 1


def test_a_file_that_is_gone_is_an_error() -> None:
    Path("edited.py").write_text("value = 1")
    assert value() == 1
    Path("edited.py").unlink()
    with pytest.raises(UsageError, match="there is no module edited, neither in"):
        value()
