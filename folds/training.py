"""One job: a model trained on all folds but one, its predictions for that one, and its checkpoint."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from folds.architectures import Architecture, create, is_convolutional
from folds.assignment import read_folds
from folds.augment import augment, preset
from folds.checkpoint import Checkpoint, save_checkpoint
from folds.devices import autocast, resolve_amp
from folds.errors import EnsembleError
from folds.files import derive_seed, write_atomic, write_json
from folds.inference import Pixels, predict_logits, softmax
from folds.losses import build_loss
from folds.recipe import Recipe
from folds.scores import accuracy, argmax_classes, log_loss, macro_f1

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """One (run, fold) to train: plain values only, so that it can be sent to another process or machine.

    `folder` is ``runs/<run>`` with its folds.csv, whose rows are the rows of the `pixels` file; `checkpoint` the file
    to write; `device`, `threads` and `amp` say where and how.
    """

    run: str
    fold: int
    k: int
    folder: str
    checkpoint: str
    pixels: str
    test_pixels: str | None
    architecture: dict[str, Any]
    recipe: dict[str, Any]
    images: dict[str, Any]
    data: dict[str, Any]
    classes: tuple[str, ...]
    class_attributes: dict[str, dict[str, str]]
    folds_sha: str
    device: str = "cpu"
    threads: int = 1
    amp: str = "auto"
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        """``runs/<run>/fold<i>``, where the job keeps its state and leaves its results."""
        return Path(self.folder) / f"fold{self.fold}"


@dataclass
class _Progress:
    """What a killed job needs to go on: after `epoch` epochs, with the model, optimizer and averages of that moment."""

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    best: dict[str, torch.Tensor] | None = None


def train_job(job: Job, report: Report = lambda event: None) -> dict[str, Any]:
    """Train one fold, from its last saved epoch where there is one; write predictions, checkpoint and, last, done.json.

    Parameters
    ----------
    report : called with ``{"event": "step", "done": …, "total": …}`` and ``{"event": "epoch", …}``.

    Returns
    -------
    The content of done.json.

    Raises
    ------
    EnsembleError : the loss is not finite, memory does not suffice, a file cannot be written.
    """
    try:
        return _train(job, report)
    except torch.cuda.OutOfMemoryError:
        raise EnsembleError(
            f"{job.run} fold {job.fold}: out of memory on {job.device} with batches of {job.recipe['batch_size']}",
            hint="a smaller --batch-size or --img-size",
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
    pixels = Pixels(np.load(job.pixels, mmap_mode="r", allow_pickle=False), job.device)
    seed = (recipe.seed, job.run, job.fold)

    torch.manual_seed(derive_seed(*seed, "weights"))
    model = create(architecture, len(job.classes), pretrained=bool(recipe.pretrained) and recipe.init is None, init=recipe.init)
    channels_last = is_convolutional(model) if recipe.channels_last is None else recipe.channels_last
    model = model.to(job.device).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    amp = resolve_amp(job.amp, job.device)[0]
    progress = _fit(job, recipe, architecture, model, pixels, labels, training, validation, seed, amp, channels_last, report)

    model.eval()
    predict = partial(predict_logits, model, mean=architecture.mean, std=architecture.std, device=job.device, amp=amp, channels_last=channels_last)
    logits = predict(pixels, validation)[0]
    _save_array(job.place / "oof.npy", softmax(logits))
    if job.test_pixels is not None:
        test = Pixels(np.load(job.test_pixels, mmap_mode="r", allow_pickle=False), job.device)
        _save_array(job.place / "test.npy", softmax(predict(test, np.arange(len(test)))[0]))
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
        "seconds": round(progress.seconds, 3),
        "optimistic": recipe.keep == "best",
        "device": job.device,
        "threads": job.threads,
        "amp": amp,
        "checkpoint_sha": sha,
    }
    write_json(job.place / "done.json", done)
    with suppress(OSError):  # the state is for going on; there is nothing to go on with
        (job.place / "state.pt").unlink()
    return done


def _fit(
    job: Job,
    recipe: Recipe,
    architecture: Architecture,
    model: torch.nn.Module,
    pixels: Pixels,
    labels: NDArray[np.int64],
    training: NDArray[np.int64],
    validation: NDArray[np.int64],
    seed: tuple[Any, ...],
    amp: str,
    channels_last: bool,
    report: Report,
) -> _Progress:
    """Train `model` in place; on return it has the weights to keep."""
    from timm.optim import create_optimizer_v2
    from timm.utils import ModelEmaV3

    optimizer = create_optimizer_v2(model, opt="adamw", lr=1.0, weight_decay=recipe.weight_decay)
    average = ModelEmaV3(model, decay=recipe.ema, use_warmup=True) if recipe.ema else None
    scaler = torch.amp.GradScaler("cuda", enabled=amp == "fp16")
    criterion, how = build_loss(recipe.loss, recipe.label_smoothing), preset(recipe.augment or "none")
    targets = torch.from_numpy(labels).to(job.device)
    # Batches of near equal size: a short last batch would count its samples more, and of one sample has no variance.
    steps = max(1, math.ceil(len(training) / (recipe.batch_size or len(training))))
    total, warmup, peak = recipe.epochs * steps, recipe.warmup * steps, recipe.lr or 0.0
    layout = torch.channels_last if channels_last else torch.contiguous_format

    progress = _restore(job, model, optimizer, average, scaler)
    last_report = 0.0
    for epoch in range(progress.epoch, recipe.epochs):
        started = time.perf_counter()
        model.train()
        order = training[np.random.default_rng(derive_seed(*seed, epoch, "order")).permutation(len(training))]
        summed = torch.zeros((), device=job.device)
        for step, rows in enumerate(np.array_split(order, steps)):
            generator = torch.manual_seed(derive_seed(*seed, epoch, step))  # also dropout and stochastic depth
            lr = peak * _cosine(epoch * steps + step, total, warmup)
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1.0)
            inputs = augment(pixels.take(rows), how, architecture.mean, architecture.std, generator).contiguous(memory_format=layout)
            with autocast(amp, job.device):
                loss = criterion(model(inputs), targets[torch.from_numpy(rows).to(job.device, non_blocking=True)])
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            if recipe.clip:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            scaler.step(optimizer)
            scaler.update()
            if average is not None:
                average.update(model, step=epoch * steps + step)
            summed += loss.detach() * len(rows)
            if time.monotonic() - last_report > 0.2:
                last_report = time.monotonic()
                report({"event": "step", "done": epoch * steps + step + 1, "total": total})
        mean_loss = float(summed) / len(training)
        if not math.isfinite(mean_loss):
            raise EnsembleError(
                f"{job.run} fold {job.fold}: the loss is {mean_loss} in epoch {epoch + 1}", hint=f"a lower --lr (now {peak:g}), or --amp off"
            )
        progress.seconds += time.perf_counter() - started
        judged = average.module if average is not None else model
        record = {"epoch": epoch + 1, "loss": mean_loss, "lr": lr, "seconds": time.perf_counter() - started}
        record |= _validate(judged, job, architecture, pixels, labels, validation, amp, channels_last)
        if recipe.keep == "best" and record["validation_macro_f1"] > max((r["validation_macro_f1"] for r in progress.history), default=-1.0):
            progress.best = {name: value.detach().clone() for name, value in judged.state_dict().items()}
        progress.history.append(record)
        progress.epoch = epoch + 1
        _save_progress(job, progress, model, optimizer, average, scaler)
        report({"event": "epoch", "done": (epoch + 1) * steps, "total": total, **record})
    kept = progress.best or (average.module.state_dict() if average is not None else None)
    if kept is not None:
        model.load_state_dict(kept)
    return progress


def _cosine(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate: linear from 0 over `warmup` steps, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def _validate(
    model: torch.nn.Module,
    job: Job,
    architecture: Architecture,
    pixels: Pixels,
    labels: NDArray[np.int64],
    validation: NDArray[np.int64],
    amp: str,
    channels_last: bool,
) -> dict[str, float]:
    model.eval()
    logits = predict_logits(model, pixels, validation, architecture.mean, architecture.std, device=job.device, amp=amp, channels_last=channels_last)[
        0
    ]
    truth, predicted = labels[validation], argmax_classes(logits)
    return {
        "validation_macro_f1": macro_f1(truth, predicted, len(job.classes)),
        "validation_accuracy": accuracy(truth, predicted),
        "validation_log_loss": log_loss(truth, softmax(logits)),
    }


def _save_array(path: Path, values: NDArray[np.floating]) -> None:
    write_atomic(path, lambda file: np.save(file, values.astype(np.float32), allow_pickle=False))


def _save_progress(job: Job, progress: _Progress, model: Any, optimizer: Any, average: Any, scaler: Any) -> None:
    state = {
        "progress": {name: getattr(progress, name) for name in _Progress.__dataclass_fields__},
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.module.state_dict() if average is not None else None,
        "scaler": scaler.state_dict(),
    }
    write_atomic(job.place / "state.pt", lambda file: torch.save(state, file))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(progress.history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(progress.history)
    write_atomic(job.place / "history.csv", text.getvalue())


def _restore(job: Job, model: Any, optimizer: Any, average: Any, scaler: Any) -> _Progress:
    path = job.place / "state.pt"
    if not path.exists():
        return _Progress()
    try:
        state: Mapping[str, Any] = torch.load(path, map_location=job.device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.module.load_state_dict(state["average"])
        scaler.load_state_dict(state["scaler"])
        return _Progress(**state["progress"])
    except Exception as error:
        raise EnsembleError(f"{path} cannot be used to go on: {error}", hint=f"remove {path} to train this fold from its beginning") from None


def job_as_dict(job: Job) -> dict[str, Any]:
    """The job as plain values, for JSON."""
    return asdict(job)


def job_from_dict(record: Mapping[str, Any]) -> Job:
    """The job of `job_as_dict`, after JSON."""
    return replace(Job(**record), classes=tuple(record["classes"]))
