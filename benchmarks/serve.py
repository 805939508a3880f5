"""Load a server on the loopback: is anything lost, is every answer that of `predict`, how long is the tail?

    python benchmarks/serve.py                                   ten small models (test_resnet, test_vit; 32 px)
    python benchmarks/serve.py --archs resnet18 --img-size 112   other models
    python benchmarks/serve.py --model model/ --images new/      a model of yours

Without `--model`, a blend of two runs with five folds each is trained on synthetic people for one epoch and exported.
The images are JPEGs of 384 × 512. Compared are, in this order and again in the reverse one:

    load, one by one    `ensemble.load(...).predict_proba([image])` in a loop, in this process
    1 client            one client that sends one image per request and waits for each answer
    N clients, batch 1  N clients at once, a server that predicts images one by one (`--batch 1`)
    N clients           N clients at once, with batches

The times of the server's process are CPU seconds, which other programs on the machine change less than wall seconds.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.cli.terminal.console import table

BOUNDARY = "image"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Measured:
    """What one load was answered.

    Attributes
    ----------
    seconds, server_seconds : wall seconds of all requests, and CPU seconds of the server.
    latencies : seconds of each request.
    lost : requests without a status 200.
    difference : largest difference from the expected probabilities.
    """

    name: str
    seconds: float
    server_seconds: float
    latencies: NDArray[np.float64]
    lost: int
    difference: float

    def row(self) -> list[object]:
        """Return the cells of the table."""
        n = len(self.latencies)
        tail = [f"{1000 * np.quantile(self.latencies, q):.0f}" for q in (0.5, 0.95, 0.99)]
        each = [f"{n / self.seconds:.1f}", f"{1000 * self.server_seconds / n:.1f}"]
        return [self.name, n, *each, *tail, f"{1000 * self.latencies.max():.0f}", self.lost, f"{self.difference:.1e}"]


def make_model(folder: Path, archs: str, size: int, folds: int) -> tuple[Path, Path]:
    """Train, blend and export a small model; return it and a folder of images."""
    from folds.data.synthetic.people import generate_people

    generate_people(folder / "people", people=30, test_people=6, size=(48, 64))
    generate_people(folder / "photos", people=6, test_people=30, size=(384, 512))
    train = ["kfold", "--data", "people", "--arch", archs, "--k", folds, "--epochs", 1, "--img-size", size]
    call(folder, *train, "--no-pretrained")
    runs = sorted((folder / "runs").glob("*.npy"))
    call(folder, "blend", *runs, "--method", "soft", "-o", "both")
    call(folder, "export", "both", "-o", "model")
    return folder / "model", folder / "photos" / "eval"


def call(folder: Path, *words: object) -> None:
    """Run a command in a folder."""
    command = [sys.executable, "-m", "ensemble", *map(str, words), "--quiet"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


class Server:
    """`ensemble serve` in a process of its own."""

    def __init__(self, model: Path, device: str, *words: object) -> None:
        command = [sys.executable, "-m", "ensemble", "serve", str(model), "--port", "0", "--json", "--quiet"]
        command += ["--device", device, *map(str, words)]
        started = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = json.loads(self.process.stdout.readline())["url"].removeprefix("http://")
        self.start_seconds = time.perf_counter() - started

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self) -> int:
        """Return the largest memory of the process, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024

    def stop(self) -> None:
        """End the server; its exit code must be 0."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0


def body_of(data: bytes) -> bytes:
    """Return a request with one image."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def load(
    name: str, server: Server, bodies: list[bytes], expected: NDArray[np.float32], clients: int, requests: int
) -> Measured:
    """Send single images from some clients at once, each as fast as it gets answers."""
    numbers, lock = itertools.count(), threading.Lock()
    latencies, lost, difference = np.zeros(requests), 0, 0.0

    def client(_: int) -> None:
        nonlocal lost, difference
        connection = http.client.HTTPConnection(server.address, timeout=120)
        while (number := next(numbers)) < requests:
            at = number % len(bodies)
            start = time.perf_counter()
            connection.request("POST", "/predict", bodies[at], HEADERS)
            answer = connection.getresponse()
            text = answer.read()
            latencies[number] = time.perf_counter() - start
            found = json.loads(text)
            with lock:
                if answer.status != 200:
                    lost += 1
                    continue
                values = [found["images"][0]["probabilities"][name] for name in found["classes"]]
                difference = max(difference, float(np.abs(np.array(values) - expected[at]).max()))
        connection.close()

    cpu, start = server.cpu_seconds(), time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    seconds = time.perf_counter() - start
    return Measured(name, seconds, server.cpu_seconds() - cpu, latencies, lost, difference)


def one_by_one(predictor: Any, files: list[Path], expected: NDArray[np.float32], requests: int) -> Measured:
    """Predict single images in this process."""
    latencies, difference = np.zeros(requests), 0.0
    cpu, start = time.process_time(), time.perf_counter()
    for number in range(requests):
        at, begin = number % len(files), time.perf_counter()
        values = predictor.predict_proba([files[at]])[0]
        latencies[number] = time.perf_counter() - begin
        difference = max(difference, float(np.abs(values - expected[at]).max()))
    seconds = time.perf_counter() - start
    return Measured("load, one by one", seconds, time.process_time() - cpu, latencies, 0, difference)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--archs", default="test_resnet,test_vit")
    parser.add_argument("--img-size", type=int, default=32)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=800)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.model is None:
            model, images = make_model(Path(folder), given.archs, given.img_size, given.folds)
        else:
            model, images = given.model, given.images
        measure(model, images, given)


def measure(model: Path, images: Path, given: argparse.Namespace) -> None:
    """Run every load twice, the second time in the reverse order, and print the faster one of each."""
    import ensemble as en

    files = sorted(path for path in images.rglob("*.jpg"))[:100]
    expected = en.predict(str(model), files, device=given.device, progress=False).probabilities
    bodies = [body_of(file.read_bytes()) for file in files]
    predictor = en.load(model, device=given.device)
    batched, single = Server(model, given.device), Server(model, given.device, "--batch", 1, "--wait-ms", 0)
    many, few = given.requests, max(50, given.requests // 4)
    loads = [
        lambda: one_by_one(predictor, files, expected, few),
        lambda: load("1 client", batched, bodies, expected, 1, few),
        lambda: load(f"{given.clients} clients, batch 1", single, bodies, expected, given.clients, many),
        lambda: load(f"{given.clients} clients", batched, bodies, expected, given.clients, many),
    ]
    first = [one() for one in loads]
    second = [one() for one in reversed(loads)][::-1]
    memory = batched.memory()
    batched.stop()
    single.stop()
    best = [min(pair, key=lambda one: one.seconds) for pair in zip(first, second, strict=True)]
    header = [
        "load",
        "images",
        "images/s",
        "CPU ms/image",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "max ms",
        "lost",
        "difference",
    ]
    print(table(header, [one.row() for one in best]))
    print(
        f"\n{len(files)} images, {len(files[0].read_bytes()):,} bytes each; start {batched.start_seconds:.1f} s, {memory} MiB"
    )
    assert not any(one.lost for one in first + second)
    assert max(one.difference for one in first + second) <= 1e-6


if __name__ == "__main__":
    main()
