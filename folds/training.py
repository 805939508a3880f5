"""One job: a model trained on all folds but one, its predictions for that one, and its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folds.architectures import Architecture, create, is_convolutional
from folds.assignment import read_folds
from folds.checkpoint import Checkpoint, save_checkpoint
from folds.devices import resolve_amp
from folds.errors import EnsembleError
from folds.files import derive_seed, exclusive_lock, read_json, remove_leftovers, write_atomic, write_json
from folds.fitting import Report, Setup, fit
from folds.inference import Pixels, softmax
from folds.job import LOCK_SECONDS, Job
from folds.recipe import Recipe
from folds.scores import accuracy, argmax_classes, macro_f1
from folds.state import Learner, StateFile

# The compiled model of this process: compiling takes a minute, and the folds of a run need the same one.
_compiled: dict[str, tuple[torch.nn.Module, Callable[[Tensor], Tensor]]] = {}


def train_job(job: Job, report: Report = lambda event: None) -> dict[str, Any]:
    """Train one fold, from its last saved state where there is one; write predictions, checkpoint and, last, done.json.

    Parameters
    ----------
    report : called with ``{"event": "step", "done": …, "total": …}``, ``{"event": "epoch", …}`` and ``{"event": "note", "text": …}``.

    Returns
    -------
    The content of done.json.

    Raises
    ------
    EnsembleError : another process trains this fold, the loss is not finite, memory does not suffice even for one
        image at a time, a file cannot be written.
    """
    try:
        with exclusive_lock(job.lock, job.title, wait=LOCK_SECONDS):
            if (job.place / "done.json").exists():  # by a process that was lost before it could say so
                return read_json(job.place / "done.json")
            remove_leftovers(job.place)
            remove_leftovers(Path(job.checkpoint).parent, Path(job.checkpoint).name)
            return _train(job, report)
    except torch.OutOfMemoryError:
        raise EnsembleError(
            f"{job.title}: out of memory on {job.device}: the model, the state of its optimizer and one batch of images do not fit",
            hint="a smaller model, --batch-size or --img-size, or --jobs 1 where others train on it too",
        ) from None


def _train(job: Job, report: Report) -> dict[str, Any]:
    torch.set_num_threads(job.threads)
    # Every setting is decided by now (Recipe.completed): what is None here is off.
    recipe = Recipe(**{**job.recipe, "init": Path(job.recipe["init"]) if job.recipe.get("init") else None})
    architecture = Architecture(**job.architecture)
    folds = read_folds(Path(job.folder) / "folds.csv")
    code = {name: i for i, name in enumerate(job.classes)}
    labels = np.array([code[name] for name in folds.labels.tolist()])
    training, validation = folds.training_index(job.fold), folds.validation_index(job.fold)
    pixels = Pixels.of(Path(job.pixels), job.device, job.share)
    amp = resolve_amp(job.amp, job.device)[0]
    model, forward, channels_last = _model(job, recipe, architecture)
    setup = Setup(job, recipe, architecture, pixels, labels, training, validation, amp, channels_last)
    learner = _learner(model, recipe, amp)
    states = StateFile(job.place)
    try:
        states.restore(learner)
        fit(setup, learner, states, forward, report)
        states.wait()
    finally:
        states.close()

    logits = setup.logits(model, pixels, validation)
    _save_array(job.place / "oof.npy", softmax(logits))
    if job.test_pixels is not None:
        test = Pixels.of(Path(job.test_pixels), job.device, job.share)
        _save_array(job.place / "test.npy", softmax(setup.logits(model, test, np.arange(len(test)))))
    sha = save_checkpoint(
        Path(job.checkpoint),
        Checkpoint(
            run=job.run,
            fold=job.fold,
            k=job.k,
            architecture=architecture,
            weights={name: value.detach().to("cpu", memory_format=torch.contiguous_format) for name, value in model.state_dict().items()},
            classes=tuple(job.classes),
            class_attributes=job.class_attributes,
            target="label",
            images=job.images,
            data=job.data,
            recipe={key: str(value) if isinstance(value, Path) else value for key, value in job.recipe.items()},
            amp=amp,
            training_ids=tuple(folds.ids[training].tolist()),
            validation_ids=tuple(folds.ids[validation].tolist()),
            validation_labels=tuple(folds.labels[validation].tolist()),
            folds_sha=job.folds_sha,
            versions=job.versions,
        ),
    )
    predicted = argmax_classes(logits)
    done = {
        "run": job.run,
        "fold": job.fold,
        "macro_f1": macro_f1(labels[validation], predicted, len(job.classes)),
        "accuracy": accuracy(labels[validation], predicted),
        "images": len(training),
        "epochs": recipe.epochs,
        "seconds": round(learner.progress.seconds, 3),
        "optimistic": recipe.keep == "best",
        "device": job.device,
        "threads": job.threads,
        "amp": amp,
        "micro_batch": learner.progress.micro or None,
        "checkpoint_sha": sha,
    }
    write_json(job.place / "done.json", done)
    with suppress(OSError):  # the state is for going on; there is nothing to go on with
        (job.place / "state.pt").unlink()
    return done


def _model(job: Job, recipe: Recipe, architecture: Architecture) -> tuple[torch.nn.Module, Callable[[Tensor], Tensor], bool]:
    """A model with the job's initial weights on its device, what to call in training, and whether it is channels_last."""
    torch.manual_seed(derive_seed(recipe.seed, job.run, job.fold, "weights"))
    model = create(architecture, len(job.classes), pretrained=bool(recipe.pretrained) and recipe.init is None, init=recipe.init)
    channels_last = is_convolutional(model) if recipe.channels_last is None else recipe.channels_last
    if not recipe.compile:
        return _placed(model, job.device, channels_last), model, channels_last
    key = json.dumps([job.architecture, job.classes, job.device, channels_last], sort_keys=True, default=list)
    if key not in _compiled:
        # One at a time: the jobs of an architecture come one after the other, and a kept graph keeps its weights.
        _compiled.clear()
        torch._dynamo.reset()
        placed = _placed(model, job.device, channels_last)
        # Static shapes: a graph must not depend on the sizes of batches that other folds happened to bring first.
        torch._dynamo.config.recompile_limit = 64
        _compiled[key] = placed, torch.compile(placed, dynamic=False)
    kept, forward = _compiled[key]
    kept.load_state_dict(model.state_dict())  # in place: the compiled graph holds on to these very tensors
    return kept, forward, channels_last


def _placed(model: torch.nn.Module, device: str, channels_last: bool) -> torch.nn.Module:
    return model.to(device).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _learner(model: torch.nn.Module, recipe: Recipe, amp: str) -> Learner:
    from timm.optim import create_optimizer_v2
    from timm.utils import ModelEmaV3

    # Fused: one pass over the memory instead of a dozen, a fifth of a step of ResNet18 on a CPU, and on a GPU no wait for fp16's check.
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1.0, weight_decay=recipe.weight_decay, fused=True)
    average = ModelEmaV3(model, decay=recipe.ema, use_warmup=True) if recipe.ema else None
    return Learner(model, optimizer, average, torch.amp.GradScaler("cuda", enabled=amp == "fp16"))


def _save_array(path: Path, values: NDArray[np.floating]) -> None:
    write_atomic(path, lambda file: np.save(file, values.astype(np.float32), allow_pickle=False))
