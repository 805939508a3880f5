"""Where the data come from: what the user named, else ./data, else people drawn by the program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folds.config.recipe import Settings
from folds.data.readers import read_data
from folds.data.table import Dataset, DataSpec

HERE = Path("data")
BUILT_IN = Path(".ensemble/people")


@dataclass(frozen=True)
class LoadedData:
    """The data of a command: what was asked for, what was read, and whether it is the built-in people."""

    spec: DataSpec
    data: Dataset
    built_in: bool


def find_data(data: Path | None) -> tuple[Path, str]:
    """The data to use, and a line that says which and why."""
    if data is not None:
        return data, f"data: {data}"
    if HERE.exists():
        return HERE, f"data: ./{HERE} (no --data given)"
    _draw()
    return BUILT_IN, f"data: people drawn by the program, in {BUILT_IN} (no --data given, and there is no ./{HERE})"


def _draw() -> None:
    from folds.data.synthetic.people import drawn_counts, generate_people

    # As many as are there: `ensemble demo --quick` draws fewer.
    counts: dict[str, Any] = {**drawn_counts(BUILT_IN)}
    generate_people(BUILT_IN, **counts)


def open_data(settings: Settings, note: Callable[[str], None] = lambda text: None) -> LoadedData:
    """Find and read the data of `ensemble kfold`; the first note says which they are."""
    found, line = find_data(settings.data)
    note(line)
    spec = spec_of(settings, found)
    return LoadedData(spec, read_data(spec), found == BUILT_IN)


def spec_of(settings: Settings, data: Path) -> DataSpec:
    """What the settings say about the data that were found."""
    return DataSpec(
        data,
        path=settings.path,
        label=settings.label,
        person=settings.person,
        id=settings.id,
        split=settings.split,
        person_regex=settings.person_regex,
        test=settings.test,
    )


def load_checkpoint_data(
    record: Mapping[str, Any],
    data: Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Dataset:
    """Read the table that a checkpoint was trained on.

    Parameters
    ----------
    record : the fields of ``DataSpec`` as a checkpoint has them, paths as text.
    data : where the table is now, if it has moved.
    classes : those the checkpoint knows; a label outside them is an error.
    """
    fields: dict[str, Any] = dict(record)
    fields["test"] = Path(fields["test"]) if fields.get("test") else None
    fields["data"] = data or Path(fields["data"])
    declared = classes or fields.get("classes")
    fields["classes"] = tuple(declared) if declared else None
    if fields["data"] == BUILT_IN:
        _draw()  # they can always be drawn again
    note(f"data: {fields['data']}")
    return read_data(DataSpec(**fields))
