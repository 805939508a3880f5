"""POST /predict-person: all images of one person get one answer; columns are read, and what is missing is named."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ensemble.learning.further_columns import Encoding
from ensemble.serving.model import Answers
from ensemble.serving.needs import Needs
from folds.images.decode import decode_image
from tests.ensemble.serving.conftest import Server
from tests.ensemble.serving.fake import CLASSES, SETTINGS, FakeModel, expected, picture

Start = Callable[..., Server]
RED, BLUE = picture((250, 0, 0)), picture((0, 0, 250))
AGE, SITE = Encoding("age", 40.0, 10.0), Encoding("site", categories=("a", "b"))


class PeopleModel(FakeModel):
    """The answer is the mean over the images; it remembers the columns and names that it was given."""

    def __init__(self, needs: Needs) -> None:
        super().__init__()
        self.needs = needs
        self.given: list[tuple[dict[str, str], str]] = []
        self.predicts_images = False

    def outputs(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        self.batches.append(len(images))
        return [expected(image) for image in images]

    def combined(self, outputs: Sequence[Any], texts: Mapping[str, str], person: str) -> Answers:
        self.given.append((dict(texts), person))
        each = Answers(np.array(outputs, np.float32)) if self.predicts_images else None
        return Answers(np.mean(outputs, axis=0, keepdims=True, dtype=np.float32), images=each)


def values(answer: Mapping[str, Any]) -> NDArray[np.float32]:
    return np.array([answer["probabilities"][name] for name in CLASSES], np.float32)


def of(*pictures: bytes) -> NDArray[np.float32]:
    return np.mean([expected(decode_image(one, SETTINGS).pixels) for one in pictures], axis=0, dtype=np.float32)


def files(*pictures: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", ("name.png", one)) for one in pictures]


def refused(answer: Any, status: int, text: str) -> Mapping[str, Any]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert text in error["message"]
    return error


def test_all_images_of_a_person_get_one_answer(served: Start) -> None:
    model = PeopleModel(Needs(True, (AGE, SITE)))
    server = served(model)
    data = {"person": "p1", "age": "61", "site": ""}
    answer = server.client.post("/predict-person", files=files(RED, RED, BLUE), data=data)
    assert answer.status_code == 200, answer.text
    record = answer.json()
    assert record["model"] == "fake"
    person = record["person"]
    assert (person["id"], person["images"], person["label"]) == ("p1", 3, "red")
    np.testing.assert_allclose(values(person), of(RED, RED, BLUE), atol=1e-7)
    assert model.given == [({"age": "61", "site": ""}, "p1")]
    assert "unknown_columns" not in person
    assert server.value('ensemble_images_total{result="predicted"}') == 3
    assert server.value('ensemble_requests_total{path="/predict-person",status="200"}') == 1
    text = base64.b64encode(RED).decode()
    columns = {"age": 40, "site": "new place"}
    answer = server.client.post("/predict-person", json={"images": [text, {"data": text}], "columns": columns})
    person = answer.json()["person"]
    assert "id" not in person
    assert person["unknown_columns"] == ["site"]
    np.testing.assert_allclose(values(person), of(RED), atol=1e-7)
    assert model.given[-1] == ({"age": "40", "site": ""}, "")
    assert "images" not in answer.json()
    model.predicts_images = True
    found = server.client.post("/predict-person", files=files(RED, BLUE), data=data).json()
    np.testing.assert_allclose(values(found["person"]), of(RED, BLUE), atol=1e-7)
    assert [one["index"] for one in found["images"]] == [0, 1]
    np.testing.assert_allclose([values(one) for one in found["images"]], [of(RED), of(BLUE)], atol=1e-7)


def test_a_person_is_refused_as_a_whole_and_by_the_right_call(served: Start) -> None:
    model = PeopleModel(Needs(True, (AGE,)))
    server = served(model, max_images=3)
    error = refused(server.files(RED), 422, "fake answers for people: expected all images of one person")
    assert "-F person=p1 -F 'age=…' URL/predict-person" in error["hint"]

    def post(*pictures: bytes, **data: str) -> Any:
        return server.client.post("/predict-person", files=files(*pictures), data=data)

    refused(post(RED, b"no image", age=""), 422, "image 1 of 2 cannot be used: the file is not an image")
    refused(post(RED), 422, "expected the columns age beside the images, age is missing")
    refused(post(RED, age="old"), 422, "column 'age': expected a number, found 'old'")
    refused(post(RED, age="1", sex="f"), 422, "expected fields named 'images' and 'person' and 'age', found 'sex'")
    refused(post(RED, age="1" * 5000), 422, "field 'age': expected at most 1,000 characters")
    refused(post(RED, RED, RED, RED, age=""), 413, "expected at most 3 images per request")
    refused(server.client.post("/predict-person", data={"age": "1"}, files={}), 415, "expected the content type")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"columns": {"age": [1]}}, "column 'age': expected a text, a number or null, found a list"),
        ({"columns": {"age": 1, "agee": 2}}, "unknown column 'agee', expected age"),
        ({"columns": 1}, "expected an object 'columns'"),
        ({"columns": {"age": None}, "person": 7}, "expected a 'person' of at most 1,000 characters"),
    ]
    for body, text in wrong:
        request = {"images": [base64.b64encode(RED).decode()], **body}
        refused(server.client.post("/predict-person", json=request), 422, text)
    assert model.given == []
    assert server.value("ensemble_images_pending") == 0
    of_images = served().client.post("/predict-person", files=files(RED))
    refused(of_images, 422, "fake answers for images: expected them at /predict")


def test_columns_are_those_of_the_request_or_of_an_image(served: Start) -> None:
    model = PeopleModel(Needs(False, (AGE, SITE)))
    server = served(model)
    answer = server.client.post("/predict", files=files(RED, BLUE), data={"age": "61", "site": "b"})
    assert [one["label"] for one in answer.json()["images"]] == ["red", "blue"]
    assert model.given == [({"age": "61", "site": "b"}, "")] * 2
    red, blue = (base64.b64encode(one).decode() for one in (RED, BLUE))
    images = [red, {"data": blue, "columns": {"age": 20}}, {"data": red, "columns": {"age": "x"}}]
    answer = server.client.post("/predict", json={"images": images, "columns": {"age": 1, "site": None}})
    assert answer.status_code == 200
    first, second, third = answer.json()["images"]
    np.testing.assert_allclose(values(second), of(BLUE), atol=1e-7)
    assert first["label"] == "red"
    assert third["error"]["message"] == "column 'age': expected a number, found 'x'"
    assert model.given[2:] == [({"age": "1", "site": ""}, ""), ({"age": "20", "site": ""}, "")]


@pytest.mark.parametrize("of_people", [True, False])
def test_the_pages_ask_for_what_the_model_needs(served: Start, of_people: bool) -> None:
    named = Encoding('<i>"x"', categories=("a",))
    client = served(PeopleModel(Needs(of_people, (AGE, named)))).client
    page = client.get("/").text
    assert f'<form action="{"predict-person" if of_people else "predict"}"' in page
    assert f"<h1>Predict {'a person' if of_people else 'an image'}</h1>" in page
    assert '<input name="age" inputmode=decimal>' in page
    assert '<input name="&lt;i&gt;&quot;x&quot;">' in page
    paths = client.get("/openapi.json").json()["paths"]
    forms = paths["/predict-person"]["post"]["requestBody"]["content"]
    assert set(forms["multipart/form-data"]["schema"]["properties"]) == {"images", "person"}
    assert set(forms["application/json"]["schema"]["properties"]) == {"images", "person", "columns"}
