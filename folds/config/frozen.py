"""Options of heads on frozen features that stand for several settings: `heads` and `join`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from folds.errors import UsageError


def with_heads(
    given: Mapping[str, Any], heads: Sequence[str] | None, sweep: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return the settings and the sweeps with the heads: one is a setting, several are a sweep of it.

    Raises
    ------
    UsageError : `head` is given as well, or a sweep of it.
    """
    if not heads:
        return dict(given), list(sweep)
    if given.get("head") is not None or any(text.partition("=")[0].strip() == "head" for text in sweep):
        raise UsageError("`heads` and `head` contradict each other", hint="give one of them")
    own = {**given, "features": True if given.get("features") is None else given["features"]}
    if len(heads) == 1:
        return own | {"head": heads[0]}, list(sweep)
    return own, [f"head={','.join(heads)}", *sweep]


def joined_arch(arch: str | Sequence[str] | None, join: bool) -> Any:
    """Return the architectures; with `join` as one, whose features are joined: ``swin+resnet18``.

    Raises
    ------
    UsageError : `join` without several architectures.
    """
    if not join:
        return arch
    names = arch.split(",") if isinstance(arch, str) else list(arch or ())
    names = [name.strip() for name in names if name.strip()]
    if len(names) < 2:
        raise UsageError("`join` joins the features of several models", hint="`arch=swin,resnet18`")
    return "+".join(names)
