"""An exported model gives the probabilities of what was exported, and says what it is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ensemble as en
from ensemble.cli.commands import export as command
from ensemble.export.scores import Knowledge, collect
from ensemble.export.write import build_bundle, finished, write_bundle
from ensemble.learning import combination as combinations
from ensemble.prediction.cascade import exact_cascade
from ensemble.prediction.source import load_source
from ensemble.serving.load import open_model
from ensemble.serving.model import split_answers
from folds.errors import EnsembleError, UsageError
from tests.conftest import Called
from tests.ensemble.prediction.test_predict import BLENDS, TEST, _blended, blended  # noqa: F401

ALL = [*BLENDS, "views", "joined", "mixed"]


@pytest.mark.parametrize("name", ALL)
def test_an_export_predicts_what_the_blend_predicts(blended: Path, tmp_path: Path, name: str) -> None:  # noqa: F811
    en.export(name, tmp_path / "model")
    before = en.read_predictions(f"runs/blends/{name}/test.npy")
    loaded = en.load(tmp_path / "model")
    assert loaded.classes_ == before.classes
    found = loaded.predict_frame(TEST)
    np.testing.assert_allclose(found[list(before.classes)], before.probabilities, atol=1e-6)
    assert found.id.tolist() == before.ids.tolist()
    source, made_of = load_source(tmp_path / "model"), load_source(name)
    assert source.combination.as_record() == made_of.combination.as_record()
    assert [run.merge for run in source.runs] == [run.merge for run in made_of.runs]


@pytest.mark.parametrize("name", ["stacking", "views", "joined", "mixed"])
def test_an_export_predicts_a_table_as_the_blend_does(blended: Path, tmp_path: Path, name: str) -> None:  # noqa: F811
    en.export(name, tmp_path / "model")
    before = en.read_predictions(f"runs/blends/{name}/test.npy")
    found = en.predict(tmp_path / "model", TEST, verify=True, progress=False)
    assert found.source.kind == "model"
    assert found.difference is not None
    assert found.difference <= 1e-6
    assert found.ids.tolist() == before.ids.tolist()
    np.testing.assert_allclose(found.probabilities, before.probabilities, atol=1e-6)
    assert (found.probabilities.argmax(1) == before.probabilities.argmax(1)).all()


@pytest.mark.parametrize("what", ["test_resnet", "checkpoints/test_vit/fold1.pt"])
def test_a_run_and_a_checkpoint_are_exported(blended: Path, tmp_path: Path, what: str) -> None:  # noqa: F811
    made = en.export(what, tmp_path / "model")
    expected = en.predict(what, TEST, progress=False).probabilities
    np.testing.assert_allclose(en.load(made.path).predict_proba(TEST), expected, atol=1e-6)
    oof = en.load_run(what if "/" not in what else "test_vit").oof
    score = made.record.score
    if "/" in what:
        assert oof.fold is not None
        oof = oof.take(np.flatnonzero(oof.fold == 1))
        assert score["basis"] == "validation images of fold 1"
    assert score["score"] == pytest.approx(oof.score("macro_f1").value)
    assert score["images"] == len(oof)


def test_the_record_states_score_counts_and_no_names(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    made = en.export("soft", tmp_path / "model")
    oof = en.read_predictions("runs/blends/soft/oof.npy")
    stated, interval = en.load(made.path).score, oof.score("macro_f1")
    assert stated is not None
    assert (stated.value, stated.low, stated.high) == pytest.approx((interval.value, interval.low, interval.high))
    record = tomllib.loads((tmp_path / "model/model.toml").read_text())
    assert record["schema"] == 1
    assert record["trained"]["images"] == len(oof) == 210
    assert record["trained"]["people"] == len(set(oof.persons.tolist())) == 30  # type: ignore[union-attr]
    card = (tmp_path / "model/README.md").read_text()
    assert "210 images of 30 people" in card
    assert f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]" in card
    content = b"".join(file.read_bytes() for file in (tmp_path / "model").rglob("*") if file.is_file())
    names = {str(Path.cwd()), "people/"} | set(oof.ids.tolist()[:20])
    names |= {person for person in oof.persons.tolist() if len(person) > 4}  # type: ignore[union-attr]
    assert not [name for name in names if name.encode() in content]


def test_a_nested_score_is_called_so(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    score = en.export("stacking", tmp_path / "model").record.score
    assert score["basis"] == "nested cross-validation over people"
    assert score["score"] == pytest.approx(en.read_predictions("runs/blends/stacking/oof.npy").score("macro_f1").value)


def test_the_card_has_front_matter_and_classes(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    en.export("stacking", tmp_path / "model")
    card = (tmp_path / "model/README.md").read_text()
    front = card.split("---\n")[1]
    assert "pipeline_tag: image-classification" in front
    rows = re.findall(r"^\| (\d+) \| \d+ \| [\d.]+ \| [\d.]+ \| [\d.]+ \|$", card, re.MULTILINE)
    assert rows == [str(i) for i in range(18)]
    assert "with stacking" in card


def test_an_archive_is_the_same_and_never_changes(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    one, two = en.export("views", tmp_path / "a.zip"), en.export("views", tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert one.record.sha256 == two.record.sha256
    before = en.read_predictions("runs/blends/views/test.npy").probabilities
    np.testing.assert_allclose(en.load(one.path).predict_proba(TEST), before, atol=1e-6)
    again = en.export(tmp_path / "a.zip", tmp_path / "folder")
    np.testing.assert_allclose(en.load(again.path).predict_proba(TEST), before, atol=1e-6)
    assert again.record.models == one.record.models
    assert again.record.score == one.record.score


def test_half_precision_states_what_it_changes(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    full, half = en.export("soft", tmp_path / "full"), en.export("soft", tmp_path / "half", half=True)
    assert half.bytes < 0.6 * full.bytes
    images = np.load(tmp_path / "half/expected.npz")["images"]
    measured = np.abs(en.load(full.path).predict_proba(images) - en.load(half.path).predict_proba(images)).max()
    assert half.record.half_difference == pytest.approx(measured, abs=1e-7)
    assert 0 < measured < 0.01
    assert "fp16" in (tmp_path / "half/README.md").read_text()
    assert full.record.half_difference is None


def test_a_blend_in_memory_is_exported(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    blend = en.blend(sorted(Path("runs").glob("test_*.npy")), method="geometric")
    made = en.export(blend, tmp_path / "model")
    before = en.read_predictions("runs/blends/geometric/test.npy").probabilities
    np.testing.assert_allclose(en.load(made.path).predict_proba(TEST), before, atol=1e-6)
    with pytest.raises(UsageError, match="must be a name, a path or a blend, found 3"):
        en.export(3, tmp_path / "other")  # type: ignore[arg-type]


def test_an_existing_output_is_refused_or_replaced(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    model = tmp_path / "model"
    en.export("soft", model)
    with pytest.raises(EnsembleError, match="exists"):
        en.export("hard", model)
    assert en.load(model).record.name == "soft"
    en.export("hard", model, force=True)
    assert en.load(model).record.name == "hard"
    other = tmp_path / "photos"
    other.mkdir()
    (other / "mine.jpg").write_text("kept")
    with pytest.raises(EnsembleError, match="is not a model, so it is not replaced"):
        en.export("soft", other, force=True)
    assert (other / "mine.jpg").read_text() == "kept"


@pytest.mark.parametrize("name", ["model", "model.zip"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_stopped_export_leaves_nothing(
    blended: Path,  # noqa: F811
    tmp_path: Path,
    name: str,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def stop(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 3 or name.endswith(".zip"):
            raise error

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else EnsembleError):
        en.export("soft", tmp_path / name)
    assert calls
    assert not list(tmp_path.iterdir())


def test_a_name_of_a_blend_and_of_a_model_is_refused(
    blended: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    en.export("soft", tmp_path / "soft")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EnsembleError, match="'soft' is an exported model here, and the name of a blend"):
        load_source("soft", blended)
    assert load_source("./soft", blended).kind == "model"
    assert load_source(tmp_path / "soft" / "model.toml", blended).kind == "model"
    assert load_source("soft", tmp_path).kind == "model"


def test_decision_rules_go_with_the_model(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    images = sorted(str(path) for path in Path(TEST).rglob("*.*g"))[:12]
    plain = en.load(en.export("soft", tmp_path / "plain"))
    one = plain.classes_[1]
    model = en.load(en.export("soft", tmp_path / "model", threshold=f"{one}=0.02"))
    assert model.decision is not None
    assert plain.decision is None
    values = model.predict_proba(images)
    assert model.predict(images).tolist() == model.decision.apply(values).labels.tolist()
    assert one in set(model.predict(images))
    again = load_source(tmp_path / "model")
    assert again.decision is not None
    assert again.decision.to_dict() == model.decision.to_dict()
    found = en.predict(tmp_path / "model", images)
    assert found.labels.tolist() == model.predict(images).tolist()
    np.testing.assert_allclose(found.probabilities, values, atol=1e-6)
    copied = en.load(en.export(tmp_path / "model", tmp_path / "copy"))
    assert copied.decision is not None
    assert copied.decision.to_dict() == model.decision.to_dict()
    with pytest.raises(UsageError, match="cascade=exact and the decision rules of soft exclude each other"):
        en.predict(tmp_path / "model", images, cascade="exact")
    with pytest.raises(UsageError, match="exclude each other"):
        en.export(tmp_path / "model", tmp_path / "both", cascade="exact")
    with pytest.raises(UsageError, match="one row per person"):
        en.predict(tmp_path / "model", images, per_person=True)


def test_a_cascade_goes_with_the_model(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    images = sorted(str(path) for path in Path(TEST).rglob("*.*g"))[:12]
    plain = en.load(en.export("soft", tmp_path / "plain"))
    made = en.export("soft", tmp_path / "model", cascade="exact")
    assert "cascade: skips the models that an image does not need (changes no decision)" in str(made)
    model = en.load(made)
    full, skipped = plain.predict_proba(images), model.predict_proba(images)
    assert (full.argmax(axis=1) == skipped.argmax(axis=1)).all()
    found = en.predict(tmp_path / "model", images)
    assert found.source.cascade is not None
    assert found.labels.tolist() == model.predict(images).tolist()
    np.testing.assert_allclose(found.probabilities, skipped, atol=1e-6)
    without = load_source(en.export(tmp_path / "model", tmp_path / "without", cascade="off").path)
    assert without.cascade is None
    with pytest.raises(UsageError, match="exclude each other"):
        en.export("soft", tmp_path / "both", cascade="exact", threshold=f"{plain.classes_[1]}=0.02")
    with pytest.raises(UsageError, match="exclude each other"):
        en.export(tmp_path / "model", tmp_path / "both", threshold=f"{plain.classes_[1]}=0.02")
    assert not (tmp_path / "both").exists()


def test_a_record_of_rules_and_a_cascade_is_refused(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    one = en.read_predictions("runs/blends/soft/oof.npy").classes[1]
    source = load_source("soft")
    rules = load_source(en.export("soft", tmp_path / "rules", threshold=f"{one}=0.02").path).decision
    both = replace(source, decision=rules, cascade=exact_cascade(source))
    write_bundle(finished(build_bundle(both, collect(source, Path(), None), False)), tmp_path / "model")
    for load in (load_source, en.load):
        with pytest.raises(EnsembleError, match="has decision rules and a cascade"):
            load(tmp_path / "model")


def test_rules_for_people_are_for_people_everywhere(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    images = sorted(str(path) for path in Path(TEST).rglob("*.*g"))[:6]
    model = en.load(en.export("soft", tmp_path / "model", sets=0.6, per_person=True))
    for call in (model.predict, model.predict_frame, model.decide):
        with pytest.raises(UsageError, match="are for people, and no persons are given"):
            call(images)
    persons = ["c", "c", "a", "b", "a", "b"]
    decided = model.decide(images, persons)
    assert decided.persons is not None
    assert decided.persons.tolist() == ["a", "b", "c"]
    assert model.predict(images, persons=persons).tolist() == decided.labels.tolist()
    frame = model.predict_frame(images, persons=persons)
    assert frame[["id", "prediction"]].to_numpy().T.tolist() == [["a", "b", "c"], decided.labels.tolist()]
    each = model.predict_proba(images)
    means = np.stack([each[[2, 4]].mean(axis=0), each[[3, 5]].mean(axis=0), each[:2].mean(axis=0)])
    np.testing.assert_allclose(frame[list(model.classes_)].to_numpy(), means, atol=1e-6)
    assert len(model.predict(images, threshold={model.classes_[0]: 0.5})) == 6
    with pytest.raises(UsageError, match="are for people: they apply"):
        en.predict(tmp_path / "model", images)
    with pytest.raises(UsageError, match="persons of the images, which are not known"):
        en.predict(tmp_path / "model", images, per_person=True)
    served = open_model(tmp_path / "model", "cpu", Path())
    assert served.needs.of_people
    outputs = served.outputs([served.decode(Path(one).read_bytes(), 10**6) for one in images[:2]])
    (answer,) = split_answers(served.combined(outputs, {}, "a"), served.classes, 1)
    mean = model.predict_proba(images[:2]).mean(axis=0)
    np.testing.assert_allclose(answer.probabilities, mean, atol=1e-6)
    decided = model.decide(images[:2], ["a", "a"])
    assert answer.decision is not None
    assert "|".join(answer.decision["set"]) == decided.set_texts()[0]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('[decision]\nclasses = ["no", "class"]\n', r"\[decision\]"),
        ('[cascade]\nexact = true\nmetric = "accuracy"\ncosts = {other = 1.0}\nsteps = []\n', "no run of the blend"),
        ("[future]\nx = 1\n", "'future', which this version does not know"),
    ],
)
def test_optional_tables_that_do_not_fit_are_refused(
    blended: Path,  # noqa: F811
    tmp_path: Path,
    table: str,
    said: str,
) -> None:
    en.export("soft", tmp_path / "model")
    path = tmp_path / "model" / "model.toml"
    text = path.read_text().partition("\n[integrity]")[0].replace("[files]", f"{table}\n[files]")
    path.write_text(f'{text}\n[integrity]\nsha256 = "{hashlib.sha256(text.encode()).hexdigest()}"\n')
    with pytest.raises(EnsembleError, match=said):
        load_source(tmp_path / "model")


def test_the_command_exports_and_predicts(blended: Path, tmp_path: Path, call: Callable[..., Called]) -> None:  # noqa: F811
    done = call("export", "views", "-o", tmp_path / "model", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["models"] == 6
    shutil.copytree(TEST, tmp_path / "new")
    out = tmp_path / "p.npy"
    done = call("predict", tmp_path / "model", tmp_path / "new", "-o", out, "--verify", "--csv", tmp_path / "a.csv")
    assert done.code == 0, done.err
    assert "expected probabilities of the model" in done.out
    before = en.read_predictions("runs/blends/views/test.npy").probabilities
    np.testing.assert_allclose(en.read_predictions(out).probabilities, before, atol=1e-6)
    assert call("export", "views", "-o", tmp_path / "model").code == 1
    assert call("export", "vieews", "-o", tmp_path / "x").code == 1


def test_without_a_folder_the_command_asks_for_one(blended: Path, call: Callable[..., Called]) -> None:  # noqa: F811
    done = call("export", "soft")
    assert done.code == 2
    assert "expected a folder to write" in done.err
    assert "--table" in done.err


def test_the_table_of_costs_is_printed(
    blended: Path,  # noqa: F811
    call: Callable[..., Called],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`ensemble export --table` is `ensemble costs`."""
    asked: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(command, "print_costs", lambda what, **named: asked.append((what, named)))
    assert call("export", "soft", "--table", "--cascade", ".01").code == 0
    assert asked == [("soft", {"cascade": ".01", "metric": "macro_f1"})]


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_thousands_of_coefficients_have_a_file_of_their_own(
    blended: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    """A blend of 1,000 classes would have millions of numbers in the text otherwise."""
    monkeypatch.setattr(combinations, "LARGE", 10)
    path = tmp_path / f"model{suffix}"
    en.export("stacking", path)
    before = en.read_predictions("runs/blends/stacking/test.npy")
    found = en.predict(path, TEST, verify=True, progress=False)
    np.testing.assert_allclose(found.probabilities, before.probabilities, atol=1e-6)
    if suffix:
        return
    text = (path / "model.toml").read_text()
    assert "stacked = {" in text.replace('"', "")
    numbers = path / "blend.npy.gz"
    numbers.write_bytes(numbers.read_bytes()[:-1] + b"x")
    with pytest.raises(EnsembleError, match=r"blend\.npy\.gz"):
        en.load(path)
    numbers.unlink()
    with pytest.raises(EnsembleError, match=r"blend\.npy\.gz is missing"):
        en.load(path)


def test_the_card_tells_rules(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    made = en.export("soft", tmp_path / "model", sets=0.6)
    card, record = (tmp_path / "model/README.md").read_text(), made.to_dict()
    decision = en.load(made).decision
    assert decision is not None
    assert "## Decision rules" in card
    [score, *_] = decision.records["sets"].scores
    assert f"{score.interval.value:.3f}" in card.partition("## Decision rules")[2].partition("##")[0]
    assert record["decision"] == made.record.extras["decision"]
    assert record["test_score"] == dict(made.record.test_score)
    plain = en.export("soft", tmp_path / "plain")
    assert "## Decision rules" not in (tmp_path / "plain/README.md").read_text()
    assert (plain.to_dict()["decision"], plain.to_dict()["cascade"]) == (None, None)
    noted = finished(build_bundle(load_source(tmp_path / "model"), Knowledge()), b"", "`model.onnx` is a graph.")
    assert b"decision rules" in noted.parts["README.md"].partition(b"model.onnx")[2]
    assert b"not in it" in noted.parts["README.md"]


def test_the_card_tells_a_cascade(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    made = en.export("soft", tmp_path / "model", cascade=0.05)
    card = (tmp_path / "model/README.md").read_text()
    assert "## Cascade" in card
    assert r"The allowed loss of the nested macro\_f1 is 0.05" in card
    assert made.to_dict()["cascade"]["tolerance"] == 0.05


def test_a_model_exported_again_stays_half_and_keeps_its_score(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    half = en.export("soft", tmp_path / "half", half=True)
    again = en.export(tmp_path / "half", tmp_path / "again")
    assert (again.record.precision, again.record.kind) == ("fp16", "blend")
    assert again.record.half_difference == half.record.half_difference
    assert again.bytes == pytest.approx(half.bytes, rel=0.01)
    assert en.export(tmp_path / "half", tmp_path / "same", metric="macro_f1").record.score == half.record.score
    with pytest.raises(UsageError, match="no predictions to score, only the score it states"):
        en.export(tmp_path / "half", tmp_path / "other", metric="accuracy")


def test_a_file_gets_the_same_random_set_everywhere(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    made = en.export("soft", tmp_path / "model", sets=0.6, set_score="aps")
    images = sorted(Path(TEST).rglob("*.*g"))
    table = tmp_path / "renamed"
    table.mkdir()
    for at, path in enumerate(images):
        shutil.copyfile(path, table / f"{len(images) - at:03d}{path.suffix}")
    model, served = en.load(made), open_model(tmp_path / "model", "cpu", tmp_path)
    of_list = model.decide(images).sets
    assert of_list is not None
    by_name = model.decision.apply(model.predict_proba(images), ids=list(map(str, images))).sets  # type: ignore[union-attr]
    assert (by_name != of_list).any()  # the random part matters for some image
    np.testing.assert_array_equal(model.decide([path.read_bytes() for path in images]).sets, of_list)
    for what, given in (("soft", [*map(str, images)]), (tmp_path / "model", str(table))):
        found = en.predict(what, given, **({"sets": 0.6, "set_score": "aps"} if what == "soft" else {})).decided
        assert found is not None
        sets = found.sets if what == "soft" else found.sets[::-1]  # type: ignore[index]
        np.testing.assert_array_equal(sets, of_list)
    decided = served.answer([served.decode(path.read_bytes(), 10**8) for path in images]).decisions
    names = np.array(model.classes_)
    assert [one["set"] for one in decided] == [names[row].tolist() for row in of_list]  # type: ignore[union-attr]
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in images[:4]]
    in_memory = model.decide(pixels).sets
    np.testing.assert_array_equal(model.decide([Image.fromarray(one) for one in pixels]).sets, in_memory)
    assert in_memory is not None
    assert (model.decide(pixels[::-1]).sets == in_memory[::-1]).all()  # type: ignore[union-attr]
