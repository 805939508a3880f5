from __future__ import annotations

import socket

import pytest

from folds.models import hub
from tests.conftest import Logged


def _fail() -> None:
    raise OSError


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(hub, "_reachable", None)


def test_a_host_that_listens_is_reached_and_another_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert hub.can_connect(f"http://127.0.0.1:{port}/path")
        monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": f"127.0.0.1:{port}"})
        assert hub.can_connect("https://hub.invalid")  # by the proxy
    monkeypatch.setattr("urllib.request.getproxies", dict)
    assert not hub.can_connect(f"http://127.0.0.1:{port}")


def test_a_name_that_is_looked_up_forever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    released = threading.Event()
    monkeypatch.setattr(socket, "create_connection", lambda *given, **more: released.wait(60) and _fail())
    assert not hub.can_connect("https://hub.invalid", seconds=0.05)
    released.set()


def test_an_unreachable_hub_is_asked_once_and_its_cache_used(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub").constants
    asked: list[str] = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "can_connect", lambda address: bool(asked.append(address)))
    hub.without_waiting()
    assert constants.HF_HUB_OFFLINE is True
    hub.without_waiting()
    assert asked == [constants.ENDPOINT]
    assert logged.warnings == [
        "the hub of pretrained weights cannot be reached; only weights that it has stored here are used"
    ]
