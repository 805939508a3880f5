"""The token and the passwords of a Ray cluster are in no message, file, job or command line."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from folds.errors import EnsembleError
from folds.execution import ray_cluster
from tests.conftest import Called

HIDDEN = "0123secret4567token"


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A Ray that refuses each connection with all it knows; the arguments of its calls."""
    calls: list[dict[str, Any]] = []

    def init(**arguments: Any) -> None:
        calls.append(arguments)
        raise ConnectionError(f"token {HIDDEN} was refused at {arguments['address']}")

    module = ModuleType("ray")
    vars(module).update({"__version__": "2.60.0", "init": init, "is_initialized": lambda: False})
    monkeypatch.setitem(sys.modules, "ray", module)
    monkeypatch.setattr(ray_cluster, "_own", [])
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", HIDDEN)
    return calls


@pytest.mark.parametrize("address", [None, "auto", f"ray://me:{HIDDEN}@host:10001"])
def test_an_error_of_a_connection_has_no_token(ray: list[dict[str, Any]], address: str | None, logged) -> None:
    with pytest.raises(EnsembleError) as error:
        ray_cluster.connect(address, ray_cluster.variables_of(2))
    shown = "\n".join([error.value.full_text(), *logged.lines])
    assert HIDDEN not in shown
    assert "token *** was refused" in shown
    (given,) = ray
    assert HIDDEN not in repr({**given, "address": None}), "Ray takes the token from the environment alone"


def test_a_token_of_its_own_is_random_and_only_in_the_environment(monkeypatch: pytest.MonkeyPatch, logged) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # restored after the test
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    tokens = set()
    for _ in range(2):
        ray_cluster._set_token()
        tokens.add(ray_cluster.os.environ.pop("RAY_AUTH_TOKEN"))
        del ray_cluster.os.environ["RAY_AUTH_MODE"]
    assert len(tokens) == 2
    assert min(map(len, tokens)) == 64
    assert not logged.lines


def test_a_training_writes_and_shows_no_token(
    grid: Path, call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", HIDDEN)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    started: list[Any] = []
    popen = subprocess.Popen

    def start(command: Any, *arguments: Any, **named: Any) -> Any:
        started.append(command)
        return popen(command, *arguments, **named)

    monkeypatch.setattr(subprocess, "Popen", start)
    words = ["--data", "people", "--arch", "test_resnet", "--k", "2", "--epochs", "1", "--img-size", "32"]
    with caplog.at_level(logging.DEBUG):
        done = call("kfold", *words, "--no-pretrained", "--fold", "0", "--name", "hidden")
    assert done.code == 0, done.err
    assert started, "the training has processes of its own"
    assert HIDDEN not in repr(started)
    assert HIDDEN not in done.out + done.err + caplog.text
    written = [path for path in grid.rglob("*") if path.is_file()]
    assert any(path.match("checkpoints/hidden/fold0.pt") for path in written)
    assert [path for path in written if HIDDEN.encode() in path.read_bytes()] == []
