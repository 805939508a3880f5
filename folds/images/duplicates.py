"""Find images that are copies of each other: identical files by their hash, altered copies by their structure.

Altered copies are re-encoded, resized, brightened, cropped by a few percent, or mirrored. Standardized images (chest
radiographs, passport photographs) have similar short hashes, so altered copies are found in three steps, each of which
leaves fewer pairs for the next: compare fingerprints of all pairs by one matrix product; align the two images; compare
their fine structure, which agrees only for copies. `benchmarks/duplicates.py` measures all three steps; the results are
in `docs/audit.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from folds.utils.drawing import shown_colors
from folds.utils.parallel import map_threads

SIDE = 64  # side of the thumbnails in pixels
# Smallest cosine of the fingerprints of copies, also after a crop of 3%; 1 in 3,000 of 17 million pairs of radiographs
# reaches it.
ALIKE = 0.75
# Smallest agreement predicted by the first alignment step for which a second step is computed.
PROMISING = 0.85
# Smallest agreement of aligned fine structure that counts as a copy. No two radiographs of different patients reach
# .76, and no two of 600 synthetic people reach .93; 99% of altered copies of either exceed .95.
COPY = 0.95
# Smallest standard deviation of a thumbnail in gray levels (0 to 255); below it, only noise of the encoder is left.
FLAT = 2.0
MAX_CANDIDATES = 100_000
_PLAIN = 12  # largest range of gray levels in a line of a frame, including noise of the encoder

_COARSE, _FINE, _MARGIN = 16, 32, 3
_BLOCK = 1024  # images compared with all others per block
_PRODUCTS = 40_000_000  # products of fingerprints in memory at once: 160 MB
_CHUNK = 512  # pairs aligned at once

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Two images (row indices), one a copy of the other; `similarity` of their fine structure is 1 for equal pixels."""

    first: int
    second: int
    similarity: float
    mirrored: bool


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of altered copies, and images and pairs that were not compared.

    Attributes
    ----------
    pairs : pairs by decreasing similarity.
    flat : positions of images without structure, which were not compared.
    left_off : number of candidates beyond `MAX_CANDIDATES`, the least similar, which were not compared either.
    """

    pairs: tuple[Pair, ...]
    flat: tuple[int, ...]
    left_off: int


def identical(content: Sequence[str]) -> list[list[int]]:
    """Return the sets of two or more positions with equal digests, sorted by their first position."""
    sets: dict[str, list[int]] = {}
    for position, digest in enumerate(content):
        sets.setdefault(digest, []).append(position)
    return [positions for positions in sets.values() if len(positions) > 1]


def thumbnails(pixels: NDArray[np.uint8], threads: int | None = None) -> NDArray[np.uint8]:
    """Return gray thumbnails of all images.

    Parameters
    ----------
    pixels : (n, height, width, channels) uint8; of other numbers than 3 the first ones are compared.

    Returns
    -------
    (n, SIDE, SIDE) uint8, averaged over areas, or enlarged bicubically if the images are smaller.
    """
    small = min(pixels.shape[1:3]) < SIDE

    def one(at: int) -> NDArray[np.uint8]:
        gray = Image.fromarray(shown_colors(np.asarray(pixels[at]))).convert("L")
        return np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BICUBIC if small else Image.Resampling.BOX))

    return (
        np.stack(map_threads(one, len(pixels), threads, None)) if len(pixels) else np.empty((0, SIDE, SIDE), np.uint8)
    )


def near_duplicates(thumbs: NDArray[np.uint8], groups: NDArray[np.integer]) -> NearDuplicates:
    """Return the pairs of images that are copies of each other, one of them altered.

    Parameters
    ----------
    thumbs : (n, SIDE, SIDE) uint8, see `thumbnails`.
    groups : (n,) group of each image; pairs within a group are skipped, because images of one person are similar and in
        one fold anyway.
    """
    thumbs = _without_frame(thumbs)
    has_structure = np.array([thumb.std() >= FLAT for thumb in thumbs], dtype=bool)
    kept = np.flatnonzero(has_structure)
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
        if known is None or known.similarity < pair.similarity:  # a symmetric image is found as it is and mirrored
            best[pair.first, pair.second] = pair
    pairs = sorted(best.values(), key=lambda pair: (-pair.similarity, pair.first, pair.second))
    return NearDuplicates(tuple(pairs), tuple(np.flatnonzero(~has_structure).tolist()), left_off)


def fingerprints(thumbs: NDArray[np.uint8]) -> Array:
    """Return unit vectors (n, _COARSE²) float32: amplitudes at up to 8 cycles, without brightness or contrast.

    The vectors are the discrete cosine transform of the perceptual hash (Zauner 2010, "Implementation and benchmarking
    of perceptual image hash functions"), without its reduction to signs: a matrix product costs no more than counting
    bits, and keeps the amplitudes. Amplitudes of natural images decrease with frequency (Field 1987). They are weighted
    by the frequency, so that the outline common to all radiographs does not outweigh the ribs, which differ.
    """
    basis = _cosines(SIDE, _COARSE)
    prints = np.empty((len(thumbs), _COARSE**2), np.float32)
    for start in range(0, len(thumbs), _BLOCK):
        prints[start : start + _BLOCK] = _unit(
            _weighted(basis @ thumbs[start : start + _BLOCK].astype(np.float32) @ basis.T)
        )
    return prints


def _without_frame(thumbs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the thumbnails without bars or a frame that 90% of them share (letterboxing).

    A common edge would outweigh the content of the images.
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
        # The line next to the frame mixes frame and content.
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
    """Return the pairs of different groups with similar fingerprints, as they are or mirrored.

    Returns
    -------
    first, second, mirrored : (m,) each, with first < second.
    left_off : number of further pairs beyond `MAX_CANDIDATES`.
    """
    # Mirroring left to right changes the sign of every odd horizontal frequency.
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
    kept = np.argsort(-cosine, kind="stable")[:MAX_CANDIDATES]
    return first[kept], second[kept], turned[kept], len(first) - len(kept)


def _turned(thumbs: NDArray[np.uint8], mirrored: NDArray[np.bool_]) -> NDArray[np.uint8]:
    turned = thumbs.copy()
    turned[mirrored] = thumbs[mirrored][:, :, ::-1]
    return turned


def _agreement(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return (m,) the agreement of the fine structure of each pair after alignment; 0 for unpromising pairs.

    The second image is aligned to the first by two Gauss-Newton steps (Lucas and Kanade 1981) in shift and scale along
    each axis, which describe a crop.
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
    # The edges are left out, because a crop removes them.
    inner = slice(_MARGIN, SIDE - _MARGIN)
    basis = _cosines(SIDE - 2 * _MARGIN, _FINE)
    fine = [
        _unit(_weighted(basis @ part[:, inner, inner] @ basis.T)) for part in (first[left].astype(np.float32), picture)
    ]
    agreement[left] = (fine[0] * fine[1]).sum(axis=1)
    return agreement


def _step(target: Array, picture: Array) -> tuple[Array, Array]:
    """Return the best small change of shift and scale, to first order, and the predicted agreement.

    The change is in the tangent space of Simard, LeCun and Denker (1993).

    Returns
    -------
    promise : (m,) cosine of the target with the nearest image in the tangent space.
    step : (m, 4) shift, scale change (down), shift, scale change (across); pixels and fractions.
    """
    basis: Array = _cosines(SIDE, _COARSE)
    slope = (np.eye(SIDE, k=1, dtype=np.float32) - np.eye(SIDE, k=-1, dtype=np.float32)) / 2
    slope[[0, -1]] = 0
    stretch = (np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2)[:, None] * slope
    every = np.concatenate([basis, basis @ slope, basis @ stretch]).astype(np.float32)
    # The tangents are cosine transforms of the slopes of the image; one product has all of them as blocks.
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
    # A negative image is not a copy: it gets no step and fails the later comparison.
    gain = np.where(weights[:, :1] > 1e-9, weights[:, :1], np.inf)
    return promise, (weights[:, 1:] / gain).clip([-2, -0.05, -2, -0.05], [2, 0.05, 2, 0.05]).astype(np.float32)


def _composed(placed: Array, step: Array) -> Array:
    """Return `placed` followed by `step`: position p is read at scale · p + shift, with p relative to the center."""
    shift, scale = placed[:, ::2], placed[:, 1::2]
    result = np.empty_like(placed)
    result[:, ::2], result[:, 1::2] = shift + scale * step[:, ::2], scale * (1 + step[:, 1::2])
    return result


def _resampled(thumbs: NDArray[np.uint8], placed: Array) -> Array:
    """Return the thumbnails shifted and scaled by `placed`, with linear interpolation and repeated edges."""
    return (
        _lookup(placed[:, 0], placed[:, 1])
        @ thumbs.astype(np.float32)
        @ _lookup(placed[:, 2], placed[:, 3]).transpose(0, 2, 1)
    )


def _lookup(shift: Array, scale: Array) -> Array:
    """Return (m, SIDE, SIDE) the matrices that resample one axis."""
    center = (SIDE - 1) / 2
    position = (center + scale[:, None] * (np.arange(SIDE) - center) + shift[:, None]).clip(0, SIDE - 1.001)
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
    """Return (m, count²): amplitudes times frequency^1.5; the mean brightness (frequency 0) becomes 0."""
    down, across = np.mgrid[: transform.shape[1], : transform.shape[2]]
    weighted = transform * np.hypot(down, across) ** 1.5
    return weighted.reshape(len(transform), -1).astype(np.float32)


def _unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-6)
