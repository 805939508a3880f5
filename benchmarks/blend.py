"""Soft voting of large files against `np.mean([np.load(f) for f in files], 0)`: time and memory, in turn, caches warm.

    python benchmarks/blend.py                     20 files of 200,000 × 18 float32: the vote alone, and the whole command
    python benchmarks/blend.py --part large        a twentieth of 10 files of 1,000,000 × 1,000 float16, and what it grows with
    python benchmarks/blend.py --part methods      every method on the first files

Each is a process of its own, so that its largest resident memory (of which mapped files are a part) is its own. Seconds
of the
vote alone are taken inside the process, after its imports; those of a command from outside. Medians of alternating
runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ensemble.cli.terminal.console import table
from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction

ALONE = """
import sys, time
import numpy as np
files = sys.argv[1:]
{imports}
start = time.perf_counter()
result = {work}
print(time.perf_counter() - start)
"""
IMPORTS = """
from pathlib import Path
from ensemble.voting.mean_stream import mean_of_runs
from ensemble.members.reading import Member
from ensemble.alignment.split import Part, Run
from folds.predictions.files import read_array
def run(file):
    values = read_array(Path(file))
    return Run(file, (Part(Member(Path(file), file, values, None, False, None, None, None, "")),), values.shape[1])
def mean(type_):
    runs = [run(file) for file in files]
    return mean_of_runs(runs, np.ones(len(runs)), len(runs[0].parts[0].member), type_)
