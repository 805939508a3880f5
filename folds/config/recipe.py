"""Define the settings of a training, each described once, and check their values."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from folds.config.column_tasks import USUAL_LOSS, USUAL_METRIC, check_column_task
from folds.config.combinations import check_combinations
from folds.config.defaults import BATCH_SIZE, Model, fine_tuning, head_rate, learning_rate
from folds.config.frozen import (
    ATTENTION_PERSON,
    DEFAULT_HIDDEN,
    LINEAR,
    LOGISTIC,
    MAX_HIDDEN,
    MLP,
    check_features,
    views_of,
)
from folds.config.presets import PRESETS
from folds.config.setting import (
    DATA,
    FOLDS,
    FROZEN,
    MODEL,
    OPTIMIZER,
    PANELS,
    RUN,
    SAMPLING,
    TRAINING,
    Setting,
    parameter_of,
    setting,
    setting_of,
)
from folds.config.stages import check_stages
from folds.errors import UsageError, unknown_name
from folds.images.settings import (
    channel_count,
    check_channels,
    check_fit,
    parse_channels,
    parse_frame,
    parse_size,
    parse_window,
)
from folds.metrics.task_names import ALL_TASKS, UNCERTAIN
from folds.optim.loss_spec import default_smoothing
from folds.optim.schedules import RISING, SCHEDULES, check_schedule
from folds.optim.weight_decay import default_weight_decay

MAX_TRAININGS = 10_000  # of one command
# Settings that make or choose a split in different ways exclude each other.
CONTRADICTIONS = {
    ("holdout", "k"): "`holdout` makes a single split: give one of them",
    ("folds", "holdout"): "give one of them",
    ("folds", "stratify"): "`folds=FILE` is an existing split; create a stratified one with ensemble folds --stratify",
    ("folds", "repeats"): "`folds=FILE` is one split: train each of its repeats separately, or omit `folds`",
    ("holdout", "repeats"): "`holdout` makes a single split: give one of them",
    ("fold_column", "holdout"): "give one of them",
    ("fold_column", "stratify"): "`fold_column` is an existing split: omit it to make a stratified one",
    ("fold_column", "repeats"): "`fold_column` is one split: omit it to make several",
    **{
        ("leave_out", other): f"`leave_out` makes one fold of each value of a column: omit `{other}`"
        for other in ("k", "folds", "fold_column", "holdout", "stratify", "repeats", "group_within")
    },
    ("folds", "group_within"): "`folds=FILE` is an existing split; create one with ensemble folds --group-within",
    ("fold_column", "group_within"): "`fold_column` is an existing split: omit it to make a balanced one",
}
# Settings that a setting with higher precedence removes. A run records `k` beside its `folds` or `holdout`, so `k` does
# not contradict them within one place.
_REPLACES = {
    "k": ("holdout", "leave_out"),
    "holdout": ("folds", "repeats", "fold_column", "leave_out"),
    "folds": ("holdout", "stratify", "repeats", "leave_out", "group_within"),
    "fold_column": ("folds", "holdout", "stratify", "repeats", "leave_out", "group_within"),
    "stratify": ("folds", "fold_column", "leave_out"),
    "repeats": ("folds", "holdout", "fold_column", "leave_out"),
    "group_within": ("folds", "fold_column", "leave_out"),
    "leave_out": ("k", "folds", "holdout", "fold_column", "stratify", "repeats", "group_within"),
}


def check_contradictions(given: Mapping[str, bool]) -> None:
    """Raise UsageError if two settings contradict each other.

    Parameters
    ----------
    given : key of `CONTRADICTIONS` → whether it is set.
    """
    for (one, other), hint in CONTRADICTIONS.items():
        if given.get(one) and given.get(other):
            raise UsageError(f"`{one}` and `{other}` contradict each other", hint=hint)


def displace(values: MutableMapping[str, Any], layer: Mapping[str, Any]) -> None:
    """Remove from `values`, which have lower precedence, the settings that those of `layer` replace."""
    for key in layer:
        for other in _REPLACES.get(key, ()):
            if other not in layer:
                values.pop(other, None)


KEEP = ("last", "best")
NORMALISE = ("model", "imagenet", "data")


@dataclass(frozen=True)
class Recipe:
    """The settings of the training of one model. They determine the result and are recorded under the names of these
    fields.

    None is replaced by `completed`. `keep` ``best`` and `patience` select on the validation fold that is scored, which
    biases its score; results are marked accordingly. `sample_counts`, `per_person` and `augment_more` have a class or
    ``attribute=value`` as key (folds/training/sampler.py, folds/augmentation/presets.py). `rebin` is attribute →
    ``{column, cuts}``: bins for training that differ from those of the score (folds/data/targets.py).
    """

    epochs: int = setting(15, "epochs of each fold", TRAINING, minimum=1)
    batch_size: int | None = setting(
        None, "images per optimizer step", TRAINING, shown="32; 8 for the small Swin", minimum=2, unit="images"
    )
    lr: float | None = setting(
        None,
        "peak learning rate",
        OPTIMIZER,
        shown="by family and size from pretrained weights, 1e-3 from random ones, × √(batch_size / 32)",
        above=0,
    )
    weight_decay: float | None = setting(
        None,
        "weight decay, not on biases and norms",
        OPTIMIZER,
        shown="0.05; 1e-4 with sgd, 0 with adam and others that add it to the gradient",
        minimum=0,
    )
    warmup: float | None = setting(
        None,
        "epochs of linear warmup",
        OPTIMIZER,
        shown="1; 0 with onecycle and cyclic",
        metavar="EPOCHS",
        minimum=0,
        unit="epochs",
    )
    loss: str = setting(
        USUAL_LOSS,
        "ce, wce, focal, ldam, bce, logit_adjusted, balanced_softmax, f1, for grades corn or cumulative, for several "
        "labels bce, asymmetric or focal, for numbers huber, l1, mse or gaussian; or a sum, e.g. focal:gamma=1+.5*f1",
        TRAINING,
        shown="ce; bce for several labels, huber for numbers",
        metavar="L[+L]",
    )
    label_smoothing: float | None = setting(
        None,
        "share of the target spread over all classes",
        TRAINING,
        shown="0.1 with ce and wce, 0 with other losses",
        minimum=0,
        below=1,
    )
    weight_column: str | None = setting(
        None,
        "column of the table with the weight of each image in the loss; images of weight 0 are only predicted",
        TRAINING,
        metavar="COL",
    )
    soft_columns: str | None = setting(
        None,
        "learn the shares in the columns PREFIX<class>, e.g. of votes; scores use the label",
        TRAINING,
        metavar="PREFIX",
    )
    soft_labels: Path | None = setting(
        None,
        "also learn these class probabilities of the training images, e.g. a blend's out-of-fold predictions",
        TRAINING,
        metavar="FILE.npy",
    )
    relabel: Path | None = setting(
        None,
        "learn other labels: a table with id and new_label; scores use the labels of the data",
        TRAINING,
        metavar="FILE.csv",
    )
    drop: Path | None = setting(
        None, "do not learn these images: a table with id; they are predicted and scored", TRAINING, metavar="FILE.csv"
    )
    soften: Path | None = setting(
        None,
        "mix the label of these images with their out-of-fold votes: id and vote_CLASS, or predictions",
        TRAINING,
        metavar="FILE",
    )
    soften_weight: float | None = setting(
        None,
        "share of the votes in the target of a softened image",
        TRAINING,
        shown="0.5 with soften",
        metavar="SHARE",
        above=0,
        maximum=1,
    )
    pseudo: str | None = setting(
        None,
        "also learn the test images as these runs predict them: fold i from their models of fold i",
        TRAINING,
        metavar="RUN[,RUN]",
    )
    pseudo_confidence: float | None = setting(
        None,
        "smallest probability of the predicted class of a pseudo-labeled image",
        TRAINING,
        shown="0.9 with pseudo",
        metavar="P",
        minimum=0,
        maximum=1,
    )
    pseudo_per_class: int | None = setting(
        None, "pseudo-labeled images of a class at most, the most confident ones", TRAINING, metavar="N", minimum=1
    )
    pseudo_soft: bool | None = setting(
        None, "learn the probabilities of pseudo-labeled images, not the class", TRAINING, shown="no"
    )
    pseudo_weight: float | None = setting(
        None,
        "weight of a pseudo-labeled image in the loss; a labeled one has 1 on average",
        TRAINING,
        shown="1 with pseudo",
        metavar="W",
        above=0,
        maximum=1000,
    )
    soft_weight: float | None = setting(
        None,
        "share of the soft labels in the loss; 1: without the labels of the table",
        TRAINING,
        shown="0.5 with soft_labels, 1 with soft_columns",
        metavar="SHARE",
        above=0,
        maximum=1,
    )
    soft_temperature: float | None = setting(
        None,
        "temperature at which outputs and soft labels are compared; above 1: small probabilities count more",
        TRAINING,
        shown="1 with soft_labels or soft_columns",
        metavar="T",
        above=0,
        maximum=100,
    )
    augment: str | None = setting(
        None,
        "augmentation preset: none, light, standard or strong",
        SAMPLING,
        shown="standard",
        choices=("none", "light", "standard", "strong"),
    )
    ema: float | None = setting(
        None,
        "decay of the exponential moving average of the weights, e.g. 0.999",
        TRAINING,
        shown="0: off",
        minimum=0,
        below=1,
        off=0,
    )
    ema_warmup: float | None = setting(
        None,
        "power of the warm-up of the decay, 1 − (1 + steps)^−power: 1 reaches it sooner, 0: none",
        TRAINING,
        shown="2/3 with ema",
        metavar="POWER",
        minimum=0,
        maximum=2,
        off=0,
    )
    average_last: int = setting(
        0,
        "average the weights at the ends of the last N epochs",
        TRAINING,
        metavar="N",
        minimum=0,
        off=0,
        unit="epochs",
    )
    clip: float = setting(
        1.0, "largest norm of the gradient; 0: no clipping", OPTIMIZER, metavar="NORM", minimum=0, off=0
    )
    progressive: str | None = setting(
        None,
        "train the first epochs at smaller sizes, e.g. 128:5 or 96:3,160:4, the others at img_size",
        TRAINING,
        spelling="progressive_resizing",
        metavar="PX:EPOCHS[,…]",
    )
    keep: str = setting(
        "last",
        "which weights to keep: last, or best (best validation score by --metric; biases the OOF score)",
        TRAINING,
        spelling="select",
        choices=KEEP,
    )
    metric: str = setting(
        USUAL_METRIC,
        "metric of the scores shown, of --select best and of --patience: any that blend knows, or your own function",
        TRAINING,
        shown="macro_f1; roc_auc for several labels, mae for numbers",
        metavar="NAME|module:function",
    )
    amp: str = setting(
        "auto",
        "mixed precision: auto (where the device is faster with it; measured on a CPU), bf16, fp16 or off",
        TRAINING,
        choices=("auto", "bf16", "fp16", "off"),
    )
    channels_last: bool | None = setting(
        None, "memory format channels_last", TRAINING, shown="yes for convolutional models"
    )
    compile: bool = setting(False, "compile the model with torch.compile", TRAINING)
    img_size: str | None = setting(
        None, "input size: 224 or HEIGHTxWIDTH", MODEL, shown="the model's own", metavar="PX", unit="pixels"
    )
    fit: str = setting(
        "squash",
        "how images are resized: squash, crop, crop:PIXELS (of the center) or letterbox",
        MODEL,
        spelling="resize",
        metavar="HOW",
    )
    window: str | None = setting(
        None,
        "intensity range LO,HI mapped to 0–255 for images with more than 8 bits",
        MODEL,
        shown="the file's range",
        metavar="LO,HI",
    )
    channels: tuple[str, ...] | None = setting(
        None,
        "channels of a .npy, TIFF or other file that are read, counted from 0, e.g. 0,3,5; the model follows",
        MODEL,
        shown="red, green, blue",
        metavar="I[,J]",
    )
    frame: str | None = setting(
        None,
        "frame of a DICOM or TIFF of several that is read, counted from 0, or middle",
        MODEL,
        shown="the first",
        metavar="N|middle",
    )
    pretrained: bool | None = setting(None, "start from timm's pretrained weights", MODEL, shown="yes")
    init: Path | None = setting(
        None, "start from the weights in this file", MODEL, spelling="init_weights", metavar="FILE"
    )
    head: str | None = setting(
        None,
        "classifier: linear, or cosine (normalized, logits 30·cosine; cosine:S for another scale), e.g. for ldam; "
        "on frozen features: logistic, linear, mlp, attention over the images of a person, "
        "attention-person (one prediction per person), or relative (with z-scores within the person)",
        MODEL,
        shown="linear; logistic on frozen features",
        metavar="HEAD",
    )
    drop_path: float | None = setting(
        None,
        "stochastic depth: probability that a block is skipped, growing to this one at the last block",
        MODEL,
        shown="the model's own",
        metavar="P",
        minimum=0,
        below=1,
    )
    model_args: dict[str, Any] = setting(dict, "further arguments of the timm model, e.g. {drop_rate = 0.1}", MODEL)
    sampler: str = setting(
        "none",
        "how classes are balanced in an epoch: none (each image once), balanced, sqrt or power:A",
        SAMPLING,
        metavar="HOW",
    )
    sample_counts: dict[str, Any] = setting(dict, "class → images per epoch", SAMPLING, unit="images")
    per_person: dict[str, Any] = setting(
        dict, "class or attribute=value → images per person (group) and epoch", SAMPLING, unit="images"
    )
    per_person_fixed: bool = setting(False, "with per_person: the same images in every epoch", SAMPLING)
    erase: float | None = setting(
        None,
        "probability that a random rectangle is erased",
        SAMPLING,
        spelling="random_erasing",
        shown="the preset's",
        metavar="P",
        minimum=0,
        maximum=1,
    )
    cache_scale: float = setting(
        1.0,
        "size of the decoded images as a multiple of the input, which shows their center; augmentation sees the rest",
        MODEL,
        metavar="FACTOR",
        minimum=1,
        maximum=2,
        off=1,
    )
    crop_scale: float = setting(
        1.0,
        "random resized crop: smallest share of the area, e.g. 0.35; replaces scale and shift of the preset",
        SAMPLING,
        metavar="SHARE",
        minimum=0.05,
        maximum=1,
        off=1,
    )
    crop_ratio: float = setting(
        1.0,
        "random resized crop: largest ratio of its sides, e.g. 1.33 for 3:4 to 4:3",
        SAMPLING,
        metavar="RATIO",
        minimum=1,
        maximum=4,
        off=1,
    )
    mixup: float = setting(
        0.0,
        "alpha of mixup (pairs of images blended), usually 0.2",
        SAMPLING,
        metavar="ALPHA",
        minimum=0,
        maximum=100,
        off=0,
    )
    cutmix: float = setting(
        0.0,
        "alpha of cutmix (a part of one image pasted into another), usually 1",
        SAMPLING,
        metavar="ALPHA",
        minimum=0,
        maximum=100,
        off=0,
    )
    augment_more: dict[str, str] = setting(dict, "class or attribute=value → a stronger preset", SAMPLING)
    transform: str | None = setting(None, "your own transform of the decoded image", SAMPLING, metavar="MODULE:OBJECT")
    target: str = setting(
        "label",
        "prediction target: label, an attribute of it (age), or one head each: mask+gender+age",
        MODEL,
        metavar="A[+B]",
    )
    task: str | None = setting(
        None,
        "what the labels are: classes, binary (two classes, the positive one last), ordinal (grades in order), "
        "multilabel (several labels of an image) or regression (numbers)",
        MODEL,
        shown="by the columns of labels and the names of two classes, else classes",
        choices=ALL_TASKS,
    )
    positive: str | None = setting(
        None, "the positive class of a binary decision", MODEL, shown="by the names of the classes", metavar="CLASS"
    )
    class_order: tuple[str, ...] | None = setting(
        None,
        "with task=ordinal: the classes from the lowest to the highest grade",
        MODEL,
        shown="the order of numbers, or of known words: none, mild, moderate, severe",
        metavar="A,B[,C]",
    )
    head_loss: dict[str, str] = setting(dict, "attribute → loss of its head, where it has its own", TRAINING)
    rebin: dict[str, Any] = setting(
        dict, "attribute → {column, cuts}: other bins for training than for the score", TRAINING
    )
    opt: str = setting("adamw", "optimizer: adamw, adam, sgd, lion, or another of timm's", OPTIMIZER, metavar="NAME")
    opt_args: dict[str, Any] = setting(dict, "further arguments of the optimizer", OPTIMIZER)
    schedule: str = setting(
        "cosine",
        "learning rate schedule: cosine, constant, onecycle, cyclic, step or plateau",
        OPTIMIZER,
        choices=tuple(SCHEDULES),
    )
    schedule_args: dict[str, Any] = setting(dict, "arguments of the schedule", OPTIMIZER)
    layer_decay: float | None = setting(
        None,
        "layer-wise learning rate decay: factor from each block to the one before",
        OPTIMIZER,
        shown="1: off; from pretrained weights 0.75 for ViT-like models, 0.9 for Swin and ConvNeXt",
        above=0,
        maximum=1,
        off=1,
    )
    head_lr: float = setting(
        1.0,
        "learning rate of the head, as a multiple of lr",
        OPTIMIZER,
        metavar="FACTOR",
        above=0,
        maximum=1000,
        off=1,
    )
    accumulate: int = setting(
        1,
        "gradient accumulation: number of parts a batch is split into, to save memory",
        TRAINING,
        spelling="grad_accum",
        metavar="N",
        minimum=1,
        off=1,
    )
    grad_checkpointing: bool = setting(False, "gradient checkpointing: less memory, more time", TRAINING)
    freeze: int = setting(
        0,
        "epochs at the start in which only the head is trained; all: only a head is trained, on frozen features",
        TRAINING,
        spelling="freeze_epochs",
        word="all",
        metavar="EPOCHS|all",
        minimum=0,
        off=0,
        unit="epochs",
    )
    patience: int = setting(
        0,
        "early stopping: epochs without a better validation score (biases the OOF score)",
        TRAINING,
        metavar="EPOCHS",
        minimum=0,
        off=0,
        unit="epochs",
    )
    normalise: str = setting(
        "model",
        "input mean/std: model, imagenet, or data (computed on each fold's training images)",
        MODEL,
        spelling="normalize",
        choices=NORMALISE,
    )
    init_run: str | None = setting(
        None, "start each fold from the same fold of this run: fine-tuning, e.g. at another size", MODEL, metavar="RUN"
    )
    features: bool | None = setting(
        None,
        "train only a head on features of the frozen model, computed once per image (--freeze all)",
        FROZEN,
        shown="no",
    )
    l2: float | None = setting(
        None,
        "L2 strength of the logistic head: loss per image + L2/2 · squared weights",
        FROZEN,
        shown="chosen by inner folds over people",
        above=0,
    )
    inner_folds: int | None = setting(
        None,
        "folds over people within the training part that choose l2",
        FROZEN,
        shown="5",
        metavar="N",
        minimum=2,
        maximum=100,
    )
    hidden: int | None = setting(
        None,
        "units of the hidden layer of the mlp head",
        FROZEN,
        shown="256",
        metavar="N",
        minimum=1,
        maximum=MAX_HIDDEN,
    )
    feature_views: str | None = setting(
        None,
        "views of a training image to compute features of: plain, hflip, vflip, rot180",
        FROZEN,
        shown="plain,hflip",
        metavar="A[,B]",
    )
    seed: int = setting(0, "random seed of the split and of the training", TRAINING, minimum=0, below=2**32)
    deterministic: bool = setting(
        False, "on a GPU: only kernels that give the same bytes again (slower; a CPU always does)", TRAINING
    )

    @property
    def has_weights(self) -> bool:
        """Return whether the training starts from trained weights."""
        return bool(self.pretrained or self.init or self.init_run)

    def completed(self, own: Mapping[str, Any], model: Model | None = None) -> tuple[Recipe, str]:
        """Return the recipe with every open setting decided, and the reason for its learning rate.

        Parameters
        ----------
        own : settings for the architecture, used if the user gave none.
        model : what the defaults for fine-tuning depend on; None for those of an unknown model.
        """
        if self.features:
            return self._completed_head()
        batch_size = self.batch_size or own.get("batch_size", BATCH_SIZE)
        lr, reason = learning_rate(self.has_weights, self.opt, batch_size, own, model)
        defaults = {
            "batch_size": batch_size,
            "augment": "standard",
            "head": LINEAR,
            "warmup": 0.0 if self.schedule in RISING else 1.0,
            "weight_decay": default_weight_decay(self.opt),
            **self._smoothing(),
            "ema": 0.0,
            "layer_decay": 1.0,
            **(fine_tuning(model) if self.has_weights else {}),
            **({} if self.soft_labels is None else {"soft_weight": 0.5, "soft_temperature": 1.0}),
            **({} if self.soft_columns is None else {"soft_weight": 1.0, "soft_temperature": 1.0}),
            **({} if self.soften is None else {"soften_weight": 0.5}),
            **({} if self.pseudo is None else {"pseudo_confidence": 0.9, "pseudo_weight": 1.0}),
            **own,
            "lr": lr,
        }
        names = {described.name for described in fields(self)}
        decided = {key: value for key, value in defaults.items() if key in names and getattr(self, key) is None}
        decided |= {"loss": str(self.loss), "metric": str(self.metric)}  # from here on they are given
        return replace(self, **decided), reason if self.lr is None else "as asked"

    def _smoothing(self) -> dict[str, float | None]:
        """Return the label smoothing of the losses, if it is open."""
        losses = [self.loss, *self.head_loss.values()]
        return {} if self.label_smoothing is not None else {"label_smoothing": default_smoothing(losses)}

    def _completed_head(self) -> tuple[Recipe, str]:
        """Return the recipe of a head on frozen features with every open setting decided."""
        rate, reason = head_rate(self.opt)
        head = self.head or LOGISTIC
        defaults: dict[str, Any] = {
            "lr": rate,
            "batch_size": 64,
            "augment": "none",
            "warmup": 0.0 if self.schedule in RISING else 1.0,
            "weight_decay": default_weight_decay(self.opt),
            **({"label_smoothing": 0.0} if head == LOGISTIC else self._smoothing()),
            "ema": 0.0,
            "layer_decay": 1.0,
            **({} if self.soft_labels is None else {"soft_weight": 0.5, "soft_temperature": 1.0}),
            **({} if self.soft_columns is None else {"soft_weight": 1.0, "soft_temperature": 1.0}),
            "head": head,
            "feature_views": "plain,hflip",
            **({"inner_folds": 5} if head == LOGISTIC and self.l2 is None else {}),
            **({"hidden": DEFAULT_HIDDEN} if head == MLP else {}),
        }
        decided = {key: value for key, value in defaults.items() if getattr(self, key) is None}
        decided |= {"epochs": 1} if head == LOGISTIC else {}  # it is fitted, not trained
        decided |= {"loss": str(self.loss), "metric": str(self.metric)}
        return replace(self, **decided), reason if self.lr is None else "as asked"

    @property
    def views(self) -> tuple[str, ...]:
        """Return the views of a training image whose features are computed, the image itself first."""
        return views_of(self.feature_views)

    @property
    def selected_on_validation(self) -> bool:
        """Return whether epochs are selected on the fold that is scored."""
        return self.keep == "best" or self.patience > 0

    def size(self) -> tuple[int, int] | None:
        """Return (height, width) in pixels, or None for the model's default."""
        return None if self.img_size is None else parse_size(self.img_size)

    def value_window(self) -> tuple[float, float] | None:
        """Return the pixel values that become black and white, or None for the full range of the file."""
        return None if self.window is None else parse_window(self.window)

    def chosen_channels(self) -> tuple[int, ...]:
        """Return the channels of a file that are read; () for those of color."""
        return () if self.channels is None else parse_channels(",".join(self.channels))

    def chosen_frame(self) -> int | str | None:
        """Return the frame of a file of several that is read; None for the first."""
        return None if self.frame is None else parse_frame(self.frame)


