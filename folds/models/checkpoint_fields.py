"""Check the fields of a checkpoint and of what has the same parts, one by one; a file may come from anywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from folds.metrics.task_names import ALL_TASKS, COLUMN_TASKS, UNCERTAIN
from folds.models.archive import unusual
from folds.utils.schema import (
    ANYTHING,
    BOOL,
    FILE_SAFE,
    NUMBER,
    UNICODE,
    FieldType,
    either,
    integer,
    list_of,
    mapping_of,
    one_of,
    optional,
    shown,
    validate_fields,
)

_POSITIVE = FieldType("a number above 0", lambda value: NUMBER.holds(value) and value > 0)
_SIDE = integer(1, 4096)
_IMAGES = {"height": _SIDE, "width": _SIDE, "fit": UNICODE, "window": optional(list_of(NUMBER, 2))}
_IMAGES |= {"max_pixels": optional(integer(1)), "margin": optional(list_of(integer(0), 2))}
_IMAGES |= {"channels": optional(list_of(integer(0))), "stack": optional(list_of(UNICODE))}
_IMAGES |= {"frame": optional(either(integer(0), one_of("middle")))}
_BACKBONE = {
    "timm_name": UNICODE,
    **{"mean": list_of(NUMBER), "std": list_of(_POSITIVE), "arguments": mapping_of(ANYTHING)},
}
_ARCHITECTURE = {
    **{"name": UNICODE, "height": _SIDE, "width": _SIDE, **_BACKBONE},
    **{"head": optional(UNICODE), "joined": optional(list_of(mapping_of(ANYTHING)))},
}
_MAX_JOINED = 16
_DATA = {
    **{
        "data": optional(UNICODE),
        "path": UNICODE,
        "label": UNICODE,
        "person": UNICODE,
        "id": optional(UNICODE),
        "split": optional(UNICODE),
    },
    **{"person_regex": optional(UNICODE), "test": optional(UNICODE), "classes": optional(list_of(UNICODE))},
    **{"images": optional(list_of(UNICODE)), "test_images": optional(list_of(UNICODE)), "test_labels": optional(BOOL)},
    **{"missing_persons": optional(UNICODE), "merge_spellings": optional(BOOL), "skip_unusable": optional(BOOL)},
    "label_of": optional(one_of("person")),
    "uncertain": optional(one_of(*UNCERTAIN)),
    "max_pixels": optional(integer(1)),
    "stack": optional(list_of(UNICODE)),
    "task": optional(one_of(*ALL_TASKS)),
    "columns": optional(mapping_of(UNICODE)),
}
_RECIPE = {
    "seed": optional(integer(0, 2**32 - 1)),
    "channels_last": optional(BOOL),
}  # the settings that prediction uses; the others are only recorded
# Every field is checked because a checkpoint may come from anywhere: `run` and `fold` become parts of paths.
CHECKPOINT_FIELDS: dict[str, FieldType] = {
    "run": FILE_SAFE,
    "fold": integer(0, 10000),
    "k": integer(0, 10000),
    "architecture": mapping_of(ANYTHING),
    "weights": mapping_of(FieldType("an ordinary tensor", lambda value: _is_tensor(value))),
    "classes": list_of(UNICODE),
    "class_attributes": mapping_of(mapping_of(UNICODE)),
    "target": UNICODE,
    "images": mapping_of(ANYTHING),
    "data": mapping_of(ANYTHING),
    "recipe": mapping_of(ANYTHING),
    "amp": one_of("off", "bf16", "fp16"),
    "training_hashes": optional(UNICODE),
    "pseudo_hashes": optional(UNICODE),
    "validation_hashes": optional(UNICODE),
    "labels_sha": optional(UNICODE),
    "folds_sha": UNICODE,
    "versions": mapping_of(UNICODE),
    # Version 0.1.0 recorded the ids and labels themselves.
    "training_ids": optional(list_of(UNICODE)),
    "validation_ids": optional(list_of(UNICODE)),
    "validation_labels": optional(list_of(UNICODE)),
    "heads": optional(list_of(UNICODE)),
    "optimistic": optional(BOOL),
    "refit": optional(mapping_of(ANYTHING)),
}
_NUMBERED = FieldType("the number of a fold", lambda value: isinstance(value, str) and value.isdecimal())
_REFIT = {
    "epochs": integer(1),
    "fold_epochs": mapping_of(integer(1), _NUMBERED),
    "folds": mapping_of(UNICODE, _NUMBERED),
}
HASHES = ("training_hashes", "validation_hashes")
PSEUDO_HASHES = "pseudo_hashes"  # not in checkpoints without pseudo-labels, which stay as they were
HASH_DIGITS = 16


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and not unusual(value)


def invalid_fields(record: Mapping[str, Any], fields: Mapping[str, FieldType]) -> list[str]:
    """Return one line for each invalid value of a record with the parts of a checkpoint; [] if all are valid.

    Parameters
    ----------
    fields : types of the fields; the content of ``architecture``, ``images``, ``data`` and ``recipe`` is checked too.
    """
    wrong = validate_fields(record, fields)
    tables = {"architecture": _ARCHITECTURE, "images": _IMAGES, "data": _DATA, "recipe": _RECIPE, "refit": _REFIT}
    for part, table in tables.items():
        if isinstance(record.get(part), Mapping) and part in fields:
            wrong += [f"{part}: {line}" for line in validate_fields(record[part], table, others=part == "recipe")]
    joined = (record["architecture"].get("joined") or []) if not wrong and "architecture" in fields else []
    wrong += [
        f"joined: {line}" for one in joined[:_MAX_JOINED] for line in validate_fields(one, _BACKBONE, others=False)
    ]
    if len(joined) > _MAX_JOINED:
        wrong.append(f"joined: {len(joined):,} backbones, expected at most {_MAX_JOINED}")
    # One label or one number is enough.
    least = 1 if not wrong and (record.get("recipe") or {}).get("task") in COLUMN_TASKS else 2
    if not wrong and len(set(record["classes"])) < max(least, len(record["classes"])):
        expected = "different names" if least == 1 else "two or more different names"
        wrong.append(f"'classes' is {shown(record['classes'])}, expected {expected}")
    return wrong


def wrong_rows(record: Mapping[str, Any]) -> list[str]:
    """Return one line per problem of the training and validation rows, in the form of this version or of 0.1.0."""
    ids, labels = record.get("validation_ids"), record.get("validation_labels")
    wrong = []
    for name in (*HASHES, PSEUDO_HASHES):
        text, older = record.get(name), name.replace("hashes", "ids")
        if text is None and record.get(older) is None and name != PSEUDO_HASHES:
            wrong.append(f"'{name}' is missing, expected text")
        elif text is not None and re.fullmatch(rf"(?:[0-9a-f]{{{HASH_DIGITS}}})*", text) is None:
            wrong.append(f"'{name}' is {shown(text)}, expected hashes of {HASH_DIGITS} digits each")
    if record.get("refit") is not None:
        if record["fold"] != record["k"] or ids or record.get("validation_hashes"):
            wrong.append("a model of all people has no validation rows, and no fold")
    elif not (ids or record.get("validation_hashes")) or (labels is not None and len(labels) != len(ids or ())):
        wrong.append("'validation_ids' must not be empty, and 'validation_labels' must have the same length")
    return wrong
