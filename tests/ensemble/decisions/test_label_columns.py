from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble as en
from ensemble.cli.reports.decide import decide_report
from ensemble.decisions.column_rows import columns_of_arrays
from ensemble.decisions.label_columns import fit_thresholds, parse_label_aims
from ensemble.decisions.label_report import LabelThresholds
from ensemble.decisions.labels import F1, fit_labels, parse_aims
from folds.errors import UsageError
from folds.metrics.tasks import metric_for_task
from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction
from folds.predictions.label_columns import label_texts
from tests.ensemble.label_worlds import LABELS, labels_of, probabilities_of

TRUTH, PERSONS = labels_of(8, 150)
# Pulled toward no: the best thresholds lie far below a half.
PULLED = 0.4 * probabilities_of(TRUTH, PERSONS, 9, (1.3,))[0].astype(float)
UNKNOWN = TRUTH.copy()
UNKNOWN[::11, 0] = np.nan


def decided(threshold: str | list[str], **options: object) -> LabelThresholds:
    found = en.decide(PULLED, y=UNKNOWN, groups=PERSONS, classes=LABELS, threshold=threshold, **options)  # type: ignore[arg-type]
    assert isinstance(found, LabelThresholds)
    return found


def test_thresholds_for_f1_are_worth_more_than_a_half() -> None:
    found = decided("macro_f1")
    assert all(0.02 < value < 0.4 for value in found.thresholds.values())
    assert found.totals["macro F1"].value > found.totals["macro F1 at 0.5"].value + 0.3
    metric = metric_for_task("macro_f1", "multilabel")
    assert found.totals["macro F1 at 0.5"].value == pytest.approx(metric(UNKNOWN, PULLED))
    inside = metric(UNKNOWN, found.apply(PULLED).astype(float))
    assert inside >= found.totals["macro F1"].value - 0.02
    json.dumps(found.to_dict())
    assert "a label is given from a probability on: hat" in decide_report(found)
    assert len(found.frame()) == 3
    assert found.display_table() is not None


def test_a_person_is_decided_by_thresholds_fitted_on_others() -> None:
    rows, source = columns_of_arrays(
        PULLED, UNKNOWN, PERSONS.astype(str), PERSONS % 5, np.arange(300).astype(str), LABELS, False, ("", "")
    )
    changed = UNKNOWN.copy()
    inside = PERSONS % 5 == 3
    changed[inside] = 1 - changed[inside]
    other, _ = columns_of_arrays(
        PULLED, changed, PERSONS.astype(str), PERSONS % 5, np.arange(300).astype(str), LABELS, False, ("", "")
    )
    for column in range(3):
        one, two = rows.of_label(column), other.of_label(column)
        outside = np.flatnonzero(one.parts != 3)
        aims = parse_aims([f"{LABELS[column]}:f1"], one.classes)
        fits = [fit_labels(each.take(outside), aims, 0.0)[0].thresholds[1] for each in (one, two)]
        assert fits[0] == fits[1]
    assert fit_thresholds(rows, source, ["f1"]).totals["macro F1"].people == 150


def test_the_aims_of_a_label_are_those_of_two_classes() -> None:
    found = decided(["hat:sensitivity>=.9", "beard=.2"])
    known = ~np.isnan(UNKNOWN[:, 0])
    two = np.stack([1 - PULLED[known, 0], PULLED[known, 0]], axis=1)
    y = np.where(UNKNOWN[known, 0] == 1, "hat", "not hat")
    alone = en.decide(two, y=y, groups=PERSONS[known], classes=["not hat", "hat"], threshold="hat:sensitivity>=.9")
    assert found.thresholds["hat"] == pytest.approx(alone.thresholds["hat"])  # type: ignore[union-attr]
    assert found.thresholds["glasses"] == 0.5
    assert found.thresholds["beard"] == 0.2
    assert found.scores["sensitivity of hat"].target == 0.9
    assert any("90% confidence" in line for line in found.lines())


def test_f1_has_the_threshold_of_the_largest_expected_f1() -> None:
    """Half of the best F1 is the best threshold of calibrated probabilities (Lipton et al., 2014)."""
    random = np.random.default_rng(0)
    p = random.beta(1, 4, 60_000)
    y = (random.random(60_000) < p).astype(float)
    rows, _ = columns_of_arrays(
        p[:, None], y[:, None], None, None, np.arange(len(p)).astype(str), ("hat",), False, ("", "")
    )
    found = fit_labels(rows.of_label(0), parse_aims([f"hat:{F1}"], ("not hat", "hat")), 0.0)[0].thresholds[1]
    grid = np.linspace(0.05, 0.6, 200)
    best = max(2 * (y * (p >= t)).sum() / (y.sum() + (p >= t).sum()) for t in grid)
    assert found == pytest.approx(best / 2, abs=0.01)


