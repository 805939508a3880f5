"""Images that are copies of each other: identical files by their hash, altered ones by their structure.

Altered means encoded again, resized, made brighter, cropped by a few per cent, or mirrored. Pictures taken in a
standard way
(chest radiographs, passport photographs) all look alike to a short hash, so copies are found in three steps, each on
few enough pairs for
the next: a fingerprint compared between all pairs by one matrix product; the two pictures laid over each other; a
comparison of their fine
structure, in which only copies agree. `benchmarks/duplicates.py` measures all three, `docs/audit.md` says what came
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from folds.utils.parallel import map_threads

SIDE = 64  # of the thumbnails, pixels
# Fingerprints of copies agree at least so far, also after a crop of 3 %; of 17 million pairs of radiographs, 1 in 3,000
# does.
ALIKE = 0.75
# What a first alignment must promise before a second is tried.
PROMISING = 0.85
# The agreement of aligned fine structure that makes a copy. Of the radiographs of different patients no two reach .76,
# of 600 drawn people
# none .93; of altered copies of either 99 in 100 exceed .95.
COPY = 0.95
# Grey levels, 0 to 255, by which a thumbnail must vary: below it, what is left is the noise of the encoder.
FLAT = 2.0
MOST_CANDIDATES = 100_000
_PLAIN = 12  # grey levels that a line of a frame spans, with the noise of the encoder

_COARSE, _FINE, _MARGIN = 16, 32, 3
_BLOCK = 1024  # images against all, at a time
_PRODUCTS = 40_000_000  # of fingerprints held at once: 160 MB
_CHUNK = 512  # pairs at a time

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Two images, by position, of which one is a copy of the other; `similarity` of their fine structure, 1 for equal
    pixels.
    """

    first: int
    second: int
    similarity: float
    mirrored: bool


@dataclass(frozen=True)
class NearDuplicates:
    """What was found.

    Attributes
    ----------
    pairs : by falling similarity.
    flat : positions of images without structure, which were not compared.
    left_off : candidates beyond `MOST_CANDIDATES`, the least alike, which were not compared either.
    """

    pairs: tuple[Pair, ...]
    flat: tuple[int, ...]
    left_off: int


def identical(content: Sequence[str]) -> list[list[int]]:
    """Return the sets of two or more positions with equal digests, in order of their first."""
    sets: dict[str, list[int]] = {}
    for position, digest in enumerate(content):
        sets.setdefault(digest, []).append(position)
    return [positions for positions in sets.values() if len(positions) > 1]


def thumbnails(pixels: NDArray[np.uint8], threads: int | None = None) -> NDArray[np.uint8]:
    """Grey images of one small size.

    Parameters
    ----------
    pixels : (n, height, width, 3) uint8.

    Returns
    -------
    thumbnails : (n, SIDE, SIDE) uint8, averaged over areas (enlarged smoothly where the images are smaller than that).
    """
    small = min(pixels.shape[1:3]) < SIDE

    def one(at: int) -> NDArray[np.uint8]:
        grey = Image.fromarray(np.asarray(pixels[at])).convert("L")
        return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC if small else Image.Resampling.BOX))

    return (
        np.stack(map_threads(one, len(pixels), threads, None)) if len(pixels) else np.empty((0, SIDE, SIDE), np.uint8)
    )


def near_duplicates(thumbs: NDArray[np.uint8], groups: NDArray[np.integer]) -> NearDuplicates:
    """Return the pairs of images that are copies of each other, one of them altered.

    Parameters
    ----------
    thumbs : (n, SIDE, SIDE) uint8, see `thumbnails`.
    groups : (n,) pairs within one group are not looked for (one person's pictures are alike, and stay together anyway).
    """
    thumbs = _without_frame(thumbs)
    varied = np.array([thumb.std() >= FLAT for thumb in thumbs], dtype=bool)
    kept = np.flatnonzero(varied)
    first, second, mirrored, left_off = _candidates(fingerprints(thumbs[kept]), groups[kept])
    first, second = kept[first], kept[second]
    similarity = np.zeros(len(first))
    for start in range(0, len(first), _CHUNK):
        part = slice(start, start + _CHUNK)
        similarity[part] = _agreement(thumbs[first[part]], _turned(thumbs[second[part]], mirrored[part]))
    best: dict[tuple[int, int], Pair] = {}
    for at in np.flatnonzero(similarity >= COPY).tolist():
        pair = Pair(int(first[at]), int(second[at]), round(float(similarity[at]), 3), bool(mirrored[at]))
        known = best.get((pair.first, pair.second))
        if known is None or known.similarity < pair.similarity:  # a symmetric picture is found both ways
            best[pair.first, pair.second] = pair
    pairs = sorted(best.values(), key=lambda pair: (-pair.similarity, pair.first, pair.second))
    return NearDuplicates(tuple(pairs), tuple(np.flatnonzero(~varied).tolist()), left_off)


