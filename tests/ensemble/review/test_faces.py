"""`ensemble.mistakes` and `ensemble.labels`: the same as the commands, as objects."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble as en
from ensemble.blending.labeled_predictions import LabeledPredictions
from ensemble.label_check.doubts import find_doubts
from ensemble.review.labels import DoubtfulLabels
from ensemble.review.mistakes import Mistakes
from tests.conftest import Called
from tests.ensemble.label_check.flipped import flipped_world
from tests.ensemble.report import hostile
from tests.ensemble.report.test_page import Elements

Call = Callable[..., Called]
BOTH = ["test_vit", "test_resnet"]


def test_the_command_prints_what_mistakes_returns(grid: Path, call: Call) -> None:
    printed = json.loads(call("mistakes", *BOTH, "-n", 3, "--people", 2, "--json").out)
    assert printed.pop("csv") is None
    found = en.mistakes(BOTH, most=3, people=2, progress=False)
    assert found.to_dict() == printed
    assert len(found) == found.wrong == printed["wrong"]
    for same in ([en.load_run(name) for name in BOTH], [f"runs/{name}.oof.npy" for name in BOTH]):
        assert en.mistakes(same, most=3, people=2, progress=False).to_dict() == printed
    assert call("mistakes", *BOTH, "-o", "mistakes.csv").code == 0
    assert found.save("again.csv").read_bytes() == Path("mistakes.csv").read_bytes()
    with pytest.raises(en.EnsembleError, match=r"again\.csv"):
        found.save("again.csv")
    frame = found.frame()
    with open("mistakes.csv", encoding="utf-8", newline="") as file:
        assert frame["id"].tolist() == [row["id"] for row in csv.DictReader(file)]
    assert frame["confidence"].is_monotonic_decreasing
    assert len(str(found).splitlines()) <= 20


def test_runs_in_another_folder_are_found(grid: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = en.mistakes(BOTH, progress=False).to_dict()
    monkeypatch.chdir(tmp_path)
    assert en.mistakes(BOTH, root=grid, progress=False).to_dict() == expected
    assert en.mistakes([en.load_run(name, root=grid) for name in BOTH], progress=False).to_dict() == expected


def test_a_blend_in_memory_and_a_saved_one_have_the_same_mistakes(grid: Path) -> None:
    blend = en.blend([en.load_run(name) for name in BOTH], progress=False)
    blend.save("both")
    saved, own = (en.mistakes(one, progress=False).to_dict() for one in ("both", blend))
    assert own.pop("name") == blend.name
    assert saved.pop("name") == "both"
    assert own == saved


def test_the_notebook_shows_matrix_people_and_pictures_without_a_script(grid: Path) -> None:
    made = en.mistakes(BOTH, progress=False)._repr_html_()
    assert made.count('src="data:image/jpeg;base64,') == 12
    assert 'class="matrix' in made
    assert "People with the most wrong images" in made
    assert not {tag for tag, _ in Elements(made).found} & {"script", "button", "select", "input"}
    assert len(made) < 100_000


def test_the_command_prints_what_labels_returns(grid: Path, call: Call) -> None:
    pytest.importorskip("cleanlab")
    printed = json.loads(call("labels", *BOTH, "-n", 4, "--json").out)
    assert printed.pop("csv") is None
    found = en.labels(BOTH, most=4, progress=False)
    assert found.to_dict() == printed
    assert len(found) == printed["in_doubt"] > 0
    assert call("labels", *BOTH, "-o", "labels.csv").code == 0
    assert found.save("again.csv").read_bytes() == Path("labels.csv").read_bytes()
    assert found.frame()["id"].tolist()[:4] == [one["id"] for one in printed["labels"]]
    assert len(str(found).splitlines()) <= 20
    made = found._repr_html_()
    assert 'src="data:image/jpeg;base64,' in made
    assert len(made) < 100_000


def test_test_labels_are_not_doubted() -> None:
    values = np.eye(2)[[0, 1, 1, 0]] * 0.8 + 0.1
    test = en.Predictions.from_array(
        values, ids=list("abcd"), classes=["x", "y"], labels=["x", "y", "x", "x"], split="test"
    )
    blend = en.blend({"one": test, "two": test}, progress=False)
    assert en.mistakes(blend).wrong == 1
    with pytest.raises(en.EnsembleError, match="out-of-fold predictions, found test predictions"):
        en.labels(blend)


@pytest.mark.parametrize("what", [[], 3, [3.5], {"x": None}])
def test_what_is_no_prediction_is_named(what: Any) -> None:
    for look in (en.mistakes, en.labels):
        with pytest.raises(en.UsageError, match=r"^what must be a run, a blend, or names"):
            look(what)


def judged(hostile_names: bool = False, people: int = 120) -> LabeledPredictions:
    rows, _ = flipped_world("image", people=people)
    if hostile_names:
        texts = np.array(hostile.ALL)
        rows = replace(
            rows,
            ids=np.array([f"{texts[at % len(texts)]}{at}" for at in range(len(rows))]),
            persons=np.array([texts[at // 5 % len(texts)] for at in range(len(rows))]),
            classes=(hostile.SCRIPT, hostile.ATTRIBUTE, hostile.IMAGE),
            members={hostile.SVG: rows.members["x"], hostile.TEMPLATE: rows.members["y"]},
        )
    return LabeledPredictions(rows, hostile.SCRIPT if hostile_names else "swin", "oof", True, {})


def test_names_of_strangers_stay_texts() -> None:
    found = judged(hostile_names=True)
    shown = [Mistakes(found)._repr_html_()]
    if pytest.importorskip("cleanlab"):
        shown.append(DoubtfulLabels(find_doubts(found.rows), found.name)._repr_html_())
    for made in shown:
        elements = Elements(made).found
        assert not {tag for tag, _ in elements} & {"script", "img", "svg", "a", "iframe"}
        assert not [one for _, attributes in elements for one in attributes if re.match("on|style|href", one)]


def test_twenty_thousand_images_are_a_small_fragment() -> None:
    made = Mistakes(judged(people=4000))._repr_html_()
    assert len(made) < 100_000
