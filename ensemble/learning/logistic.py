"""Fit multinomial logistic regressions on log probabilities along a path of L2 penalties; numpy only.

What nested cross-validation needs again and again is computed once: a path belongs to the parts of the people that it
is fitted on, and every fit that leaves out the same people shares it. The features are read from one copy in float32,
part by part and in blocks that fit into the CPU cache; losses and gradients are summed in float64.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ensemble.learning.lbfgs import Descent, descend

OWN, ALL = "own class", "all classes"
# Tolerance of the loss: of final fits, and of fits that only select a strength or a starting point.
EXACT, ROUGH = 1e-10, 1e-6
_NUMBERS_AT_ONCE = 1 << 15  # logits of a block
_NUMBERS_JOINED = 1 << 20  # features of parts that are copied into one, which saves calls
_CURVATURE_ROWS = 2048  # rows from which the curvature is estimated; it affects only the speed
_MAX_CACHED = 1 << 24  # numbers in the cache of paths: 128 MiB


@dataclass(frozen=True)
class Part:
    """The samples of one part of the people.

    Attributes
    ----------
    features : (runs, classes, n) log p minus the mean of each run.
    labels : (n,) class indices.
    digest : hash of both.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    digest: str

    @staticmethod
    def of(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Part:
        """Return the part with its hash."""
        digest = hashlib.blake2b(repr(features.shape).encode())
        digest.update(features.data)
        digest.update(np.ascontiguousarray(labels).data)
        return Part(features, labels, digest.hexdigest())

    def __len__(self) -> int:
        return len(self.labels)

    def blocks(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Yield the features and labels of blocks of samples."""
        size = max(64, _NUMBERS_AT_ONCE // self.features.shape[1])
        for start in range(0, len(self), size):
            yield self.features[:, :, start : start + size], self.labels[start : start + size]


def _joined(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Return the parts as one if they are small, for fewer calls."""
    if len(parts) == 1 or sum(part.features.size for part in parts) > _NUMBERS_JOINED:
        return tuple(parts)
    features = np.concatenate([part.features for part in parts], axis=2)
    return (Part(features, np.concatenate([part.labels for part in parts]), ""),)


def _logits(features: NDArray[np.floating], coefs: NDArray[np.float64]) -> NDArray[np.floating]:
    """Return (classes, m) Σ coefficients · features + intercept; see `Path` for the shape of the coefficients."""
    runs, classes, _ = features.shape
    coefs = coefs.astype(features.dtype, copy=False)
    if _of_all_classes(coefs, runs):
        logits = coefs[:, :-1] @ features.reshape(runs * classes, -1)
    else:
        logits = np.matmul(coefs[:, None, :-1], features.transpose(1, 0, 2))[:, 0]
    logits += coefs[:, -1:] * features.dtype.type(runs**0.5)
    return logits


def _of_all_classes(coefs: NDArray[np.float64], runs: int) -> bool:
    classes, size = coefs.shape
    return classes > 1 and size == runs * classes + 1


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Turn logits (classes, m) into probabilities in place, and return (m,) the log of the sum of each exp."""
    top = logits.max(axis=0)
    logits -= top
    total = np.exp(logits, out=logits).sum(axis=0)
    logits /= total
    return np.log(total) + top


def log_loss(parts: Sequence[Part], coefs: NDArray[np.float64]) -> float:
    """Return Σ log loss of the samples of the parts."""
    loss = 0.0
    for features, labels in (block for part in parts for block in part.blocks()):
        logits = _logits(features, coefs)
        true = logits[labels, np.arange(len(labels))]
        loss += float((_softmax(logits) - true).sum(dtype=np.float64))
    return loss


def _loss_and_slope(
    parts: Sequence[Part], coefs: NDArray[np.float64], dtype: DTypeLike
) -> tuple[float, NDArray[np.float64]]:
    """Return Σ log loss, and its gradient in the shape of the coefficients; computed in `dtype`, summed in float64."""
    runs, classes, _ = parts[0].features.shape
    loss, slope = 0.0, np.zeros(coefs.shape)
    for stored, labels in (block for part in parts for block in part.blocks()):
        features, rows = stored.astype(dtype, copy=False), np.arange(len(labels))
        residuals = _logits(features, coefs)
        true = residuals[labels, rows]
        loss += float((_softmax(residuals) - true).sum(dtype=np.float64))
        residuals[labels, rows] -= 1
        if _of_all_classes(coefs, runs):
            slope[:, :-1] += residuals @ features.reshape(runs * classes, -1).T
        else:
            slope[:, :-1] += np.matmul(features.transpose(1, 0, 2), residuals[:, :, None])[:, :, 0]
        slope[:, -1] += residuals.sum(axis=1)
    slope[:, -1] *= runs**0.5
    return loss, slope


def _curvature(parts: Sequence[Part], coefs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (classes, size, size) about the second derivative of the loss for the coefficients of each class."""
    runs, classes, _ = parts[0].features.shape
    size, n = coefs.shape[1], sum(map(len, parts))
    every = -(-n // _CURVATURE_ROWS)
    found, used = np.zeros((classes, size, size)), 0
    for part in parts:
        features = np.ascontiguousarray(part.features[:, :, ::every])
        probabilities = _logits(features, coefs)
        _softmax(probabilities)
        weights = probabilities * (1 - probabilities)
        rows = features.shape[2]
        if _of_all_classes(coefs, runs):
            inputs = np.concatenate([features.reshape(runs * classes, rows), np.full((1, rows), runs**0.5, np.float32)])
            for c in range(classes):  # one by one, because the products of all classes would take much memory
                found[c] += (inputs * weights[c]) @ inputs.T
        else:
            inputs = np.full((classes, size, rows), runs**0.5, np.float32)
            inputs[:, :-1] = features.transpose(1, 0, 2)
            found += np.matmul(inputs * weights[:, None], inputs.transpose(0, 2, 1))
        used += rows
    return found * (n / used)


@dataclass
class Path:
    """Fits on the same samples at descending strengths of the penalty, each started at the one before.

    A fit minimizes Σ log loss + strength/2 · runs · Σ coefs². Coefficients have the shape (classes, size), where size
    is runs + 1 (own class) or runs · classes + 1 (all classes); the last column is the intercept divided by √runs.
    The fits depend on the samples alone, not on who asks for them and in which order.

    Attributes
    ----------
    offset : coefficients that are added without a penalty.
    """

    offset: NDArray[np.float64]
    strengths: tuple[float, ...]
    _rough: list[NDArray[np.float64]] = field(default_factory=list)
    _exact: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    _state: Descent | None = None
    _work: _Work | None = None
    _lock: Lock = field(default_factory=Lock)

    def at(self, step: int, parts: Sequence[Part]) -> NDArray[np.float64]:
        """Return the sum of offset and fit after `step` strengths, to `ROUGH`; `parts` are the samples of the path."""
        with self._lock:
            self._rough = self._rough or [self.offset]
            self._state = self._state or Descent(np.zeros(self.offset.size))
            while len(self._rough) <= step:
                self._rough.append(self._fit(self._state, parts, len(self._rough), self._rough[-1], ROUGH))
            return self._rough[step]

    def final(self, step: int, parts: Sequence[Part]) -> NDArray[np.float64]:
        """Return the sum of offset and fit after `step` strengths, to `EXACT`."""
        start = self.at(step, parts)
        if step == 0:
            return start
        with self._lock:
            if step not in self._exact:
                state = Descent((start - self.offset).reshape(-1))
                self._exact[step] = self._fit(state, parts, step, start, EXACT)
            return self._exact[step]

    def release(self) -> None:
        """Free what can be computed again."""
        with self._lock:
            self._work = None

    def _fit(
        self, state: Descent, parts: Sequence[Part], step: int, start: NDArray[np.float64], tolerance: float
    ) -> NDArray[np.float64]:
        work = self._work = self._work or _Work(_joined(parts))
        return work.fit(state, self.offset, start, self.strengths[step - 1], tolerance)

    @property
    def numbers(self) -> int:
        """Return about how many numbers the path holds."""
        return self.offset.size * (len(self.strengths) + 24)


@dataclass
class _Work:
    """What a path needs while it is computed."""

    parts: tuple[Part, ...]
    curvature: NDArray[np.float64] | None = None  # at the offset

    def fit(
        self,
        state: Descent,
        offset: NDArray[np.float64],
        start: NDArray[np.float64],
        strength: float,
        tolerance: float,
    ) -> NDArray[np.float64]:
        """Move `state`, whose sum with `offset` is `start`, to the fit at one strength, and return the sum there."""
        runs, shape = len(self.parts[0].features), offset.shape
        penalty = strength * runs
        inverse = np.linalg.inv(self._curvature(offset, start, tolerance) + penalty * np.eye(shape[1]))
        dtype = np.float32 if tolerance == ROUGH else np.float64

        def precondition(slope: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.matmul(inverse, slope.reshape(*shape, 1)).reshape(-1)

        def loss(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            value, slope = _loss_and_slope(self.parts, offset + point.reshape(shape), dtype)
            return value, slope.reshape(-1)

        descend(state, loss, penalty, precondition, tolerance)
        return offset + state.point.reshape(shape)

    def _curvature(
        self, offset: NDArray[np.float64], start: NDArray[np.float64], tolerance: float
    ) -> NDArray[np.float64]:
        # With all classes, the curvature costs more than the steps that a better one saves, except for a final fit.
        if tolerance == EXACT or not _of_all_classes(offset, len(self.parts[0].features)):
            return _curvature(self.parts, start)
        if self.curvature is None:
            self.curvature = _curvature(self.parts, offset)
        return self.curvature


class PathCache:
    """Paths by what they are fitted on; the least recently used ones are forgotten."""

    def __init__(self, max_numbers: int = _MAX_CACHED) -> None:
        self.max_numbers = max_numbers
        self._numbers = 0
        self._paths: OrderedDict[tuple[object, ...], Path] = OrderedDict()
        self._lock = Lock()

    def path(self, parts: Sequence[Part], offset: NDArray[np.float64], strengths: tuple[float, ...]) -> Path:
        """Return the path of these samples and this offset."""
        digest = hashlib.blake2b(np.ascontiguousarray(offset).data).hexdigest()
        key = (tuple(part.digest for part in parts), offset.shape, digest, strengths)
        with self._lock:
            if key not in self._paths:
                self._paths[key] = Path(offset, strengths)
                self._numbers += self._paths[key].numbers
            self._paths.move_to_end(key)
            path = self._paths[key]
            while self._numbers > self.max_numbers and len(self._paths) > 1:
                self._numbers -= self._paths.popitem(last=False)[1].numbers
        return path
