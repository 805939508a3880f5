"""A server with the fake model, called without a network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from ensemble.serving.app import make_app
from ensemble.serving.engine import LOADING, Engine
from ensemble.serving.limits import Limits
from ensemble.serving.metrics import Metrics
from tests.ensemble.serving.fake import FakeModel


@dataclass
class Server:
    """A running application, its client, and the model behind it."""

    client: Any
    engine: Engine
    model: FakeModel

    def files(self, *contents: bytes, field: str = "images") -> Any:
        return self.client.post("/predict", files=[(field, ("name.png", data)) for data in contents])

    def value(self, line: str) -> float:
        """The value of a line of /metrics; 0 if it is not there."""
        lines = self.client.get("/metrics").text.splitlines()
        found = [one for one in lines if one.startswith(f"{line} ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0


def until(check: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 20
    while not check():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


@pytest.fixture
def served() -> Iterator[Callable[..., Server]]:
    """Start a server with these limits."""
    from starlette.testclient import TestClient

    opened: list[Server] = []

    def start(model: FakeModel | None = None, hosts: set[str] | None = None, **limits: Any) -> Server:
        model = model or FakeModel()
        engine = Engine(Limits(**limits), Metrics(), threads=2)
        engine.start(lambda: model)
        until(lambda: engine.state != LOADING)
        app = make_app(engine, hosts)
        opened.append(Server(TestClient(app, base_url="http://127.0.0.1"), engine, model))  # type: ignore[arg-type]
        return opened[-1]

    yield start
    for server in opened:
        server.model.go.set()
        server.engine.stop()
