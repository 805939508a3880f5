"""Train one fold: train a model on the other folds, predict this fold, and save predictions and checkpoint."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folds.augmentation.pool import TransformPool, close_kept_pool, kept_pool
from folds.config.recipe import Recipe
from folds.data.targets import Target
from folds.errors import EnsembleError
from folds.images.channel_sums import mean_std
from folds.metrics.task_names import REGRESSION
from folds.models.accelerators import has_tunable_kernels, prefers_channels_last, scaler_of
from folds.models.checkpoint import Checkpoint, hash_ids, hash_labels, load_checkpoint, save_checkpoint
from folds.models.factory import Architecture, create_model, is_convolutional
from folds.models.inference import PixelSource
from folds.models.memory import DeviceSharedError, is_out_of_memory
from folds.models.number_head import Units, set_units, units_of_model, units_of_numbers
from folds.models.pretrained import PretrainedWeights
from folds.optim.ema import DEFAULT_POWER
from folds.optim.optimizers import build_optimizer
from folds.predictions.file_names import FOLD_DONE, FOLD_STATE
from folds.predictions.files import LABEL
from folds.predictions.links import predictions_of
from folds.splits.assignment import FoldAssignment, read_folds
from folds.training.amp import decide_amp
from folds.training.context import FoldContext
from folds.training.ema import MovingAverage
from folds.training.examples import class_codes, examples_of, learned_rows, trained_rows
from folds.training.group import Group
from folds.training.job import LOCK_SECONDS, REFIT_TEST, Job
from folds.training.loop import Report, run_epochs
from folds.training.ranks import started_group
from folds.training.resolve import augmentation_index, augmentations, epochs_of, target_of
from folds.training.scores import fold_scores
from folds.training.stages import trained_architecture
from folds.training.state import Progress, StateReader, StateWriter, TrainingState
from folds.training.versions import versions_of_training
from folds.utils.files import derive_seed, read_json, remove_stale_temporaries, write_atomic, write_json
from folds.utils.locks import exclusive_lock

# The compiled model of this process: compiling takes a minute, and the folds of a run share one model.
_compiled: dict[str, tuple[torch.nn.Module, Callable[[Tensor], Tensor]]] = {}


def train_fold(
    job: Job,
    report: Report = lambda event: None,
    train: Callable[[Job, Report], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Train one fold, from its last saved state if there is one, and return the content of its done.json.

    It writes the predictions, the checkpoint and, last, done.json.

    Parameters
    ----------
    train : the training itself, under the lock of the job; None to fine-tune the model.
    report : called with ``{"event": "step", "done": …, "total": …}``, ``{"event": "epoch", …}`` and ``{"event": "note",
        "text": …}``.

    Raises
    ------
    EnsembleError : another process trains this fold, the loss is not finite, the memory is too small even for one image
        at a time, or a file cannot be written.
    DeviceSharedError : the memory is too small, and the job shares its device (`Job.gives_way`).
    """
    try:
        with exclusive_lock(job.lock, job.title, wait=LOCK_SECONDS):
            if (job.fold_dir / FOLD_DONE).exists():  # finished by a process that was lost before it reported this
                return read_json(job.fold_dir / FOLD_DONE)
            remove_stale_temporaries(job.fold_dir)
            remove_stale_temporaries(Path(job.checkpoint).parent, Path(job.checkpoint).name)
            return (train or _train)(job, report)
    except RuntimeError as error:
        if "deterministic" in str(error) and job.recipe.get("deterministic"):
            reason = " ".join(str(error).split())[:200]
            raise EnsembleError(
                f"{job.title}: the model needs a kernel that is not deterministic: {reason}",
                hint="start another run (`name=NEW`) without `deterministic`",
            ) from None
        if not is_out_of_memory(error):
            raise
        if job.gives_way:
            raise DeviceSharedError(f"{job.title}: out of memory on {job.shown_device}") from None
        raise EnsembleError(
            f"{job.title}: out of memory on {job.shown_device}: the model, the state of its optimizer and one batch of "
            "images do not fit",
            hint="use a smaller model, `batch_size` or `img_size`, or `jobs=1` if several jobs train on this device",
        ) from None


@dataclass(frozen=True)
class _Fold:
    """A fold ready for training.

    Attributes
    ----------
    assignment : the rows of the table with their folds.
    model : the model with its initial weights, on its device.
    forward : the model or its compiled form, for training.
    """

    assignment: FoldAssignment
    context: FoldContext
    model: torch.nn.Module
    forward: Callable[[Tensor], Tensor]


