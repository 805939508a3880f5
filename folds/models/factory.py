"""Create models of timm with a head of their own, and with weights from the hub or from a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folds.errors import EnsembleError, UsageError
from folds.models.architecture import Architecture as Architecture
from folds.models.head_spec import UNITS, cosine_scale, is_of_layers, is_of_numbers, ordinal_link
from folds.models.hub import without_waiting
from folds.models.model_names import SHORT_NAMES, check_arguments, import_timm, is_known
from folds.models.weight_files import read_weights, without_prefix
from folds.utils.schema import shown

if TYPE_CHECKING:
    import torch

    from folds.models.build_limit import BuildLimit


def create_model(
    architecture: Architecture,
    classes: int,
    *,
    pretrained: bool = False,
    init: Path | None = None,
    load_head: bool = False,
    limit: BuildLimit | None = None,
) -> torch.nn.Module:
    """Return a model with a new head for `classes` classes; its weights are random, from timm's hub or from a file.

    Parameters
    ----------
    pretrained : load the weights of the hub, unless `init` is given.
    init : file of weights (see `read_weights`).
    load_head : load the head from `init` as well, if it has the same number of classes.
    limit : most that the construction may allocate; None for as many numbers as this machine has room for.

    Raises
    ------
    EnsembleError : the hub cannot be reached, or the file does not fit the model or holds no weights.
    UsageError : timm has no such model, or the model cannot be built with its arguments.
    """
    if architecture.joined:
        return _create_joined(architecture, classes, pretrained, init, limit)
    timm = import_timm()

    # Checked here as well as in `resolve`, because an architecture can come from a checkpoint.
    check_arguments(architecture.arguments)
    if not is_known(architecture.timm_name):
        raise UsageError(
            f"timm has no model {shown(architecture.timm_name)}",
            hint="a short name (" + ", ".join(SHORT_NAMES) + ") or a timm id",
        )
    from folds.models.build_limit import BuildLimit, TooLargeError, limited

    arguments: dict[str, Any] = dict(architecture.arguments)
    if architecture.channels != 3:
        arguments["in_chans"] = architecture.channels
    weights = None if init is None else read_weights(init)
    from_hub = pretrained and init is None
    if from_hub:
        without_waiting()
    try:
        what = (architecture.timm_name, from_hub, classes, repr(sorted(arguments.items())))
        with limited(limit or BuildLimit(_room()), what):
            model = timm.create_model(architecture.timm_name, pretrained=from_hub, num_classes=classes, **arguments)
        _change_classifier(model, architecture)
        if init is not None and weights is not None:
            _load_weights(model, architecture.timm_name, arguments, init, weights, load_head)
        return _with_head(model, architecture, classes)
    except TooLargeError as error:
        raise UsageError(
            f"architecture {architecture.name} cannot be built with {shown(dict(architecture.arguments))}: {error}",
            hint="a smaller model, or smaller `model_args`",
        ) from None
    except (EnsembleError, MemoryError):
        raise
    except Exception as error:
        raise _creation_error(architecture, pretrained, init, error) from None


def _change_classifier(model: torch.nn.Module, architecture: Architecture) -> None:
    """Replace the classifier by that of a cosine head, of grades or of numbers, if the architecture has one."""
    head, timm_name = architecture.head, architecture.timm_name
    scale = cosine_scale(head)
    if scale is not None:
        from folds.models.cosine_head import with_cosine_head

        with_cosine_head(model, scale, timm_name)
    link = ordinal_link(head)
    if link is not None:
        from folds.models.ordinal_head import with_ordinal_head

        with_ordinal_head(model, link, timm_name)
    if is_of_numbers(head):
        from folds.models.number_head import with_number_head

        with_number_head(model, head, timm_name)


def _load_weights(
    model: torch.nn.Module,
    timm_name: str,
    arguments: Mapping[str, Any],
    path: Path,
    weights: dict[str, torch.Tensor],
    load_head: bool,
) -> None:
    """Load the weights of a file, of the head only if `load_head` and if it has the same shapes."""
    weights = without_prefix(path, weights, list(model.state_dict()), _heads(timm_name))
    loaded, head = _body_and_head(timm_name, weights, arguments)
    # A cosine head has no bias, so a head of one kind is not loaded into one of the other kind.
    own = {name: value.shape for name, value in model.state_dict().items() if name not in loaded}
    if load_head and {name: value.shape for name, value in head.items()} == own:
        loaded |= head
    model.load_state_dict(loaded, strict=False)


def _with_head(model: torch.nn.Module, architecture: Architecture, classes: int) -> torch.nn.Module:
    """Return the model with the head of the architecture in place of its classifier."""
    if not is_of_layers(architecture.head):
        return model
    from folds.models.heads import build_head, classifier_of, input_layer, replace_module

    place, classifier = classifier_of(model, architecture.timm_name)
    replace_module(model, place, build_head(architecture.head, input_layer(classifier).in_features, classes))
    return model


def _create_joined(
    architecture: Architecture, classes: int, pretrained: bool, init: Path | None, limit: BuildLimit | None
) -> torch.nn.Module:
    """Return joined backbones with one head."""
    from torch import nn

    from folds.models.heads import JoinedBackbones, classifier_of, input_layer, replace_module

    if init is not None:
        raise UsageError(
            f"`init_weights={init}` holds the weights of one model, and {architecture.name} is several",
            hint="leave out `join`, or `init_weights`",
        )
    bodies, sizes, parts = [], [], architecture.parts()
    for part in parts:
        body = create_model(part, classes, pretrained=pretrained, limit=limit)
        place, classifier = classifier_of(body, part.timm_name)
        sizes.append(input_layer(classifier).in_features)
        replace_module(body, place, nn.Identity())
        bodies.append(body)
    model = JoinedBackbones(bodies, sizes, classes, [(part.mean, part.std) for part in parts])
    return _with_head(model, architecture, classes)


def _room() -> int:
    """Return how many numbers of four bytes the memory of this machine holds."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, OSError, ValueError):  # not on this system
        return 2**34


