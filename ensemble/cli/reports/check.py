"""Render how the files of a blend are read."""

from __future__ import annotations

from ensemble.blending.check import BlendCheck
from ensemble.cli.terminal import console


def check_report(check: BlendCheck) -> str:
    """Return one row per file, then what would be done, the notes, and the doubts."""
    rows = []
    for one in check.files:
        classes = ", ".join(one.classes[:4]) + (f" … ({len(one.classes)})" if len(one.classes) > 4 else "")
        rows.append(
            [one.path, one.form, f"{one.rows:,}", one.split, one.ids, classes + (" (assumed)" if one.assumed else "")]
        )
    parts = [console.table(["file", "read as", "rows", "split", "ids", "classes"], rows, left=2)]
    if check.plan:
        parts.append(f"would blend: {check.plan}")
    if check.notes:
        parts.append("\n".join(map(console.spelled, check.notes)))
    return "\n\n".join(parts)
