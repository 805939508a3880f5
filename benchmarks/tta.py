"""Compare test-time views with ttach.ClassificationTTAWrapper on the same decoded images; measure adaptive views.

    python benchmarks/tta.py                                    speed and values of several view sets, test_resnet at 64 px
    python benchmarks/tta.py --arch resnet18 --views 'hflip*vflip*rot90'
    python benchmarks/tta.py --run resnet18                     adaptive views of a trained run, in its folder: passes, seconds, scores

ttach has its best conditions: inference mode, channels_last, the fastest of four batch sizes, images normalized once
where its transforms allow it, and its model resizes crops and scales as this program does. Runs alternate in one
process, on one thread; ratios are of median CPU seconds (others may use the machine), with wall seconds beside them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import timm
import torch
import ttach
from torch import Tensor

from ensemble.cli.terminal.console import table
from ensemble.tta.files import load_common_rows
from ensemble.tta.merge import Merge, merge_views
from ensemble.tta.predict import FoldPredictor
from ensemble.tta.views import NONE, View, _to_size, deduplicate_views, parse_views, view_named
from folds.data.sources import load_checkpoint_data
from folds.models.inference import PixelSource, predict_logits
from folds.predictions.files import read_sidecar
from folds.utils.numeric import softmax
from folds.utils.progress import SILENT

SIZE, CLASSES = 64, 18
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCHES = (16, 32, 64, 128)
SCALES = ttach.Scale([0.9, 1, 1.1], interpolation="bilinear")
# what is written after --views → ttach's transforms that say the same
SETS = {
    "hflip*vflip*rot90": [ttach.HorizontalFlip(), ttach.VerticalFlip(), ttach.Rotate90([0, 90, 180, 270])],
    "d4": [ttach.HorizontalFlip(), ttach.Rotate90([0, 90, 180, 270])],
    "hflip": [ttach.HorizontalFlip()],
    "hflip*scale:0.9,1,1.1": [ttach.HorizontalFlip(), SCALES],
    "hflip*multiply:0.8,1": [ttach.HorizontalFlip(), ttach.Multiply([0.8])],
    "fivecrop:0.875": [ttach.FiveCrops(56, 56)],
}


class Fitting(torch.nn.Module):
    """The model for ttach: resizes inputs as this program does, and normalizes them unless they already are."""

    def __init__(self, model: torch.nn.Module, crops: bool, normalize: bool) -> None:
        super().__init__()
        self.model, self.crops, self.normalize = model, crops, normalize
        self.mean, self.std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]

    def forward(self, batch: Tensor) -> Tensor:
        """(n, 3, height, width) → (n, classes)."""
        if batch.shape[-1] != SIZE:
            if self.crops:
                batch = torch.nn.functional.interpolate(batch, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
            else:
                batch = _to_size(batch, torch.Size((SIZE, SIZE)))
        return self.model((batch - self.mean) / self.std if self.normalize else batch)


def of_ttach(
    model: torch.nn.Module, pixels: np.ndarray, text: str, batch: int, probabilities: bool = False
) -> np.ndarray:
    """(n, classes): the mean of logits, or of probabilities, as its wrapper merges."""
    values = "multiply" in text
    inner: torch.nn.Module = Fitting(model, "crop" in text, values)
    wrapper = ttach.ClassificationTTAWrapper(
        torch.nn.Sequential(inner, torch.nn.Softmax(1)) if probabilities else inner, ttach.Compose(SETS[text])
    )
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    found = []
    with torch.inference_mode():
        for start in range(0, len(pixels), batch):
            images = torch.from_numpy(pixels[start : start + batch]).permute(0, 3, 1, 2).float().div_(255)
            found.append(wrapper(images if values else images.sub_(mean).div_(std)))
    return torch.cat(found).numpy()


def ours(model: torch.nn.Module, pixels: PixelSource, views: list[View]) -> np.ndarray:
    """(views, n, classes) logits, all kept."""
    return predict_logits(
        model, pixels, np.arange(len(pixels)), MEAN, STD, device="cpu", channels_last=True, views=views
    )


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def compare(arch: str, text: str, images: int, repeats: int) -> list[object]:
    """A line of the table: times, their ratio, and how far the merged values are from ttach's."""
    torch.manual_seed(0)
    model = timm.create_model(arch, num_classes=CLASSES).eval().to(memory_format=torch.channels_last)
    with torch.no_grad():  # a fresh head answers the same to everything: merged values would agree whatever was merged
        cast(Any, model).get_classifier().weight.mul_(100)
    pixels = np.random.default_rng(0).integers(0, 256, (images, SIZE, SIZE, 3), dtype=np.uint8)
    views = list(deduplicate_views(parse_views(text), (SIZE, SIZE)))
    if "crop" in text:  # ttach's crops are without the whole image
        views = [view for view in views if view.name != NONE]
    mine = PixelSource(pixels, "cpu")
    best = min(BATCHES, key=lambda batch: min(timed(lambda: of_ttach(model, pixels, text, batch))[0] for _ in range(2)))
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "ttach": []}
    for _ in range(repeats):
        times["ours"].append(timed(lambda: merge_views(ours(model, mine, views))))
        times["ttach"].append(timed(lambda: of_ttach(model, pixels, text, best)))
    (cpu, wall), (their_cpu, their_wall) = (
        [median(one[i] for one in times[name]) for i in (0, 1)] for name in ("ours", "ttach")
    )
    logits = ours(model, mine, views)
    geometric = np.abs(merge_views(logits, "geometric") - softmax(of_ttach(model, pixels, text, best))).max()
    mean = np.abs(merge_views(logits) - of_ttach(model, pixels, text, best, probabilities=True)).max()
    assert max(geometric, mean) < 1e-4, (text, geometric, mean)
    theirs = len(ttach.Compose(SETS[text]))
    spread = sorted(b[0] / a[0] for a, b in zip(times["ours"], times["ttach"], strict=True))
    row: list[object] = [
        arch,
        text,
        theirs,
        len(views),
        f"{cpu:.2f}",
        f"{their_cpu:.2f} (batch {best})",
        f"{their_cpu / cpu:.2f}×",
    ]
    return [*row, f"{spread[0]:.2f}–{spread[-1]:.2f}", f"{their_wall / wall:.2f}×", f"{geometric:.0e}", f"{mean:.0e}"]


