"""Which state of the code a run was made with, where it is kept in git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

SECONDS = 5.0  # a huge working tree on a slow drive is not worth more


def git_state(folder: Path = Path()) -> dict[str, Any] | None:
    """``{"commit": …, "dirty": …}`` of the working tree that `folder` is in; None where there is none, or no git.

    `dirty`: a file that git keeps differs from the commit; what it does not keep (data, results) does not count.
    Nothing is sent or fetched, nothing in the tree is run, and it says nothing about who made it.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    status = _git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all")
    return None if status is None else {"commit": commit.strip(), "dirty": bool(status.strip())}


def _git(folder: Path, *words: str) -> str | None:
    # Neither a monitor nor hooks that a working tree names are run; no lock is taken that a command of the user would meet.
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *words]
    variables = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, env=variables, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
