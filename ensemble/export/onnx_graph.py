"""Write a whole model as one ONNX graph: uint8 pixels in, probabilities out, checked with onnxruntime against torch."""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ensemble.export.onnx_pools import CombinationModule
from ensemble.export.write import Bundle
from ensemble.learning.columns.combination import ColumnCombination
from ensemble.model_files.container import ONNX
from ensemble.model_files.expected import TOLERANCE_OF_HEADS, Expected
from ensemble.prediction.arrays import LoadedModels, Pixels, made_up_rows_of
from ensemble.prediction.combine import combine_members
from ensemble.prediction.source import FoldModel, PredictionSource, RunModels
from ensemble.tta.views import view_named
from folds.errors import EnsembleError, UsageError
from folds.images.decode import fit_colors
from folds.images.settings import ImageSettings
from folds.metrics.task_names import COLUMN_TASKS, MULTILABEL, REGRESSION
from folds.models.person_models import PersonNetwork, needs_people
from folds.predictions.links import largest_difference
from folds.predictions.rows import SampleRows

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
_MAX_BYTES = 2**31 - 2**20  # of one file of protocol buffers
_REPEATS = 5
INPUT, OUTPUT = "pixels", "probabilities"


class FoldModule(torch.nn.Module):
    """A fold model with its views merged: float (n, 3, height, width) of values 0–1 → (n, classes of the run).

    If it predicts an image from all images of its person, the n images are those of one person.
    """

    weights: Tensor
    mean: Tensor
    std: Tensor
    order: Tensor

    def __init__(self, run: RunModels, model: FoldModel) -> None:
        super().__init__()
        checkpoint = model.checkpoint
        self.network = (
            PersonNetwork(checkpoint, model.path) if needs_people(checkpoint) else checkpoint.build(model.path)
        )
        self.views = [view_named(name) for name in run.merge.views]
        self.how, self.task = run.merge.how, checkpoint.task
        weights = np.array(list(run.merge.weights.values()), np.float64)
        self.register_buffer("weights", torch.from_numpy(weights.reshape(len(weights), 1, -1)))
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(checkpoint.architecture, name))[:, None, None])
        self.register_buffer("order", torch.tensor([checkpoint.classes.index(name) for name in run.classes]))

    def forward(self, batch: Tensor) -> Tensor:
        """Return float64 (n, classes of the run) probabilities."""
        logits = torch.stack(
            [self.network((view(batch) - self.mean) / self.std).float().double() for view in self.views]
        )
        if self.task in COLUMN_TASKS:
            merged = self._columns(logits)
        elif len(self.views) == 1:
            merged = logits[0].softmax(-1)
        elif self.how == "geometric":
            merged = (logits - logits.amax(dim=-1, keepdim=True)).mean(dim=0).softmax(-1)
        elif self.how == "mean":
            merged = logits.softmax(-1).mean(dim=0)
        else:
            merged = (logits.softmax(-1) * self.weights).sum(dim=0)
            merged = merged / merged.sum(dim=1, keepdim=True)
        return merged[:, self.order]

    def _columns(self, outputs: Tensor) -> Tensor:
        """Return what `merge_views` does with outputs (views, n, columns) of several labels or numbers."""
        if self.task == MULTILABEL and self.how == "geometric":
            return outputs.mean(dim=0).sigmoid()
        values = outputs.sigmoid() if self.task == MULTILABEL else outputs
        if self.how == "median":
            ordered = torch.topk(values, len(self.views), dim=0, largest=False, sorted=True)[0]
            return (ordered[(len(self.views) - 1) // 2] + ordered[len(self.views) // 2]) / 2
        if self.how == "mean":
            return values.mean(dim=0)
        return (values * self.weights).sum(dim=0) / self.weights.sum()


class ModelModule(torch.nn.Module):
    """A whole model: uint8 (n, height, width, 3) → float32 (n, classes) probabilities, or numbers."""

    def __init__(self, source: PredictionSource) -> None:
        super().__init__()
        self.folds = torch.nn.ModuleList(FoldModule(run, model) for run in source.runs for model in run.models)
        self.combination = CombinationModule(source)
        self.output = output_name(source)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the probabilities of pixels."""
        batch = pixels.permute(0, 3, 1, 2).float() / 255
        return self.combination([fold(batch) for fold in self.folds]).float()


def check_possible(source: PredictionSource) -> ImageSettings:
    """Return the one image size of the models.

    Raises
    ------
    UsageError : something in the model cannot be a graph; it is named.
    """
    hint = "export without `onnx`"
    made = source.combination
    if made.pooling is not None:
        raise UsageError(
            f"{source.name} pools the images of each person ({made.pooling.text}), and an ONNX graph does not know "
            "whose they are",
            hint=f"{hint}, or blend without `pool`",
        )
    if made.extra is not None:
        raise UsageError(
            f"{source.name} needs the columns {', '.join(made.extra.names)}, and an ONNX graph has pixels alone",
            hint=f"{hint}, or blend without `extra`",
        )
    pools = {one.pool for one in made.each or (made,)} if isinstance(made, ColumnCombination) else {made.pool}
    if "rank" in pools and made.stacked is None:
        raise UsageError("rank voting compares all images of a table, so it cannot be an ONNX graph", hint=hint)
    for run in source.runs:
        if run.merge.threshold is not None:
            raise UsageError(
                f"run '{run.name}' uses more views only for uncertain images, which an ONNX graph cannot decide",
                hint=f"{hint}, or merge the views of all images: ensemble tta {run.name} without `adaptive`",
            )
    settings = list(dict.fromkeys(model.checkpoint.image_settings for model in source.models))
    if len(settings) > 1:
        sizes = ", ".join(f"{one.width}×{one.height} px ({one.describe()})" for one in settings)
        raise UsageError(
            f"the models read images in {len(settings)} ways ({sizes}), and an ONNX graph has one input", hint=hint
        )
    if source.cascade is not None:
        raise UsageError("a cascade cannot be an ONNX graph: it skips models image by image", hint=hint)
    size = sum(value.nbytes for model in source.models for value in model.checkpoint.weights.values())
    if size > _MAX_BYTES:
        raise UsageError(f"the weights have {size / 2**30:.1f} GiB, and an ONNX file at most 2 GiB", hint=hint)
    return settings[0]


def build_graph(bundle: Bundle) -> tuple[bytes, dict[str, Any], str]:
    """Return the content of ``model.onnx``, its times, and its paragraph of the model card.

    Raises
    ------
    UsageError : the model cannot be a graph, or the packages are not installed.
    EnsembleError : the graph gives other probabilities than torch.
    """
    source, expected = bundle.source, bundle.expected
    settings = check_possible(source)
    runtime = _packages()
    models = LoadedModels(source, "cpu")
    pixels = models.decoded(range(len(expected)), lambda at, one: fit_colors(_picture(expected, at), one))
    output, rows = output_name(source), made_up_rows_of(source, len(expected))
    content = _exported(ModelModule(source).eval(), settings)
    session = _session(runtime, content)
    difference = _difference(session, pixels[settings], expected, source.task, rows.persons)
    tolerance = TOLERANCE if rows.persons is None else TOLERANCE_OF_HEADS["cpu"]
    if not difference <= tolerance:
        raise EnsembleError(
            f"{ONNX} gives {output} that differ from those of torch by up to {difference:.1e}, at most "
            f"{tolerance:.0e} is accepted",
            hint="export without `onnx`",
        )
    timed = {
        "images": len(expected),
        "milliseconds": _milliseconds(lambda: _of_people(session, pixels[settings], rows.persons)),
        "torch_milliseconds": _milliseconds(lambda: _torch(models, pixels, rows)),
        "difference": difference,
        "bytes": len(content),
    }
    return content, timed, _note(settings, difference, output, rows.persons is not None)


def output_name(source: PredictionSource) -> str:
    """Return the name of the output of a graph: ``probabilities``, or ``numbers`` of a regression."""
    return "numbers" if source.task == REGRESSION else OUTPUT


def _note(settings: ImageSettings, difference: float, output: str, of_person: bool) -> str:
    person = ", all images of one person" if of_person else ""
    return (
        f"`{ONNX}` is the same model as one graph, with all folds, views and weights: input `{INPUT}` uint8 (n, "
        f"{settings.height}, {settings.width}, {settings.depth}){person}, {_channels(settings)}, resized "
        f"({settings.describe()}); output `{output}` float32 (n, classes). On the synthetic images, its {output} "
        f"differ from those of torch by at most {difference:.1e}."
    )


def _channels(settings: ImageSettings) -> str:
    if settings.stack:
        return f"the files {', '.join(settings.stack)}"
    return f"the channels {', '.join(map(str, settings.channels))}" if settings.channels else "RGB"


def _packages() -> Any:
    """Return onnxruntime; raise UsageError if a package is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"`onnx` needs the package {error.name}, which is not installed", hint="pip install 'ensemble-folds[onnx]'"
        ) from None
    return onnxruntime


def _exported(module: ModelModule, settings: ImageSettings) -> bytes:
    """Return the graph of a module with any number of images.

    Raises
    ------
    UsageError : torch cannot export an operation of a model or of a view.
    """
    example = torch.zeros((2, *settings.shape), dtype=torch.uint8)
    return export_module(module, (example,), {"pixels": {0: torch.export.Dim("images")}}, [INPUT], module.output)


def export_module(
    module: torch.nn.Module,
    example: tuple[Any, ...],
    dynamic: dict[str, Any],
    inputs: Sequence[str],
    output: str = OUTPUT,
) -> bytes:
    """Return the ONNX graph of a module.

    Raises
    ------
    UsageError : torch cannot export one of its operations.
    """
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=list(inputs),
                output_names=[output],
                verbose=False,
            )
            assert program is not None  # noqa: S101 - returned with dynamo=True
            return program.model_proto.SerializeToString()
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # exporters raise many kinds of exceptions
        reason = next((line for line in str(error).splitlines() if line.strip()), "")[:200]
        raise UsageError(
            f"torch cannot write this model as an ONNX graph: {type(error).__name__}: {reason}",
            hint="export without `onnx`",
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from printing its progress and its warnings about itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)


