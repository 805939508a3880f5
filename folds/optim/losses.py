"""Compute the losses of a training.

A target is a distribution over classes: one class, a mixture of classes (mixup, cutmix), or either with a share spread
over all classes (label smoothing). Every loss but `f1` is defined by the loss of each class, ℓ_c(logits); the loss of a
target is the expectation Σ_c t_c·ℓ_c. So every loss accepts mixed images, and smoothing is implemented once.

Losses are computed in float32 on the device of the logits, whatever their dtype, without synchronizing with the device.
The loss of a batch is the mean over its images; with class weights it is divided by their mean in the batch, as torch
does. So the losses of parts of a batch add up, if each part is given the targets of the whole batch. The exception is
`f1`, which is defined on a whole batch.

The target of an image with a weight of its own (a sample weight) is its distribution times this weight: all losses are
linear in the target. Sample weights have mean 1 over the training images, and are not divided by their mean in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, softplus

from folds.errors import UsageError
from folds.optim.loss_spec import Term, parse_loss


class Loss(Protocol):
    """A loss: logits (n, classes), targets, targets of the whole batch if these are a part of it → float32 scalar."""

    def __call__(self, logits: Tensor, targets: Tensor, whole: Tensor | None = None, /) -> Tensor: ...


# float32 logits (n, classes) → (n, classes) the loss of each class as the true class
PerClass = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LossForm:
    """How the losses of a run are computed, whatever their expression.

    Attributes
    ----------
    normalized : whether a loss with class weights is divided by the mean weight of the batch. Runs that an earlier
        version started divide by the number of images: a batch with an image of a rare class counts more there.
    weighted : whether the targets are distributions times sample weights.
    scale : scale of the cosines of a cosine head, in which the margins of `ldam` are; 1 for a linear head.
    """

    normalized: bool = True
    weighted: bool = False
    scale: float = 1.0


def build_loss(
    expression: str,
    label_smoothing: float | None,
    counts: Tensor | None = None,
    epoch_fraction: float = 0.0,
    smooth: bool = True,
    form: LossForm | None = None,
) -> Loss:
    """Return the loss of an expression as a function of logits, targets and the targets of the whole batch.

    The function maps logits (n, classes) and targets ((n,) class indices or (n, classes) distributions) to a float32
    scalar. If they are a part of a batch, the third argument has the targets of the whole batch, else it is None. The
    function is built again for each epoch, so a loss has no state, and a resumed training restores none.

    Parameters
    ----------
    expression : see `parse_loss`.
    counts : (classes,) training images of each class, on the device of the logits; 0 is allowed. `ldam` and every term
        with weights need it.
    epoch_fraction : share of the epochs that are finished; weights with ``drw`` apply from that share on.
    smooth : False for no label smoothing in any term, also where the expression has one: targets are soft already.
    form : None for the usual form.

    Raises
    ------
    UsageError : `expression` is invalid, or it needs `counts` and there are none.
    """
    terms = parse_loss(expression, label_smoothing).terms
    terms = terms if smooth else tuple(replace(term, smoothing=0.0, ordinal=0.0) for term in terms)
    parts = [(term.factor, _build(term, counts, epoch_fraction, form or LossForm())) for term in terms]
    return parts[0][1] if len(parts) == 1 and parts[0][0] == 1 else partial(_weighted_sum, parts=parts)


def _build(term: Term, counts: Tensor | None, epoch_fraction: float, form: LossForm) -> Loss:
    if term.name == "f1":
        return _weighted_f1 if form.weighted else _f1
    weights = None
    if counts is None:
        if term.needs_counts:
            raise UsageError(
                f"`loss={term.name}` needs the number of images of each class (`counts`)",
                hint="`loss=ce` and `loss=focal` do not need it",
            )
    elif term.weights != "none" and epoch_fraction >= term.drw:
        weights = class_weights(counts, term.beta if term.weights == "effective" else None)
    if weights is None and term.name in ("ce", "wce") and not form.weighted and not term.ordinal:
        return partial(_cross_entropy, smoothing=term.smoothing)
    per_class = PER_CLASS[term.name](replace(term, margin=term.margin * form.scale), counts)
    return partial(
        soft_target_loss,
        per_class=per_class,
        weights=weights,
        smoothing=term.smoothing,
        normalized=form.normalized,
        ordinal=term.ordinal,
        tasks=term.name == "corn",
    )


def _weighted_sum(
    logits: Tensor, targets: Tensor, whole: Tensor | None = None, *, parts: Sequence[tuple[float, Loss]]
) -> Tensor:
    return torch.stack([factor * loss(logits, targets, whole) for factor, loss in parts]).sum()


def _cross_entropy(logits: Tensor, targets: Tensor, whole: Tensor | None = None, *, smoothing: float) -> Tensor:
    # The same as `soft_target_loss` with `negative_log_probability`, in one kernel.
    return cross_entropy(
        logits.float(), targets.float() if targets.is_floating_point() else targets, label_smoothing=smoothing
    )


def soft_target_loss(
    logits: Tensor,
    targets: Tensor,
    whole: Tensor | None = None,
    *,
    per_class: PerClass,
    weights: Tensor | None,
    smoothing: float,
    normalized: bool = True,
    ordinal: float = 0.0,
    tasks: bool = False,
) -> Tensor:
    """Return the mean of Σ_c t_c·w_c·ℓ_c over the batch, with the share `smoothing` of t·w spread over all classes.

    With `normalized` it is divided by the mean weight of the batch. Label smoothing follows Szegedy et al., 2016
    (section 7). The share that is spread has the weight of the image's own class: with weights applied after smoothing,
    the rarest classes would get most of that share.

    Parameters
    ----------
    targets : (n,) class indices, or (n, classes) distributions, which may be multiplied by sample weights.
    whole : targets of the whole batch, if `targets` are those of a part; its weights count then.
    weights : (classes,) weight of an image of each class; None for equal weights.
    ordinal : above 0, the share of a class is spread over all classes by their distance (`soft_grades`).
    tasks : divide by the mean number of binary tasks of an image instead of by one, as `corn` does.
    """
    logits = logits.float()
    shares = _distribution(targets, logits)
    if weights is not None:
        weights = weights.to(logits.device)
        shares = shares * weights
    if smoothing:
        shares = torch.lerp(shares, shares.mean(1, keepdim=True), smoothing)
    if ordinal:
        shares = shares @ soft_grades(shares.shape[1], ordinal, shares.device)
    loss = (shares * per_class(logits)).sum(1).mean()
    if tasks:
        counts = tasks_of_grades(logits.shape[1], logits.device)
        weights = counts if weights is None else counts * weights
    elif weights is None or not normalized:
        return loss
    return loss / _mean_weight(targets if whole is None else whole, weights).clamp_min(1e-12)


def soft_grades(classes: int, decay: float, device: torch.device) -> Tensor:
    """Return float32 (classes, classes) the target of each grade (row): shares ∝ exp(−decay·|grades apart|).

    Source: Diaz and Marathe, 2019, "Soft labels for ordinal regression".
    """
    grades = torch.arange(classes, device=device, dtype=torch.float32)
    return torch.softmax(-decay * (grades[:, None] - grades).abs(), dim=1)


def tasks_of_grades(classes: int, device: torch.device) -> Tensor:
    """Return float32 (classes,) the number of binary tasks of CORN whose training sets have an image of each grade.

    Task j asks whether the grade is above j, of the images with a grade of j or more (Shi, Cao and Raschka, 2021).
    """
    return torch.arange(1, classes + 1, device=device, dtype=torch.float32).clamp_max(classes - 1)


def _mean_weight(targets: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over the images of their class weights, whatever their sample weights."""
    if not targets.is_floating_point():
        return weights[targets].mean()
    # A distribution times a sample weight has this weight as its sum.
    return ((targets.float() @ weights) / targets.float().sum(1).clamp_min(1e-12)).mean()


