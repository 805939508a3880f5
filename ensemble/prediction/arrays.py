"""Predict images that are in memory, with all models of a source loaded; usable from several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ensemble.cascade.combine import Combiner
from ensemble.cascade.run import run_cascade
from ensemble.model_files.expected import Expected
from ensemble.model_files.made_up_rows import made_up_rows
from ensemble.prediction.cascade import run_models
from ensemble.prediction.combine import combine_members, member_key
from ensemble.prediction.people import person_predictions
from ensemble.prediction.prediction_formats import EXACT_WAY, Choice, architecture_key, batch_size, built, built_body
from ensemble.prediction.source import FoldModel, PredictionSource, head_of_people
from ensemble.tta.merge import Merge
from ensemble.tta.views import View, view_named
from folds.errors import EnsembleError, printable
from folds.images.settings import ImageSettings
from folds.metrics.task_names import REGRESSION
from folds.models.accelerators import resolve_devices
from folds.models.inference import BATCH, PixelSource, predict_logits
from folds.models.person_models import (
    body_key,
    count_features,
    in_features,
    needs_people,
    person_head,
    person_logits,
)
from folds.models.timing import torch_threads
from folds.predictions.links import largest_difference, predictions_of
from folds.predictions.rows import SampleRows
from folds.utils.numeric import factorize

if TYPE_CHECKING:
    import torch

Pixels = Mapping[ImageSettings, NDArray[np.uint8]]
Decode = Callable[[int, ImageSettings], NDArray[np.uint8]]
_AT_ONCE = 1 << 28  # bytes of the pixels of expected images that are decoded together
_ONE_IMAGE = 1 << 30  # bytes of one image in all sizes of the models
COMBINED = 1e-6  # largest difference of a combination of the same numbers


@dataclass(frozen=True)
class _Network:
    module: torch.nn.Module
    channels_last: bool
    views: tuple[View, ...]
    amp: str
    batch: int


@dataclass(frozen=True)
class _Head:
    """A head that predicts an image from all images of its person, and the key of the features that it reads."""

    module: torch.nn.Module
    features: str


_lock = threading.Lock()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread, as in the training, for one caller at a time: the number belongs to the process."""
    with _lock, torch_threads(1):
        yield


