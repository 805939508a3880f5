"""Measure what heat maps cost compared with a prediction pass, per image, on one core.

python benchmarks/explain.py [--archs resnet18,vit_tiny_patch16_224] [--images 32] [--rounds 5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from ensemble.explain.maps import HeatMapper
from folds.models.factory import create_model
from folds.models.model_names import resolve


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the shortest of several runs, in seconds: other programs only make it longer."""
    work()
    times = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    """Print one line per architecture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archs", default="test_resnet,resnet18,vit_tiny_patch16_224,swin_tiny_patch4_window7_224")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("arch                          ms/image predict  ms/image heat map  ratio")
    for name in given.archs.split(","):
        architecture = resolve(name)
        model = create_model(architecture, 8).eval()
        random = np.random.default_rng(0)
        shape = (given.images, 3, architecture.height, architecture.width)
        images = torch.from_numpy(random.standard_normal(shape, np.float32))
        mapper = HeatMapper([model], images[:1], name)

        def predict(model: torch.nn.Module = model, images: torch.Tensor = images) -> object:
            with torch.inference_mode():
                return model(images)

        def explain(mapper: HeatMapper = mapper, images: torch.Tensor = images) -> object:
            return mapper.maps(images, [lambda found: int(found.mean(0).argmax())] * len(images))

        one, two = (seconds(work, given.rounds) * 1000 / given.images for work in (predict, explain))
        print(f"{name:30s}{one:16.2f}{two:19.2f}{two / one:7.2f}", flush=True)


if __name__ == "__main__":
    main()
