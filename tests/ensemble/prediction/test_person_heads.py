"""Heads on frozen features that predict an image from all images of its person answer alike wherever they are used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import ensemble as en
from ensemble.export import predictor
from ensemble.export.onnx_graph import ModelModule, _of_people
from ensemble.export.scores import Knowledge
from ensemble.export.write import build_bundle, finished, write_bundle
from ensemble.prediction import engine
from ensemble.prediction import predict as data_path
from ensemble.prediction.source import load_source
from ensemble.serving.combining import combine
from ensemble.serving.load import open_model
from ensemble.serving.needs import Cells
from ensemble.tta.merge import Merge
from ensemble.tta.people import check_people, logits_of_people
from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.errors import EnsembleError, UsageError
from folds.execution import local
from folds.features.train import train_job
from folds.images.decode import decode_image
from folds.models.checkpoint import load_checkpoint
from folds.models.heads import classifier_of
from folds.models.person_models import person_head, person_logits
from folds.predictions.predictions import read_predictions
from folds.runs.execute import lock_runs, train
from folds.runs.open import prepare_jobs
from folds.runs.plan import build_plan
from folds.training.job import job_from_dict
from tests.ensemble.model_files.test_hostile import change


class InProcess:
    """Stands in for a worker process: the same job, without the start-up."""

    def __init__(self, threads: int, variables: dict[str, str]) -> None:
        pass

    def run(self, job: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        return train_job(job_from_dict(json.loads(json.dumps(job))), report)

    def stop(self) -> None:
        pass


@pytest.fixture(scope="module")
def _trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs with the three heads on one backbone of random weights, in two folds."""
    folder = tmp_path_factory.mktemp("heads")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(local, "Worker", InProcess)
        for name, head in (("gated", "attention-person"), ("relative", "relative"), ("attention", "attention")):
            recipe = {"gated": {"target": "gender"}, "relative": {"target": "mask+gender+age"}}.get(name, {})
            settings = Settings(data=drawn, arch=("test_resnet",), k=2, name=name)
            values = {"features": True, "epochs": 2, "img_size": "32", "pretrained": False, "head": head}
            made = build_plan(settings, Recipe(**values | recipe))
            with lock_runs(made):
                assert not [one.error for one in train(made, prepare_jobs(made)) if one.error]
        frame = en.read_table(drawn).train.frame()
        frame["path"] = [str(Path(path).resolve()) for path in frame["path"]]
        frame.to_csv("all.csv", index=False)
        columns = frame[["id", "path", "person"]].assign(
            hat=[("", "0", "1")[i % 3] for i in range(len(frame))],
            beard=[str(int(person[-1] in "02468")) for person in frame["person"]],
            years=[f"{30 + i % 17}.5" for i in range(len(frame))],
        )
        columns.to_csv("columns.csv", index=False)
        tasks = {
            "labels": ("hat,beard", "multilabel", "attention-person"),
            "years": ("years", "regression", "relative"),
        }
        for name, (label, task, head) in tasks.items():
            settings = Settings(data=Path("columns.csv"), arch=("test_resnet",), k=2, name=name, label=label)
            made = build_plan(settings, Recipe(**values | {"head": head, "task": task}))
            with lock_runs(made):
                assert not [one.error for one in train(made, prepare_jobs(made)) if one.error]
        yield folder


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 images, so that the images of a person are in several."""
    monkeypatch.setattr(data_path, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(data_path, "BATCH", 16)


@pytest.fixture
def trained(_trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the runs, made the current one; it must not be changed."""
    monkeypatch.chdir(_trained)
    monkeypatch.setattr(engine, "cpu_count", lambda: 1)  # threads that wait for each other are slow beside other tests
    return _trained


