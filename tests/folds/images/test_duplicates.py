"""Copies are found however they were altered; pictures that merely look alike are not."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from folds.images import duplicates
from folds.images.duplicates import SIDE, Pair, fingerprints, identical, near_duplicates, thumbnails

N = 60


def structure(rng: np.random.Generator, side: int = 96) -> NDArray[np.float64]:
    """Random structure whose amplitude falls off with frequency as in photographs."""
    spectrum = np.fft.fft2(rng.normal(size=(side, side)))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None]) * side
    field = np.fft.ifft2(spectrum / np.maximum(frequency, 1) ** 1.2).real
    return (field - field.mean()) / field.std()


def as_image(field: NDArray[np.float64]) -> Image.Image:
    grey = (128 + 40 * field / field.std()).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2))


def pixels(image: Image.Image, quality: int | None = None) -> NDArray[np.uint8]:
    """(96, 96, 3), through a JPEG where a quality is given."""
    if quality is not None:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        image = Image.open(buffer).convert("RGB")
    return np.asarray(image.resize((96, 96), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def alike() -> list[Image.Image]:
    """Sixty pictures with one outline in common and each its own detail, as radiographs have."""
    rng = np.random.default_rng(0)
    outline = structure(rng)
    return [as_image(outline + 0.55 * structure(rng)) for _ in range(N)]


@pytest.fixture(scope="module")
def thumbs(alike: list[Image.Image]) -> NDArray[np.uint8]:
    return thumbnails(np.stack([pixels(image) for image in alike]))


def cropped(image: Image.Image, share: float) -> Image.Image:
    cut = image.width * share
    return image.resize(
        (96, 96),
        Image.Resampling.BICUBIC,
        box=(0.2 * cut, 0.7 * cut, image.width - 0.8 * cut, image.height - 0.3 * cut),
    )


CHANGES = {
    "quality 75": lambda image: pixels(image, 75),
    "quality 50": lambda image: pixels(image, 50),
    "smaller": lambda image: pixels(image.resize((77, 77), Image.Resampling.BICUBIC)),
    "larger": lambda image: pixels(image.resize((115, 115), Image.Resampling.BICUBIC)),
    "brighter": lambda image: pixels(ImageEnhance.Brightness(image).enhance(1.1), 90),
    "darker": lambda image: pixels(ImageEnhance.Brightness(image).enhance(0.9), 90),
    "cropped by 2 %": lambda image: pixels(cropped(image, 0.02), 90),
    "cropped by 3 %": lambda image: pixels(cropped(image, 0.03), 90),
    "all of it": lambda image: pixels(ImageEnhance.Brightness(cropped(image, 0.02)).enhance(1.1), 50),
    "mirrored": lambda image: pixels(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 75),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_altered_copy_is_found_and_nothing_else(change, alike, thumbs):
    copies = thumbnails(np.stack([CHANGES[change](image) for image in alike]))
    found = near_duplicates(np.concatenate([thumbs, copies]), np.arange(2 * N)).pairs
    assert all(pair.second == pair.first + N for pair in found), "a false alarm"
    assert len(found) >= 0.95 * N
    assert {pair.mirrored for pair in found} == {change == "mirrored"}


def test_pictures_that_look_alike_are_no_copies(thumbs):
    assert near_duplicates(thumbs, np.arange(N)).pairs == ()


def test_looser_thresholds_raise_false_alarms_on_these_images(thumbs, monkeypatch):
    """So the test above is one that can fail: the pictures are as alike as the thresholds must tell apart."""
    similar = fingerprints(thumbs) @ fingerprints(thumbs).T
    assert np.sort(similar[np.triu_indices(N, 1)])[-100] > 0.6
    monkeypatch.setattr(duplicates, "ALIKE", 0.6)
    assert near_duplicates(thumbs, np.arange(N)).pairs == ()  # the fine structure tells them apart on its own
    monkeypatch.setattr(duplicates, "COPY", 0.6)
    monkeypatch.setattr(duplicates, "PROMISING", 0.6)
    assert len(near_duplicates(thumbs, np.arange(N)).pairs) > 10


def test_pairs_within_a_group_are_not_looked_for(alike, thumbs):
    copies = thumbnails(np.stack([pixels(image, 75) for image in alike[:10]]))
    groups = np.concatenate([np.arange(N), np.arange(5), N + np.arange(5)])
    assert {pair.first for pair in near_duplicates(np.concatenate([thumbs, copies]), groups).pairs} == set(range(5, 10))


def test_images_without_structure_are_named_and_not_compared():
    rng = np.random.default_rng(1)
    blank = (128 + rng.integers(-1, 2, (4, SIDE, SIDE))).astype(np.uint8)
    found = near_duplicates(blank, np.arange(4))
    assert (found.pairs, found.flat) == ((), (0, 1, 2, 3))


def test_a_symmetric_picture_and_its_copy_are_one_pair():
    field = structure(np.random.default_rng(2))
    image = as_image(field + field[:, ::-1])
    found = near_duplicates(thumbnails(np.stack([pixels(image), pixels(image, 75)])), np.arange(2))
    assert [(pair.first, pair.second) for pair in found.pairs] == [(0, 1)]


@pytest.mark.parametrize("bar", [0, 128, 255])
def test_bars_that_all_pictures_share_do_not_make_them_copies(bar, alike):
    """Letterboxed, the strongest edges are those of the bars."""

    def barred(made):
        framed = np.full((len(made), 96, 96, 3), bar, np.uint8)
        framed[:, 14:82] = [np.asarray(Image.fromarray(one).resize((96, 68), Image.Resampling.BICUBIC)) for one in made]
        return thumbnails(framed)

    plain, copies = barred([pixels(image) for image in alike]), barred([CHANGES["all of it"](image) for image in alike])
    assert near_duplicates(plain, np.arange(N)).pairs == ()
    found = near_duplicates(np.concatenate([plain, copies]), np.arange(2 * N)).pairs
    assert all(pair.second == pair.first + N for pair in found)
    assert len(found) >= 0.9 * N


@pytest.mark.parametrize("n", [0, 1])
def test_no_pair_in_fewer_than_two(n, thumbs):
    assert near_duplicates(thumbs[:n], np.arange(n)).pairs == ()


def test_candidates_are_all_pairs_that_agree_whatever_the_block(thumbs, monkeypatch):
    groups = np.arange(N) % 17
    monkeypatch.setattr(duplicates, "ALIKE", 0.5)
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    first, second, mirrored, left_off = duplicates._candidates(fingerprints(thumbs), groups)
    found = set(zip(first.tolist(), second.tolist(), mirrored.tolist()))
    turned = fingerprints(np.ascontiguousarray(thumbs[:, :, ::-1]))
    plain = fingerprints(thumbs)
    expected = set()
    for i, j in combinations(range(N), 2):
        for flipped, others in ((False, plain), (True, turned)):
            if groups[i] != groups[j] and plain[i] @ others[j] >= 0.5:
                expected.add((i, j, flipped))
    assert found == expected
    assert len(found) > 50
    assert left_off == 0


def test_too_many_candidates_are_counted_and_the_most_alike_kept(alike, thumbs, monkeypatch):
    monkeypatch.setattr(duplicates, "ALIKE", 0.5)
    monkeypatch.setattr(duplicates, "MAX_CANDIDATES", 3)
    copies = thumbnails(np.stack([pixels(image, 75) for image in alike[:3]]))
    found = near_duplicates(np.concatenate([thumbs, copies]), np.arange(N + 3))
    assert {(pair.first, pair.second) for pair in found.pairs} == {(i, N + i) for i in range(3)}
    assert found.left_off > 50


def test_similarity_of_equal_pixels_is_one_and_best_is_first(alike, thumbs):
    more = np.stack([thumbs[3], thumbnails(pixels(alike[4], 50)[None])[0]])
    found = near_duplicates(np.concatenate([thumbs, more]), np.arange(N + 2)).pairs
    assert found[0] == Pair(3, N, 1.0, False)
    assert (found[1].first, found[1].second) == (4, N + 1)
    assert found[1].similarity < 1


def test_thumbnails_are_means_over_areas():
    rng = np.random.default_rng(3)
    grey = rng.integers(0, 256, (2, 2 * SIDE, 2 * SIDE), dtype=np.uint8)
    means = grey.reshape(2, SIDE, 2, SIDE, 2).mean(axis=(2, 4))
    made = thumbnails(np.repeat(grey[..., None], 3, axis=3))
    assert made.dtype == np.uint8
    assert np.abs(made - means).max() <= 1


def test_small_images_are_enlarged_and_still_compared(alike):
    small = [image.resize((32, 32), Image.Resampling.BICUBIC) for image in alike]
    copies = [ImageEnhance.Brightness(image).enhance(1.1) for image in small[:10]]
    found = near_duplicates(
        thumbnails(np.stack([np.asarray(image) for image in small + copies])), np.arange(N + 10)
    ).pairs
    assert {(pair.first, pair.second) for pair in found} == {(i, N + i) for i in range(10)}


def test_identical_files_are_sets_in_the_order_of_their_first():
    assert identical(["b", "a", "c", "a", "b", "a"]) == [[0, 4], [1, 3, 5]]
    assert identical(["a", "b"]) == []
