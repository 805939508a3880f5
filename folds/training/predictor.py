"""Predict with the model of a training, in the format that the run has for it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from folds.data.targets import Target
from folds.metrics.task_names import REGRESSION
from folds.models.factory import Architecture
from folds.models.fusion import fused
from folds.models.inference import PixelSource, predict_logits
from folds.models.memory import is_out_of_memory
from folds.models.multi_head import MultiHeadModel
from folds.models.number_head import units_of_model
from folds.predictions.links import predictions_of
from folds.training.measured_formats import FUSED, OFF

# Largest difference of a probability that counts as the same in float32; of a number in standard deviations.
_EQUAL = 1e-5
_COMPARED = 4  # images, with the trained weights; the measurement had random ones


class Predictor:
    """A model of a training and the device that it predicts on.

    Parameters
    ----------
    model : images (n, 3, height, width) → (n, outputs); set to evaluation mode.
    halve : whether smaller batches are used if memory runs out; see `predict_logits`.
    """

    def __init__(
        self, model: torch.nn.Module, target: Target, architecture: Architecture, device: str, halve: bool = True
    ) -> None:
        self.model, self.target, self.architecture, self.device = model.eval(), target, architecture, device
        self.halve = halve

    def logits(
        self, pixels: PixelSource, rows: NDArray[np.int64], way: str, channels_last: bool
    ) -> NDArray[np.float32]:
        """Return (n, classes) the logits of `rows`, in this order.

        Parameters
        ----------
        way : ``off``, ``bf16``, ``fp16`` (autocast), or ``fused``: batch norms folded in fp32, unless a probability of
            the first images differs by more than 1e-5 from that of the plain model.
        channels_last : memory format of the model.
        """
        if way != FUSED:
            return self._predict(self.model, pixels, rows, way, channels_last)
        height, width, channels = self.architecture.height, self.architecture.width, self.architecture.channels
        try:
            faster = fused(self.model, torch.float32, torch.zeros(1, channels, height, width))[0]
        except RuntimeError as error:
            if not self.halve and is_out_of_memory(error):
                raise  # the other form has other last bits as well
            return self._predict(self.model, pixels, rows, OFF, channels_last)
        few = rows[:_COMPARED]
        one, two = (
            predictions_of(self.target.task, self._predict(model, pixels, few, OFF, channels_last))
            for model in (self.model, faster)
        )
        unit = units_of_model(self.model).scale if self.target.task == REGRESSION else 1.0
        equal = bool((np.abs(one - two) / unit).max() <= _EQUAL)
        return self._predict(faster if equal else self.model, pixels, rows, OFF, channels_last)

    def _predict(
        self, model: torch.nn.Module, pixels: PixelSource, rows: NDArray[np.int64], amp: str, channels_last: bool
    ) -> NDArray[np.float32]:
        mean, std = self.architecture.mean, self.architecture.std
        size = self.architecture.height, self.architecture.width
        joined = MultiHeadModel(model, self.target).to(self.device) if self.target.joined else model
        return predict_logits(
            joined,
            pixels,
            rows,
            mean,
            std,
            device=self.device,
            amp=amp,
            channels_last=channels_last,
            size=size,
            halve=self.halve,
        )[0]
