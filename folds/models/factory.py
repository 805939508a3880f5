"""Create models by short name or timm id, with weights from the hub or from a file."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folds.errors import EnsembleError, UsageError, unknown_name
from folds.models.architecture import Architecture as Architecture
from folds.models.archive import load_archive
from folds.models.head_spec import COSINE, LINEAR, UNITS, cosine_scale, is_of_layers, is_of_numbers, ordinal_link
from folds.models.hub import without_waiting
from folds.models.hub_models import HubModel, names_files, read_hub_model, without_owner
from folds.utils.schema import BOOL, NUMBER, TEXT, either, list_of, shown
from folds.utils.startup import collection_paused

if TYPE_CHECKING:
    import torch

    from folds.models.build_limit import BuildLimit

logger = logging.getLogger(__name__)

# Short name → timm id.
SHORT_NAMES = {
    "swin": "swin_tiny_patch4_window7_224",
    "swin_small": "swin_small_patch4_window7_224",
    "swin_base": "swin_base_patch4_window7_224",
    "swin_large": "swin_large_patch4_window7_224",
    "vit": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
    "vit_large": "vit_large_patch16_224",
    "beit": "beit_base_patch16_224",
    "deit": "deit3_small_patch16_224",
    "efficientnet": "efficientnet_b0",
    "convnext": "convnext_tiny",
}


@dataclass(frozen=True)
class SmallVariant:
    """A small variant of a model, and its default settings."""

    timm_name: str
    arguments: Mapping[str, Any]
    recipe: Mapping[str, Any]


# Small variants for synthetic data on a CPU: the same families, small enough to train in minutes. From random weights,
# a Swin needs many small steps and little augmentation, a ResNet few large steps.
SMALL_VARIANTS = {
    "swin": SmallVariant(
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 64, "depths": (1, 1, 1), "num_heads": (4, 8, 16), "window_size": 8, "drop_path_rate": 0.0},
        {"lr": 7e-4, "batch_size": 8, "augment": "light"},
    ),
    "resnet18": SmallVariant("resnet18", {"layers": (2, 2, 2, 2), "channels": (16, 32, 64, 128)}, {"lr": 6e-3}),
}
SMALL_SIZE = 64
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _timm() -> Any:
    """Return timm, which is imported on first use."""
    with collection_paused():
        import timm

        return timm


def resolve(
    name: str,
    img_size: tuple[int, int] | None = None,
    *,
    small: bool = False,
    arguments: Mapping[str, Any] | None = None,
    head: str = LINEAR,
) -> Architecture:
    """Return the architecture with this name.

    Parameters
    ----------
    name : a short name (``swin``), any timm id, with or without its pretrained tag, or where its files are
        (`folds.models.hub_models`): ``timm/resnet18.a1_in1k``, ``hf_hub:owner/name``, ``local_dir:folder``.
    img_size : (height, width) in pixels; None for the input size of the model.
    small : use the small variant, if there is one (for synthetic data on a CPU).
    arguments : arguments of the model, added to those of the small variant.
    head : ``linear``, ``cosine``, ``cosine:S``, ``corn``, ``cumulative`` or a head on frozen features
        (`folds.models.head_spec.check_head`).

    Raises
    ------
    UsageError : an unknown name (the message suggests the closest ones), an invalid argument, or a size that the model
        does not accept (the hint names sizes that it does).
    """
    found = hub_model_of(name)
    if found is None and JOIN in name:
        return _resolve_joined(name, img_size, small, arguments, head)
    variant = SMALL_VARIANTS.get(name) if small else None
    own: Mapping[str, Any] = {} if variant is None else variant.arguments
    timm_name = SHORT_NAMES.get(name, without_owner(name)) if variant is None else variant.timm_name
    if found is not None:
        timm_name, own = found.timm_name, found.arguments
    merged = dict(own) | dict(arguments or {})
    check_arguments(merged)
    scale = cosine_scale(head)
    if not is_known(timm_name):
        raise _unknown(name, found)
    try:
        config = _timm().get_pretrained_cfg(timm_name)
    except (RuntimeError, ValueError) as error:  # a tag the model does not have
        raise UsageError(f"architecture {name}: {error}") from None
    if config and config.input_size[0] != 3:
        raise UsageError(f"architecture {name} reads images of {config.input_size[0]} channels, expected 3")
    built = tuple(config.input_size[1:]) if config else (224, 224)
    native = found.size if found is not None and found.size is not None else built
    height, width = img_size or ((SMALL_SIZE, SMALL_SIZE) if small else native)
    fixed = bool(config and config.fixed_input_size)
    if fixed and ((height, width) != built or own):
        # Window and position tables are built for one size, so the size is an argument of the model as well.
        merged["img_size"] = (height, width)
    mean, std = (config.mean, config.std) if config else (IMAGENET_MEAN, IMAGENET_STD)
    if found is not None:
        mean, std = found.mean or mean, found.std or std
    head = head if scale is None else f"{COSINE}:{scale:g}"
    architecture = Architecture(name, timm_name, height, width, tuple(mean), tuple(std), merged, head)
    if (height, width) in (built, (SMALL_SIZE, SMALL_SIZE) if variant else built):
        return architecture
    from folds.models.input_size import built_for_size

    return built_for_size(architecture, built, fixed=fixed)


def hub_model_of(name: str) -> HubModel | None:
    """Return the files of a model that is named by its repository or folder; None for names that timm itself has.

    Raises
    ------
    EnsembleError : the files cannot be read, or do not describe a model of timm.
    """
    return read_hub_model(name) if names_files(name) and not is_known(without_owner(name)) else None


def _unknown(name: str, found: HubModel | None) -> UsageError:
    """Return the error for a name that timm does not have."""
    if found is not None:
        return UsageError(
            f"architecture {name} is a {shown(found.timm_name)}, which this version of timm does not have",
            hint="pip install --upgrade timm",
        )
    return unknown_name(
        "architecture",
        name,
        [*SHORT_NAMES, *_timm().list_models()],
        hint="a short name (" + ", ".join(SHORT_NAMES) + "), a timm id, hf_hub:OWNER/NAME or local_dir:FOLDER",
    )


JOIN = "+"  # between the names of backbones whose features are joined


def _resolve_joined(
    name: str, img_size: tuple[int, int] | None, small: bool, arguments: Mapping[str, Any] | None, head: str
) -> Architecture:
    """Return several backbones, ``swin+resnet18``, as one architecture; they read images of one size."""
    if arguments:
        raise UsageError("`model_args` do not say which of the joined backbones they are for", hint="leave them out")
    named = next((one.strip() for one in name.split(JOIN) if names_files(one.strip())), None)
    if named is not None:  # its weights would not be loaded
        raise UsageError(f"{named} cannot be joined with other backbones", hint="timm ids and short names can be")
    parts = [resolve(one.strip(), img_size, small=small) for one in name.split(JOIN)]
    sizes = {(part.height, part.width) for part in parts}
    if len(sizes) > 1:
        each = ", ".join(f"{part.name} {part.height}×{part.width}" for part in parts)
        raise UsageError(f"joined backbones read images of one size, found {each}", hint="`img_size=224`")
    keys = ("timm_name", "mean", "std", "arguments")
    joined = tuple({key: getattr(part, key) for key in keys} for part in parts)
    timm_name = JOIN.join(part.timm_name for part in parts)
    return replace(parts[0], name=name, timm_name=timm_name, arguments={}, head=head, joined=joined)


def are_known(architecture: Architecture) -> bool:
    """Return whether timm itself can build the model, or all joined ones."""
    return all(is_known(part.timm_name) for part in architecture.parts())


def is_known(timm_name: str) -> bool:
    """Return whether timm itself can build the model.

    The name of a hub model or of a folder is not known: timm would download or read its files.
    """
    timm = _timm()

    return not set(timm_name) & set(":/\\") and timm.is_model(timm_name)


# Arguments of timm that name files or URLs, change the origin of the weights, or are set by `create_model`.
_MAX_ENTRIES = 1_000  # of a list
_MAX_PREFIXES = 200
_NOT_ARGUMENTS = {"checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "num_classes", "in_chans"}
_NOT_ARGUMENTS |= {"features_only", "feature_cfg", "model_cfg", "kwargs_filter", "out_indices"}
_PLAIN = either(NUMBER, TEXT, BOOL)
_ARGUMENT = either(_PLAIN, list_of(_PLAIN), list_of(list_of(_PLAIN)))


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for arguments that do more than shape a model; they could make timm read or download files.

    Valid values are numbers, texts, booleans and lists of these.
    """
    if "in_chans" in arguments:
        raise UsageError(
            "model_args: 'in_chans' cannot be set: images have 3 channels, gray ones three equal ones",
            hint="leave it out; `channels` or `stack` choose other channels, and the model follows",
        )
    for name, value in arguments.items():
        if (
            not isinstance(name, str)
            or not name.isidentifier()
            or name in _NOT_ARGUMENTS
            or name.startswith("pretrained")
        ):
            hint = (
                "model_args takes arguments that shape the model, e.g. {drop_path_rate = 0.1}; weights come from "
                "`init_weights=FILE` or `pretrained=True`"
            )
            raise UsageError(f"model_args: {shown(name)} is not an argument that shapes the model", hint=hint)
        entries = len(value) if isinstance(value, list | tuple | str) else 1
        if value is not None and (entries > _MAX_ENTRIES or not _ARGUMENT.holds(value)):
            raise UsageError(
                f"model_args: '{name}' is {shown(value)}, expected a number, text, true, false or a list of these"
            )


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
    timm = _timm()

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
    scale = cosine_scale(architecture.head)
    weights = None if init is None else read_weights(init)
    if pretrained and init is None:
        without_waiting()
    try:
        from_hub = pretrained and init is None
        what = (architecture.timm_name, from_hub, classes, repr(sorted(arguments.items())))
        with limited(limit or BuildLimit(_room()), what):
            model = timm.create_model(architecture.timm_name, pretrained=from_hub, num_classes=classes, **arguments)
        if scale is not None:
            from folds.models.cosine_head import with_cosine_head

            with_cosine_head(model, scale, architecture.timm_name)
        link = ordinal_link(architecture.head)
        if link is not None:
            from folds.models.ordinal_head import with_ordinal_head

            with_ordinal_head(model, link, architecture.timm_name)
        if is_of_numbers(architecture.head):
            from folds.models.number_head import with_number_head

            with_number_head(model, architecture.head, architecture.timm_name)
        if init is not None and weights is not None:
            weights = without_prefix(init, weights, list(model.state_dict()), _heads(architecture.timm_name))
            loaded, head = _body_and_head(architecture.timm_name, weights, arguments)
            # A cosine head has no bias, so a head of one kind is not loaded into one of the other kind.
            own = {name: value.shape for name, value in model.state_dict().items() if name not in loaded}
            if load_head and {name: value.shape for name, value in head.items()} == own:
                loaded |= head
            model.load_state_dict(loaded, strict=False)
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


