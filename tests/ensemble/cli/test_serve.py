"""`ensemble serve`: a real process that answers as `ensemble predict` does, and ends without losing a request."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble as en
from tests.conftest import Called

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from ensemble.serving.server import bind

TEST = Path("people/eval")


def multipart(files: list[Path]) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'
    return b"".join(head + file.read_bytes() + b"\r\n" for file in files) + b"--b--\r\n"


def ask(url: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """The status and the body of an answer; a body is posted."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    headers = {} if body is None else {"Content-Type": "multipart/form-data; boundary=b"}
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    found = answer.read()
    connection.close()
    return answer.status, found


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `ensemble serve` in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ensemble.cli", "serve", *map(str, words), "--port", "0", "--json"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=environment, close_fds=True
            )
        )
        return started[-1]

    yield start
    for one in started:
        if one.poll() is None:
            one.kill()
            one.communicate()


def values(answer: Any) -> np.ndarray:
    return np.array([[one["probabilities"][name] for name in answer["classes"]] for one in answer["images"]])


def test_a_signal_ends_it_after_the_requests_in_flight(
    grid: Path, process: Callable[..., subprocess.Popen[str]]
) -> None:
    files = sorted((TEST / "images").rglob("*.jpg"))[:8]
    server = process("test_resnet", "--device", "cpu", "--wait-ms", "3000", "--batch", "16")
    expected = en.predict("test_resnet", files, progress=False)
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line, server.communicate()
    record = json.loads(line)
    assert record["name"] == "test_resnet"
    assert record["models"] == len(list(Path("checkpoints/test_resnet").iterdir()))
    url = record["url"]
    answers: list[tuple[int, bytes]] = []
    client = threading.Thread(target=lambda: answers.append(ask(url, "/predict", multipart(files))))
    client.start()
    while b"ensemble_images_pending 8\n" not in ask(url, "/metrics")[1]:
        assert client.is_alive()
    server.send_signal(signal.SIGTERM)
    _, err = server.communicate(timeout=60)
    client.join()
    assert server.returncode == 0, err
    assert "Traceback" not in err
    assert [status for status, _ in answers] == [200]
    answer = json.loads(answers[0][1])
    assert answer["classes"] == list(expected.classes)
    np.testing.assert_allclose(values(answer), expected.probabilities, atol=1e-6)
    lines = [line for line in err.splitlines() if " POST /predict 200 " in line]
    assert len(lines) == 1
    assert "images=8" in lines[0]
    assert files[0].stem not in err


def test_a_port_in_use_is_one_line(call: Callable[..., Called]) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        done = call("serve", "nothing", "--port", port)
    assert done.code == 1
    assert done.err.splitlines()[0] == f"error: port {port} of 127.0.0.1 is in use by another program"
    assert "--port" in done.err.splitlines()[1]


def test_a_model_that_does_not_exist_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Called]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("serve", "nothing", "--port", 0)
    assert done.code == 1
    assert "found 'nothing'" in done.err
    assert "Traceback" not in done.err


def test_without_the_extra_the_command_to_install_it_is_shown(
    call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ensemble.serving import face

    monkeypatch.setattr(face, "NEEDED", {"no_such_module": "uvicorn", "nor_this": "python-multipart"})
    done = call("serve", "model")
    assert done.code == 1
    assert done.err.splitlines() == [
        "error: serving needs uvicorn and python-multipart, which are not installed",
        "hint: pip install 'ensemble-folds[serve]'",
    ]


def test_impossible_values_are_named_as_flags(call: Callable[..., Called]) -> None:
    done = call("serve", "model", "--max-images", 0)
    assert done.code == 2
    assert "--max-images 0: expected a whole number of 1 or more" in done.err
