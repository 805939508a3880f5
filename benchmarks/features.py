"""Time heads on frozen features, against fine-tuning the same grid.

    python benchmarks/features.py --data TABLE.csv --arch resnet18 --img-size 128

One command computes the features; the next trains k × repeats logistic heads, each of which tries up to 20 L2 strengths
on inner folds over people. Fine-tuning is timed for one epoch of one fold, and extrapolated to all epochs of
k × repeats × 20 trainings: that is how long it would take to try 20 settings by fine-tuning. Decoding is in neither
time. CPU seconds, which other programs change less, are printed beside the wall clock.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EPOCHS, STRENGTHS = 15, 20


def timed(folder: Path, *words: object) -> tuple[float, float]:
    """Run a command; return its seconds on the clock and on all cores."""
    command = [sys.executable, "-m", "ensemble", "kfold", *map(str, words), "-q"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--img-size", default="128")
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--heads", default="logistic")
    parser.add_argument("--folder", type=Path, help="keep decoded images and features here")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="features-"))
    folder.mkdir(parents=True, exist_ok=True)
    common = ["--data", arguments.data.resolve(), "--arch", arguments.arch, "--img-size", arguments.img_size]
    common += ["--no-pretrained", "--k", arguments.k, "--force"]
    timed(folder, *common, "--name", "decoded", "--epochs", 1, "--fold", 0)  # decodes the images
    epoch = json.loads((folder / "runs/decoded/fold0/done.json").read_text())["seconds"]
    first = timed(folder, *common, "--name", "first", "--features", "--l2", 0.01, "--fold", 0)
    again = timed(folder, *common, "--name", "first", "--features", "--l2", 0.01, "--fold", 0)
    print(f"features: {first[0] - again[0]:.1f} s ({first[1] - again[1]:.1f} CPU s)", flush=True)
    trainings = arguments.k * arguments.repeats
    for head in arguments.heads.split(","):
        grid = timed(folder, *common, "--name", head, "--heads", head, "--repeats", arguments.repeats)
        settings = STRENGTHS if head == "logistic" else 1
        cores = os.cpu_count() or 1
        fine = epoch * EPOCHS * trainings * settings / cores
        print(
            f"{head}: {trainings} trainings × {settings} settings in {grid[0]:.1f} s ({grid[1]:.1f} CPU s); fine-tuning: "
            f"{epoch:.1f} s per epoch of a fold, {fine / 3600:.1f} h on {cores} cores: {fine / grid[0]:.0f} times as long",
            flush=True,
        )


if __name__ == "__main__":
    main()
