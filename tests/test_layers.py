"""The architecture: one arrow between the packages, ranks of packages within, no circles, and light starts."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Packages (and modules at the top) from low to high: one imports only lower ones. docs/architecture.md says what each
# is for.
RANKS = {
    "folds": (
        ("errors",),
        ("utils",),
        ("metrics", "images", "augmentation", "optim", "data.synthetic"),
        ("predictions", "config"),
        ("data",),
        ("models", "splits", "preparation"),
        ("auditing", "training"),
        ("features",),
        ("execution", "experiments"),
        ("runs",),
        ("tuning",),
    ),
    "ensemble": (
        ("members",),
        ("alignment",),
        ("voting",),
        ("pooling",),
        ("learning",),
        ("analysis",),
        ("blending",),
        ("label_check",),
        ("decisions",),
        ("tta", "distillation", "explain"),
        ("cascade",),
        ("model_files",),
        ("prediction",),
        ("export",),
        ("serving",),
        ("report",),
        ("review",),
        ("cli.terminal",),
        ("cli.reports",),
        ("cli.commands",),
        ("cli",),
        ("__main__",),
    ),
}
NESTED = ("data.synthetic", "cli.terminal", "cli.reports", "cli.commands")
# What may be imported by whoever only blends: no torch, and half of `folds` could be taken away.
COMBINER_USES = {"errors", "utils", "metrics", "predictions"}
DISTILLATION_USES = COMBINER_USES | {"config", "runs"}
REPORT_USES = COMBINER_USES | {"data", "images", "models", "splits", "auditing", "experiments", "augmentation"}
TTA_USES = COMBINER_USES | {"data", "images", "models"}


def package_of(module: str) -> tuple[str, str]:
    """``folds.data.synthetic.people`` → (``folds``, ``data.synthetic``); ``folds.errors`` → (``folds``, ``errors``)."""
    top, *rest = module.split(".")
    two = ".".join(rest[:2])
    return top, two if two in NESTED else (rest[0] if rest else "")


def modules(top: str) -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / top).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: set[str]) -> Iterator[str]:
    """The modules of the two packages that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [one if one in known else node.module for one in inside]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name for name in names if name.split(".")[0] in RANKS)


MODULES = {top: modules(top) for top in RANKS}
KNOWN = {name for found in MODULES.values() for name in found}


@cache
def edges() -> list[tuple[str, str]]:
    """(module, module that it imports), found by the first test that asks: every process of tests reads this file."""
    return [
        (name, target)
        for found in MODULES.values()
        for name, path in found.items()
        for target in imports(path, KNOWN)
        if "." in name and "." in target  # the two faces import from everywhere, lazily
    ]


def test_folds_never_imports_ensemble() -> None:
    assert not [edge for edge in edges() if edge[0].startswith("folds.") and edge[1].startswith("ensemble.")]
    assert not list(filter(lambda name: name.startswith("ensemble"), imports(ROOT / "folds/__init__.py", KNOWN)))


@pytest.mark.parametrize("top", RANKS)
def test_every_package_has_a_rank(top: str) -> None:
    found = {package_of(name)[1] for name in MODULES[top] if "." in name} - {"_lazy"}
    assert found - {"cli"} == {name for rank in RANKS[top] for name in rank} - {"cli"}


@pytest.mark.parametrize("top", RANKS)
def test_a_package_imports_only_lower_ones(top: str) -> None:
    rank = {package: i for i, packages in enumerate(RANKS[top]) for package in packages}
    wrong = []
    for name, target in edges():
        (own_top, own), (target_top, other) = package_of(name), package_of(target)
        if own_top == target_top == top and own != other and "_lazy" not in (own, other) and rank[other] >= rank[own]:
            wrong.append(f"{name} imports {target}")
    assert not wrong


def test_whoever_only_blends_needs_four_packages_of_folds() -> None:
    wrong = []
    for name, target in edges():
        (top, own), (target_top, other) = package_of(name), package_of(target)
        if top == "ensemble" and target_top == "folds" and own.split(".")[0] != "cli":
            uses = (
                TTA_USES
                if own in ("tta", "explain", "model_files", "prediction", "export", "serving")
                else COMBINER_USES
            )
            uses = DISTILLATION_USES if own == "distillation" else REPORT_USES if own == "report" else uses
            wrong += [f"{name} imports {target}"] if other not in uses | {"_lazy"} else []
    assert not wrong


def test_no_circles() -> None:
    """Among modules; `prepare` raises CycleError, which names the circle."""
    graph: dict[str, set[str]] = {}
    for name, target in edges():
        if name != target and target in KNOWN:
            graph.setdefault(name, set()).add(target)
    graphlib.TopologicalSorter(graph).prepare()


def modules_after(code: str) -> set[str]:
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_packages_import_nothing_heavy() -> None:
    heavy = {"torch", "timm", "sklearn", "pandas", "numpy", "scipy"}
    assert not modules_after("import ensemble, folds") & heavy


def test_help_imports_neither_numpy_nor_typer() -> None:
    code = "from ensemble.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert not modules_after(code) & {"torch", "timm", "sklearn", "pandas", "numpy", "scipy", "typer", "rich"}
