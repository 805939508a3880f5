"""Measure how well a whole grid uses the cores: busy core seconds ÷ (cores × seconds), from the start of the command.

    python benchmarks/grid.py                     k = 3, 5 and 10; resnet18 and test_resnet at 64 px from 384×512 JPEGs
    python benchmarks/grid.py --share             what jobs that share cores lose, against threads: images per core second
    python benchmarks/grid.py --quick             a tiny grid, to see that it works

A grid rarely has a multiple of the cores in jobs. Three ways to train the last, incomplete round are compared in turn,
each as a command in a process of its own, with decoded images:

    rounds    one job per core; cores are idle at the end
    shared    the rule of the program: the last jobs run beside each other and share the cores, one thread each
    threads   the jobs of the last round get all cores as threads, which changes the bytes of their results

Busy seconds are those of all processes of the command (`os.wait4`), the imports included. Threads that wait for each
other can be busy as well, so the seconds of the command decide between two ways.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from folds.utils.parallel import cpu_count

WAYS = ("rounds", "shared", "threads")


def command(way: str, data: Path, arch: str, size: int, k: int, epochs: int) -> None:
    """Train a grid in this process and its workers."""
    from folds.execution.local import prepare_workers

    prepare_workers("cpu", "local")
    from folds.config.command_settings import Settings
    from folds.config.recipe import Recipe
    from folds.execution.local import train_on_this_machine
    from folds.execution.placement import DevicePlan, Execution
    from folds.runs.execute import lock_runs
    from folds.runs.open import prepare_jobs
    from folds.runs.plan import build_plan
    from folds.runs.session import train_runs

    recipe = Recipe(epochs=epochs, img_size=str(size), pretrained=False, batch_size=32)
    plan = build_plan(Settings(data=data, arch=(arch,), k=k), recipe, execution=Execution(devices="cpu"))
    placement = replace(plan.placement, shares_cores=way == "shared")
    plan = replace(plan, placement=placement)
    slots, cores = len(placement.devices), cpu_count()
    last = k % slots
    if way == "threads" and last:
        wide = DevicePlan(("cpu",) * last, max(1, cores // last), "")
        with lock_runs(plan):
            jobs = prepare_jobs(plan)
            for part, where in ((jobs[:-last], placement), (jobs[-last:], wide)):
                own = [replace(job, threads=where.threads) for job in part]
                for outcome in train_on_this_machine(own, where, lambda job, event: None):
                    if outcome.error is not None:
                        raise outcome.error
    trained = train_runs(plan, resume=True)
    assert not trained.failed


def measure(way: str, *arguments: object) -> tuple[float, float]:
    """Return the seconds of a command, and the busy seconds of all its processes."""
    for path in (Path("runs"), Path("checkpoints")):
        shutil.rmtree(path, ignore_errors=True)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, "--one", way, *map(str, arguments)], stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert not status, f"the command {way} {arguments} failed"
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime


def compare(data: Path, arch: str, size: int, k: int, epochs: int, repeats: int) -> str:
    """Return one line of the table: the medians of several commands in turn."""
    measure("shared", data, arch, size, k, 1)  # decodes the images
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            found[way].append(measure(way, data, arch, size, k, epochs))
    cells = []
    for way in WAYS:
        seconds = statistics.median(whole for whole, _ in found[way])
        share = statistics.median(busy / (cpu_count() * whole) for whole, busy in found[way])
        cells.append(f"{seconds:.1f} s, {share:.2f}")
    gain = statistics.median(a[0] / b[0] for a, b in zip(found["rounds"], found["shared"], strict=True))
    return f"| {arch} {size} px, k={k}, {epochs} epochs | {' | '.join(cells)} | {gain:.2f}× |"


def _train(arch: str, size: int, steps: int, threads: int, barrier: Any, results: Any) -> None:
    import torch

    sys.path.insert(0, str(ROOT / "benchmarks"))
    from alone import pace

    torch.set_num_threads(threads)
    train = pace(arch, size, 32, 18, "cpu", 0.25)
    barrier.wait()
    began = time.process_time()
    seconds = train(steps)
    results.put((steps * 32 / (time.process_time() - began), steps * 32 / seconds))
    barrier.wait()  # until all are through: none runs on an empty machine


def share(arch: str, size: int, steps: int) -> str:
    """Return a line: images per busy core second, and in all per second, of jobs × threads on all cores."""
    context, cores = multiprocessing.get_context("spawn"), cpu_count()
    cells = []
    for jobs, threads in ((cores, 1), (2 * cores - 1, 1), (1, cores)):
        barrier, results = context.Barrier(jobs), context.Queue()
        processes = [
            context.Process(target=_train, args=(arch, size, steps, threads, barrier, results)) for _ in range(jobs)
        ]
        for process in processes:
            process.start()
        rates = [results.get() for _ in processes]
        for process in processes:
            process.join()
        cells.append(f"{statistics.mean(own for own, _ in rates):.0f} ({sum(whole for _, whole in rates):.0f})")
    return f"| {arch} {size} px | {' | '.join(cells)} |"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--k", default="3,5,10")
    parser.add_argument("--arch", default="resnet18,test_resnet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--share", action="store_true")
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.one:
        way, data, arch, size, k, epochs = arguments.one
        command(way, Path(data), arch, int(size), int(k), int(epochs))
        return
    if arguments.share:
        cores = cpu_count()
        jobs = f"{cores} jobs, 1 thread | {2 * cores - 1} jobs, 1 thread | 1 job, {cores} threads"
        print(f"| images per core second (in all per second) | {jobs} |")
        print("|---|---|---|---|", flush=True)
        for arch, steps in (("test_resnet", 60), ("resnet18", 12)):
            print(share(arch, arguments.size, steps), flush=True)
        return
    if arguments.quick:
        arguments.people, arguments.epochs, arguments.repeats, arguments.k = 12, 1, 1, "3"
        arguments.arch, arguments.size = "test_resnet", 32
    from folds.data.synthetic.people import generate_people

    folder = Path(tempfile.mkdtemp(prefix="grid-"))
    try:
        data = generate_people(folder / "people", people=arguments.people, test_people=2, size=(384, 512))
        os.chdir(folder)
        print(f"| seconds, busy share of {cpu_count()} cores | {' | '.join(WAYS)} | rounds ÷ shared |")
        print("|---|---|---|---|---|", flush=True)
        for arch in arguments.arch.split(","):
            for k in arguments.k.split(","):
                row = compare(data, arch, arguments.size, int(k), arguments.epochs, arguments.repeats)
                print(row, flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
