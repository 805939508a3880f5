"""Time whole commands of this version against those of another source tree, in turn.

    python benchmarks/versions.py --old SOURCE [--repeats 5]

Both versions run the same commands on the same files, each in a process of its own: --help, a small and a large blend,
and a k-fold training of test_resnet on synthetic faces. Printed are medians of this version and of the old one, the
median of the ratios pair by pair, and whether both wrote the same predictions. Splits of a large table:
benchmarks/splits.py --part table --old SOURCE.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from benchmarks.blend import PEAK, write_files
from ensemble.cli.terminal.console import table
from folds.data.synthetic.people import generate_people

MAIN = "import sys; from ensemble.cli import main; sys.exit(main())"


def measure(source: Path, folder: Path, words: list[str]) -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds and MB of one command of the version in `source`, run in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    with open(folder / "output.txt", "w") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", PEAK + MAIN, *words], cwd=folder, env=environment, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} of {source} failed:\n{(folder / 'output.txt').read_text()}")
    memory = int((folder / "output.txt").read_text().split()[-1])
    return seconds, usage.ru_utime + usage.ru_stime, memory / 1000


def predictions(folder: Path) -> dict[str, bytes]:
    """Return the values of every prediction file below `folder`, by its name."""
    return {
        str(path.relative_to(folder)): np.load(path).tobytes()
        for path in sorted(folder.rglob("*.npy"))
        if not path.name.startswith("cache")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="source tree of the other version")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = write_files(folder / "small", "oof", 600, 18, 5, True)
        large = write_files(folder / "large", "test", 200_000, 18, 20, False)
        people = str(generate_people(folder / "people"))
        train = [
            "kfold",
            "--data",
            people,
            "--arch",
            "test_resnet",
            "--img-size",
            "32",
            "--epochs",
            "2",
            "--k",
            "3",
            "--no-pretrained",
            "--quiet",
        ]
        commands = {
            "--help": ["--help"],
            "blend, 5 runs × 600 rows": ["blend", *map(str, small), "--method", "soft"],
            "blend --method greedy, nested": ["blend", *map(str, small), "--method", "greedy"],
            "blend, 20 runs × 200,000 rows": ["blend", *map(str, large), "--method", "soft"],
            "kfold, k 3, 2 epochs": train,
        }
        rows: list[list[object]] = []
        for title, words in commands.items():
            new, old = [], []
            for _ in range(options.repeats + 1):  # the first fills caches
                new.append(measure(ROOT, folder / "new", words))
                old.append(measure(options.old.resolve(), folder / "old", words))
            same = predictions(folder / "new") == predictions(folder / "old")
            seconds, cpu, memory = (statistics.median(run[i] for run in new[1:]) for i in range(3))
            old_seconds, old_cpu, old_memory = (statistics.median(run[i] for run in old[1:]) for i in range(3))
            ratio = statistics.median(a[1] / b[1] for a, b in zip(new[1:], old[1:], strict=True))
            rows.append(
                [
                    title,
                    f"{seconds:.2f}",
                    f"{cpu:.2f}",
                    f"{memory:.0f}",
                    f"{old_seconds:.2f}",
                    f"{old_cpu:.2f}",
                    f"{old_memory:.0f}",
                    f"{ratio:.2f}",
                    "yes" if same else "NO",
                ]
            )
            print(*rows[-1], sep="  ", flush=True)
        header = ["command", "s", "CPU s", "MB", "old s", "old CPU s", "old MB", "CPU new/old", "same bytes"]
        print(table(header, rows))


if __name__ == "__main__":
    main()
