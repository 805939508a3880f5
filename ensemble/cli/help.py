"""The help of a command with its options in groups, where its module names them in `PANELS`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Panels = Mapping[str, Sequence[str]]  # title → names of parameters, in the order shown
REST = "This command"


def in_panels(parser: Any, panels: Panels) -> None:
    """Make the help of a typer command list its options under these titles; those that none names come last."""
    title = {name: heading for heading, names in panels.items() for name in names}

    def format_options(ctx: Any, formatter: Any) -> None:
        records: dict[str, list[tuple[str, str]]] = {heading: [] for heading in [*panels, REST]}
        by_name = {parameter.name: parameter for parameter in parser.get_params(ctx)}
        ordered = [name for names in panels.values() for name in names if name in by_name]
        for name in [*ordered, *(name for name in by_name if name not in title)]:
            record = by_name[name].get_help_record(ctx)
            if record is not None:
                records[title.get(name, REST)].append(record)
        for heading, lines in records.items():
            if lines:
                with formatter.section(heading):
                    formatter.write_dl(lines)

    if panels:
        parser.format_options = format_options
