"""Choose the weight decay that suits an optimizer."""

from __future__ import annotations

# These add the decay to the gradient, where their step sizes rescale it: 0.05, usual for AdamW, would erase pretrained
# weights within an epoch or two. SGD and its kin are used with 1e-4, Adam and its kin without decay.
_LIKE_SGD = {"sgd", "momentum", "nesterov", "sgdp", "csgdp", "lars", "larc", "nlars", "nlarc"}
_COUPLED = {"adam", "adamax", "nadam", "nadamlegacy", "radam", "adopt", "cadopt", "novograd", "madgrad", "adagrad"}
_COUPLED |= {"adadelta", "rmsprop", "rmsproptf", "crmsproptf"}


def default_weight_decay(name: str) -> float:
    """Return the usual weight decay of an optimizer: 0.05 if it is applied to the weights themselves."""
    name = name.lower().removeprefix("lookahead_")
    return 1e-4 if name in _LIKE_SGD else 0.0 if name in _COUPLED else 0.05
