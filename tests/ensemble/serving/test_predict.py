"""POST /predict: every image gets its own answer, in order, and what is wrong is said in JSON."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from folds.images.decode import decode_image
from tests.ensemble.serving.conftest import Server, until
from tests.ensemble.serving.fake import CLASSES, SETTINGS, FakeModel, expected, picture

Start = Callable[..., Server]
COLORS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (90, 80, 70)]


def values(answer: dict[str, Any]) -> np.ndarray:
    return np.array([answer["probabilities"][name] for name in CLASSES], np.float32)


def check(answer: dict[str, Any], data: bytes) -> None:
    wanted = expected(decode_image(data, SETTINGS).pixels)
    np.testing.assert_array_equal(values(answer), wanted)
    assert answer["label"] == CLASSES[int(wanted.argmax())]
    assert answer["confidence"] == pytest.approx(float(wanted.max()), abs=1e-7)


def test_files_are_answered_in_their_order(served: Start) -> None:
    server = served()
    pictures = [picture(color) for color in COLORS]
    answer = server.files(*pictures)
    assert answer.status_code == 200
    record = answer.json()
    assert record["model"] == "fake"
    assert record["classes"] == list(CLASSES)
    assert [one["index"] for one in record["images"]] == [0, 1, 2, 3]
    for one, data in zip(record["images"], pictures, strict=True):
        check(one, data)


def test_base64_is_answered_with_the_ids_of_the_client(served: Start) -> None:
    server = served()
    text = base64.b64encode(picture()).decode()
    wrapped = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    answer = server.client.post("/predict", json={"images": [text, {"data": wrapped, "id": "a b"}]})
    assert answer.status_code == 200
    plain, named = answer.json()["images"]
    assert "id" not in plain
    assert named["id"] == "a b"
    for one in (plain, named):
        check(one, picture())


def test_uncertainty_is_that_of_the_probabilities(served: Start) -> None:
    server = served()
    one, flat = server.files(picture((255, 0, 0)), picture((9, 9, 9))).json()["images"]
    p = values(one).astype(float)
    assert one["uncertainty"]["entropy"] == pytest.approx(-(p * np.log(p)).sum() / np.log(3), abs=1e-5)
    assert one["uncertainty"]["margin"] == pytest.approx(p[0] - p[1], abs=1e-5)
    assert one["uncertainty"]["disagreement"] == 0.5  # the second member sees blue
    assert flat["uncertainty"]["entropy"] == pytest.approx(1.0)
    assert flat["uncertainty"]["margin"] == pytest.approx(0.0)


def test_the_label_is_that_of_the_decision_rules(served: Start) -> None:
    server = served()
    server.model.decisions = [{"label": None, "confidence": 0.25}]
    (one,) = server.files(picture()).json()["images"]
    server.model.decisions = [{"label": "blue", "confidence": 0.125, "set": ["red", "blue"]}]
    (other,) = server.files(picture()).json()["images"]
    assert (one["label"], one["confidence"]) == (None, 0.25)
    assert one["decision"] == {"most_probable": "red", "answered": False}
    assert (other["label"], other["confidence"]) == ("blue", 0.125)
    assert other["decision"] == {"most_probable": "red", "answered": True, "set": ["red", "blue"]}


@pytest.mark.parametrize("kind", ["rotated", "cmyk", "deep", "animated", "gray", "palette", "transparent"])
def test_every_kind_of_image_has_the_pixels_of_the_decoder(served: Start, kind: str) -> None:
    file, random = io.BytesIO(), np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (24, 40, 3), np.uint8))
    if kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        noise.save(file, "JPEG", exif=exif)
    elif kind == "cmyk":
        noise.convert("CMYK").save(file, "JPEG")
    elif kind == "deep":
        Image.fromarray(random.integers(0, 65536, (24, 40)).astype(np.uint16)).save(file, "PNG")
    elif kind == "animated":
        noise.save(file, "GIF", save_all=True, append_images=[Image.new("RGB", noise.size)])
    else:
        mode = {"gray": "L", "palette": "P", "transparent": "RGBA"}[kind]
        noise.convert(mode).save(file, "PNG")
    (one,) = served().files(file.getvalue()).json()["images"]
    check(one, file.getvalue())


def test_one_bad_image_does_not_fail_the_others(served: Start) -> None:
    server = served()
    good = picture()
    answer = server.files(good, b"", good[:60], b"plain text", good)
    assert answer.status_code == 200
    images = answer.json()["images"]
    check(images[0], good)
    check(images[4], good)
    assert [one["error"]["kind"] for one in images[1:4]] == ["unreadable"] * 3
    assert "is empty (0 bytes)" in images[1]["error"]["message"]
    assert "not an image of a known format" in images[3]["error"]["message"]
    assert all(one["error"]["hint"] for one in images[1:4])
    assert server.value('ensemble_images_total{result="failed"}') == 3
    assert server.value('ensemble_errors_total{kind="unreadable"}') == 3


def test_a_request_without_any_usable_image_is_an_error(served: Start) -> None:
    answer = served().files(b"x", b"")
    assert answer.status_code == 422
    assert answer.json()["error"]["kind"] == "unreadable"
    assert len(answer.json()["images"]) == 2


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_before_it_is_decoded(served: Start) -> None:
    server = served(max_pixels=1_000_000)
    answer = server.files(picture(size=(1001, 1000)), picture(size=(1000, 1000)))
    bomb, largest = answer.json()["images"]
    assert bomb["error"]["kind"] == "too_large"
    assert "1,000,000 pixels" in bomb["error"]["message"]
    check(largest, picture(size=(1000, 1000)))
    assert server.files(picture(size=(1001, 1000))).status_code == 413


def test_the_image_on_which_the_model_fails_is_alone(served: Start) -> None:
    model = FakeModel()
    server = served(model, batch=8, wait_ms=2000)
    pictures = [picture(color) for color in COLORS] * 2
    model.broken = decode_image(pictures[2], SETTINGS).pixels
    images = server.files(*pictures).json()["images"]
    for at, one in enumerate(images):
        if at in (2, 6):
            assert one["error"]["kind"] == "model"
            assert "secret" not in json.dumps(one)
        else:
            check(one, pictures[at])


@pytest.mark.parametrize("wrong", ["nan", "shape", "sum"])
def test_values_that_are_no_probabilities_are_not_sent(
    served: Start, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"nan": [[np.nan, 0.5, 0.5]], "shape": [[0.5, 0.5]], "sum": [[0.9, 0.9, 0.9]]}[wrong]
    from ensemble.serving.model import Answers

    model = FakeModel()
    monkeypatch.setattr(model, "answer", lambda images: Answers(np.array(given, np.float32)))
    answer = served(model).files(picture())
    assert answer.status_code == 500
    assert answer.json()["error"]["kind"] == "model"


def test_images_of_several_clients_are_predicted_together(served: Start) -> None:
    model = FakeModel()
    server = served(model, batch=4, wait_ms=60_000)
    pictures = [picture(color) for color in COLORS]
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(server.files, pictures))
    assert model.batches == [4]
    for answer, data in zip(answers, pictures, strict=True):
        check(answer.json()["images"][0], data)
    assert server.value('ensemble_batch_images_bucket{le="2"}') == 0
    assert server.value('ensemble_batch_images_bucket{le="4"}') == 1


def test_a_request_may_have_more_images_than_a_batch(served: Start) -> None:
    server = served(batch=3)
    pictures = [picture((i, 255 - i, 7)) for i in range(20)]
    for one, data in zip(server.files(*pictures).json()["images"], pictures, strict=True):
        check(one, data)
    assert max(server.model.batches) <= 3
    assert sum(server.model.batches) == 20


def test_a_full_queue_is_refused_with_a_time_to_retry(served: Start) -> None:
    server = served(queue=3, max_images=2, wait_ms=0)
    server.model.go.clear()
    with ThreadPoolExecutor(1) as client:
        first = client.submit(server.files, picture(), picture())
        until(lambda: server.engine.pending == 2)
        busy = server.files(picture(), picture())
        assert busy.status_code == 503
        assert busy.json()["error"]["kind"] == "busy"
        assert int(busy.headers["Retry-After"]) >= 1
        server.model.go.set()
        assert first.result().status_code == 200
    until(lambda: server.engine.pending == 0)
    assert server.files(picture(), picture()).status_code == 200


def test_an_answer_that_takes_too_long_is_given_up(served: Start) -> None:
    server = served(timeout=0.5, wait_ms=0, batch=1)  # time to read three images on a busy machine
    server.model.go.clear()
    late = server.files(picture(), picture(), picture())
    assert late.status_code == 504
    assert late.json()["error"]["kind"] == "timeout"
    assert server.engine.pending == 3  # they leave when their work has ended, not before
    server.model.go.set()
    until(lambda: server.engine.pending == 0)
    assert len(server.model.batches) <= 1  # the others were not started any more


def test_a_format_without_its_package_is_unreadable_and_no_fault(
    served: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    answer = served().files(bytes(128) + b"DICM" + bytes(100))
    assert answer.status_code == 422
    assert "DICOM files need pydicom, which is not installed" in answer.text
