"""How a training on a CPU or on Apple's GPU is computed: number and memory format and compilation, as measured."""

from __future__ import annotations

import copy
import math
import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from folds.config.recipe import Recipe
from folds.models.accelerators import (
    computes_in,
    free_cache,
    kind_of,
    prefers_channels_last,
    scales_gradients,
    synchronize,
)
from folds.models.factory import Architecture, create_model, is_convolutional
from folds.models.fusion import fused
from folds.models.inference import BATCH
from folds.models.precision import autocast
from folds.models.timing import fastest_seconds, has_bf16, torch_threads
from folds.optim.optimizers import build_optimizer
from folds.utils.parallel import cpu_count

FP32, BF16, FP16 = "fp32", "bf16", "fp16"
OFF, FUSED = "off", "fused"  # how predictions are computed, beside bf16
# A format is left for another one only for a clear gain: the choice must not depend on the noise of a measurement.
GAIN_OF_FORMAT, GAIN_OF_LAYOUT, GAIN_OF_PREDICTION = 1.2, 1.15, 1.2
_STEP_SECONDS = 0.25  # of a measured step in fp32: fewer images than a batch, if that takes longer


@dataclass(frozen=True)
class Format:
    """How a training and its predictions are computed.

    Attributes
    ----------
    amp : ``off`` (fp32), ``bf16`` or ``fp16``; ``auto`` if the first job decides.
    channels_last : memory format of the training; None for that of the recipe.
    compiled : whether the training is compiled although the recipe does not ask for it.
    validation : format of the predictions during the training: ``off``, ``bf16`` or ``fused`` (batch norms folded, in
        fp32).
    stored : format of the predictions that are stored: ``off``, exactly as other commands compute them from the
        checkpoint. Both are "" on a GPU, and in runs of earlier versions: predicted as trained.
    reason : why, with the measured rates.
    """

    amp: str = OFF
    channels_last: bool | None = None
    compiled: bool = False
    validation: str = OFF
    stored: str = OFF
    reason: str = field(default="", compare=False)


@dataclass(frozen=True)
class Rates:
    """What was measured of a model on this machine.

    Attributes
    ----------
    convolutional : whether the memory format of the recipe is channels_last.
    train : ``<number format>`` or ``<number format> <memory format>`` (the one the recipe does not choose) → images per
        second of training steps.
    predict : ``off``, ``fused``, ``bf16`` → images per second.
    preparing : seconds that fusing takes, once per prediction.
    compiled : images per second of the compiled model, and the seconds of compiling; (0, 0) if not measured.
    """

    convolutional: bool
    train: Mapping[str, float]
    predict: Mapping[str, float]
    preparing: float = 0.0
    compiled: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Rates | None:
        """Return the rates that `vars` gave; None if the record does not hold them."""

        def numbers(values: Any) -> dict[str, float]:
            return {str(key): float(value) for key, value in dict(values).items()}

        try:
            rate, seconds = map(float, record["compiled"])
            found = cls(
                bool(record["convolutional"]),
                numbers(record["train"]),
                numbers(record["predict"]),
                float(record["preparing"]),
                (rate, seconds),
            )
        except (KeyError, TypeError, ValueError):
            return None
        values = [*found.train.values(), *found.predict.values()]
        good = FP32 in found.train and OFF in found.predict and all(0 < value < math.inf for value in values)
        return found if good else None


@dataclass(frozen=True)
class Amount:
    """How much one fold computes, for what pays only once.

    Attributes
    ----------
    seconds_of : images per second → seconds that the whole command trains at this rate.
    predicted : images of the smallest validation part.
    """

    trained: float
    predicted: int

    def seconds_of(self, rate: float) -> float:
        """Return the seconds of a command's training at a rate of one job."""
        return self.trained / max(rate, 1e-9)


