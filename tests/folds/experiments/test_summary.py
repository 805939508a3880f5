"""Pooled scores of several runs, compared with a computation by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from ensemble.cli.reports.training import columns_table, results_table
from folds.experiments.summary import RunSummary, pool_runs, summarize_run
from folds.metrics.report import score_predictions
from folds.predictions.changed_labels import write_changed_labels
from folds.predictions.files import PredictionMetadata, SampleRows, read_sidecar, write_prediction
from folds.predictions.reading import labels_and_groups

CLASSES = ("0", "1", "2")
IDS = [f"i{n}" for n in range(60)]


def published(name: str, seed: int, ids: list[str], tests: int = 2, labelled: bool = True) -> RunSummary:
    """A run of two folds as it stands in runs/: its rows in the order of `ids`, `tests` test files."""
    random = np.random.default_rng(seed)
    label = {one: str(int(one[1:]) % 3) for one in IDS}
    labels, persons = np.array([label[one] for one in ids]), np.array([f"p{int(one[1:]) // 4}" for one in ids])
    rows = SampleRows(np.array(ids), labels, persons)
    shared = {"classes": CLASSES, "run": name, "kind": "probability"}
    oof = PredictionMetadata(split="oof", rows=rows, fold=np.arange(len(ids)) % 2, **shared)  # type: ignore[arg-type]
    write_prediction(Path(f"runs/{name}.oof.npy"), random.dirichlet(np.ones(3), len(ids)), oof)
    test_rows = SampleRows(
        np.array(["t0", "t1", "t2"]), np.array(["0", "1", "2"]) if labelled else None, np.array(["x", "y", "z"])
    )
    for fold in range(tests):
        sidecar = PredictionMetadata(split="test", rows=test_rows, fold=fold, **shared)  # type: ignore[arg-type]
        write_prediction(Path(f"runs/{name}.fold{fold}.test.npy"), random.dirichlet(np.ones(3), 3), sidecar)
    done = {fold: {"macro_f1": seed / 10 + fold / 100, "seconds": 2.0} for fold in (0, 1)}
    return summarize_run(name, done, 2)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_mean_of_probabilities_is_aligned_by_id() -> None:
    orders = [IDS, IDS[::-1], IDS[30:] + IDS[:30]]
    summaries = [published(f"swin-r{n}", n, ids) for n, ids in enumerate(orders)]
    pooled = pool_runs("swin", summaries)
    assert pooled is not None
    at = [{name: i for i, name in enumerate(ids)} for ids in orders]
    values = [np.load(f"runs/swin-r{n}.oof.npy")[[place[name] for name in IDS]] for n, place in enumerate(at)]
    truth = [int(name[1:]) % 3 for name in IDS]
    expected = f1_score(truth, np.mean(values, axis=0).argmax(1), labels=range(3), average="macro", zero_division=0)
    assert pooled.oof.interval.value == pytest.approx(expected, abs=1e-12)
    assert pooled.oof.interval.people == 15
    assert pooled.scores == tuple(summary.oof.interval.value for summary in summaries)
    assert pooled.spread() == pytest.approx((np.mean(pooled.scores), np.std(pooled.scores, ddof=1)))
    assert pooled.folds == pytest.approx((0.0, 0.01, 0.1, 0.11, 0.2, 0.21))
    assert (pooled.runs, pooled.seconds) == (("swin-r0", "swin-r1", "swin-r2"), 12.0)
    tests = np.mean([np.load(f"runs/swin-r{n}.fold{fold}.test.npy") for n in range(3) for fold in (0, 1)], axis=0)
    assert pooled.test is not None
    assert pooled.test.interval.value == pytest.approx(
        f1_score([0, 1, 2], tests.argmax(1), labels=range(3), average="macro", zero_division=0)
    )


def test_only_samples_that_all_runs_have_predicted_count() -> None:
    pooled = pool_runs("swin", [published("swin", 0, IDS), published("swin-r1", 1, IDS[20:])])
    assert pooled is not None
    assert pooled.oof.rows == 40
    assert pool_runs("swin", [published("swin", 0, IDS[:20]), published("swin-r1", 1, IDS[20:])]) is None


def test_one_run_is_not_pooled_and_needs_labels_to_be_scored() -> None:
    assert pool_runs("swin", [published("swin", 0, IDS)]) is None
    pooled = pool_runs("swin", [published("swin", 0, IDS, labelled=False), published("swin-r1", 1, IDS, tests=0)])
    assert pooled is not None
    assert pooled.test is None


def test_scored_per_person_there_are_as_many_rows_as_people() -> None:
    pooled = pool_runs("swin", [published("swin", 0, IDS), published("swin-s1", 1, IDS)], per_person=True)
    assert pooled is not None
    assert pooled.oof.rows == 15


def changes_labels(name: str, *ids: str) -> None:
    columns = {"id": ids, "label": ["c0"] * len(ids), "change": ["drop"] * len(ids), "new_label": [""] * len(ids)}
    Path("runs", name).mkdir(parents=True, exist_ok=True)
    write_changed_labels(Path("runs", name), columns)


def test_a_run_is_scored_on_people_whose_labels_it_has_not_changed() -> None:
    plain = published("swin", 0, IDS)
    changes_labels("swin", IDS[0])
    found = published("swin", 0, IDS)
    sidecar = read_sidecar(Path("runs/swin.oof.npy"))
    assert sidecar is not None
    labels, persons = labels_and_groups(sidecar)
    kept = persons != persons[0]
    values = np.load("runs/swin.oof.npy")
    expected = f1_score(labels[kept], values[kept].argmax(1), labels=range(3), average="macro", zero_division=0)
    assert found.oof.interval.value == pytest.approx(expected, abs=1e-12)
    assert (found.oof.interval.people, found.oof.rows) == (14, int(kept.sum()))
    assert found.oof.changed_line() == (
        "scored on the 14 people whose training labels were not changed, without 1 person"
    )
    assert found.oof.to_dict()["changed_people"] == 1
    fold = np.arange(len(IDS)) % 2
    assert found.scores == pytest.approx(
        [
            f1_score(
                labels[kept & (fold == one)],
                values[kept & (fold == one)].argmax(1),
                labels=range(3),
                average="macro",
                zero_division=0,
            )
            for one in (0, 1)
        ]
    )
    assert plain.oof.changed_line() == ""
    assert "changed_people" not in plain.oof.to_dict()
    assert found.test is not None
    assert found.test.to_dict() == plain.test.to_dict()  # type: ignore[union-attr]
    pooled = pool_runs("swin", [found, published("swin-s1", 1, IDS)])
    assert pooled is not None
    assert (pooled.oof.interval.people, pooled.oof.left_out) == (14, True)


def test_if_all_labels_are_changed_all_people_are_scored_and_it_is_said() -> None:
    changes_labels("swin", *IDS)
    found = published("swin", 0, IDS).oof
    assert (found.interval.people, found.changed_people, found.left_out) == (15, 15, False)
    assert found.changed_line().startswith("scored on all people, although training labels of 15 people were changed")


def columns_run(name: str, labels: list[str], values: np.ndarray, classes: tuple[str, ...], **more: str) -> dict:
    """Write out-of-fold predictions in three folds, two images a person, and return what the folds recorded."""
    count = len(labels)
    persons = np.array([f"p{i // 2}" for i in range(count)])
    rows = SampleRows(np.array([f"i{i}" for i in range(count)]), np.array(labels), persons)
    sidecar = PredictionMetadata(
        classes=classes, run=name, kind="probability", split="oof", rows=rows, fold=np.arange(count) // 2 % 3, **more
    )  # type: ignore[arg-type]
    write_prediction(Path(f"runs/{name}.oof.npy"), values.astype(np.float32), sidecar)
    task = {"task": more["task"]} if more.get("task") == "multilabel" else {}
    return {fold: {"macro_f1": 0.5, "seconds": 1.0, **task} for fold in range(3)}


@pytest.mark.parametrize("task", ["multilabel", "binary"])
def test_folds_without_a_score_are_left_out_of_the_mean_and_it_is_said(task: str) -> None:
    """Only people of folds 0 and 1 have the label."""
    random = np.random.default_rng(0)
    hat = [i % 4 == 0 and i // 2 % 3 < 2 for i in range(36)]
    p = random.random(36)
    if task == "multilabel":
        done = columns_run("a", ["hat" if one else "-" for one in hat], p[:, None], ("hat",), task=task)
        done_b = columns_run("b", ["hat" if one else "-" for one in hat], p[::-1, None], ("hat",), task=task)
    else:
        both = np.stack([1 - p, p], axis=1)
        labels = ["yes" if one else "no" for one in hat]
        done = columns_run("a", labels, both, ("no", "yes"), task=task)
        done_b = columns_run("b", labels, both[::-1], ("no", "yes"), task=task)
    found = summarize_run("a", done, 3, metric="roc_auc")
    assert np.isnan(found.scores).tolist() == [False, False, True]
    first, second = found.scores[:2]
    assert found.spread() == pytest.approx(((first + second) / 2, abs(first - second) / np.sqrt(2)))
    assert found.spread_text().endswith("(2 of 3 folds)")
    record = found.to_dict()
    assert record["mean_of_folds"] == pytest.approx((first + second) / 2)
    assert record["undefined_folds"] == 1
    pooled = pool_runs("a", [found, summarize_run("b", done_b, 3, metric="roc_auc")], metric="roc_auc")
    assert pooled is not None
    assert pooled.to_dict()["undefined_folds"] == 2
    assert "(4 of 6 folds)" in results_table([found], [pooled])


def wrong_by_columns(labels: np.ndarray, values: np.ndarray) -> float:
    assert labels.shape[1] == 2, "written for both labels"
    return float(np.nanmean(np.abs(labels - values)))


def test_one_label_has_the_usual_score_beside_a_function_of_the_user() -> None:
    random = np.random.default_rng(1)
    labels = [";".join(name for name, one in zip(("a", "b"), random.random(2) < 0.5) if one) or "-" for _ in range(36)]
    done = columns_run("a", labels, random.random((36, 2)), ("a", "b"), task="multilabel")
    metric = f"{__name__}:wrong_by_columns"
    found, usual = summarize_run("a", done, 3, metric=metric), summarize_run("a", done, 3)
    assert (found.oof.metric, found.column_metric) == (metric, "roc_auc")
    assert found.columns == usual.columns
    assert "OOF ROC-AUC of" in columns_table([found])


def test_an_undefined_score_is_null_and_its_interval_warns() -> None:
    labels, values, persons = np.zeros(6, int), np.full((6, 2), 0.5), np.arange(6) // 2
    assert score_predictions(labels, values, persons, "roc_auc").to_dict()["roc_auc"]["score"] is None
    found = score_predictions(labels, values, persons, "macro_f1").to_dict()["macro_f1"]
    assert set(found) == {"score", "low", "high", "warning"}
    labels = np.array([0, 1, 1, 0, 1, 1])
    assert set(score_predictions(labels, np.eye(2)[[0, 1, 0, 0, 1, 1]], persons, "macro_f1").to_dict()["macro_f1"]) == {
        "score",
        "low",
        "high",
    }
