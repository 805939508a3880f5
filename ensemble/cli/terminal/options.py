"""Options that several commands take, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataOption = Annotated[Path | None, typer.Option(help="a CSV, class folders, or the mask-competition layout [./data, else the built-in people]")]
TestOption = Annotated[Path | None, typer.Option(help="further images to predict: a CSV or a folder, labelled or not")]
PathOption = Annotated[str | None, typer.Option(help="CSV column of the image path [path]", metavar="COL")]
LabelOption = Annotated[str | None, typer.Option(help="CSV column of the class [label]", metavar="COL")]
PersonOption = Annotated[str | None, typer.Option(help="CSV column of the group that must not be split [person]", metavar="COL")]
IdOption = Annotated[str | None, typer.Option(help="CSV column that names the samples [id, else the path]", metavar="COL")]
SplitOption = Annotated[str | None, typer.Option(help="CSV column whose value 'test' keeps a row apart", metavar="COL")]
PersonRegexOption = Annotated[str | None, typer.Option(help="class folders: takes the person from the image path", metavar="REGEX")]
WindowOption = Annotated[str | None, typer.Option(help="values that become black and white in 16-bit images [the file's range]", metavar="LO,HI")]