def _train(job: Job, report: Report) -> dict[str, Any]:
    """Build, fit, predict, save; return the content of done.json."""
    if job.recipe.get("features"):  # fine-tuned instead, it would look right
        raise EnsembleError(f"{job.title}: heads on frozen features are trained by `folds.features.train.train_job`")
    with started_group(job, report) as group:
        fold, state, logits = _trained(job, report, group)
    sha = save_checkpoint(Path(job.checkpoint), _checkpoint(fold))
    done = _record(fold.context, state.progress, logits, sha)
    write_json(job.fold_dir / FOLD_DONE, done)
    with suppress(OSError):  # the state is not needed after the training
        (job.fold_dir / FOLD_STATE).unlink()
    return done


def train_part(job: Job, group: Group) -> None:
    """Train a fold as one of the further processes of `group`, which write no files."""
    _trained(job, lambda event: None, group)


def _trained(job: Job, report: Report, group: Group | None) -> tuple[_Fold, TrainingState, NDArray[np.float32]]:
    """Build, fit and predict; return the fold, its state, and (n, classes) the logits of the validation part."""
    torch.set_num_threads(max(1, job.threads // (1 if group is None else group.size)))
    _set_numerics(job)
    fold = _build(job, group)
    state, logits = _fit(fold, report)
    return fold, state, _predict(fold, logits)


def _set_numerics(job: Job) -> None:
    """Choose the kernels of a GPU: the fastest ones, or with `deterministic` those that give the same bytes again.

    Set for every job, because the next job of this process may want the other kind.
    """
    deterministic = bool(job.recipe.get("deterministic"))
    torch.use_deterministic_algorithms(deterministic)
    if not has_tunable_kernels(job.device):
        return
    # Read when cuBLAS is first used; without it deterministic products are an error.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = deterministic
    # Shapes are the same at almost every step, so trying the algorithms once pays.
    torch.backends.cudnn.benchmark = not deterministic
    # Convolutions in fp32 use TF32 by default, matrix products do not: both or neither.
    torch.set_float32_matmul_precision("highest" if deterministic else "high")


def _build(job: Job, group: Group | None = None) -> _Fold:
    """Read the rows, targets and pixels of a job, and build its model with the initial weights."""
    transform = _transform(job)  # first, so that its processes start while the rest is read
    # All settings are resolved (Recipe.completed), so a setting that is None is off.
    recipe = Recipe(**{**job.recipe, "init": Path(job.recipe["init"]) if job.recipe.get("init") else None})
    assignment = read_folds(Path(job.folder) / "folds.csv")
    codes, labeled = class_codes(job, assignment)
    target = target_of(recipe, job.classes, job.class_attributes)
    training, validation = _parts(job, assignment)
    more = Path(job.test_pixels) if job.pseudo is not None and job.test_pixels is not None else None
    pixels = PixelSource.of(Path(job.pixels), job.device, job.memory_fraction, more)
    examples = examples_of(job, recipe, target, assignment, training, labeled)
    training = trained_rows(examples, len(codes))
    architecture = Architecture(**job.architecture)
    if recipe.normalise == "data":
        table = getattr(pixels.values, "parts", (pixels.values,))[0]  # test images that are learned come after it
        mean, std = mean_std(table, training, file=Path(job.pixels), threads=job.threads)
        architecture = replace(architecture, mean=tuple(mean.tolist()), std=tuple(np.maximum(std, 1e-3).tolist()))
    seed = (recipe.seed, job.run, job.fold)
    attributes = job.class_attributes
    epochs = epochs_of(recipe, target, job.classes, attributes, examples.rows, examples.codes, examples.persons, seed)
    colors = not (job.images.get("channels") or job.images.get("stack"))
    in_use, class_index = augmentations(recipe, job.classes, attributes, colors)
    model, forward, channels_last = _model(job, recipe, architecture, target.outputs)
    training_labels, soft_labels = target.encode_heads(examples.codes), examples.soft_labels
    if target.task == REGRESSION:
        units = _units(model, job, target, examples.codes, training)
        training_labels = units.standardize(examples.codes)
        soft_labels = None if soft_labels is None else units.standardize(soft_labels.astype(np.float64))
    context = FoldContext(
        job=job,
        recipe=recipe,
        architecture=architecture,
        pixels=pixels,
        target=target,
        labels=target.encode_scored(codes),
        training_labels=training_labels,
        training=training,
        validation=validation,
        epochs=epochs,
        augmentations=in_use,
        augmentation_index=augmentation_index(class_index, examples.codes),
        transform=transform,
        amp=decide_amp(job),
        channels_last=channels_last,
        soft_labels=soft_labels,
        weights=examples.weights,
        targets=examples.targets,
        pseudo_ids=examples.pseudo_ids,
        group=group,
        persons=None if job.person_metric is None else assignment.persons,
    )
    return _Fold(assignment, context, model, forward)


def _units(
    model: torch.nn.Module, job: Job, target: Target, values: NDArray[np.float64], training: NDArray[np.int64]
) -> Units:
    """Set the units of the head of a model to those of numbers (n, columns), and return them.

    They are those of the training part; a head with weights of another run of these numbers keeps the units that these
    are for.
    """
    own = units_of_numbers(values[training], target.classes)
    units = units_of_model(model)
    if job.init is None or units.are_usual:
        set_units(model, own)
        units = own
    return units


def _is_of_same_numbers(job: Job, recipe: Recipe) -> bool:
    """Return whether the head of the initial weights of a job may be loaded: that of other numbers has other units."""
    if recipe.task != REGRESSION or job.init is None:
        return True
    return tuple(load_checkpoint(Path(job.init)).classes) == tuple(job.classes)


def _transform(job: Job) -> TransformPool | None:
    """Return the user's transform, on a GPU in processes that the next job of this process uses again.

    On a CPU the model needs the cores, and the transform runs in this process.
    """
    name = job.recipe.get("transform")
    if name is None:
        close_kept_pool()
        return None
    return kept_pool(name, 0 if job.device == "cpu" else job.threads, job.fold_dir)


def _fit(fold: _Fold, report: Report) -> tuple[TrainingState, NDArray[np.float32] | None]:
    """Train from the last saved state, if there is one, to the last epoch; the model gets the final weights.

    Return the state, and the logits of the validation part if `run_epochs` has computed those to store.
    """
    context = fold.context
    state = _initial_state(fold.model, context.recipe, context.amp, context.device)
    writer = StateWriter(context.job.fold_dir) if context.writes else StateReader(context.job.fold_dir)
    try:
        writer.restore(state)
        logits = run_epochs(context, state, writer, fold.forward, report)
        writer.wait()
    finally:
        writer.close()
        if context.transform is not None:
            context.transform.abandon()
    return state, logits


def _predict(fold: _Fold, known: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Write oof.npy and, if there are test images, test.npy; return (n, classes) the logits of the validation part.

    `known` are these logits, if they are known already.

    A model of all people has no validation part, so it has no out-of-fold predictions.
    """
    context, job = fold.context, fold.context.job
    logits = np.zeros((0, len(context.target.classes)), np.float32) if known is None else known
    if job.refit is None:
        if known is None:
            logits = context.logits(fold.model, context.pixels, context.validation, stored=True)
        _save_array(context, "oof.npy", predictions_of(context.target.task, logits))
    if job.test_pixels is not None:
        test = PixelSource.of(Path(job.test_pixels), job.device, job.memory_fraction)
        name = "test.npy" if job.refit is None else REFIT_TEST
        outputs = context.logits(fold.model, test, np.arange(len(test)), stored=True)
        _save_array(context, name, predictions_of(context.target.task, outputs))
    return logits


def _checkpoint(fold: _Fold) -> Checkpoint:
    """Return the checkpoint of the trained model."""
    context, job, rows = fold.context, fold.context.job, fold.assignment
    target, validation = context.target, hash_ids(rows.ids[context.validation].tolist())
    labels_sha = hash_labels(validation, rows.labels[context.validation].tolist()) if job.refit is None else None
    return Checkpoint(
        run=job.run,
        fold=job.fold,
        k=job.k,
        architecture=context.architecture,
        weights={
            name: value.detach().to("cpu", memory_format=torch.contiguous_format)
            for name, value in fold.model.state_dict().items()
        },
        classes=target.classes,
        class_attributes=job.class_attributes if target.name == LABEL else {},
        target=target.name,
        heads=target.head_names,
        images=job.images,
        data=job.data,
        recipe={key: str(value) if isinstance(value, Path) else value for key, value in job.recipe.items()}
        | job.teacher,
        amp=context.amp,
        training_hashes=hash_ids(rows.ids[context.training].tolist()),
        validation_hashes=validation,
        pseudo_hashes=hash_ids(context.pseudo_ids),
        labels_sha=labels_sha,
        folds_sha=job.folds_sha,
        versions=versions_of_training(job.versions),
        selected_on_validation=context.selected_on_validation,
        refit=job.refit,
    )


def _parts(job: Job, assignment: FoldAssignment) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to train on and the rows to validate on; a refit trains on all rows that are learned."""
    if job.refit is not None:
        return learned_rows(job, assignment, np.arange(len(assignment))), np.zeros(0, np.int64)
    return learned_rows(job, assignment, assignment.training_index(job.fold)), assignment.validation_index(job.fold)


def _record(
    context: FoldContext, progress: Progress, logits: NDArray[np.float32], checkpoint_sha: str
) -> dict[str, Any]:
    """Return the content of done.json: scores on the validation part, and the time and resources of the training."""
    job = context.job
    is_student = job.soft_labels is not None and not job.annotated
    return {
        "run": job.run,
        **(fold_scores(context, logits) if job.refit is None else {"refit": job.refit}),
        "images": context.images_per_epoch,
        "epochs": progress.epoch,
        "seconds": round(progress.seconds, 3),
        "optimistic": context.selected_on_validation,
        **({"teacher": job.teacher.get("teacher", "unknown")} if is_student else {}),
        **({"teacher": "out-of-fold votes"} if job.softened is not None else {}),
        **({"pseudo": len(context.pseudo_ids)} if job.pseudo is not None else {}),
        "device": job.shown_device,
        "threads": job.threads,
        "amp": context.amp,
        "micro_batch": progress.micro_batch_size or None,
        "checkpoint_sha": checkpoint_sha,
    }


def _model(
    job: Job, recipe: Recipe, architecture: Architecture, outputs: int
) -> tuple[torch.nn.Module, Callable[[Tensor], Tensor], bool]:
    """Return the model with its initial weights on the device, its (compiled) form for training, and `channels_last`.

    `channels_last` is whether the model uses this memory format.
    """
    torch.manual_seed(derive_seed(recipe.seed, job.run, job.fold, "weights"))
    init = Path(job.init) if job.init else recipe.init
    architecture = trained_architecture(architecture, recipe)
    model = create_model(
        architecture,
        outputs,
        pretrained=bool(recipe.pretrained) and init is None and job.pretrained is None,
        init=init,
        load_head=job.init is not None and _is_of_same_numbers(job, recipe),
    )
    if job.pretrained is not None and init is None:
        PretrainedWeights(Path(job.pretrained), job.pretrained_sha).load_into(model)
    if recipe.grad_checkpointing:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    wanted = recipe.channels_last if job.channels_last is None else job.channels_last
    channels_last = is_convolutional(model) and prefers_channels_last(job.device) if wanted is None else wanted
    if not (recipe.compile or job.compiled):
        return _placed(model, job.device, channels_last), model, channels_last
    key = json.dumps(
        [architecture.to_dict(), outputs, job.device, channels_last, recipe.grad_checkpointing],
        sort_keys=True,
        default=list,
    )
    if key not in _compiled:
        # Only one compiled model is kept, because its weights stay in memory; jobs of one architecture are consecutive.
        _compiled.clear()
        torch._dynamo.reset()
        placed = _placed(model, job.device, channels_last)
        # Static shapes, so that a graph does not depend on the batch sizes of earlier folds.
        torch._dynamo.config.recompile_limit = 64
        _compiled[key] = placed, torch.compile(placed, dynamic=False)
    compiled, forward = _compiled[key]
    _placed(compiled, job.device, channels_last)  # stored predictions of the fold before may have changed the layout
    compiled.requires_grad_(True)  # an earlier fold may have stopped while its body was frozen
    compiled.load_state_dict(model.state_dict())  # in place, because the compiled graph refers to these tensors
    return compiled, forward, channels_last


def _placed(model: torch.nn.Module, device: str, channels_last: bool) -> torch.nn.Module:
    return model.to(device).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _initial_state(model: torch.nn.Module, recipe: Recipe, amp: str, device: str) -> TrainingState:
    """Return the state before the first step."""
    optimizer = build_optimizer(
        model, recipe.opt, recipe.weight_decay, recipe.layer_decay, recipe.opt_args, recipe.head_lr
    )
    power = DEFAULT_POWER if recipe.ema_warmup is None else recipe.ema_warmup
    average = MovingAverage(model, recipe.ema, power) if recipe.ema else None
    state = TrainingState(model, optimizer, average, scaler_of(device, amp))
    if recipe.accumulate > 1:
        state.progress.micro_batch_size = math.ceil((recipe.batch_size or 1) / recipe.accumulate)
    return state


def _save_array(context: FoldContext, name: str, values: NDArray[np.floating]) -> None:
    if context.writes:
        save_array(context.job.fold_dir / name, values)


def save_array(path: Path, values: NDArray[np.floating]) -> None:
    """Write an array as float32."""
    write_atomic(path, lambda file: np.save(file, values.astype(np.float32), allow_pickle=False))


# Heads on frozen features write the same files (`folds.features.train`).
Fold, checkpoint_of_fold, done_record, parts_of = _Fold, _checkpoint, _record, _parts