def validation_of(run: str, fold: int) -> tuple[pd.DataFrame, np.ndarray]:
    """The images of six people of a fold's validation part, shuffled, without labels, and their out-of-fold predictions."""
    oof = read_predictions(Path(f"runs/{run}.oof.npy"))
    table = pd.read_csv("all.csv", dtype=str).drop(columns=["label"])
    own = table[table["id"].isin(oof.ids[oof.metadata.fold == fold])]
    own = own[own["person"].isin(sorted(set(own["person"]))[:6])].sample(frac=1, random_state=1)
    place = {name: i for i, name in enumerate(oof.ids.tolist())}
    return own, oof.probabilities[[place[name] for name in own["id"]]]


def by_hand(run: str, fold: int, table: pd.DataFrame, mirrored: bool = False) -> np.ndarray:
    """The predictions (n, classes) of one fold model, its head computed in numpy from the features of each person."""
    checkpoint = load_checkpoint(Path(f"checkpoints/{run}/fold{fold}.pt"))
    pixels = np.stack(
        [decode_image(Path(path).read_bytes(), checkpoint.image_settings).pixels for path in table["path"]]
    )
    pixels = pixels[:, :, ::-1].copy() if mirrored else pixels
    shape = checkpoint.architecture
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(one)[:, None, None] for one in (shape.mean, shape.std))
    model, kept = checkpoint.network(), []
    head = classifier_of(model, shape.name)[1]
    head.inputs.register_forward_hook(lambda layer, given, out: kept.append(given[0]))
    with torch.inference_mode():
        model((batch - mean) / std)
    features = kept[0].numpy().astype(np.float16).astype(np.float64)
    w = {name: value.double().numpy() for name, value in head.state_dict().items()}
    outputs = np.zeros((len(table), len(w["output.weight"])))
    for person in set(table["person"]):
        own = (table["person"] == person).to_numpy()
        x = features[own]
        if shape.head == "relative":
            deviation = x.std(axis=0)
            z = np.divide(x - x.mean(axis=0), deviation, out=np.zeros_like(x), where=deviation > 1e-5)
            outputs[own] = x @ w["inputs.weight"].T + w["inputs.bias"] + z @ w["output.weight"].T
        else:
            hidden = np.maximum(x @ w["inputs.weight"].T + w["inputs.bias"], 0)
            gate = 1 / (1 + np.exp(-(hidden @ w["gate.weight"].T + w["gate.bias"])))
            value = np.tanh(hidden @ w["value.weight"].T + w["value.bias"])
            score = np.exp((value * gate) @ w["score.weight"].T + w["score.bias"])
            outputs[own] = (score * hidden).sum(axis=0) / score.sum() @ w["output.weight"].T + w["output.bias"]
    if checkpoint.task == "regression":
        return outputs
    if checkpoint.task == "multilabel":
        return np.asarray(1 / (1 + np.exp(-outputs)))
    start, product = 0, np.ones((len(table), len(checkpoint.classes)))
    for part in checkpoint.outputs().heads:  # of each attribute; the classes are their products
        values = np.exp(outputs[:, start : start + len(part.values)])
        product *= (values / values.sum(axis=1, keepdims=True))[:, np.array(part.of_label)]
        start += len(part.values)
    return np.asarray(product / product.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("run", ["gated", "relative"])
def test_new_images_get_what_the_training_predicted_for_them(trained: Path, small_chunks: None, run: str) -> None:
    for fold in range(2):
        own, expected = validation_of(run, fold)
        own.to_csv("own.csv", index=False)
        found = en.predict(f"checkpoints/{run}/fold{fold}.pt", "own.csv", progress=False)
        assert found.ids.tolist() == own["id"].tolist()
        np.testing.assert_allclose(found.probabilities, expected, atol=3e-4)
        assert expected.std(axis=0).max() > 3e-3
    alone = own.assign(person=own["id"])
    alone.to_csv("alone.csv", index=False)
    other = en.predict(f"checkpoints/{run}/fold1.pt", "alone.csv", progress=False)
    assert np.abs(other.probabilities - expected).max() > 3e-3


def test_folds_with_one_body_see_an_image_once(
    trained: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, _ = validation_of("relative", 0)
    first, second = sorted(set(own["person"]))[:2]
    corrected = own.assign(person=own["person"].replace({first: second}))
    corrected.to_csv("own.csv", index=False)
    folds = [en.predict(f"checkpoints/relative/fold{fold}.pt", "own.csv", progress=False) for fold in range(2)]
    own.to_csv("own.csv", index=False)
    built: list[str] = []
    build = engine.built_body
    monkeypatch.setattr(engine, "built_body", lambda model, *how: built.append(str(model.path)) or build(model, *how))
    seen: list[int] = []
    run = engine.Engine._run

    def stopped(self: engine.Engine, task: engine._Task, *more: object) -> int:
        seen.append(len(task.rows))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return run(self, task, *more)

    monkeypatch.setattr(engine.Engine, "_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        en.predict("relative", "own.csv", progress=False)
    corrected.to_csv("own.csv", index=False)  # the heads see the persons of the table as it is at the end
    found = en.predict("relative", "own.csv", progress=False)
    assert sum(seen) == len(own) + seen[2]  # it continued after the second chunk
    assert set(built) == {"checkpoints/relative/fold0.pt"}
    assert found.passes == 1
    mean = np.mean([one.probabilities for one in folds], axis=0)
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-6)


def test_blends_predict_images_and_persons(trained: Path, tmp_path: Path) -> None:
    en.blend(["relative", "attention"], progress=False).save("both")
    en.blend(["gated"], pool="mean", progress=False).save("people")
    own, _ = validation_of("relative", 0)
    own.to_csv("own.csv", index=False)
    found = en.predict("both", "own.csv", progress=False)
    parts = [en.predict(run, "own.csv", progress=False).probabilities for run in ("relative", "attention")]
    np.testing.assert_allclose(found.probabilities, np.mean(parts, axis=0), atol=1e-6)
    of_people = en.predict("people", "own.csv", per_person=True, progress=False)
    pooled = en.load(en.export("people", tmp_path / "people"), device="cpu")
    assert pooled.difference is not None
    assert pooled.difference <= 1e-6
    values = pooled.predict_proba(own["path"].tolist(), own["person"].tolist())
    np.testing.assert_allclose(values, of_people.probabilities, atol=3e-4)
    # Rules for people have an answer for each, also of a head that predicts images.
    rule = f"{found.classes[0]}=0.02"
    ruled = en.load(en.export("relative", tmp_path / "rules", threshold=rule, per_person=True), verify=False)
    decided = ruled.decide(own["path"].tolist(), own["person"].tolist())
    assert decided.persons.tolist() == sorted(set(own["person"]))
    np.testing.assert_array_equal(decided.labels, ruled.decide(own[["path", "person"]]).labels)
    means = [parts[0][(own["person"] == name).to_numpy()].mean(axis=0) for name in decided.persons]
    np.testing.assert_array_equal(decided.labels == found.classes[0], np.array(means)[:, 0] >= 0.02)
    np.testing.assert_array_equal(ruled.predict(own[["path", "person"]]), decided.labels)
    np.testing.assert_allclose(ruled.predict_frame(own[["path", "person"]]).iloc[:, 2:], np.array(means), atol=1e-6)
    gated = en.predict("gated", "own.csv", progress=False)
    assert of_people.ids.tolist() == sorted(set(own["person"]))
    columns = [gated.classes.index(name) for name in of_people.classes]
    for name, row in zip(of_people.ids.tolist(), of_people.probabilities, strict=True):
        images = gated.probabilities[(own["person"] == name).to_numpy()][:, columns]
        np.testing.assert_allclose(images, np.broadcast_to(row, images.shape), atol=1e-5)


def test_an_image_that_cannot_be_read_is_no_image_of_its_person(trained: Path) -> None:
    own, _ = validation_of("gated", 0)
    Path("broken.png").write_bytes(b"no image")
    own.to_csv("own.csv", index=False)
    broken = pd.concat([own.iloc[:5], own.iloc[:1].assign(id="broken", path=str(Path("broken.png").resolve()))])
    pd.concat([broken, own.iloc[5:]]).to_csv("broken.csv", index=False)
    found = en.predict("gated", "broken.csv", skip_unreadable=True, progress=False)
    np.testing.assert_allclose(
        found.probabilities, en.predict("gated", "own.csv", progress=False).probabilities, atol=1e-6
    )


def test_what_has_no_persons_is_refused_by_name(trained: Path) -> None:
    own, _ = validation_of("gated", 0)
    own.drop(columns=["person"]).to_csv("unnamed.csv", index=False)
    with pytest.raises(UsageError, match=r"gated predicts .* \(head attention-person\), and the persons .* not known"):
        en.predict("gated", "unnamed.csv", progress=False)
    with pytest.raises(UsageError, match="precision=bf16 is checked by the predicted classes"):
        en.predict("gated", "all.csv", precision="bf16", progress=False)
    one_image: dict[str, Callable[[], object]] = {
        "a heat map": lambda: en.explain("checkpoints/relative/fold0.pt", "all.csv", progress=False),
        "a soup": lambda: en.soup(["relative", "attention"], progress=False),
        "cascade=exact is not available": lambda: en.predict("relative", "all.csv", cascade="exact", progress=False),
        "cascade=exact is not available for relative": lambda: en.export("relative", "model", cascade="exact"),
        "this command": lambda: en.costs("relative"),
    }
    for what, call in one_image.items():
        with pytest.raises(UsageError, match=what):
            call()
    with pytest.raises(UsageError, match=r"this command sees one image at a time, and relative predicts an image from"):
        load_source("relative")


def test_an_exported_head_answers_as_predict(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "_AT_ONCE", 5)  # batches that cut a person
    own, _ = validation_of("relative", 0)
    own.to_csv("own.csv", index=False)
    expected = np.mean([by_hand("relative", fold, own) for fold in range(2)], axis=0)
    made = en.export("relative", tmp_path / "model", threshold="0=.02")
    assert made.to_dict()["person_head"] == "relative"
    model = en.load(made.path, device="cpu")
    assert model.difference is not None
    assert model.difference <= 1e-6
    paths, persons = own["path"].tolist(), own["person"].tolist()
    found = model.predict_proba(paths, persons)
    np.testing.assert_allclose(found, expected, atol=3e-4)
    predicted = en.predict(made.path, "own.csv", verify=True, progress=False)
    assert predicted.verification is not None
    assert predicted.verification.holds
    np.testing.assert_allclose(predicted.probabilities, found, atol=3e-4)
    # Neither the order of the images nor the names of the persons change an answer.
    order = np.argsort(persons, kind="stable")[::-1]
    names = [f"x{9 - int(name[-1])}{name}" for name in own["person"].iloc[order]]
    np.testing.assert_allclose(model.predict_proba([paths[at] for at in order], names), found[order], atol=3e-4)
    frame = model.predict_frame("own.csv")
    assert frame["id"].tolist() == own["id"].tolist()
    alone = model.predict_proba(paths[:3], [1, 2, 3])
    each = own.iloc[:3].assign(person=["1", "2", "3"])
    np.testing.assert_allclose(alone, np.mean([by_hand("relative", i, each) for i in range(2)], axis=0), atol=3e-4)
    assert np.abs(alone - found[:3]).max() > 3e-3
    for given, message in (
        (None, "and the persons of the images are not given"),
        (["a", ""], "no value in 1 rows"),
        (["a", "nan"], "not known"),
    ):
        with pytest.raises(UsageError, match=message):
            model.predict_proba(paths[:2], given)
    # The server has the answers for the images of a person, and their mean for the person.
    served = open_model("relative", "cpu", Path())
    assert served.needs.of_people
    assert served.describe()["person_head"] == "relative"
    rows = [at for at, name in enumerate(persons) if name == persons[0]]
    outputs = served.outputs([served.decode(Path(paths[at]).read_bytes(), 10**6) for at in rows])
    (answer,) = combine(served, [(outputs, Cells({}), "")])
    np.testing.assert_allclose([one.probabilities for one in answer.images], found[rows], atol=3e-4)
    np.testing.assert_allclose(answer.probabilities, found[rows].mean(axis=0), atol=3e-4)
    with pytest.raises(UsageError, match="the decision rules of relative are for images"):
        open_model(made.path, "cpu", Path())
    assert "predicts an image from all images of its person" in (tmp_path / "model/README.md").read_text()
    # An earlier version refuses the field, and this one a model without it.
    change(tmp_path / "model", "^persons = true\n", "")
    with pytest.raises(EnsembleError, match=r"'persons' is .*, and its models have the head relative"):
        en.load(tmp_path / "model")


def test_each_view_of_a_person_gives_one_prediction(trained: Path) -> None:
    turned = en.tta("gated", views="hflip", merge="mean", progress=False)
    table = pd.read_csv("all.csv", dtype=str)
    oof, merged = read_predictions(Path("runs/gated.oof.npy")), turned.oof
    rows = np.flatnonzero(oof.metadata.fold == 0)
    place, at = ({name: row for row, name in enumerate(ids)} for ids in (table["id"], merged.ids.tolist()))
    of_fold = table.iloc[[place[name] for name in oof.ids[rows]]]
    expected = (by_hand("gated", 0, of_fold) + by_hand("gated", 0, of_fold, mirrored=True)) / 2
    found = merged.probabilities[[at[name] for name in oof.ids[rows]]]
    np.testing.assert_allclose(found, expected, atol=3e-4)
    assert np.abs(found - oof.probabilities[rows]).max() > 3e-4
    assert turned.gain is not None
    assert turned.frame()["view"].tolist()[:3] == ["none", "hflip", "merged"]
    # A blend of the views predicts new people; an exported model with views is checked below.
    en.blend({"gated": turned}, progress=False).save("turned")
    own, _ = validation_of("gated", 1)
    own.to_csv("own.csv", index=False)
    parts = [by_hand("gated", fold, own, mirrored) for fold in range(2) for mirrored in (False, True)]
    predicted = en.predict("turned", "own.csv", progress=False)
    assert predicted.passes == 2  # both folds have one body, which sees each view once
    order = [load_checkpoint(Path("checkpoints/gated/fold0.pt")).classes.index(name) for name in predicted.classes]
    np.testing.assert_allclose(predicted.probabilities, np.mean(parts, axis=0)[:, order], atol=3e-4)


def test_missing_rows_of_a_view_are_predicted_from_whole_people(trained: Path) -> None:
    checkpoint = load_checkpoint(Path("checkpoints/gated/fold0.pt"))
    head = person_head(checkpoint)
    features = np.random.default_rng(0).normal(size=(6, head.inputs.in_features)).astype(np.float16)
    people, missing = np.array([3, 1, 3, 2, 1, 3]), np.array([True, False, False, False, True, False])
    asked: list[np.ndarray] = []
    found = logits_of_people(
        checkpoint, head, people, missing, lambda rows: asked.append(rows) or features[rows].astype(np.float32)
    )
    assert [one.tolist() for one in asked] == [[True, True, True, False, True, True]]
    np.testing.assert_allclose(found, person_logits(checkpoint, head, features, people)[missing], rtol=1e-5)
    table = en.read_table("all.csv").train
    folds = Path("runs/gated/folds.csv")
    check_people(table, np.arange(len(table)), folds, "gated")
    assert table.persons is not None
    persons = table.persons.copy()
    persons[7] = persons[-1]
    with pytest.raises(EnsembleError, match=r"gated predicts .* has other persons than the training"):
        check_people(replace(table, persons=persons), np.arange(len(table)), folds, "gated")
    # A person whose images are now of two is named by one of these images, whatever the numbers of the people are.
    index = np.flatnonzero(table.persons == np.unique(table.persons)[-1])
    persons[index] = [f"zz{at}" for at in range(len(index))]
    with pytest.raises(EnsembleError, match=f"e.g. of '{table.ids[index[0]]}'"):
        check_people(replace(table, persons=persons), index, folds, "gated")


def test_more_views_of_an_uncertain_image_are_of_its_whole_person(trained: Path, tmp_path: Path) -> None:
    own, _ = validation_of("relative", 1)
    own.to_csv("own.csv", index=False)
    source = load_source("checkpoints/relative/fold1.pt", with_rows=True, with_heads=True)
    plain, mirrored = (by_hand("relative", 1, own, mirror) for mirror in (False, True))
    top = np.sort(plain, axis=1)
    margin = top[:, -1] - top[:, -2]
    limit = float(np.sort(margin)[len(own) // 2 - 1 : len(own) // 2 + 1].mean())
    merge = Merge("mean", {"none": (0.5,), "hflip": (0.5,)}, threshold=limit)
    run = replace(source.runs[0], merge=merge)
    source = replace(source, runs=(run,))
    expected = np.where((margin < limit)[:, None], (plain + mirrored) / 2, plain)
    clear = np.abs(margin - limit) > 1e-3
    path = write_bundle(finished(build_bundle(source, Knowledge())), tmp_path / "model")
    model = en.load(path, device="cpu")
    assert model.difference is not None
    assert model.difference <= 1e-6
    found = model.predict_proba(own[["path", "person"]])
    np.testing.assert_allclose(found[clear], expected[clear], atol=3e-4)
    predicted = en.predict(path, "own.csv", progress=False)
    np.testing.assert_allclose(predicted.probabilities[clear], expected[clear], atol=3e-4)
    assert predicted.passes == 2
    # A file cannot name a head of another size than its weights.
    change(path, '"head" = "relative"', '"head" = "attention-person:8000"')
    with pytest.raises(EnsembleError, match="damaged"):
        en.load(path, verify=False)


@pytest.mark.parametrize(("run", "atol"), [("labels", 3e-4), ("years", 0.05)])
def test_labels_and_numbers_are_predicted_from_all_images_of_a_person(trained: Path, run: str, atol: float) -> None:
    oof = read_predictions(Path(f"runs/{run}.oof.npy"))
    table = pd.read_csv("columns.csv", dtype=str)
    rows = np.flatnonzero(oof.metadata.fold == 1)
    place = {name: row for row, name in enumerate(table["id"])}
    own = table.iloc[[place[name] for name in oof.ids[rows]]]
    expected = by_hand(run, 1, own)
    np.testing.assert_allclose(oof.probabilities[rows], expected, atol=atol)
    if run == "years":
        own.drop(columns=["hat", "beard", "years"]).to_csv("own.csv", index=False)
        found = en.predict("checkpoints/years/fold1.pt", "own.csv", per_person=True, progress=False)
        np.testing.assert_allclose(found.probabilities, expected, atol=atol)
        assert 30 < found.probabilities.mean() < 47  # in the unit of the table


@pytest.mark.parametrize("run", ["labels", "attention"])
def test_a_graph_of_the_images_of_one_person_is_the_model(trained: Path, run: str) -> None:
    path = f"checkpoints/{run}/fold1.pt"
    module = ModelModule(load_source(path, with_heads=True, with_rows=True)).eval()
    own, _ = validation_of("gated", 1)
    own.to_csv("own.csv", index=False)
    expected = en.predict(path, "own.csv", progress=False).probabilities
    settings = load_checkpoint(Path(path)).image_settings
    pixels = np.stack([decode_image(Path(one).read_bytes(), settings).pixels for one in own["path"]])
    persons = own["person"].to_numpy(str)

    class Session:
        """Stands in for onnxruntime: the module that the graph is written from."""

        def run(self, names: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
            with torch.inference_mode():
                return [module(torch.from_numpy(given["pixels"])).numpy()]

    np.testing.assert_allclose(_of_people(Session(), pixels, persons), expected, atol=3e-4)
