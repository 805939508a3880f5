"""Count what the server does, and show it in the text format of Prometheus."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Histogram:
    """Counts of values up to each bound, with their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str) -> list[str]:
        """Return the lines of the histogram; the counts are cumulative."""
        lines, running = [], 0
        for bound, count in zip([*map(_number, self.bounds), "+Inf"], self.counts, strict=True):
            running += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {running}')
        return [*lines, f"{name}_sum {_number(self.total)}", f"{name}_count {running}"]


class Metrics:
    """The counters of a server; all methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._images: Counter[str] = Counter({"predicted": 0, "failed": 0})
        self._errors: Counter[str] = Counter()
        self._latency = Histogram(SECONDS)
        self._batches = Histogram(SIZES)
        self._model_seconds = Histogram(SECONDS)

    def request(self, path: str, status: int) -> None:
        """Count an answered request."""
        with self._lock:
            self._requests[path, status] += 1

    def latency(self, seconds: float) -> None:
        """Count the time of a request to `/predict` that was answered."""
        with self._lock:
            self._latency.add(seconds)

    def images(self, predicted: int, failed: int) -> None:
        """Count the images of an answered request."""
        with self._lock:
            self._images["predicted"] += predicted
            self._images["failed"] += failed

    def error(self, kind: str, count: int = 1) -> None:
        """Count errors of a kind, of requests and of images."""
        with self._lock:
            self._errors[kind] += count

    def batch(self, images: int, seconds: float) -> None:
        """Count a batch of the model."""
        with self._lock:
            self._batches.add(images)
            self._model_seconds.add(seconds)

    def text(self, gauges: Mapping[str, tuple[str, float]], info: Mapping[str, str]) -> str:
        """Return all metrics as text.

        Parameters
        ----------
        gauges : name → (help, value at this moment).
        info : labels of ``ensemble_info``.
        """
        lines = [*_head("info", "gauge", "Version and model."), f"ensemble_info{_labels(info)} 1"]
        for name, (text, value) in gauges.items():
            lines += [*_head(name, "gauge", text), f"ensemble_{name} {_number(value)}"]
        with self._lock:
            lines += _head("requests_total", "counter", "Answered requests.")
            for (path, status), count in sorted(self._requests.items()):
                lines.append(f"ensemble_requests_total{_labels({'path': path, 'status': str(status)})} {count}")
            lines += _head("images_total", "counter", "Images of answered requests.")
            lines += [f"ensemble_images_total{_labels({'result': k})} {v}" for k, v in sorted(self._images.items())]
            lines += _head("errors_total", "counter", "Errors of requests and of images.")
            lines += [f"ensemble_errors_total{_labels({'kind': k})} {v}" for k, v in sorted(self._errors.items())]
            for name, text, histogram in (
                ("request_seconds", "Time of requests to /predict, from the first byte to the answer.", self._latency),
                ("batch_images", "Images that were predicted together.", self._batches),
                ("batch_seconds", "Time of the model for one batch.", self._model_seconds),
            ):
                lines += [*_head(name, "histogram", text), *histogram.lines(f"ensemble_{name}")]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP ensemble_{name} {text}", f"# TYPE ensemble_{name} {kind}"]


def _labels(values: Mapping[str, str]) -> str:
    def escaped(text: str) -> str:
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in values.items()) + "}"


def _number(value: float) -> str:
    return f"{value:.9g}"
