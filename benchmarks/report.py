"""Write a report of many runs: how many seconds, how much memory, how many bytes?

    python benchmarks/report.py                              20,000 images of 3,000 people, 10 runs, 8 classes
    python benchmarks/report.py --images 2000 --runs 3       smaller

The folder with runs, a saved blend and JPEGs of 160 × 120 pixels is made first and is not counted. The report is made
in a process of its own, once with an empty cache of the file system's names and once again; heat maps are left out,
because they cost forward passes.

Memory is measured by the kernel, from outside: the largest resident memory of the process (`ru_maxrss` of `wait4`), in
which pages of files that are mapped count as well; and the largest sum of the memory that the process and its children
own themselves (`RssAnon`), sampled every 20 ms.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction
from folds.utils.files import write_json
from folds.utils.parallel import source_root

DISTINCT = 500  # JPEGs; the other images are links to them
SECTIONS = ("verdict", "data", "training", "compare", "mistakes", "calibration", "learning", "labels", "method")
_REPORT = """
import sys, time
started = time.perf_counter()
from ensemble.report.contents import SECTIONS, _exists
from ensemble.report.face import report
names = [name for name in sys.argv[1].split(",") if name in SECTIONS and _exists(SECTIONS[name])]
path = report(root=".", output="report.html", section=names, force=True, progress=False)
print(f"{time.perf_counter() - started:.1f} s, page {path.stat().st_size / 1e6:.2f} MB, {', '.join(names)}", flush=True)
"""


def make(root: Path, images: int, people: int, runs: int, classes: int, seed: int = 0) -> None:
    """Write a table, images, and the files of runs that differ in skill."""
    random = np.random.default_rng(seed)
    person = np.sort(random.integers(0, people, images))
    label = random.integers(0, classes, people)[person]
    fold = (person % 5).astype(np.int64)
    ids = np.array([f"p{one:05d}/{at:06d}.jpg" for at, one in enumerate(person.tolist())])
    names = tuple(f"class{at}" for at in range(classes))
    labels, persons = np.array(names)[label], np.array([f"p{one:05d}" for one in person.tolist()])
    lines = [f"{a},images/{a},{b},{c}" for a, b, c in zip(ids.tolist(), labels.tolist(), persons.tolist(), strict=True)]
    (root / "table.csv").write_text("\n".join(["id,path,label,person", *lines]) + "\n")
    shown = root / "shown"
    shown.mkdir()
    for at in range(DISTINCT):
        small = random.integers(20, 235, (8, 6, 3)).astype(np.uint8)
        Image.fromarray(small).resize((120, 160), Image.Resampling.BICUBIC).save(shown / f"{at}.jpg", quality=85)
    for one in sorted(set(persons.tolist())):
        (root / "images" / one).mkdir(parents=True)
    for at, name in enumerate(ids.tolist()):
        os.link(shown / f"{at % DISTINCT}.jpg", root / "images" / name)
    common = random.normal(size=(people, classes))[person]
    rows = SampleRows(ids, labels, persons)
    for number in range(runs):
        logits = common + random.normal(size=(images, classes))
        logits[np.arange(images), label] += 2.5 - number / runs
        values = np.exp(logits - logits.max(axis=1, keepdims=True))
        values = (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
        run = f"run{number}"
        folder = root / "runs" / run
        folder.mkdir(parents=True)
        about = PredictionMetadata("probability", "oof", names, rows, fold=fold, run=run, arch="resnet18")
        write_prediction(root / "runs" / f"{run}.oof.npy", values, about, rows)
        (folder / "config.toml").write_text(f'data = "table.csv"\narch = ["resnet18"]\nk = 5\nname = "{run}"\n')
        for one in range(5):
            (folder / f"fold{one}").mkdir()
            epochs = [f"{at},{2 / at:.4f},0.001,30.5,{0.8 - 0.5 / at:.4f}" for at in range(1, 31)]
            text = "\n".join(["epoch,loss,lr,seconds,validation_macro_f1", *epochs])
            (folder / f"fold{one}" / "history.csv").write_text(text + "\n")
            write_json(folder / f"fold{one}" / "done.json", {"fold": one, "epochs": 30, "seconds": 915.0})


def own_memory(process: int) -> int:
    """Return the bytes that a process and its descendants own themselves (RssAnon); 0 for one that has ended."""
    total, waiting = 0, [process]
    while waiting:
        folder = Path(f"/proc/{waiting.pop()}")
        try:
            lines = (folder / "status").read_text().splitlines()
            total += next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)
            for thread in (folder / "task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
        except OSError:
            continue
    return total


def measured(command: list[str], **options: Any) -> tuple[float, int, int]:
    """Run a command; return its seconds, its largest resident memory, and the largest memory of its own, in bytes.

    Raises
    ------
    CalledProcessError : it failed.
    """
    started, most, ended = time.perf_counter(), 0, False
    process = subprocess.Popen(command, **options)
    while not ended:
        most = max(most, own_memory(process.pid))
        number, status, usage = os.wait4(process.pid, os.WNOHANG)
        ended = number != 0
        if not ended:
            time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - started, usage.ru_maxrss * 1024, most


def main() -> None:
    """Print seconds, peak memory and bytes of two reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--people", type=int, default=3_000)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--keep", type=Path, help="an empty folder that is kept, and used again if it is not empty")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        root = given.keep or Path(made)
        root.mkdir(exist_ok=True)
        environment = os.environ | {"PYTHONPATH": str(source_root())}
        if not any(root.iterdir()):
            started = time.perf_counter()
            make(root, given.images, given.people, given.runs, given.classes)
            blend = "import ensemble as en, glob; en.blend(sorted(glob.glob('runs/*.npy')), method='soft').save('soft')"
            subprocess.run(
                [sys.executable, "-c", blend], cwd=root, env=environment, check=True, stderr=subprocess.DEVNULL
            )
            print(f"made in {time.perf_counter() - started:.0f} s")
        for turn in ("first", "again"):
            print(turn, end=": ", flush=True)
            command = [sys.executable, "-c", _REPORT, given.sections]
            seconds, resident, own = measured(command, cwd=root, env=environment)
            print(
                f"       {seconds:.1f} s with the start of Python; {resident / 1e6:,.0f} MB resident at most, "
                f"{own / 1e6:,.0f} MB of its own"
            )


if __name__ == "__main__":
    main()