@dataclass(frozen=True)
class Settings:
    """The settings of `ensemble kfold` besides the recipe; None if not given."""

    data: Path | None = setting(
        None,
        "a CSV, class folders, or the mask-competition layout",
        DATA,
        shown="./data, else synthetic faces",
        metavar="PATH",
    )
    test: Path | None = setting(
        None, "further images to predict: a CSV or a folder, with or without labels", DATA, metavar="PATH"
    )
    path: str = setting(
        "path", "CSV column of the image path", DATA, shown="path, a known name, or the id", metavar="COL"
    )
    label: str = setting(
        "label",
        "CSV column of the class; A,B,C: one-hot columns, several labels or numbers",
        DATA,
        shown="label, or a known name: target, class, dx",
        metavar="COL",
    )
    person: str = setting(
        "person",
        "CSV column of the person (group): its images are never split over folds; auto-copies: groups of copies",
        DATA,
        aliases=("group",),
        shown="person, or a known name: patient_id, subject",
        metavar="COL",
    )
    id: str | None = setting(
        None, "CSV column of the sample id", DATA, shown="id, or a known name: image_id; else the path", metavar="COL"
    )
    split: str | None = setting(None, "CSV column whose value 'test' holds a row out of the folds", DATA, metavar="COL")
    images: tuple[str, ...] | None = setting(
        None,
        "folder of the images that a CSV names; suffixes may be missing there",
        DATA,
        shown="the CSV's own",
        metavar="DIR[,DIR]",
    )
    test_images: tuple[str, ...] | None = setting(
        None, "the same for the images of the test table", DATA, shown="as for images", metavar="DIR[,DIR]"
    )
    stack: tuple[str, ...] | None = setting(
        None,
        "CSV columns of the files of one sample, each of which is one channel, e.g. t1,t2,flair; in place of path",
        DATA,
        metavar="COL,COL[,…]",
    )
    test_labels: bool | None = setting(
        None,
        "whether the labels of the test table are labels, not the placeholder of a sample submission",
        DATA,
        shown="yes, unless all are equal",
    )
    missing_persons: str | None = setting(
        None,
        "images whose person is empty, unknown, -1, …: own (each is its own person) or keep (a person of that name)",
        DATA,
        shown="an error",
        metavar="HOW",
        choices=("own", "keep"),
    )
    label_of: str | None = setting(
        None,
        "person: only persons are labeled; every image takes the label of its person, and scores are by person",
        DATA,
        shown="image",
        metavar="person",
        choices=("person",),
    )
    uncertain: str | None = setting(
        None,
        "what -1, an uncertain one of several labels, is read as: unknown (an empty cell), absent (0) or present (1)",
        DATA,
        shown="an error",
        metavar="HOW",
        choices=UNCERTAIN,
    )
    merge_spellings: bool | None = setting(
        None, "treat spellings of one name (12 and 12.0, Cat and cat) as one person, one class", DATA, shown="no"
    )
    skip_unusable: bool | None = setting(
        None, "leave out images that cannot be decoded, and name them", DATA, shown="no: an error"
    )
    max_pixels: int | None = setting(
        None,
        "largest image that is decoded; a larger one counts as a decompression bomb",
        DATA,
        shown="178956970",
        metavar="N",
        minimum=1,
        unit="pixels",
    )
    person_regex: str | None = setting(
        None,
        "regular expression that finds the person in the image path",
        DATA,
        aliases=("group_regex",),
        metavar="REGEX",
    )
    k: int = setting(
        5,
        "number of folds",
        FOLDS,
        short="-k",
        minimum=2,
        hint="one fold leaves no validation data; `holdout=.2` trains one model",
    )
    folds: Path | None = setting(
        None,
        "use this split, e.g. of ensemble folds -o FILE",
        FOLDS,
        shown="kfold: ./folds.csv, if it fits the table and k",
        metavar="FILE",
    )
    fold_column: str | None = setting(
        None, "use the folds in this column of the table, 0 to k-1 or 1 to k", FOLDS, metavar="COL"
    )
    holdout: float | None = setting(
        None,
        "one model: hold out this share of the persons instead of k folds",
        FOLDS,
        metavar="SHARE",
        above=0,
        below=1,
    )
    stratify: tuple[str, ...] = setting(
        (),
        "balance these columns over the folds too, e.g. gender,source; the label always is",
        FOLDS,
        metavar="COL[,COL]",
    )
    group_within: str | None = setting(
        None,
        "balance this column (site, camera) over the folds too; persons stay whole",
        FOLDS,
        metavar="COL",
    )
    leave_out: str | None = setting(
        None,
        "one fold for each value of this column (site, camera): what a new one would see; persons stay whole",
        FOLDS,
        metavar="COL",
    )
    repeats: int = setting(
        1,
        "independent splits into k folds, one run each: NAME, NAME-r1, …",
        FOLDS,
        metavar="R",
        minimum=1,
        maximum=1000,
    )
    repair: bool = setting(True, "move persons where scikit-learn's split lacks a class or is unbalanced", FOLDS)
    seeds: int = setting(
        1,
        "training seeds on the same folds, one run each: NAME, NAME-s1, …",
        FOLDS,
        metavar="N",
        minimum=1,
        maximum=1000,
    )
    arch: tuple[str, ...] = setting(
        ("swin",), "models, by short name or timm id: swin,resnet18", MODEL, metavar="A[,B]"
    )
    name: str | None = setting(None, "name of the run", RUN, shown="the architecture")
    preset: str | None = setting(
        None,
        "how much time a training may take: quick, good or best; it decides settings that you do not give",
        TRAINING,
        choices=tuple(PRESETS),
    )


