"""Malformed requests: a status, a kind, a message and a hint in JSON; never a traceback, never a wrong answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.ensemble.serving.conftest import Server
from tests.ensemble.serving.fake import picture

Start = Callable[..., Server]
GOOD = base64.b64encode(picture()).decode()
PART = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'


def part(field: bytes = b"images", data: bytes = b"x", more: bytes = b"") -> bytes:
    return PART % (field, more, data)


def refused(answer: Any, status: int, kind: str, *texts: str) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["kind"] == kind
    for text in texts:
        assert text in error["message"]
    assert error["hint"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        (None, 415, "found none"),
        ("image/png", 415, "found 'image/png'"),
        ("text/plain; charset=utf-8", 415, "found 'text/plain'"),
        ("application/x-www-form-urlencoded", 415, "expected the content type multipart/form-data"),
        ("multipart/form-data", 400, "expected a boundary"),
        ("multipart/form-data; boundary=", 400, "expected a boundary"),
        (f"multipart/form-data; boundary={'x' * 5000}", 400, "malformed"),
        ("multipart/mixed; boundary=b", 415, "found 'multipart/mixed'"),
        ("\x00\x7f;;=", 415, "expected the content type"),
    ],
)
def test_other_content_types_are_named(served: Start, kind: str | None, status: int, text: str) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = served().client.post("/predict", content=part() + b"--b--\r\n", headers=headers)
    refused(answer, status, "content_type" if status == 415 else "bad_request", text)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", 400, "ends before its closing boundary"),
        (b"no multipart at all", 400, "malformed"),
        (part(), 400, "ends before its closing boundary"),
        (part()[:-9], 400, "ends before its closing boundary"),
        (part(b"photo") + b"--b--\r\n", 422, "found 'photo'"),
        (b"--b\r\n\r\nx\r\n--b--\r\n", 422, "a part without a name"),
        (part(more=b"\r\nContent-Transfer-Encoding: base64") + b"--b--\r\n", 415, "transfer encoding 'base64'"),
        (part(more=b"\r\nX: " + b"y" * 100_000) + b"--b--\r\n", 400, "malformed"),
        (part(more=b"\r\nX: y" * 1000) + b"--b--\r\n", 400, "malformed"),
        (part() * 5 + b"--b--\r\n", 413, "expected at most 4 images"),
    ],
)
def test_malformed_multipart_is_an_error(served: Start, body: bytes, status: int, text: str) -> None:
    server = served(max_images=4)
    answer = server.client.post("/predict", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    kinds = {400: "bad_request", 413: "too_large", 415: "content_type", 422: "invalid"}
    refused(answer, status, kinds[status], text)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", 400, "malformed"),
        (b"{", 400, "malformed"),
        (b"\xff\xfe{}", 400, "expected JSON in UTF-8"),
        (b'"text"', 422, "found a JSON string"),
        (b"[]", 422, "found a JSON list"),
        (b"null", 422, "found a JSON null"),
        (b"{}", 422, "expected a list 'images', found none"),
        (b'{"images": "x"}', 422, "'images' is a string"),
        (b'{"images": []}', 422, "expected one image or more"),
        (b'{"images": ["x"], "url": 1}', 422, "unknown field 'url'"),
        (b"9" * 10_000, 400, "malformed"),
        (json.dumps({"images": ["x"] * 5}).encode(), 413, "expected at most 4 images per request, found 5"),
        (b'{"images": [' + b"[]," * 100_000 + b"[]]}", 413, "expected JSON with at most 4 images"),
    ],
)
def test_malformed_json_is_an_error(served: Start, body: bytes, status: int, text: str) -> None:
    answer = served(max_images=4).client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    kinds = {400: "bad_request", 413: "too_large", 422: "invalid"}
    refused(answer, status, kinds[status], text)


def test_deeply_nested_json_is_an_error(served: Start) -> None:
    server = served(max_images=500, queue=500)
    body = b'{"images": ' + b"[" * 4000 + b"]" * 4000 + b"}"
    answer = server.client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["hint"]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (1, "found a number"),
        (None, "found a null"),
        ({"data": 1}, "found a number"),
        ({"id": "x"}, "expected 'data'"),
        ({"data": GOOD, "id": 3}, "expected an 'id'"),
        ({"data": GOOD, "id": "x" * 201}, "expected an 'id'"),
        ({"data": GOOD, "name": "x"}, "unknown field 'name'"),
        ({"url": "http://127.0.0.1/"}, "URLs are not fetched"),
        ("http://127.0.0.1/a.png", "URLs are not fetched"),
        ("file:///etc/passwd", "URLs are not fetched"),
        (f"data:image/png;base64,{GOOD}", "found a data URL"),
        ("not base64!", "expected base64"),
        (GOOD[:-1], "expected base64"),
        ("ä" * 8, "not ASCII"),
        ("_-_-", "expected base64"),
    ],
)
def test_a_wrong_entry_fails_alone(served: Start, entry: object, text: str) -> None:
    server = served()
    answer = server.client.post("/predict", json={"images": [entry, GOOD]})
    assert answer.status_code == 200
    wrong, right = answer.json()["images"]
    assert wrong["error"]["kind"] == "invalid"
    assert text in wrong["error"]["message"]
    assert wrong["error"]["hint"]
    assert right["label"] == "red"
    refused(server.client.post("/predict", json={"images": [entry]}), 422, "invalid", text)


def test_a_large_body_is_refused_by_its_declared_size(served: Start) -> None:
    server = served(max_body=0.01)
    refused(server.files(b"x" * 20_000), 413, "too_large", "at most 10,485 bytes", "found 20,1")


def test_a_large_body_without_a_declared_size_is_refused(served: Start) -> None:
    server = served(max_body=0.01)
    answer = server.client.post(
        "/predict", content=(b"x" * 1000 for _ in range(30)), headers={"Content-Type": "application/json"}
    )
    refused(answer, 413, "too_large", "at most 10,485 bytes", "found more")
    assert server.value("ensemble_body_bytes") == 0


def test_requests_beyond_the_memory_are_refused(served: Start) -> None:
    from ensemble.serving.app import _Handlers

    server = served(max_body=1)
    handlers = [route.endpoint.__self__ for route in server.client.app.application.routes if route.path == "/predict"]
    assert isinstance(handlers[0], _Handlers)
    assert handlers[0].budget.take(4 * 2**20 - 100)
    answer = server.files(picture())
    refused(answer, 503, "busy", "as many bytes")
    assert answer.headers["Retry-After"] == "1"
    handlers[0].budget.give(4 * 2**20 - 100)
    assert server.files(picture()).status_code == 200
    assert server.value("ensemble_body_bytes") == 0


def test_unknown_paths_and_methods_are_json(served: Start) -> None:
    server = served()
    refused(server.client.get("/patients/smith.jpg"), 404, "not_found")
    refused(server.client.get("/predict"), 405, "method")
    refused(server.client.post("/health"), 405, "method")
    assert server.client.get("/predict").headers["Allow"] == "POST"


def test_pages_of_other_sites_cannot_send_images(served: Start) -> None:
    server = served()
    files = [("images", ("a.png", picture()))]
    answer = server.client.post("/predict", files=files, headers={"Sec-Fetch-Site": "cross-site"})
    refused(answer, 403, "not_allowed")
    assert server.client.post("/predict", files=files, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert "access-control-allow-origin" not in server.client.get("/health").headers


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8000", 200), ("LOCALHOST", 200), ("[::1]:80", 200), ("evil.example", 421), ("", 421)],
)
def test_only_names_of_this_server_are_accepted(served: Start, host: str, status: int) -> None:
    server = served(hosts={"127.0.0.1", "::1", "localhost"})
    assert server.client.get("/health", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=b", "application/json"])
def test_mutated_requests_get_an_answer_in_json(served: Start, kind: str) -> None:
    server, random = served(), np.random.default_rng(0)
    whole = part(data=picture()) + b"--b--\r\n" if "form" in kind else json.dumps({"images": [GOOD]}).encode()
    statuses = set()
    for _ in range(150):
        body = bytearray(whole)
        for at in random.integers(0, len(body), random.integers(1, 6)):
            body[at] = random.integers(0, 256)
        start, stop = sorted(random.integers(0, len(body), 2).tolist())
        if random.random() < 0.3:
            del body[start:stop]
        answer = server.client.post("/predict", content=bytes(body), headers={"Content-Type": kind})
        statuses.add(answer.status_code)
        assert ("images" if answer.status_code == 200 else "error") in answer.json(), answer.text
    assert statuses <= {200, 400, 413, 415, 422}
    assert len(statuses) > 1
    assert server.value("ensemble_images_pending") == 0
    assert server.value("ensemble_body_bytes") == 0
    assert server.files(picture()).status_code == 200
