"""Decision rules of predictions: fitted to out-of-fold predictions, applied to new images, written to files."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble as en
from ensemble.cli import main
from ensemble.decisions.decision import Decision
from ensemble.prediction import face
from ensemble.prediction.decisions import DecisionOptions, decision_for
from ensemble.prediction.source import load_source
from folds.errors import EnsembleError, UsageError
from folds.predictions.files import read_sidecar
from tests.conftest import Called, made_once

TEST = "people/eval"
SETS = {"sets": 0.6, "set_score": "aps"}


@pytest.fixture(scope="session")
def _decided(tmp_path_factory: pytest.TempPathFactory, _grid: tuple[Path, Called]) -> Path:
    """The grid's runs and a blend of them."""

    def make(folder: Path) -> None:
        shutil.copytree(_grid[0], folder / "grid")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder / "grid")
            files = sorted(map(str, Path("runs").glob("*.npy")))
            with pytest.raises(SystemExit) as left:
                main(["blend", *files, "--method", "greedy", "-o", "final", "--quiet"])
            assert not left.value.code

    return made_once(tmp_path_factory, "decided", make) / "grid"


@pytest.fixture
def decided(_decided: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the blend, made the current one; it must not be changed."""
    monkeypatch.chdir(_decided)
    return _decided


@pytest.fixture
def labeled(decided: Path, tmp_path: Path) -> Path:
    """A table of images with labels and persons."""
    oof = en.read_predictions("runs/blends/final/oof.npy")
    assert oof.labels is not None
    assert oof.persons is not None
    lines = ["path,label,person"]
    for name, label, person in zip(oof.ids.tolist(), oof.labels.tolist(), oof.persons.tolist(), strict=True):
        [file] = (decided / "people/train/images").glob(f"{name}.*")
        lines.append(f"{file},{label},{person}")
    path = tmp_path / "labeled.csv"
    path.write_text("\n".join(lines))
    return path


def first_class() -> str:
    return en.read_predictions("runs/blends/final/oof.npy").classes[0]


@pytest.mark.parametrize("what", ["final", "test_resnet", "checkpoints/test_resnet/fold0.pt"])
def test_rules_are_those_of_the_out_of_fold_predictions(decided: Path, what: str) -> None:
    found = en.predict(what, TEST, progress=False, **SETS)
    assert found.decision is not None
    assert found.decided is not None
    if what.endswith(".pt"):
        oof = en.read_predictions("runs/test_resnet.oof.npy")
        assert oof.fold is not None
        expected = en.decide(oof.take(oof.fold == 0), **SETS).decision
        assert found.decision.source.basis == "one model"
    else:
        expected = en.decide(what, **SETS).decision
        assert found.decision.source.basis == "cross-fitted"
    assert found.decision.sets == expected.sets
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in found.paths]
    again = expected.apply(found.probabilities, ids=contents)
    assert again.sets is not None
    assert found.decided.sets is not None
    assert (found.decided.sets == again.sets).all()
    assert "coverage of an image" in repr(found) or "more" in repr(found)


def test_rules_are_not_fitted_to_the_confidences_of_a_cascade(
    decided: Path, labeled: Path, tmp_path: Path, call: Callable[..., Called]
) -> None:
    for cascade, code in (("exact", 2), ("off", 0)):
        path = tmp_path / f"{cascade}.npy"
        assert call("predict", "final", labeled, "--cascade", cascade, "-o", path).code == 0
        done = call("decide", path, "--abstain", ".9", "--confidence", "0")
        assert done.code == code, done.err
        assert ("were made with a cascade" in done.err) == (cascade == "exact")
    found = en.predict("final", str(labeled), cascade="exact", progress=False)
    with pytest.raises(UsageError, match="confidences cannot be compared"):
        en.decide(found.predictions, sets=0.6)


def test_people_without_names_are_refused_before_an_image_is_read(
    decided: Path, tmp_path: Path, call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [str(path) for path in sorted(Path("people/eval").rglob("*.jpg"))[:3]]
    assert images
    monkeypatch.setattr(face, "predict_table", lambda *given, **options: pytest.fail("a model was run"))
    with pytest.raises(UsageError, match="needs the persons of the images"):
        en.predict("final", images, per_person=True, progress=False)
    done = call("predict", "final", *images, "--per", "person", "-o", tmp_path / "p.npy")
    assert done.code == 2
    assert "needs the persons of the images" in done.err


def test_predictions_without_rules_are_as_before(decided: Path) -> None:
    found = en.predict("final", TEST, progress=False)
    assert found.decided is None
    assert "decision" not in found.to_dict()
    assert "decision" not in found.frame().columns
    assert (found.labels == np.array(found.classes)[found.probabilities.argmax(axis=1)]).all()


def test_labels_abstention_and_sets_are_written(decided: Path, call: Callable[..., Called], tmp_path: Path) -> None:
    name = first_class()
    words = ["predict", "final", TEST, "-o", tmp_path / "p.npy", "--threshold", f"{name}=.05", "--sets", ".6"]
    words += ["--abstain", ".9", "--confidence", "0", "--abstain-label", "unknown"]
    done = call(*words, "--csv", tmp_path / "a.csv", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    decision = Decision.from_json(record["decision"])
    predictions = en.read_predictions(tmp_path / "p.npy")
    expected = decision.apply(predictions.probabilities, ids=predictions.ids)
    rows = list(csv.reader((tmp_path / "a.csv").open(newline="")))
    assert rows[0] == ["id", "label"]
    assert [row[1] for row in rows[1:]] == expected.labels.tolist()
    assert name in expected.labels
    assert record["decided"] == {key: int((expected.labels == key).sum()) for key in np.unique(expected.labels)}
    sidecar = read_sidecar(tmp_path / "p.npy")
    assert sidecar is not None
    assert sidecar.decision == record["decision"]
    assert record["decision"]["source"]["name"] == "final"
    again = call(*words, "--csv", tmp_path / "s.csv", "--form", "sets", "--force")
    assert again.code == 0, again.err
    rows = list(csv.reader((tmp_path / "s.csv").open(newline="")))
    assert rows[0] == ["id", "set"]
    assert [row[1] for row in rows[1:]] == expected.set_texts()
    assert "on people who were not used to fit the rules" in again.out
    assert max(map(len, again.out.splitlines()[:-1])) <= 100  # the last one has the paths of the files


def test_a_sample_submission_gets_sets_and_a_warning_about_missing_answers(
    decided: Path, tmp_path: Path, logged: Any
) -> None:
    found = en.predict("final", TEST, progress=False, sets=0.6, abstain=0.9, confidence=0.0)
    assert found.decision is not None
    stricter = replace(found, decision=replace(found.decision, threshold=0.99))
    sample = tmp_path / "sample.csv"
    sample.write_text("ImageID,ans\n" + "".join(f"{name},0\n" for name in found.ids[::-1]))
    rows = stricter.csv(like=sample).decode().splitlines()
    assert rows[:2] == ["ImageID,ans", f"{found.ids[-1]},abstain"]
    assert f"{len(found)} rows have the label 'abstain'" in logged.warnings[-1]
    assert found.decided is not None
    rows = stricter.csv(form="sets", like=sample).decode().splitlines()
    assert rows[1] == f"{found.ids[-1]},{found.decided.set_texts()[-1]}"


def test_sets_need_to_be_asked_for(decided: Path, call: Callable[..., Called], tmp_path: Path) -> None:
    done = call("predict", "final", TEST, "-o", tmp_path / "p.npy", "--csv", tmp_path / "s.csv", "--form", "sets")
    assert done.code == 2
    assert "--form sets needs prediction sets" in done.err
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--form", "sets"], "--form sets needs prediction sets"),
        (["--form", "lable"], "lable"),
        (["--columns", "a,b,c"], "expected 2 names"),
        (["--like", "sample.csv"], "1 of 1 ids of"),
        (["--per", "person"], "the persons of the images, which are not known"),
    ],
)
def test_a_csv_that_cannot_be_written_is_found_first(
    decided: Path,
    call: Callable[..., Called],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    expected: str,
) -> None:
    monkeypatch.setattr(face, "predict_table", lambda *_, **__: pytest.fail("images were predicted"))
    (tmp_path / "sample.csv").write_text("id,label\nnobody,0\n")
    images = tmp_path / "new"
    images.mkdir()
    shutil.copy(next(path for path in sorted(Path(TEST).rglob("*.jpg"))), images)
    words = [str(tmp_path / word) if word == "sample.csv" else word for word in words]
    done = call("predict", "final", images, "-o", tmp_path / "p.npy", "--csv", tmp_path / "s.csv", *words)
    assert done.code in (1, 2)
    assert expected in done.err
    done = call("predict", "final", images, "-o", tmp_path / "p.npy", "--csv", tmp_path / "none" / "s.csv")
    assert done.code == 1
    assert "does not exist" in done.err


def test_an_error_that_cannot_be_kept_is_refused_before_an_image_is_read(
    decided: Path, call: Callable[..., Called], tmp_path: Path
) -> None:
    done = call("predict", "final", "nowhere/", "-o", tmp_path / "p.npy", "--abstain", ".01")
    assert done.code == 1
    assert "nothing would be answered" in done.err
    assert "ensemble decide shows the risk–coverage curve" in done.err


def test_rules_for_people_apply_to_one_row_per_person(labeled: Path) -> None:
    found = en.predict("final", labeled, progress=False, per_person=True, sets=0.5)
    with pytest.raises(UsageError, match="one row per person, found one row per image"):
        _ = found.labels
    assert "the decision rules are for one row per person" in repr(found)
    people = found.by_person()
    assert people.decided is not None
    assert len(people.decided) == len(people) < len(found)
    assert people.decision_scores()[0].measure == "error of answers"


def test_labels_of_the_table_are_scored_with_the_decisions(labeled: Path) -> None:
    found = en.predict("final", labeled, progress=False, sets=0.6)
    scores = {score.measure: score for score in found.decision_scores()}
    assert found.decided is not None
    wrong = found.labels != found.predictions.labels
    persons = found.predictions.persons
    assert persons is not None
    by_person = [wrong[persons == one].mean() for one in np.unique(persons)]
    assert scores["error of answers"].interval.value == pytest.approx(np.mean(by_person))
    assert scores["coverage of an image"].target == 0.6


def test_a_fold_that_was_trained_again_is_an_error(decided: Path, tmp_path: Path) -> None:
    shutil.copytree(decided / "runs", tmp_path / "runs")
    path = tmp_path / "runs" / "test_resnet.oof.json"
    record = json.loads(path.read_text())
    record["checkpoint_sha"]["1"] = "0" * 64
    path.write_text(json.dumps(record))
    with pytest.raises(EnsembleError, match="this fold was trained again"):
        decision_for(load_source("test_resnet"), tmp_path, DecisionOptions(sets=0.6))


def test_without_out_of_fold_predictions_only_given_thresholds_apply(
    decided: Path, tmp_path: Path, logged: Any
) -> None:
    source, name = load_source("test_resnet"), first_class()
    with pytest.raises(EnsembleError, match="no out-of-fold predictions here"):
        decision_for(source, tmp_path, DecisionOptions(sets=0.6))
    given = decision_for(source, tmp_path, DecisionOptions(threshold=f"{name}=.2"))
    assert given is not None
    assert given.records == {}
    assert any("cannot be scored" in line for line in logged.warnings)


def test_a_checkpoint_that_was_selected_on_its_people_gives_no_exact_guarantee(decided: Path) -> None:
    source = load_source("checkpoints/test_resnet/fold0.pt")
    [run], [model] = source.runs, source.models
    selected = replace(model, checkpoint=replace(model.checkpoint, selected_on_validation=True))
    source = replace(source, runs=(replace(run, models=(selected,)),))
    decision = decision_for(source, decided, DecisionOptions(sets=0.6))
    assert decision is not None
    assert decision.source.basis == "selected"
    assert Decision.from_json(decision.to_dict()).source == decision.source


def test_a_decision_that_comes_with_the_models_is_applied(decided: Path) -> None:
    own = en.decide("test_resnet", sets=0.6).decision
    source = replace(load_source("test_resnet"), decision=own)
    assert decision_for(source, decided, DecisionOptions()) is own
    renamed = decision_for(source, decided, DecisionOptions(abstain_label="?"))
    assert renamed is not None
    assert (renamed.abstain_label, renamed.sets) == ("?", own.sets)


def test_decide_prints_scores_rules_and_curve(decided: Path, call: Callable[..., Called], tmp_path: Path) -> None:
    name = first_class()
    words = ["decide", "final", "--threshold", f"{name}:sensitivity>=.95", "--sets", ".6", "--abstain", ".9"]
    done = call(*words)
    assert done.code == 0, done.err
    assert "nested value" in done.out
    assert "risk–coverage curve" in done.out
    assert "not shown" in done.out
    assert max(map(len, done.out.splitlines())) <= 100
    assert f"{name}:sensitivity>=0.95 is not guaranteed" in done.err
    record = json.loads(call(*words, "--json").out)
    assert record["curve"][0]["coverage"] == pytest.approx(1)
    assert record["decision"]["labels"]["status"] == ["observed"]
    classes = en.read_predictions("runs/blends/final/oof.npy").classes
    costs = tmp_path / "costs.csv"
    lines = [",".join([a, *("0" if a == b else "1" for b in classes)]) for a in classes]
    costs.write_text("\n".join([",".join(["class", *classes]), *lines]))
    assert "mean cost of argmax" in call("decide", "final", "--cost-matrix", costs).out
    wrong = call("decide", "final")
    assert wrong.code == 2
    assert "--abstain" in wrong.err
    assert "did you mean final" in call("decide", "fina", "--sets", ".6").err
