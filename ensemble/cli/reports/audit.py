"""What an audit has found, as text."""

from __future__ import annotations

from ensemble.cli.terminal import console
from folds.auditing.run import AuditReport


def show(report: AuditReport) -> None:
    """Print a table of the findings, and each with its first cases."""
    console.result(audit_text(report), report.to_dict())


def audit_text(report: AuditReport) -> str:
    """Return what was looked at, a table of the findings, and each with its first cases."""
    test = report.data.test
    looked = f"{len(report.data.train):,} images of {report.people:,} people"
    looked += f", {len(test):,} test images" if test is not None else ""
    looked += f"\n{report.folds}: nobody stands in two folds" if report.assignment is not None else ""
    if not report.findings:
        return f"{looked}\n\nnothing was found"
    rows = [[finding.kind, finding.severity, finding.amount] for finding in report.findings]
    blocks = [looked, console.table(["finding", "", "how many"], rows, 2)]
    for finding in report.findings:
        first, *cases = finding.lines()
        blocks.append("\n".join([f"{finding.severity}: {first}", *cases]))
    return "\n\n".join(blocks)
