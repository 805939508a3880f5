"""Lines of a ledger for tests that are about lines, not about what is in them."""

from __future__ import annotations

from typing import Any


def scores(macro_f1: float = 0.5, rows: int = 70, people: int = 10) -> dict[str, Any]:
    """Scores of one split."""

    def interval(score: float) -> dict[str, float]:
        return {"score": score, "low": score - 0.1, "high": score + 0.1}

    return {
        "rows": rows,
        "people": people,
        "macro_f1": interval(macro_f1),
        "accuracy": interval(0.6),
        "log_loss": interval(1.2),
    }


def against(
    run: str, difference: float = 0.1, half: float = 0.05, chance: float = 0.001, **varied: list[Any]
) -> dict[str, Any]:
    """The baseline of a line: the difference ± half."""
    found = {
        "first": 0.5,
        "second": 0.5 + difference,
        "difference": difference,
        "low": difference - half,
        "high": difference + half,
    }
    differences = {"macro_f1": found | {"chance": chance}}
    return {
        "run": run,
        "folds": {"0": "sha"},
        "varied": varied,
        "controlled": ["epochs", "data"],
        "differences": differences,
        "notes": [],
    }


def line(run: str = "swin", **changes: Any) -> dict[str, Any]:
    """A whole line of a run."""
    entry = {
        "run": run,
        "time": "2026-01-02T03:04:05+00:00",
        "arch": "swin_tiny_patch4_window7_224",
        "folds": {"0": "sha", "1": "other"},
        "k": 2,
        "settings": {"arch": "swin", "epochs": 15, "lr": 0.001, "loss": "ce", "data": "0123"},
        "changed": ["arch"],
        "hypothesis": None,
        "stated_after": None,
        "baseline": None,
        "oof": scores(),
        "test": None,
        "cost": {
            "seconds": 100.4,
            "images": 4200,
            "devices": ["cpu"],
            "threads": 1,
            "parameters": 27_000_000,
            "jobs": 2,
        },
        "optimistic": False,
        "versions": {"torch": "2"},
        "git": {"commit": "abcdef0123456789", "dirty": True},
        "folds_sha": "f",
        "table_sha": "t",
        "config_sha": "c",
    }
    return entry | changes
