from __future__ import annotations

import pytest

from folds.errors import EnsembleError
from folds.predictions.columns import SYNONYMS, find_columns

ROLES = ("id", "label", "prediction", "person", "fold")


def names(header: str, roles: tuple[str, ...] = ROLES, **given: str) -> dict[str, str]:
    return dict(find_columns(header.split(","), "t.csv", roles, given).names)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("id,label", {"id": "id", "label": "label"}),
        ("ImageID,ans", {"id": "ImageID", "prediction": "ans"}),
        ("image_name,target,patient_id", {"id": "image_name", "label": "target", "person": "patient_id"}),
        ("lesion_id,image_id,dx,age", {"id": "image_id", "label": "dx", "person": "lesion_id"}),
        ("id,y_true,y_pred,kfold", {"id": "id", "label": "y_true", "prediction": "y_pred", "fold": "kfold"}),
        ("Image ID,True-Label", {"id": "Image ID", "label": "True-Label"}),
    ],
)
def test_known_names_are_found(header: str, expected: dict[str, str]) -> None:
    assert names(header) == expected


def test_the_usual_name_is_preferred_and_the_rest_is_listed() -> None:
    found = find_columns(["label", "target", "id", "image_name"], "t.csv", ROLES)
    assert found.names == {"id": "id", "label": "label"}
    assert found.guessed == frozenset()
    assert found.text() == "t.csv: id = id, label = label; not used: target, image_name"


def test_two_known_names_are_ambiguous_and_none_is_taken() -> None:
    found = find_columns(["id", "dx", "target"], "t.csv", ROLES)
    assert found.get("label") is None
    assert found.ambiguous == {"label": ("dx", "target")}
    assert found.text() == "t.csv: id = id; label: dx or target, none is used without `label`"
    with pytest.raises(EnsembleError, match="'dx' and 'target' could both be the label column") as caught:
        found.require("label")
    assert caught.value.hint == "name one of them: `label=dx` or `label=target`"


def test_a_named_column_is_taken_whatever_its_name() -> None:
    assert names("id,label,z", label="z") == {"id": "id", "label": "z"}
    assert names("id,label", prediction="label") == {"id": "id", "prediction": "label"}
    with pytest.raises(EnsembleError, match=r"t\.csv has no column 'lable'; did you mean 'label'") as caught:
        names("id,label", label="lable")
    assert caught.value.hint == "name the column with `label`; its columns are id, label"


def test_a_missing_column_is_asked_for_with_all_columns() -> None:
    with pytest.raises(EnsembleError, match=r"t\.csv has no column of the labels") as caught:
        find_columns(["id", "dx", "target", "age"], "t.csv", ("id", "person")).require("label")
    assert caught.value.hint == "name it with `label=COLUMN`; its columns are id, dx, target, age"


def test_no_name_belongs_to_two_roles() -> None:
    seen: dict[str, str] = {}
    for role, synonyms in SYNONYMS.items():
        for name in synonyms:
            plain = name.replace("_", "")
            assert seen.setdefault(plain, role) == role, name