@lru_cache(maxsize=1)
def all_settings() -> dict[str, Setting]:
    """Return every setting, by key: those of `Settings`, then those of `Recipe`."""
    return {
        described.name: setting_of(described, typing.get_type_hints(owner)[described.name])
        for owner in (Settings, Recipe)
        for described in fields(owner)
    }


@lru_cache(maxsize=1)
def _keys() -> dict[str, str]:
    return {spelling: one.key for one in all_settings().values() for spelling in one.spellings}


def key_of(name: str) -> str | None:
    """Return the key of a setting from any of its spellings, with ``-`` or ``_``; None for other names."""
    return _keys().get(name.replace("-", "_"))


def spelling_of(key: str) -> str:
    """Return the preferred spelling of a key (or of another spelling); other names are returned unchanged."""
    known = key_of(key)
    return key if known is None else all_settings()[known].spelling


def spellings_of(keys: Iterable[str]) -> list[str]:
    """Return all spellings of these keys, the preferred ones first; other names are kept unchanged."""
    known = [all_settings()[key].spellings if key in all_settings() else (key,) for key in keys]
    return [names[0] for names in known] + [name for names in known for name in names[1:]]


def known_hint(keys: Iterable[str] | None = None) -> str:
    """Return the hint of an error about an unknown setting: the preferred spellings of these keys, or of all."""
    return "known: " + ", ".join(spelling_of(key) for key in (all_settings() if keys is None else keys))


