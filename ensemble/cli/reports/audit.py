"""Render an audit as text."""

from __future__ import annotations

from ensemble.cli.terminal import console
from folds.auditing.run import AuditReport


def show(report: AuditReport) -> None:
    """Print the audit, or one JSON object."""
    console.result(audit_text(report), report.to_dict())


def audit_text(report: AuditReport) -> str:
    """Return the numbers of checked images and people, a table of the findings, and the first cases of each."""
    test = report.data.test
    checked = f"{len(report.data.train):,} images of {report.people:,} people"
    checked += f", {len(test):,} test images" if test is not None else ""
    checked += f"\n{report.folds}: no person is in two folds" if report.assignment is not None else ""
    checked += f"\n{_images_text(report)}"
    if not report.findings:
        return f"{checked}\n\nno problems found {'in the table and its images' if report.images else 'in the table'}"
    rows = [[finding.kind, finding.severity, finding.amount] for finding in report.findings]
    blocks = [checked, console.table(["finding", "", "count"], rows, 2)]
    for finding in report.findings:
        first, *cases = finding.lines()
        blocks.append("\n".join([f"{finding.severity}: {console.spelled(first)}", *cases]))
    return "\n\n".join(blocks)


def _images_text(report: AuditReport) -> str:
    if report.images is None:
        return "image files: not looked at, only the table was checked"
    if not report.images:
        return "image files: none was found, only the table was checked"
    return f"image files: {report.images:,} were looked at and compared with each other"