def adaptive(run: str, text: str, repeats: int) -> None:
    """Fit the margin on all folds, then predict test with fold 0 as often as asked, in all views and only where they
    are needed.
    """
    command = [sys.executable, "-m", "ensemble.cli", "--quiet", "--json", "tta", run, "--views", text]
    reported = {}
    for name, more in (("all views", []), ("adaptive", ["--adaptive"])):
        reported[name] = json.loads(
            subprocess.run([*command, *more], check=True, capture_output=True, text=True).stdout
        )
    sidecar = read_sidecar(Path(f"runs/tta/{run}.oof.npy"))
    assert sidecar is not None
    merge = Merge.from_json(sidecar.merge, len(sidecar.classes))
    fold = FoldPredictor(
        Path(f"checkpoints/{run}/fold0.pt"),
        lambda c: load_checkpoint_data(c.data, None, classes=c.classes),
        Path("runs/tta") / run,
        images={},
    )
    assert fold.data.test is not None
    fold.test([view_named(NONE)])
    plain = load_common_rows([fold.file(view_named(NONE), "test")], {})
    assert plain is not None
    index, needed = np.arange(len(fold.data.test)), np.flatnonzero(merge.needs_more_views(plain[0][0]))
    views = [view_named(name) for name in merge.views]
    fold.again, fold.progress = True, SILENT
    fold.test(views[:1])  # its images are at hand now
    pixels = next(held[1] for held in fold.images.values())
    times: dict[str, list[tuple[float, float]]] = {"all views": [], "adaptive": []}
    for _ in range(repeats):
        times["all views"].append(timed(lambda: fold._predicted(pixels, index, views)))
        times["adaptive"].append(
            timed(lambda: (fold._predicted(pixels, index, views[:1]), fold._predicted(pixels, needed, views[1:])))
        )
    rows = []
    for name in times:
        record, oof = reported[name], reported[name]["splits"][0]["merged"]["macro_f1"]["score"]
        test = (
            reported[name]["splits"][1]["merged"]["macro_f1"]["score"]
            if len(reported[name]["splits"]) > 1
            else float("nan")
        )
        passes = record["passes"]
        cpu = median(one[0] for one in times[name])
        rows.append([name, f"{oof:.4f}", f"{passes['oof']:.2f}", f"{test:.4f}", f"{passes['test']:.2f}", f"{cpu:.2f}"])
    print(
        table(
            ["", "OOF macro F1", "passes an image", "test macro F1", "passes an image", "CPU s, fold 0 on test"], rows
        )
    )
    share = reported["adaptive"]["passes"]["oof"] / reported["adaptive"]["passes"]["all_views"]
    print(f"{share:.0%} of the passes out of fold; margin below {merge.threshold:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="test_resnet")
    parser.add_argument("--views", help="one set; all without it")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--run", help="the name of a trained run in this folder: what adaptive views save")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.run:
        adaptive(asked.run, asked.views or "hflip*scale:0.9,1,1.1", asked.repeats)
        return
    header = [
        "model",
        "views",
        "ttach's",
        "distinct",
        "CPU s",
        "ttach CPU s",
        "ratio",
        "of single runs",
        "by the clock",
    ]
    rows = [compare(asked.arch, text, asked.images, asked.repeats) for text in ([asked.views] if asked.views else SETS)]
    print(table([*header, "off from mean of logits", "of probabilities"], rows, left=2))


if __name__ == "__main__":
    main()