def by_key(values: Mapping[str, Any], location: str = "") -> dict[str, Any]:
    """Return values by key from values by any spelling; None ("not given") is omitted.

    Parameters
    ----------
    location : text in front of errors.

    Raises
    ------
    UsageError : an unknown setting (the closest names are suggested), or two spellings of one setting.
    """
    given: dict[str, tuple[str, Any]] = {}
    prefix = f"{location}: " if location else ""
    for name, value in values.items():
        if value is None:
            continue
        key = key_of(name)
        if key is None:
            error = unknown_name("setting", name, spellings_of(all_settings()), hint=known_hint())
            raise UsageError(f"{prefix}{error.message}", hint=error.hint)
        if key in given:
            raise UsageError(
                f"{prefix}`{given[key][0]}` and `{name}` are two spellings of one setting", hint="give one of them"
            )
        given[key] = name, value
    return _freeze_all({key: value for key, (_, value) in given.items()}, prefix)


def _freeze_all(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return the settings with ``freeze=all`` as `features`, which it is another name of."""
    if values.get("freeze") != all_settings()["freeze"].word:
        return values
    if str(values.get("features", True)).lower() in ("false", "no", "0"):
        raise UsageError(f"{prefix}`freeze=all` and `features=False` contradict each other", hint="give one of them")
    return {key: value for key, value in values.items() if key != "freeze"} | {"features": True}


def setting_parameters() -> list[inspect.Parameter]:
    """Return all settings as keyword parameters of a Python function, by their preferred spellings, in the order of
    ``--help``.
    """
    by_panel = sorted(all_settings().values(), key=lambda one: PANELS.index(one.panel))
    return [parameter_of(one) for one in by_panel]


def check(settings: Settings, recipe: Recipe) -> None:
    """Raise UsageError for impossible values, before data are read or models trained."""
    values = asdict(settings) | asdict(recipe)
    if settings.k == 1 and {settings.folds, settings.holdout, settings.fold_column} != {None}:
        values["k"] = 2  # the record of a run with `holdout` or `folds`, given again: k is not used
    for key, described in all_settings().items():
        described.check(values[key])
    given = {"folds": settings.folds is not None, "holdout": settings.holdout is not None}
    given |= {"fold_column": settings.fold_column is not None}
    given |= {"stratify": bool(settings.stratify), "repeats": settings.repeats > 1}
    given |= {name: getattr(settings, name) is not None for name in ("group_within", "leave_out")}
    check_contradictions(given)
    if settings.name is not None and (settings.name.startswith(".") or not {"/", "\\"}.isdisjoint(settings.name)):
        raise UsageError(
            f"`name={settings.name}`: expected a name of letters, digits, '-', '_' or '.', found a path",
            hint="`name=first` writes runs/first",
        )
    if recipe.seed + settings.seeds > 2**32:
        raise UsageError(f"`seeds={settings.seeds}` from `seed={recipe.seed}` on go beyond 2**32")
    trainings = settings.seeds * settings.repeats * len(settings.arch) * (1 if settings.holdout else settings.k)
    if trainings > MAX_TRAININGS and settings.seeds * settings.repeats > 1:
        raise UsageError(
            f"{settings.repeats:,} repeats × {settings.seeds:,} seeds × {len(settings.arch):,} models of "
            f"{settings.k:,} folds are {trainings:,} trainings, more than {MAX_TRAININGS:,}",
            hint="fewer `repeats`, `seeds` or `k`, or several commands",
        )
    if recipe.batch_size is not None and recipe.accumulate > recipe.batch_size:
        raise UsageError(
            f"`grad_accum` must not exceed `batch_size` ({recipe.batch_size}), found {recipe.accumulate}",
            hint=f"`grad_accum={recipe.batch_size}` at most",
        )
    check_fit(recipe.fit)
    check_schedule(recipe.schedule, recipe.schedule_args)
    recipe.size()
    recipe.value_window()
    recipe.chosen_frame()
    _check_channels(recipe, settings.stack or ())
    check_stages(recipe.progressive, recipe.epochs)
    if recipe.init is not None and recipe.pretrained is False:
        raise UsageError("`init_weights=FILE` and `pretrained=False` contradict each other", hint="give one of them")
    check_combinations(recipe)
    check_column_task(recipe)
    check_features(recipe)
    if recipe.init is not None and recipe.init_run is not None:
        raise UsageError("`init_weights=FILE` and `init_run=RUN` contradict each other", hint="give one of them")
    if not settings.arch:
        raise UsageError("`arch` names no architecture", hint="`arch=swin` or `arch=swin,resnet18`")


def _check_channels(recipe: Recipe, stack: tuple[str, ...]) -> None:
    """Raise UsageError if the channels of images do not fit each other, or the other settings."""
    channels = recipe.chosen_channels()
    check_channels(channels, stack)
    count = channel_count(channels, stack)
    if count != 3 and recipe.normalise == "imagenet":
        raise UsageError(
            f"`normalize=imagenet` has the mean and std of 3 channels, and the images have {count}",
            hint="`normalize=data`, which is used without `normalize`, too",
        )
    if count != 3 and recipe.transform is not None:
        raise UsageError(
            f"`transform` changes images of 3 channels, and these have {count}",
            hint="leave it out, or choose 3 channels",
        )


# Settings of fine-tuning that a head on frozen features has no use for.
UNUSED_BY_HEADS = (
    *("augment", "erase", "mixup", "cutmix", "augment_more", "transform", "layer_decay", "accumulate"),
    *("grad_checkpointing", "compile", "ema", "ema_warmup", "freeze", "head_lr"),
    *("cache_scale", "crop_scale", "crop_ratio", "progressive"),
)
OF_GRADIENTS = ("epochs", "batch_size", "lr", "weight_decay", "warmup", "opt", "opt_args", "schedule", "schedule_args")


def features_notes(recipe: Recipe) -> list[str]:
    """Return what a user should know about the settings of a head on frozen features, a line each; [] without one."""
    if not recipe.features:
        return []
    lines = []
    unused = list(UNUSED_BY_HEADS)
    if recipe.head in (None, LOGISTIC):
        unused += [*OF_GRADIENTS, "label_smoothing", "clip"]
    default = {name: all_settings()[name].default for name in unused}
    decided = replace(recipe, **default).completed({})[0]  # what a record of a run has, although it was not asked for
    given = [
        spelling_of(name) for name in unused if getattr(recipe, name) not in (default[name], getattr(decided, name))
    ]
    if recipe.head == ATTENTION_PERSON:
        lines.append(
            f"`head={ATTENTION_PERSON}`: one prediction per person, written for each of the person's images, so that "
            "files stay aligned; scores by person (`per_person`) are its own"
        )
    if given:
        lines.append(
            f"not used by {recipe.head or LOGISTIC} on frozen features: {', '.join(f'`{name}`' for name in given)}; of "
            f"each image only the views {', '.join(decided.views)} are used"
        )
    if not (recipe.pretrained or recipe.init or recipe.init_run):
        lines.append(
            "the frozen model has random weights: its features are near random. `init_weights=FILE`, `init_run=RUN` or "
            "`pretrained=True` gives it trained ones"
        )
    return lines


def known_settings() -> dict[str, Any]:
    """Return the type of each setting, by key."""
    return {key: one.kind for key, one in all_settings().items()}


# Settings that had a fixed default and now depend on others, such as the optimizer or the model.
_FORMER = {"weight_decay": 0.05, "label_smoothing": 0.1, "ema": 0.0, "layer_decay": 1.0, "head": LINEAR}


def default_of(key: str) -> Any:
    """Return the default of a setting, by any spelling; None if it has none or is an empty table.

    It is also the value of a record that does not have the setting.
    """
    known = key_of(key)
    if known in _FORMER:
        return _FORMER[known]
    default = None if known is None else all_settings()[known].default
    return None if default == {} else default
