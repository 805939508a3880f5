"""Generate the page docs/settings.md from the descriptions of the settings.

Run ``python -m folds.config.settings_page > docs/settings.md``.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

from folds.config.checks import OF_GRADIENTS, UNUSED_BY_HEADS
from folds.config.frozen import LINEAR
from folds.config.lookup import all_settings
from folds.config.recipe import Recipe
from folds.config.setting import FROZEN, PANELS, Setting

_HEAD = """# All settings

<!-- Made by: python -m folds.config.settings_page > docs/settings.md -->

Every setting of a training has one name, used in four ways. In order of precedence:

| where | example |
|---|---|
| flag of `ensemble kfold` | `--batch-size 16` |
| environment variable | `ENSEMBLE_BATCH_SIZE=16` |
| file given with `-c FILE`; then `./ensemble.toml` | `batch_size = 16` (or `batch-size`) |
| keyword in Python | `kfold(data, batch_size=16)` |

A keyword in Python has the precedence of a flag. Older spellings keep working everywhere; giving both spellings of one setting in the
same place is an error. `runs/<run>/config.toml` records the settings of a run, under the name marked `*` if there are several, and can
be given again with `-c`. Tables (`{NAME = VALUE}`) have no flag: write them into a file, or as JSON into a variable.
"""


def settings_page() -> str:
    """Return docs/settings.md: one table per group of settings."""
    parts = [_HEAD]
    for panel in PANELS:
        rows = [_row(one) for one in all_settings().values() if one.panel == panel]
        parts.append(
            "\n".join([f"## {panel}\n", "| setting | description | values | default |", "|---|---|---|---|", *rows])
        )
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _row(one: Setting) -> str:
    names = [f"`{name}`{'*' if name == one.key and len(one.spellings) > 1 else ''}" for name in one.spellings]
    if one.short is not None:
        names.append(f"`{one.short}`")
    cells = [", ".join(names), one.help, _values(one), "; ".join(filter(None, [one.default_text, *_of_heads(one)]))]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


@lru_cache(maxsize=1)
def _completed() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the settings that a fine-tuned model, a trained head and a logistic head have if none is given, by key.

    Settings of gradients, which a logistic head does not use, are those of a trained one.
    """
    tuned = Recipe(pretrained=True)
    trained, logistic = replace(tuned, features=True, head=LINEAR), replace(tuned, features=True)
    known = {"features", "head"}  # what differs is in their description
    found = [asdict(recipe.completed({})[0]) for recipe in (tuned, trained, logistic)]
    one, two, three = ({key: value for key, value in values.items() if key not in known} for values in found)
    return one, two, three | {name: two[name] for name in OF_GRADIENTS}


def _of_heads(one: Setting) -> list[str]:
    """Return the defaults of heads on frozen features, if they are others: ``64 with --features``."""
    tuned, trained, logistic = (found.get(one.key) for found in _completed())
    if one.panel == FROZEN or one.key in UNUSED_BY_HEADS:
        return []
    texts = [f"{_text(trained)} with --features"] if trained != tuned else []
    return texts + ([f"{_text(logistic)} with --head logistic"] if logistic != trained else [])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _values(one: Setting) -> str:
    """Return the possible values of the setting in words."""
    if one.choices:
        return ", ".join(f"`{choice}`" for choice in one.choices)
    if one.range is not None:
        number = "whole number" if one.type is int else "number"
        return f"{number}, {one.range.text(one.unit)}{'' if one.word is None else f'; or `{one.word}`'}"
    if one.is_table:
        return "table"
    if one.type is bool:
        return "yes or no"
    return f"`{one.metavar}`" if one.metavar else "text"


if __name__ == "__main__":
    print(settings_page(), end="")
