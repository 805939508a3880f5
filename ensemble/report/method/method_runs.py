"""Say how the runs of a report were trained, from their records: in words, and as one row of settings for each run.

What a record does not have is not said: it is a gap, ``[to state: …]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ensemble.report.evidence.evidence import RunRecord
from folds.augmentation.presets import PRESETS, Augmentation
from folds.metrics.classification import COLUMN_METRICS, METRICS

MAX_NAMED = 4  # different values of a setting, or names, that a sentence lists
_OPTIMIZERS = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD", "lion": "Lion"}
_LOSSES = {
    "ce": "cross-entropy",
    "wce": "class-weighted cross-entropy",
    "focal": "focal loss",
    "bce": "binary cross-entropy",
    "asymmetric": "asymmetric loss",
    "huber": "Huber loss",
    "l1": "absolute error",
    "mse": "squared error",
    "gaussian": "Gaussian negative log-likelihood",
}
_FITS = {
    "squash": "resized without keeping their aspect ratio",
    "crop": "resized and cropped to the center",
    "letterbox": "resized with their aspect ratio and padded",
}
_MEANS = {
    "model": "normalized with the mean and SD of the model",
    "imagenet": "normalized with the mean and SD of ImageNet",
    "data": "normalized with the mean and SD of the training images of each fold",
}
_PRECISIONS = {"off": "float32", "bf16": "bfloat16 mixed precision", "fp16": "float16 mixed precision"}
# Settings that most trainings do not use → (words, the values that mean they are not used).
_FURTHER: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "schedule_args": ("schedule arguments {}", ({},)),
    "opt_args": ("optimizer arguments {}", ({},)),
    "clip": ("gradient norm clipped at {}", (0, 0.0)),
    "layer_decay": ("layer-wise learning rate decay {}", (1,)),
    "head_lr": ("learning rate of the head × {}", (1,)),
    "drop_path": ("stochastic depth {}", (0,)),
    "model_args": ("model arguments {}", ({},)),
    "freeze": ("only the head trained in the first {} epochs", (0,)),
    "progressive": ("smaller images in the first epochs ({}, pixels:epochs)", ()),
    "ema": ("exponential moving average of the weights, decay {}", (0,)),
    "average_last": ("mean of the weights at the ends of the last {} epochs", (0,)),
    "mixup": ("mixup, alpha {}", (0,)),
    "cutmix": ("CutMix, alpha {}", (0,)),
    "erase": ("random erasing, probability {}", ()),
    "crop_scale": ("random resized crops of at least {} of the area", (1,)),
    "crop_ratio": ("crops with a ratio of the sides of at most {}", (1,)),
    "augment_more": ("stronger augmentation of some classes {}", ({},)),
    "transform": ("an own transform ({})", ()),
    "sampler": ("classes balanced by sampling ({})", ("none",)),
    "sample_counts": ("images of a class per epoch {}", ({},)),
    "per_person": ("images of a person per epoch {}", ({},)),
    "head_loss": ("losses of the heads {}", ({},)),
    "rebin": ("other bins for training {}", ({},)),
    "weight_column": ("images weighted by the column {}", ()),
    "soft_columns": ("soft labels of the columns {}", ()),
    "soft_weight": ("share of the soft labels in the loss {}", ()),
    "soft_temperature": ("soft labels compared at temperature {}", (1,)),
    "pseudo": ("pseudo-labels of test images by {}", ()),
    "pseudo_confidence": ("pseudo-labels with a probability of at least {}", ()),
    "pseudo_per_class": ("at most {} pseudo-labeled images of a class", ()),
    "pseudo_soft": ("probabilities learned of pseudo-labeled images, not the class", (False,)),
    "pseudo_spread": ("pseudo-labels whose teachers differ by at most {} standard deviations", ()),
    "pseudo_weight": ("weight of a pseudo-labeled image {}", ()),
    "soften_weight": ("share of the votes in softened labels {}", ()),
    "ema_warmup": ("power of the warm-up of the moving average {}", ()),
    "per_person_fixed": ("the same images of a person in every epoch", (False,)),
    "accumulate": ("each batch in {} parts (gradient accumulation)", (1,)),
    "hidden": ("hidden layer of {} units", ()),
    "task": ("task: {}", ("classes",)),
    "class_order": ("order of the grades: {}", ()),
    "positive": ("positive class {}", ()),
    "channels": ("channels {} of each file", ()),
    "frame": ("frame {} of files with several", ()),
    "cache_scale": ("images decoded at {} times the input size", (1,)),
}
# Settings of speed and memory, which a methods text need not name.
UNSAID = frozenset({"channels_last", "compile", "deterministic", "grad_checkpointing"})
_CLASS_BALANCE = ("sampler", "sample_counts", "augment_more")


def to_state(what: str) -> str:
    """Return the gap for what the files do not say."""
    return f"[to state: {what}]"


def sentence(form: str, value: str) -> str:
    """Return ``form`` with its ``{}`` filled in; the gap alone if the value is one."""
    return value if value.startswith("[to state") and value.endswith("]") else form.format(value)


def listed(names: Sequence[str], most: int = MAX_NAMED) -> str:
    """Return ``a, b and c``; names beyond `most` are counted."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def number(value: Any) -> str | None:
    """Return a number of a record as text; None if it is none."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) and value == value else None


def text(value: Any) -> str | None:
    """Return a text of a record; None if it is none, or empty."""
    return value if isinstance(value, str) and value else None


Reader = Callable[[RunRecord], "str | None"]


def setting(key: str) -> Reader:
    """Return the reader of a number or a text in config.toml."""
    return lambda run: number(run.config.get(key)) or text(run.config.get(key))


def resolved(run: RunRecord) -> Mapping[str, Any]:
    """Return what was decided when the run was started."""
    found = run.config.get("resolved")
    return found if isinstance(found, Mapping) else {}


def architecture(run: RunRecord) -> Mapping[str, Any]:
    """Return the architecture of a run."""
    found = resolved(run).get("architecture")
    return found if isinstance(found, Mapping) else {}


def is_frozen(run: RunRecord) -> bool:
    """Return whether only a head on frozen features was trained."""
    return run.config.get("features") is True


def model(run: RunRecord) -> str | None:
    """Return the model of timm, with the arguments that make it another one."""
    found = architecture(run)
    name = text(found.get("timm_name"))
    if name is None:
        named = run.config.get("arch")
        name = named[0] if isinstance(named, list) and len(named) == 1 else named
        return text(name)
    given = found.get("arguments")
    others = {key: value for key, value in given.items() if key != "img_size"} if isinstance(given, Mapping) else {}
    listed_arguments = ", ".join(f"{key} = {value}" for key, value in others.items())
    return f"{name} ({listed_arguments})" if others else name


def size(run: RunRecord) -> str | None:
    """Return the input size: ``224 × 224``, height by width in pixels."""
    height, width = (architecture(run).get(name) for name in ("height", "width"))
    return f"{height} × {width}" if type(height) is int and type(width) is int else None


def initialization(run: RunRecord) -> str | None:
    """Return what the training starts from."""
    given = run.config
    if text(given.get("init_run")):
        return f"the weights of the same fold of the run {given['init_run']}"
    if text(given.get("init")):
        return f"the weights in a file {to_state('which weights, and the data that they were trained on')}"
    if given.get("pretrained") is True:
        return f"timm's pretrained weights {to_state('the data of the pretraining')}"
    return "random weights" if given.get("pretrained") is False else None


def optimizer(run: RunRecord) -> str | None:
    """Return the optimizer by its usual name."""
    found = text(run.config.get("opt"))
    return None if found is None else _OPTIMIZERS.get(found, found)


def loss(run: RunRecord) -> str | None:
    """Return the loss in words, with its label smoothing."""
    found, smoothing = text(run.config.get("loss")), number(run.config.get("label_smoothing"))
    if found is None:
        return None
    return _LOSSES.get(found, found) + (f" with label smoothing {smoothing}" if smoothing not in (None, "0") else "")


def schedule(run: RunRecord) -> str | None:
    """Return the schedule of the learning rate, with its warmup."""
    found, warmup = text(run.config.get("schedule")), number(run.config.get("warmup"))
    if found is None:
        return None
    return found + (
        f" after {warmup} epoch{'' if warmup == '1' else 's'} of warmup" if warmup not in (None, "0") else ""
    )


def augmentation(run: RunRecord) -> str | None:
    """Return the augmentation in words."""
    found = text(run.config.get("augment"))
    if found is None:
        return None
    if run.config.get("crop_scale", 1) != 1 or run.config.get("crop_ratio", 1) != 1:
        return found  # the crop replaces parts of the preset
    return f"{found} ({_ranges(PRESETS[found])})" if found in PRESETS and found != "none" else found


def _ranges(ranges: Augmentation) -> str:
    found = []
    if ranges.flip:
        found.append(f"mirror images with probability {ranges.flip:g}")
    for share, name in ((ranges.scale, "scale"), (ranges.shift, "shift")):
        found += [f"{name} ±{share:.0%}"] if share else []
    found += [f"rotation ±{ranges.rotate:g}°"] if ranges.rotate else []
    light = {name: getattr(ranges, name) for name in ("brightness", "contrast", "saturation") if getattr(ranges, name)}
    if light:
        found.append(f"{listed(list(light))} ±{listed([f'{one:.0%}' for one in dict.fromkeys(light.values())])}")
    found += ["one further operation of random kind and strength"] if ranges.operation else []
    found += [f"random erasing with probability {ranges.erase:g}"] if ranges.erase else []
    return ", ".join(found)


def preprocessing(run: RunRecord) -> str | None:
    """Return how images become inputs."""
    fit, means = text(run.config.get("fit")), text(run.config.get("normalise"))
    if fit is None:
        return None
    resize = _FITS.get(fit.partition(":")[0], fit) + (f" of {fit.partition(':')[2]} pixels" if ":" in fit else "")
    window = text(run.config.get("window"))
    shown = f"intensities {window} mapped to 0–255, " if window else ""
    return shown + resize + (f" and {_MEANS.get(means, means)}" if means else "")


def precision(run: RunRecord) -> str | None:
    """Return the number format of the training."""
    found = text(resolved(run).get("amp"))
    return None if found is None else _PRECISIONS.get(found, found)


def selection(run: RunRecord) -> str | None:
    """Return which epoch was kept, and whether the scored people chose it."""
    keep, patience = run.config.get("keep"), run.config.get("patience", 0)
    if keep not in ("last", "best") or type(patience) is not int:
        return None
    metric = text(run.config.get("metric")) or "score"
    known = METRICS | COLUMN_METRICS
    title = known[metric].title if metric in known else metric  # no code of a user's metric is loaded
    stopped = f", with early stopping after {patience} epochs without a better one" if patience else ""
    if keep == "last":
        return f"the last epoch{stopped}, chosen on the scored people" if patience else "the last epoch"
    return f"the epoch with the best validation {title}{stopped}, chosen on the scored people"


def target(run: RunRecord) -> str | None:
    """Return the attributes that the model has a head for; None if it predicts the label."""
    found = text(run.config.get("target"))
    return None if found in (None, "label") else found


def head(run: RunRecord) -> str | None:
    """Return the head that was trained on frozen features, with what its L2 strength is."""
    kind = text(run.config.get("head"))
    if kind is None:
        return None
    name = {"logistic": "logistic regression", "mlp": "a multilayer perceptron", "linear": "a linear head"}.get(
        kind, kind
    )
    strength, inner = number(run.config.get("l2")), number(run.config.get("inner_folds"))
    if kind == "logistic" and strength is not None:
        return f"{name} with L2 strength {strength}"
    return f"{name} whose L2 strength was chosen by {inner} inner folds over people" if inner is not None else name


def further(run: RunRecord) -> list[str]:
    """Return the settings that most trainings do not use, in words."""
    found = []
    for key, (words, unused) in _FURTHER.items():
        value = run.config.get(key)
        if value is None or value in unused or (isinstance(value, list | str) and not value):
            continue
        found.append(words.format(_plain(value)))
    if text(run.config.get("soft_labels")):
        found.append("soft labels of another model (distillation)")
    for key, words in (("relabel", "some training labels replaced"), ("drop", "some images not learned")):
        found += [words] if text(run.config.get(key)) else []
    found += ["some training labels mixed with votes"] if text(run.config.get("soften")) else []
    return found


def balances(run: RunRecord) -> list[str]:
    """Return what was done about classes of different sizes."""
    found = []
    for key in _CLASS_BALANCE:
        words, unused = _FURTHER[key]
        value = run.config.get(key)
        if value and value not in unused:
            found.append(words.format(_plain(value)))
    kind = loss(run)
    if kind is not None and text(run.config.get("loss")) not in ("ce", "bce"):
        found.append(f"loss: {kind}")
    return found


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_plain(one)}" for key, one in value.items())
    return number(value) or str(value)


def by_run(runs: Sequence[RunRecord], read: Reader, what: str) -> str:
    """Return the value that all runs share, or the values with the names of their runs; a gap if it is not recorded.

    Parameters
    ----------
    what : what is to be stated where it is not recorded.
    """
    groups: dict[str | None, list[str]] = {}
    for run in runs:
        groups.setdefault(read(run), []).append(f"`{run.name}`")
    if len(groups) == 1:
        only = next(iter(groups))
        return to_state(what) if only is None else only
    if len(groups) > MAX_NAMED:
        return f"different for each model (table of the settings){'; ' + to_state(what) if None in groups else ''}"
    return "; ".join(
        f"{to_state(what) if value is None else value} ({listed(names)})" for value, names in groups.items()
    )


COLUMNS: Mapping[str, Reader] = {
    "model": model,
    "input, pixels": size,
    "initial weights": lambda run: (initialization(run) or "").split(" [")[0] or None,
    "epochs": setting("epochs"),
    "optimizer": optimizer,
    "learning rate": setting("lr"),
    "weight decay": setting("weight_decay"),
    "batch, images": setting("batch_size"),
    "schedule": schedule,
    "loss": loss,
    "augmentation": lambda run: text(run.config.get("augment")),
    "further settings": lambda run: "; ".join(further(run)) or None,
    "kept epoch": selection,
    "folds trained": lambda run: f"{len(run.done)} of {run.k}" if run.k else None,
    "seed": setting("seed"),
    "precision": precision,
}
