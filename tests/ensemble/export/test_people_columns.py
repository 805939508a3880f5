"""Models for people of several labels, or of numbers, answer by hand-made rules wherever they are used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ensemble as en
from ensemble.decisions.label_columns import given_thresholds
from ensemble.export import onnx_graph
from ensemble.export.rows import sample_rows
from ensemble.export.scores import Knowledge
from ensemble.export.write import build_bundle, finished, write_bundle
from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.combination import Combination
from ensemble.learning.further_columns import ColumnModel, Encoding
from ensemble.model_files.reading import read_expected
from ensemble.pooling.columns import ColumnPooling
from ensemble.pooling.pooling import Pooling
from ensemble.prediction.models import check_rows_compared
from ensemble.prediction.people import check_rows
from ensemble.prediction.source import PredictionSource, load_source
from ensemble.serving.load import SourceModel
from ensemble.serving.model import split_answers
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.predictions.files import read_array
from folds.predictions.label_columns import label_texts
from folds.predictions.rows import SampleRows
from tests.ensemble.column_runs import NAMES, write_run, write_table

RUNS = {MULTILABEL: "labels", REGRESSION: "numbers"}
FILES = [f"img/p8_{at}.png" for at in range(3)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("pooled")
    write_table(root)
    for task, name in RUNS.items():
        write_run(root, task, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield root


def pooling_of(task: str) -> ColumnPooling:
    """Another rule for each column, so that columns that change places are seen."""
    about = {"runs": (RUNS[task],), "task": task, "columns": NAMES[task]}
    if task == MULTILABEL:
        of = [(0.0, [[0.8, 0.2]]), (1.0, [[0.4, 0.6]])]
        each = [Pooling("log-odds", runs=about["runs"], damping=np.array([d]), prior=np.array(p)) for d, p in of]
        return ColumnPooling("log-odds", each=tuple(each), **about)
    # mean, median, min, max, sd, log n, intercept
    linear = np.array([[[0, 0, 0, 2, 0, 0, 1], [0, 0, 0.5, 0, 0, 3, -2]]], np.float64)
    return ColumnPooling("learned", linear=linear, **about)


def by_hand(task: str, images: np.ndarray) -> np.ndarray:
    """The prediction (2,) of a person by one model, from the predictions (n, 2) of the images."""
    values = images.astype(np.float64)
    if task == REGRESSION:
        return np.array([2 * values[:, 0].max() + 1, 0.5 * values[:, 1].min() + 3 * np.log(len(values)) - 2])
    odds = np.log(values / (1 - values))
    prior = np.log([0.2 / 0.8, 0.6 / 0.4])
    change = (odds - prior).mean(axis=0) * [len(values), 1]
    return 1 / (1 + np.exp(-prior - change))


def pooled(task: str) -> PredictionSource:
    run = RUNS[task]
    combination = ColumnCombination((run,), task=task, columns=NAMES[task], pooling=pooling_of(task))
    return replace(load_source(run), name="people", combination=combination)


@pytest.mark.parametrize("task", RUNS)
def test_labels_and_numbers_of_people(root: Path, tmp_path: Path, task: str) -> None:
    source = pooled(task)
    folds = [np.array(read_array(Path(f"runs/{RUNS[task]}.fold{at}.test.npy"))) for at in range(2)]
    rows = {"10": [1], "2": [0, 2]}
    expected = np.array([np.mean([by_hand(task, one[at]) for one in folds], axis=0) for at in rows.values()])
    limits = np.sort(expected[:, 0])
    if task == MULTILABEL:  # one person has the first label, the other one does not
        source = replace(
            source, decision=given_thresholds(source.classes, [f"hat={limits.mean():.6f}"], per_person=True)
        )
    write_bundle(finished(build_bundle(source, Knowledge())), tmp_path / "model")
    assert read_expected(tmp_path / "model").probabilities.shape == (3, 2)
    model = en.load(tmp_path / "model", device="cpu")
    frame = pd.DataFrame({"path": [str(Path(one).resolve()) for one in FILES], "person": [2, 10, 2]})
    texts = frame.assign(person=["2", "10", "2"]).iloc[[2, 0, 1]]
    for images, persons in ((FILES, [2.0, 10, 2]), (texts, None)):
        found = model.predict_frame(images, persons=persons)
        assert found["id"].tolist() == list(rows)
        np.testing.assert_allclose(found[list(NAMES[task])], expected, rtol=1e-4)
    texts.to_csv(tmp_path / "new.csv", index=False)
    made = en.predict(tmp_path / "model", tmp_path / "new.csv", per_person=True, progress=False)
    np.testing.assert_allclose(made.probabilities, expected, rtol=1e-4)
    server = SourceModel(model._source, model._models, decision=model.decision)
    images = [server.decode(Path(FILES[at]).read_bytes(), 10_000) for at in (2, 0)]
    (one,) = split_answers(server.combined(server.outputs(images), {}, ""), server.classes, 1)
    np.testing.assert_allclose(one.probabilities, expected[1], rtol=1e-4)
    spread = np.std([by_hand(task, fold[[0, 2]]) for fold in folds], axis=0).max()
    assert one.uncertainty["spread"] == pytest.approx(spread, rel=1e-3, abs=2e-6)
    if task == MULTILABEL:
        given = np.stack([expected[:, 0] >= limits.mean(), expected[:, 1] > 0.5], axis=1)
        assert given[:, 0].sum() == 1
        answers = label_texts(given.astype(float), NAMES[task], task).tolist()
        assert model.decide(frame).labels.tolist() == made.labels.tolist() == answers
        assert model.predict(frame).tolist() == given.astype(int).tolist()
        assert one.to_dict()["labels"] == [name for name, has in zip(NAMES[task], given[1], strict=True) if has]
    with pytest.raises(UsageError, match="pools the images of each person"):
        onnx_graph.check_possible(source)
    assert "2 people predicted by model people" in made.display_table().text(100)
    assert "pooled (" in (tmp_path / "model/README.md").read_text()


def test_rank_voting_compares_people() -> None:
    combination = ColumnCombination(("r",), "rank", columns=("a",), pooling=ColumnPooling("max", columns=("a",)))
    source = PredictionSource("ranks", "blend", ("a",), "label", combination, ())
    check_rows_compared(source, 2)
    with pytest.raises(UsageError, match="rank voting compares the people of a table with each other, found 1 person"):
        check_rows_compared(source, 1)


def with_age(pooling: Pooling | None) -> PredictionSource:
    extra = ColumnModel((Encoding("age", 40.0, 10.0), Encoding("site", categories=("1", "x"))), np.zeros((5, 2)))
    combination = Combination(("r",), stacked=np.zeros((3, 2)), extra=extra, pooling=pooling)
    return PredictionSource("made", "blend", ("a", "b"), "label", combination, ())


def test_cells_of_mixed_lists_and_further_columns() -> None:
    source = with_age(Pooling("mean"))
    columns = {"age": ["50", float("nan"), 40], "site": ["x", 1.0, None], "further": [1]}
    rows = sample_rows(source, 3, FILES, None, ["p", 1.0, np.float32(1)], columns)
    assert rows.persons is not None
    assert rows.persons.tolist() == ["p", "1", "1"]
    assert {name: values.tolist() for name, values in rows.attributes.items()} == {
        "age": ["50", "", "40"],
        "site": ["x", "1", ""],
    }
    # numpy would make the text "nan" of what is missing, and these images would be those of one person.
    for persons in (["p", float("nan"), None], ["p", "q", float("nan")]):
        with pytest.raises(UsageError, match="persons has no value in"):
            sample_rows(source, 3, FILES, None, persons, columns)
    with pytest.raises(UsageError, match="persons has 'nan' in row 1, which means that the person is not known"):
        sample_rows(source, 3, FILES, None, np.array(["p", "nan", "q"]), columns)
    frame = pd.DataFrame({"path": FILES, "age": [1, 2, 3]})
    turned = {"age": frame["age"].sort_index(ascending=False), "site": ["x"] * 3}
    with pytest.raises(UsageError, match=r"images and `columns\['age'\]` have different indexes"):
        sample_rows(source, 3, frame, None, ["p"] * 3, turned)
    twice = pd.DataFrame([[1, 2, "x"]] * 3, columns=["age", "age", "site"])
    with pytest.raises(UsageError, match="columns has 'age' twice"):
        sample_rows(source, 3, FILES, None, ["p"] * 3, twice)


@pytest.mark.parametrize("pooling", [None, Pooling("mean")])
def test_a_cell_that_is_no_number_is_refused_before_an_image_is_predicted(pooling: Pooling | None) -> None:
    attributes = {"age": np.array(["50", "old", ""]), "site": np.array(["x", "y", ""])}
    rows = SampleRows(np.array(FILES), None, np.array(["p", "q", "q"]), attributes)
    table: Any = SimpleNamespace(rows=lambda: rows, attributes=attributes, persons=rows.persons)
    with pytest.raises(EnsembleError, match="column 'age' has the cell 'old', expected a number"):
        check_rows(with_age(pooling), table)
