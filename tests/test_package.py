"""What is installed: the wheel's contents and metadata, and one version everywhere."""

from __future__ import annotations

import email
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import folds
from tests.conftest import ROOT, Called

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "ensemble", "folds", "tests", "benchmarks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the tree by the hook that pip calls, without network."""
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.tar.gz"))
        else:
            shutil.copy(ROOT / name, tree / name)
    code = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(tree / done.stdout.splitlines()[-1])


def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def test_wheel_holds_every_module_and_no_test(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {
        str(path.relative_to(ROOT))
        for top in ("ensemble", "folds")
        for path in (ROOT / top).rglob("*")
        if path.suffix in (".py", ".html", ".css", ".js") or path.name == "py.typed"
    }
    assert packed == sources
    assert {"ensemble/py.typed", "folds/py.typed"} <= packed


def test_every_folder_with_modules_is_a_package() -> None:
    # setuptools leaves out a folder without __init__.py.
    folders = {path.parent for top in ("ensemble", "folds") for path in (ROOT / top).rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_wheel_carries_the_license(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/LICENSE"))
    assert wheel.read(name) == (ROOT / "LICENSE").read_bytes()
    assert b"Apache License" in wheel.read(name)
    assert metadata(wheel)["License-Expression"] == "Apache-2.0"


def test_wheel_names_distribution_command_and_needs(wheel: zipfile.ZipFile) -> None:
    found = metadata(wheel)
    assert found["Name"] == "ensemble-folds"
    assert found["Version"] == folds.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    always = [need for need in found.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert len(always) == len(project["dependencies"])
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert wheel.read(name).decode().split() == ["[console_scripts]", "ensemble", "=", "ensemble.cli:main"]


def test_version_is_the_same_everywhere() -> None:
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert citation is not None
    assert citation[1] == folds.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == folds.__version__


def test_folds_are_saved_from_a_tree_not_installed(
    call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = importlib.metadata.distribution

    def without_us(name: str) -> importlib.metadata.Distribution:
        if name.startswith("ensemble"):
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without_us)
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text("path,label,person\n" + "".join(f"{i}.jpg,{i % 2},p{i // 4}\n" for i in range(32)))
    called = call("folds", "--data", "table.csv", "--k", "2")
    assert called.code == 0, called.err
    assert json.loads(Path("folds.json").read_text())["versions"]["ensemble"] == folds.__version__


def test_python_m_ensemble_is_the_command_line() -> None:
    command = [sys.executable, "-m", "ensemble", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"ensemble {folds.__version__}\n")
