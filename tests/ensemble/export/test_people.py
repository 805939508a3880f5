"""A model for people, or with columns beside the images, answers as its blend wherever it is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ensemble as en
from ensemble.export import onnx_graph
from ensemble.export.rows import sample_rows
from ensemble.export.scores import Knowledge
from ensemble.export.write import build_bundle, finished, write_bundle
from ensemble.learning.combination import Combination
from ensemble.learning.further_columns import ColumnModel, Encoding
from ensemble.model_files import record_reading as records
from ensemble.model_files.reading import read_expected, read_record
from ensemble.pooling.pooling import Pooling
from ensemble.prediction.source import load_source
from ensemble.serving.load import open_model
from ensemble.serving.model import split_answers
from folds.errors import EnsembleError, UsageError
from tests.ensemble.model_files.test_hostile import change

NUMBER = Encoding("age", 40.0, 10.0)
TEXT = Encoding("site", categories=("a", "b"))


def new_people(count: int = 9) -> pd.DataFrame:
    """Images of the training as new ones; the persons are numbers, which do not stand in their order."""
    frame = en.read_table("people").train.frame().head(count)[["path"]]
    frame["path"] = [str(Path(path).resolve()) for path in frame["path"]]
    return frame.assign(id=[f"new{i}" for i in range(count)], person=[10, 2, 2, 10, 3, 3, 3, 2, 10][:count])


def served_person(model: object, paths: list[str], texts: dict[str, str], person: str) -> np.ndarray:
    """The probabilities (classes,) that the server gives one person, or one image."""
    outputs = model.outputs([model.decode(Path(one).read_bytes(), 10**6) for one in paths])  # type: ignore[attr-defined]
    answers = model.combined(outputs, texts, person)  # type: ignore[attr-defined]
    (answer,) = split_answers(answers, model.classes, 1)  # type: ignore[attr-defined]
    return answer.probabilities


def test_a_model_for_people_answers_as_its_blend(grid: Path) -> None:
    blend = en.blend(["test_resnet"], pool="max", progress=False)
    blend.save("persons")
    table = new_people()
    table.to_csv("new.csv", index=False)
    expected = en.predict("persons", "new.csv", per_person=True, progress=False)
    assert expected.ids.tolist() == ["10", "2", "3"]
    made = en.export("persons", "model")
    found = en.predict("model", "new.csv", per_person=True, verify=True, progress=False)
    assert found.ids.tolist() == expected.ids.tolist()
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    assert found.difference is not None
    assert found.difference <= 1e-6
    model = en.load("model", device="cpu")
    paths = table["path"].tolist()
    persons = table["person"].tolist()
    for given in (persons, [float(one) for one in persons], list(map(str, persons)), table["person"]):
        np.testing.assert_allclose(model.predict_proba(paths, persons=given), expected.probabilities, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(table), expected.probabilities, atol=1e-6)
    frame = model.predict_frame("new.csv")
    assert frame["id"].tolist() == ["10", "2", "3"]
    assert frame["prediction"].tolist() == model.predict(table).tolist() == expected.labels.tolist()
    # The parameter takes precedence over the column of the table.
    assert model.predict_frame(table, persons=["x"] * 9)["id"].tolist() == ["x"]
    with pytest.raises(UsageError, match=r"persons answers for people .*, and the persons of the images are not given"):
        model.predict_proba(paths)
    with pytest.raises(UsageError, match="one value for each of 9 rows, found 8 values"):
        model.predict_proba(paths, persons=persons[:8])
    with pytest.raises(UsageError, match="uses no columns beside the images"):
        model.predict_proba(paths, persons, {"age": [1] * 9})
    with pytest.raises(UsageError, match="answers for images, and persons are given"):
        sample_rows(load_source("test_resnet"), 9, paths, None, persons, None)
    # What is stated: a score by person, and what is needed.
    score = made.record.score
    assert score["score"] == pytest.approx(blend.nested.value)
    assert score["per_person"] is True
    people = len(set(en.load_run("test_resnet").oof.persons))
    assert score["images"] == score["people"] == made.record.trained["people"] == people
    assert made.record.trained["images"] == len(en.load_run("test_resnet").oof)
    assert made.to_dict()["unit"] == model.to_dict()["unit"] == "person"
    card = Path("model/README.md").read_text()
    assert "It answers for people, not for images: the images of a person are pooled (max)" in card
    assert f"CI over people, per person), accuracy {score['accuracy']:.3f}, on {people} people" in card
    assert "ensemble predict model/ table.csv --per person" in card
    # The expected answers are those of made-up people: two with two images, and one with one.
    assert read_expected(Path("model")).probabilities.shape == (3, 18)
    # The server has the same answer for the images of a person.
    server = open_model("model", "cpu", Path())
    assert server.describe()["unit"] == "person"
    for name, values in zip(expected.ids, expected.probabilities, strict=True):
        own = [path for path, person in zip(paths, persons, strict=True) if str(person) == name]
        np.testing.assert_allclose(served_person(server, own, {}, name), values, atol=1e-6)
    # Rules are for people without being asked.
    one = model.classes_[1]
    rules = en.load(en.export("model", "rules", threshold=f"{one}=0.02"), verify=False)
    decided = rules.decide(paths, persons)
    assert decided.decision.unit == "person"
    assert decided.persons is not None
    assert decided.persons.tolist() == ["10", "2", "3"]
    assert decided.labels.tolist() == rules.predict(table).tolist()
    # What cannot be is refused by name.
    with pytest.raises(UsageError, match=r"pools the images of each person \(max\), and an ONNX graph does not know"):
        en.export("persons", "graph", onnx=True)
    with pytest.raises(UsageError, match="cascade=exact is not available for persons"):
        en.export("persons", "skipping", cascade="exact")
    change(Path("model"), '^unit = "person"\n', "")
    with pytest.raises(EnsembleError, match=r"'unit' is None, and \[combination\] answers for each person"):
        en.load("model")


def with_columns(pooling: Pooling | None) -> tuple[Combination, np.ndarray]:
    """A combination that adds to the log p of the run what two columns say, and (5, classes) its coefficients."""
    classes = 18
    coefficients = np.zeros((5, classes))
    coefficients[:, 0], coefficients[:, 1] = [0.5, -1, 0, 2, 0.25], [0, 1, 3, 0, 0]
    stacked = np.concatenate([np.eye(classes), np.zeros((1, classes))])
    made = ColumnModel((NUMBER, TEXT), coefficients)
    return Combination(("test_resnet",), stacked=stacked, extra=made, pooling=pooling), coefficients


def by_hand(values: np.ndarray, encoded: list[list[float]], coefficients: np.ndarray) -> np.ndarray:
    """Softmax of the log p plus the columns: standardized age, age is missing, site a, site b, site is missing."""
    found = values.astype(np.float64) * np.exp(np.array(encoded) @ coefficients)
    return found / found.sum(axis=1, keepdims=True)


def exported(path: str, combination: Combination) -> en.Predictor:
    source = replace(load_source("test_resnet"), name="made", combination=combination)
    write_bundle(finished(build_bundle(source, Knowledge())), Path(path))
    return en.load(path, device="cpu")


def test_columns_beside_images_are_given_or_read(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    combination, coefficients = with_columns(None)
    model = exported("model", combination)
    table = new_people(4)  # the persons are 10, 2, 2, 10
    paths = table["path"].tolist()
    plain = open_model("test_resnet", "cpu", Path())
    p = plain.answer([plain.decode(Path(one).read_bytes(), 10**6) for one in paths]).probabilities
    columns = {"age": [50, None, 40.0, 20], "site": ["a", "b", None, "new"]}
    encoded = [[1, 0, 1, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1], [-2, 0, 0, 0, 1]]
    expected = by_hand(p, encoded, coefficients)
    assert model.extra_columns == ("age", "site")
    np.testing.assert_allclose(model.predict_proba(paths, columns=columns), expected, atol=1e-6)
    frame = pd.DataFrame(columns | {"further": 1})
    np.testing.assert_allclose(model.predict_proba(paths, columns=frame), expected, atol=1e-6)
    full = table.assign(**columns)
    np.testing.assert_allclose(model.predict_proba(full), expected, atol=1e-6)
    assert model.predict_frame(full)["id"].tolist() == [f"new{i}" for i in range(4)]
    full.to_csv("new.csv", index=False)
    np.testing.assert_allclose(en.predict("model", "new.csv", progress=False).probabilities, expected, atol=1e-6)
    server = open_model("model", "cpu", Path())
    cells = server.needs.read({"age": "50", "site": "a"})
    np.testing.assert_allclose(served_person(server, paths[:1], dict(cells.texts), ""), expected[0], atol=1e-6)
    with pytest.raises(
        UsageError, match=r"made needs the columns age, site beside the images; site is missing, found age"
    ):
        model.predict_proba(paths, columns={"age": [1] * 4})
    with pytest.raises(EnsembleError, match="column 'age' has the cell 'old', expected a number"):
        model.predict_proba(paths, columns=columns | {"age": ["old"] * 4})
    with pytest.raises(UsageError, match=r"`columns\['age'\]` must be one value for each of 4 images"):
        model.predict_proba(paths, columns=columns | {"age": [1]})
    with pytest.raises(UsageError, match="needs the columns age, site, and an ONNX graph has pixels alone"):
        onnx_graph.check_possible(replace(load_source("test_resnet"), combination=combination, name="made"))
    assert "Beside the images it needs the columns age, site" in Path("model/README.md").read_text()
    # A person has the columns of its images.
    people, _ = with_columns(Pooling("mean"))
    pooled = np.stack([p[[0, 3]].mean(axis=0), p[[1, 2]].mean(axis=0)])
    expected = by_hand(pooled, [[0, 0, 0, 1, 0], [1, 0, 0, 0, 1]], coefficients)
    columns = {"age": [30, 50, None, 50], "site": ["b", "", "", "b"]}
    found = exported("people-model", people).predict_proba(paths, table["person"], columns)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    server = open_model("people-model", "cpu", Path())
    cells = server.needs.read({"age": 40, "site": "b"})
    own = [paths[0], paths[3]]
    np.testing.assert_allclose(served_person(server, own, dict(cells.texts), "10"), expected[0], atol=1e-6)
    # A version that does not know the columns refuses the file by the field at the top.
    earlier = {name: kind for name, kind in records._TOP.items() if name != "extra_columns"}
    monkeypatch.setattr(records, "_TOP", earlier)
    with pytest.raises(EnsembleError, match="has 'extra_columns', which this version does not know"):
        read_record(Path("model"))