class _Trial:
    """A model with random weights and random images, to be timed."""

    def __init__(self, architecture: Architecture, recipe: Recipe, outputs: int, device: str = "cpu") -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = create_model(architecture, outputs)
            batch = max(1, recipe.batch_size or 1)
            self.images = torch.rand(max(batch, 2), architecture.channels, architecture.height, architecture.width)
        if recipe.grad_checkpointing:
            self.model.set_grad_checkpointing(True)  # type: ignore[operator]
        self.labels = torch.zeros(len(self.images), dtype=torch.long)
        if device != "cpu":
            self.model, self.images = self.model.to(device), self.images.to(device)
            self.labels = self.labels.to(device)
        self.batch, self.recipe, self.device = batch, recipe, device
        own = is_convolutional(self.model) and prefers_channels_last(device)
        self.layout = own if recipe.channels_last is None else recipe.channels_last
        self.two_layouts = own and recipe.channels_last is None

    def train(self, amp: str, channels_last: bool, n: int, forward: Callable[[Tensor], Tensor] | None = None) -> float:
        """Return the seconds of a forward and a backward pass of `n` images."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model.train().to(memory_format=layout)  # type: ignore[call-overload]
        self.model.zero_grad(set_to_none=True)
        images, labels = self.images[:n].contiguous(memory_format=layout), self.labels[:n]
        synchronize(self.device)
        began = time.perf_counter()
        with autocast(amp, self.device):
            loss = torch.nn.functional.cross_entropy((forward or self.model)(images).float(), labels)
        loss.backward()
        synchronize(self.device)
        return time.perf_counter() - began

    def optimize(self) -> float:
        """Return the seconds of a step of the optimizer; the gradients of the last `train` are used up."""
        optimizer = build_optimizer(
            self.model, self.recipe.opt, self.recipe.weight_decay, self.recipe.layer_decay, self.recipe.opt_args
        )
        seconds = 0.0
        for _ in range(2):  # the first one makes the state
            began = time.perf_counter()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            synchronize(self.device)
            seconds = time.perf_counter() - began
        return seconds

    @torch.inference_mode()
    def predict(self, way: torch.nn.Module, amp: str, channels_last: bool, n: int) -> float:
        """Return the seconds of a forward pass of `n` images."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        images = self.images.repeat(-(-n // len(self.images)), 1, 1, 1)[:n].contiguous(memory_format=layout)
        way.eval()
        began = time.perf_counter()
        with autocast(amp, "cpu"):
            way(images)
        return time.perf_counter() - began


def measure(architecture: Architecture, recipe: Recipe, outputs: int, threads: int) -> Rates:
    """Return the rates of a model in each number format and memory format, as a job with `threads` threads has them.

    A step is measured with a full batch, or with as many images as fp32 trains in a quarter of a second. What the
    optimizer takes is measured once and added to every step. Predictions are measured at the same time as training
    where there are cores for both, as there are when several jobs train.

    Raises
    ------
    RuntimeError : the model does not run in one of the formats.
    """
    with torch_threads(threads), ThreadPoolExecutor(1) as pool:
        trial = _Trial(architecture, recipe, outputs)
        few = min(2, len(trial.images))
        trial.train(OFF, trial.layout, few)
        per_image = trial.train(OFF, trial.layout, few) / few
        n = max(few, min(len(trial.images), round(_STEP_SECONDS / per_image)))
        # Traced here, because tracing changes what every call of a module does, in all threads.
        ways, preparing = _ways_to_predict(copy.deepcopy(trial))
        arguments = (trial, ways, min(BATCH, 2 * n), threads)
        found = pool.submit(_prediction_rates, *arguments) if 2 * threads <= cpu_count() else None
        train = _training_rates(trial, n, {FP32} if n == few else ())
        predict = _prediction_rates(*arguments) if found is None else found.result()
    return Rates(trial.layout, train, predict, preparing)