def without_prefix(
    path: Path, weights: dict[str, torch.Tensor], names: Sequence[str], heads: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """Return weights under the names of the model, if they have one prefix in common; log it.

    Lightning writes ``model.``, torch.compile ``_orig_mod.``, others ``backbone.`` or ``net.``, also one in front of
    another. Weights without the prefix (a loss with weights, a neck) belong to what was around the model.

    Parameters
    ----------
    path : the file, for messages.
    names : names of the weights of the model.
    heads : the parts of the model that may be missing.

    Raises
    ------
    EnsembleError : with a prefix the names would fit in part; the hint names it.
    """
    best, most = "", sum(name in weights for name in names)
    for prefix in _prefixes(weights):
        fitting = sum(prefix + name in weights for name in names)
        if fitting > most:
            best, most = prefix, fitting
    if not best:
        return weights
    inside = {name.removeprefix(best): value for name, value in weights.items() if name.startswith(best)}
    others = [name for name in weights if not name.startswith(best)]
    needless = tuple(f"{head}." for head in heads)
    missing = [name for name in names if name not in inside and not name.startswith(needless)]
    if missing:
        raise EnsembleError(
            f"`init_weights={path}`: without the prefix '{best}', {most:,} of {len(names):,} names are those of the "
            f"model; {len(missing):,} are missing, e.g. {shown(sorted(missing)[0])}",
            hint="the file may hold another model, or its names follow another library: rename them to those of timm",
        )
    unused = f"; {len(others):,} other weights are not used (e.g. {others[0]})" if others else ""
    logger.info(f"{path}: the prefix '{best}' of {len(inside):,} names was removed{unused}")
    return inside


def _prefixes(weights: Mapping[str, Any]) -> list[str]:
    """Return the prefixes of names up to their first, second and third dot, in the order of the file."""
    found: dict[str, None] = {}
    for name in weights:
        parts = name.split(".")[:4]
        found |= {".".join(parts[:count]) + ".": None for count in range(1, len(parts))}
    return list(found)[:_MAX_PREFIXES]


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
    timm = _timm()

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
    config = _timm().get_pretrained_cfg(timm_name)
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
    timm = _timm()

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


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a ``.safetensors`` or ``.pt``/``.pth`` file by name; no code in the file is executed.

    The file may be a checkpoint of this program, of timm's own training script or of Lightning, or hold the weights
    under a name such as ``state_dict`` or ``model``. Averaged weights beside them are preferred, and it is logged.

    Raises
    ------
    EnsembleError : the file does not exist, or it holds no weights by name.
    """
    import torch

    if not Path(path).is_file():
        raise EnsembleError(f"`init_weights`: file not found: {path}")
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: Any = load_archive(Path(path), plain=False)
    except MemoryError:
        raise
    except Exception as error:
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise EnsembleError(
            f"`init_weights`: {path} holds no plain weights ({reason})",
            hint="save only the state dict, or use .safetensors; code in a file is never run",
        ) from None
    state = _weights_inside(Path(path), state)
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items())
    ):
        raise EnsembleError(f"`init_weights`: expected weights by name, found none in {path}")
    return {key.removeprefix("module."): value for key, value in state.items()}


# Where training programs keep weights, most wanted first: averaged weights score better than the last ones, and a
# self-supervised teacher is what its authors publish.
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "teacher")
_LAST = ("weights", "state_dict", "model", "model_state_dict", "net", "student", "module", "shadow")


def _weights_inside(path: Path, state: Any) -> Any:
    """Return the weights of a file that holds them under a name; log which were chosen if there are several."""
    while not _are_weights(state):
        inside = _places_of_weights(state)
        if not inside:
            return state
        if len(inside) > 1:
            logger.info(f"{path}: the weights under '{inside[0]}' are used, not those under {_quoted(inside[1:])}")
        state = state[inside[0]]
    # The counter of torch's AveragedModel lies beside the names of its model.
    return {name: value for name, value in state.items() if name != "n_averaged"}


def _are_weights(value: Any) -> bool:
    import torch

    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and isinstance(one, torch.Tensor) for key, one in value.items())
    )


def _places_of_weights(state: Any, depth: int = 3) -> list[str]:
    """Return the names under which a mapping holds weights, most wanted first; some lie in a mapping of a mapping."""
    if not isinstance(state, dict) or not depth:
        return []
    return [
        key
        for key in (*_AVERAGED, *_LAST)
        if _are_weights(state.get(key)) or _places_of_weights(state.get(key), depth - 1)
    ]


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def is_convolutional(model: torch.nn.Module) -> bool:
    """Return whether most weights are of convolutions; channels_last speeds up convolutions, but not transformers."""
    import torch

    convolutions = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    return convolutions * 2 > sum(parameter.numel() for parameter in model.parameters())
