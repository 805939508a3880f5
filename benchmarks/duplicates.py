"""Measure how well copies of images are found among images that look alike, and how fast.

    python benchmarks/duplicates.py                     synthetic faces
    python benchmarks/duplicates.py --data index.csv    any table with columns path, label, person

Altered copies of some images are made, given to another person, and searched for among all images: the recall of each
kind of change. Pairs found among the unaltered images of different people are printed one by one: unknown copies or
false alarms. The last figure is the time for 20,000 images, which are the same images repeated with noise.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from folds.data.readers import read_data
from folds.data.synthetic.people import generate_people
from folds.data.table import DataSpec
from folds.images.cache import load_images
from folds.images.decode import decode_image
from folds.images.duplicates import identical, near_duplicates, thumbnails
from folds.images.settings import ImageSettings

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def scaled(factor: float) -> Change:
    return lambda image, rng: image.resize(
        (round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC
    )


def brighter(factor: float) -> Change:
    return lambda image, rng: ImageEnhance.Brightness(image).enhance(factor)


def cropped(share: float) -> Change:
    """`share` of each side cut off, at random places."""

    def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        x, y = rng.uniform(0, share, 2) * image.size
        return image.crop(
            (round(x), round(y), round(x + image.width * (1 - share)), round(y + image.height * (1 - share)))
        )

    return crop


def all_of(*changes: Change) -> Change:
    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        for one in changes:
            image = one(image, rng)
        return image

    return change


def same(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image


def mirrored(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(image)


CHANGES: dict[str, tuple[Change, int]] = {
    "encoded again, JPEG quality 75": (same, 75),
    "encoded again, JPEG quality 50": (same, 50),
    "resized by 0.8": (scaled(0.8), 90),
    "resized by 1.2": (scaled(1.2), 90),
    "brighter by 10 %": (brighter(1.1), 90),
    "darker by 10 %": (brighter(0.9), 90),
    "cropped by 2 %": (cropped(0.02), 90),
    "cropped by 3 %": (cropped(0.03), 90),
    "cropped by 5 %": (cropped(0.05), 90),
    "cropped 3 %, brighter 10 %, quality 50": (all_of(cropped(0.03), brighter(1.1)), 50),
    "mirrored": (mirrored, 90),
    "mirrored, cropped by 2 %, quality 75": (all_of(mirrored, cropped(0.02)), 75),
}


def altered(path: Path, change: Change, quality: int, rng: np.random.Generator, settings: ImageSettings) -> np.ndarray:
    """The pixels of the changed image, written as a JPEG and decoded."""
    with Image.open(path) as image:
        buffer = io.BytesIO()
        change(image.convert("RGB"), rng).save(buffer, "JPEG", quality=quality)
    return decode_image(buffer.getvalue(), settings).pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--size", type=int, default=64, help="of the decoded images")
    parser.add_argument("--fit", default="squash")
    parser.add_argument("--images", type=int, default=500, help="of which copies are made")
    parser.add_argument("--many", type=int, default=20_000, help="images in the test of speed")
    arguments = parser.parse_args()
    settings = ImageSettings(arguments.size, arguments.size, arguments.fit)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        table = read_data(DataSpec(arguments.data or generate_people(Path(folder) / "people"))).train
        assert table.paths is not None
        assert table.persons is not None
        cache = load_images(table.paths, settings, cache_dir=Path(folder) / "cache")
        people, person = np.unique(table.persons, return_inverse=True)
        print(f"{len(table):,} images of {len(people):,} people at {arguments.size} px, {arguments.fit}")
        start = time.process_time()
        thumbs = thumbnails(cache.pixels)
        shrinking = (time.process_time() - start) / len(table)

        sets = [positions for positions in identical(cache.content) if len(set(person[positions].tolist())) > 1]
        print(f"identical files: {len(identical(cache.content))} sets, {len(sets)} across people")
        found = near_duplicates(thumbs, person)
        alarms = [pair for pair in found.pairs if cache.content[pair.first] != cache.content[pair.second]]
        print(f"pairs found among the untouched images of different people, besides identical files: {len(alarms)}")
        for pair in alarms[:20]:
            print(
                f"  {table.ids[pair.first]}  {table.ids[pair.second]}  "
                f"{pair.similarity:.3f}{' mirrored' if pair.mirrored else ''}"
            )

        chosen = rng.choice(len(table), min(arguments.images, len(table)), replace=False)
        n, strangers = len(table), len(people) + np.arange(len(chosen))
        print(f"\n{'change':40}  found  of {len(chosen)}")
        for name, (change, quality) in CHANGES.items():
            copies = thumbnails(np.stack([altered(table.paths[i], change, quality, rng, settings) for i in chosen]))
            pairs = near_duplicates(np.concatenate([thumbs, copies]), np.concatenate([person, strangers])).pairs
            hits = {pair.second - n for pair in pairs if pair.second >= n and pair.first == chosen[pair.second - n]}
            wrong = [p for p in pairs if p.second >= n and p.first < n and p.first != chosen[p.second - n]]
            wrong = [
                p
                for p in wrong
                if cache.content[p.first] != cache.content[chosen[p.second - n]]
                and person[p.first] != person[chosen[p.second - n]]
            ]
            print(
                f"{name:40}  {len(hits) / len(chosen):6.1%}"
                + (f"  and {len(wrong)} pairs with other people's images" if wrong else "")
            )

        # The same people with other noise: a data set of this size and kind has as many pairs that look alike.
        again = np.arange(arguments.many) % n
        many = (
            (thumbs[again].astype(np.int16) + rng.integers(-2, 3, (arguments.many, *thumbs.shape[1:])))
            .clip(0, 255)
            .astype(np.uint8)
        )
        start = time.process_time()
        result = near_duplicates(many, person[again])
        seconds = time.process_time() - start
        print(
            f"\n{arguments.many:,} images: thumbnails {shrinking * arguments.many:.1f} s, comparing {seconds:.1f} s "
            "(of one core)",
            end="; ",
        )
        print(f"{len(result.pairs):,} pairs, candidates left off: {result.left_off:,}")


if __name__ == "__main__":
    main()