def test_rules_of_exclusive_classes_are_refused_by_name() -> None:
    for options, message in (
        ({"sets": 0.9}, "sets does not support the task multilabel"),
        ({"max_width": 3.0}, "max_width does not support the task multilabel"),
        ({"threshold": "f1", "set_score": "aps"}, "set_score does not support the task multilabel"),
        ({"threshold": "f1", "confidence": 1.0}, "confidence must be from 0 to below 1"),
    ):
        with pytest.raises(UsageError, match=message):
            en.decide(PULLED, y=UNKNOWN, classes=LABELS, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is for classes that exclude each other"):
        parse_label_aims(["rounder"], LABELS)
    with pytest.raises(UsageError, match="sets the thresholds of all labels"):
        parse_label_aims(["youden", "hat=.3"], LABELS)
    ages = TRUTH[:, :1] * 10 + 5
    made = en.blend({"a": ages[:, 0]}, y=ages[:, 0], groups=PERSONS, task="regression")
    with pytest.raises(UsageError, match="does not support the task regression"):
        en.decide(made, threshold="macro_f1")


def test_a_label_that_nobody_has_keeps_its_threshold() -> None:
    truth = UNKNOWN.copy()
    truth[:, 2] = 0
    found = en.decide(PULLED, y=truth, groups=PERSONS, classes=LABELS, threshold="macro_f1", per_person=True)
    assert isinstance(found, LabelThresholds)
    assert found.thresholds["beard"] == 0.5
    assert any("beard" in text for text in found.warnings)
    assert found.source.people == 150
    assert found.unit == "person"
    given = en.decide(PULLED, y=truth, groups=PERSONS, classes=LABELS, threshold=["hat=.3", "beard=.2"])
    assert isinstance(given, LabelThresholds)
    assert given.thresholds == {"hat": 0.3, "glasses": 0.5, "beard": 0.2}
    assert given.apply([[0.29, 0.5, 0.2], [0.3, 0.6, 0.19]]).tolist() == [[False, False, True], [True, True, False]]
    assert any("beard: its threshold has no score" in text for text in given.warnings)
    assert not given.decision.records["beard"].scores


def test_a_label_that_only_one_fold_knows_is_scored_on_other_people_of_it() -> None:
    truth, fold = UNKNOWN.copy(), PERSONS % 5
    truth[fold != 2, 1] = np.nan
    found = en.decide(PULLED, y=truth, groups=PERSONS, fold=fold, classes=LABELS, threshold="macro_f1")
    assert isinstance(found, LabelThresholds)
    assert found.scores["F1 of glasses"].interval.people == 30
    alone = en.decide(PULLED[:, 1:2], y=truth[:, 1:2], groups=PERSONS, classes=["glasses"], threshold="macro_f1")
    assert found.thresholds["glasses"] == alone.thresholds["glasses"]  # type: ignore[index]
    rest = en.decide(PULLED[:, :1], y=truth[:, :1], groups=PERSONS, fold=fold, classes=["hat"], threshold="macro_f1")
    assert found.scores["F1 of hat"].interval == rest.scores["F1 of hat"].interval


def test_the_mean_of_a_person_counts_images_whose_labels_are_not_known() -> None:
    values = np.array([[0.9], [0.1], [0.2], [0.4], [0.5]])
    labels = np.array([[1], [np.nan], [0], [0], [np.nan]])
    persons, ids = np.array(["a", "a", "b", "b", "c"]), np.arange(5).astype(str)
    rows, source = columns_of_arrays(values, labels, persons, None, ids, ("hat",), True, ("", ""))
    assert rows.values == pytest.approx(np.array([[0.5], [0.3]]))
    assert rows.labels.tolist() == [[1], [0]]
    assert (rows.ids.tolist(), source.people, source.images) == (["a", "b"], 2, 4)
    rows, source = columns_of_arrays(values, labels, persons, None, ids, ("hat",), False, ("", ""))
    assert (rows.ids.tolist(), source.images) == (["0", "2", "3"], 3)


def written(folder: Path, **fields: Any) -> Path:
    """Write out-of-fold predictions of several labels as the run `swin`."""
    rows = SampleRows(
        np.arange(len(PERSONS)).astype(str), label_texts(UNKNOWN, LABELS, "multilabel"), PERSONS.astype(str)
    )
    meaning = PredictionMetadata(
        "probability", "oof", LABELS, rows, fold=PERSONS % 5, run="swin", task="multilabel", **fields
    )
    return write_prediction(folder / "runs" / "swin.oof.npy", PULLED.astype(np.float32), meaning, rows)


def test_labels_of_persons_and_optimistic_predictions_are_judged_as_of_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, label_of="person")
    with pytest.raises(UsageError, match="only persons are labeled in the predictions of swin"):
        en.decide("swin", threshold="hat=.3", root=tmp_path)
    found = en.decide("swin", threshold="hat=.3", per_person=True, root=tmp_path)
    assert isinstance(found, LabelThresholds)
    assert (found.unit, found.source.basis) == ("person", "cross-fitted")
    monkeypatch.setattr("ensemble.decisions.oof.selected_runs", lambda runs, names: ["swin"])
    found = en.decide("swin", threshold="hat=.3", per_person=True, root=tmp_path)
    assert found.source.basis == "selected"  # type: ignore[union-attr]
    assert any("selected" in text for text in found.warnings)
    written(tmp_path, teacher="big")
    found = en.decide("swin", threshold="hat=.3", root=tmp_path)
    assert found.source.basis == "student"  # type: ignore[union-attr]


def test_the_hint_without_a_rule_is_one_of_the_task(tmp_path: Path) -> None:
    written(tmp_path)
    for options in ({"predictions": "swin"}, {"predictions": PULLED, "y": UNKNOWN, "classes": LABELS}):
        with pytest.raises(UsageError, match="expected a rule") as error:
            en.decide(**options, root=tmp_path)  # type: ignore[arg-type]
        assert error.value.hint == "`threshold=macro_f1`"
