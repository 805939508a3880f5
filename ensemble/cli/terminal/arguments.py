"""What several commands read from their words."""

from __future__ import annotations

from ensemble.cli.terminal import console


def fold_numbers(text: str | None) -> list[int] | None:
    """The folds of ``--fold 0,3``; None for all."""
    from folds.errors import UsageError

    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--fold {text}: expected fold numbers", hint="--fold 0 or --fold 0,3") from None


def jobs_asked(text: str) -> int | None:
    """The number of ``--jobs N``; None for ``auto``."""
    from folds.errors import UsageError

    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--jobs must be 1 or more, or auto, found {text}")
    return int(text)


def resuming() -> str:
    """This command as it was typed, with --resume."""
    import shlex

    return shlex.join(["ensemble", *(word for word in console.words if word not in ("--resume", "--force")), "--resume"])
