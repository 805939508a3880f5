"""What augmentation costs in a step: kernels that a GPU starts, and CPU time on one core beside `standard`.

    python benchmarks/augment.py

Kernels are counted without a GPU, on tensors that have a device and a shape only. Times are CPU seconds of this process,
so that other programs on the machine matter little; the presets take turns.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from folds.augmentation.batch import PRESETS, apply_changes
from folds.augmentation.changes import Changes, compute_changes, sample_parameters, split_changes
from folds.augmentation.mixup import Mixing, MixupCutmix, apply_mixing, compute_mixing, draw_mixing
from tests.folds.augmentation.kernels import Kernels, on_gpu

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMES = ("light", "standard", "strong")


def changes_of(name: str, n: int, px: int, seed: int) -> Changes:
    draws = sample_parameters(n, PRESETS[name], torch.Generator().manual_seed(seed))
    return compute_changes(draws, PRESETS[name], (px, px))


def mixing_of(n: int, px: int) -> Mixing:
    return compute_mixing(draw_mixing(n, MixupCutmix(0.2, 1.0), torch.Generator().manual_seed(0)), (px, px))


def kernels(n: int, px: int) -> dict[str, int]:
    """Kernels of one step, by preset, and of mixing."""
    found, mixing = {}, mixing_of(n, px)
    changes = {name: changes_of(name, n, px, 0) for name in NAMES}
    with FakeTensorMode() as mode:
        batch = torch.empty((n, px, px, 3), dtype=torch.uint8, device="cuda")

        def count(step: Callable[[], object]) -> int:
            step()  # constants are kept from the first step on
            with Kernels() as counted:
                step()
            return sum(counted.found.values())

        for name in NAMES:
            fake = on_gpu(changes[name], mode)
            found[name] = count(
                lambda fake=fake: apply_changes(batch, fake, MEAN, STD, torch.channels_last, in_place=True)  # type: ignore[misc]
            )
        inputs, targets = torch.empty((n, 3, px, px), device="cuda"), torch.empty((n, 9), device="cuda")
        fake_mixing = on_gpu(mixing, mode)
        found["mixup + cutmix"] = count(lambda: apply_mixing(inputs, targets, fake_mixing))
    return found


def cpu_ms(step: Callable[[], object], seconds: float) -> float:
    """The CPU time of a step in ms."""
    step()
    start, steps = time.process_time(), 0
    while (spent := time.process_time() - start) < seconds or not steps:
        step()
        steps += 1
    return spent / steps * 1e3


def times(n: int, px: int, rounds: int, seconds: float) -> dict[str, float]:
    """Median over rounds of the CPU time of the pixel work of a step, in ms; each round has other parameters."""
    batch = torch.randint(0, 256, (n, px, px, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for seed in range(rounds):
        for name in NAMES:
            changes = split_changes(changes_of(name, n, px, seed), [n], "cpu")[0]
            step = partial(apply_changes, batch, changes, MEAN, STD, torch.channels_last, in_place=True)
            found[name].append(cpu_ms(step, seconds))
    return {name: sorted(values)[len(values) // 2] for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--sizes", default="64,224", help="pixels, separated by commas")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for px in map(int, arguments.sizes.split(",")):
        measured = times(arguments.batch, px, arguments.rounds, arguments.seconds)
        for name, ms in measured.items():
            share = ms / measured["standard"]
            print(f"{px} px, batch {arguments.batch}: {name:9} {ms:6.2f} ms, {share:.2f} of standard", flush=True)
    for name, count in kernels(arguments.batch, 64).items():
        print(f"{name:15} {count:3} kernels a step on a GPU", flush=True)


if __name__ == "__main__":
    main()
