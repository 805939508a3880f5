from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from folds.experiments import record as module
from folds.experiments.record import git_state

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Nobody Atall", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working tree with one commit."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    folder = tmp_path / "tree"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "code.py").write_text("one")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_the_commit_and_whether_the_code_differs_from_it(tree: Path) -> None:
    commit = git(tree, "rev-parse", "HEAD")
    (tree / "runs").mkdir()
    (tree / "runs" / "result.npy").write_text("not kept in git")
    assert git_state(tree / "runs") == {"commit": commit, "dirty": False}
    (tree / "code.py").write_text("two")
    assert git_state(tree / "runs") == {"commit": commit, "dirty": True}


def test_there_is_no_state_without_a_tree_a_commit_or_git(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert git_state(empty) is None
    git(empty, "init", "-q")
    assert git_state(empty) is None
    assert git_state(tmp_path / "nowhere") is None
    monkeypatch.setenv("PATH", str(empty))
    assert git_state(tree) is None


def test_nothing_that_a_tree_names_is_run(tree: Path) -> None:
    spy = tree / "spy"
    spy.write_text(f"#!/bin/sh\ntouch {tree / 'was-run'}\n")
    spy.chmod(0o755)
    git(tree, "config", "core.fsmonitor", str(spy))
    git(tree, "config", "core.hooksPath", str(tree))
    assert git_state(tree) is not None
    assert not (tree / "was-run").exists()
    git(tree, "status")  # what the test would see otherwise
    assert (tree / "was-run").exists()


def test_a_git_that_hangs_is_waited_for_a_moment_only(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:/usr/bin:/bin")
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.2)
    assert git_state(tree) is None


def test_a_filter_of_a_tree_is_not_run(tree: Path) -> None:
    git(tree, "config", "filter.evil.clean", f"touch {tree / 'was-run'}; cat")
    (tree / ".gitattributes").write_text("* filter=evil\n")
    (tree / "code.py").touch()
    assert git_state(tree) is None
    assert not (tree / "was-run").exists()
