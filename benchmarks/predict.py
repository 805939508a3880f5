"""Measure `ensemble predict` against the loop that a competent user writes: whole processes, in turn, medians.

Two architectures × five folds × two views (plain, hflip) at 224 px predict JPEGs of 384×512. The checkpoints have random
weights and a last layer fitted to four classes of images (coarse or fine, with or without noise), so that probabilities
are as sure as those of trained models. The opponent decodes with Pillow in the workers of a DataLoader, predicts batches
of 64 in `inference_mode`, and averages the probabilities of models and views.

    python benchmarks/predict.py --images 2000 --repeats 3
    python benchmarks/predict.py --quick
    python benchmarks/predict.py --forward
    python benchmarks/predict.py --memory 100000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("a", "b", "c", "d")
ARCHS = {"resnet18": "resnet18", "swin": "swin_tiny_patch4_window7_224"}
SMALL = {"test_resnet": "test_resnet"}
_FITTED = 48  # images that last layers are fitted to
WAYS = ("loop", "auto", "fastest")


def main() -> None:
    """Make images and checkpoints, run every way in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="64 images, two folds, once")
    parser.add_argument("--memory", type=int, metavar="N", help="peak memory of N links to a few images instead")
    parser.add_argument("--forward", action="store_true", help="CPU time of forward passes on one core instead")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    if options.forward:
        forward()
        return
    if options.quick:
        options.images, options.folds, options.repeats = 64, 2, 1
    with tempfile.TemporaryDirectory(prefix="predict-") as name:
        folder = Path(name)
        if options.memory:
            memory(folder, options.memory, options.folds)
        else:
            compare(folder, options.images, options.folds, options.repeats)


def compare(folder: Path, images: int, folds: int, repeats: int) -> None:
    """Print seconds and images per second of every way, and how its values differ from those of the loop."""
    draw(folder, images, images)
    for arch, timm_name in ARCHS.items():
        write_checkpoints(folder, arch, timm_name, folds, 224)
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            runs[way].append(started(folder, way))
            print(way, {key: value for key, value in runs[way][-1].items() if key != "formats"}, flush=True)
    expected = np.load(folder / "loop.npy")
    base = statistics.median(run["rate"] for run in runs["loop"])
    base_cpu = statistics.median(run["cpu"] for run in runs["loop"])
    print(f"\n{images} images, {len(ARCHS)} architectures x {folds} folds x 2 views, {os.cpu_count()} cores")
    for way in WAYS:
        rate = statistics.median(run["rate"] for run in runs[way])
        whole = statistics.median(run["whole"] for run in runs[way])
        start = statistics.median(run["start"] for run in runs[way])
        cpu = statistics.median(run["cpu"] for run in runs[way])
        peak = max(run["peak"] for run in runs[way])
        values = np.load(folder / f"{way}.npy")
        same = float((values.argmax(1) == expected.argmax(1)).mean())
        print(
            f"{way:8s} {rate:6.2f} images/s ({rate / base:.2f}x), whole process {whole:.0f} s, of it start {start:.1f} s, "
            f"CPU time after it {cpu:.0f} s ({base_cpu / cpu:.2f}x), peak {peak:.0f} MB, differs by {np.abs(values - expected).max():.1e}, "
            f"same class {same:.2%}"
        )
        for name, chosen in runs[way][-1].get("formats", {}).items():
            print(f"         {name}: {chosen['way']}; {chosen['reason']}; {chosen['rates']}")