def negative_log_probability(logits: Tensor) -> Tensor:
    """Return (n, classes) the cross-entropy of each class: −log p_c."""
    return -log_softmax(logits, 1)


def one_vs_rest(logits: Tensor) -> Tensor:
    """Return (n, classes) the binary cross-entropy, summed over the classes, with each class as the true class.

    For class c: −log σ(z_c) − Σ_{j≠c} log(1 − σ(z_j)) = Σ_j softplus(z_j) − z_c (Wightman et al., 2021, "ResNet strikes
    back", section 2.2).
    """
    return softplus(logits).sum(1, keepdim=True) - logits


def focal(logits: Tensor, gamma: float) -> Tensor:
    """Return (n, classes) the focal loss −(1 − p_c)^γ · log p_c, in which well-classified images have little weight.

    Source: Lin et al., 2017, equation 4; its α is ``weights`` here.
    """
    log_p = log_softmax(logits, 1)
    # Computed from the logarithm: for γ < 1, the power has no derivative at p = 1.
    return -(gamma * log1m_prob(log_p)).exp() * log_p


def ldam(logits: Tensor, margins: Tensor, s: float) -> Tensor:
    """Return (n, classes) the cross-entropy after a margin is subtracted from the logit of the true class.

    The margin is larger for rarer classes. For class c: −log e^{s(z_c − m_c)} / (e^{s(z_c − m_c)} + Σ_{j≠c} e^{s·z_j})
    (Cao et al., 2019, equation 13). Class weights are deferred by ``drw`` (algorithm 1 of the paper). The paper applies
    them in the last fifth of the epochs, when the learning rate drops. With a cosine schedule the learning rate is
    close to 0 by then, so the default here is the last two fifths.

    In the paper z is a cosine from −1 to 1, the margins are at most 0.5 and s = 30, so a margin is at most half of the
    largest logit. The logits of a linear head are not bounded, and the predicted probabilities are computed from them.
    So s is 1 here: any other s defines the loss on other probabilities than the predicted ones, which become too flat.
    A linear head can also satisfy any margin with larger weights. So margins have little effect there, large margins
    reduce the score, and the deferred weights have the largest effect. The loss of the paper is that of a cosine head:
    its logits are 30·cosine, and margins are in units of cosines (`LossForm.scale`).
    """
    log_p = log_softmax(s * logits, 1)
    return softplus(log1m_prob(log_p) - log_p + s * margins.to(logits.device))


