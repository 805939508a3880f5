"""The settings of a training, where each came from, and the file that records them."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from folds.errors import UsageError, unknown_name
from folds.images.settings import _parse_window, check_fit, parse_size
from folds.optim.schedules import RISING, check_schedule

# A split is made in one way, or is there already.
CONTRADICTIONS = {
    ("folds", "holdout"): "give one of them",
    ("folds", "stratify"): "--folds FILE is a split that is made: ensemble folds --stratify makes one",
    ("folds", "repeats"): "--folds FILE is one split: train each of its repeats by itself, or leave --folds out",
    ("holdout", "repeats"): "--holdout makes one split: give one of them",
}


# A recorded `k` stands beside the `folds` or the `holdout` that it was counted in, so it contradicts neither in one place.
_INSTEAD_OF = {
    "k": ("holdout",),
    "holdout": ("folds", "repeats"),
    "folds": ("holdout", "stratify", "repeats"),
    "stratify": ("folds",),
    "repeats": ("folds", "holdout"),
}


def check_contradictions(given: Mapping[str, bool]) -> None:
    """Refuse two settings that contradict each other; `given` says of each key of `CONTRADICTIONS` whether it is set."""
    for (one, other), hint in CONTRADICTIONS.items():
        if given[one] and given[other]:
            raise UsageError(f"--{one} and --{other} contradict each other", hint=hint)


def displace(values: MutableMapping[str, Any], layer: Mapping[str, Any]) -> None:
    """Take out of `values`, which come from further down in precedence, what those of `layer` stand in the place of."""
    for key in layer:
        for other in _INSTEAD_OF.get(key, ()):
            if other not in layer:
                values.pop(other, None)


KEEP = ("last", "best")
NORMALISE = ("model", "imagenet", "data")
# Peak learning rates of other optimizers, relative to AdamW's.
_RATES = {"sgd": 50.0, "momentum": 50.0, "lion": 0.2}


@dataclass(frozen=True)
class Recipe:
    """How one model is trained. All of it decides the result, all of it is recorded.

    None is decided by `completed`: `lr` 2e-4 from pretrained weights and 1e-3 from random ones, `batch_size` 32, `augment`
    standard, unless the architecture has its own; `warmup` 1 epoch, 0 where the schedule begins low itself. `clip` bounds the gradient norm
    (0: no bound). `ema` is the decay of the averaged weights (0: off). `keep` ``best`` chooses the epoch on the fold
    that is scored, which flatters it: marked optimistic wherever it is shown. `img_size` as ``224`` or
    ``HEIGHTxWIDTH`` (None: the model's own). `window` ``LO,HI`` for images of more than 8 bits.

    `sampler` ``none``, ``balanced``, ``sqrt`` or ``power:A``; `sample_counts` class → images an epoch; `per_person` class or ``attribute=value`` →
    images of one person an epoch, the same in every epoch with `per_person_fixed` (folds/training/sampler.py). `erase` the probability of an erased
    rectangle (None: the preset's), `mixup` and `cutmix` their α (folds/augmentation/mixup.py), `augment_more` class or ``attribute=value`` → a stronger
    preset, `transform` ``module:object`` of the user's own (folds/augmentation/custom.py).

    `target` ``label``, an attribute, or ``mask+gender+age``: one head each (folds/data/targets.py). `head_loss` a loss for heads that have their
    own. `rebin` attribute → ``{column, cuts}``: what is trained on where it is cut at other places than for the score.
    `opt` and `opt_args` an optimizer of timm's; `schedule` and `schedule_args` (folds/optim/schedules.py); `layer_decay` of the learning rate, block by
    block; `accumulate` parts that a batch is computed in; `freeze` epochs in which only the head learns; `patience` epochs without a better
    validation score after which a fold stops (optimistic like `keep` ``best``; 0: off). `normalise` ``model``, ``imagenet``, or ``data``:
    mean and deviation of the fold's own training part. `init_run` a run whose folds these begin with: fine-tuning at another size.
    """

    epochs: int = 15
    batch_size: int | None = None
    lr: float | None = None
    weight_decay: float = 0.05
    warmup: float | None = None
    loss: str = "ce"
    label_smoothing: float = 0.1
    augment: str | None = None
    ema: float = 0.0
    clip: float = 1.0
    keep: str = "last"
    amp: str = "auto"
    channels_last: bool | None = None
    compile: bool = False
    img_size: str | None = None
    fit: str = "squash"
    window: str | None = None
    pretrained: bool | None = None
    init: Path | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    sampler: str = "none"
    sample_counts: dict[str, Any] = field(default_factory=dict)
    per_person: dict[str, Any] = field(default_factory=dict)
    per_person_fixed: bool = False
    erase: float | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    augment_more: dict[str, str] = field(default_factory=dict)
    transform: str | None = None
    target: str = "label"
    head_loss: dict[str, str] = field(default_factory=dict)
    rebin: dict[str, Any] = field(default_factory=dict)
    opt: str = "adamw"
    opt_args: dict[str, Any] = field(default_factory=dict)
    schedule: str = "cosine"
    schedule_args: dict[str, Any] = field(default_factory=dict)
    layer_decay: float = 1.0
    accumulate: int = 1
    grad_checkpointing: bool = False
    freeze: int = 0
    patience: int = 0
    normalise: str = "model"
    init_run: str | None = None
    seed: int = 0

    def completed(self, own: Mapping[str, Any]) -> tuple[Recipe, str]:
        """The recipe with every open setting decided, and the reason for its learning rate.

        Parameters
        ----------
        own : settings that suit the architecture, taken where the user gave none.
        """
        trained = self.pretrained or self.init or self.init_run
        usual, why = (2e-4, "from pretrained weights") if trained else (1e-3, "from random weights")
        if self.opt in _RATES:
            usual, why = usual * _RATES[self.opt], f"{why}, for {self.opt}"
        if self.lr is not None:
            why = "as asked"
        elif "lr" in own:
            why = "suits this small model"
        if self.opt != "adamw":
            own = {key: value for key, value in own.items() if key != "lr"}
        defaults = {
            "lr": usual,
            "batch_size": 32,
            "augment": "standard",
            "warmup": 0.0 if self.schedule in RISING else 1.0,
            **own,
        }
        return replace(self, **{key: value for key, value in defaults.items() if getattr(self, key) is None}), why

    @property
    def selected_on_validation(self) -> bool:
        """Whether something is chosen on the fold that is scored."""
        return self.keep == "best" or self.patience > 0

    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels, or None for the model's own."""
        return None if self.img_size is None else parse_size(self.img_size)

    def value_window(self) -> tuple[float, float] | None:
        """The pixel values that become black and white, or None for the full range of the file."""
        return None if self.window is None else _parse_window(self.window)


@dataclass(frozen=True)
class Settings:
    """What `ensemble kfold` works with besides the recipe; None: not given.

    `stratify` names columns that are spread over the folds besides the label. `repeats` independent partitions and
    `seeds` seeds of training (on the same folds) make a run each.
    """

    data: Path | None = None
    test: Path | None = None
    path: str = "path"
    label: str = "label"
    person: str = "person"
    id: str | None = None
    split: str | None = None
    person_regex: str | None = None
    k: int = 5
    folds: Path | None = None
    holdout: float | None = None
    stratify: tuple[str, ...] = ()
    repeats: int = 1
    repair: bool = True
    seeds: int = 1
    arch: tuple[str, ...] = ("swin",)
    name: str | None = None


_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "epochs": (lambda v: v >= 1, "1 or more"),
    "batch_size": (lambda v: v is None or v >= 2, "2 or more"),
    "lr": (lambda v: v is None or 0 < v < math.inf, "above 0"),
    "weight_decay": (lambda v: 0 <= v < math.inf, "0 or more"),
    "warmup": (lambda v: v is None or 0 <= v < math.inf, "0 or more epochs"),
    "label_smoothing": (lambda v: 0 <= v < 1, "from 0 to below 1"),
    "ema": (lambda v: 0 <= v < 1, "from 0 (off) to below 1"),
    "erase": (lambda v: v is None or 0 <= v <= 1, "from 0 to 1"),
    "mixup": (lambda v: 0 <= v <= 100, "from 0 (off) to 100"),
    "cutmix": (lambda v: 0 <= v <= 100, "from 0 (off) to 100"),
    "clip": (lambda v: 0 <= v < math.inf, "0 (off) or more"),
    "layer_decay": (lambda v: 0 < v <= 1, "above 0, and 1 (off) at most"),
    "accumulate": (lambda v: v >= 1, "1 (off) or more"),
    "freeze": (lambda v: v >= 0, "0 (off) or more epochs"),
    "patience": (lambda v: v >= 0, "0 (off) or more epochs"),
    "seed": (lambda v: 0 <= v < 2**32, "0 or more, below 2**32"),
    "k": (lambda v: v >= 2, "2 or more"),
    "repeats": (lambda v: v >= 1, "1 or more"),
    "seeds": (lambda v: v >= 1, "1 or more"),
    "holdout": (lambda v: v is None or 0 < v < 1, "above 0 and below 1"),
}


def check(settings: Settings, recipe: Recipe) -> None:
    """Refuse impossible values before anything is read or trained."""
    values = asdict(settings) | asdict(recipe)
    if settings.k == 1 and (settings.folds is not None or settings.holdout is not None):
        values["k"] = 2  # the record of a run with one part held out, given again: k is not used
    for key, (fits, expected) in _RANGES.items():
        if not fits(values[key]):
            hint = "one fold has nothing to be validated on; --holdout .2 trains one model" if key == "k" else None
            raise UsageError(f"--{key.replace('_', '-')} must be {expected}, found {values[key]}", hint=hint)
    given = {"folds": settings.folds is not None, "holdout": settings.holdout is not None}
    given |= {"stratify": bool(settings.stratify), "repeats": settings.repeats > 1}
    check_contradictions(given)
    if recipe.seed + settings.seeds > 2**32:
        raise UsageError(f"--seeds {settings.seeds} from --seed {recipe.seed} on go beyond 2**32")
    if recipe.batch_size is not None and recipe.accumulate > recipe.batch_size:
        raise UsageError(
            f"accumulate = {recipe.accumulate}: a batch of {recipe.batch_size} has no so many parts",
            hint=f"accumulate = {recipe.batch_size} at most",
        )
    check_fit(recipe.fit)
    if recipe.keep not in KEEP:
        raise unknown_name("--keep", recipe.keep, KEEP)
    if recipe.normalise not in NORMALISE:
        raise unknown_name("--normalise", recipe.normalise, NORMALISE)
    check_schedule(recipe.schedule, recipe.schedule_args)
    recipe.size()
    recipe.value_window()
    if recipe.init is not None and recipe.pretrained is False:
        raise UsageError("--init FILE and --no-pretrained contradict each other", hint="give one of them")
    if recipe.init is not None and recipe.init_run is not None:
        raise UsageError("--init FILE and --init-run RUN contradict each other", hint="give one of them")
    if not settings.arch:
        raise UsageError("--arch names no architecture", hint="--arch swin or --arch swin,resnet18")


def known_settings() -> dict[str, Any]:
    hints = typing.get_type_hints(Settings) | typing.get_type_hints(Recipe)
    return {f.name: hints[f.name] for f in (*fields(Settings), *fields(Recipe))}


def known_keys() -> tuple[str, ...]:
    """The keys that a settings file may hold."""
    return tuple(known_settings())


def default_of(key: str) -> Any:
    """The default of a key; None where it has none, or nothing as it."""
    for f in (*fields(Settings), *fields(Recipe)):
        if f.name == key and f.default is not MISSING:
            return f.default
    return None
