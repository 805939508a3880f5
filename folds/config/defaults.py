"""Choose settings for fine-tuning by the family and the size of a model, with the reason in words.

The table has the rates that the authors of the architectures and timm's recipes use for fine-tuning with AdamW, brought
to batches of 32 images. Sources are in docs/recipes.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Version 1 (program 0.1.0): one rate for all models and batch sizes, no layer decay, no average of the weights.
DEFAULTS = 2
BATCH_SIZE = 32  # the batches that all learning rates here are for
RANDOM_RATE = 1e-3
# Peak learning rates of other optimizers, relative to that of AdamW.
_OPTIMIZERS = {"sgd": 50.0, "momentum": 50.0, "lion": 0.2}


@dataclass(frozen=True)
class Model:
    """What the defaults of a model depend on: its timm id and its number of parameters."""

    timm_name: str
    parameters: int


@dataclass(frozen=True)
class Size:
    """The defaults of the models of a family up to a size.

    Attributes
    ----------
    most : parameters.
    rate : peak learning rate of AdamW for batches of 32.
    layer_decay : factor of the rate from each block to the one before; 1 for none. A block of a deeper model needs a
        factor nearer to 1, or its first blocks would not learn at all.
    further : other settings of a recipe; names that `Recipe` does not have are ignored.
    """

    most: float
    rate: float
    layer_decay: float = 1.0
    further: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """A family of architectures: its name in messages, with its article, a pattern of timm ids, and its sizes."""

    title: str
    pattern: str
    sizes: tuple[Size, ...]

    def size(self, parameters: int) -> Size:
        """Return the defaults of a model of this size."""
        return next(size for size in self.sizes if parameters <= size.most)


# Models up to `_MINI` are measured (benchmarks/finetune.py); for larger ones there is the literature.
_MINI, _SMALL, _BASE, _ANY = 3e6, 45e6, 150e6, math.inf
_FEW = Size(_MINI, 1e-3)
# The first family whose pattern is found in the timm id is used.
FAMILIES = (
    Family(
        "a self-supervised or image-text model",
        r"^(vit|naflexvit|samvit).*(dino|jepa|mae|clip|siglip|datacomp|webli|_pe_|aim)|^(beit|eva|aimv2)",
        (_FEW, Size(_SMALL, 5e-5, 0.75), Size(_BASE, 3e-5, 0.75), Size(_ANY, 2e-5, 0.85)),
    ),
    Family(
        "a vision transformer",
        r"^(test_)?(vit|deit|flexivit|naflexvit|samvit|hiera)",
        (_FEW, Size(_SMALL, 1e-4, 0.75), Size(_BASE, 5e-5, 0.75), Size(_ANY, 2e-5, 0.85)),
    ),
    Family("a Swin", r"^swin", (_FEW, Size(_SMALL, 1e-4, 0.9), Size(_BASE, 5e-5, 0.9), Size(_ANY, 2e-5, 0.9))),
    Family(
        "a ConvNeXt",
        r"^(test_)?convnext",
        (_FEW, Size(_SMALL, 1e-4, 0.9), Size(_BASE, 5e-5, 0.9), Size(_ANY, 2e-5, 0.9)),
    ),
    Family(
        "another transformer",
        r"^(vitamin|cait|xcit|volo|tnt|crossvit|convit|pit|levit|maxvit|maxxvit|coatnet|coat_|pvt|mvit|twins|focalnet|"
        r"davit|nextvit|fastvit|tiny_vit|efficientvit|poolformer|caformer|convformer|edgenext|nest|gcvit|efficientformer|"
        r"mobilevit|iformer|visformer|mixer|resmlp|gmlp|gmixer|sequencer|swiftformer)",
        (_FEW, Size(_SMALL, 1e-4), Size(_BASE, 5e-5), Size(_ANY, 2e-5)),
    ),
    Family(
        "a convolutional network",
        r"resne|efficientnet|^(regnet|densenet|mobilenet|vgg|mnasnet|inception|xception|hrnet|dla|dpn|nfnet|dm_nfnet|"
        r"eca_nfnet|nf_|hgnet|rexnet|ghostnet|repghostnet|tinynet|lcnet|repvgg|res2n|legacy_|cspdarknet|darknet|"
        r"selecsls|semnasnet|spnasnet|fbnet|hardcorenas|mixnet|mobileone|vovnet|ese_vovnet|gernet|nasnet|pnasnet)",
        (_FEW, Size(_SMALL, 5e-4), Size(_ANY, 3e-4)),
    ),
)
# Models that the table does not have.
OTHER = Family("a model", "", (_FEW, Size(_SMALL, 2e-4), Size(_BASE, 1e-4), Size(_ANY, 3e-5)))


def family_of(timm_name: str) -> Family:
    """Return the family of a timm id."""
    return next((family for family in FAMILIES if re.search(family.pattern, timm_name)), OTHER)


def learning_rate(
    has_weights: bool, opt: str, batch_size: int, own: Mapping[str, Any], model: Model | None = None
) -> tuple[float, str]:
    """Return the peak learning rate and its reason.

    Rates scale with the square root of the batch size, which keeps the noise of Adam's steps (Malladi et al., 2022).

    Parameters
    ----------
    has_weights : whether the training starts from trained weights.
    own : settings of a small variant of a model; its rate is for its own batch size, with AdamW.
    model : None if it is not known.
    """
    batch = BATCH_SIZE
    if "lr" in own and opt == "adamw":
        rate, batch, reason = own["lr"], own.get("batch_size", BATCH_SIZE), "suits this small model"
    elif not has_weights:
        rate, reason = RANDOM_RATE, "from random weights"
    elif model is None:
        rate, reason = OTHER.size(int(_SMALL)).rate, "from pretrained weights"
    else:
        family = family_of(model.timm_name)
        rate = family.size(model.parameters).rate
        size = f"{family.title} of {_millions(model.parameters)} parameters"
        reason = f"{_exponent(rate)} for {size} from pretrained weights"
    if opt in _OPTIMIZERS:
        rate, reason = rate * _OPTIMIZERS[opt], f"{reason}, ×{_OPTIMIZERS[opt]:g} for {opt}"
    if batch_size != batch:
        factor = math.sqrt(batch_size / batch)
        # Three digits, so that the rate that is printed is the rate.
        rate, reason = float(f"{rate * factor:.3g}"), f"{reason}, ×{factor:.2f} for batches of {batch_size}"
    return rate, reason


def head_rate(opt: str) -> tuple[float, str]:
    """Return the peak learning rate of a head on frozen features, and its reason."""
    rate, reason = RANDOM_RATE, "for a head on standardized features"
    return (
        (rate * _OPTIMIZERS[opt], f"{reason}, ×{_OPTIMIZERS[opt]:g} for {opt}")
        if opt in _OPTIMIZERS
        else (rate, reason)
    )


def fine_tuning(model: Model | None) -> dict[str, Any]:
    """Return the other settings for fine-tuning a model, beside the learning rate; {} for none."""
    if model is None:
        return {}
    size = family_of(model.timm_name).size(model.parameters)
    return {"layer_decay": size.layer_decay, **size.further}


def former_defaults(has_weights: bool, opt: str, own: Mapping[str, Any]) -> dict[str, float]:
    """Return the settings that version 1 of the defaults decided otherwise."""
    rate = 2e-4 if has_weights else RANDOM_RATE
    lr = own["lr"] if "lr" in own and opt == "adamw" else rate * _OPTIMIZERS.get(opt, 1.0)
    return {"lr": lr, "layer_decay": 1.0, "ema": 0.0}


def _exponent(rate: float) -> str:
    """Return ``1e-4`` for 0.0001."""
    number, exponent = f"{rate:.2e}".split("e")
    return f"{float(number):g}e{int(exponent)}"


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.0f} M" if parameters >= 10e6 else f"{parameters / 1e6:.1f} M"