def fingerprints(thumbs: NDArray[np.uint8]) -> Array:
    """Return (n, _COARSE²) float32 of length 1: what the picture shows at each frequency up to 8 cycles, neither
    brightness nor contrast.

    The discrete cosine transform of the perceptual hash (Zauner 2010, "Implementation and benchmarking of perceptual
    image hash functions"),
    not reduced to signs: a matrix product costs no more than counting bits, and keeps what they lose. Amplitudes in
    pictures fall off
    with frequency (Field 1987); weighted by it, the outline that all radiographs share does not outweigh the ribs that
    differ.
    """
    basis = _cosines(SIDE, _COARSE)
    prints = np.empty((len(thumbs), _COARSE**2), np.float32)
    for start in range(0, len(thumbs), _BLOCK):
        prints[start : start + _BLOCK] = _unit(
            _weighted(basis @ thumbs[start : start + _BLOCK].astype(np.float32) @ basis.T)
        )
    return prints


def _without_frame(thumbs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the thumbnails without the bars or the frame that nine in ten of them have (letterboxing): an edge in
    common would outweigh the pictures.
    """
    box = []
    for axis in (2, 1):
        plain = (
            (thumbs.max(axis=axis) - thumbs.min(axis=axis) <= _PLAIN).mean(axis=0) >= 0.9
            if len(thumbs)
            else np.zeros(SIDE, bool)
        )
        inside = np.flatnonzero(~plain)
        if len(inside) < SIDE // 2:
            return thumbs
        # The line next to the frame is a mixture of both.
        box.append((inside[0] + (inside[0] > 0), inside[-1] + 1 - (inside[-1] < SIDE - 1)))
    (top, bottom), (left, right) = box
    if (top, bottom, left, right) == (0, SIDE, 0, SIDE):
        return thumbs
    size = (SIDE, SIDE)
    return np.stack(
        [
            np.asarray(Image.fromarray(thumb[top:bottom, left:right]).resize(size, Image.Resampling.BICUBIC))
            for thumb in thumbs
        ]
    )


def _candidates(
    prints: Array, groups: NDArray[np.integer]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_], int]:
    """Pairs of different groups whose fingerprints agree, as they are or mirrored: first < second."""
    # Mirrored left to right, every odd horizontal frequency changes its sign.
    flipped = prints * np.tile(np.where(np.arange(_COARSE) % 2, -1, 1).astype(np.float32), _COARSE)
    found: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_], Array]] = []
    block = max(1, min(_BLOCK, _PRODUCTS // max(1, len(prints))))
    for start in range(0, len(prints), block):
        rows = prints[start : start + block]
        for mirrored, others in ((False, prints), (True, flipped)):
            cosines = rows @ others[start:].T
            first, second = np.divmod(np.flatnonzero(cosines >= ALIKE), cosines.shape[1])
            wanted = (first < second) & (groups[first + start] != groups[second + start])
            first, second = first[wanted], second[wanted]
            found.append((first + start, second + start, np.full(len(first), mirrored), cosines[first, second]))
    if not found:
        return np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, bool), 0
    first, second, turned, cosine = (np.concatenate(parts) for parts in zip(*found))
    chosen = np.argsort(-cosine, kind="stable")[:MOST_CANDIDATES]
    return first[chosen], second[chosen], turned[chosen], len(first) - len(chosen)


def _turned(thumbs: NDArray[np.uint8], mirrored: NDArray[np.bool_]) -> NDArray[np.uint8]:
    turned = thumbs.copy()
    turned[mirrored] = thumbs[mirrored][:, :, ::-1]
    return turned


def _agreement(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return (m,) how far each pair agrees in its fine structure once the second picture is laid over the first; 0
    where that does not promise well.

    Two Gauss-Newton steps (Lucas and Kanade 1981) in shift and scale along each axis, a crop being just that.
    """
    agreement = np.zeros(len(first))
    left = np.arange(len(first))
    target, picture = fingerprints(first), second.astype(np.float32)
    placed = np.tile(
        np.array([0, 1, 0, 1], np.float32), (len(first), 1)
    )  # shift and scale down, shift and scale across
    for _ in range(2):
        promise, step = _step(target, picture)
        good = promise >= PROMISING
        left, target, step, placed = left[good], target[good], step[good], placed[good]
        if not len(left):
            return agreement
        placed = _composed(placed, step)
        picture = _resampled(second[left], placed)
    # A crop leaves nothing to compare at the edges.
    inner = slice(_MARGIN, SIDE - _MARGIN)
    basis = _cosines(SIDE - 2 * _MARGIN, _FINE)
    fine = [
        _unit(_weighted(basis @ part[:, inner, inner] @ basis.T)) for part in (first[left].astype(np.float32), picture)
    ]
    agreement[left] = (fine[0] * fine[1]).sum(axis=1)
    return agreement


def _step(target: Array, picture: Array) -> tuple[Array, Array]:
    """Return the best small change of shift and scale, to first order (the tangents of Simard, LeCun and Denker 1993),
    and the agreement it promises.

    Returns
    -------
    promise : (m,) cosine of the target with the nearest picture in the tangent space.
    step : (m, 4) shift, scale change (down), shift, scale change (across); pixels and fractions.
    """
    basis: Array = _cosines(SIDE, _COARSE)
    slope = (np.eye(SIDE, k=1, dtype=np.float32) - np.eye(SIDE, k=-1, dtype=np.float32)) / 2
    slope[[0, -1]] = 0
    stretch = (np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2)[:, None] * slope
    every = np.concatenate([basis, basis @ slope, basis @ stretch]).astype(np.float32)
    # Tangents are cosine transforms of the picture's slopes: all of them are blocks of one product.
    blocks = every @ picture @ every.T
    at = [slice(i * _COARSE, (i + 1) * _COARSE) for i in range(3)]
    parts = [(at[0], at[0]), (at[1], at[0]), (at[2], at[0]), (at[0], at[1]), (at[0], at[2])]
    tangents = np.stack([_weighted(blocks[:, down, across]) for down, across in parts], axis=1)  # (m, 5, _COARSE²)
    lengths = np.linalg.norm(tangents, axis=2, keepdims=True).clip(1e-6)
    tangents = tangents / lengths
    gram = tangents @ tangents.transpose(0, 2, 1) + 1e-4 * np.eye(5, dtype=np.float32)
    weights = np.linalg.solve(gram, tangents @ target[:, :, None])
    nearest = (weights * tangents).sum(axis=1)
    promise = (_unit(nearest) * target).sum(axis=1)
    weights = weights[:, :, 0] / lengths[:, :, 0]
    gain = np.where(
        weights[:, :1] > 1e-9, weights[:, :1], np.inf
    )  # a negative is no copy: it does not move, and fails later
    return promise, (weights[:, 1:] / gain).clip([-2, -0.05, -2, -0.05], [2, 0.05, 2, 0.05]).astype(np.float32)


def _composed(placed: Array, step: Array) -> Array:
    """`step` taken after `placed`: position p is looked up at scale · p + shift, p counted from the centre."""
    shift, scale = placed[:, ::2], placed[:, 1::2]
    result = np.empty_like(placed)
    result[:, ::2], result[:, 1::2] = shift + scale * step[:, ::2], scale * (1 + step[:, 1::2])
    return result


def _resampled(thumbs: NDArray[np.uint8], placed: Array) -> Array:
    """Return the thumbnails shifted and scaled by `placed`, between pixels linearly, beyond the edge repeating it."""
    return (
        _lookup(placed[:, 0], placed[:, 1])
        @ thumbs.astype(np.float32)
        @ _lookup(placed[:, 2], placed[:, 3]).transpose(0, 2, 1)
    )


def _lookup(shift: Array, scale: Array) -> Array:
    """Return (m, SIDE, SIDE) the matrices that resample one axis."""
    centre = (SIDE - 1) / 2
    position = (centre + scale[:, None] * (np.arange(SIDE) - centre) + shift[:, None]).clip(0, SIDE - 1.001)
    below = position.astype(np.intp)
    share = (position - below).astype(np.float32)
    matrix = np.zeros((len(shift), SIDE, SIDE), np.float32)
    pair, row = np.arange(len(shift))[:, None], np.arange(SIDE)[None]
    matrix[pair, row, below] = 1 - share
    matrix[pair, row, below + 1] = share
    return matrix


def _cosines(side: int, count: int) -> Array:
    """Return (count, side) the first cosines of the orthonormal DCT-II."""
    cosines = np.cos(np.pi * (np.arange(side) + 0.5) * np.arange(count)[:, None] / side) * np.sqrt(2 / side)
    cosines[0] /= np.sqrt(2)
    return cosines.astype(np.float32)


def _weighted(transform: NDArray[np.floating]) -> Array:
    """Return (m, count²): amplitudes times frequency^1.5; the mean brightness, frequency 0, drops out."""
    down, across = np.mgrid[: transform.shape[1], : transform.shape[2]]
    weighted = transform * np.hypot(down, across) ** 1.5
    return weighted.reshape(len(transform), -1).astype(np.float32)


def _unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-6)
