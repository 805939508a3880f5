"""Resolve the name of a model to its architecture: short names, timm ids, models of a hub, joined backbones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from folds.errors import UsageError, unknown_name
from folds.models.architecture import Architecture as Architecture
from folds.models.head_spec import COSINE, LINEAR, cosine_scale
from folds.models.hub_models import HubModel, names_files, read_hub_model, without_owner
from folds.utils.schema import BOOL, NUMBER, TEXT, either, list_of, shown
from folds.utils.startup import collection_paused

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


def import_timm() -> Any:
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
        config = import_timm().get_pretrained_cfg(timm_name)
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
        [*SHORT_NAMES, *import_timm().list_models()],
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
    timm = import_timm()

    return not set(timm_name) & set(":/\\") and timm.is_model(timm_name)


_MAX_ENTRIES = 1_000  # of a list
# Arguments of timm that name files or URLs, change the origin of the weights, or are set by `create_model`.
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
