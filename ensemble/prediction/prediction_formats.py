"""Choose how each architecture is computed on a CPU: number format and form of the model, by measurement."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ensemble.prediction.out_of_fold import SCORE_CHANGE, score_change
from ensemble.prediction.source import FoldModel
from folds.errors import unknown_name
from folds.metrics.task_names import CLASSES, REGRESSION, require_classes
from folds.models.fusion import fused
from folds.models.inference import BATCH, PixelSource, predict_logits
from folds.models.person_models import body_on, needs_people
from folds.models.timing import fastest_seconds
from folds.predictions.links import largest_difference, predictions_of, same_answers

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "fp32", "bf16", "fastest")
EXACT_WAY, FUSED, BF16 = "fp32", "fp32 fused", "bf16 fused"
_WAYS = {"auto": (FUSED,), "bf16": (FUSED, BF16), "fastest": (FUSED, BF16)}  # beside `EXACT_WAY`
_DTYPES = {FUSED: torch.float32, BF16: torch.bfloat16}

EQUAL = 1e-5  # largest difference of a probability that counts as the same in float32
AGREEMENT = 0.995  # share of images whose predicted class a reduced format must not change
_SAMPLE, _CHECKED = 16, 200  # images that are timed; images whose classes are compared
_WORTH_MEASURING = 400  # forward passes; with fewer, the measurement takes longer than it can save
FAST_BATCH = 16  # images per forward pass of a fused model; more are not faster and take more memory
_LARGE = (
    64 << 20
)  # bytes of weights from which on a CPU batches are halved: measured, 3% slower, 300 MB less with Swin-T


@dataclass(frozen=True)
class Choice:
    """How one architecture is computed.

    Attributes
    ----------
    way : ``fp32`` (as the training computed its predictions), ``fp32 fused`` or ``bf16 fused``; on a GPU the number
        format of autocast: ``off``, ``bf16`` or ``fp16``.
    reason : why.
    rates : way → images per second on one core stream, if measured.
    difference : largest difference of a probability from ``fp32`` on the sample.
    agreement : share of the sample with the same predicted class as in ``fp32``.
    """

    way: str
    reason: str
    rates: Mapping[str, float] = field(default_factory=dict)
    difference: float = 0.0
    agreement: float = 1.0

    @property
    def is_exact(self) -> bool:
        """Return whether values are computed as the training computed its predictions."""
        return self.way not in _DTYPES

    @property
    def amp(self) -> str:
        """Return the number format of autocast; ``off`` for the forms that are rebuilt for a format."""
        return self.way if self.way in ("bf16", "fp16") else "off"

    @property
    def number_format(self) -> str:
        """Return the number format of the computation: ``fp32``, ``bf16`` or ``fp16``."""
        return "bf16" if self.way == BF16 else "fp32" if self.amp == "off" else self.amp

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the sidecar and ``--json``."""
        return {
            "way": self.way,
            "reason": self.reason,
            "rates": {way: round(rate, 2) for way, rate in self.rates.items()},
            "difference": self.difference,
            "agreement": self.agreement,
        }


def check_precision(precision: str) -> str:
    """Return a precision by its name; ``off``, as training calls it, is ``fp32``.

    Raises
    ------
    UsageError : it is unknown.
    """
    if precision == "off":
        return "fp32"
    if precision not in PRECISIONS:
        raise unknown_name("`precision`", precision, PRECISIONS)
    return precision


def check_reduced(precision: str, task: str) -> None:
    """Raise UsageError if a reduced format is asked for whose check, the predicted classes, says nothing."""
    if precision in ("bf16", "fastest"):
        require_classes(task, f"`precision={precision}`", "`precision=auto` is the fastest form in float32")


def architecture_key(model: FoldModel) -> str:
    """Return what models must share to be computed in the same way."""
    checkpoint = model.checkpoint
    return repr(
        (checkpoint.architecture, checkpoint.heads, len(checkpoint.classes), checkpoint.recipe.get("channels_last"))
    )


def batch_size(model: FoldModel, choice: Choice, device: str) -> int:
    """Return the images per forward pass; that of the training where its values are to be met."""
    size = BATCH if choice.is_exact else FAST_BATCH
    large = torch.device(device).type == "cpu" and model.checkpoint.weight_bytes > _LARGE
    return size // 2 if large else size


def built(model: FoldModel, device: str, choice: Choice) -> tuple[torch.nn.Module, bool]:
    """Return the model of a checkpoint in the chosen form on a device, and whether its layout is channels_last."""
    network, channels_last = model.checkpoint.build_on(device, model.path)
    return _in_form(network, model, choice), channels_last


def built_body(model: FoldModel, device: str, choice: Choice) -> tuple[torch.nn.Module, bool]:
    """Return, as `built`, what gives the features of an image, of a model that predicts it from those of its person."""
    network, channels_last = body_on(model.checkpoint, device, model.path)
    return _in_form(network, model, choice), channels_last


def _in_form(network: torch.nn.Module, model: FoldModel, choice: Choice) -> torch.nn.Module:
    return fused(network, _DTYPES[choice.way], _blank(model))[0] if choice.way in _DTYPES else network


def _blank(model: FoldModel) -> torch.Tensor:
    settings = model.checkpoint.image_settings
    return torch.zeros(1, settings.depth, settings.height, settings.width)