def forward() -> None:
    """Print images per second of CPU time of one forward pass on one core; other programs change it little."""
    import timm
    import torch

    from folds.models.fusion import fused
    from folds.utils.memory import keep_freed_memory

    torch.set_num_threads(1)
    for reuse in (False, True):
        if reuse:
            keep_freed_memory()
        for timm_name in ARCHS.values():
            torch.manual_seed(0)
            model = timm.create_model(timm_name, num_classes=len(CLASSES)).eval()
            ways = {"eager, batch 64": (model, 64)}
            if reuse:
                ways |= {
                    "fused, batch 16": (fused(model)[0], 16),
                    "bf16, batch 16": (fused(model, torch.bfloat16)[0], 16),
                }
            for way, (network, batch) in ways.items():
                images = torch.randn(batch, 3, 224, 224)
                with torch.inference_mode():
                    network(images)
                    seconds = []
                    for _ in range(3):
                        began = time.process_time()
                        network(images)
                        seconds.append(time.process_time() - began)
                kept = "memory reused" if reuse else "memory returned"
                print(f"{timm_name}: {way}, {kept}: {batch / statistics.median(seconds):.1f} images/s", flush=True)


def memory(folder: Path, images: int, folds: int) -> None:
    """Print the peak memory of a process that predicts many images with many models."""
    draw(folder, images, 16)
    write_checkpoints(folder, "test_resnet", "test_resnet", folds, 160)
    print(started(folder, "auto"))


def started(folder: Path, way: str) -> dict[str, Any]:
    """Return what a child process reports, with the seconds from its start to its end."""
    began = time.perf_counter()
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(folder), way], env=environment, stdout=subprocess.PIPE, check=True
    )
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report | {"whole": time.perf_counter() - began}


def child(name: str, way: str) -> None:
    """Predict, and print a report as JSON."""
    began = time.perf_counter()
    folder = Path(name)
    values, (start, start_cpu), extra = loop(folder, began) if way == "loop" else ours(folder, way, began)
    np.save(folder / f"{way}.npy", values)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    report = {
        "start": start,
        "rate": len(values) / (time.perf_counter() - began - start),
        "cpu": sum(one.ru_utime + one.ru_stime for one in used) - start_cpu,
        "peak": used[0].ru_maxrss / 1024,
    }
    print(json.dumps(report | extra))


def loop(folder: Path, began: float) -> tuple[np.ndarray, tuple[float, float], dict[str, Any]]:
    """Return the probabilities of the loop that a competent user writes."""
    import timm
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    mean, std = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    class Files(Dataset[torch.Tensor]):
        def __init__(self, paths: list[Path]) -> None:
            self.paths = paths

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, at: int) -> torch.Tensor:
            image = Image.open(self.paths[at]).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)
            return pixels.sub_(mean).div_(std)

    paths = sorted((folder / "images").iterdir())
    total, count = torch.zeros(len(paths), len(CLASSES)), 0
    files = sorted((folder / "checkpoints").glob("*/fold*.pt"))
    start = time.perf_counter() - began, time.process_time()
    for file in files:
        record = torch.load(file, weights_only=True)
        model = timm.create_model(record["architecture"]["timm_name"], num_classes=len(CLASSES)).eval()
        model.load_state_dict(record["weights"])
        found = []
        with torch.inference_mode():
            for batch in DataLoader(Files(paths), batch_size=64, num_workers=os.cpu_count() or 1):
                found.append(model(batch).softmax(1) + model(batch.flip(3)).softmax(1))
        total += torch.cat(found)
        count += 2
    return (total / count).numpy(), start, {}


def ours(folder: Path, precision: str, began: float) -> tuple[np.ndarray, tuple[float, float], dict[str, Any]]:
    """Return the probabilities of `predict_table`, with the memory setting of the command."""
    from dataclasses import replace

    from ensemble.learning.combination import Combination
    from ensemble.prediction.inputs import images_table
    from ensemble.prediction.predict import predict_table
    from ensemble.prediction.source import load_source
    from ensemble.tta.merge import Merge
    from folds.utils.memory import keep_freed_memory

    keep_freed_memory()
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    sources = [load_source(name, folder) for name in names]
    merge = Merge("mean", {"none": (1.0,), "hflip": (1.0,)})
    runs = tuple(replace(run, merge=merge) for source in sources for run in source.runs)
    blend = replace(sources[0], name="blend", kind="blend", runs=runs, combination=Combination(tuple(names)))
    start = time.perf_counter() - began, time.process_time()
    table = images_table(folder / "images", blend)
    found = predict_table(blend, table, work=folder / "work", device="cpu", precision=precision)
    order = np.argsort(table.ids)
    return found.probabilities[order], start, {"formats": found.formats}


