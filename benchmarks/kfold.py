"""How fast folds are trained: against the loop a competent user writes, and against the model alone.

    python benchmarks/kfold.py                    resnet18 and test_resnet at 64 px from 384×512 JPEGs, k=5, on the CPU
    python benchmarks/kfold.py --busy             with a process that keeps one core busy
    python benchmarks/kfold.py --growth           how the time grows with k, epochs, architectures and images

Everything in one run, in turn, medians of --repeats. Rates are training images a second in steady state: the first epoch is
left out, validation and saving are in. The opponent (benchmarks/opponent.py) runs with one worker and one a core, one thread
and one a core, and its best is taken. The ceiling is the same model with one batch that lies in memory: no data path at all.
"""

from __future__ import annotations

import argparse
import csv
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

from folds.devices import Execution, available_cores  # noqa: E402
from folds.manager import locked, train  # noqa: E402
from folds.people import draw_people  # noqa: E402
from folds.plan import Plan, make_plan, open_runs  # noqa: E402
from folds.recipe import Recipe, Settings  # noqa: E402

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
    return make_plan(settings, whole, folds=folds, execution=execution)


def ours(data: Path, arch: str, size: int, epochs: int, name: str, folds: Sequence[int], **how: Any) -> tuple[float, float]:
    """(training images a second in steady state, seconds until the first step)."""
    began = time.perf_counter()
    plan = plan_of(data, arch, size, epochs, name, folds, **how)
    first: list[float] = []

    def report(job: Any, event: dict[str, Any]) -> None:
        if not first:
            first.append(time.perf_counter() - began)

    with locked(plan):
        for outcome in train(plan, open_runs(plan), report):
            if outcome.error is not None:
                raise outcome.error
    run = plan.runs[0]
    rates = []
    for fold in folds:
        with open(run.fold_folder(fold) / "history.csv") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)][1:]
        rates.append(len(plan.assignment.training_index(fold)) * len(seconds) / sum(seconds))
    shutil.rmtree(run.folder)
    shutil.rmtree(run.checkpoints / run.name)
    for path in run.runs.glob(f"{run.name}.*"):
        path.unlink()
    return len(plan.placement.devices) * statistics.mean(rates), first[0]


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
) -> float:
    """Training images a second of the usual loop in steady state, one fold after the other."""
    from opponent import train_fold

    plan = plan_of(data, arch, size, epochs, "theirs", None)
    table, labels = plan.table, plan.table.label_codes().tolist()
    trained = seconds = 0.0
    for fold in range(folds):
        rows = plan.assignment.training_index(fold).tolist(), plan.assignment.validation_index(fold).tolist()
        options = {"arch": plan.runs[0].architecture.timm_name, "size": size, "classes": len(table.classes), "epochs": epochs, "batch": batch}
        records = train_fold(table.paths or (), labels, *rows, **options, workers=workers, threads=threads, device=device, draft=draft)
        trained += sum(record.trained for record in records[1:])
        seconds += sum(record.seconds for record in records[1:])
    return trained / seconds


def _alone(arch: str, size: int, classes: int, steps: int, checks: int, threads: int, barrier: Any, results: Any) -> None:
    import timm
    import torch

    torch.set_num_threads(threads)
    model = timm.create_model(arch, num_classes=classes)
    from folds.architectures import is_convolutional

    layout = torch.channels_last if is_convolutional(model) else torch.contiguous_format
    model = model.to(memory_format=layout)
    images, labels = torch.randn(BATCH, 3, size, size).contiguous(memory_format=layout), torch.randint(classes, (BATCH,))
    checked = torch.randn(64, 3, size, size).contiguous(memory_format=layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def some(n: int, m: int) -> None:
        model.train()
        for _ in range(n):
            loss = torch.nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            for _ in range(m):
                model(checked)

    some(2, 1)
    barrier.wait()
    began = time.perf_counter()
    some(steps, checks)
    results.put(steps * BATCH / (time.perf_counter() - began))
    barrier.wait()  # until all are through: none runs on an empty machine


def ceiling(arch: str, size: int, training: int, validation: int, epochs: int, slots: int, classes: int = 18) -> float:
    """Training images a second of `slots` models with one thread each and no data path; validation is in."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(slots), context.Queue()
    steps, checks = max(1, round(training * epochs / BATCH)), max(1, round(validation * epochs / 64))
    arguments = (arch, size, classes, steps, checks, max(1, available_cores() // slots), barrier, results)
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
    cores = available_cores()
    training, validation = 0, 0
    plan = plan_of(data, arch, size, epochs, "count", None)
    training, validation = len(plan.assignment.training_index(0)), len(plan.assignment.validation_index(0))
    with neighbour(busy):
        tried = {(w, t, d): theirs(data, arch, size, 2, w, t, d) for w in {1, cores} for t in {1, cores} for d in (False, True)}
        best = {draft: max((key for key in tried if key[2] == draft), key=tried.__getitem__) for draft in (False, True)}
        rows = []
        for i in range(repeats):
            rate, first = ours(data, arch, size, epochs, f"ours{i}", [0, 1, 2, 3])
            rows.append(
                (
                    rate,
                    theirs(data, arch, size, epochs, *best[False]),
                    theirs(data, arch, size, epochs, *best[True]),
                    ceiling(plan.runs[0].architecture.timm_name, size, training, validation, epochs, cores),
                    first,
                )
            )
    rate, usual, drafted, alone, first = (statistics.median(column) for column in zip(*rows, strict=True))
    ratios = [statistics.median(row[0] / row[j] for row in rows) for j in (1, 2, 3)]
    busy_text = ", busy neighbour" if busy else ""
    return (
        f"| {arch} {size} px{busy_text} | {rate:.0f} | {usual:.0f} ({best[False][0]} workers, {best[False][1]} threads) | {ratios[0]:.2f}× "
        f"| {drafted:.0f} | {ratios[1]:.2f}× | {alone:.0f} | {ratios[2]:.2f} | {first:.1f} s |"
    )


def growth(folder: Path) -> Iterator[str]:
    """Seconds of a whole command as it grows, one thing at a time; the first line is what the others are compared with."""
    small, large = (
        draw_people(folder / "p1", people=40, test_people=2, size=(96, 128)),
        draw_people(folder / "p2", people=80, test_people=2, size=(96, 128)),
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
        with locked(plan):
            jobs = open_runs(plan)
            decoding = time.perf_counter() - decoding
            done = [outcome.result for outcome in train(plan, jobs)]
        whole = time.perf_counter() - began
        inside = sum(result["seconds"] for result in done if result)
        yield f"| {title} | {len(jobs)} | {decoding:.2f} s | {inside:.1f} s | {inside / len(jobs):.2f} s | {whole:.1f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arch", default="test_resnet,resnet18")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--growth", action="store_true")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kfold-"))
    try:
        if arguments.growth:
            print("| | jobs | decoding | training, all jobs | training, a job | whole command |\n|---|---|---|---|---|---|")
            for line in growth(folder):
                print(line, flush=True)
            return
        data = draw_people(folder / "people", people=arguments.people, test_people=2, size=(384, 512))
        os.chdir(folder)
        print(
            "| model | this program, images/s | usual loop | ratio | usual loop with draft | ratio "
            "| model alone | share of it | first step after (decoded) |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for arch in arguments.arch.split(","):
            print(compare(data, arch, 64, arguments.epochs, arguments.repeats, arguments.busy), flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
