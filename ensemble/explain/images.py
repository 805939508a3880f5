"""Explain images with the models that may explain them: decode, predict, and make the maps, group by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ensemble.explain.assignment import Assigned, Image
from ensemble.explain.maps import Choose, HeatMapper, require_library
from ensemble.explain.result import HeatMaps, join
from folds.data.targets import Head, Target, resolve_target
from folds.errors import EnsembleError, UsageError, unknown_name
from folds.images.checks import refusal
from folds.images.content_index import UnreadableImageError, read_content
from folds.images.decode import decode_image
from folds.metrics.task_names import COLUMN_TASKS, REGRESSION, require_classes
from folds.models.accelerators import resolve_devices
from folds.models.checkpoint import Checkpoint
from folds.predictions.files import LABEL
from folds.utils.parallel import cpu_count, map_threads
from folds.utils.progress import SILENT, Progress

PREDICTED, TRUE = "predicted", "true"
BATCH = 32


def explain_images(
    models: Mapping[int, Checkpoint],
    images: Sequence[Assigned],
    *,
    target_class: str = PREDICTED,
    head: str | None = None,
    device: str = "auto",
    batch: int = BATCH,
    progress: Progress = SILENT,
) -> HeatMaps:
    """Return the heat maps of images on the very input of the models, in float32.

    Images are decoded and normalized as for the predictions of the training. The models of an image predict it
    together, and each gets a map for the same class.

    Parameters
    ----------
    models : fold → checkpoint, all of one run.
    images : the images with the folds of their models.
    target_class : ``predicted`` (the largest mean probability of the models), ``true``, or the name of a class. Of
        several labels ``predicted`` is the most probable one; the heat for a number is for what makes it larger.
    head : attribute of a model with one head per attribute; None for the label, which joins them.
    device : ``auto``, ``cpu`` or the number of a GPU.
    batch : images per forward pass.

    Raises
    ------
    UsageError : no such class or head, or an image without a label for ``true``.
    EnsembleError : the library is not installed, images cannot be read, or the models have no features on a grid.
    """
    require_library()
    if not images:
        raise UsageError("expected one image or more, found none")
    first = next(iter(models.values()))
    explained = _head(first, head)
    classes = explained.values
    _check_target_class(target_class, first, classes)
    true = np.array([_code(first, explained, one.image) for one in images], np.int64)
    named = None if target_class in (PREDICTED, TRUE) else _named(target_class, classes)
    if target_class == TRUE and (true < 0).any():
        without = images[int(np.argmax(true < 0))].image.id
        raise UsageError(f"the true class of {without} is not known", hint="`target_class=predicted`, or name a class")
    pixels = _decode(images, first)
    used = resolve_devices(device)[0]
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, one in enumerate(images):
        groups.setdefault(one.models, []).append(row)
    found: list[_Group] = []
    with progress.step("heat maps") as advance:
        done = 0
        for folds, rows in groups.items():
            group = _Group([models[fold] for fold in folds], pixels[rows[0]], used, None if head is None else explained)
            found.append(group)
            for start in range(0, len(rows), batch):
                some = rows[start : start + batch]
                group.add(pixels[some], [_choose(target_class, named, int(true[row])) for row in some])
                done += len(some)
                advance(done, len(images))
            group.release()
    order = np.array([row for rows in groups.values() for row in rows], np.int64)
    probabilities = join([part for group in found for part in group.probabilities], order)
    place = found[0].place
    return HeatMaps(
        run=first.run,
        head=explained.name,
        ids=tuple(one.image.id for one in images),
        maps=join([part for group in found for part in group.maps], order),
        disagreement=join([part for group in found for part in group.disagreement], order),
        probabilities=probabilities,
        classes=classes,
        explained=join([part for group in found for part in group.explained], order),
        predicted=probabilities.argmax(1).astype(np.int64),
        true=true,
        folds=tuple(one.models for one in images),
        parts=tuple(one.part for one in images),
        pixels=pixels,
        method="Grad-CAM",
        place=place.name,
        task=first.task,
        cells=(place.rows, place.columns),
    )


def _check_target_class(target_class: str, checkpoint: Checkpoint, classes: Sequence[str]) -> None:
    """Raise UsageError if there is no such class among several labels or numbers, of which an image has any number."""
    listed = f"name one of {', '.join(classes[:10])}"
    if target_class == TRUE:
        require_classes(checkpoint.task, f"`target_class={TRUE}`", listed)
    if target_class == PREDICTED and checkpoint.task == REGRESSION and len(classes) > 1:
        raise UsageError(f"`target_class={PREDICTED}`: the model predicts {len(classes)} numbers", hint=listed)


class _Group:
    """The models that explain some of the images together, and what they found."""

    def __init__(
        self, checkpoints: Sequence[Checkpoint], example: NDArray[np.uint8], device: str, head: Head | None
    ) -> None:
        built = [checkpoint.build_on(device) for checkpoint in checkpoints]
        architecture = checkpoints[0].architecture
        self._device = device
        self._center, self._scale = (
            torch.tensor(values, device=device)[:, None, None] for values in (architecture.mean, architecture.std)
        )
        block = None if head is None else _block(_target(checkpoints[0]), head)
        self._mapper: HeatMapper | None = HeatMapper(
            [model for model, _ in built],
            self._inputs(example[None]),
            architecture.name,
            channels_last=built[0][1],
            block=block,
            task=checkpoints[0].task,
        )
        self.place = self._mapper.place
        self.maps: list[NDArray[np.float32]] = []
        self.disagreement: list[NDArray[np.float32]] = []
        self.probabilities: list[NDArray[np.float32]] = []
        self.explained: list[NDArray[np.int64]] = []

    def _inputs(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """Return normalized images (n, 3, height, width), by the same steps as `folds.models.inference`."""
        images = torch.from_numpy(pixels).to(self._device)
        return images.permute(0, 3, 1, 2).float().div_(255).sub_(self._center).div_(self._scale)

    def add(self, pixels: NDArray[np.uint8], choose: Sequence[Choose]) -> None:
        """Make the maps of uint8 images (n, height, width, 3)."""
        assert self._mapper is not None  # noqa: S101 - not released yet
        made = self._mapper.maps(self._inputs(pixels), choose)
        self.maps.append(made.maps.mean(0, dtype=np.float32))
        several = len(made.maps) > 1
        self.disagreement.append(made.maps.std(0) if several else np.full_like(made.maps[0], np.nan))
        self.probabilities.append(made.probabilities.mean(0, dtype=np.float32))
        self.explained.append(made.explained)

    def release(self) -> None:
        """Free the models before those of the next group are built."""
        self._mapper = None


def _choose(target_class: str, named: int | None, true: int) -> Choose:
    if target_class == PREDICTED:
        return lambda probabilities: int(probabilities.mean(0).argmax())
    code = true if named is None else named
    return lambda probabilities: code


def _target(checkpoint: Checkpoint) -> Target:
    if checkpoint.heads:
        return resolve_target("+".join(checkpoint.heads), checkpoint.classes, checkpoint.class_attributes)
    return resolve_target(LABEL, checkpoint.classes, {})


def _head(checkpoint: Checkpoint, head: str | None) -> Head:
    """Return the head to explain; that of all classes if `head` is None."""
    if head is None:
        classes = checkpoint.classes
        return Head(checkpoint.target, tuple(classes), tuple(range(len(classes))))
    heads = {one.name: one for one in _target(checkpoint).heads} if checkpoint.heads else {}
    if head not in heads:
        hint = "its heads: " + ", ".join(heads) if heads else "its model has one head: leave out `head`"
        raise unknown_name("head", head, list(heads), hint=hint)
    return heads[head]


def _block(target: Target, head: Head) -> tuple[int, int]:
    start = 0
    for one in target.heads:
        if one.name == head.name:
            break
        start += len(one.values)
    return start, start + len(head.values)


def _code(checkpoint: Checkpoint, head: Head, image: Image) -> int:
    """Return the index of the true value of the head; −1 if it is not known, or an image has any number of labels."""
    if checkpoint.task in COLUMN_TASKS:
        return -1
    if image.label in checkpoint.classes and checkpoint.target == LABEL:
        return head.of_label[checkpoint.classes.index(image.label)]
    attributes = image.attributes or checkpoint.class_attributes.get(image.label or "", {})
    value = attributes.get(head.name)  # a model of one attribute
    return head.values.index(value) if value in head.values else -1


def _named(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        raise unknown_name(
            "target_class", name, list(classes), hint=f"predicted, true, or one of {', '.join(classes[:10])}"
        )
    return list(classes).index(name)


def _decode(images: Sequence[Assigned], checkpoint: Checkpoint) -> NDArray[np.uint8]:
    """Return uint8 (n, height, width, 3), as the cache of the training has them.

    Raises
    ------
    EnsembleError : images cannot be read, all of them in one error.
    """
    settings = checkpoint.image_settings
    pixels = np.empty((len(images), *settings.shape), np.uint8)
    problems: list[tuple[int, UnreadableImageError]] = []

    def decode(row: int) -> None:
        try:
            pixels[row] = decode_image(read_content(images[row].image.path).data, settings).pixels
        except UnreadableImageError as error:
            problems.append((row, error))

    map_threads(decode, len(images), cpu_count(), None)
    if problems:
        paths = [one.image.path for one in images]
        error: EnsembleError = refusal(
            sorted(problems, key=lambda one: one[0]), paths, [one.image.id for one in images]
        )
        raise error
    return pixels
