"""A blend for people predicts new people as it predicted those of the blend, and refuses what lacks a person."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ensemble as en
from ensemble.prediction.combine import combine_members, member_key
from ensemble.prediction.source import load_source
from folds.errors import UsageError
from folds.predictions.rows import SampleRows


def test_new_people_get_the_blend_of_their_pooled_images(grid: Path) -> None:
    en.blend(["test_resnet"], pool="max", progress=False).save("persons")
    frame = en.read_table("people").train.frame().head(14)
    frame["path"] = [str(Path(path).resolve()) for path in frame["path"]]
    frame.to_csv("new.csv", index=False)
    persons = frame["person"].astype(str).to_numpy()
    names = sorted(set(persons.tolist()))
    found = en.predict("persons", "new.csv", per_person=True, progress=False)
    assert found.ids.tolist() == names
    assert found.unit == "person"
    assert found.by_person() is found
    assert found.score is not None
    assert found.score.rows == len(names)
    shown = repr(found)
    assert f"{len(names)} people predicted by blend persons" in shown
    assert f"({len(names)} labeled people)" in shown
    assert shown.splitlines()[1].split()[:2] == ["class", "people"]
    with pytest.raises(UsageError, match=r"is a blend for people .* and gives no answer for an image"):
        en.predict("persons", "new.csv", progress=False)
    with pytest.raises(UsageError, match=r"needs the persons of the images, which are not known here"):
        load_source("persons")
    # Each fold model is pooled by itself, as it was out of fold; its classes are scaled to the sum 1.
    source = load_source("persons", with_rows=True)
    random = np.random.default_rng(0)
    run = source.runs[0]
    members = {member_key(run, model): random.dirichlet(np.ones(18), 14).astype(np.float32) for model in run.models}
    rows = SampleRows(frame["id"].to_numpy(str), None, persons)
    largest = [np.array([values[persons == one].max(axis=0) for one in names]) for values in members.values()]
    expected = np.mean([each / each.sum(axis=1, keepdims=True) for each in largest], axis=0)
    np.testing.assert_allclose(combine_members(source, members, rows), expected, atol=1e-6)
