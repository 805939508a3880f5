"""Train random images for a moment in a process of its own, to measure what one of several jobs on a GPU costs.

The first line of standard input says what is trained; the answer is the memory that it takes. Each further line asks
for some seconds of training; the answer is the rate. Answers are JSON lines on standard output. The process ends with
its input.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch

from folds.augmentation.batch import apply_changes
from folds.augmentation.changes import compute_changes, sample_parameters, split_changes
from folds.augmentation.presets import preset, without_colors
from folds.models.accelerators import memory, scaler_of, synchronize
from folds.models.factory import Architecture, create_model, is_convolutional
from folds.models.precision import autocast
from folds.optim.optimizers import build_optimizer
from folds.training.ema import MovingAverage

# What CUDA itself takes of a GPU for each process: its context, and kernels that are loaded later.
_CONTEXT = 768 << 20
_STEPS = 10  # of which the share of the host is the median


class _Training:
    """Steps of a training as `folds.training.loop` runs them, with random images and one label."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.order, self.device = order, str(order["device"])
        torch.set_num_threads(max(1, int(order["threads"])))
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        architecture = Architecture(**order["architecture"])
        self.model = create_model(architecture, order["outputs"])
        if order["grad_checkpointing"]:
            self.model.set_grad_checkpointing(True)  # type: ignore[operator]
        wide = is_convolutional(self.model) if order["channels_last"] is None else order["channels_last"]
        self.layout = torch.channels_last if wide else torch.contiguous_format
        self.model = self.model.to(self.device).to(memory_format=self.layout).train()  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.model, order["opt"], None, None, order["opt_args"])
        self.average = MovingAverage(self.model, order["ema"]) if order["ema"] else None
        self.scaler = scaler_of(self.device, order["amp"])
        self.batch, self.architecture, self.steps = int(order["batch"]), architecture, 0
        self.augmentation = preset(order["augment"])
        if architecture.channels != 3:
            self.augmentation = without_colors(self.augmentation)
        self.size = architecture.height, architecture.width
        shape = (self.batch, *order["image_size"], architecture.channels)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        self.labels = torch.zeros(self.batch, dtype=torch.long, device=self.device)

    def step(self) -> None:
        """Start one step; a GPU is not waited for."""
        generator = torch.Generator().manual_seed(self.steps)
        whole = self.images.shape[1], self.images.shape[2]
        draws = sample_parameters(self.batch, (self.augmentation,), generator)
        found = compute_changes(draws, (self.augmentation,), whole, None, self.size)
        changes = split_changes(found, [self.batch], self.device)[0]
        mean, std = self.architecture.mean, self.architecture.std
        inputs = apply_changes(self.images, changes, mean, std, self.layout, size=self.size)
        self.optimizer.zero_grad(set_to_none=True)
        for images, labels in zip(
            inputs.tensor_split(self.order["accumulate"]),
            self.labels.tensor_split(self.order["accumulate"]),
            strict=True,
        ):
            with autocast(self.order["amp"], self.device):
                loss = torch.nn.functional.cross_entropy(self.model(images).float(), labels)
            self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.steps)
        self.steps += 1

    def share_of_host(self) -> float:
        """Return the share of a step in which the host starts its kernels; near 1, a GPU waits for the host.

        Each step begins on an idle GPU, so that the queue of kernels is never full.
        """
        shares = []
        for _ in range(_STEPS):
            synchronize(self.device)
            began = time.perf_counter()
            self.step()
            started = time.perf_counter() - began
            synchronize(self.device)
            shares.append(started / (time.perf_counter() - began))
        return statistics.median(shares)

    def rate(self, seconds: float) -> float:
        """Return the images per second of some seconds of training."""
        synchronize(self.device)
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            self.step()
            steps += 1
            if steps % 8 == 0:  # so that the host is not far ahead when the time is over
                synchronize(self.device)
        synchronize(self.device)
        return steps * self.batch / (time.perf_counter() - began)


def _begin(order: Mapping[str, Any]) -> tuple[_Training, dict[str, Any]]:
    """Return a training after its first steps, and what it takes."""
    before = memory(str(order["device"]))
    training = _Training(order)
    for _ in range(3):
        training.step()
    share = training.share_of_host()
    after = memory(training.device)
    if before is None or after is None:
        return training, {"bytes": 0, "free": 0, "total": 0, "host": share}
    # torch keeps what a step has taken, so what is missing now is the most that it had.
    return training, {
        "bytes": max(0, before[0] - after[0]) + _CONTEXT,
        "free": before[0],
        "total": before[1],
        "host": share,
    }


def main() -> None:
    """Answer the lines of standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print to standard output

    training: _Training | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if training is None:
                training, answer = _begin(asked)
            else:
                answer = {"rate": training.rate(float(asked["seconds"]))}
        except RuntimeError as error:  # of memory, or of a model that does not run
            answer = {"error": " ".join(str(error).split())[:200]}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
