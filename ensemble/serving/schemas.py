"""Describe the requests and the answers of the server, for OpenAPI and for the page of the interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from ensemble.serving.errors import KINDS
from ensemble.serving.parsing import JSON, MULTIPART

JSON_REQUEST = """printf '{"images": ["%s"]}' "$(base64 -w0 a.jpg)" |
  curl -H 'Content-Type: application/json' --data-binary @- URL/predict"""
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


class ImageAnswer(BaseModel):
    """The answer for one image: either `error`, or the other fields."""

    index: int = Field(description="position of the image in the request, from 0")
    id: str | None = Field(default=None, description="the id that the request gave; absent without one")
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
        description="most_probable, answered, and set if there are prediction sets; absent without rules",
    )
    error: Problem | None = None


class PredictAnswer(BaseModel):
    """The answers for the images of a request, in their order."""

    model: str
    classes: list[str]
    images: list[ImageAnswer]


class JsonImage(BaseModel):
    """An image in JSON."""

    data: str = Field(description="base64 of the file")
    id: str | None = Field(default=None, max_length=200, description="returned with the answer")


class JsonRequest(BaseModel):
    """The images of a request in JSON."""

    images: list[str | JsonImage]


_MULTIPART_SCHEMA = {
    "type": "object",
    "required": ["images"],
    "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
}
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


def request_body() -> dict[str, Any]:
    """Return the description of a request to ``/predict``."""
    schema = JsonRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    content = {MULTIPART: {"schema": _MULTIPART_SCHEMA}, JSON: {"schema": _inlined(schema, definitions)}}
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
