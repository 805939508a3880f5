"""A server on a real port: slow and broken clients, many at once, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn")

from ensemble.serving.engine import READY, STOPPED
from ensemble.serving.limits import Limits
from ensemble.serving.server import Serving, allowed_hosts, bind
from folds.errors import EnsembleError, UsageError
from folds.images.decode import decode_image
from tests.ensemble.serving.conftest import until
from tests.ensemble.serving.fake import CLASSES, SETTINGS, FakeModel, expected, picture


@dataclass
class Running:
    """A server in a thread."""

    serving: Serving
    model: FakeModel
    thread: threading.Thread

    @property
    def port(self) -> int:
        return int(self.serving.url.rpartition(":")[2])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, data: bytes) -> tuple[int, Any]:
        """Send one image; return the status and the JSON of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", "/predict", multipart(data), {"Content-Type": "multipart/form-data; boundary=b"})
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        return answer.status, found


def multipart(*contents: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'
    return b"".join(head + data + b"\r\n" for data in contents) + b"--b--\r\n"


def received(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    found = b""
    while chunk := connection.recv(65536):
        found += chunk
    return found


@pytest.fixture
def running() -> Iterator[Callable[..., Running]]:
    """Start a server with the fake model in a thread."""
    started: list[Running] = []

    def start(**limits: Any) -> Running:
        model = FakeModel()
        serving = Serving(bind("127.0.0.1", 0), lambda: model, Limits(**limits))
        thread = threading.Thread(target=serving.run)
        thread.start()
        started.append(Running(serving, model, thread))
        until(lambda: serving.engine.state == READY)
        return started[-1]

    yield start
    for one in started:
        one.model.go.set()
        one.serving.stop()
        one.thread.join(30)
        assert not one.thread.is_alive()


def test_every_client_of_many_gets_its_own_answer(running: Callable[..., Running]) -> None:
    server = running()
    pictures = [picture((i * 5 % 256, 255 - i * 3 % 256, i * 11 % 256)) for i in range(60)]
    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(server.ask, pictures))
    for (status, found), data in zip(answers, pictures, strict=True):
        assert status == 200
        given = [found["images"][0]["probabilities"][name] for name in CLASSES]
        np.testing.assert_array_equal(np.array(given, np.float32), expected(decode_image(data, SETTINGS).pixels))
    assert sum(server.model.batches) == 60


def test_a_stop_answers_the_requests_in_flight(running: Callable[..., Running]) -> None:
    server = running(wait_ms=0)
    server.model.go.clear()
    with ThreadPoolExecutor(5) as clients:
        waiting = [clients.submit(server.ask, picture((i, i, 9))) for i in range(5)]
        until(lambda: server.serving.engine.pending == 5)
        server.serving.stop()
        until(lambda: not accepts(server.port))
        server.model.go.set()
        assert [one.result()[0] for one in waiting] == [200] * 5
    server.thread.join(20)
    assert not server.thread.is_alive()


def test_a_second_stop_gives_the_requests_up(
    running: Callable[..., Running], capfd: pytest.CaptureFixture[str]
) -> None:
    server = running(wait_ms=0)
    server.model.go.clear()
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(server.ask, picture())
        until(lambda: server.serving.engine.pending == 1)
        server.serving.stop()
        until(lambda: not accepts(server.port))
        server.serving.stop()
        status, found = waiting.result()
    assert (status, found["error"]["kind"]) == (503, "not_ready")
    server.model.go.set()
    server.thread.join(20)
    assert not server.thread.is_alive()
    assert "Traceback" not in capfd.readouterr().err


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def test_a_slow_upload_is_given_up(running: Callable[..., Running]) -> None:
    server = running(upload_timeout=0.2)
    with server.connect() as client:
        client.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        answer = received(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"slow_upload"' in answer
    assert b"found 1 bytes" in answer


def test_a_head_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from ensemble.serving import server as module
    from ensemble.serving.protocol import make_protocol

    monkeypatch.setattr(module, "make_protocol", lambda connections: make_protocol(connections, 0.2))
    serving = Serving(bind("127.0.0.1", 0), FakeModel)
    thread = threading.Thread(target=serving.run)
    thread.start()
    until(lambda: serving.engine.state == READY)
    port = int(serving.url.rpartition(":")[2])
    try:
        for start in (b"", b"POST /pre", b"GET /health HTTP/1.1\r\nHost: x\r\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(start)
                assert received(client).startswith(b"HTTP/1.1 408 ")
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:  # the second head of a connection
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
            client.sendall(b"GET /he")
            assert b"HTTP/1.1 408 " in received(client)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:  # a body that is not wanted
            client.sendall(b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 405 ")
            client.sendall(b"x")
            received(client)
    finally:
        serving.stop()
        thread.join(20)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/9\r\n\r\n",
        b"GET /a b c HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(running: Callable[..., Running], sent: bytes) -> None:
    server = running()
    with server.connect() as client:
        client.sendall(sent)
        answer = received(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"bad_request"' in answer
    assert server.ask(picture())[0] == 200


def test_connections_beyond_the_limit_are_refused(running: Callable[..., Running]) -> None:
    server = running(connections=3)
    held = [server.connect() for _ in range(3)]
    for one in held:
        one.sendall(b"GET /he")
    until(lambda: len(server.serving._server.server_state.connections) == 3)
    with server.connect() as client:
        answer = received(client)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in answer
    for one in held:
        one.close()
    until(lambda: len(server.serving._server.server_state.connections) == 0)
    assert server.ask(picture())[0] == 200


def test_work_for_a_client_that_is_gone_is_dropped(running: Callable[..., Running]) -> None:
    server = running(wait_ms=0, batch=1)
    server.model.go.clear()
    body = multipart(*[picture()] * 4)
    with server.connect() as client:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        until(lambda: server.serving.engine.pending == 4)
    metrics = server.serving.metrics
    until(lambda: metrics._errors["disconnected"] == 1)
    server.model.go.set()
    until(lambda: server.serving.engine.pending == 0)
    assert len(server.model.batches) <= 1
    assert metrics._requests["/predict", 499] == 1


def test_a_refused_body_is_read_so_that_the_answer_arrives(running: Callable[..., Running]) -> None:
    server = running(max_body=0.5)
    status, found = server.ask(b"x" * 900_000)
    assert status == 413
    assert found["error"]["kind"] == "too_large"


def test_a_client_that_asks_before_it_sends_is_refused_first(running: Callable[..., Running]) -> None:
    server = running(max_body=0.5)
    with server.connect() as client:
        client.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        answer = received(client)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_port_in_use_is_one_clear_error() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(EnsembleError, match=f"port {port} of 127.0.0.1 is in use"):
            bind("127.0.0.1", port)


def test_a_head_without_end_does_not_fill_the_memory(running: Callable[..., Running]) -> None:
    server = running()
    with server.connect() as client, contextlib.suppress(ConnectionError):
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(1000):
            client.sendall(b"y" * 10_000)
        pytest.fail("10 MB of a head were accepted")
    assert server.ask(picture())[0] == 200


@pytest.mark.parametrize("host", ["203.0.113.7", "no such name", "", "a" * 300])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(EnsembleError, match="expected an address of this machine"):
        bind(host, 0)


@pytest.mark.parametrize("port", [-1, 65536])
def test_an_impossible_port_is_refused(port: int) -> None:
    with pytest.raises(UsageError, match=f"port={port}"):
        bind("127.0.0.1", port)


def test_names_of_this_machine_are_accepted() -> None:
    assert allowed_hosts("127.0.0.1", ()) == {"127.0.0.1", "::1", "localhost"}
    assert allowed_hosts("localhost", ["Example.org"]) == {"127.0.0.1", "::1", "localhost", "example.org"}
    assert allowed_hosts("0.0.0.0", ()) is None  # noqa: S104
    assert allowed_hosts("0.0.0.0", ["Example.org"]) == {"example.org"}  # noqa: S104


def test_the_end_of_the_model_ends_the_server() -> None:
    class Broken(FakeModel):
        def answer(self, images: Any) -> Any:
            raise SystemExit("the driver is gone")

    serving = Serving(bind("127.0.0.1", 0), Broken, Limits(timeout=1))
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(serving.run)
        until(lambda: serving.engine.state == READY)
        status, _ = Running(serving, FakeModel(), threading.current_thread()).ask(picture())
        assert status in (503, 504)
        with pytest.raises(SystemExit, match="the driver is gone"):
            ended.result(30)


def test_a_model_that_cannot_be_loaded_ends_the_server() -> None:
    def load() -> FakeModel:
        time.sleep(0.05)
        raise EnsembleError("there is no such model")

    serving = Serving(bind("127.0.0.1", 0), load)
    with pytest.raises(EnsembleError, match="there is no such model"):
        serving.run()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_handlers_come_back(number: int) -> None:
    before = signal.getsignal(number)
    serving = Serving(bind("127.0.0.1", 0), FakeModel)
    serving.run(lambda model: os.kill(os.getpid(), number))
    assert signal.getsignal(number) is before
    assert serving.engine.state == STOPPED


def test_it_runs_where_an_event_loop_runs_already() -> None:
    serving = Serving(bind("127.0.0.1", 0), FakeModel)

    async def cell() -> None:
        serving.run(lambda model: os.kill(os.getpid(), signal.SIGINT))

    asyncio.run(cell())
    assert serving.engine.state == STOPPED


def test_a_stop_while_the_model_is_loaded_is_not_ready() -> None:
    loading, go = threading.Event(), threading.Event()

    def load() -> FakeModel:
        loading.set()
        go.wait(30)
        return FakeModel()

    serving, called = Serving(bind("127.0.0.1", 0), load), []
    thread = threading.Thread(target=serving.run, args=(called.append,))
    thread.start()
    assert loading.wait(20)
    serving.stop()
    until(lambda: not accepts(int(serving.url.rpartition(":")[2])))
    go.set()
    thread.join(20)
    assert not thread.is_alive()
    assert serving.engine.state == STOPPED
    assert called == []


def test_an_error_of_the_caller_ends_the_server() -> None:
    def ready(model: object) -> None:
        raise EnsembleError("the terminal is gone")

    with pytest.raises(EnsembleError, match="the terminal is gone"):
        Serving(bind("127.0.0.1", 0), FakeModel).run(ready)
