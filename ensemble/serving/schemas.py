"""Describe the requests and the answers of the server, for OpenAPI and for the page of the interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from ensemble.serving.errors import KINDS
from ensemble.serving.parsing import JSON, MULTIPART

JSON_REQUEST = """printf '{"images": ["%s"]}' "$(base64 -w0 a.jpg)" |
  curl -H 'Content-Type: application/json' --data-binary @- URL/predict"""
PERSON_REQUEST = "curl -F images=@a.jpg -F images=@b.jpg -F person=p1 -F age=61 URL/predict-person"
JSON_ANSWER = """{
  "model": "final",
  "classes": ["cat", "dog"],
  "images": [
    {
      "index": 0,
      "id": "first",
      "label": "dog",
      "confidence": 0.9,
      "probabilities": {"cat": 0.1, "dog": 0.9},
      "uncertainty": {"entropy": 0.468996, "margin": 0.8, "disagreement": 0.0}
    },
    {
      "index": 1,
      "error": {"kind": "unreadable", "message": "the file is empty (0 bytes)", "hint": "send …"}
    }
  ]
}"""


class Problem(BaseModel):
    """Why a request or an image was not answered."""

    kind: str = Field(description="; ".join(f"{kind}: {text}" for kind, text in KINDS.items()))
    message: str = Field(description="what was expected and what was found")
    hint: str | None = Field(description="how to mend it")


class ErrorAnswer(BaseModel):
    """The answer to a request that failed as a whole."""

    error: Problem


class Prediction(BaseModel):
    """What a model answers for an image or a person."""

    label: str | None = Field(
        default=None, description="the class by the decision rules, null for no answer; without rules the most probable"
    )
    confidence: float | None = Field(default=None, description="the probability of the class")
    labels: list[str] | None = Field(
        default=None,
        description="the labels by the decision rules, without rules those with a probability above .5; of a model of "
        "several labels only",
    )
    probabilities: dict[str, float] | None = Field(
        default=None, description="class → probability; of a model of several labels, label → probability"
    )
    values: dict[str, float] | None = Field(default=None, description="number → its value; of a regression only")
    uncertainty: dict[str, float] | None = Field(
        default=None,
        description="entropy (0 sure, 1 all classes equal); margin (difference of the two largest probabilities); "
        "disagreement (share of the models that predict another class; absent if it is not known); of labels and "
        "numbers spread (largest standard deviation of a column over the models)",
    )
    decision: dict[str, Any] | None = Field(
        default=None,
        description="most_probable, answered, and set if there are prediction sets; of labels unsure, if one can be; "
        "of numbers intervals (low and high, null without a bound) and unanswered; absent without rules",
    )
    unknown_columns: list[str] | None = Field(
        default=None,
        description="columns whose text the model does not know, which counts as not known; absent if none",
    )


class ImageAnswer(Prediction):
    """The answer for one image: either `error`, or the other fields."""

    index: int = Field(description="position of the image in the request, from 0")
    id: str | None = Field(default=None, description="the id that the request gave; absent without one")
    error: Problem | None = None


class PersonAnswer(Prediction):
    """The answer for one person, from all images of the person."""

    id: str | None = Field(default=None, description="the name that the request gave; absent without one")
    images: int = Field(description="images of the person")


class PersonPrediction(BaseModel):
    """The answer for the person of a request."""

    model: str
    classes: list[str]
    person: PersonAnswer
    images: list[ImageAnswer] | None = Field(
        default=None,
        description="the answers for the images, in their order; of a model that predicts an image from all images of "
        "its person only, whose answer for the person is their mean",
    )


class PredictAnswer(BaseModel):
    """The answers for the images of a request, in their order."""

    model: str
    classes: list[str]
    images: list[ImageAnswer]


class JsonImage(BaseModel):
    """An image in JSON."""

    data: str = Field(description="base64 of the file")
    id: str | None = Field(default=None, max_length=200, description="returned with the answer")
    columns: dict[str, str | float | None] | None = Field(
        default=None, description="column → value of this image, in place of that of the request"
    )


class JsonRequest(BaseModel):
    """The images of a request in JSON."""

    images: list[str | JsonImage]
    columns: dict[str, str | float | None] | None = Field(
        default=None, description="column → value for all images, if the model needs columns; null is not known"
    )


class JsonPersonImage(BaseModel):
    """An image of a person in JSON."""

    data: str = Field(description="base64 of the file")


class JsonPersonRequest(BaseModel):
    """The images of one person in JSON."""

    images: list[str | JsonPersonImage]
    person: str | None = Field(default=None, description="the name of the person, returned with the answer")
    columns: dict[str, str | float | None] | None = Field(
        default=None, description="column → value of the person, if the model needs columns; null is not known"
    )


_IMAGES = {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}}
_PERSON = {"person": {"type": "string", "description": "the name of the person, returned with the answer"}}
# The other fields are the columns of the model, which the description does not know.
_COLUMN = {"type": "string", "description": "the value of a column that the model needs; an empty one is not known"}
STATUS = {
    400: "The request is malformed.",
    403: "The request comes from a web page of another site.",
    408: "The body did not arrive in time.",
    413: "A limit of size was exceeded: bytes, images, or pixels of every image.",
    415: "Another content type.",
    421: "The header Host names another server.",
    422: "No image of the request can be used, or a field is wrong.",
    500: "The model or the server failed.",
    503: "Too busy, or the model is not ready; Retry-After says when to try again.",
    504: "The answer was not ready in time.",
}


def request_body(of_person: bool = False) -> dict[str, Any]:
    """Return the description of a request to ``/predict``, or to ``/predict-person``."""
    request = JsonPersonRequest if of_person else JsonRequest
    schema = request.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    form = {
        "type": "object",
        "required": ["images"],
        "properties": {**_IMAGES, **(_PERSON if of_person else {})},
        "additionalProperties": _COLUMN,
    }
    content = {MULTIPART: {"schema": form}, JSON: {"schema": _inlined(schema, definitions)}}
    return {"required": True, "content": content}


def _inlined(schema: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON schema with its definitions in place of the references to them."""
    if "$ref" in schema:
        return dict(definitions[schema["$ref"].rpartition("/")[2]])

    def walked(value: Any) -> Any:
        if isinstance(value, dict):
            return _inlined(value, definitions)
        return [walked(one) for one in value] if isinstance(value, list) else value

    return {key: walked(value) for key, value in schema.items()}
