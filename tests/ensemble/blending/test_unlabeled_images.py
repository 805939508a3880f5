"""Images without a known label: every score leaves them out by image, and counts them in the mean of their person."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble as en
from ensemble.decisions.oof import rows_of_predictions
from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.evidence.scoring import score_of, scored_part
from ensemble.tta.merge import Merge, MergeConfig
from ensemble.tta.result import MergedViews
from ensemble.tta.scores import gain_of
from ensemble.tta.weights import OOFViews
from folds.metrics.scored_units import unlabeled_text
from folds.predictions.predictions import Predictions
from folds.predictions.reading import mean_test_predictions, score_rows

NAN = float("nan")
PERSONS = ["ann", "ann", "ann", "bob", "cem", "cem", "dee", "dee"]
# By person: 12 and 15 of ann, 5 and 7 of bob, 20 and 22.5 of dee; nothing is known of cem.
AGES = [10, NAN, 14, 5, NAN, NAN, NAN, 20]
GUESSES = [11.0, 20.0, 14.0, 7.0, 90.0, 80.0, 24.0, 21.0]
BY_IMAGE, BY_PERSON = (1 + 0 + 2 + 1) / 4, (3 + 2 + 2.5) / 3


def predictions(**changed: Any) -> Predictions:
    given = {"ids": [f"i{i}" for i in range(8)], "classes": ["age"], "labels": AGES, "persons": PERSONS} | changed
    return Predictions.from_array(GUESSES, **given, task="regression")


def scores(found: Any) -> tuple[float, int, int]:
    return found.interval.value, found.rows, found.interval.people


def test_runs_and_predictions_have_one_rule(tmp_path: Path) -> None:
    made = predictions(split="test", run="r", fold=0)
    assert made.score().value == BY_IMAGE
    assert made.score(per_person=True).value == BY_PERSON
    made.save(tmp_path / "r.fold0.test.npy")
    found = mean_test_predictions(tmp_path, "r")
    assert found is not None
    assert scores(score_rows(*found)) == (BY_IMAGE, 4, 3)
    assert scores(score_rows(*found, per_person=True)) == (BY_PERSON, 3, 3)
    weak = replace(found[1], label_of="person")
    assert scores(score_rows(found[0], weak)) == (BY_PERSON, 3, 3)


def test_a_blend_has_the_same_rule_also_where_it_is_fitted() -> None:
    y, persons = np.array(AGES), np.array(PERSONS)
    one = {"a": np.array(GUESSES)}
    assert en.score(y, one["a"], groups=persons, task="regression", per_person=True).value == BY_PERSON
    for given, expected in (({}, (BY_IMAGE, 4, 3)), ({"per_person": True}, (BY_PERSON, 3, 3))):
        made = en.blend(one, y=y, groups=persons, task="regression", progress=False, **given)
        assert scores(made.total["oof"].score) == expected
    assert any("4 of 8 oof samples have no label and 2 of them count" in note for note in made.notes)
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(12), 3)
    age = random.uniform(20, 70, 12)[people]
    known = np.where(random.random(36) < 0.4, NAN, age)
    runs = {name: age + random.normal(0, 6, 36) for name in "ab"}
    named = {"y": known, "groups": people, "task": "regression", "progress": False}
    made, pooled = (en.blend(runs, method="nnls", **named, **one) for one in ({"per_person": True}, {"pool": "mean"}))
    assert made.oof is not None
    assert made.fitted is not None
    assert pooled.fitted is not None
    assert made.nested is not None
    own = made.oof.score(per_person=True).value
    assert made.nested.value == pytest.approx(own, rel=1e-12)  # the nested score counts the same images as the file
    assert made.fitted.lines["soft"].score.value == pytest.approx(pooled.fitted.lines["soft"].score.value, rel=1e-6)
    assert made.over_best_single is None or made.over_best_single.difference.second == pytest.approx(own)


def test_classes_without_a_label_count_in_the_mean_of_their_person() -> None:
    values = np.array([[0.6, 0.4], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.9, 0.1]])
    labels, persons = ["cat", "", "cat", "dog", ""], ["ann", "ann", "bob", "cem", "dee"]
    made = Predictions.from_array(
        values, ids=list("abcde"), classes=["cat", "dog"], persons=persons, labels=["cat"] * 5
    )
    made = replace(made, metadata=replace(made.metadata, rows=replace(made.metadata.rows, labels=np.array(labels))))
    assert made.score("accuracy").value == 1
    assert made.score("accuracy", per_person=True).value == pytest.approx(2 / 3)  # ann is a dog by the mean
    assert made.score("average_precision").value == 1  # of dog, the last class
    rows, source = rows_of_predictions(made, "r", "run", per_person=True)
    assert (rows.labels.tolist(), source.people, source.images) == ([0, 0, 1], 3, 4)
    assert rows.probabilities[:, 1].tolist() == pytest.approx([0.65, 0.2, 0.7])
    assert rows_of_predictions(made, "r", "run", per_person=False)[0].ids.tolist() == ["a", "c", "d"]


def test_views_and_the_report_have_the_same_rule() -> None:
    y, persons = np.array(AGES)[:, None], np.array(PERSONS)
    views = np.stack([np.array(GUESSES), np.array(GUESSES) + 1])[:, :, None]
    codes = np.unique(persons, return_inverse=True)[1]
    evidence = OOFViews(("none", "flip"), views, y, codes, codes % 3, "regression")
    merge = Merge("mean", {"none": (1.0,), "flip": (1.0,)})
    made = MergedViews("r", MergeConfig(), merge, evidence, views.mean(axis=0), None, 2.0, "regression")
    for by_person, expected, rows in ((False, BY_IMAGE, 4), (True, BY_PERSON, 3)):
        found = gain_of(made, by_person)
        assert found is not None
        assert found.against_plain.first == expected
        assert found.mean.rows == rows
        assert found.against_plain.second == found.mean.interval.value
    member = Predicted("r", "run", np.array(GUESSES, np.float32)[:, None])
    part = Part("oof", np.array(list("abcdefgh")), y, persons, codes % 3, (member,))
    for by_person, expected in ((False, BY_IMAGE), (True, BY_PERSON)):
        of = Evidence(("age",), part, None, "mae", per_person=by_person, task="regression")
        interval = score_of(of, part, member)
        assert interval is not None
        assert (interval.value, interval.people) == (expected, 3)
    kept = scored_part(part, [member], True, "regression")
    assert kept is not None
    assert kept.fold is not None
    assert (kept.people, kept.fold.tolist(), kept.labels[:, 0].tolist()) == (3, [0, 1, 0], [12, 5, 20])
    absent = np.array(GUESSES, np.float32)[:, None]
    absent[[0, 2]] = np.nan  # without them, no label of ann is known
    kept = scored_part(part, [replace(member, probabilities=absent)], True, "regression")
    assert kept is not None
    assert kept.fold is not None
    assert (kept.people, kept.fold.tolist(), kept.values[0][:, 0].tolist()) == (2, [1, 0], [7, 22.5])


def test_the_line_says_which_images_count() -> None:
    assert unlabeled_text(4, 0) == "are not scored"
    assert unlabeled_text(4, 4) == "count in the prediction of their person"
    assert unlabeled_text(4, 3) == "3 of them count in the prediction of their person; the others are not scored"
