"""Replace the linear classifier of a model by one for ordered classes, which turns k − 1 outputs into k probabilities.

The head returns the logarithms of the class probabilities, which are logits like any other. So this is the only place
that knows how outputs become probabilities: training, validation, predictions, views, soups, exported models and their
ONNX graphs contain it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

from folds.models.classifier import replace_classifier

CORN, CUMULATIVE = "corn", "cumulative"


def corn_log_probabilities(outputs: Tensor) -> Tensor:
    """Return (n, classes) log-probabilities of grades from outputs (n, classes − 1) of conditional tasks.

    σ(z_j) is the probability of a grade above j, given that it is j or more (Shi, Cao and Raschka, 2021, equation 4):
    P(grade = c) = Π_{j<c} σ(z_j) · (1 − σ(z_c)), without the last factor for the highest grade.
    """
    zero = outputs.new_zeros(outputs.shape[0], 1)
    reached = torch.cat([zero, torch.cumsum(-softplus(-outputs), dim=1)], dim=1)
    stopped = torch.cat([-softplus(outputs), zero], dim=1)
    return reached + stopped


def cumulative_log_probabilities(outputs: Tensor) -> Tensor:
    """Return (n, classes) log-probabilities of grades from outputs (n, classes − 1) of a cumulative link.

    P(grade > j) = σ(u_j) with u_0 = z_0 and u_j = u_{j−1} − softplus(z_j): the thresholds are in order for any outputs
    (McCullagh, 1980, with gaps that may depend on the image). With e^{−softplus(z)} = 1 − σ(z), the difference of
    neighboring probabilities is a product: P(grade = c) = σ(u_{c−1}) · (1 − σ(u_c)) · σ(z_c) for the inner grades.
    """
    zero = outputs.new_zeros(outputs.shape[0], 1)
    first, gaps = outputs[:, :1], outputs[:, 1:]
    above = torch.cat([first, first - torch.cumsum(softplus(gaps), dim=1)], dim=1)
    reached = torch.cat([zero, -softplus(-above)], dim=1)
    stopped = torch.cat([-softplus(above), zero], dim=1)
    between = torch.cat([zero, -softplus(-gaps), zero], dim=1)
    return reached + stopped + between


LINKS = {CORN: corn_log_probabilities, CUMULATIVE: cumulative_log_probabilities}


class OrdinalHead(torch.nn.Module):
    """A linear layer with one output fewer than classes: features (…, n) → float32 (…, classes) log-probabilities.

    Parameters
    ----------
    link : ``corn`` or ``cumulative``.
    """

    def __init__(self, in_features: int, classes: int, link: str) -> None:
        super().__init__()
        self.in_features, self.out_features, self.link = in_features, classes, link
        layer = torch.nn.Linear(in_features, classes - 1)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, features: Tensor) -> Tensor:
        """Return the log-probabilities of features (…, in_features)."""
        outputs = linear(features, self.weight, self.bias).float()
        flat: Tensor = LINKS[self.link](outputs.reshape(-1, self.out_features - 1))
        return flat.reshape(*outputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Return the sizes and the link, for the text of the model."""
        return f"in_features={self.in_features}, out_features={self.out_features}, link={self.link}"


def with_ordinal_head(model: torch.nn.Module, link: str, timm_name: str) -> torch.nn.Module:
    """Replace the linear classifier of a timm model by an `OrdinalHead`; return the model.

    Raises
    ------
    UsageError : the classifier of this model is not one linear layer.
    """
    return replace_classifier(
        model,
        lambda features, classes: OrdinalHead(features, classes, link),
        f"loss={link}",
        timm_name,
        hint="`loss=ce:ordinal=1.5` needs no head of its own, or another model",
    )
