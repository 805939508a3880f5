"""Define what a model needs beside images, and read it of a request; errors name the right call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.learning.further_columns import Encoding
from ensemble.serving.errors import ServingError
from folds.metrics.arrays import name_text
from folds.utils.cells import as_number, cleaned

PREDICT, PREDICT_PERSON = "/predict", "/predict-person"
PERSON = "person"
FIELDS = ("images", "image", "file", "files")  # of the images in a form
LONGEST_TEXT = 1000  # characters of a cell of a column, and of the name of a person


@dataclass(frozen=True)
class Cells:
    """One value of each column.

    Attributes
    ----------
    texts : column → text; "" for a value that is not known.
    unknown : columns whose text the model does not know, which count as not known.
    """

    texts: Mapping[str, str]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Needs:
    """What a model needs beside images.

    Attributes
    ----------
    of_people : whether an answer is for a person, so that a request has all images of one.
    encodings : of the columns beside the images.
    """

    of_people: bool = False
    encodings: tuple[Encoding, ...] = ()

    def __bool__(self) -> bool:
        return self.of_people or bool(self.encodings)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return tuple(one.name for one in self.encodings)

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the names of the texts of a form; a column that is named like another field is sent as JSON."""
        columns = (name for name in self.columns if name not in (*FIELDS, PERSON))
        return (PERSON, *columns) if self.of_people else tuple(columns)

    @property
    def example(self) -> str:
        """Return a call with files."""
        images = "-F images=@a.jpg -F images=@b.jpg -F person=p1" if self.of_people else "-F images=@a.jpg"
        values = "".join(f" -F '{name}=…'" for name in self.texts if name != PERSON)
        return f"curl {images}{values} URL{PREDICT_PERSON if self.of_people else PREDICT}"

    @property
    def json_example(self) -> str:
        """Return a request in JSON, the only form for columns with the name of another field."""
        columns = ", ".join(f'"{name}": …' for name in self.columns)
        person = '"person": "p1", ' if self.of_people else ""
        return (
            "{" + f'{person}"images": ["<base64 of a file>"]' + (f', "columns": {{{columns}}}' if columns else "") + "}"
        )

    def check_call(self, of_person: bool, name: str) -> None:
        """Raise ServingError if a request is for an image where the model answers for people, or the reverse.

        Parameters
        ----------
        name : of the model.
        """
        if of_person == self.of_people:
            return
        if self.of_people:
            message = f"{name} answers for people: expected all images of one person at {PREDICT_PERSON}"
        else:
            message = f"{name} answers for images: expected them at {PREDICT}"
        raise ServingError(422, "invalid", message, hint=self.example)

    def read(self, given: Mapping[str, Any]) -> Cells:
        """Return the cells of a request.

        Raises
        ------
        ServingError : a column is missing or unknown, or a value is of another type, too long, or no number where the
            model was fitted to numbers.
        """
        absent = [name for name in self.columns if name not in given]
        if absent:
            raise _wrong(
                f"expected the columns {', '.join(self.columns)} beside the images, {', '.join(absent)} "
                f"{'is' if len(absent) == 1 else 'are'} missing (an empty value is one that is not known)",
                f"{self.example}, or as JSON {self.json_example}",
            )
        strange = next((name for name in given if name not in self.columns), None)
        if strange is not None:
            expected = f"expected {', '.join(self.columns)}" if self.columns else "the model uses no columns"
            raise _wrong(f"unknown column '{strange[:100]}', {expected}", self.json_example)
        texts = {one.name: _text_of(one, given[one.name]) for one in self.encodings}
        unknown = tuple(one.name for one in self.encodings if one.unknown(np.array([texts[one.name]])))
        # What is not known is emptied here: else the log of the server would have it, which may be a name.
        return Cells({name: "" if name in unknown else text for name, text in texts.items()}, unknown)


NOTHING = Needs()  # of a model that needs images alone


def _text_of(encoding: Encoding, value: Any) -> str:
    if isinstance(value, bool) or not (value is None or isinstance(value, str | int | float)):
        kind = {bool: "boolean", list: "list", dict: "object"}.get(type(value), "value of another type")
        raise _wrong(f"column '{encoding.name}': expected a text, a number or null, found a {kind}")
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise _wrong(f"column '{encoding.name}': expected at most {LONGEST_TEXT:,} characters, found {len(value):,}")
    text = cleaned(_number_text(encoding, value))
    if encoding.mean is not None and text and as_number(text) is None:
        raise _wrong(f"column '{encoding.name}': expected a number, found '{text[:100]}'", "an empty one is not known")
    return text


def _number_text(encoding: Encoding, value: Any) -> str:
    try:
        return name_text(value)
    except (OverflowError, ValueError):  # infinity, or a number of thousands of digits
        raise _wrong(f"column '{encoding.name}': expected a number that can be counted with") from None


def _wrong(message: str, hint: str | None = None) -> ServingError:
    return ServingError(422, "invalid", message, hint=hint)