def draw(folder: Path, images: int, different: int) -> None:
    """Write JPEGs of 384×512; beyond `different` images, links to them."""
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    kinds = []
    for at in range(images):
        path = folder / "images" / f"{at:06d}.jpg"
        if at >= different:
            os.link(folder / "images" / f"{at % different:06d}.jpg", path)
            continue
        kind = int(generator.integers(4))
        kinds.append(kind)
        cells = int(generator.integers(2, 12) if kind < 2 else generator.integers(16, 40))
        coarse = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((512, 384), Image.Resampling.BICUBIC)
        noise = generator.normal(0, generator.uniform(0, 5) if kind % 2 else generator.uniform(10, 25), (384, 512, 3))
        pixels = np.clip(np.asarray(image) * generator.uniform(0.3, 1) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)
    np.save(folder / "kinds.npy", kinds)


def write_checkpoints(folder: Path, arch: str, timm_name: str, folds: int, size: int) -> None:
    """Write checkpoints of random weights, with fitted last layers."""
    import timm
    import torch

    from folds.models.checkpoint import Checkpoint, hash_ids, save_checkpoint
    from folds.models.model_names import resolve

    architecture = resolve(timm_name, (size, size))
    some, kinds = sample(folder, size)
    for fold in range(folds):
        torch.manual_seed(fold)
        model = timm.create_model(timm_name, num_classes=len(CLASSES))
        if any(isinstance(part, torch.nn.BatchNorm2d) for part in model.modules()):
            model.train()(some)  # batch norms get statistics of images
        fit_head(model.eval(), some, kinds)
        checkpoint = Checkpoint(
            run=arch,
            fold=fold,
            k=folds,
            architecture=architecture,
            weights={key: value.clone() for key, value in model.state_dict().items()},
            classes=CLASSES,
            class_attributes={},
            target="label",
            images={"height": size, "width": size, "fit": "squash", "window": None, "max_pixels": None},
            data={"data": None, "path": "path", "label": "label", "person": "person", "id": None, "split": None},
            recipe={"seed": 0},
            amp="off",
            training_hashes=hash_ids(["a"]),
            validation_hashes=hash_ids(["b"]),
            folds_sha="0" * 64,
            versions={},
        )
        path = folder / "checkpoints" / arch / f"fold{fold}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, checkpoint)


def fit_head(model: Any, images: Any, kinds: np.ndarray) -> None:
    """Fit the last layer to the kinds of images by ridge regression; right classes are about 4 above the others."""
    import torch

    head = [part for part in model.modules() if isinstance(part, torch.nn.Linear)][-1]
    with torch.inference_mode():
        features = model.forward_head(model.forward_features(images), pre_logits=True).double()
        mean, scale = features.mean(0), features.std(0) + 1e-6
        inputs = (features - mean) / scale
        targets = 4 * torch.nn.functional.one_hot(torch.from_numpy(kinds), len(CLASSES)).double()
        gram = inputs.T @ inputs + len(images) * torch.eye(inputs.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(gram, inputs.T @ (targets - targets.mean(0))) / scale[:, None]
        head.weight.copy_(weights.T)
        head.bias.copy_(targets.mean(0) - mean @ weights)


def sample(folder: Path, size: int) -> tuple[Any, np.ndarray]:
    """Return normalized pixels (n, 3, size, size) of a few of the images, and their kinds."""
    import torch
    from PIL import Image

    from folds.models.model_names import IMAGENET_MEAN, IMAGENET_STD

    kinds = np.load(folder / "kinds.npy")[:_FITTED]
    paths = sorted((folder / "images").iterdir())[: len(kinds)]
    pixels = np.stack([np.asarray(Image.open(path).resize((size, size), Image.Resampling.BICUBIC)) for path in paths])
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std, kinds


if __name__ == "__main__":
    main()
