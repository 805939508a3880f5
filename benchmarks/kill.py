"""Kill a training with SIGKILL at random moments, resume it, and compare every byte with an uninterrupted run.

    python benchmarks/kill.py --rounds 100

A round decodes the images and trains two architectures on two folds. Rounds take turns: plain; averaged weights and the
best epoch; bf16 with averaged weights; strong augmentation with mixing, saved seldom, so that a kill falls between two
saved states and epochs are trained again; heads on frozen features. One to three times, at random moments, the command
or one of its workers is killed; the command is then
resumed (it handles a killed worker itself). A round without a kill is repeated. At the end the prediction files, their
sidecars except the date, and the checkpoints must equal those of the uninterrupted run. Exits 1 if any differs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARGUMENTS = "--data people --arch test_resnet,test_vit --k 2 --epochs 4 --img-size 32 --no-pretrained --jobs 1 -q"
OFTEN = "--save-every 0.02"
VARIANTS = (
    OFTEN,
    f"--ema 0.9 --keep best {OFTEN}",
    f"--amp bf16 --ema 0.9 {OFTEN}",
    "--augment strong --mixup 0.2 --cutmix 1 --ema 0.9 --keep best --save-every 0.5",
    "--features --heads logistic,mlp --learning-curve",
)


def start(folder: Path, variant: str, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ensemble.cli", "kfold", *f"{ARGUMENTS} {variant}".split(), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(folder / "log.txt", "ab") as log:
        # One core: the number of threads a job is part of the result.
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, preexec_fn=one_core)


def one_core() -> None:
    os.sched_setaffinity(0, {random.choice(sorted(os.sched_getaffinity(0)))})


def results(folder: Path) -> dict[str, bytes]:
    files = {
        path: path.read_bytes() for pattern in ("runs/*.npy", "checkpoints/*/*.pt") for path in folder.glob(pattern)
    }
    for path in folder.glob("runs/*.json"):
        record = json.loads(path.read_text())
        record.pop("created", None)
        files[path] = json.dumps(record).encode()
    return {str(path.relative_to(folder)): content for path, content in sorted(files.items())}


def descendants(pid: int) -> Iterator[int]:
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return
    for child in children:
        yield child
        yield from descendants(child)


def one_round(
    number: int, seed: int, base: Path, usual: float, expected: dict[str, dict[str, bytes]]
) -> tuple[Counter[str], list[str]]:
    """What was killed, and which files differ in the end."""
    variants = list(expected)
    variant = variants[number % len(variants)]
    tries = itertools.count()
    while True:  # until something was killed
        draw = random.Random(f"{seed} {number} {next(tries)}")
        folder = base / f"round{number}"
        shutil.copytree(base / "people", folder / "people")
        killed, wrong = interrupted(folder, variant, usual, draw)
        if wrong:
            return killed, wrong
        if killed["command"] + killed["worker"]:
            break
        shutil.rmtree(folder)
    found = results(folder)
    differing = [
        name
        for name in sorted(found.keys() | expected[variant].keys())
        if found.get(name) != expected[variant].get(name)
    ]
    leftovers = [str(path) for path in folder.rglob("*.tmp")]
    if not differing and not leftovers:
        shutil.rmtree(folder)
    return killed, differing + leftovers


def interrupted(folder: Path, variant: str, usual: float, draw: random.Random) -> tuple[Counter[str], list[str]]:
    """Train to the end with one to three kills on the way: what was killed, and what went wrong."""
    killed: Counter[str] = Counter()
    kills, process = draw.randint(1, 3), start(folder, variant)
    while True:
        while kills and process.poll() is None:
            kills -= 1
            # Half of the moments are drawn from the whole command, half from when there are workers.
            at_work = draw.random() < 0.5
            while at_work and process.poll() is None and not list(descendants(process.pid)):
                time.sleep(0.02)
            try:
                process.wait(draw.uniform(0, usual * (0.5 if at_work else 1)))
            except subprocess.TimeoutExpired:
                workers = list(descendants(process.pid))
                whom = "worker" if workers and draw.random() < 0.6 else "command"
                with contextlib.suppress(ProcessLookupError):
                    os.kill(draw.choice(workers) if whom == "worker" else process.pid, signal.SIGKILL)
                    killed[whom] += 1
                    if whom == "command":
                        break
        code = process.wait()
        if code == 0:
            return killed, []
        if code == 3 and "worker killed (SIGKILL)" in (folder / "log.txt").read_text():
            killed["given up"] += 1  # a worker killed three times in a row without having saved anything: to be resumed
        elif code != -signal.SIGKILL:
            return killed, [f"exit {code}: " + (folder / "log.txt").read_text()[-300:]]
        process = start(folder, variant, "--resume")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", default="", help="numbers of the kinds of rounds, from 0; by default all")
    parser.add_argument("--parallel", type=int, default=2, help="rounds at a time")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from folds.data.synthetic.people import generate_people

    base = Path(tempfile.mkdtemp(prefix="kill-"))
    generate_people(base / "people", people=30, test_people=6, size=(48, 64))
    usual, expected = 0.0, {}
    chosen = [VARIANTS[int(number)] for number in arguments.variants.split(",")] if arguments.variants else VARIANTS
    for i, variant in enumerate(chosen):
        reference = base / f"reference{i}"
        shutil.copytree(base / "people", reference / "people")
        began = time.monotonic()
        if start(reference, variant).wait() != 0:
            print((reference / "log.txt").read_text())
            return 1
        usual = max(usual, time.monotonic() - began)
        expected[variant] = results(reference)
    print(f"uninterrupted: {usual:.1f} s, {len(expected[chosen[0]])} files", flush=True)
    killed: Counter[str] = Counter()
    failed = 0
    with ThreadPoolExecutor(arguments.parallel) as pool:
        rounds = pool.map(lambda i: one_round(i, arguments.seed, base, usual, expected), range(arguments.rounds))
        for i, (which, differing) in enumerate(rounds):
            killed += which
            failed += bool(differing)
            if differing:
                print(f"round {i}: {differing}", flush=True)
            elif (i + 1) % 10 == 0:
                print(f"{i + 1} rounds, {failed} with a difference, killed: {dict(killed)}", flush=True)
    print(f"{arguments.rounds - failed} of {arguments.rounds} identical; killed: {dict(sorted(killed.items()))}")
    if not failed:
        shutil.rmtree(base)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
