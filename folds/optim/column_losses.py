"""Compute the losses of several labels (``multilabel``) and of numbers (``regression``): one loss for each cell.

A target is a matrix with a column for each label or number, nan where a value is not known. A cell that is not known
takes no part: neither in the loss nor in the gradient, whatever the model says there. Labels may be shares from 0 to 1
(mixup, cutmix); a mixed cell is known if both are. Numbers are in standard deviations from the mean of the training
part (`folds.models.number_head`).

The loss of a batch is the sum over its known cells, divided by the number of cells that are known in such a batch on
average over an epoch. With all cells known it is their mean. So every known cell of an epoch has the same weight: a
batch with few known cells has a small loss instead of a few cells with a large gradient, one without any has the loss
0, and the losses of parts of a batch add up.

The target of an image with a sample weight w is the row times w, with w as a further column, so that mixing weighs
both images: the values are the quotients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import huber_loss, softplus

from folds.errors import EnsembleError
from folds.optim.loss_spec import Term, parse_loss
from folds.optim.losses import Loss, LossForm, class_weights

MULTILABEL = "multilabel"
# Bounds of the logarithm of a variance, in squared standard deviations of the number.
_LOG_VARIANCE = math.log(1e6)


@dataclass(frozen=True)
class CellCounts:
    """What is known of the images of an epoch.

    Attributes
    ----------
    images : number of images.
    known, positive : (columns,) images whose value is known, and those of them that have the label, or a share of it
        above one half.
    soft_share : share of the cells that have a soft label; None without soft labels.
    """

    images: int
    known: Tensor
    positive: Tensor
    soft_share: float | None = None

    @staticmethod
    def of(targets: Tensor, soft: Tensor | None = None) -> CellCounts:
        """Count the cells of targets (n, columns), and of soft labels (n, columns)."""
        share = None if soft is None else float((~soft.isnan()).float().mean())
        return CellCounts(len(targets), (~targets.isnan()).sum(0), (targets > 0.5).sum(0), share)

    @property
    def known_share(self) -> float:
        """Return the share of the cells that are known."""
        return float(self.known.sum()) / (self.images * len(self.known))


def build_column_loss(
    task: str,
    expression: str,
    label_smoothing: float | None,
    counts: CellCounts,
    epoch_fraction: float = 0.0,
    form: LossForm | None = None,
    *,
    soft: bool = False,
) -> Loss:
    """Return the loss of an expression as a function of outputs, targets and the targets of the whole batch.

    The outputs are (n, columns) logits or numbers, with ``gaussian`` (n, 2·columns): the numbers, then the logarithms
    of their variances. The targets are (n, columns), or with sample weights (n, columns + 1). The third argument
    changes nothing, because the loss of a batch does not depend on how many of its cells are known.

    Parameters
    ----------
    expression : see `parse_loss`; all terms are losses of the task.
    counts : of an epoch.
    epoch_fraction : share of the epochs that are finished; weights with ``drw`` apply from that share on.
    soft : whether the targets are the soft labels of `counts`, which are not smoothed.

    Raises
    ------
    UsageError : the expression is invalid, or not a loss of this task.
    EnsembleError : no cell is known.
    """
    spec = parse_loss(expression, label_smoothing)
    spec.check_task(task)
    share = counts.soft_share if soft else counts.known_share
    columns, weighted = len(counts.known), form is not None and form.weighted
    if not share:
        what = "soft label" if soft else "label or number"
        raise EnsembleError(f"the training part has no known {what}", hint="more labeled images")
    make = _of_labels if task == MULTILABEL else _of_numbers
    terms = [replace(term, smoothing=0.0) for term in spec.terms] if soft else spec.terms
    parts = [(term.factor, make(term, counts, epoch_fraction)) for term in terms]

    def loss(outputs: Tensor, targets: Tensor, whole: Tensor | None = None) -> Tensor:
        values, weight = targets.float(), None
        if weighted:
            weight = values[:, columns:]
            values = values[:, :columns] / weight.clamp_min(1e-12)
        known = ~values.isnan()
        values = values.masked_fill(~known, 0)
        # Masked before the loss, not after it: the gradient of an infinite loss times 0 would be nan.
        blocks = outputs.float().unflatten(1, (-1, columns))
        blocks = torch.where(known[:, None], blocks, 0.0)
        cells = torch.stack([factor * of_cells(blocks, values) for factor, of_cells in parts]).sum(0)
        cells = cells.masked_fill(~known, 0)
        if weight is not None:
            cells = cells * weight
        return cells.sum() / (len(values) * columns * share)

    return loss


# float32 outputs (n, 1 or 2, columns), values (n, columns) without nan → (n, columns) the loss of each cell
_OfCells = Callable[[Tensor, Tensor], Tensor]


def _of_labels(term: Term, counts: CellCounts, epoch_fraction: float) -> _OfCells:
    """Return the loss of labels: y·w₁·ℓ₁(z) + (1 − y)·w₀·ℓ₀(z), with a share of both spread over both by smoothing."""
    absent, present = torch.ones(2, 1, device=counts.known.device).unbind(0)
    if term.weights != "none" and epoch_fraction >= term.drw:
        absent, present = label_weights(counts, term.beta if term.weights == "effective" else None).unbind(0)

    def cells(blocks: Tensor, values: Tensor) -> Tensor:
        if_present, if_absent = LABEL_LOSSES[term.name](blocks[:, 0], term)
        own, other = values * present, (1 - values) * absent
        if term.smoothing:
            mean = (own + other) / 2
            own, other = torch.lerp(own, mean, term.smoothing), torch.lerp(other, mean, term.smoothing)
        return own * if_present + other * if_absent

    return cells


def label_weights(counts: CellCounts, beta: float | None) -> Tensor:
    """Return float32 (2, columns) the weights of a cell without and with each label; 0 where there is no such image.

    Of each label they are `class_weights` of its two classes: their mean over the known cells is 1, and with 1/images
    a positive cell counts as much more as negative ones are more frequent (``pos_weight`` of torch).
    """
    both = torch.stack([counts.known - counts.positive, counts.positive])
    known = [column for column, n in enumerate(counts.known.tolist()) if n]
    weights = torch.ones(both.shape, device=both.device)
    for column in known:
        weights[:, column] = class_weights(both[:, column], beta)
    return weights


def binary_cross_entropy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return (n, columns) −log p and −log(1 − p) of each label."""
    return softplus(-logits), softplus(logits)


