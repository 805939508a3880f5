"""Try heat maps on a small model of each family of timm, with random weights: which work, which are refused, which fail?

    python benchmarks/explain_families.py [--families swin_transformer,vision_transformer] [--most 45]

A line per family. *found* counts, of five places, those where a bright square changes the features of the map most in the
cells at that place; with random weights a network may hide the square, so few hits are a reason to look, no proof.
*around* is the share of the difference between two images that reaches the class around these features: 0 for most
CNNs, up to 1 for a class token, which carries what it has read before.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import timm
import torch
from timm.models._registry import _model_to_module

from ensemble.explain.maps import HeatMapper
from folds.errors import EnsembleError
from folds.models.factory import create_model
from folds.models.model_names import resolve

SMALL = ("test_", "atto", "femto", "pico", "nano", "xxs", "050", "tiny", "_xs", "b0", "_ti", "_t", "small", "_s", "18")
SPOTS = ((0.3, 0.3), (0.3, 0.7), (0.7, 0.3), (0.7, 0.7), (0.5, 0.5))


def small_model(names: Sequence[str], most: float) -> str | None:
    """Return a name with at most `most` million parameters, by what small models are called; None if none is found."""

    def rank(name: str) -> tuple[bool, int, int, str]:
        large = any(word in name for word in ("384", "448", "512", "large", "huge", "giant"))
        return large, min((i for i, word in enumerate(SMALL) if word in name), default=99), len(name), name

    for name in sorted(names, key=rank)[:6]:
        with torch.device("meta"):
            try:
                parameters = sum(one.numel() for one in timm.create_model(name, num_classes=4).parameters())
            except Exception:  # noqa: S112 - whatever a model raises, another one is tried
                continue
        if parameters <= most * 1e6:
            return name
    return None


def outcome(name: str) -> str:
    """Return what heat maps of a model do, in words."""
    architecture = resolve(name)
    height, width = architecture.height, architecture.width
    torch.manual_seed(0)
    model = create_model(architecture, 4).eval().requires_grad_(False)
    with torch.no_grad():
        for weights in model.parameters():  # scales and heads of zeros would tell nothing
            if weights.numel() > 1 and not bool(weights.any()):
                weights.normal_(0, 0.02)
    images = torch.randn(2, 3, height, width)
    try:
        mapper = HeatMapper([model], images[:1], name)
        mapper.maps(images, [lambda found: int(found.mean(0).argmax())] * 2)
    except EnsembleError as error:
        return f"refused: {error.message}"
    except Exception as error:
        return f"FAILED: {error!r}"
    place, hits = mapper.place, 0
    layer, kept = model.get_submodule(place.name), []
    hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(output.clone()))
    side = max(8, height // 8) // 2
    with torch.no_grad():
        for share in SPOTS:
            row, column = int(share[0] * height), int(share[1] * width)
            one = 0.1 * torch.randn(1, 3, height, width)
            two = one.clone()
            two[:, :, row - side : row + side, column - side : column + side] += 2
            kept.clear()
            model(one)
            model(two)
            change = (place.features(kept[1]) - place.features(kept[0])).abs().sum((0, 1)).numpy()
            at = np.array(np.unravel_index(change.argmax(), change.shape))
            down, right = place.shift
            wanted = ((row + down) * place.rows / height, (column + right) * place.columns / width)
            hits += bool(np.abs(at + 0.5 - wanted).max() <= max(1.01, 0.13 * place.rows))
        kept.clear()
        first, second = model(images[:1]), model(images[1:])
        hook.remove()
        features = kept[1]
        hook = layer.register_forward_hook(lambda module, inputs, output: features.clone())
        around = float((model(images[:1]) - second).norm() / (first - second).norm())
        hook.remove()
    return f"{place.name} {place.rows} × {place.columns}, found {hits} of 5, around {around:.2f}"


def main() -> None:
    """Print a line per family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default="")
    parser.add_argument("--most", type=float, default=45, help="million parameters")
    given = parser.parse_args()
    torch.set_num_threads(1)
    families: dict[str, list[str]] = {}
    for name in timm.list_models():
        families.setdefault(_model_to_module[name], []).append(name)
    for family in given.families.split(",") if given.families else sorted(families):
        found = small_model(families[family], given.most)
        print(f"{family:24s}{found or '-':36s}{'no small model' if found is None else outcome(found)}", flush=True)


if __name__ == "__main__":
    main()
