"""Read the images out of the body of a request: multipart files, or JSON with base64."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ensemble.serving.errors import ServingError
from ensemble.serving.needs import FIELDS, LONGEST_TEXT, NOTHING, PERSON, Needs
from folds.utils.schema import is_encodable

MULTIPART, JSON = "multipart/form-data", "application/json"
COLUMNS = "columns"
EXAMPLE = "curl -F images=@a.jpg -F images=@b.jpg URL/predict"
JSON_EXAMPLE = '{"images": ["<base64 of a file>"]} or {"images": [{"id": "a", "data": "<base64>"}]}'
_LONGEST_ID = 200
# JSON with more brackets and commas than any valid request has is refused before it is parsed: empty lists need
# thirty times as much memory as their text.
_MARKS_PER_IMAGE, _MARKS = 16, 64
_ENCODINGS = ("", "7bit", "8bit", "binary")


@dataclass(frozen=True)
class Upload:
    """One image of a request.

    Attributes
    ----------
    data : the bytes of the file; empty if there is an `error`.
    id : name that the client gave it, returned with the answer; never the name of a file.
    error : why the bytes could not be read.
    columns : values of columns for this image, in place of those of the request.
    """

    data: bytes
    id: str | None = None
    error: ServingError | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """What a request holds.

    Attributes
    ----------
    uploads : the images.
    columns : column → value, for all images.
    person : the name that the client gave the person; "" for none.
    """

    uploads: list[Upload]
    columns: Mapping[str, Any] = field(default_factory=dict)
    person: str = ""


def content_type(header: str | None) -> tuple[str, dict[str, str]]:
    """Return the media type of a request in lower case, and its parameters.

    Raises
    ------
    ServingError : another type than `MULTIPART` or `JSON`, or multipart without a boundary.
    """
    from python_multipart.multipart import parse_options_header

    name, options = parse_options_header(header) if header else (b"", {})
    kind = name.decode("latin-1").strip().lower()
    parameters = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in options.items()}
    if kind not in (MULTIPART, JSON):
        found = f"'{kind[:100]}'" if kind else "none"
        raise ServingError(
            415, "content_type", f"expected the content type {MULTIPART} or {JSON}, found {found}", hint=EXAMPLE
        )
    if kind == MULTIPART and not parameters.get("boundary"):
        raise ServingError(
            400,
            "bad_request",
            "expected a boundary in the content type multipart/form-data, found none",
            hint="let the HTTP library set the header Content-Type itself",
        )
    return kind, parameters


def read_content(
    kind: str, parameters: dict[str, str], body: bytes, max_images: int, needs: Needs = NOTHING
) -> Content:
    """Return the images of a body, and the person and the columns if the model needs them.

    Raises
    ------
    ServingError : malformed, no image, more than `max_images` images, or unknown fields. An image whose base64 is
        damaged is no error of the request, but of this image.
    """
    boundary = parameters.get("boundary", "")
    if kind == MULTIPART:
        content = _of_multipart(body, boundary, max_images, needs)
    else:
        content = _of_json(body, max_images, needs)
    if not content.uploads:
        example = EXAMPLE if kind == MULTIPART else JSON_EXAMPLE
        raise ServingError(422, "invalid", "expected one image or more, found none", hint=example)
    return content


def too_many(found: int | str, max_images: int) -> ServingError:
    """Return the error for a request with too many images."""
    return ServingError(
        413,
        "too_large",
        f"expected at most {max_images:,} images per request, found {found}",
        hint="send several requests, or start the server with a larger --max-images",
    )


class _Parts:
    """The parts of a multipart body, collected by the callbacks of the parser.

    Parameters
    ----------
    names : of the fields that are texts.
    """

    def __init__(self, max_images: int, names: tuple[str, ...] = ()) -> None:
        self.max_images, self.names = max_images, names
        self.files: list[bytearray] = []
        self.texts: dict[str, bytearray] = {}
        self.part, self.field = bytearray(), ""
        self.ended = False
        self.headers: dict[bytes, bytes] = {}
        self.name, self.value = b"", b""

    def part_begin(self) -> None:
        self.headers = {}

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self.name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def header_end(self) -> None:
        self.headers[self.name.lower()] = self.value
        self.name, self.value = b"", b""

    def headers_finished(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self.headers.get(b"content-disposition"))
        field = options.get(b"name", b"").decode("utf-8", "replace").removesuffix("[]")
        self.part = bytearray()
        if field in FIELDS:
            if len(self.files) >= self.max_images:
                raise too_many("more", self.max_images)
            self.files.append(self.part)
        elif field in self.names and field not in self.texts:
            self.texts[field] = self.part
        else:
            found = f"'{field[:100]}'" if field else "a part without a name"
            found += " twice" if field in self.texts else ""
            known = " and ".join(f"'{name}'" for name in ("images", *self.names))
            raise ServingError(422, "invalid", f"expected fields named {known}, found {found}", hint=EXAMPLE)
        self.field = "" if field in FIELDS else field
        encoding = self.headers.get(b"content-transfer-encoding", b"").decode("latin-1").strip().lower()
        if encoding not in _ENCODINGS:
            raise ServingError(
                415,
                "content_type",
                f"expected the bytes of a file, found the transfer encoding '{encoding[:50]}'",
                hint=f"send base64 as JSON: {JSON_EXAMPLE}",
            )

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self.part += memoryview(data)[start:end]
        if self.field and len(self.part) > 4 * LONGEST_TEXT:  # bytes of UTF-8
            raise _too_long(self.field)

    def end(self) -> None:
        self.ended = True


def _too_long(name: str) -> ServingError:
    return ServingError(
        422, "invalid", f"field '{name[:100]}': expected at most {LONGEST_TEXT:,} characters, found more"
    )


def _of_multipart(body: bytes, boundary: str, max_images: int, needs: Needs) -> Content:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    parts = _Parts(max_images, needs.texts)
    callbacks: Any = {
        "on_part_begin": parts.part_begin,
        "on_part_data": parts.part_data,
        "on_header_field": parts.header_field,
        "on_header_value": parts.header_value,
        "on_header_end": parts.header_end,
        "on_headers_finished": parts.headers_finished,
        "on_end": parts.end,
    }
    hint = "let the HTTP library build the body"
    try:
        parser = MultipartParser(boundary.encode("latin-1"), callbacks)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise ServingError(400, "bad_request", f"the multipart body is malformed: {error}", hint=hint) from None
    if not parts.ended:
        raise ServingError(
            400, "bad_request", "the multipart body ends before its closing boundary: it was cut off", hint=hint
        )
    texts = {name: _text_of(name, bytes(value)) for name, value in parts.texts.items()}
    person = texts.pop(PERSON, "") if needs.of_people else ""
    return Content([Upload(bytes(data)) for data in parts.files], texts, person)


def _text_of(name: str, value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise ServingError(
            422, "invalid", f"field '{name[:100]}': expected a text in UTF-8, found other bytes"
        ) from None
    if len(text) > LONGEST_TEXT:
        raise _too_long(name)
    return text


def _of_json(body: bytes, max_images: int, needs: Needs) -> Content:
    marks = sum(map(body.count, (b",", b"[", b"{", b":")))
    if marks > _MARKS + (_MARKS_PER_IMAGE + _MARKS * len(needs.columns)) * max_images:
        raise ServingError(
            413,
            "too_large",
            f"expected JSON with at most {max_images:,} images, found {marks:,} brackets, colons and commas",
            hint=JSON_EXAMPLE,
        )
    try:
        record = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ServingError(
            400, "bad_request", f"expected JSON in UTF-8, found another byte at {error.start:,}", hint=JSON_EXAMPLE
        ) from None
    except RecursionError:
        raise ServingError(400, "bad_request", "the JSON is nested too deeply", hint=JSON_EXAMPLE) from None
    except ValueError as error:
        reason = str(error)[:200]
        raise ServingError(400, "bad_request", f"the JSON is malformed: {reason}", hint=JSON_EXAMPLE) from None
    images = record.get("images") if isinstance(record, dict) else None
    if not isinstance(images, list):
        found = f"a JSON {_kind(record)}" if not isinstance(record, dict) else "none"
        found = f"'images' is a {_kind(images)}" if images is not None else found
        raise ServingError(422, "invalid", f"expected a list 'images', found {found}", hint=JSON_EXAMPLE)
    known = ["images", *([PERSON] if needs.of_people else []), *([COLUMNS] if needs.columns else [])]
    unknown = next((name for name in record if name not in known), None)
    if unknown is not None:
        raise ServingError(422, "invalid", f"unknown field '{unknown[:100]}'", hint=JSON_EXAMPLE)
    if len(images) > max_images:
        raise too_many(f"{len(images):,}", max_images)
    person = record.get(PERSON)
    if person is not None and not (isinstance(person, str) and len(person) <= LONGEST_TEXT and is_encodable(person)):
        raise _wrong(f"expected a 'person' of at most {LONGEST_TEXT:,} characters, found a {_kind(person)}")
    # Images of a person have no columns of their own: a person has one value of each.
    own = bool(needs.columns) and not needs.of_people
    return Content([_of_entry(entry, own) for entry in images], _columns_of(record), person or "")


def _columns_of(record: dict[str, Any]) -> dict[str, Any]:
    found = record.get(COLUMNS)
    if found is not None and not isinstance(found, dict):
        raise _wrong(f"expected an object 'columns' of names with values, found a {_kind(found)}")
    return found or {}


def _of_entry(entry: Any, has_columns: bool = False) -> Upload:
    """Return one element of the list ``images``; its error belongs to this image alone."""
    name, text, columns = None, entry, {}
    try:
        if isinstance(entry, dict):
            name, text = _fields_of(entry, ("id", "data", *([COLUMNS] if has_columns else [])))
            columns = _columns_of(entry)
        if not isinstance(text, str):
            raise _wrong(f"expected the base64 of a file, found a {_kind(text)}")
        return Upload(_bytes_of(text), name, columns=columns)
    except ServingError as error:
        return Upload(b"", name, error)


def _fields_of(entry: dict[str, Any], known: tuple[str, ...]) -> tuple[str | None, Any]:
    unknown = next((key for key in entry if key not in known), None)
    if unknown is not None:
        what = "URLs are not fetched" if unknown.lower() in ("url", "uri") else f"unknown field '{unknown[:100]}'"
        raise _wrong(what)
    if "data" not in entry:
        raise _wrong("expected 'data' with the base64 of a file, found none")
    name = entry.get("id")
    if name is not None and not (isinstance(name, str) and len(name) <= _LONGEST_ID):
        raise _wrong(f"expected an 'id' of at most {_LONGEST_ID} characters, found a {_kind(name)}")
    return name, entry["data"]


def _bytes_of(text: str) -> bytes:
    start = text[:12].lower()
    if start.startswith(("http:", "https:", "ftp:", "file:", "s3:", "gs:")):
        raise _wrong("expected the base64 of a file, found a URL; URLs are not fetched")
    if start.startswith("data:"):
        raise _wrong("expected the base64 of a file, found a data URL", "send only what follows 'base64,'")
    for blank in "\n\r\t ":
        text = text.replace(blank, "")
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        reason = str(error) if isinstance(error, binascii.Error) else "characters that are not ASCII"
        url_safe = set("-_") & set(text[:10_000])
        hint = "use the standard alphabet (+ and /), not the one for URLs (- and _)" if url_safe else None
        raise _wrong(f"expected base64, found other text: {reason}", hint) from None


def _wrong(message: str, hint: str | None = None) -> ServingError:
    return ServingError(422, "invalid", message, hint=hint or JSON_EXAMPLE)


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")