def _session(runtime: Any, content: bytes) -> onnxruntime.InferenceSession:
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _run(session: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(session.run(None, {INPUT: pixels})[0])


def _of_people(session: Any, pixels: NDArray[np.uint8], persons: NDArray[np.str_] | None) -> NDArray[np.float32]:
    """Return the predictions of images, those of each person together; all images together without persons."""
    if persons is None:
        return _run(session, pixels)
    parts = {name: np.flatnonzero(persons == name) for name in sorted(set(persons.tolist()))}
    found = np.concatenate([_run(session, pixels[rows]) for rows in parts.values()])
    return found[np.argsort(np.concatenate(list(parts.values())))]


def _difference(
    session: Any, pixels: NDArray[np.uint8], expected: Expected, task: str, persons: NDArray[np.str_] | None
) -> float:
    """Return the largest difference from the expected predictions: for all images at once and one by one, or person by
    person.
    """
    whole = _of_people(session, pixels, persons)
    if persons is not None:
        return largest_difference(task, whole, expected.probabilities)
    single = np.concatenate([_run(session, pixels[at : at + 1]) for at in range(len(pixels))])
    return max(largest_difference(task, found, expected.probabilities) for found in (whole, single))


def _torch(models: LoadedModels, pixels: Pixels, rows: SampleRows) -> NDArray[np.float32]:
    return combine_members(models.source, models.members(pixels, rows.persons), rows)


def _milliseconds(predict: Callable[[], object]) -> float:
    """Return the median time of a call, after one that is not counted."""
    predict()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        predict()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def _picture(expected: Expected, at: int) -> Any:
    from PIL import Image

    return Image.fromarray(expected.images[at])
