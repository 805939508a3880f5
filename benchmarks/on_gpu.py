"""Run all measurements that need a GPU, in one command of at most ten minutes; each row is printed when it is measured.

    python benchmarks/on_gpu.py                      on a GPU
    python benchmarks/on_gpu.py --device cpu --quick test the script without a GPU; its figures mean nothing

For each model: the loop of a competent user (benchmarks/opponent.py, bf16, channels_last, cudnn.benchmark), this program
with one and with two jobs on the GPU, at several batch sizes and without validation and saving, and the model alone
(benchmarks/alone.py: one batch on the GPU, no data path); then the usual loop, this program and the model alone
compiled. Rates are training images per second in steady state: of the epochs after the first one of a fold, at least
20,000 images or 12 epochs, with validation, and for this program with saving. The images are synthetic 384×512 JPEGs,
copied until an epoch is long enough to be timed. A row that the time limit cuts is measured by the epochs that it has
finished, and says so; rows that would begin after the limit are named.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import logging
import math
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

# As in the workers of this program: threads that have nothing to do sleep instead of spinning on shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np
import torch
from alone import pace
from kfold import plan_of
from opponent import Epoch
from opponent import train_fold as usual_loop

from folds.data.readers import read_data
from folds.data.synthetic.people import generate_people
from folds.data.table import DataSpec
from folds.execution.placement import Execution
from folds.models import inference
from folds.runs.execute import lock_runs, train
from folds.runs.open import prepare_jobs
from folds.training import state
from folds.training.context import FoldContext
from folds.training.trainer import train_fold
from folds.utils.parallel import cpu_count

IMAGES, EPOCHS = 20_000, 12  # a measurement takes this number of images, or of epochs if they are fewer images
ROW_SECONDS, COMPILED_SECONDS = 45.0, 120.0  # at most for a row
ALONE_SECONDS = 3.0
HEADER = (
    "| model | batch | | images/s | slowest–fastest epoch | of the usual loop | of the model alone | first step after |"
)


class TimeUp(BaseException):
    """The time of a row is over; not an Exception, so that no library takes it for an error of its own."""


@dataclass(frozen=True)
class Model:
    """A model to measure: its timm name, image size in px, batch sizes (the first is that of all rows)."""

    arch: str
    size: int
    batches: tuple[int, ...]


@dataclass
class Measured:
    """The epochs of a row: (images trained on, seconds) each, and the seconds until the first step."""

    epochs: list[tuple[float, float]] = field(default_factory=list)
    first: float | None = None
    cut: bool = False

    @property
    def rate(self) -> float:
        """Return images per second over all epochs; NaN without any."""
        seconds = sum(seconds for _, seconds in self.epochs)
        return sum(images for images, _ in self.epochs) / seconds if seconds else math.nan

    @property
    def spread(self) -> str:
        """Return the rates of the slowest and the fastest epoch; "" if there are fewer than two."""
        rates = [images / seconds for images, seconds in self.epochs]
        return f"{min(rates):,.0f}–{max(rates):,.0f}" if len(rates) > 1 else ""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeUp in the block after a number of seconds, wherever it is."""

    def over(number: int, frame: Any) -> None:
        raise TimeUp

    signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


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


