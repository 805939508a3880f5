"""Time whole commands of this program and of the usual loop, in turn, each in a process of its own.

Rows of `python benchmarks/kfold.py --row NAME`. The usual loop (benchmarks/opponent.py) trains all folds one after the
other, in fp32 as its users run it and once more with bf16 autocast, which few know; its workers and threads are those
that were fastest on a part of a fold. The program measures its number format in its first run, which counts. "Alone" is
the same model in the format that the program chose, one process a core, without data path, folds and files. Its rate is
compared with that of the program from the end of its first step to the end of its last epoch, by the clock: the validations,
the starts of folds and cores that are idle at the end count.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folds.data.synthetic.people import generate_people
from folds.utils.parallel import cpu_count

HERE = Path(__file__).resolve().parent
RUN = "timed"
# The program as its command, with a note of when the first step and the last epoch were over. The program starts its
# workers before it imports the training, so the note is put in after that.
_PROGRAM = """
import os, sys, time
import folds.execution.local as local
from folds.utils.startup import collection_paused
prepare, noted = local.prepare_workers, {}
def prepare_and_note(*arguments):
    prepare(*arguments)
    with collection_paused():
        import folds.runs.session as session
    train = session.train
    def train_and_note(plan, jobs, report):
        def note(job, event):
            new = "first" if not noted else "last" if event["event"] == "epoch" else None
            if new:
                noted[new] = time.time()
                with open(new + ".txt", "w") as file:
                    file.write(str(noted[new]))
            if os.environ.get("STOP_AT_FIRST_STEP"):
                os._exit(0)  # workers end with their parent
            report(job, event)
        return train(plan, jobs, note)
    session.train = train_and_note
local.prepare_workers = prepare_and_note
from ensemble.cli import main
main(sys.argv[1:])
"""


@dataclass(frozen=True)
class Row:
    """A whole cross-validation: images of 384×512, folds, epochs, and the model.

    `target` is the ratio to the usual loop in fp32 that the program should reach on a CPU with bf16 units.
    """

    arch: str
    size: int
    k: int
    epochs: int
    people: int
    batch: int
    target: str

    @property
    def title(self) -> str:
        """Return the first cell of the row."""
        return (
            f"{self.arch} {self.size} px, k={self.k}, {self.epochs} epochs, {7 * self.people} JPEGs, batch {self.batch}"
        )


ROWS = {
    "resnet18-64": Row("resnet18", 64, 5, 3, 100, 32, "1.5"),
    "resnet18-224": Row("resnet18", 224, 5, 3, 100, 32, "2.2 with AMX"),
    "swin-224": Row("swin", 224, 5, 3, 100, 32, "2"),
    "few": Row("resnet18", 224, 3, 2, 30, 16, "1.8"),
}
QUICK = Row("test_resnet", 32, 2, 2, 12, 16, "none")
HEADER = (
    "| | this program | usual loop, fp32 | ratio | usual loop, bf16 | ratio | target (fp32) | images/s | model alone, "
    "same format | share of it | first step after | decoded and measured before | cores busy |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Ran:
    """A command: its seconds, those until its first step, those from there to the last epoch, and the busy share."""

    seconds: float
    first: float
    training: float
    busy: float


def _run(arguments: Sequence[str], folder: Path, text: str = "", **variables: str) -> tuple[str, float, float]:
    """Run a process to its end; return its output, its seconds, and the CPU seconds of it and of its workers."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), **variables}
    out, log = folder / "out.txt", folder / "log.txt"
    began = time.perf_counter()
    with out.open("w") as output, log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            env=environment,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments[:4])} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return out.read_text(), seconds, used.ru_utime + used.ru_stime


def program(row: Row, data: Path, folder: Path, name: str = RUN, **variables: str) -> Ran:
    """Run the program on a row, in a folder that may have its decoded images, with what the machine remembers."""
    words = ["kfold", "--data", str(data), "--arch", row.arch, "--img-size", str(row.size), "--k", str(row.k)]
    words += ["--epochs", str(row.epochs), "--batch-size", str(row.batch), "--no-pretrained", "--devices", "cpu"]
    began = time.time()
    memory = str(folder / "machine")
    _, seconds, cpu = _run(["-c", _PROGRAM, *words, "--name", name], folder, XDG_CACHE_HOME=memory, **variables)
    first, last = folder / "first.txt", folder / "last.txt"
    step, end = (float(file.read_text()) if file.exists() else math.nan for file in (first, last))
    return Ran(seconds, step - began, end - step, cpu / (seconds * cpu_count()))


def usual(row: Row, task: dict[str, Any], folder: Path, one_fold: bool, **options: Any) -> float:
    """Return the seconds of the usual loop on all folds of a row.

    With `one_fold` only the first fold is trained, and the others count as much by their images; the imports count
    once. The folds of the usual loop follow each other in one process, so this differs by noise only.
    """
    folds = task["folds"]
    if not one_fold:
        return _run([str(HERE / "opponent.py")], folder, json.dumps(task | options))[1]
    text, seconds, _ = _run([str(HERE / "opponent.py")], folder, json.dumps(task | options | {"folds": folds[:1]}))
    trained = sum(json.loads(text)[0])
    return seconds - trained + trained * sum(len(rows) for rows, _ in folds) / len(folds[0][0])


