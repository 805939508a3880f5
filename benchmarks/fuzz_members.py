"""Fuzz the reading of members: seeded draws of files as people write them. Each result must equal the reference, be
refused, or carry a warning or a stated assumption that names the cause. Without labels and other members a fault
inside a file cannot be seen, and there is no score (`unscored`).

    python benchmarks/fuzz_members.py --draws 5000

Members of a small task are written in a drawn form (tables with shuffled, renamed and retyped columns, arrays of many
shapes, archives), some with a drawn fault (rows permuted, classes renumbered, labels among the columns, a constant), and
blended with labels that are written in a drawn way. The reference is the mean of the probabilities, aligned by hand.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.blending.blend import Blend, make_blend
from ensemble.blending.request import BlendConfig
from folds.errors import EnsembleError

Values = NDArray[np.float64]
CLASS_NAMES: dict[str, Callable[[int], list[str]]] = {
    "0": lambda c: [str(i) for i in range(c)],
    "1": lambda c: [str(i + 1) for i in range(c)],
    "0.0": lambda c: [f"{i}.0" for i in range(c)],
    "c0": lambda c: [f"c{i}" for i in range(c)],
    "names": lambda c: ["rust", "scab", "healthy", "multiple", "none", "eel", "ant", "bee", "cow", "dog", "emu", "fox"][
        :c
    ],
    "unsorted": lambda c: [f"{chr(122 - i)}{i}" for i in range(c)],
}
ID_NAMES = ("id", "image_id", "image_name", "ImageId", "filename", "file name", "path", "img", "key42")
LABEL_NAMES = ("label", "target", "class", "y_true", "dx", "Truth")
PREFIXES = ("", "", "prob_", "p_", "pred_", "class_")
OUTCOMES = ("equal", "refused", "warned", "stated", "unscored", "wrong")


@dataclass
class Task:
    """One drawn task: n samples with true classes, and the right probabilities of each member (n, classes)."""

    rng: np.random.Generator
    ids: list[str]
    names: list[str]
    truth: NDArray[np.int64]
    members: list[Values]
    folder: Path
    faults: list[str] = field(default_factory=list)
    hard: bool = False

    @property
    def n(self) -> int:
        return len(self.ids)

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]


def draw_task(seed: int, folder: Path) -> Task:
    """Return a task drawn from a seed."""
    rng = np.random.default_rng(seed)
    classes = int(rng.choice([2, 2, 3, 4, 12]))
    n = int(rng.integers(60, 140))
    truth = rng.integers(0, classes - int(rng.random() < 0.15 and classes > 2), n)
    style = list(CLASS_NAMES)[int(rng.integers(len(CLASS_NAMES)))]
    width = int(rng.integers(1, 4))
    order = rng.permutation(n)
    ids = [f"im{i:0{width}d}.jpg" if seed % 2 else f"{i}" for i in order]
    members = []
    for _ in range(int(rng.integers(1, 4))):
        logits = rng.normal(size=(n, classes)) + 2.0 * np.eye(classes)[truth]
        members.append(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    return Task(rng, ids, CLASS_NAMES[style](classes), truth, members, folder)


def write_table(path: Path, columns: dict[str, list[str]], rng: np.random.Generator) -> Path:
    """Write columns in a shuffled order, in a drawn dialect."""
    names = list(rng.permutation(list(columns)))
    rows = [names, *zip(*(columns[name] for name in names), strict=True)]
    mark, suffix = ((",", ".csv"), (";", ".csv"), ("\t", ".tsv"), (",", ".CSV"), (",", ".csv.gz"))[int(rng.integers(5))]
    path = path.with_name(path.name + suffix)
    with gzip.open(path, "wt") if suffix.endswith("gz") else open(path, "w", newline="") as file:
        csv.writer(file, delimiter=mark).writerows(rows)
    return path


def as_table(task: Task, name: str, values: Values) -> Path:
    """Write a member as a table of probabilities, or of the positive class, some with a fault."""
    fault, names = task.rng.random(), list(task.names)
    if fault < 0.08:
        task.faults.append("values beside other ids")
        values = values[task.rng.permutation(task.n)]
    elif fault < 0.14:
        task.faults.append("names of classes rotated")
        names = names[1:] + names[:1]
    elif fault < 0.18:
        task.faults.append("all rows equal")
        values = np.full(values.shape, 1 / values.shape[1])
    rows = task.rng.permutation(task.n) if task.rng.random() < 0.5 else np.arange(task.n)
    columns = {task.pick(ID_NAMES[:-1]): [task.ids[i] for i in rows]}
    digits = int(task.rng.choice([4, 6, 9]))
    if len(task.names) == 2 and task.rng.random() < 0.5:
        columns[task.pick(("target", "prob", "prediction", "score"))] = [f"{values[i, 1]:.{digits}f}" for i in rows]
    else:
        prefix = task.pick(PREFIXES)
        for c, label in enumerate(names):
            columns[prefix + label] = [f"{values[i, c]:.{digits}f}" for i in rows]
        if task.rng.random() < 0.3:
            columns["label"] = [task.names[task.truth[i]] for i in rows]
    if task.rng.random() < 0.2:
        columns["age"] = [str(int(a)) for a in task.rng.integers(20, 80, task.n)]
    if task.rng.random() < 0.2:
        columns["fold"] = [f"{i // 3 % 5}{task.pick(('', '.0'))}" for i in rows]
    return write_table(task.folder / name, columns, task.rng)


def as_answers(task: Task, name: str, values: Values) -> Path:
    """Write a member as a table of answers, some beside the label or a confidence, some with the label as the answer."""
    rows = task.rng.permutation(task.n)
    codes = values.argmax(axis=1)
    if task.rng.random() < 0.1:
        task.faults.append("label as the answer")
        codes = task.truth
    beside = task.rng.random()
    called = (
        task.pick(("prediction", "pred", "y_pred", "ans")) if beside < 0.6 else task.pick(("label", "target", "ans"))
    )
    columns = {task.pick(ID_NAMES[:-1]): [task.ids[i] for i in rows], called: [task.names[codes[i]] for i in rows]}
    if beside < 0.4:
        columns[task.pick(("label", "target", "y_true"))] = [task.names[task.truth[i]] for i in rows]
    if task.rng.random() < 0.2:
        columns["confidence"] = [f"{values[i].max():.4f}" for i in rows]
    return write_table(task.folder / name, columns, task.rng)


def as_array(task: Task, name: str, values: Values) -> Path:
    """Write a member as an array without ids, in a drawn shape and type, some with a fault."""
    kind, rng = (
        task.pick(("plain", "plain", "one", "flat", "npz", "folds", "transposed", "permuted", "renumbered")),
        task.rng,
    )
    if kind == "permuted":
        task.faults.append("rows permuted")
        values = values[np.argsort(task.ids) if rng.random() < 0.5 else np.arange(task.n)[::-1]]
    if kind == "renumbered":
        task.faults.append("columns rotated")
        values = np.roll(values, 1, axis=1)
    array: NDArray = values.astype(task.pick(("f4", "f8", ">f4")))
    if kind in ("one", "flat") and len(task.names) == 2:
        array = array[:, 1:] if kind == "one" else array[:, 1]
    array = array[None] if kind == "folds" else array.T if kind == "transposed" else array
    path = task.folder / f"{name}.npy"
    if kind == "npz":
        path = path.with_suffix(".npz")
        about: dict[str, Any] = (
            {"ids": np.array(task.ids), "classes": np.array(task.names)} if rng.random() < 0.5 else {}
        )
        np.savez(path, oof=array, **about)
        return path
    np.save(path, array)
    return path


def as_sidecar(task: Task, name: str, values: Values) -> Path:
    """Write a member with a sidecar as a user would, rows and columns in another order."""
    rows, columns = task.rng.permutation(task.n), task.rng.permutation(len(task.names))
    path = task.folder / f"{name}.npy"
    np.save(path, values[rows][:, columns].astype("f4"))
    about = {"ids": [task.ids[i] for i in rows], "classes": [task.names[c] for c in columns], "split": "oof"}
    path.with_suffix(".json").write_text(json.dumps({"kind": "probability", **about}))
    return path


def write_labels(task: Task) -> Path:
    """Write the true labels, in the order of the samples or in another one, with numbers as floats now and then."""
    rows = np.arange(task.n)
    if task.rng.random() < 0.2:
        task.faults.append("labels in another order")
        rows = task.rng.permutation(task.n)
    columns = {task.pick(ID_NAMES[:-1]): [task.ids[i] for i in rows]}
    retyped = task.names[0].isdigit() and task.rng.random() < 0.2
    columns[task.pick(LABEL_NAMES)] = [task.names[task.truth[i]] + (".0" if retyped else "") for i in rows]
    if task.rng.random() < 0.3:
        columns["patient_id"] = [task.pick((f"p{i // 3}", "")) for i in rows]
    if task.rng.random() < 0.3:
        columns["sex"] = [task.pick(("f", "m")) for _ in rows]
    return write_table(task.folder / "labels", columns, task.rng)


def outcome(task: Task, files: Sequence[Path], labels: Path | None) -> tuple[str, str]:
    """Return one of `OUTCOMES`, and a text on it."""
    reference = np.mean(task.members, axis=0)
    if task.hard:
        reference = np.mean([np.eye(len(task.names))[values.argmax(1)] for values in task.members], axis=0)
    try:
        method = "hard" if task.hard else "soft"
        made = make_blend(files, BlendConfig(labels=labels, allow_duplicates=True, method=method))
    except EnsembleError as error:
        return "refused", error.message
    if _equals(task, made, reference):
        return "equal", ""
    if made.warnings:
        return "warned", made.warnings[0]
    scored = any(entry.score is not None for entry in made.total.values())
    if not scored and (len(files) == 1 or set(task.faults) == {"label as the answer"}):
        return "unscored", ""  # a fault inside one file, and nothing to compare it with: no labels, no other member
    assumed = next((note for note in made.notes if "order not checked" in note or "one column read as" in note), "")
    # Without labels and with one bare member nothing can be tested: the assumed order is stated.
    untestable = assumed and (labels is None or not task.faults)
    return ("stated", assumed) if untestable else ("wrong", f"{task.faults} {list(map(str, files))} {made.notes}")


def _equals(task: Task, made: Blend, reference: Values) -> bool:
    split = next(iter(made.splits))
    rows, classes = made.splits[split].rows.ids.tolist(), list(made.splits[split].classes)
    found = made.votes[split].probabilities
    names = [name.removesuffix(".0") for name in task.names]
    shown = [name.removesuffix(".0") for name in classes]
    if set(rows) != set(task.ids) or not (set(shown) == set(names) or (task.hard and set(shown) <= set(names))):
        return False
    position = {name: i for i, name in enumerate(task.ids)}
    expected = reference[[position[name] for name in rows]][:, [names.index(name) for name in shown]]
    return bool(np.allclose(found, expected, atol=2e-3))


def run(seed: int) -> tuple[str, str]:
    """Return the outcome of one draw."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-members-"))
    try:
        task = draw_task(seed, folder)
        forms = [as_table, as_table, as_array, as_sidecar]
        if task.rng.random() < 0.25:
            task.hard, forms = True, [as_answers, as_answers, as_sidecar]
        files = [task.pick(forms)(task, f"m{i}", values) for i, values in enumerate(task.members)]
        labels = write_labels(task) if task.rng.random() < 0.7 else None
        return outcome(task, files, labels)
    finally:
        shutil.rmtree(folder)


def run_draws(draws: int, first: int = 0) -> tuple[Counter[str], list[str]]:
    """Return the count of each outcome over seeds from `first`, and the descriptions of what is wrong."""
    counts: Counter[str] = Counter()
    wrong = []
    for seed in range(first, first + draws):
        found, text = run(seed)
        counts[found] += 1
        if found == "wrong":
            wrong.append(f"seed {seed}: {text}")
    return counts, wrong


def main() -> None:
    """Print the counts, and the draws that are silently wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", choices=OUTCOMES, help="print each draw of an outcome")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    counts: Counter[str] = Counter()
    for seed in range(given.seed, given.seed + given.draws):
        found, text = run(seed)
        counts[found] += 1
        if found in ("wrong", given.show):
            print(f"draw {seed}: {found}: {text}")
    print(", ".join(f"{name} {counts[name]:,}" for name in OUTCOMES), f"of {given.draws:,} draws")


if __name__ == "__main__":
    main()
