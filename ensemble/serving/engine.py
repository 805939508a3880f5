"""Decode images in several threads, predict them together in one, and bound what may wait."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ensemble.serving.errors import ServingError
from ensemble.serving.limits import Limits
from ensemble.serving.metrics import Metrics
from ensemble.serving.model import ServedModel, split_answers
from folds.errors import EnsembleError, without_marks
from folds.images.content_index import UnreadableImageError
from folds.utils.parallel import cpu_count

logger = logging.getLogger(__name__)

LOADING, READY, FAILED, STOPPED = "loading", "ready", "failed", "stopped"
_LONGEST_WAIT = 60  # seconds that Retry-After states at most
_SMOOTHING = 0.2  # share of the newest batch in the time per image


class Ticket:
    """One image on its way; `future` gets its `Answer` or a `ServingError`.

    Of a model that needs more than images it is an output of `ServedModel.outputs`, which is still to be combined.
    """

    def __init__(self, data: bytes) -> None:
        self.data: bytes | None = data
        self.future: Future[Any] = Future()
        self.future.set_running_or_notify_cancel()  # from here on it cannot be cancelled, and always gets a result
        self.cancelled = False
        self.pixels: Any = None
        self.queued_at = 0.0

    def cancel(self) -> None:
        """Skip the work on this image that has not started yet, and release its bytes."""
        self.cancelled = True
        self.data = None


class Engine:
    """The model and its queue.

    Images are decoded by a pool of threads and predicted by one thread, up to `Limits.batch` together. At most
    `Limits.queue` images are in the engine; an image leaves it when its work has ended, also if its client is gone.
    """

    def __init__(self, limits: Limits, metrics: Metrics, threads: int | None = None) -> None:
        self.limits, self.metrics = limits, metrics
        self.state = LOADING
        self.error: BaseException | None = None
        self.model: ServedModel | None = None
        self.pending = 0
        self._queue: deque[Ticket] = deque()
        self._condition = threading.Condition()
        self._stopping = False
        self._seconds = 0.0  # of the model, per image
        self._decoders = ThreadPoolExecutor(threads or cpu_count(), thread_name_prefix="decode")
        self._worker: threading.Thread | None = None

    def start(self, load: Callable[[], ServedModel], finished: Callable[[], None] = lambda: None) -> None:
        """Load the model in the worker thread, then serve; call `finished` once it is ready or has failed."""
        self._worker = threading.Thread(target=self._work, args=(load, finished), name="model", daemon=True)
        self._worker.start()

    def stop(self) -> None:
        """Finish what is queued, then end all threads; images that are submitted later are refused."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._decoders.shutdown(wait=True)
        with self._condition:
            self.state = STOPPED if self.state != FAILED else FAILED
            self._condition.notify_all()
        if self._worker is not None:
            self._worker.join()

    def check_ready(self) -> ServedModel:
        """Return the model.

        Raises
        ------
        ServingError : it is not loaded yet, or the server stops.
        """
        if self.state == READY and not self._stopping and self.model is not None:
            return self.model
        what = {LOADING: "is being loaded", FAILED: "could not be loaded"}.get(self.state, "is being unloaded")
        retry = None if self.state == FAILED else 2
        raise ServingError(503, "not_ready", f"the model {what}", "GET /health answers 200 once it is ready", retry)

    def submit(self, images: Sequence[bytes]) -> list[Ticket]:
        """Start the work on some images, or on none of them.

        Raises
        ------
        ServingError : the model is not ready, or too much work is waiting.
        """
        tickets = [Ticket(data) for data in images]
        with self._condition:
            self.check_ready()
            if self.pending + len(images) > self.limits.queue:
                raise ServingError(
                    503,
                    "busy",
                    f"expected at most {self.limits.queue:,} images at work, found {self.pending:,}, and this request "
                    f"has {len(images):,}",
                    hint="send it again after the seconds in Retry-After",
                    retry_after=self._expected_wait(),
                )
            self.pending += len(images)
            for ticket in tickets:
                self._decoders.submit(self._decode, ticket)
        return tickets

    def _expected_wait(self) -> int:
        return min(_LONGEST_WAIT, max(1, math.ceil(self.pending * self._seconds)))

    def _finish(self, ticket: Ticket, result: Any) -> None:
        """Set the result of an image: an answer or output, a ServingError, or None if the request was given up."""
        with self._condition:
            self.pending -= 1
        ticket.data = ticket.pixels = None
        if result is None:
            result = ServingError(503, "disconnected", "the request was given up")
        if isinstance(result, ServingError):
            ticket.future.set_exception(result)
        else:
            ticket.future.set_result(result)

    def _decode(self, ticket: Ticket) -> None:
        result: ServingError | None = None
        try:
            data = ticket.data
            if data is not None:
                assert self.model is not None  # noqa: S101 - checked by `submit`
                ticket.pixels = self.model.decode(data, self.limits.max_pixels)
                ticket.data = None
        except UnreadableImageError as error:
            result = _unreadable(error)
        except EnsembleError as error:  # the format needs a package that is not installed
            text = f"the file cannot be decoded by this server: {without_marks(error.message)}"
            result = ServingError(422, "unreadable", text, without_marks(error.hint or ""))
        except Exception:
            logger.exception("an image could not be decoded")
            result = ServingError(500, "internal", "the image could not be decoded because of a fault of the server")
        if result is not None or ticket.cancelled:
            self._finish(ticket, result)
            return
        with self._condition:
            ticket.queued_at = time.monotonic()
            self._queue.append(ticket)
            self._condition.notify_all()

    def _work(self, load: Callable[[], ServedModel], finished: Callable[[], None]) -> None:
        try:
            self.model = load()
            with self._condition:
                self.state = READY if self.state == LOADING else self.state
            finished()
            self._serve()
        except BaseException as error:  # without this thread no request would be answered
            self.error, self.state = error, FAILED
            finished()

    def _serve(self) -> None:
        while batch := self._collect():
            taken = [ticket for ticket in batch if not ticket.cancelled]
            for ticket in batch:
                if ticket.cancelled:
                    self._finish(ticket, None)
            if taken:
                self._predict(taken)

    def _collect(self) -> list[Ticket]:
        """Return the next images; none once the engine stops and nothing is left."""
        with self._condition:
            while not self._queue and self.state != STOPPED:
                self._condition.wait()
            if not self._queue:
                return []
            end = self._queue[0].queued_at + self.limits.wait_ms / 1000
            while len(self._queue) < self.limits.batch and (left := end - time.monotonic()) > 0 and not self._stopping:
                self._condition.wait(left)
            return [self._queue.popleft() for _ in range(min(self.limits.batch, len(self._queue)))]

    def _found(self, pixels: list[Any]) -> Sequence[Any]:
        """Return the answer of each image, or its output if it is still to be combined."""
        assert self.model is not None  # noqa: S101 - loaded before
        if self.model.needs:
            return self.model.outputs(pixels)
        return split_answers(self.model.answer(pixels), self.model.classes, len(pixels))

    def _predict(self, tickets: list[Ticket]) -> None:
        """Predict images together; if that fails, predict the halves, until the image that cannot be predicted is
        alone.
        """
        assert self.model is not None  # noqa: S101 - loaded before
        start = time.monotonic()
        try:
            found = self._found([ticket.pixels for ticket in tickets])
        except Exception as error:
            if len(tickets) > 1:
                half = len(tickets) // 2
                self._predict(tickets[:half])
                self._predict(tickets[half:])
                return
            logger.exception("an image could not be predicted")
            known = isinstance(error, ServingError)
            failed = error if known else ServingError(500, "model", "the model failed on this image")
            self._finish(tickets[0], failed)  # type: ignore[arg-type]
            return
        seconds = time.monotonic() - start
        self.metrics.batch(len(tickets), seconds)
        each = seconds / len(tickets)
        self._seconds = each if not self._seconds else (1 - _SMOOTHING) * self._seconds + _SMOOTHING * each
        for ticket, answer in zip(tickets, found, strict=True):
            self._finish(ticket, answer)


def _unreadable(error: UnreadableImageError) -> ServingError:
    text = without_marks(f"the file {error.reason}")
    if "pixels and is not decoded" in text:
        return ServingError(413, "too_large", text, "send a smaller image, or start the server with --max-pixels")
    hint = "send the bytes of a whole JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, PNM or AVIF file"
    if error.values is not None:
        hint = "convert it to 8 or 16 bits, or train with a window for such images"
    return ServingError(422, "unreadable", text, hint)
