"""Make the pages of the server: one to drop images on, and one that describes the interface.

Both are one file without scripts, styles, fonts or images of another place. The content security policy allows exactly
their own script and style, by hash.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble.serving.needs import NOTHING, PREDICT, PREDICT_PERSON, Needs

NO_CONTENT_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_PAGE = Path(__file__).with_name("page.html")


def content_policy(page: str) -> str:
    """Return the Content-Security-Policy of a page: its own script and style, requests and forms to its own server."""
    parts = {name: re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL) for name in ("script", "style")}
    hashes = {name: " ".join(map(_hash, found)) or "'none'" for name, found in parts.items()}
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; img-src blob:; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def drop_page(model: str, max_images: int, needs: Needs = NOTHING) -> str:
    """Return the page to drop images on, with a field for each column that the model needs."""
    parts = {
        "__MODEL__": html.escape(model),
        "__MAX_IMAGES__": f"{max_images:,}",
        "__TITLE__": "Predict a person" if needs.of_people else "Predict an image",
        "__ACTION__": (PREDICT_PERSON if needs.of_people else PREDICT).removeprefix("/"),
        "__DROP__": "Drop all images of one person here, or choose files"
        if needs.of_people
        else "Drop images here, or choose files",
        "__FIELDS__": _fields(needs),
    }
    # In one pass: a name in one of the parts is never taken for the mark of another.
    return re.sub("|".join(parts), lambda found: parts[found[0]], _PAGE.read_text(encoding="utf-8"))


def _fields(needs: Needs) -> str:
    """Return an input for each column, and a button, because the answer has to wait for the values."""
    shown = [one for one in needs.encodings if one.name in needs.texts]
    if not shown:
        return ""
    inputs = "".join(
        f'\n      <label>{html.escape(one.name)} <input name="{html.escape(one.name)}"'
        f"{' inputmode=decimal' if one.mean is not None else ''}></label>"
        for one in shown
    )
    return (
        f'\n    <fieldset id="fields">\n      <legend>Values beside the images; empty if not known</legend>{inputs}\n'
        '      <button type="submit">Predict</button>\n    </fieldset>'
    )


def interface_page(openapi: Mapping[str, Any], examples: Sequence[tuple[str, str]]) -> str:
    """Return a page that lists the paths of an OpenAPI description, their content types and their answers.

    Parameters
    ----------
    examples : title and text of each example.
    """
    style = re.findall(r"<style>(.*?)</style>", _PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    style += "pre { background: var(--panel); padding: .75rem; overflow-x: auto; border-radius: .4rem; }\n"
    style += "section { border-top: 1px solid var(--line); padding: 1rem 0; }\n"
    sections = [
        _operation(path, method, operation)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    shown = "".join(
        f'<h2>{html.escape(name)}</h2>\n<pre tabindex="0">{html.escape(text)}</pre>\n' for name, text in examples
    )
    title = html.escape(f"{openapi['info']['title']} {openapi['info']['version']}")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n<header><h1>{title}</h1>\n"
        f"<p>{html.escape(openapi['info'].get('description', ''))}</p></header>\n<main>\n"
        f"{shown}{''.join(sections)}</main>\n"
        '<footer><p><a href="openapi.json">openapi.json</a> · <a href="./">Drop an image</a></p></footer>\n'
        "</body>\n</html>\n"
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    text = "".join(f"<p>{html.escape(line)}</p>" for line in operation.get("description", "").split("\n\n") if line)
    bodies = operation.get("requestBody", {}).get("content", {})
    takes = f"<p>Takes: {', '.join(f'<code>{html.escape(name)}</code>' for name in bodies)}</p>" if bodies else ""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(status)}</th><td>{html.escape(answer["description"])}</td></tr>'
        for status, answer in operation["responses"].items()
    )
    return (
        f"<section><h2><code>{method.upper()} {html.escape(path)}</code></h2>{text}{takes}"
        f"<table><caption>Answers by status</caption>{rows}</table></section>\n"
    )