def adjusted_cross_entropy(logits: Tensor, adjustment: Tensor) -> Tensor:
    """Return (n, classes) the cross-entropy of each class after `adjustment` (classes,) is added to the logits.

    With τ·log π it is the logit-adjusted loss, −log e^{z_c + τ·log π_c} / Σ_j e^{z_j + τ·log π_j} (Menon et al., 2021,
    equation 10); with τ = 1 the balanced softmax, −log n_c·e^{z_c} / Σ_j n_j·e^{z_j} (Ren et al., 2020, equation 4).
    The predicted probabilities are the softmax of z itself, which then ranks classes as if all were equally frequent.
    """
    return -log_softmax(logits + adjustment.to(logits.device), 1)


def log_priors(counts: Tensor) -> Tensor:
    """Return (classes,) float32 log π, the logarithms of the shares of the images.

    A class without images counts as one with a single image: its logarithm would be infinite.
    """
    n = counts.detach().cpu().double().clamp_min(1)
    return (n / n.sum()).log().float().to(counts.device)


def _adjusted_of(term: Term, counts: Tensor | None) -> PerClass:
    assert counts is not None  # noqa: S101 - `_build` has checked `Term.needs_counts`
    return partial(adjusted_cross_entropy, adjustment=term.tau * log_priors(counts))


def _ldam_of(term: Term, counts: Tensor | None) -> PerClass:
    assert counts is not None  # noqa: S101 - `_build` has checked `Term.needs_counts`
    return partial(ldam, margins=class_margins(counts, term.margin), s=term.s)


# `corn` and `cumulative` are likelihoods: the head of the model (`folds.models.ordinal_head`) has turned its outputs
# into log-probabilities of the classes. CORN's sum of binary cross-entropies is −log p of the true class.
# Name → (the term, the images of each class or None) → the loss of each class. `folds.optim.loss_spec.LOSSES` has the
# settings of each name and their defaults. `f1` is not a mean over images, so it is not in this table.
PER_CLASS: dict[str, Callable[[Term, Tensor | None], PerClass]] = {
    "ce": lambda term, counts: negative_log_probability,
    "wce": lambda term, counts: negative_log_probability,
    "corn": lambda term, counts: negative_log_probability,
    "cumulative": lambda term, counts: negative_log_probability,
    "focal": lambda term, counts: partial(focal, gamma=term.gamma),
    "ldam": _ldam_of,
    "bce": lambda term, counts: one_vs_rest,
    "logit_adjusted": _adjusted_of,
    "balanced_softmax": _adjusted_of,
}


