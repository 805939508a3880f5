"""Measure how fast images are decoded, the error of decoding JPEGs at a fraction of their size, and finding a cache.

    python benchmarks/decoding.py [--images 40] [--table 2000]

Measured on one core with synthetic photographs of 384×512 (smooth structure at seven scales, edges, noise; JPEG quality
90), so that it needs no data.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from folds.images import decode, resizing
from folds.images.cache import load_images, mean_std
from folds.images.decode import decode_image
from folds.images.settings import ImageSettings


def photograph(seed: int, height: int = 512, width: int = 384) -> bytes:
    """A JPEG whose detail falls off with frequency about as in a photograph."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for scale in (4, 8, 16, 32, 64, 128, 256):
        grid = rng.normal(size=(height // scale + 2, width // scale + 2, 3)).astype(np.float32)
        layers = [
            np.asarray(Image.fromarray(grid[..., channel]).resize((width, height), Image.Resampling.BICUBIC))
            for channel in range(3)
        ]
        picture += np.stack(layers, axis=-1) * scale**0.8
    picture = (picture - picture.min()) / (picture.max() - picture.min()) * 255
    y, x = np.mgrid[:height, :width]
    picture[((x - width / 2) / 80) ** 2 + ((y - height / 2) / 120) ** 2 < 1] *= 0.6
    buffer = io.BytesIO()
    Image.fromarray((picture + rng.normal(size=picture.shape) * 4).clip(0, 255).astype(np.uint8)).save(
        buffer, "JPEG", quality=90
    )
    return buffer.getvalue()


def decoded(files: list[bytes], size: int, repeats: int = 3) -> tuple[np.ndarray, float]:
    """The images at size × size, and images decoded in a second of processor time."""
    settings = ImageSettings(size, size)
    start = time.process_time()
    for _ in range(repeats):
        images = np.stack([decode_image(file, settings).pixels for file in files])
    return images.astype(int), repeats * len(files) / (time.process_time() - start)


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--table", type=int, default=2000)
    arguments = parser.parse_args()
    files = [photograph(seed) for seed in range(arguments.images)]
    print(f"384×512 JPEG, {np.mean([len(file) for file in files]) / 1000:.0f} kB each, one core")
    draft, gap = decode.draft, resizing.REDUCING_GAP
    for size in (224, 128, 64):
        decode.draft, resizing.REDUCING_GAP = (lambda image, settings: None), None  # type: ignore[assignment]
        exact, slow = decoded(files, size)
        decode.draft, resizing.REDUCING_GAP = draft, gap
        quick, fast = decoded(files, size)
        error = np.abs(quick - exact)
        print(f"to {size:3}: in full {slow:5.0f}/s, as used {fast:5.0f}/s", end=", ")
        print(f"difference mean {error.mean():.2f} p99.9 {np.percentile(error, 99.9):.0f} max {error.max()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{at}.jpg" for at in range(arguments.table)]
        for at, path in enumerate(paths):
            path.write_bytes(files[at % len(files)])
        time.sleep(2.1)  # files written a moment ago would be hashed again
        for threads in (1, 2):
            for what in ("built", "found"):
                start = time.perf_counter()
                cache = load_images(paths, ImageSettings(64, 64), cache_dir=folder / str(threads), threads=threads)
                print(
                    f"cache of {len(paths):,} images at 64, {threads} threads: {what} in "
                    f"{time.perf_counter() - start:.3f} s"
                )
        start = time.perf_counter()
        mean_std(cache.pixels)
        print(f"mean and deviation: {cache.pixels.nbytes / (time.perf_counter() - start) / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