class Bench:
    """The rows of one model on one device.

    Parameters
    ----------
    data : the table.
    device : ``cpu`` or ``cuda:0``.
    workers : processes that decode images for the usual loop.
    """

    def __init__(self, data: Path, model: Model, device: str, workers: int, quick: bool) -> None:
        self.data, self.model, self.device, self.workers, self.quick = data, model, device, workers, quick
        plan = plan_of(data, model.arch, model.size, 1, "count", None)
        self.training = len(plan.assignment.training_index(0))
        self.epochs = 1 + (2 if quick else min(EPOCHS, math.ceil(IMAGES / self.training)))
        self.names = itertools.count()

    def usual(self, compiled: bool, into: Measured) -> None:
        """Measure the usual loop on one fold."""
        plan = plan_of(self.data, self.model.arch, self.model.size, self.epochs, "usual", None)
        table = plan.table
        done: list[Epoch] = []

        def report(epoch: Epoch) -> None:
            done.append(epoch)
            if len(done) > 1:
                into.epochs.append((epoch.trained, epoch.seconds))

        usual_loop(
            table.paths or (),
            table.label_codes().tolist(),
            plan.assignment.training_index(0).tolist(),
            plan.assignment.validation_index(0).tolist(),
            arch=plan.runs[0].architecture.timm_name,
            size=self.model.size,
            classes=len(table.classes),
            epochs=self.epochs,
            batch=self.model.batches[0],
            workers=self.workers,
            threads=1 if self.quick else 2,
            device=self.device,
            draft=False,
            compiled=compiled,
            report=report,
        )

    def alone(self, batch: int, compiled: bool, into: Measured) -> None:
        """Measure the model alone; of five folds, one is validated on."""
        steps = pace(self.model.arch, self.model.size, batch, 18, self.device, 0.25, compiled)
        seconds = 0.1 if self.quick else ALONE_SECONDS
        n = max(1, round(seconds / 3 / (steps(2) / 2)))
        for _ in range(3):
            into.epochs.append((n * batch, steps(n)))

    def program(self, batch: int, jobs: int, compiled: bool, into: Measured) -> None:
        """Measure this program with one fold for each of `jobs` jobs on the device, in worker processes."""
        began = time.perf_counter()
        execution = Execution(devices="cpu" if self.device == "cpu" else "0", per_device=jobs)
        plan = self._plan(list(range(jobs)), batch, execution, compiled)
        ends: dict[int, list[float]] = {}  # of a fold: when its first step, then each epoch, was over

        def report(job: Any, event: dict[str, Any]) -> None:
            now = time.perf_counter()
            if into.first is None:
                into.first = now - began
            if event["event"] == "epoch" or job.fold not in ends:
                ends.setdefault(job.fold, []).append(now)

        try:
            with lock_runs(plan):
                for outcome in train(plan, prepare_jobs(plan), report):
                    if outcome.error is not None:
                        raise outcome.error
        finally:
            into.epochs += together(ends, jobs, lambda fold: len(plan.assignment.training_index(fold)))

    def bare(self, batch: int, into: Measured) -> None:
        """Measure this program without validation and without saving, in this process."""
        execution = Execution(devices="cpu" if self.device == "cpu" else "0", per_device=1)
        plan = self._plan([0], batch, execution, False)
        ends: list[float] = []

        def report(event: dict[str, Any]) -> None:
            if event["event"] == "epoch":
                ends.append(time.perf_counter())

        def no_logits(context: FoldContext, model: Any, pixels: Any, rows: Any, **_: Any) -> Any:
            return np.zeros((len(rows), len(context.target.classes)), np.float32)

        threads, logits, save = torch.get_num_threads(), FoldContext.logits, state.StateWriter.save
        replaced = (("logits", FoldContext, no_logits), ("save", state.StateWriter, lambda *_: None))
        for name, owner, value in replaced:
            setattr(owner, name, value)
        try:
            with lock_runs(plan):
                job = replace(prepare_jobs(plan)[0], device=self.device, threads=plan.placement.threads)
                train_fold(job, report)
        finally:
            setattr(FoldContext, "logits", logits)  # noqa: B010
            setattr(state.StateWriter, "save", save)  # noqa: B010
            torch.set_num_threads(threads)
            inference._recent.clear()  # images on the GPU
            into.epochs += [(self.training, after - before) for before, after in itertools.pairwise(ends)]

    def _plan(self, folds: list[int], batch: int, execution: Execution, compiled: bool) -> Any:
        arch, size = self.model.arch, self.model.size
        how = {"execution": execution, "batch": batch, "compile": compiled, "keep": "last"}
        return plan_of(self.data, arch, size, self.epochs, f"row{next(self.names)}", folds, **how)

    def rows(self) -> list[tuple[int, str, Callable[[Measured], None]]]:
        """Return (batch size, title, measurement) of the rows that need no compiler."""
        batch = self.model.batches[0]
        return [
            (batch, "usual loop", lambda into: self.usual(False, into)),
            *((n, "model alone", lambda into, n=n: self.alone(n, False, into)) for n in self.model.batches),
            *((n, "this program", lambda into, n=n: self.program(n, 1, False, into)) for n in self.model.batches),
            (batch, "this program, no validation, no saving", lambda into: self.bare(batch, into)),
            (batch, "this program, 2 jobs on the device", lambda into: self.program(batch, 2, False, into)),
        ]

    def compiled_rows(self) -> list[tuple[int, str, Callable[[Measured], None]]]:
        """Return the rows whose model is compiled, which takes a minute each."""
        batch = self.model.batches[0]
        return [
            (batch, "model alone, compiled", lambda into: self.alone(batch, True, into)),
            (batch, "usual loop, compiled", lambda into: self.usual(True, into)),
            (batch, "this program, compiled", lambda into: self.program(batch, 1, True, into)),
        ]