def log1m_prob(log_p: Tensor) -> Tensor:
    """Return (n, classes) log(1 − p_c) from log p, without loss of precision or gradient where p_c is close to 1."""
    top = _is_class(log_p.argmax(1), log_p)
    # The largest p may round to 1, so 1 − p is the sum of the others, none of which is above one half.
    rest = log_p.masked_fill(top, -torch.inf).logsumexp(1, keepdim=True)
    return torch.where(top, rest, torch.log1p(-log_p.exp().masked_fill(top, 0)))


def soft_f1(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1 − macro F1 of the batch, computed from probabilities instead of decisions, so that it has a gradient.

    F1_c = 2·Σ_i t_ic·p_ic / (Σ_i t_ic + Σ_i p_ic) (Pastor-Pellicer et al., 2013; several classes: Bénédict et al.,
    2022). The mean is over the classes of the batch. A class with less than one image in total is weighted by that
    amount, because F1 of an absent class is 0 for every prediction.
    """
    p = logits.float().softmax(1)
    shares = _distribution(targets, p)
    images = shares.sum(0)
    f1 = 2 * (shares * p).sum(0) / (images + p.sum(0)).clamp_min(1e-7)
    present = images.clamp(max=1)
    return 1 - (present * f1).sum() / present.sum()


def _f1(logits: Tensor, targets: Tensor, whole: Tensor | None = None) -> Tensor:
    return soft_f1(logits, targets)


def _weighted_f1(logits: Tensor, targets: Tensor, whole: Tensor | None = None) -> Tensor:
    """Return 1 − macro F1 of the batch, in which an image counts as its sample weight, the sum of its target."""
    weight = targets.sum(1, keepdim=True)
    p, shares = weight * logits.float().softmax(1), targets.to(torch.float32)
    images = shares.sum(0)
    f1 = 2 * (shares * p / weight.clamp_min(1e-12)).sum(0) / (images + p.sum(0)).clamp_min(1e-7)
    present = images.clamp(max=1)
    return 1 - (present * f1).sum() / present.sum().clamp_min(1e-12)


def class_weights(counts: Tensor, beta: float | None) -> Tensor:
    """Return (classes,) float32 the weight of an image of each class; 0 for a class without images.

    The mean weight over all images is 1, so the scale of the loss, and with it of the learning rate and of gradient
    clipping, does not change.

    Parameters
    ----------
    counts : (classes,) images.
    beta : None for 1/images. Otherwise 1/effective number of images, (1 − β^n)/(1 − β) (Cui et al., 2019, equation 2):
        images of a class overlap, and the effective number is at most 1/(1 − β).
    """
    n = counts.detach().cpu().double()
    each = torch.where(n > 0, 1 / (n if beta is None else 1 - beta**n), 0.0)
    return (each * (n.sum() / (each * n).sum())).float().to(counts.device)


def class_margins(counts: Tensor, max_margin: float) -> Tensor:
    """Return (classes,) float32 margins ∝ images^(−1/4) (Cao et al., 2019, equation 11).

    The margin of the rarest class is `max_margin`; that of a class without images is 0.
    """
    n = counts.detach().cpu().double()
    each = torch.where(n > 0, n**-0.25, 0.0)
    return (each * (max_margin / each.max())).float().to(counts.device)


def _distribution(targets: Tensor, logits: Tensor) -> Tensor:
    return targets.to(logits.dtype) if targets.is_floating_point() else _is_class(targets, logits).to(logits.dtype)


def _is_class(index: Tensor, like: Tensor) -> Tensor:
    """Return (n, classes) bool: whether a column is the class of its row."""
    # `one_hot` reads the values, which synchronizes with the device.
    return index[:, None] == torch.arange(like.shape[1], device=like.device)
