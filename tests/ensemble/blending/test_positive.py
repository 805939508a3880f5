from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import ensemble as en
from ensemble.blending.blend import make_blend
from ensemble.blending.output import write_blend
from ensemble.blending.request import BlendConfig
from ensemble.cascade.evidence import files_of_blend
from folds.errors import EnsembleError, UsageError
from folds.metrics.classification import METRICS
from folds.predictions.files import PredictionMetadata, SampleRows, read_sidecar, write_prediction
from folds.predictions.reading import score_rows

METHODS = ("geometric", "greedy", "per-class", "bias", "stacking")


def people(seed: int = 1, n: int = 120) -> tuple[NDArray, NDArray, NDArray]:
    """Persons, whether each row is positive, and the probabilities (2, n) of two members."""
    random = np.random.default_rng(seed)
    persons = np.arange(n) // 3
    positive = (random.random(n // 3) < 0.35)[persons]
    return persons, positive, 1 / (1 + np.exp(-random.normal(np.where(positive, 1.0, -1.0), 1.5, (2, n))))


def written(folder: Path, classes: tuple[str, str], positive: str, task: str = "classes") -> list[Path]:
    persons, is_positive, values = people()
    negative = next(name for name in classes if name != positive)
    labels = np.where(is_positive, positive, negative)
    rows = SampleRows(np.arange(len(labels)).astype(str), labels, persons.astype(str))
    files = []
    for name, value in zip("ab", values, strict=True):
        columns = {positive: value, negative: 1 - value}
        about = PredictionMetadata("probability", "oof", classes, rows, fold=persons % 4, run=name, task=task)
        array = np.stack([columns[one] for one in classes], axis=1)
        files.append(write_prediction(folder / f"{name}.oof.npy", array, about))
    return files


def score_of(files: list[Path], metric: str = "average_precision", **options: str) -> float:
    found = make_blend([*files], BlendConfig(metric=metric, **options))  # type: ignore[arg-type]
    return found.runs["a"]["oof"].score.interval.value  # type: ignore[union-attr]


def test_sidecars_state_the_positive_class_and_earlier_ones_are_as_they_were(tmp_path: Path) -> None:
    plain, binary = tmp_path / "plain", tmp_path / "binary"
    plain.mkdir()
    binary.mkdir()
    path = written(plain, ("cancer", "healthy"), "cancer")[0]
    assert not {"task", "positive"} & set(json.loads(path.with_suffix(".json").read_text()))
    stated = written(binary, ("healthy", "cancer"), "cancer", "binary")[0]
    record = json.loads(stated.with_suffix(".json").read_text())
    assert (record["task"], record["positive"]) == ("binary", "cancer")
    found = read_sidecar(stated)
    assert found is not None
    assert found.positive == "cancer"
    record["positive"] = "healthy"
    stated.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(EnsembleError, match="expected two classes, the positive one last"):
        read_sidecar(stated)


def test_a_blend_scores_the_class_that_is_named_stated_or_told_by_its_name(tmp_path: Path) -> None:
    _, positive, values = people()
    expected = METRICS["average_precision"](positive.astype(int), np.stack([1 - values[0], values[0]], 1))
    for folder in ("told", "stated"):
        (tmp_path / folder).mkdir()
    told = written(tmp_path / "told", ("cancer", "healthy"), "cancer")
    assert score_of(told) == pytest.approx(expected, abs=1e-6)
    assert score_of(told, positive="healthy") != pytest.approx(expected, abs=1e-3)
    stated = written(tmp_path / "stated", ("zebra", "horse"), "horse", "binary")
    assert score_of(stated) == pytest.approx(expected, abs=1e-6)
    made = make_blend([*stated], BlendConfig(metric="average_precision"))
    assert any("average precision is that of class horse: stated in the sidecar" in note for note in made.notes)
    with pytest.raises(UsageError, match="positive class"):
        score_of(told, positive="sick")


def test_a_blend_keeps_the_task_and_its_positive_class(tmp_path: Path) -> None:
    files = written(tmp_path, ("zebra", "horse"), "horse", "binary")
    made = make_blend([*files], BlendConfig())
    write_blend(made, tmp_path / "blend")
    found = read_sidecar(tmp_path / "blend" / "oof.npy")
    assert found is not None
    assert (found.task, found.classes) == ("binary", ("zebra", "horse"))
    assert made.classes == ("zebra", "horse")
    both = {name: np.stack([1 - value, value], axis=1) for name, value in zip("ab", people()[2], strict=True)}
    assert made.predict_proba(both) == pytest.approx(made.votes["oof"].probabilities, abs=1e-6)


def test_the_named_class_is_recorded_for_a_cascade(tmp_path: Path) -> None:
    files = written(tmp_path, ("cat", "dog"), "cat")
    made = make_blend([*files], BlendConfig(metric="pauc:tpr=.5", positive="cat"))
    write_blend(made, tmp_path / "runs" / "blends" / "one")
    record = json.loads((tmp_path / "runs/blends/one/blend.json").read_text())
    assert record["options"]["positive"] == "cat"
    assert record["metric"] == "pauc:tpr=0.5"
    assert files_of_blend(tmp_path / "runs/blends/one", tmp_path).request.positive == "cat"


@pytest.mark.parametrize("metric", ["average_precision", "f_beta:beta=2", "quadratic_kappa", "sensitivity_at"])
def test_every_method_learns_for_every_kind_of_metric(metric: str) -> None:
    persons, positive, values = people()
    y = np.where(positive, "yes", "no")
    for method in METHODS:
        made = en.blend(
            {"a": values[0], "b": values[1]}, y=y, groups=persons, fold=persons % 4, method=method, metric=metric
        )
        assert 0 <= made.total["oof"].score.interval.value <= 1  # type: ignore[union-attr]
        assert np.isfinite(list(made.weights.values())).all()


def test_a_bias_moves_the_threshold_of_the_positive_class_as_f_beta_asks() -> None:
    persons, positive, values = people(n=600)
    y = np.where(positive, "yes", "no")
    careful = en.blend({"a": values[0]}, y=y, groups=persons, fold=persons % 4, method="bias", metric="f_beta:beta=4")
    strict = en.blend({"a": values[0]}, y=y, groups=persons, fold=persons % 4, method="bias", metric="f_beta:beta=.25")
    called = [(one.votes["oof"].probabilities[:, 1] > 0.5).mean() for one in (careful, strict)]
    assert called[0] > positive.mean() > called[1]


@pytest.mark.parametrize("said", [{"exclusive": True}, {"task": "ordinal"}])
def test_a_score_is_that_of_the_last_class_where_training_scored_it(tmp_path: Path, said: dict) -> None:
    path = written(tmp_path, ("cancer", "healthy"), "cancer")[0]
    sidecar, values = read_sidecar(path), np.load(path)
    assert sidecar is not None
    told, labels = score_rows(values, sidecar, "average_precision"), np.asarray(sidecar.rows.labels) == "healthy"
    path = write_prediction(tmp_path / "c.oof.npy", values, replace(sidecar, **said))
    again = read_sidecar(path)
    assert again is not None
    found = score_rows(values, again, "average_precision")
    last = METRICS["average_precision"](labels.astype(int), values)
    blended = make_blend([path], BlendConfig(metric="average_precision")).runs["a"]["oof"].score
    assert blended is not None
    assert blended.interval.value == pytest.approx(last, abs=1e-6)
    assert found.interval.value == pytest.approx(last)
    assert told.interval.value != pytest.approx(last, abs=1e-3)


def test_a_blend_keeps_that_its_classes_are_exclusive(tmp_path: Path) -> None:
    path = written(tmp_path, ("cancer", "healthy"), "cancer")[0]
    sidecar = read_sidecar(path)
    assert sidecar is not None
    path = write_prediction(tmp_path / "c.oof.npy", np.load(path), replace(sidecar, exclusive=True))
    blended = make_blend([path], BlendConfig())
    assert blended.oof is not None
    assert blended.oof.metadata.exclusive
    write_blend(blended, tmp_path / "blend")
    stored = read_sidecar(tmp_path / "blend/oof.npy")
    assert stored is not None
    assert stored.exclusive
