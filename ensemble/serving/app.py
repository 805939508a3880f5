"""Answer HTTP requests: the paths, what they take, and what they return."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from ensemble import __version__
from ensemble.serving.body import Body, ClientGoneError, MemoryBudget
from ensemble.serving.combining import combine, read_cells
from ensemble.serving.engine import FAILED, READY, Engine, Ticket
from ensemble.serving.errors import ServingError
from ensemble.serving.gate import Gate
from ensemble.serving.metrics import CONTENT_TYPE
from ensemble.serving.model import Answer, ServedModel
from ensemble.serving.needs import NOTHING, PREDICT, PREDICT_PERSON
from ensemble.serving.pages import content_policy, drop_page, interface_page
from ensemble.serving.parsing import Content, content_type, read_content
from ensemble.serving.schemas import (
    JSON_ANSWER,
    JSON_REQUEST,
    PERSON_REQUEST,
    STATUS,
    ErrorAnswer,
    PersonPrediction,
    PredictAnswer,
    request_body,
)

_Result = TypeVar("_Result")
PATHS = ("/", PREDICT, PREDICT_PERSON, "/health", "/metrics", "/model", "/docs", "/openapi.json")
_PARSERS = 2
CLIENT_GONE = 499  # in the log and in the metrics; no client sees it


def make_app(engine: Engine, hosts: Collection[str] | None = None) -> Gate:
    """Return the ASGI application of an engine.

    Parameters
    ----------
    hosts : names that are accepted in the header Host; None accepts every name.
    """
    app = FastAPI(
        title="ensemble",
        version=__version__,
        description="Predicts the class of images. Every error is JSON: {error: {kind, message, hint}}.",
        docs_url=None,  # it would load scripts from another server
        redoc_url=None,
    )
    handlers = _Handlers(engine, app)
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer, "description": text} for status, text in STATUS.items()
    }
    app.post(
        PREDICT,
        response_model=PredictAnswer,
        responses=responses,
        openapi_extra={"requestBody": request_body()},
        summary="Predict images",
        response_description="The answers, in the order of the images.",
    )(handlers.predict)
    app.post(
        PREDICT_PERSON,
        response_model=PersonPrediction,
        responses=responses,
        openapi_extra={"requestBody": request_body(of_person=True)},
        summary="Predict a person",
        response_description="The answer for the person.",
    )(handlers.predict_person)
    health: dict[int | str, dict[str, Any]] = {503: {"description": "The model is being loaded, or has failed."}}
    app.get("/health", responses=health, summary="Whether it is ready", response_description="Ready.")(handlers.health)
    app.get(
        "/model",
        responses={503: {"model": ErrorAnswer, "description": "The model is being loaded, or has failed."}},
        summary="The model, and the limits of the server",
        response_description="Name, classes, score, limits.",
    )(handlers.model)
    app.get(
        "/metrics",
        response_class=PlainTextResponse,
        summary="Counters for Prometheus",
        response_description="Text, one line per value.",
    )(handlers.metrics)
    app.get("/", response_class=HTMLResponse, include_in_schema=False)(handlers.page)
    app.get("/docs", response_class=HTMLResponse, include_in_schema=False)(handlers.docs)
    app.add_exception_handler(HTTPException, _http_error)
    return Gate(app, engine.metrics, PATHS, hosts)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer an unknown path or method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - the handler of this exception
    known = ", ".join(PATHS)
    if error.status_code == 405:
        failed = ServingError(
            405,
            "method",
            "this path has another method",
            hint=f"POST {PREDICT} and {PREDICT_PERSON}; GET the other paths",
        )
    elif error.status_code == 404:
        failed = ServingError(404, "not_found", "there is no such path", hint=f"known: {known}")
    else:
        failed = ServingError(error.status_code, "bad_request", str(error.detail))
    request.state.facts["error"] = failed.kind
    return _error_response(failed, dict(error.headers or {}))


def _error_response(error: ServingError, headers: dict[str, str] | None = None) -> Response:
    retry = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse({"error": error.to_dict()}, error.status, {**(headers or {}), **retry})


class _Handlers:
    """The functions that answer the paths."""

    def __init__(self, engine: Engine, app: FastAPI) -> None:
        self.engine, self.app = engine, app
        self.budget = MemoryBudget(engine.limits.memory_bytes)
        # Few, because parsing needs several times the memory of a body.
        self.parsers = ThreadPoolExecutor(_PARSERS, thread_name_prefix="parse")

    async def predict(self, request: Request) -> Response:
        """Return the classes of each image with their probabilities, in the order of the images.

        An image that cannot be used gets an error of its own; the others are answered all the same, with status 200.
        If none can be used, the status is that of the first error. A model with columns beside the images needs a
        value of each: fields of a form, or `columns` in JSON, of the request or of an image.
        """
        return await self._post(request, of_person=False)

    async def predict_person(self, request: Request) -> Response:
        """Return the classes of one person with their probabilities, from all images of the person.

        For models that answer for people. The field `person` is a name, which is returned; columns are those of the
        person. One image that cannot be used refuses the request, because the other images alone are another answer.
        """
        return await self._post(request, of_person=True)

    async def _post(self, request: Request, of_person: bool) -> Response:
        start = time.monotonic()
        facts = request.state.facts
        headers = request.headers
        waits = headers.get("expect", "").lower() == "100-continue"
        body = Body(request.receive, self.engine.limits, self.budget, headers.get("content-length"), waits)
        try:
            answered = await self._answered(request, body, facts, of_person)
        except ServingError as error:
            facts["error"] = error.kind
            await body.drain()
            return _error_response(error, {} if body.complete else {"Connection": "close"})
        except ClientGoneError:
            facts |= {"error": "disconnected", "status": CLIENT_GONE}
            return Response(status_code=400)  # nothing receives it
        finally:
            body.release()
            self.engine.metrics.latency(time.monotonic() - start)
        return answered

    async def _answered(self, request: Request, body: Body, facts: dict[str, Any], of_person: bool) -> Response:
        engine, loop = self.engine, asyncio.get_running_loop()
        kind, parameters = content_type(request.headers.get("content-type"))
        model = engine.check_ready()
        model.needs.check_call(of_person, model.name)
        data = await body.read()
        facts["bytes"] = len(data)
        end = loop.time() + engine.limits.timeout
        parsed = loop.run_in_executor(
            self.parsers, read_content, kind, parameters, data, engine.limits.max_images, model.needs
        )
        content = await self._until(parsed, end)
        uploads = content.uploads
        facts["images"] = len(uploads)
        del data
        if of_person:
            return await self._of_person(request, model, content, end)
        if model.needs:
            uploads, cells = read_cells(model, content)
        tickets = engine.submit([upload.data for upload in uploads if upload.error is None])
        results = await self._results(tickets, request, end)
        if model.needs:
            pairs = zip(results, cells, strict=True)
            work = [one if isinstance(one, ServingError) else ([one], of_image, "") for one, of_image in pairs]
            results = await self._until(loop.run_in_executor(self.parsers, combine, model, work), end)
        found = iter(results)
        records, errors = [], []
        for index, upload in enumerate(uploads):
            result = upload.error or next(found)
            record: dict[str, Any] = {"index": index} | ({} if upload.id is None else {"id": upload.id})
            if isinstance(result, Answer):
                record |= result.to_dict()
            else:
                errors.append(result)
                record["error"] = result.to_dict()
            records.append(record)
        for error in errors:
            engine.metrics.error(error.kind)
        engine.metrics.images(len(records) - len(errors), len(errors))
        if errors:
            facts["failed"] = len(errors)
        status = errors[0].status if len(errors) == len(records) else 200
        answer: dict[str, Any] = {"model": model.name, "classes": list(model.classes), "images": records}
        if status != 200:
            count = f"{len(errors)} images" if len(errors) > 1 else "the image"
            message = errors[0].message if len(errors) == 1 else f"none of the {count} can be used: {errors[0].message}"
            answer = {"error": {**errors[0].to_dict(), "message": message}} | answer
        return JSONResponse(answer, status)

    async def _of_person(self, request: Request, model: ServedModel, content: Content, end: float) -> Response:
        """Return the one answer for the images of a person; raise ServingError if any of them cannot be used."""
        engine, count = self.engine, len(content.uploads)
        cells = model.needs.read(content.columns)
        unread = {at: upload.error for at, upload in enumerate(content.uploads) if upload.error is not None}
        tickets = engine.submit([] if unread else [upload.data for upload in content.uploads])
        results = list(unread.values()) if unread else await self._results(tickets, request, end)
        wrong = unread or {at: one for at, one in enumerate(results) if isinstance(one, ServingError)}
        if wrong:
            at, first = next(iter(wrong.items()))
            engine.metrics.images(0, count)
            raise ServingError(
                first.status, first.kind, f"image {at} of {count} cannot be used: {first.message}", hint=first.hint
            )
        loop = asyncio.get_running_loop()
        work = [(results, cells, content.person)]
        (answer,) = await self._until(loop.run_in_executor(self.parsers, combine, model, work), end)
        if isinstance(answer, ServingError):
            engine.metrics.images(0, count)
            raise answer
        engine.metrics.images(count, 0)
        named = {"id": content.person} if content.person else {}
        record = {**named, "images": count, **answer.to_dict()}
        body: dict[str, Any] = {"model": model.name, "classes": list(model.classes), "person": record}
        if answer.images:
            body["images"] = [{"index": at, **one.to_dict()} for at, one in enumerate(answer.images)]
        return JSONResponse(body)

    async def _until(self, work: Awaitable[_Result], end: float) -> _Result:
        """Return the result of some work; raise ServingError if it is not there in time."""
        try:
            async with asyncio.timeout_at(end):
                return await work
        except TimeoutError:
            raise self._late() from None

    def _late(self) -> ServingError:
        return ServingError(
            504,
            "timeout",
            f"expected an answer within {self.engine.limits.timeout:g} s, found none",
            hint="send fewer images per request, or start the server with a larger --timeout",
        )

    async def _results(self, tickets: Sequence[Ticket], request: Request, end: float) -> list[Any]:
        """Return the result of each image, in order; stop the work if the client is gone or the time `end` is over."""
        if not tickets:
            return []
        futures = [asyncio.wrap_future(ticket.future) for ticket in tickets]
        gone = asyncio.ensure_future(_disconnected(request))
        everything = asyncio.ensure_future(asyncio.wait(futures))
        try:
            left = max(0.0, end - asyncio.get_running_loop().time())
            await asyncio.wait([everything, gone], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if everything.done():
                return [_outcome(future) for future in futures]
            if gone.done():
                raise ClientGoneError
            raise self._late()
        finally:
            for ticket in tickets:
                ticket.cancel()
            gone.cancel()
            everything.cancel()
            for future in futures:
                if not future.cancel():
                    future.exception()  # asyncio would log an error that was not looked at

    async def health(self) -> Response:
        """Return status 200 with {"status": "ready"} if images can be predicted, else 503."""
        state = self.engine.state
        retry = {} if state in (READY, FAILED) else {"Retry-After": "2"}
        return JSONResponse({"status": state}, 200 if state == READY else 503, retry)

    async def model(self) -> Response:
        """Return the name of the model, its classes, its score, and the limits of the server."""
        try:
            model = self.engine.check_ready()
        except ServingError as error:
            return _error_response(error)
        record = _finite({"name": model.name, "classes": list(model.classes), **model.describe()})
        return JSONResponse({**record, "limits": asdict(self.engine.limits), "version": __version__})

    async def metrics(self) -> Response:
        """Return counters and histograms in the text format of Prometheus."""
        engine = self.engine
        gauges = {
            "ready": ("1 if the model is ready.", float(engine.state == READY)),
            "images_pending": ("Images that are decoded, waiting or predicted.", float(engine.pending)),
            "images_limit": ("Largest number of pending images.", float(engine.limits.queue)),
            "body_bytes": ("Bytes of request bodies in memory.", float(self.budget.used)),
            "body_bytes_limit": ("Largest number of such bytes.", float(self.budget.size)),
        }
        info = {"version": __version__, "model": engine.model.name if engine.model is not None else ""}
        return PlainTextResponse(engine.metrics.text(gauges, info), media_type=CONTENT_TYPE)

    async def page(self) -> Response:
        """Return the page to drop images on."""
        name = self.engine.model.name if self.engine.model is not None else "not loaded yet; reload this page"
        needs = NOTHING if self.engine.model is None else self.engine.model.needs
        return _html(drop_page(name, self.engine.limits.max_images, needs))

    async def docs(self, request: Request) -> Response:
        """Return the page that describes the interface."""
        url = str(request.base_url).rstrip("/")
        json_example = JSON_REQUEST.replace("URL", url)
        examples = [
            ("Files", f"curl -F images=@a.jpg -F images=@b.jpg {url}/predict"),
            ("Base64", json_example),
            ("One person, of a model for people; columns are fields", PERSON_REQUEST.replace("URL", url)),
            ("The answer", JSON_ANSWER),
        ]
        return _html(interface_page(self.app.openapi(), examples))


def _finite(value: Any) -> Any:
    """Return plain values with None in place of numbers that JSON lacks: a score can be unknown."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _html(page: str) -> Response:
    return HTMLResponse(page, headers={"Content-Security-Policy": content_policy(page)})


def _outcome(future: asyncio.Future[Any]) -> Any:
    error = future.exception()
    if error is None:
        return future.result()
    return error if isinstance(error, ServingError) else ServingError(500, "internal", "the server has a fault")


async def _disconnected(request: Request) -> None:
    """Return once the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
