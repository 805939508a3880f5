"""Draw tables as other people write them, and compare what is read with what was written.

Each draw makes samples (file, class, person), writes them in a random form (columns renamed, shuffled and surrounded by others, rows
permuted, numbers retyped, names spelled in other ways, separators, comments, Parquet, one-hot labels, files whose names differ from the
table), and reads the table. A draw is

- right: the same files have the same classes and persons, up to their names;
- refused: an `EnsembleError`;
- warned: the result differs, and a warning names the cause;
- wrong: it differs without a warning, or another exception is raised. There must be none.
"""

from __future__ import annotations

import gzip
import random
import tempfile
import unicodedata
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from folds.data.readers import read_data
from folds.data.table import DataSpec
from folds.errors import EnsembleError
from folds.predictions.columns import SYNONYMS
from folds.utils.csv_table import csv_text

RIGHT, REFUSED, WARNED, WRONG = "right", "refused", "warned", "wrong"


@dataclass
class Drawn:
    """A drawn table: its columns, the reference (file, class, person) and what was done to it.

    `doubts` are words of which one must be in a warning, if the result differs from the reference.
    """

    columns: dict[str, list[str]]
    reference: list[tuple[str, str, str]]
    options: dict[str, Any] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def draw(rng: random.Random) -> Drawn:
    """Return a table with the columns path, label, person in a random form."""
    n, n_classes = rng.randint(8, 40), rng.randint(2, 5)
    classes = rng.choice(
        [
            [str(i) for i in range(n_classes)],
            [f"c{i}" for i in range(n_classes)],
            ["Bär", "cat", "dog", "eel", "fox"][:n_classes],
        ]
    )
    people = rng.choice([[str(i) for i in range(1, 9)], [f"P{i}" for i in range(8)], ["Ann", "Bea", "Zoë", "Dan"]])
    files = [f"img/{rng.choice('ab')}{i}é.jpg" if rng.random() < 0.1 else f"img/{i}.jpg" for i in range(n)]
    labels = [*classes, *(rng.choice(classes) for _ in range(n - n_classes))]
    persons = [rng.choice(people) for _ in range(n)]
    drawn = Drawn(
        {"path": list(files), "label": labels, "person": persons},
        list(zip(files, labels, persons, strict=True)),
        files=list(files),
    )
    for change in rng.sample(CHANGES, rng.randint(1, 5)):
        change(drawn, rng)
    return drawn


def rename(drawn: Drawn, rng: random.Random) -> None:
    """Give columns other known names, in any case."""
    roles = {"path": SYNONYMS["path"] + SYNONYMS["id"], "label": SYNONYMS["label"], "person": SYNONYMS["person"]}
    new = {}
    for name, cells in drawn.columns.items():
        if name in roles and rng.random() < 0.7:
            other = rng.choice(roles[name])
            other = rng.choice([other, other.upper(), other.title(), other.replace("_", " ")])
            drawn.done.append(f"{name} → {other}")
            name = other if other not in drawn.columns else name
        new[name] = cells
    drawn.columns = new


def shuffle_columns(drawn: Drawn, rng: random.Random) -> None:
    """Put the columns into another order."""
    items = list(drawn.columns.items())
    rng.shuffle(items)
    drawn.columns = dict(items)
    drawn.done.append("columns shuffled")


def add_columns(drawn: Drawn, rng: random.Random) -> None:
    """Add columns that hold something else, some of them with a name that could be meant."""
    n = len(drawn.reference)
    for name in rng.sample(
        ["age", "sex", "width", "kfold", "target", "dx", "patient_id", "image_id", "notes", "set", ""],
        rng.randint(1, 3),
    ):
        if name not in drawn.columns:
            drawn.columns[name] = [
                rng.choice(["0", "1"]) if name in ("sex", "kfold") else f"{rng.randint(0, 9)}" for _ in range(n)
            ]
            drawn.done.append(f"added {name!r}")


def permute(drawn: Drawn, rng: random.Random) -> None:
    """Put the rows into another order."""
    order = list(range(len(drawn.reference)))
    rng.shuffle(order)
    drawn.columns = {name: [cells[i] for i in order] for name, cells in drawn.columns.items()}
    drawn.done.append("rows permuted")


def retype(drawn: Drawn, rng: random.Random) -> None:
    """Write whole numbers as floats, in all rows of a column."""
    for name, cells in drawn.columns.items():
        if all(cell.isdecimal() for cell in cells) and rng.random() < 0.5:
            drawn.columns[name] = [f"{cell}.0" for cell in cells]
            drawn.done.append(f"{name} as floats")


def respell(drawn: Drawn, rng: random.Random) -> None:
    """Write some names of classes or persons in another way."""
    for role in ("label", "person"):
        for name in [name for name in drawn.columns if name == role and rng.random() < 0.7]:
            cells = drawn.columns[name]
            drawn.columns[name] = [_spelled(cell, rng) if rng.random() < 0.3 else cell for cell in cells]
            if drawn.columns[name] != cells:
                drawn.done.append(f"{name} spelled in other ways")
                drawn.doubts.append("more than one way")


def _spelled(name: str, rng: random.Random) -> str:
    if name.isdecimal():
        return rng.choice([f"{name}.0", name.zfill(4), f" {name}"])
    return rng.choice([name.upper(), name.lower(), unicodedata.normalize("NFD", name), f"{name}\u200b", f"{name} "])


def merge(drawn: Drawn, rng: random.Random) -> None:
    """Ask for the merging of spellings."""
    drawn.options["merge_spellings"] = True
    drawn.done.append("merge_spellings")