"""
VOTES = {
    "np.mean([np.load(f) for f in files], 0)": ("", "np.mean([np.load(f) for f in files], 0)"),
    "the vote, exact (summed in float64)": (IMPORTS, "mean(np.float64)"),
    "the vote, summed in float32": (IMPORTS, "mean(np.float32)"),
}
WHOLE = "import sys, numpy as np; np.save('mean.npy', np.mean([np.load(f) for f in sys.argv[1:]], 0))"
COMMAND = "from ensemble.cli import main; main()"
# The largest resident memory since the program began; what the system counts for a child begins with its parent's.
PEAK = """
import atexit
@atexit.register
def peak():
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def write_files(
    folder: Path, split: str, rows: int, classes: int, members: int, known: bool = True, dtype: str = "f4"
) -> list[Path]:
    """Members of one table, seven images a person; `known`: with labels, persons and, out of fold, folds."""
    random = np.random.default_rng(0)
    number, truth = np.arange(rows), random.integers(0, classes, rows)
    names, people = (
        np.array([str(i) for i in range(classes)]),
        np.array([f"person{i:06d}" for i in range(rows // 7 + 1)]),
    )
    ids = np.array([f"images/person{i // 7:06d}_{i % 7}.jpg" for i in range(rows)])
    described = SampleRows(ids, names[truth], people[number // 7]) if known else SampleRows(ids)
    files = []
    for member in range(members):
        values = random.standard_normal((rows, classes), np.float32)
        values[number, truth] += 1.5
        np.exp(values, out=values)
        values /= values.sum(1, keepdims=True)
        fold = number // 7 % 5 if split == "oof" and known else None
        sidecar = PredictionMetadata(
            "probability", split, tuple(names), described, fold=fold, run=f"m{member:02d}", folds_sha="f" * 64
        )
        files.append(write_prediction(folder / f"m{member:02d}.{split}.npy", values, sidecar, described))
        if dtype != "f4":
            np.save(files[-1], values.astype(dtype))
    return files


def timed(code: str, words: list[str], folder: Path) -> tuple[float, float, float, str]:
    """Seconds by the clock, seconds of processors, MiB at most, and what it printed; of Python code in a process of its
    own.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = os.times()
    process = subprocess.Popen(
        [sys.executable, "-c", PEAK + code, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    *printed_lines, memory = printed.splitlines()
    return (
        os.times().elapsed - before.elapsed,
        usage.ru_utime + usage.ru_stime,
        int(memory) / 1024,
        printed_lines[0] if printed_lines else "",
    )


def alternating(
    commands: dict[str, tuple[str, list[str], Path]], repeats: int, inside: bool
) -> dict[str, tuple[float, float, float]]:
    """For each of (code, words, folder) the medians of its seconds (`inside`: those it printed), processor seconds and
    MiB.
    """
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    for _ in range(repeats + 1):  # the first warms the caches
        for name, (code, words, folder) in commands.items():
            shutil.rmtree(folder / "runs", ignore_errors=True)
            seconds, busy, memory, printed = timed(code, words, folder)
            runs[name].append((float(printed) if inside else seconds, busy, memory))
    return {name: tuple(statistics.median(column) for column in zip(*found[1:])) for name, found in runs.items()}  # type: ignore[misc]


def shown(measured: dict[str, tuple[float, float, float]], first: str) -> str:
    """A line a command, with its ratios to the first."""
    lines = []
    base = measured[first]
    for name, (seconds, busy, memory) in measured.items():
        lines.append(
            [
                name,
                f"{seconds:.3f} s",
                f"{base[0] / seconds:.2f}×",
                f"{busy:.2f} s",
                f"{memory:.0f} MiB",
                f"{memory / base[2]:.2f}",
            ]
        )
    return table(["", "time", "as fast", "processors", "peak memory", "of it"], lines)


def small(folder: Path, rows: int, repeats: int) -> None:
    """20 files of `rows` × 18."""
    kinds = {
        "test, no labels": ("test", False),
        "test, labels, persons": ("test", True),
        "out of fold, labels, persons, folds": ("oof", True),
    }
    files = {
        name: write_files(folder / str(i), split, rows, 18, 20, known)
        for i, (name, (split, known)) in enumerate(kinds.items())
    }
    given = [str(file) for file in files["test, no labels"]]
    mean = np.mean([np.load(file).astype(np.float64) for file in given], 0).astype(np.float32)
    commands = {name: (ALONE.format(imports=i, work=w), given, folder) for name, (i, w) in VOTES.items()}
    print(f"the vote alone, 20 × {rows:,} × 18\n{shown(alternating(commands, repeats, True), next(iter(VOTES)))}\n")
    commands = {"python -c '… np.mean … np.save'": (WHOLE, given, folder / "0")}
    for i, (name, inside) in enumerate(files.items()):
        commands[f"ensemble blend ({name})"] = (COMMAND, ["blend", "-q", *map(str, inside), "-o", "b"], folder / str(i))
    print(f"the whole command\n{shown(alternating(commands, repeats, False), next(iter(commands)))}")
    print(
        "equal to the float64 mean, to the bit:",
        np.array_equal(np.load(folder / "0" / "runs" / "blends" / "b" / "test.npy"), mean),
    )


def large(folder: Path, rows: int, repeats: int) -> None:
    """10 files of `rows` × 1,000 float16, half of them, and half of the rows."""
    lines = []
    for part, members in ((rows, 10), (rows, 5), (rows // 2, 10)):
        files = write_files(folder / f"{part}-{members}", "test", part, 1000, members, False, "f2")
        words = ["blend", "-q", *map(str, files), "-o", "b"]
        measured = alternating({"": (COMMAND, words, folder / f"{part}-{members}")}, repeats, False)[""]
        lines.append(
            [f"{members} × {part:,} × 1,000", f"{measured[0]:.2f} s", f"{measured[1]:.2f} s", f"{measured[2]:.0f} MiB"]
        )
        shutil.rmtree(folder / f"{part}-{members}")
    print(table(["ensemble blend, float16", "time", "processors", "peak memory"], lines))


def methods(folder: Path, rows: int, repeats: int) -> None:
    """Every method on 20 files of `rows` × 18."""
    from ensemble.voting.vote import METHODS

    files = [str(file) for file in write_files(folder, "test", rows, 18, 20, False)]
    start = ["blend", "-q", *files, "-o", "b", "--method"]
    extra = {"weighted": ["--weights", ",".join(str(i + 1) for i in range(20))]}
    print(
        shown(
            alternating(
                {name: (COMMAND, [*start, name, *extra.get(name, [])], folder) for name in METHODS}, repeats, False
            ),
            "soft",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("small", "large", "methods"), default="small")
    parser.add_argument("--rows", type=int, help="of each file; 200,000, or 50,000 of the large")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        part = {"small": small, "large": large, "methods": methods}[given.part]
        part(Path(folder), given.rows or (50_000 if given.part == "large" else 200_000), given.repeats)


if __name__ == "__main__":
    main()
