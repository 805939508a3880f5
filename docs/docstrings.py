"""Read this project's docstrings for the site: `name : what it is`, the type being in the signature.

numpydoc reads what follows the colon as a type. This extension of griffe moves it to the description, so that the site
shows the
annotation of the signature as the type.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^(Parameters|Attributes|Raises|Other Parameters)\n-+$", re.MULTILINE)
_ENTRY = re.compile(r"^(\*{0,2}\w[\w, *]*?) : (.+)$", re.MULTILINE)


class DescribedParameters(griffe.Extension):
    """Move the text after `name :` in the sections of a docstring to the description."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of `obj`, where it has one."""
        if obj.docstring is not None:
            obj.docstring.value = described(obj.docstring.value)


def described(text: str) -> str:
    """Return a docstring whose entries have their text on the line below, indented."""
    start = _SECTION.search(text)
    if start is None:
        return text
    return text[: start.start()] + _ENTRY.sub(r"\1\n    \2", text[start.start() :])