def choose(
    model: FoldModel,
    pixels: PixelSource,
    rows: NDArray[np.int64],
    precision: str,
    passes: int,
    tolerance: float = EQUAL,
    root: Path = Path(),
) -> Choice:
    """Return how the models of an architecture are computed on this CPU, measured with one of them.

    Parameters
    ----------
    model : one model of the architecture.
    pixels, rows : images of the table, to measure and compare with.
    precision : one of `PRECISIONS`. ``auto`` takes the fastest form in float32 whose probabilities differ from the
        plain one by no more than `tolerance` on the sample. ``bf16`` and ``fastest`` also admit bfloat16, if the
        predicted class is the same for `AGREEMENT` of the images, and the out-of-fold score too where the images of
        the training can be reached.
    passes : forward passes that the models of this architecture will make.
    root : the folder that holds ``runs/``, to find the images of the training.
    """
    # The features of an image are numbers too.
    of_people = needs_people(model.checkpoint)
    task = REGRESSION if of_people else model.checkpoint.task
    if precision == "fp32":
        return Choice(EXACT_WAY, "as requested")
    if passes < _WORTH_MEASURING and precision == "auto":
        return Choice(EXACT_WAY, f"{passes:,} forward passes are too few to measure other formats")
    plain = Choice(EXACT_WAY, "")
    network, channels_last = (built_body if of_people else built)(model, "cpu", plain)
    networks = {EXACT_WAY: network}
    failed = {}
    for way in _WAYS[precision]:
        try:
            networks[way] = fused(network, _DTYPES[way], _blank(model))[0]
        except RuntimeError as error:
            failed[way] = str(error)[:200]
    mean, std = model.checkpoint.architecture.mean, model.checkpoint.architecture.std

    def predict_of(way: str, images: PixelSource, some: NDArray[np.int64]) -> NDArray[np.floating]:
        logits = predict_logits(
            networks[way], images, some, mean, std, device="cpu", channels_last=channels_last, batch=FAST_BATCH
        )
        return predictions_of(task, logits[0])

    def predict(way: str, some: NDArray[np.int64]) -> NDArray[np.floating]:
        return predict_of(way, pixels, some)

    def on_validation(reference: str) -> tuple[float | None, str]:
        return score_change(model, root, partial(predict_of, reference), partial(predict_of, BF16))

    rates = _rates({way: _timed(predict, way, rows[:_SAMPLE]) for way in networks}, min(_SAMPLE, len(rows)))
    return _decide(predict, rows, rates, failed, precision, tolerance, on_validation, task)


def _timed(predict: Callable[[str, NDArray[np.int64]], Any], way: str, rows: NDArray[np.int64]) -> Callable[[], float]:
    def seconds() -> float:
        began = time.perf_counter()
        predict(way, rows)
        return time.perf_counter() - began

    return seconds


def _rates(timed: Mapping[str, Callable[[], float]], images: int) -> dict[str, float]:
    """Return images per second of each way."""
    return {way: images / max(seconds, 1e-9) for way, seconds in fastest_seconds(timed).items()}


def _decide(
    predict: Callable[[str, NDArray[np.int64]], NDArray[np.floating]],
    rows: NDArray[np.int64],
    rates: Mapping[str, float],
    failed: Mapping[str, str],
    precision: str,
    tolerance: float,
    on_validation: Callable[[str], tuple[float | None, str]] = lambda reference: (None, ""),
    task: str = CLASSES,
) -> Choice:
    """Return the fastest way that passes its check; ``bf16`` is tried first if it was asked for."""
    order = sorted(rates, key=lambda way: (precision == "bf16" and way != BF16, -rates[way]))
    reasons = [f"{way} is not available: {reason}" for way, reason in failed.items()]
    sample = rows[:_SAMPLE]
    equal = FUSED in rates and largest_difference(task, predict(FUSED, sample), predict(EXACT_WAY, sample)) <= tolerance
    for way in order:
        if way == EXACT_WAY:
            return Choice(way, "; ".join(reasons) or "the fastest here", rates)
        compared = rows[:_CHECKED] if way == BF16 else sample
        base = FUSED if way == BF16 and equal else EXACT_WAY
        reference, values = predict(base, compared), predict(way, compared)
        difference = largest_difference(task, values, reference)
        agreement = same_answers(task, values, reference, tolerance)
        good = agreement >= AGREEMENT if way == BF16 else difference <= tolerance
        if good and np.isfinite(values).all():
            change, finding = on_validation(base) if way == BF16 else (None, "")
            if change is not None and change > SCORE_CHANGE:
                reasons.append(f"{way} was rejected: {finding}, allowed {SCORE_CHANGE:.3f}")
                continue
            reason = "as requested" if (precision, way) == ("bf16", BF16) else "the fastest here"
            notes = [reason, *([finding] if finding else []), *reasons]
            return Choice(way, "; ".join(notes), rates, difference, agreement)
        same = f"gives the same class for {agreement:.1%} of {len(compared)} images, expected {AGREEMENT:.1%}"
        off = f"differs by {difference:.0e} in a probability, allowed {tolerance:.0e}"
        reasons.append(f"{way} was rejected: it {same if way == BF16 else off}")
    raise AssertionError("the plain way is always available")