def sigmoid_focal(logits: Tensor, gamma_present: float, gamma_absent: float) -> tuple[Tensor, Tensor]:
    """Return (n, columns) the focal loss of each label if it is there, −(1 − p)^γ·log p, and if not, −p^γ·log(1 − p).

    Source: Lin et al., 2017, equation 4, for binary decisions.
    """
    # From the logarithms: for γ < 1, the power has no derivative at 0.
    present, absent = binary_cross_entropy(logits)
    return (-gamma_present * absent).exp() * present, (-gamma_absent * present).exp() * absent


def asymmetric(logits: Tensor, gamma_pos: float, gamma_neg: float, clip: float) -> tuple[Tensor, Tensor]:
    """Return (n, columns) the asymmetric loss of each label if it is there, and if it is not.

    If it is there −(1 − p)^γ₊·log p; if not −q^γ₋·log(1 − q) with q = max(p − clip, 0), so that easy absent labels have
    no loss at all (Ridnik et al., 2021, equations 4 to 6).
    """
    present, absent = sigmoid_focal(logits, gamma_pos, gamma_neg)
    if not clip:
        return present, absent
    # Where q is 0 the loss is too; a probability there would be the base of a power without a derivative.
    p = torch.sigmoid(logits)
    counts = p > clip
    q = torch.where(counts, p - clip, 0.5)
    return present, torch.where(counts, -(gamma_neg * q.log()).exp() * torch.log1p(-q), 0.0)


# Name → (logits (n, columns), term) → the loss of each cell if the label is there, and if it is not.
LABEL_LOSSES: dict[str, Callable[[Tensor, Term], tuple[Tensor, Tensor]]] = {
    "bce": lambda logits, term: binary_cross_entropy(logits),
    "focal": lambda logits, term: sigmoid_focal(logits, term.gamma, term.gamma),
    "asymmetric": lambda logits, term: asymmetric(logits, term.gamma_pos, term.gamma_neg, term.clip),
}


def _of_numbers(term: Term, counts: CellCounts, epoch_fraction: float) -> _OfCells:
    return lambda blocks, values: NUMBER_LOSSES[term.name](blocks, values, term)


def gaussian_nll(means: Tensor, log_variances: Tensor, values: Tensor) -> Tensor:
    """Return ½·(log σ² + (y − μ)²/σ²), the negative log-likelihood of a normal distribution without its constant.

    Source: Nix and Weigend, 1994. The variance stays between 1e-6 and 1e6.
    """
    log_variances = log_variances.clamp(-_LOG_VARIANCE, _LOG_VARIANCE)
    return 0.5 * (log_variances + (values - means) ** 2 * (-log_variances).exp())


# Name → (outputs (n, 1 or 2, columns), values (n, columns), term) → the loss of each cell.
NUMBER_LOSSES: dict[str, Callable[[Tensor, Tensor, Term], Tensor]] = {
    "huber": lambda blocks, values, term: huber_loss(blocks[:, 0], values, reduction="none", delta=term.delta),
    "l1": lambda blocks, values, term: (blocks[:, 0] - values).abs(),
    "mse": lambda blocks, values, term: (blocks[:, 0] - values) ** 2,
    "gaussian": lambda blocks, values, term: gaussian_nll(blocks[:, 0], blocks[:, 1], values),
}
