"""Compute the losses of a training.

A target is a distribution over classes: one class, several that were mixed (mixup, cutmix), or either with a share
spread
over all (label smoothing). Every loss but `f1` is defined by what one class would cost, ℓ_c(logits), and a target costs
what it leads one to expect: Σ_c t_c·ℓ_c. So all of them take mixed images, and smoothing is said once.

All is computed in float32 on the logits' device, whatever their format, and nothing waits for the device. The mean over
a
batch is the mean of its images, so parts of a batch add up (`f1` apart, which is a property of a whole batch).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, softplus

from folds.errors import UsageError
from folds.optim.loss_spec import Term, parse_loss

Loss = Callable[[Tensor, Tensor], Tensor]
PerClass = Callable[
    [Tensor], Tensor
]  # float32 logits (n, classes) → what each class would cost (n, classes), were it the true one


def build_loss(expression: str, label_smoothing: float, counts: Tensor | None = None, done: float = 0.0) -> Loss:
    """Return the loss of that expression: (logits (n, classes), targets (n,) class indices or (n, classes)
    distributions) → float32 scalar.

    Parameters
    ----------
    expression : as `parse_loss` reads it.
    counts : (classes,) images of each class in what is trained on, on the device of the logits; classes may have none.
        Needed by `ldam` and by every term with weights.
    done : share of the epochs that lie behind: weights with ``drw`` count from there on. Built anew each epoch, a loss
        has no
        state, and a resume needs none.

    Raises
    ------
    UsageError : `expression` is wrong, or needs `counts` and there are none.
    """
    terms = parse_loss(expression, label_smoothing).terms
    parts = [(term.factor, _build(term, counts, done)) for term in terms]
    return parts[0][1] if len(parts) == 1 and parts[0][0] == 1 else partial(_weighted_sum, parts=parts)


def _build(term: Term, counts: Tensor | None, done: float) -> Loss:
    if term.name == "f1":
        return soft_f1
    weights = None
    if counts is None:
        if term.needs_counts:
            raise UsageError(
                f"--loss {term.name} must know how many images each class has",
                hint="--loss ce or --loss focal goes without",
            )
    elif term.weights != "none" and done >= term.drw:
        weights = class_weights(counts, term.beta if term.weights == "effective" else None)
    if weights is None and term.name in ("ce", "wce"):
        return partial(_cross_entropy, smoothing=term.smoothing)
    return partial(
        soft_target_loss, per_class=PER_CLASS[term.name](term, counts), weights=weights, smoothing=term.smoothing
    )


def _weighted_sum(logits: Tensor, targets: Tensor, parts: Sequence[tuple[float, Loss]]) -> Tensor:
    return torch.stack([factor * loss(logits, targets) for factor, loss in parts]).sum()


def _cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    # The same as `expected` with `negative_log_probability`, in one kernel.
    return cross_entropy(
        logits.float(), targets.float() if targets.is_floating_point() else targets, label_smoothing=smoothing
    )


def soft_target_loss(
    logits: Tensor, targets: Tensor, *, per_class: PerClass, weights: Tensor | None, smoothing: float
) -> Tensor:
    """Return mean over the batch of Σ_c t_c·w_c·ℓ_c, with the share `smoothing` of t·w spread evenly over all classes.

    The spread is that of Szegedy et al., 2016 (section 7). The weight is that of the image's own class, also for what
    is
    spread: were the classes weighed after it, most of what smoothing adds would go to the rarest ones.

    Parameters
    ----------
    targets : (n,) class indices, or (n, classes) distributions.
    weights : (classes,) what an image of each class counts; None: all alike.
    """
    logits = logits.float()
    shares = _distribution(targets, logits)
    if weights is not None:
        shares = shares * weights.to(logits.device)
    if smoothing:
        shares = torch.lerp(shares, shares.mean(1, keepdim=True), smoothing)
    return (shares * per_class(logits)).sum(1).mean()


def negative_log_probability(logits: Tensor) -> Tensor:
    """Cross-entropy: −log p_c."""
    return -log_softmax(logits, 1)


def one_vs_rest(logits: Tensor) -> Tensor:
    """Binary cross-entropy summed over the classes (Wightman et al., 2021, "ResNet strikes back", section 2.2).

    Of class c: −log σ(z_c) − Σ_{j≠c} log(1 − σ(z_j)) = Σ_j softplus(z_j) − z_c.
    """
    return softplus(logits).sum(1, keepdim=True) - logits


def focal(logits: Tensor, gamma: float) -> Tensor:
    """−(1 − p_c)^γ · log p_c: images that are learnt count little (Lin et al., 2017, equation 4; α there is ``weights``
    here).
    """
    log_p = log_softmax(logits, 1)
    # By the logarithm: the power itself has no derivative at p = 1 for γ < 1.
    return -(gamma * log1m_prob(log_p)).exp() * log_p


def ldam(logits: Tensor, margins: Tensor, s: float) -> Tensor:
    """Cross-entropy after the true class's logit is lowered by a margin, larger for rarer classes (Cao et al., 2019,
    equation 13).

    −log e^{s(z_c − m_c)} / (e^{s(z_c − m_c)} + Σ_{j≠c} e^{s·z_j}). Weights come late, by ``drw`` (there algorithm 1):
    there
    in the last fifth of the epochs, when the learning rate drops; where it falls by a cosine next to nothing is left to
    learn by then, so here in the last two fifths.

    In the paper z is a cosine, from −1 to 1, with margins up to .5 and s = 30, so a margin is half of the largest
    logit.
    A linear head's logits have no such bound and are what the probabilities are made of. So s is 1 here: with any
    other,
    the loss is not that of the probabilities that are predicted, which come out too flat. A linear head can also meet
    any margin by larger weights, so that margins do little there, and large ones harm; the late weights do most. A
    cosine
    head with logits of 30·cosine is the paper's with ``margin=15``; one with plain cosines with ``margin=.5:s=30``.
    """
    log_p = log_softmax(s * logits, 1)
    return softplus(log1m_prob(log_p) - log_p + s * margins.to(logits.device))


def _ldam_of(term: Term, counts: Tensor | None) -> PerClass:
    assert counts is not None  # noqa: S101 - `Term.needs_counts` asks for them
    return partial(ldam, margins=class_margins(counts, term.margin), s=term.s)


# name → (the term with its settings, images of each class where they are known) → what each class would cost. The
# settings
# of a name, and their defaults, stand in `folds.optim.loss_spec.LOSSES`. `f1` is no mean over images and stands apart.
PER_CLASS: dict[str, Callable[[Term, Tensor | None], PerClass]] = {
    "ce": lambda term, counts: negative_log_probability,
    "wce": lambda term, counts: negative_log_probability,
    "focal": lambda term, counts: partial(focal, gamma=term.gamma),
    "ldam": _ldam_of,
    "bce": lambda term, counts: one_vs_rest,
}


def log1m_prob(log_p: Tensor) -> Tensor:
    """log(1 − p_c) of every class from (n, classes) log p, without loss of digits or gradient where p_c is all but
    1.
    """
    top = _is_class(log_p.argmax(1), log_p)
    # The largest p may round to 1: its rest is added up from the others. No other is above one half.
    rest = log_p.masked_fill(top, -torch.inf).logsumexp(1, keepdim=True)
    return torch.where(top, rest, torch.log1p(-log_p.exp().masked_fill(top, 0)))


def soft_f1(logits: Tensor, targets: Tensor) -> Tensor:
    """1 − macro F1 of the batch, with probabilities in the place of decisions, so that it has a gradient.

    F1_c = 2·Σ_i t_ic·p_ic / (Σ_i t_ic + Σ_i p_ic) (Pastor-Pellicer et al., 2013; several classes: Bénédict et al.,
    2022).
    The mean is over the classes that the batch has, a class with less than one whole image counting in that proportion:
    of an absent class F1 is 0, whatever is predicted.
    """
    p = logits.float().softmax(1)
    truth = _distribution(targets, p)
    images = truth.sum(0)
    f1 = 2 * (truth * p).sum(0) / (images + p.sum(0)).clamp_min(1e-7)
    present = images.clamp(max=1)
    return 1 - (present * f1).sum() / present.sum()


def class_weights(counts: Tensor, beta: float | None) -> Tensor:
    """Return (classes,) float32: what an image of each class counts; 1 in the mean over all images, 0 for a class
    without any.

    With that mean the loss keeps its size, and learning rate and clipping their meaning.

    Parameters
    ----------
    counts : (classes,) images.
    beta : None for 1/images. Else 1/effective number of images, (1 − β^n)/(1 − β) (Cui et al., 2019, equation 2):
        images
        of one class overlap, and beyond 1/(1 − β) of them another adds nothing.
    """
    n = counts.detach().cpu().double()
    each = torch.where(n > 0, 1 / (n if beta is None else 1 - beta**n), 0.0)
    return (each * (n.sum() / (each * n).sum())).float().to(counts.device)


def class_margins(counts: Tensor, largest: float) -> Tensor:
    """Return (classes,) float32 margins ∝ images^(−1/4), the rarest class's `largest` (Cao et al., 2019, equation 11);
    0 for a class without images.
    """
    n = counts.detach().cpu().double()
    each = torch.where(n > 0, n**-0.25, 0.0)
    return (each * (largest / each.max())).float().to(counts.device)


def _distribution(targets: Tensor, logits: Tensor) -> Tensor:
    return targets.to(logits.dtype) if targets.is_floating_point() else _is_class(targets, logits).to(logits.dtype)


def _is_class(index: Tensor, like: Tensor) -> Tensor:
    """Return (n, classes) bool: whether a column is the class of its row. `one_hot` would look at the values, and wait
    for the device.
    """
    return index[:, None] == torch.arange(like.shape[1], device=like.device)
