"""Measure the private memory of every process while N images are decoded, trained on for one epoch and predicted.

    python benchmarks/memory.py --images 10000,30000,100000

The table has N links to a few hundred photographs of 96×96 pixels, each photograph a person; `test_resnet` trains at 64
pixels on the CPU. Private memory is what a process has beside the pages of files that it shares with others: RssAnon of
/proc (Linux). The peak of each role is printed as it is known: the command itself (it decodes, plans and publishes) and
its workers (they train and predict).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PHOTOGRAPHS, CLASSES = 300, 3
KFOLD = (
    "kfold --data table.csv --arch test_resnet --k 5 --fold 0 --epochs 1 --img-size 64 "
    "--no-pretrained --jobs 1 --devices cpu --name run -q"
)
PREDICT = "predict run table.csv -o predicted -q"


def draw_photographs(folder: Path) -> None:
    """Write PHOTOGRAPHS distinct JPEGs."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(PHOTOGRAPHS):
        small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        small.resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)


def write_table(folder: Path, photographs: Path, images: int) -> None:
    """Write table.csv and its images, links to the photographs."""
    (folder / "images").mkdir(parents=True)
    with open(folder / "table.csv", "w", encoding="utf-8") as file:
        file.write("path,label,person\n")
        for number in range(images):
            one = number % PHOTOGRAPHS
            link = folder / "images" / f"{number}.jpg"
            os.link(photographs / f"{one}.jpg", link)
            file.write(f"images/{number}.jpg,class{one % CLASSES},person{one}\n")


def descendants(pid: int) -> Iterator[int]:
    """Yield the processes that a process has started, and theirs."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield child
        yield from descendants(child)


def private_mb(pid: int) -> float:
    """Return the private memory of a process in MB; 0 if it is gone."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    return 0.0


def peaks(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Run a command; return the peak private memory of itself and of its largest worker in MB, and the seconds."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "ensemble", *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    errors: list[str] = []
    assert process.stderr is not None
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))  # type: ignore[union-attr]
    reader.start()
    own, workers = 0.0, 0.0
    while process.poll() is None:
        own = max(own, private_mb(process.pid))
        workers = max([workers, *(private_mb(child) for child in descendants(process.pid))])
        time.sleep(0.1)
    reader.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}\n{''.join(errors)[-2000:]}")
    return own, workers, time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="10000,30000,100000", help="numbers of images, separated by commas")
    arguments = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="memory-"))
    try:
        draw_photographs(base / "photographs")
        print("| images | command | process | peak private memory (MB) | seconds |\n|---|---|---|---|---|", flush=True)
        for images in map(int, arguments.images.split(",")):
            folder = base / str(images)
            write_table(folder, base / "photographs", images)
            for name, words in (("kfold, one fold", KFOLD), ("predict", PREDICT)):
                own, workers, seconds = peaks(words.split(), folder)
                print(f"| {images:,} | {name} | command | {own:,.0f} | {seconds:.0f} |", flush=True)
                if workers:
                    print(f"| {images:,} | {name} | worker | {workers:,.0f} | |", flush=True)
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
