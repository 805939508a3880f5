"""Replace the linear classifier of a model by one whose logits are scaled cosines."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize

from folds.models.classifier import replace_classifier


class CosineHead(torch.nn.Module):
    """A classifier without bias: features (…, n) → scale · cos(features, weight of the class), float32 (…, classes).

    Neither the length of the features nor that of a class's weights counts, so frequent classes have no larger logits
    and the margins of `ldam` have an effect (Cao et al., 2019; the usual initialization is theirs too).

    Parameters
    ----------
    scale : the largest logit.
    """

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__()
        self.in_features, self.out_features, self.scale = in_features, out_features, scale
        self.weight = torch.nn.Parameter(normalize(torch.empty(out_features, in_features).uniform_(-1, 1), dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of features (…, in_features)."""
        # In half precision a cosine has 8 to 11 bits, which the scale would multiply to errors of up to 0.1.
        if torch.is_autocast_enabled(features.device.type):
            with torch.autocast(features.device.type, enabled=False):
                return self._logits(features)
        return self._logits(features)  # without a context, which the graphs of exporters do not have

    def _logits(self, features: Tensor) -> Tensor:
        return self.scale * linear(normalize(features.float(), dim=-1), normalize(self.weight.float(), dim=-1))

    def extra_repr(self) -> str:
        """Return the sizes and the scale, for the text of the model."""
        return f"in_features={self.in_features}, out_features={self.out_features}, scale={self.scale:g}"


def with_cosine_head(model: torch.nn.Module, scale: float, timm_name: str) -> torch.nn.Module:
    """Replace the linear classifier of a timm model by a `CosineHead`; return the model.

    Raises
    ------
    UsageError : the classifier of this model is not one linear layer.
    """
    return replace_classifier(
        model,
        lambda features, classes: CosineHead(features, classes, scale),
        "head=cosine",
        timm_name,
        hint="`head=linear`, or another model",
    )
