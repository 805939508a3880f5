"""The Python face: its names, how they are loaded, and the examples in their docstrings."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ensemble
import folds

ROOT = Path(__file__).parent.parent
FACES = {"folds": folds, "ensemble": ensemble}
LISTED = [(face, name) for face, module in FACES.items() for name in module._NAMES]


def typed_names(face: str) -> dict[str, str]:
    """Name → module of the imports under ``if TYPE_CHECKING``."""
    tree = ast.parse((ROOT / face / "__init__.py").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {
        alias.asname or alias.name: node.module or ""
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def is_package(face: str, name: str) -> bool:
    """Whether the name is that of a subpackage, which is then callable itself."""
    return FACES[face]._NAMES[name] == f"{face}.{name}"


@pytest.mark.parametrize("face", FACES)
def test_type_checkers_and_the_loader_read_the_same_names(face: str) -> None:
    loaded = {name: module for name, module in FACES[face]._NAMES.items() if not is_package(face, name)}
    packages = {name for name in FACES[face]._NAMES if is_package(face, name)}
    typed = typed_names(face)
    assert {name: module for name, module in typed.items() if name not in packages} == loaded
    assert packages <= typed.keys()


@pytest.mark.parametrize(("face", "name"), LISTED)
def test_every_name_resolves(face: str, name: str) -> None:
    found = getattr(FACES[face], name)
    assert inspect.isclass(found) or callable(found)
    assert name in dir(FACES[face])
    assert name in FACES[face].__all__


def test_ensemble_shows_the_objects_of_folds() -> None:
    assert set(folds._NAMES) <= set(ensemble._NAMES)
    assert all(getattr(ensemble, name) is getattr(folds, name) for name in folds._NAMES)


@pytest.mark.parametrize("face", FACES)
def test_an_unknown_name_is_an_attribute_error(face: str) -> None:
    with pytest.raises(AttributeError, match=f"'{face}' has no attribute 'nothing'"):
        _ = FACES[face].nothing


@pytest.mark.parametrize("face", FACES)
def test_no_submodule_takes_the_place_of_a_function(face: str) -> None:
    """Importing a submodule binds it in its parent, so a function of that name would be gone."""
    folder = ROOT / face
    submodules = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    clash = submodules & set(FACES[face]._NAMES)
    assert all(is_package(face, name) for name in clash)


def in_process(code: str, folder: Path = ROOT) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


ORDERS = {
    "the function first": "import ensemble as en; first = en.tta; import ensemble.tta.views",
    "the package first": "import ensemble.tta.views; import ensemble as en; first = en.tta",
    "from, both": "from ensemble import tta as first; from ensemble.tta import views; import ensemble as en",
    "the package alone": "import ensemble.tta as first; import ensemble as en",
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_package_of_a_functions_name_is_the_function(order: str) -> None:
    code = f"""
{ORDERS[order]}
import inspect, pickle, sys
import ensemble.tta.views
assert en.tta is first is sys.modules["ensemble.tta"]
assert callable(en.tta) and inspect.ismodule(en.tta)
assert en.tta.views.parse_views("hflip")
assert list(inspect.signature(en.tta).parameters)[:2] == ["run", "views"]
try:
    en.tta("nothing", views="hflop")
except en.UsageError as error:
    print("called:", error)
"""
    assert in_process(code).startswith("called: unknown view 'hflop'")


def test_a_light_name_loads_nothing_heavy() -> None:
    code = (
        "import sys, ensemble as en\n"
        "found = en.score([0, 1], [[.9, .1], [.2, .8]], metric='accuracy')\n"
        "assert found.value == 1\nprint(*sys.modules)"
    )
    assert not set(in_process(code).split()) & {"torch", "timm", "sklearn", "pandas", "matplotlib", "typer", "rich"}


@pytest.mark.parametrize("name", sorted({name for _, name in LISTED}))
def test_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = getattr(ensemble, name)
    target = found.__wrapped__ if inspect.ismodule(found) else found
    tests = doctest.DocTestFinder(recurse=inspect.isclass(target)).find(
        target, name, module=importlib.import_module(target.__module__)
    )
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    failed: list[str] = []
    for test in tests:
        runner.run(test, out=failed.append)
    assert not failed, "".join(failed)
    if inspect.isfunction(target) or (inspect.isclass(target) and name in NEED_EXAMPLE):
        assert any(test.examples for test in tests), f"{name} has no example in its docstring"


NEED_EXAMPLE = {
    "Predictions",
    "StratifiedPersonKFold",
    "RepeatedStratifiedPersonKFold",
    "StratifiedPersonShuffleSplit",
}


def own_parameters(target: Any) -> dict[str, inspect.Parameter]:
    """The parameters in the code of a function, without the settings that its signature lists as well."""
    code = target.__code__
    own = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    return {name: one for name, one in inspect.signature(target).parameters.items() if name in own}


def wrong_values() -> list[tuple[str, str, Any]]:
    """Public function, parameter, and a value of a wrong type: text for numbers and flags, a number for text."""
    found = []
    for name in sorted({name for _, name in LISTED}):
        target = getattr(ensemble, name)
        target = target.__wrapped__ if inspect.ismodule(target) else target
        if not inspect.isfunction(target):
            continue
        for parameter, one in own_parameters(target).items():
            if parameter == "root":
                found.append((name, parameter, 3))
            elif isinstance(one.default, bool | int | float):
                found.append((name, parameter, "no"))
            elif isinstance(one.default, str) and parameter != "metric":
                found.append((name, parameter, 3.5))
    return found


@pytest.mark.parametrize(("name", "parameter", "value"), wrong_values())
def test_a_wrong_type_is_an_error_that_names_the_parameter(
    name: str, parameter: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    function = getattr(ensemble, name)
    target = function.__wrapped__ if inspect.ismodule(function) else function
    required = ["x" for one in own_parameters(target).values() if one.default is inspect.Parameter.empty]
    with pytest.raises(ensemble.UsageError, match=rf"^{parameter} must be .*, found {value!r}"):
        function(*required, **{parameter: value})
    assert not list(tmp_path.iterdir())


def test_most_parameters_are_checked() -> None:
    assert len(wrong_values()) > 60


def test_help_of_a_callable_package_is_that_of_its_function() -> None:
    text = in_process("import ensemble as en, pydoc\nprint(pydoc.render_doc(en.tta, renderer=pydoc.plaintext))")
    assert "Predict a run's validation and test rows in several views" in text
    assert "views : ``hflip``" in text
    assert in_process("import ensemble as en; print(en.tta.__doc__ == en.tta.__wrapped__.__doc__)").strip() == "True"
