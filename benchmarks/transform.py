"""Images per second of a user's transform: the pool, the pool of earlier versions, and a DataLoader of torch.

    python benchmarks/transform.py

The earlier pool sent pixels through pipes, one batch after the other. The DataLoader has the same number of workers, with
persistent workers and two batches ahead. Both transforms give the same image for the same seed in all three. A training
is a pause of fixed length after each batch (`--model-ms`), as long as a GPU computes while its processor is free. The
three take turns; medians over rounds. Start-up is measured by itself: from nothing to the first batch.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from folds.augmentation.custom import Transform, load_transform
from folds.augmentation.pool import AHEAD, TransformPool
from folds.models.inference import ChangeAhead, PixelSource

Images = NDArray[np.uint8]
Batches = Callable[[Sequence[NDArray[np.int64]]], Iterator[torch.Tensor]]
MODULES = {
    "numpy": """
import numpy as np

def train(image, rng):
    return image[:, ::-1] if rng.random() < 0.5 else image
""",
    "Pillow": """
import random
from PIL import Image, ImageEnhance

def train(image):
    found = Image.fromarray(image)
    height, width = image.shape[:2]
    share = random.uniform(0.6, 1.0)
    w, h = int(width * share), int(height * share)
    x, y = random.randint(0, width - w), random.randint(0, height - h)
    found = found.resize((width, height), Image.Resampling.BILINEAR, box=(x, y, x + w, y + h))
    if random.random() < 0.5:
        found = found.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    found = found.rotate(random.uniform(-10, 10), Image.Resampling.BILINEAR)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        found = kind(found).enhance(random.uniform(0.8, 1.2))
    return found
""",
}
_loaded: Transform | None = None  # in a process of the earlier pool


def _load(name: str) -> None:
    global _loaded
    torch.set_num_threads(1)
    _loaded = load_transform(name)


def _transform(images: Images, seeds: Sequence[int]) -> Images:
    if _loaded is None:
        raise RuntimeError("the process has no transform")
    return _loaded.batch(images, seeds)


@contextmanager
def earlier(name: str, workers: int, values: Images) -> Iterator[Batches]:
    """The pool of earlier versions: pixels are pickled there and back."""
    with ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_load, initargs=(name,)
    ) as executor:

        def batches(rows: Sequence[NDArray[np.int64]]) -> Iterator[torch.Tensor]:
            for some in rows:
                images = values[some]
                parts = [part for part in np.array_split(np.arange(len(some)), workers) if len(part)]
                sent = [executor.submit(_transform, images[part], some[part].tolist()) for part in parts]
                yield torch.from_numpy(np.concatenate([one.result() for one in sent]))

        yield batches


class Transformed(Dataset[torch.Tensor]):
    """Transformed images, for a DataLoader."""

    def __init__(self, values: Images, name: str) -> None:
        self.values, self.name = values, name
        self.transform: Transform | None = None

    def __getitem__(self, row: int) -> torch.Tensor:
        if self.transform is None:
            torch.set_num_threads(1)
            self.transform = load_transform(self.name)
        return torch.from_numpy(self.transform.batch(self.values[row : row + 1], [row])[0])


@contextmanager
def loader(name: str, workers: int, values: Images) -> Iterator[Batches]:
    """A DataLoader: processes that are forked, batches in the shared memory of torch."""
    rows: list[list[int]] = []
    found: DataLoader[torch.Tensor] = DataLoader(
        Transformed(values, name),
        batch_sampler=rows,
        num_workers=workers,
        persistent_workers=True,
        prefetch_factor=max(1, AHEAD),
    )

    def batches(some: Sequence[NDArray[np.int64]]) -> Iterator[torch.Tensor]:
        rows[:] = [one.tolist() for one in some]
        yield from found

    yield batches


@contextmanager
def pool(name: str, workers: int, values: Images) -> Iterator[Batches]:
    """The pool of this version, as a training uses it."""
    with TransformPool(name, workers) as processes:
        change = ChangeAhead(lambda step, rows, values: processes.start(values, rows, rows.tolist()), AHEAD)
        pixels = PixelSource(values, "cpu")
        yield lambda rows: pixels.batches(rows, None, change)


WAYS = {"pool": pool, "earlier pool": earlier, "DataLoader": loader}


def rate(batches: Batches, rows: Sequence[NDArray[np.int64]], pause: float) -> float:
    """Images per second of one round of batches."""
    start = time.perf_counter()
    for _ in batches(rows):
        time.sleep(pause)
    return sum(map(len, rows)) / (time.perf_counter() - start)


def check(ways: dict[str, Batches], rows: Sequence[NDArray[np.int64]]) -> None:
    """Raise if two ways give other images."""
    found = {name: torch.cat([batch.clone() for batch in batches(rows)]) for name, batches in ways.items()}
    if any(not torch.equal(images, found["pool"]) for images in found.values()):
        raise SystemExit("the ways give different images")


def load() -> str:
    return Path("/proc/loadavg").read_text().split()[0] if Path("/proc/loadavg").exists() else "?"


def measure(kind: str, arguments: argparse.Namespace, values: Images) -> None:
    """Print a row for each way with one kind of transform."""
    name, n = f"transform_of_{kind.lower()}:train", arguments.batch
    rows = list(np.random.default_rng(1).integers(0, len(values), (arguments.batches, n)))
    started: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(arguments.starts):
        for way, opened in WAYS.items():
            start = time.perf_counter()
            with opened(name, arguments.workers, values) as batches:
                next(iter(batches(rows[:1])))
                started[way].append(time.perf_counter() - start)
    rates: dict[tuple[str, float], list[float]] = {}
    pauses = (0.0, arguments.model_ms / 1e3)
    with ExitStack() as stack:
        ways = {way: stack.enter_context(opened(name, arguments.workers, values)) for way, opened in WAYS.items()}
        check(ways, rows[:3])
        for _ in range(arguments.rounds):
            for pause in pauses:
                for way, batches in ways.items():
                    rates.setdefault((way, pause), []).append(rate(batches, rows, pause))
    for way in WAYS:
        alone, with_model = (np.median(rates[way, pause]) for pause in pauses)
        begin = np.median(started[way]) if arguments.starts else float("nan")
        print(f"| {kind} | {way} | {alone:,.0f} | {with_model:,.0f} | {begin:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--batches", type=int, default=20, help="of a pass")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=3, help="how often start-up is measured")
    parser.add_argument("--model-ms", type=float, default=50.0, help="pause after each batch, for a GPU that computes")
    arguments = parser.parse_args()
    values = np.random.default_rng(0).integers(0, 256, (512, arguments.px, arguments.px, 3), dtype=np.uint8)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ["PYTHONPATH"] = path
    with tempfile.TemporaryDirectory() as folder:
        for kind, text in MODULES.items():
            (Path(folder) / f"transform_of_{kind.lower()}.py").write_text(text)
        os.chdir(folder)
        print(f"load average at the start: {load()}")
        print(
            f"| transform | way | images/s | with a model of {arguments.model_ms:g} ms | first batch (s) |\n|---|---|---|---|---|"
        )
        for kind in MODULES:
            measure(kind, arguments, values)
        print(f"load average at the end: {load()}")
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
