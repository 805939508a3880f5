"""Measure how fast folds are trained: against the loop of a competent user, and against the model alone.

    python benchmarks/kfold.py                    resnet18 and test_resnet at 64 px from 384×512 JPEGs, k=5, on the CPU
    python benchmarks/kfold.py --busy             with a process that keeps one core busy
    python benchmarks/kfold.py --growth           how the time grows with k, epochs, architectures and images
    python benchmarks/kfold.py --row resnet18-64  whole commands (benchmarks/whole.py); all rows: --row all
    python benchmarks/kfold.py --quick            a tiny row, to see that it runs

All in one run, alternating, medians of --repeats. Rates are training images per second in steady state. For this
program these are the images of all slots from the end of the last first epoch until the first slot has nothing more to
do, including validation, saving and the time between folds; for the opponent (benchmarks/opponent.py) all epochs except
the first of a fold. The opponent runs with zero, one, and one worker more than there are cores, with one thread and one
per core, and its best is taken. The ceiling (benchmarks/alone.py) is the same model, optimizer and validation with one
batch in memory and no data path. "Whole" is a grid of all five folds from the start to the last file, decoding included.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# For both sides: threads that have nothing to do sleep instead of spinning on shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from whole import HEADER, QUICK, ROWS, Row, measure_row

from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.data.synthetic.people import generate_people
from folds.execution.placement import Execution
from folds.runs.execute import lock_runs, train
from folds.runs.open import prepare_jobs
from folds.runs.plan import Plan, build_plan
from folds.utils.parallel import cpu_count

BATCH = 32


ON_CPU = Execution(devices="cpu")


def plan_of(
    data: Path,
    arch: str,
    size: int,
    epochs: int,
    name: str,
    folds: Sequence[int] | None,
    k: int = 5,
    execution: Execution = ON_CPU,
    batch: int = BATCH,
    **recipe: Any,
) -> Plan:
    settings = Settings(data=data, arch=tuple(arch.split(",")), k=k, name=name)
    whole = Recipe(epochs=epochs, img_size=str(size), pretrained=False, batch_size=batch, **recipe)
    return build_plan(settings, whole, folds=folds, execution=execution)


def ours(
    data: Path, arch: str, size: int, epochs: int, name: str, folds: Sequence[int], **how: Any
) -> tuple[float, float, float]:
    """(training images a second of all slots in steady state, seconds until the first step, seconds in all)."""
    began = time.perf_counter()
    plan = plan_of(data, arch, size, epochs, name, folds, **how)
    slots = len(plan.placement.devices)
    first: list[float] = []
    ends: dict[int, list[float]] = {}  # of a fold: when its first step, then each epoch, was over

    def report(job: Any, event: dict[str, Any]) -> None:
        now = time.perf_counter()
        if not first:
            first.append(now - began)
        if event["event"] == "epoch" or job.fold not in ends:
            ends.setdefault(job.fold, []).append(now)

    with lock_runs(plan):
        for outcome in train(plan, prepare_jobs(plan), report):
            if outcome.error is not None:
                raise outcome.error
    whole = time.perf_counter() - began
    start = max(sorted(times[1] for times in ends.values())[:slots])
    stop = min(sorted(times[-1] for times in ends.values())[-slots:])
    images = 0.0
    for fold, times in ends.items():
        for before, after in itertools.pairwise(times):
            inside = max(0.0, min(after, stop) - max(before, start)) / (after - before)
            images += inside * len(plan.assignment.training_index(fold))
    run = plan.runs[0]
    shutil.rmtree(run.folder)
    shutil.rmtree(run.checkpoints / run.name)
    for path in run.runs.glob(f"{run.name}.*"):
        path.unlink()
    return images / (stop - start), first[0], whole


def theirs(
    data: Path,
    arch: str,
    size: int,
    epochs: int,
    workers: int,
    threads: int,
    draft: bool,
    device: str = "cpu",
    folds: int = 1,
    batch: int = BATCH,
    most: int | None = None,
) -> float:
    """Training images a second of the usual loop in steady state, one fold after the other.

    `most` images at most are trained on where its best settings are looked for.
    """
    from opponent import train_fold

    plan = plan_of(data, arch, size, epochs, "theirs", None)
    table, labels = plan.table, plan.table.label_codes().tolist()
    trained = seconds = 0.0
    for fold in range(folds):
        rows = (
            plan.assignment.training_index(fold)[:most].tolist(),
            plan.assignment.validation_index(fold)[: most and most // 4].tolist(),
        )
        options = {
            "arch": plan.runs[0].architecture.timm_name,
            "size": size,
            "classes": len(table.classes),
            "epochs": epochs,
            "batch": batch,
        }
        records = train_fold(
            table.paths or (), labels, *rows, **options, workers=workers, threads=threads, device=device, draft=draft
        )
        trained += sum(record.trained for record in records[1:])
        seconds += sum(record.seconds for record in records[1:])
    return trained / seconds


def _alone(
    arch: str,
    size: int,
    classes: int,
    steps: int,
    validated: float,
    threads: int,
    barrier: Any,
    results: Any,
    batch: int,
    how: dict[str, Any],
) -> None:
    import torch
    from alone import pace

    torch.set_num_threads(threads)
    train = pace(arch, size, batch, classes, "cpu", validated, **how)
    barrier.wait()
    results.put(steps * batch / train(steps))
    barrier.wait()  # until all are through: none runs on an empty machine


def ceiling(
    arch: str,
    size: int,
    images: int,
    validated: float,
    slots: int,
    classes: int = 18,
    batch: int = BATCH,
    **how: Any,
) -> float:
    """Training images a second of `slots` models with one thread each and no data path; validation is in.

    `how` is the number format and the memory format (`alone.pace`).
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(slots), context.Queue()
    arguments = (
        arch,
        size,
        classes,
        max(1, round(images / batch)),
        validated,
        max(1, cpu_count() // slots),
        barrier,
        results,
        batch,
        how,
    )
    processes = [context.Process(target=_alone, args=arguments) for _ in range(slots)]
    for process in processes:
        process.start()
    rates = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return sum(rates)


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """A process that keeps one core busy, where asked for."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def compare(data: Path, arch: str, size: int, epochs: int, repeats: int, busy: bool) -> str:
    """One line of the table."""
    cores = cpu_count()
    plan = plan_of(data, arch, size, epochs, "count", None)
    training, validation = len(plan.assignment.training_index(0)), len(plan.assignment.validation_index(0))
    with neighbour(busy):
        settings = [
            (w, t, d) for w in sorted({0, 1, cores, cores + 1}) for t in sorted({1, cores}) for d in (False, True)
        ]
        tried = {setting: theirs(data, arch, size, 2, *setting, most=320) for setting in settings}
        best = {draft: max((key for key in tried if key[2] == draft), key=tried.__getitem__) for draft in (False, True)}
        rows = []
        for i in range(repeats):
            rate, first, _ = ours(data, arch, size, epochs, f"ours{i}", [0, 1, 2, 3])
            rows.append(
                (
                    rate,
                    theirs(data, arch, size, epochs, *best[False]),
                    theirs(data, arch, size, epochs, *best[True]),
                    ceiling(plan.runs[0].architecture.timm_name, size, training * epochs, validation / training, cores),
                    first,
                )
            )
        shutil.rmtree(".ensemble")
        grid = ours(data, arch, size, epochs, "whole", [0, 1, 2, 3, 4])[2]
        began = time.perf_counter()
        theirs(data, arch, size, epochs, *best[False], folds=5)
        usual_grid = time.perf_counter() - began
    rate, usual, drafted, alone, first = (statistics.median(column) for column in zip(*rows, strict=True))
    ratios = [statistics.median(row[0] / row[j] for row in rows) for j in (1, 2, 3)]
    busy_text = ", busy neighbor" if busy else ""
    return (
        f"| {arch} {size} px{busy_text} | {rate:.0f} | {usual:.0f} ({best[False][0]} workers, {best[False][1]} "
        f"threads) | {ratios[0]:.2f}× "
        f"| {drafted:.0f} | {ratios[1]:.2f}× | {alone:.0f} | {ratios[2]:.2f} | {first:.1f} s "
        f"| {grid:.0f} s against {usual_grid:.0f} s: {usual_grid / grid:.2f}× |"
    )


def growth(folder: Path) -> Iterator[str]:
    """Seconds of a whole command as it grows, one thing at a time; the first line is what the others are compared
    with.
    """
    small, large = (
        generate_people(folder / "p1", people=40, test_people=2, size=(96, 128)),
        generate_people(folder / "p2", people=80, test_people=2, size=(96, 128)),
    )
    cases = [
        ("k=4, 4 epochs, 1 architecture, 280 images", small, 4, 4, "test_resnet"),
        ("k=8", small, 8, 4, "test_resnet"),
        ("8 epochs", small, 4, 8, "test_resnet"),
        ("2 architectures", small, 4, 4, "test_resnet,test_resnet"),
        ("560 images", large, 4, 4, "test_resnet"),
    ]
    for title, data, k, epochs, arch in cases:
        os.chdir(tempfile.mkdtemp(dir=folder))
        began = time.perf_counter()
        plan = plan_of(data, arch, 64, epochs, "run", None, k)
        decoding = time.perf_counter()
        with lock_runs(plan):
            jobs = prepare_jobs(plan)
            decoding = time.perf_counter() - decoding
            done = [outcome.result for outcome in train(plan, jobs)]
        whole = time.perf_counter() - began
        inside = sum(result["seconds"] for result in done if result)
        yield (
            f"| {title} | {len(jobs)} | {decoding:.2f} s | {inside:.1f} s | {inside / len(jobs):.2f} s | {whole:.1f} "
            "s |"
        )


def whole_commands(rows: dict[str, Row], folder: Path, repeats: int, search: bool, one_fold: bool) -> None:
    """Print the table of whole commands, each line as soon as it is known; the runs of a row go to standard error."""
    print(HEADER, flush=True)
    for name, row in rows.items():
        for line in measure_row(row, folder / name, repeats, search, one_fold):
            print(line, file=sys.stdout if line.startswith("|") else sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arch", default="test_resnet,resnet18")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--row", action="append", choices=["all", *ROWS], help="may be given several times")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-search", action="store_true", help="the usual loop with a worker and a thread per core")
    parser.add_argument(
        "--one-fold", action="store_true", help="the usual loop trains one fold; the others count as much"
    )
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kfold-"))
    try:
        if arguments.row or arguments.quick:
            chosen = list(ROWS) if "all" in (arguments.row or ()) else arguments.row or []
            whole_commands(
                {name: ROWS[name] for name in chosen} or {"quick": QUICK},
                folder,
                1 if arguments.quick else arguments.repeats,
                search=not (arguments.quick or arguments.no_search),
                one_fold=arguments.one_fold,
            )
            return
        if arguments.growth:
            print(
                "| | jobs | decoding | training, all jobs | training, a job | whole command "
                "|\n|---|---|---|---|---|---|"
            )
            for line in growth(folder):
                print(line, flush=True)
            return
        data = generate_people(folder / "people", people=arguments.people, test_people=2, size=(384, 512))
        os.chdir(folder)
        print(
            "| model | this program, images/s | usual loop | ratio | usual loop with draft | ratio "
            "| model alone | share of it | first step after (decoded) | whole |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|")
        for arch in arguments.arch.split(","):
            print(compare(data, arch, 64, arguments.epochs, arguments.repeats, arguments.busy), flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