def _creation_error(architecture: Architecture, pretrained: bool, init: Path | None, error: Exception) -> EnsembleError:
    """Return the error for a model that timm could not build, with the reason (arguments, weights, hub or size)."""
    reason = " ".join(str(error).split())
    if isinstance(error, TypeError):
        return UsageError(
            f"architecture {architecture.name} cannot be built with {dict(architecture.arguments)}: {error}"
        )
    if init is not None:
        return EnsembleError(
            f"`init_weights={init}` does not fit {architecture.timm_name}: {reason[:300]}",
            hint="the file must hold weights of this timm model",
        )
    if pretrained and _is_from_hub(error):
        return EnsembleError(
            f"the pretrained weights of {architecture.timm_name} could not be downloaded: {reason[:200]}",
            hint="`init_weights=FILE` reads them from a file, `pretrained=False` starts from random weights",
        )
    if pretrained:  # not about fetching: no such weights, or they do not fit the model at this size
        return EnsembleError(
            f"{architecture.timm_name} could not be built with its pretrained weights: {reason[:300]}",
            hint="`pretrained=False` starts from random weights, `init_weights=FILE` reads them from a file",
        )
    return UsageError(
        f"architecture {architecture.name} cannot be built at {architecture.width}×{architecture.height} px: {error}"
    )


# Modules whose errors are about fetching, not about the model.
_OF_THE_HUB = ("huggingface_hub", "requests", "httpx", "httpcore", "urllib", "urllib3", "http", "socket", "ssl")