def _training_rates(trial: _Trial, n: int, warm: Collection[str]) -> dict[str, float]:
    """Return images per second of each way to train, from steps of `n` images; `warm` ways have just been run."""
    layout = trial.layout
    ways = {FP32: (OFF, layout), **({BF16: (BF16, layout)} if has_bf16() else {})}
    timed = {name: _timed(trial.train, *way, n) for name, way in ways.items()}
    seconds = fastest_seconds(timed, gain=GAIN_OF_FORMAT, warm=warm)
    if trial.two_layouts:  # only of the number format that is ahead
        ahead = min(seconds, key=seconds.__getitem__)
        other = f"{ahead} {layout_name(not layout)}"
        ways[other] = (ways[ahead][0], not layout)
        timed = {name: _timed(trial.train, *ways[name], n) for name in (ahead, other)}
        again = fastest_seconds(timed, gain=GAIN_OF_LAYOUT, warm={ahead})
        seconds |= {name: min(spent, seconds.get(name, spent)) for name, spent in again.items()}
    optimizing = trial.optimize()
    return {name: trial.batch / (spent * trial.batch / n + optimizing) for name, spent in seconds.items()}


def _ways_to_predict(trial: _Trial) -> tuple[dict[str, tuple[torch.nn.Module, str]], float]:
    """Return each way to predict as a model with its number format, and the seconds of fusing."""
    layout = torch.channels_last if trial.layout else torch.contiguous_format
    model = trial.model.eval().to(memory_format=layout)  # type: ignore[call-overload]
    ways: dict[str, tuple[torch.nn.Module, str]] = {OFF: (model, OFF), **({BF16: (model, BF16)} if has_bf16() else {})}
    began = time.perf_counter()
    with suppress(RuntimeError):  # not for this model, or not on this processor
        ways[FUSED] = (fused(model, torch.float32, trial.images[:1])[0], OFF)
    return ways, time.perf_counter() - began


def _prediction_rates(
    trial: _Trial, ways: Mapping[str, tuple[torch.nn.Module, str]], n: int, threads: int
) -> dict[str, float]:
    """Return images per second of each way to predict `n` images."""
    torch.set_num_threads(threads)  # of the thread that this runs in
    timed = {name: _timed(trial.predict, *way, trial.layout, n) for name, way in ways.items()}
    return {name: n / seconds for name, seconds in fastest_seconds(timed, gain=GAIN_OF_PREDICTION).items()}


def measure_numbers(architecture: Architecture, recipe: Recipe, outputs: int, device: str) -> dict[str, float]:
    """Return the images per second of training steps in each number format that a device can train in.

    ``fp32`` is always there; ``fp16`` only if torch scales gradients on the device.

    Raises
    ------
    RuntimeError : the model does not run in one of the formats, or the memory is too small.
    """
    kind = kind_of(device)
    formats = {FP32: OFF}
    if computes_in(kind, FP16) and scales_gradients(kind):
        formats[FP16] = FP16
    if computes_in(kind, BF16):
        formats[BF16] = BF16
    trial = _Trial(architecture, recipe, outputs, device)
    n = len(trial.images)
    seconds = fastest_seconds({name: _timed(trial.train, amp, trial.layout, n) for name, amp in formats.items()})
    optimizing = trial.optimize()
    free_cache(device)
    return {name: trial.batch / (spent * trial.batch / n + optimizing) for name, spent in seconds.items()}


def choose_number(rates: Mapping[str, float]) -> Format:
    """Return the format that the rates of `measure_numbers` say; another one than fp32 must pay.

    Predictions are computed as the training, as on other GPUs.
    """
    best = max((name for name in rates if name != FP32), key=rates.__getitem__, default=FP32)
    others = ", ".join(f"{name} {_rate(rate)}" for name, rate in rates.items() if name != FP32)
    if best == FP32 or rates[best] < GAIN_OF_FORMAT * rates[FP32]:
        tried = f", and nothing else clearly more ({others})" if others else "; torch trains in nothing else here"
        return Format(OFF, None, False, "", "", f"fp32 trains {_rate(rates[FP32])} images/s{tried} (measured)")
    reason = f"{best} trains {_rate(rates[best])} images/s against {_rate(rates[FP32])} in fp32 (measured)"
    return Format(best, None, False, "", "", reason)