def lose_persons(drawn: Drawn, rng: random.Random) -> None:
    """Mark the persons of some rows as missing."""
    if "person" in drawn.columns:
        mark = rng.choice(["", "unknown", "-1", "<NA>", "None", "NULL", "NaN"])
        drawn.columns["person"] = [mark if rng.random() < 0.3 else cell for cell in drawn.columns["person"]]
        drawn.done.append(f"persons lost as {mark!r}")
        drawn.doubts.append("never silently")
        if rng.random() < 0.3:
            drawn.options["missing_persons"] = "own"
            drawn.doubts[-1] = ""  # each such image is its own person, which is noted


def lose_labels(drawn: Drawn, rng: random.Random) -> None:
    """Mark the labels of some rows as missing."""
    if "label" in drawn.columns:
        mark = rng.choice(["", "#N/A", "<NA>", "nan"])
        drawn.columns["label"] = [mark if rng.random() < 0.2 else cell for cell in drawn.columns["label"]]
        drawn.done.append(f"labels lost as {mark!r}")


def one_hot(drawn: Drawn, rng: random.Random) -> None:
    """Write the labels as a column of 0 and 1 for each class."""
    if "label" in drawn.columns:
        labels = drawn.columns.pop("label")
        one, zero = rng.choice([("1", "0"), ("1.0", "0.0"), ("True", "False")])
        for each in sorted(set(labels)):
            if each and each not in drawn.columns:
                drawn.columns[each] = [one if label == each else zero for label in labels]
        drawn.done.append("one-hot labels")


def rename_files(drawn: Drawn, rng: random.Random) -> None:
    """Let the files have other names than the table: a suffix that is missing there, another case or Unicode form."""
    if "path" not in drawn.columns or drawn.files != [name for name, _, _ in drawn.reference]:
        return
    way = rng.choice(["suffix", "case", "form", "twice"])
    cells = drawn.columns["path"]
    if way in ("suffix", "twice"):
        drawn.columns["path"] = [name.removesuffix(".jpg") for name in cells]
    if way == "twice":
        drawn.files = [*drawn.files, drawn.files[0].replace(".jpg", ".png")]
    if way == "case":
        drawn.columns["path"] = [name.upper() if rng.random() < 0.3 else name for name in cells]
    if way == "form":
        drawn.columns["path"] = [unicodedata.normalize("NFD", name) for name in cells]
    drawn.done.append(f"file names: {way}")


def swap_paths(drawn: Drawn, rng: random.Random) -> None:
    """Write the paths with backslashes."""
    if "path" in drawn.columns:
        drawn.columns["path"] = [name.replace("/", "\\") for name in drawn.columns["path"]]
        drawn.done.append("backslashes")


CHANGES = [
    rename,
    shuffle_columns,
    add_columns,
    permute,
    retype,
    respell,
    merge,
    lose_persons,
    lose_labels,
    one_hot,
    rename_files,
    swap_paths,
]


def write(drawn: Drawn, folder: Path, rng: random.Random) -> Path:
    """Write the table in a random dialect, and empty files of its images."""
    for name in drawn.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    text = csv_text(drawn.columns)
    dialect = rng.choice(["plain", "plain", ";", "\t", "|", "sep", "comment", "empty rows", "bom", "crlf", "gz"])
    drawn.done.append(f"dialect {dialect!r}")
    mark = {"sep": ";"}.get(dialect, dialect)
    if mark in ";\t|" and '"' not in text:
        text = text.replace(",", mark)
    text = {
        "sep": f"sep=;\n{text}" if '"' not in text else text,
        "comment": f"# exported\n{text}",
        "empty rows": text + "," * (len(drawn.columns) - 1) + "\n",
        "bom": "\ufeff" + text,
        "crlf": text.replace("\n", "\r\n"),
    }.get(dialect, text)
    path = folder / ("t.csv.gz" if dialect == "gz" else "t.csv")
    path.write_bytes(gzip.compress(text.encode()) if dialect == "gz" else text.encode())
    return path


def partition(pairs: list[tuple[str, str]]) -> set[frozenset[str]]:
    """Return the sets of files with one name: equal for all ways to name the same classes or persons."""
    groups: dict[str, set[str]] = {}
    for file, name in pairs:
        groups.setdefault(name, set()).add(file)
    return {frozenset(group) for group in groups.values()}


def check(seed: int) -> tuple[str, str]:
    """Return the verdict on one draw, and a description of it."""
    rng = random.Random(seed)
    drawn = draw(rng)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write(drawn, folder, rng)
        described = f"seed {seed}: {', '.join(drawn.done)}"
        try:
            data = read_data(replace(DataSpec(path), **drawn.options))
        except EnsembleError as error:
            return REFUSED, f"{described}: {error.message}"
        except Exception as error:
            return WRONG, f"{described}: {type(error).__name__}: {error}"
        train = data.train
        assert train.paths is not None
        assert train.labels is not None
        assert train.persons is not None
        files = [str(file.relative_to(folder)) for file in train.paths]
        same = all(
            partition(list(zip(files, column.tolist(), strict=True)))
            == partition([(row[0], row[at]) for row in drawn.reference])
            for at, column in ((1, train.labels), (2, train.persons))
        )
        if same:
            return RIGHT, described
        reported = "\n".join([*data.warnings, *(data.notes if "" in drawn.doubts else ())])
        if any(doubt in reported for doubt in drawn.doubts):
            return WARNED, described
        return WRONG, f"{described}: read otherwise, warnings: {data.warnings}"


def run(draws: int, first: int = 0) -> tuple[Counter[str], list[str]]:
    """Return the count of each verdict over seeds from `first`, and the descriptions of what is wrong."""
    counts: Counter[str] = Counter()
    wrong = []
    for seed in range(first, first + draws):
        verdict, described = check(seed)
        counts[verdict] += 1
        if verdict == WRONG:
            wrong.append(described)
    return counts, wrong
