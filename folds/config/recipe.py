"""Define the settings of the training of a model, each described once.

The module is long because it is one list. The order of the fields is the order of records, of ``--help`` and of
docs/settings.md, and in it settings of different groups stand between each other, so that groups could not be classes
of their own. The settings of the table, the folds and the names of runs are in `command_settings`; what is done with
settings is in `lookup`, `checks` and `contradictions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from folds.config.column_tasks import USUAL_LOSS, USUAL_METRIC
from folds.config.defaults import BATCH_SIZE, Model, fine_tuning, head_rate, learning_rate
from folds.config.frozen import DEFAULT_HIDDEN, LINEAR, LOGISTIC, MAX_HIDDEN, MLP, views_of
from folds.config.setting import FROZEN, MODEL, OPTIMIZER, SAMPLING, TRAINING, setting
from folds.images.settings import parse_channels, parse_frame, parse_size, parse_window
from folds.metrics.task_names import ALL_TASKS, REGRESSION
from folds.optim.loss_spec import default_smoothing
from folds.optim.schedules import RISING, SCHEDULES
from folds.optim.weight_decay import default_weight_decay

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
        "also learn these predictions of the training images, e.g. a blend's out-of-fold probabilities",
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
        "smallest probability of the predicted class of a pseudo-labeled image, or of the answer for each label",
        TRAINING,
        shown="0.9 with pseudo; not of numbers",
        metavar="P",
        minimum=0,
        maximum=1,
    )
    pseudo_per_class: int | None = setting(
        None, "pseudo-labeled images of a class at most, the most confident ones", TRAINING, metavar="N", minimum=1
    )
    pseudo_spread: float | None = setting(
        None,
        "largest difference between several teachers of a number, in its standard deviations",
        TRAINING,
        shown="no limit",
        metavar="S",
        minimum=0,
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
            **({} if self.pseudo is None else {"pseudo_weight": 1.0}),
            **({} if self.pseudo is None or self.task == REGRESSION else {"pseudo_confidence": 0.9}),
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