def together(ends: dict[int, list[float]], jobs: int, images_of: Callable[[int], int]) -> list[tuple[float, float]]:
    """Return (images, seconds) of the epochs of parallel jobs, after the last first epoch and before the first end."""
    if len(ends) < jobs or any(len(times) < 3 for times in ends.values()):
        return []
    start, stop = max(times[1] for times in ends.values()), min(times[-1] for times in ends.values())
    if jobs == 1:
        (fold, times), *_ = ends.items()
        return [(images_of(fold), after - before) for before, after in itertools.pairwise(times[1:])]
    images = 0.0
    for fold, times in ends.items():
        for before, after in itertools.pairwise(times):
            inside = max(0.0, min(after, stop) - max(before, start)) / (after - before)
            images += inside * images_of(fold)
    return [(images, stop - start)] if stop > start else []


class Table:
    """The printed table; a row is printed as soon as it is measured.

    Parameters
    ----------
    ends : when the time of the command is over, of `time.monotonic`.
    """

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.rates: dict[tuple[str, int, str], float] = {}
        self.left_out: list[str] = []

    def measure(self, bench: Bench, row: tuple[int, str, Callable[[Measured], None]], most: float) -> None:
        """Measure and print a row, within `most` seconds and the time of the command."""
        batch, title, run = row
        name = f"{bench.model.arch} {bench.model.size} px"
        left = self.ends - time.monotonic()
        if left < 5:
            self.left_out.append(f"{name}, batch {batch}, {title}")
            return
        into, failed = Measured(), ""
        try:
            with at_most(min(left, most)):
                run(into)
        except TimeUp:
            into.cut = True
        except Exception as error:
            failed = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if bench.device != "cpu":
            torch.cuda.empty_cache()  # for the processes of the next rows
        self.rates[name, batch, title] = into.rate
        print(f"| {' | '.join(self._cells(name, batch, title, into, failed))} |", flush=True)

    def _cells(self, name: str, batch: int, title: str, into: Measured, failed: str) -> list[str]:
        if failed or not into.epochs:
            return [name, str(batch), title, failed or "no epoch in the time of a row", "", "", "", ""]

        def share(of: str, form: str) -> str:
            other = self.rates.get((name, batch, of), math.nan)
            return "" if math.isnan(other) else form.format(into.rate / other)

        return [
            name,
            str(batch),
            title + (" (cut by the time limit)" if into.cut else ""),
            f"{into.rate:,.0f}",
            into.spread,
            share("usual loop", "{:.2f}×"),
            share("model alone", "{:.2f}"),
            "" if into.first is None else f"{into.first:.1f} s",
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu"])
    parser.add_argument("--quick", action="store_true", help="a tiny model and few images; nothing is compiled")
    parser.add_argument("--minutes", type=float, help="time limit of the command; 10, or 2 with --quick")
    arguments = parser.parse_args()
    quick = arguments.quick
    logging.disable(logging.WARNING)  # of the folds of synthetic faces, again for each row
    began = time.monotonic()
    minutes = arguments.minutes or (2.0 if quick else 10.0)
    on_cpu = arguments.device == "cpu" or not torch.cuda.is_available()
    device, name = ("cpu", platform.processor() or "CPU") if on_cpu else ("cuda:0", torch.cuda.get_device_name(0))
    models = (
        [Model("test_resnet", 64, (16, 32))]
        if quick
        else [Model("resnet18", 224, (128, 32, 512)), Model("swin_tiny_patch4_window7_224", 224, (64, 32, 256))]
    )
    workers = 0 if quick else max(1, cpu_count() - 1)
    home, folder = Path.cwd(), Path(tempfile.mkdtemp(prefix="on-gpu-"))
    table = Table(began + 60 * minutes - 10)  # the last ten seconds end processes and remove files
    print(f"{name}, {cpu_count()} cores, torch {torch.__version__}; {workers} loader workers", flush=True)
    try:
        data = table_of(folder, *((10, 1) if quick else (150, 8)))
        os.chdir(folder)
        benches = [Bench(data, model, device, workers, quick) for model in models]
        print(f"{benches[0].training:,} images an epoch; ready after {time.monotonic() - began:.0f} s\n", flush=True)
        print(f"{HEADER}\n|{'---|' * 8}", flush=True)
        for bench in benches:
            for row in bench.rows():
                table.measure(bench, row, ROW_SECONDS)
        for bench in [] if quick else benches:
            for row in bench.compiled_rows():
                table.measure(bench, row, COMPILED_SECONDS)
    finally:
        os.chdir(home)
        shutil.rmtree(folder, ignore_errors=True)
        print(f"\n{time.monotonic() - began:.0f} s" + "".join(f"\nleft out, no time: {row}" for row in table.left_out))


if __name__ == "__main__":
    main()