class LoadedModels:
    """The networks of a source on one device, in evaluation mode. Nothing is changed after the construction.

    Parameters
    ----------
    device : ``auto`` (the first GPU, else the CPU), ``cpu``, or the number of a GPU.
    choices : `architecture_key` → how the models are computed; as in the training where it has none.

    Raises
    ------
    EnsembleError : weights do not fit their architecture.
    UsageError : there is no such device.
    """

    def __init__(
        self, source: PredictionSource, device: str = "auto", choices: Mapping[str, Choice] | None = None
    ) -> None:
        self.source = source
        self.device = resolve_devices(device)[0]
        networks: dict[str, tuple[torch.nn.Module, bool]] = {}
        self._networks: dict[str, _Network] = {}
        self._heads: dict[str, _Head] = {}
        for run in source.runs:
            views = tuple(map(view_named, run.merge.views)) if run.models else ()
            for model in run.models:
                key, choice = str(model.path), (choices or {}).get(architecture_key(model))
                of_people = needs_people(model.checkpoint)
                if of_people:
                    key = f"{body_key(model.checkpoint, model.path)} {count_features(model.checkpoint, model.path)}"
                    shared = repr((key, run.merge.views))
                    self._heads[member_key(run, model)] = _Head(person_head(model.checkpoint, model.path), shared)
                if key not in networks:
                    build = built_body if of_people else built
                    networks[key] = build(model, self.device, choice or Choice(EXACT_WAY, ""))
                amp = model.checkpoint.amp_on(self.device) if choice is None else choice.amp
                batch = BATCH if choice is None else batch_size(model, choice, self.device)
                self._networks[member_key(run, model)] = _Network(*networks[key], views, amp, batch)
        self.settings = tuple(dict.fromkeys(model.checkpoint.image_settings for model in source.models))

    @property
    def tolerance_name(self) -> str:
        """Return the name of the tolerance that fits the computation, as an exported model states it."""
        return self.amp if self.amp != "off" else "cpu" if self.device == "cpu" else "gpu"

    @property
    def amp(self) -> str:
        """Return the number format that differs most from fp32 among those of the models on this device."""
        used = {network.amp for network in self._networks.values()}
        return next((name for name in ("bf16", "fp16") if name in used), "off")

    def decoded(self, index: Sequence[int], decode: Decode) -> Pixels:
        """Return the pixels of some images in each image size of the models."""
        return {one: np.stack([decode(at, one) for at in index]) for one in self.settings}

    def members(self, pixels: Pixels, persons: NDArray[np.str_] | None = None) -> dict[str, NDArray[np.float32]]:
        """Return `member_key` → (n, classes of the run) predictions of every fold model, its views merged.

        Parameters
        ----------
        persons : see `with_people`.
        """
        return self.with_people(self.outputs(pixels), persons)

    def outputs(self, pixels: Pixels) -> dict[str, NDArray[np.floating]]:
        """Return what the fold models make of each image by itself, for `with_people`.

        It is `member_key` → (n, classes of the run) float32 predictions; of models that predict an image from all
        images of its person the (n, views · features) float16 features, once for models with the same ones.
        """
        found: dict[str, NDArray[np.floating]] = {}
        sources = {one: PixelSource(values, self.device) for one, values in pixels.items()}
        for run in self.source.runs:
            for model in run.models:
                key, checkpoint = member_key(run, model), model.checkpoint
                images, head = sources[checkpoint.image_settings], self._heads.get(key)
                if head is None:
                    order = [checkpoint.classes.index(name) for name in run.classes]
                    found[key] = self._merged(run.merge, key, model, images)[:, order].astype(np.float32)
                elif head.features not in found:
                    views = slice(0, len(run.merge.views))
                    each = self._logits(key, model, images, np.arange(len(images)), views)
                    found[head.features] = in_features(np.concatenate(list(each), axis=1), checkpoint.architecture.name)
        return found

    def with_people(
        self, outputs: Mapping[str, NDArray[np.floating]], persons: NDArray[np.str_] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Return the predictions of every fold model from its `outputs` for all images.

        Parameters
        ----------
        persons : (n,) the person of each image, whose images must all be there; None only for models that see one image
            at a time.
        """
        found: dict[str, NDArray[np.float32]] = {}
        people = None if persons is None else factorize(persons)[1].astype(np.int64)
        for run in self.source.runs:
            for model in run.models:
                key = member_key(run, model)
                head = self._heads.get(key)
                if head is None:
                    found[key] = np.asarray(outputs[key], np.float32)
                    continue
                assert people is not None  # noqa: S101 - callers know the persons for such models
                with _one_thread():
                    values = person_predictions(run, model, head.module, outputs[head.features], people)
                found[key] = values.astype(np.float32)
        return found

    def cascaded(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return (n, classes) the probabilities by the cascade of the source, which skips what it does not need."""
        cascade = self.source.cascade
        assert cascade is not None  # noqa: S101 - asked for sources with a cascade
        runs, by_name = run_models(self.source), {run.name: run for run in self.source.runs}
        sources = {one: PixelSource(values, self.device) for one, values in pixels.items()}

        def ask(run: int, fold: int, first: int, stop: int, asked: NDArray[np.int64]) -> NDArray[np.float32]:
            part = by_name[runs[run].name]
            model = part.models[fold]
            at = sources[model.checkpoint.image_settings]
            return self._logits(member_key(part, model), model, at, asked, slice(first, stop))

        count = len(next(iter(pixels.values())))
        combiner = Combiner(self.source.combination, self.source.ranking)
        return run_cascade(cascade, combiner, runs, count, ask).probabilities.astype(np.float32)

    def first_logits(
        self, pixels: Pixels, persons: NDArray[np.str_] | None = None
    ) -> Iterable[tuple[Merge, NDArray[np.float32]]]:
        """Yield the merge of each fold model and its logits (n, classes) of the first view; `persons` as `members`."""
        for run in self.source.runs:
            for model in run.models:
                source = PixelSource(pixels[model.checkpoint.image_settings], self.device)
                key = member_key(run, model)
                head = self._heads.get(key)
                first = self._logits(key, model, source, np.arange(len(source)), slice(0, 1))[0]
                if head is not None:
                    assert persons is not None  # noqa: S101 - made up for such models
                    features = in_features(first, model.checkpoint.architecture.name)
                    first = person_logits(model.checkpoint, head.module, features, factorize(persons)[1])
                yield run.merge, first

    def _merged(self, merge: Merge, key: str, model: FoldModel, pixels: PixelSource) -> NDArray[np.float64]:
        rows, views, task = np.arange(len(pixels)), len(merge.views), model.checkpoint.task
        if merge.threshold is None:
            logits = self._logits(key, model, pixels, rows, slice(0, views))
            return merge.merged(logits, task) if views > 1 else predictions_of(task, logits[0])
        first = self._logits(key, model, pixels, rows, slice(0, 1))
        values, more = predictions_of(task, first[0]), merge.needs_more_views(first[0])
        if more.any() and views > 1:
            further = self._logits(key, model, pixels, rows[more], slice(1, views))
            values[more] = merge.merged(np.concatenate([first[:, more], further]), task)
        return values

    def _logits(
        self, key: str, model: FoldModel, pixels: PixelSource, rows: NDArray[np.int64], views: slice
    ) -> NDArray[np.float32]:
        network, checkpoint = self._networks[key], model.checkpoint
        return predict_logits(
            network.module,
            pixels,
            rows,
            checkpoint.architecture.mean,
            checkpoint.architecture.std,
            device=self.device,
            amp=network.amp,
            channels_last=network.channels_last,
            views=network.views[views],
            batch=network.batch,
        )


def numbered(count: int) -> SampleRows:
    """Return rows whose ids are the numbers from 0."""
    return SampleRows(np.arange(count).astype(str))


def columns_of(source: PredictionSource, members: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return (n, columns) the probabilities of all fold models, one after another, in the order of the source."""
    keys = [member_key(run, model) for run in source.runs for model in run.models]
    return np.concatenate([members[key] for key in keys], axis=1)


def columns_difference(source: PredictionSource, one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return the largest difference of the predictions of fold models, given as by `columns_of`.

    That of a number that is handed over to grades is divided by the largest number, as in `largest_difference`.
    """
    numbers = np.concatenate(
        [np.full(len(run.classes), run.hand_over is not None) for run in source.runs for _ in run.models]
    )
    parts = ((source.task, ~numbers), (REGRESSION, numbers))
    found = [largest_difference(task, one[:, at], other[:, at]) for task, at in parts if at.any()]
    return float(np.max(found))  # nan, if one is


def check_expected(
    models: LoadedModels,
    expected: Expected,
    tolerance: Mapping[str, float],
    columns: NDArray[np.float32] | None = None,
) -> float:
    """Return the largest difference of the probabilities of fold models from the expected ones.

    Every fold model must give its expected probabilities within the tolerance of its number format and device, and
    their combination (numbers only, equal on every machine) must give the expected result.

    Parameters
    ----------
    tolerance : ``cpu``, ``gpu``, ``bf16`` and ``fp16`` → largest difference.
    columns : `expected_columns`, if they are known.

    Raises
    ------
    EnsembleError : something differs by more.
    """
    source = models.source
    found = expected_columns(models, expected) if columns is None else columns
    difference, kind = columns_difference(source, found, expected.members), models.tolerance_name
    if not difference <= tolerance[kind]:
        raise EnsembleError(
            f"{source.folder} was not loaded: its fold models give probabilities that differ by {difference:.1e} from "
            f"the expected ones (at most {tolerance[kind]:.0e} on {models.device})",
            hint="the versions of torch or timm may differ in a way that matters; in Python, "
            "ensemble.load(…, verify=False) loads it anyway",
        )
    combined = largest_difference(source.task, combined_columns(source, expected.members), expected.probabilities)
    if not combined <= COMBINED:
        raise EnsembleError(
            f"{source.folder} was not loaded: the combination of its fold models differs by {combined:.1e} from the "
            f"expected one (at most {COMBINED:.0e})",
            hint="another version may have exported it; in Python, ensemble.load(…, verify=False) loads it anyway",
        )
    return max(difference, combined)


def combined_columns(source: PredictionSource, columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (n, classes) the combination of the probabilities of all fold models, given as by `columns_of`.

    Persons and columns of the images, if they are needed, are made up (`ensemble.model_files.made_up_rows`).
    """
    keys = [(member_key(run, model), len(run.classes)) for run in source.runs for model in run.models]
    places = np.cumsum([0, *(width for _, width in keys)])
    stored = {key: columns[:, places[i] : places[i + 1]] for i, (key, _) in enumerate(keys)}
    return combine_members(source, stored, made_up_rows_of(source, len(columns)))


def made_up_rows_of(source: PredictionSource, images: int) -> SampleRows:
    """Return the rows of expected images, with made-up persons and columns if the source needs them."""
    return made_up_rows(source.combination, images, head_of_people(source) is not None)


def expected_columns(models: LoadedModels, expected: Expected) -> NDArray[np.float32]:
    """Return `columns_of` for the expected images, a bounded number of pixels at a time.

    Raises
    ------
    EnsembleError : one image needs too much memory in the sizes of the models, or a model cannot predict it.
    """
    from folds.images.decode import fit_colors

    folder = models.source.folder
    one = sum(settings.depth * settings.height * settings.width for settings in models.settings)
    if one > _ONE_IMAGE:
        raise EnsembleError(
            f"{folder} was not loaded: one image has {one:,} bytes in the {len(models.settings)} image sizes of its "
            f"models, at most {_ONE_IMAGE:,} are used",
            hint="`verify=False` loads it, if you trust where it came from",
        )

    def decode(at: int, settings: ImageSettings) -> NDArray[np.uint8]:
        return fit_colors(_image(expected.images[at]), settings)

    size, parts = max(1, _AT_ONCE // one), []
    try:
        for start in range(0, len(expected), size):
            parts.append(models.outputs(models.decoded(range(start, min(start + size, len(expected))), decode)))
        outputs = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        members = models.with_people(outputs, made_up_rows_of(models.source, len(expected)).persons)
    except (RuntimeError, MemoryError) as error:  # of torch: a size that the model does not take, or no memory left
        raise EnsembleError(
            f"{folder} was not loaded: it cannot predict its expected images: {printable(str(error))[:200]}",
            hint="if memory ran out, try another device; otherwise export it again",
        ) from error
    return columns_of(models.source, members)


def _image(pixels: NDArray[np.uint8]):  # type: ignore[no-untyped-def]
    from PIL import Image

    return Image.fromarray(pixels)
