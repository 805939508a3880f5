"""`ensemble doctor`: check the installation."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil

from ensemble.cli.terminal import console
from folds.errors import EnsembleError

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "scikit-learn",
    "numpy",
    "pandas",
    "joblib",
    "ttach",
    "pillow",
    "typer",
    "rich",
)
IMPORTS = {"scikit-learn": "sklearn", "pillow": "PIL"}


def doctor() -> int:
    """Show versions and devices, and report packages that do not work together (exit 1)."""
    from folds.utils.parallel import cpu_count

    rows: list[list[str]] = [["python", platform.python_version(), ""]]
    problems: list[str] = []
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{name} is not installed; pip install {name}")
            rows.append([name, "missing", ""])
            continue
        rows.append([name, version, _trouble(name, problems)])
    devices = _devices(problems)
    text = console.table(["package", "version", ""], rows, left=3)
    text += f"\n\n{cpu_count()} CPU cores; " + (
        "; ".join(devices) if devices else "no GPU that torch can use: training runs on the CPU"
    )
    text += f"\n{_compiler()}"
    console.result(
        text,
        {
            "packages": {row[0]: row[1] for row in rows},
            "cores": cpu_count(),
            "devices": devices,
            "problems": problems,
        },
    )
    for problem in problems:
        console.warn(problem)
    if not problems:
        console.next_step("ensemble demo")
    return 1 if problems else 0


def _trouble(name: str, problems: list[str]) -> str:
    try:
        importlib.import_module(IMPORTS.get(name, name))
    except Exception as error:
        reason = " ".join(str(error).split())
        if "torchvision::nms" in reason:
            # A CPU-only torch with the default torchvision, whose operators are built for another torch.
            reason = (
                "torch and torchvision are not a matching pair; "
                "pip install --force-reinstall torch torchvision installs one"
            )
        problems.append(f"{name} cannot be imported: {reason}")
        return "cannot be imported"
    return ""


def _devices(problems: list[str]) -> list[str]:
    """Return a line for each GPU; add to `problems` if there are GPUs that torch cannot use."""
    try:
        import torch  # noqa: F401 - whether it can be imported

        from folds.models.accelerators import described, unused_gpu
    except Exception:  # reported as a problem of the package
        return []
    try:
        lines = described()
    except EnsembleError as error:
        problems.append(f"{error.message}; {error.hint}")
        return []
    if not lines and (reason := unused_gpu()):
        problems.append(reason)
    return lines


def _compiler() -> str:
    """Return what `--compile` would use on the CPU."""
    found = next((name for name in (os.environ.get("CXX", ""), "g++", "clang++") if name and shutil.which(name)), "")
    return f"C++ compiler for --compile: {found}" if found else "no C++ compiler: --compile does not work"
