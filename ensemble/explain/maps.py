"""Make heat maps of batches of images, for several models of one architecture at once, with the library grad-cam."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ensemble.explain.target_layer import TargetLayer, find_target_layer, inner_model
from folds.errors import EnsembleError
from folds.metrics.task_names import CLASSES, COLUMN_TASKS
from folds.predictions.links import predictions_of

# (models, classes) probabilities of one image → index of the class to explain.
Choose = Callable[[NDArray[np.float32]], int]


def require_library() -> None:
    """Raise EnsembleError if the library of the heat maps is not installed."""
    if importlib.util.find_spec("pytorch_grad_cam") is None:
        raise EnsembleError(
            "heat maps need grad-cam, which is not installed", hint="pip install 'ensemble-folds[explain]'"
        )


@dataclass(frozen=True)
class BatchMaps:
    """Heat maps of a batch.

    Attributes
    ----------
    maps : float32 (models, n, height, width) in 0–1, the largest value of each map 1; all 0 if no place speaks for the
        class.
    probabilities : float32 (models, n, classes); of a regression the numbers.
    explained : (n,) index of the class that the maps are for.
    """

    maps: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    explained: NDArray[np.int64]


class HeatMapper:
    """Models of one architecture that predict together, and whose maps are made together.

    The graph of the backward pass begins behind the features of the maps, so it costs a small part of a forward pass.

    Parameters
    ----------
    models : (n, 3, height, width) → (n, outputs), on one device, in evaluation mode; their weights are frozen.
    example : float32 (1, 3, height, width), a normalized image on that device.
    name : of the architecture, for errors.
    channels_last : memory format of the models.
    block : first and last + 1 output of the head to explain; None for all outputs. Outputs of one head are those of the
        model without the wrapper that joins its heads.
    task : what the outputs are; the score that is explained is an output itself: a logit, or a number.

    Raises
    ------
    EnsembleError : the library is not installed, or the model has no features on a grid.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        example: Tensor,
        name: str,
        *,
        channels_last: bool = False,
        block: tuple[int, int] | None = None,
        task: str = CLASSES,
    ) -> None:
        require_library()
        self._task = task
        models = [(model if block is None else inner_model(model)).eval().requires_grad_(False) for model in models]
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self._network = _Stack(models, layout, block)
        self.place: TargetLayer = find_target_layer(models[0], example.contiguous(memory_format=layout), name)
        self._layers = [inner_model(model).get_submodule(self.place.name) for model in models]

    def maps(self, inputs: Tensor, choose: Sequence[Choose]) -> BatchMaps:
        """Return the maps of normalized images (n, 3, height, width); `choose` names the class of each."""
        explained: list[int] = []

        def target(pick: Choose) -> Callable[[Tensor], Tensor]:
            def score(outputs: Tensor) -> Tensor:  # (models, outputs) of one image
                explained.append(pick(self._predictions(outputs)))
                return outputs[:, explained[-1]].sum()

            return score

        hooks = [layer.register_forward_hook(_begin_graph) for layer in self._layers]
        method = _method()(self._network, self._layers, self.place.features)
        try:
            maps = method(inputs, [target(pick) for pick in choose])
            probabilities = self._predictions(method.outputs)
        finally:
            method.activations_and_grads.release()
            for hook in hooks:
                hook.remove()
        return BatchMaps(
            _moved(np.ascontiguousarray(maps.transpose(1, 0, 2, 3)), self.place.shift),
            np.ascontiguousarray(probabilities.transpose(1, 0, 2)),
            np.array(explained, np.int64),
        )

    def _predictions(self, outputs: Tensor) -> NDArray[np.float32]:
        if self._task in COLUMN_TASKS:
            return predictions_of(self._task, outputs.detach().float().cpu().numpy()).astype(np.float32)
        return _softmax(outputs)


class _Stack(nn.Module):
    """Models side by side: (n, 3, height, width) → (n, models, outputs)."""

    def __init__(self, models: Sequence[nn.Module], layout: torch.memory_format, block: tuple[int, int] | None) -> None:
        super().__init__()
        self.models, self.layout, self.block = nn.ModuleList(models), layout, block

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=self.layout)
        outputs = torch.stack([model(images).float() for model in self.models], 1)
        return outputs if self.block is None else outputs[..., slice(*self.block)]


def _moved(maps: NDArray[np.float32], shift: tuple[int, int]) -> NDArray[np.float32]:
    """Return maps (…, height, width) moved up and left by a number of pixels; the edge is repeated."""
    rows, columns = (np.arange(size) + by for size, by in zip(maps.shape[-2:], shift, strict=True))
    rows, columns = rows.clip(0, maps.shape[-2] - 1), columns.clip(0, maps.shape[-1] - 1)
    return maps[..., rows[:, None], columns]


def _begin_graph(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    # A copy, because a leaf of the graph must not be changed in place by the next layer.
    return output.detach().requires_grad_().clone()


def _softmax(outputs: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = outputs.detach().float().softmax(-1).cpu().numpy()
    return values


@cache
def _method() -> Any:
    """Return Grad-CAM of the library, which keeps the maps of the models apart."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.image import scale_cam_image

    class Apart(GradCAM):  # type: ignore[misc]
        """Return (n, models, height, width) instead of the mean over the layers."""

        def aggregate_multi_layers(self, maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
            return np.stack([scale_cam_image(np.maximum(one[:, 0], 0)) for one in maps], 1)

    return Apart
