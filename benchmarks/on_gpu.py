"""Run all measurements that need a GPU, in one command of at most eight minutes, with a table at the end.

    python benchmarks/on_gpu.py                      on a GPU
    python benchmarks/on_gpu.py --device cpu --quick test the script without a GPU; its figures mean nothing

For each model: the loop of a competent user (benchmarks/opponent.py), this program with one and with two jobs per GPU,
with and without --compile, and the model alone (benchmarks/alone.py: one batch on the GPU, no data path), eager and
compiled. Rates are training images per second in steady state, with validation. The images are synthetic 384×512
JPEGs, copied until an epoch is long enough to be timed.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch
from alone import pace
from kfold import ours, plan_of, theirs

from folds.data.readers import read_data
from folds.data.synthetic.people import generate_people
from folds.data.table import DataSpec
from folds.execution.placement import Execution
from folds.utils.parallel import cpu_count


def table_of(folder: Path, people: int, copies: int) -> Path:
    """A CSV of drawn photographs, each copied so that every copy is a file and a person of its own."""
    drawn = read_data(DataSpec(generate_people(folder / "people", people=people, test_people=2, size=(384, 512)))).train
    assert drawn.labels is not None
    assert drawn.persons is not None
    path = folder / "table.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "person"])
        for copy in range(copies):
            (folder / f"copy{copy}").mkdir()
            for i, (image, label, person) in enumerate(
                zip(drawn.paths or (), drawn.labels, drawn.persons, strict=True)
            ):
                to = folder / f"copy{copy}/{i}{image.suffix}"
                shutil.copyfile(image, to)
                writer.writerow([to.relative_to(folder), label, f"{person}/{copy}"])
    return path


def alone(arch: str, size: int, batch: int, device: str, compiled: bool, seconds: float) -> float:
    """Training images a second of the model with one batch that lies on the device; of five folds, one is validated
    on.
    """
    steps = pace(arch, size, batch, 18, device, 0.25, compiled)
    n = max(3, round(seconds / (steps(5) / 5)))
    return n * batch / steps(n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float, default=8.0, help="rows that would begin later are left out")
    arguments = parser.parse_args()
    began = time.monotonic()
    on_cpu = arguments.device == "cpu" or not torch.cuda.is_available()
    device, name = ("cpu", platform.processor() or "CPU") if on_cpu else ("cuda:0", torch.cuda.get_device_name(0))
    cases = (
        [("test_resnet", 64, 16)]
        if arguments.quick
        else [("resnet18", 224, 128), ("swin_tiny_patch4_window7_224", 224, 64)]
    )
    people, copies, epochs, repeats = (20, 1, 2, 1) if arguments.quick else (150, 8, 4, 3)
    workers = max(1, cpu_count() - 1)
    folder = Path(tempfile.mkdtemp(prefix="on-gpu-"))
    rows: list[list[str]] = []
    try:
        data = table_of(folder, people, copies)
        os.chdir(folder)
        for arch, size, batch in cases:
            plan = plan_of(data, arch, size, epochs, "count", None)
            images = len(plan.table)
            measured: dict[str, list[float]] = {}
            first: dict[str, list[float]] = {}
            for i in range(repeats):
                for jobs, compiled in ((1, False), (1, True), (2, False)):
                    if time.monotonic() - began > 60 * arguments.minutes - 45:
                        continue
                    key = (
                        f"this program, {jobs} job{'s' if jobs > 1 else ''} a device{', compiled' if compiled else ''}"
                    )
                    how = {
                        "execution": Execution(devices=arguments.device, per_device=jobs),
                        "batch": batch,
                        "compile": compiled,
                    }
                    rate, seconds, _ = ours(data, arch, size, epochs, f"r{i}{jobs}{compiled}", list(range(2)), **how)
                    measured.setdefault(key, []).append(rate)
                    first.setdefault(key, []).append(seconds)
                measured.setdefault("usual loop", []).append(
                    theirs(data, arch, size, 2, workers, 2, False, device, batch=batch)
                )
                for compiled in (False, True):
                    key = f"model alone{', compiled' if compiled else ''}"
                    measured.setdefault(key, []).append(
                        alone(arch, size, batch, device, compiled, 1 if arguments.quick else 4)
                    )
            usual, ceiling = statistics.median(measured["usual loop"]), statistics.median(measured["model alone"])
            for key, rates in measured.items():
                rate = statistics.median(rates)
                start = f"{statistics.median(first[key]):.1f} s" if key in first else ""
                rows.append(
                    [
                        f"{arch} {size} px, {images:,} images",
                        key,
                        f"{rate:,.0f}",
                        f"{rate / usual:.2f}×",
                        f"{rate / ceiling:.2f}",
                        start,
                    ]
                )
    finally:
        shutil.rmtree(folder)
        print(
            f"\n{name}, {cpu_count()} cores, torch {torch.__version__}; {workers} loader workers; "
            f"{time.monotonic() - began:.0f} s\n"
        )
        print(
            "| model | | images/s | of the usual loop | of the model alone | first step after "
            "|\n|---|---|---|---|---|---|"
        )
        for row in rows:
            print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
