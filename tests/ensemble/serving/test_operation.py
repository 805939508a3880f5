"""What the operator sees: readiness, metrics, one line of log per request, and pages that load nothing from elsewhere."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from ensemble.serving.app import PATHS, make_app
from ensemble.serving.engine import FAILED, READY, Engine
from ensemble.serving.limits import Limits
from ensemble.serving.metrics import Histogram, Metrics
from folds.errors import UsageError
from tests.ensemble.serving.conftest import Server, until
from tests.ensemble.serving.fake import FakeModel, picture

Start = Callable[..., Server]


def test_health_says_when_the_model_is_ready() -> None:
    loaded, engine = threading.Event(), Engine(Limits(), Metrics(), threads=1)
    client = TestClient(make_app(engine), base_url="http://127.0.0.1")  # type: ignore[arg-type]

    def load() -> FakeModel:
        loaded.wait(30)
        return FakeModel()

    engine.start(load)
    early = client.get("/health")
    assert (early.status_code, early.json()) == (503, {"status": "loading"})
    refused = client.post("/predict", files=[("images", ("x", picture()))])
    assert (refused.status_code, refused.json()["error"]["kind"]) == (503, "not_ready")
    assert refused.headers["Retry-After"] == early.headers["Retry-After"] == "2"
    loaded.set()
    until(lambda: engine.state == READY)
    assert (client.get("/health").status_code, client.get("/health").json()) == (200, {"status": "ready"})
    engine.stop()
    assert client.get("/health").status_code == 503
    stopped = client.post("/predict", files=[("images", ("x", picture()))])
    assert (stopped.status_code, stopped.json()["error"]["kind"]) == (503, "not_ready")


def test_a_model_that_cannot_be_loaded_is_never_ready() -> None:
    engine = Engine(Limits(), Metrics(), threads=1)
    client = TestClient(make_app(engine), base_url="http://127.0.0.1")  # type: ignore[arg-type]

    def load() -> FakeModel:
        raise UsageError("there is no such model")

    engine.start(load)
    until(lambda: engine.state == FAILED)
    answer = client.get("/health")
    assert (answer.status_code, answer.json()) == (503, {"status": "failed"})
    assert "Retry-After" not in answer.headers
    engine.stop()
    assert isinstance(engine.error, UsageError)


def test_the_model_page_has_classes_and_limits(served: Start) -> None:
    record = served(max_images=7).client.get("/model").json()
    assert record["name"] == record["kind"] == "fake"
    assert record["classes"] == ["red", "green", "blue"]
    assert record["limits"]["max_images"] == 7


def test_a_score_without_an_interval_is_null(served: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel()
    monkeypatch.setattr(model, "describe", lambda: {"score": {"score": 0.5, "low": float("nan")}, "people": [1, 2]})
    record = served(model).client.get("/model").json()
    assert record["score"] == {"score": 0.5, "low": None}
    assert record["people"] == [1, 2]


def test_metrics_are_in_the_format_of_prometheus(served: Start) -> None:
    server = served()
    server.files(picture(), picture(), b"x")
    server.client.get("/smith.jpg")
    answer = server.client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = answer.text
    sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? (\+Inf|[0-9.e+-]+)')
    for line in text.splitlines():
        assert line.startswith(("# HELP ensemble_", "# TYPE ensemble_")) or sample.fullmatch(line), line
    names = re.findall(r"# TYPE (\S+) ", text)
    assert len(names) == len(set(names))
    assert server.value('ensemble_requests_total{path="/predict",status="200"}') == 1
    assert server.value('ensemble_requests_total{path="other",status="404"}') == 1
    assert server.value('ensemble_images_total{result="predicted"}') == 2
    assert server.value('ensemble_images_total{result="failed"}') == 1
    assert server.value('ensemble_errors_total{kind="unreadable"}') == 1
    assert server.value('ensemble_errors_total{kind="not_found"}') == 1
    assert server.value("ensemble_ready") == 1
    assert server.value("ensemble_images_pending") == 0
    assert server.value("ensemble_batch_images_sum") == 2
    assert server.value("ensemble_request_seconds_count") == 1
    assert "smith" not in text


def test_a_histogram_is_cumulative() -> None:
    histogram = Histogram((1, 2))
    for value in (1, 1.5, 2, 3):
        histogram.add(value)
    assert histogram.lines("x") == [
        'x_bucket{le="1"} 1',
        'x_bucket{le="2"} 3',
        'x_bucket{le="+Inf"} 4',
        "x_sum 7.5",
        "x_count 4",
    ]


def test_the_log_has_one_line_per_request_without_names(
    served: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("ensemble"), "propagate", True)
    server = served()
    with caplog.at_level(logging.INFO, logger="ensemble"):
        server.client.post("/predict?patient=smith", files=[("images", ("smith.png", picture()))] * 2)
        server.client.get("/smith.png")
        server.client.request("SMITH", "/predict")
        server.client.post("/predict", content=b"smith", headers={"Content-Type": "smith/smith"})
    lines = [record.getMessage() for record in caplog.records if record.name == "ensemble.serving.gate"]
    assert len(lines) == 4
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.fullmatch(rf"{moment} POST /predict 200 bytes=\d+ images=2 ms=[\d.]+", lines[0])
    assert re.fullmatch(rf"{moment} GET other 404 error=not_found ms=[\d.]+", lines[1])
    assert re.fullmatch(rf"{moment} other /predict 405 error=method ms=[\d.]+", lines[2])
    assert re.fullmatch(rf"{moment} POST /predict 415 error=content_type ms=[\d.]+", lines[3])
    assert "smith" not in caplog.text.lower()


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_and_run_only_their_own_script(served: Start, path: str) -> None:
    answer = served().client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith(
        "default-src 'none'; script-src 'sha256-" if path == "/" else "default-src 'none'; script-src 'none'"
    )
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    page = answer.text
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert not re.search(r'\son\w+="|\sstyle="', page)  # the policy would forbid them
    assert '<html lang="en">' in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_shows_the_name_of_the_model_as_text(served: Start) -> None:
    model = FakeModel()
    model.name = "<script>alert(1)</script>"
    page = served(model).client.get("/").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<script>") == 1


def test_every_answer_has_headers_that_protect_the_browser(served: Start) -> None:
    client = served().client
    for path in (*PATHS, "/nothing"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert "server" not in headers


def test_the_interface_is_described_without_other_servers(served: Start) -> None:
    client = served().client
    record = client.get("/openapi.json").json()
    operation = record["paths"]["/predict"]["post"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert {"200", "400", "408", "413", "415", "422", "503", "504"} <= set(operation["responses"])
    assert "$ref" not in str(operation["requestBody"])
    page = client.get("/docs").text
    for path in record["paths"]:
        assert f" {path}</code>" in page
    assert client.get("/redoc").status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 0},
        {"queue": 2.5},
        {"max_body": 0},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"wait_ms": -1},
        {"max_images": True},
        {"max_images": 300},
        {"max_pixels": "1"},
    ],
)
def test_impossible_limits_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Limits(**wrong)  # type: ignore[arg-type]