def _timed(work: Callable[..., float], *arguments: Any) -> Callable[[], float]:
    return lambda: work(*arguments)


def measure_compiled(
    architecture: Architecture, recipe: Recipe, outputs: int, threads: int, chosen: Format
) -> tuple[float, float]:
    """Return the images per second of the compiled model in a format, and the seconds of compiling; (0, 0) if it fails.

    A full batch is measured, because a compiled model is made for one size.
    """
    with torch_threads(threads):
        trial = _Trial(architecture, recipe, outputs)
        layout = trial.layout if chosen.channels_last is None else chosen.channels_last
        try:
            forward = torch.compile(trial.model, dynamic=False)
            first = trial.train(chosen.amp, layout, trial.batch, forward)
            again = min(trial.train(chosen.amp, layout, trial.batch, forward) for _ in range(3))
        except Exception:  # of the compiler, of many kinds
            return 0.0, 0.0
        finally:
            torch._dynamo.reset()
        return trial.batch / (again + trial.optimize()), max(first - again, 0.0)


def has_compiler() -> bool:
    """Return whether there is a C++ compiler, which torch.compile needs on a CPU."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    return any(shutil.which(name) for name in names)


def layout_name(channels_last: bool) -> str:
    """Return the name of a memory format in messages and records."""
    return "channels-last" if channels_last else "contiguous"


def choose(rates: Rates, amount: Amount) -> Format:
    """Return the format that measured rates say; each step away from fp32 in the usual memory format must pay."""
    train, usual = rates.train, layout_name(rates.convolutional)
    name = BF16 if train.get(BF16, 0) >= GAIN_OF_FORMAT * train[FP32] else FP32
    other = f"{name} {layout_name(not rates.convolutional)}"
    channels_last, best = None, name
    if train.get(other, 0) >= GAIN_OF_LAYOUT * train[name]:
        channels_last, best = not rates.convolutional, other
    predict = rates.predict
    gained = amount.predicted * (1 / predict[OFF] - 1 / predict.get(FUSED, predict[OFF]))
    validation = OFF
    if predict.get(FUSED, 0) >= GAIN_OF_PREDICTION * predict[OFF] and gained > 2 * rates.preparing:
        validation = FUSED
    if predict.get(BF16, 0) >= GAIN_OF_PREDICTION * predict[validation]:
        validation = BF16
    if name == FP32:
        reason = f"fp32 trains {_rate(train[FP32])} images/s, and nothing else clearly more"
        tried = [f"{key} {_rate(value)}" for key, value in train.items() if key != FP32]
        reason += f" ({', '.join(tried)})" if tried else ""
        if channels_last is not None:
            reason = f"{other} trains {_rate(train[other])} images/s against {_rate(train[FP32])} {usual}"
    else:
        layout = ""  # of convolutions only
        if rates.convolutional or channels_last is not None:
            layout = f" {layout_name(rates.convolutional if channels_last is None else channels_last)}"
        reason = f"bf16{layout} trains {_rate(train[best])} images/s against {_rate(train[FP32])} in fp32"
    reason += f" (measured); validation in {spoken(validation)}, stored predictions in fp32"
    return Format(BF16 if name == BF16 else OFF, channels_last, False, validation, OFF, reason)


def rate_of(rates: Rates, chosen: Format) -> float:
    """Return the images per second of a format that `choose` returned."""
    name = BF16 if chosen.amp == BF16 else FP32
    if chosen.channels_last is not None:
        name = f"{name} {layout_name(chosen.channels_last)}"
    return rates.train[name]


def spoken(way: str) -> str:
    """Return how predictions are computed, in words."""
    return {OFF: "fp32", BF16: "bf16", FUSED: "fp32 with folded batch norms"}[way]


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