def _is_from_hub(error: BaseException | None) -> bool:
    """Return whether an error, or one that it follows from, is about reaching the hub or writing what it sent."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, OSError) or type(error).__module__.split(".")[0] in _OF_THE_HUB:
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def _body_and_head(
    timm_name: str, weights: dict[str, torch.Tensor], arguments: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the weights of the body and those of the head, with the names and shapes of the model.

    timm checks names only if the number of classes agrees; otherwise it loads the weights that fit and leaves the
    others random. So the weights are loaded into a model with the number of classes of the file. A missing or unknown
    weight is an error.
    """
    timm = import_timm()

    from folds.models.build_limit import BuildLimit

    heads = _heads(timm_name)
    others = {f"{head}.weight": weights[f"{head}.weight"] for head in heads if f"{head}.weight" in weights}
    if any(name.replace(".weight", ".bias") in weights for name in others):
        others = {}
    # A head of several layers has `fc.0.weight` where timm's has `fc.weight`; it is loaded into no other head either.
    for head in heads:
        if f"{head}.weight" not in weights:
            others |= {name: value for name, value in weights.items() if name.startswith(f"{head}.")}
        # A head of numbers has their units beside its weights.
        units = (f"{head}.{name}" for name in UNITS) if f"{head}.weight" in weights else ()
        others |= {name: weights[name] for name in units if name in weights}
    weights = {name: value for name, value in weights.items() if name not in others}
    names = [f"{name}.weight" for head in heads for name in (head, head.split(".")[0])]
    classes = next((len(weights[name]) for name in names if name in weights), 0)
    overlay = {"state_dict": weights, "num_classes": classes, "label_offset": 0}
    with BuildLimit(_room()):
        donor = timm.create_model(
            timm_name, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay, **arguments
        )
    _keep_first_layer(timm_name, weights, donor, arguments.get("in_chans", 3))
    state, prefixes = donor.state_dict(), tuple(f"{head}." for head in heads)
    own = {name: value for name, value in state.items() if name.startswith(prefixes)} | others
    return {name: value for name, value in state.items() if name not in own}, own


def _keep_first_layer(
    timm_name: str, weights: Mapping[str, torch.Tensor], donor: torch.nn.Module, channels: int
) -> None:
    """Load the first layer of weights for `channels` channels: timm adapts one for 3, and leaves others random.

    Raises
    ------
    EnsembleError : the weights are for another number of channels.
    """
    config = import_timm().get_pretrained_cfg(timm_name)
    named = config.first_conv if config and channels != 3 else None
    own = donor.state_dict()
    for name in (f"{one}.weight" for one in ((named,) if isinstance(named, str) else tuple(named or ()))):
        value = weights.get(name)
        if value is None or name not in own or value.ndim < 2 or value.shape[1] == 3:
            continue
        if value.shape != own[name].shape:
            raise EnsembleError(
                f"the weights read images of {value.shape[1]} channels, and {channels} are chosen",
                hint="weights for 3 channels, or for the same ones",
            )
        own[name].copy_(value)


def _heads(timm_name: str) -> tuple[str, ...]:
    """Return the names of the classifiers of a model, ``("head.fc",)``."""
    timm = import_timm()

    config = timm.get_pretrained_cfg(timm_name)
    named = config.classifier if config else None
    return (named,) if isinstance(named, str) else tuple(named or ())


def check_forward(model: torch.nn.Module, architecture: Architecture) -> None:
    """Raise UsageError if the model cannot process one empty image of its input size.

    This finds an unsuitable size before any image is decoded. One thread is enough for one image: on a busy machine,
    several that wait for each other took ten times as long.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, architecture.channels, architecture.height, architecture.width))
    except (AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"architecture {architecture.name} does not accept {architecture.width}×{architecture.height} px: {reason}"
        ) from None
    finally:
        torch.set_num_threads(threads)


def is_convolutional(model: torch.nn.Module) -> bool:
    """Return whether most weights are of convolutions; channels_last speeds up convolutions, but not transformers."""
    import torch

    convolutions = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    return convolutions * 2 > sum(parameter.numel() for parameter in model.parameters())