def task_of(row: Row, data: Path) -> dict[str, Any]:
    """Return what the usual loop needs: paths, labels, the rows of each fold, and the model."""
    from kfold import plan_of

    plan = plan_of(data, row.arch, row.size, row.epochs, "theirs", None, row.k, batch=row.batch)
    folds = [
        [plan.assignment.training_index(fold).tolist(), plan.assignment.validation_index(fold).tolist()]
        for fold in range(row.k)
    ]
    return {
        "paths": [str(path.absolute()) for path in plan.table.paths or ()],
        "labels": plan.table.label_codes().tolist(),
        "folds": folds,
        "arch": plan.runs[0].architecture.timm_name,
        "size": row.size,
        "classes": len(plan.table.classes),
        "epochs": row.epochs,
        "batch": row.batch,
    }


def best_settings(row: Row, task: dict[str, Any], folder: Path, bf16: bool, search: bool) -> dict[str, Any]:
    """Return the workers and threads with which the usual loop is fastest on six batches of a fold."""
    cores = cpu_count()
    tried = [
        {"workers": workers, "threads": threads, "bf16": bf16}
        for workers in sorted({0, 1, cores})
        for threads in sorted({1, cores})
    ]
    if not search:
        return tried[-1]
    training, validation = task["folds"][0]
    part = task | {"folds": [[training[: 6 * row.batch], validation[: row.batch]]], "epochs": 2}

    def seconds(options: dict[str, Any]) -> float:
        records = json.loads(_run([str(HERE / "opponent.py")], folder, json.dumps(part | options))[0])
        return float(records[0][-1])

    return min(tried, key=seconds)


def chosen_format(folder: Path) -> dict[str, Any]:
    """Return what the program decided about its number format, from the record of its run."""
    resolved: dict[str, Any] = tomllib.loads((folder / "runs" / RUN / "config.toml").read_text())["resolved"]
    return resolved


def images_of(row: Row, task: dict[str, Any]) -> int:
    """Return how many images all folds train on in all epochs."""
    return row.epochs * sum(len(training) for training, _ in task["folds"])


def measure_row(row: Row, folder: Path, repeats: int, search: bool, one_fold: bool) -> Iterator[str]:
    """Yield lines as they are known: what each run gave, then the row of the table."""
    from kfold import ceiling

    folder.mkdir()
    data = generate_people(folder / "people", people=row.people, test_people=1, size=(384, 512))
    shutil.rmtree(data / "eval", ignore_errors=True)  # the usual loop predicts no test images
    task = task_of(row, data)
    options = {name: best_settings(row, task, folder, name == "bf16", search) for name in ("fp32", "bf16")}
    ours: list[Ran] = []
    theirs: dict[str, list[float]] = {"fp32": [], "bf16": []}
    inside, alone, warm = [], [], []
    for i in range(repeats):
        place = folder / f"ours{i}"
        place.mkdir()
        ours.append(program(row, data, place))
        resolved = chosen_format(place)
        inside.append(images_of(row, task) / ours[-1].training)
        for name in theirs:
            theirs[name].append(usual(row, task, folder, one_fold, **options[name]))
        training, validation = (len(part) for part in task["folds"][0])
        how = {"amp": resolved["amp"], "batch": row.batch, "validation": resolved.get("validation", "off")}
        layout = resolved.get("memory_format")
        how["channels_last"] = None if layout is None else layout == "channels_last"
        slots = min(row.k, cpu_count())
        alone.append(ceiling(task["arch"], row.size, training, validation / training, slots, task["classes"], **how))
        warm.append(program(row, data, place, "again", STOP_AT_FIRST_STEP="1").first)
        shutil.rmtree(place)
        yield (
            f"  {row.arch} {row.size} px, run {i + 1}: {ours[-1].seconds:.1f} s (first step after {ours[-1].first:.1f} s, "
            f"again {warm[-1]:.1f} s), usual {theirs['fp32'][-1]:.1f} s, bf16 {theirs['bf16'][-1]:.1f} s; "
            f"{inside[-1]:.1f} images/s, alone {alone[-1]:.1f}; {resolved.get('format', '')}"
        )
    yield _line(row, ours, theirs, inside, alone, warm, options)


def _line(
    row: Row,
    ours: Sequence[Ran],
    theirs: dict[str, list[float]],
    inside: Sequence[float],
    alone: Sequence[float],
    warm: Sequence[float],
    options: dict[str, dict[str, Any]],
) -> str:
    """Return the row of the table: medians, and the median of the ratios of runs that followed each other."""
    median = statistics.median
    cells = [row.title, f"{median(one.seconds for one in ours):.0f} s"]
    for name, seconds in theirs.items():
        ratio = median(other / one.seconds for one, other in zip(ours, seconds, strict=True))
        how = options[name]
        cells += [f"{median(seconds):.0f} s ({how['workers']} workers, {how['threads']} threads)", f"{ratio:.2f}×"]
    share = median(a / b for a, b in zip(inside, alone, strict=True))
    cells += [row.target, f"{median(inside):.0f}", f"{median(alone):.0f}", f"{share:.2f}"]
    cells += [f"{median(one.first for one in ours):.1f} s", f"{median(warm):.1f} s"]
    cells += [f"{median(one.busy for one in ours):.2f}"]
    return f"| {' | '.join(cells)} |"
