"""A cascade skips models without changing decisions (exact), or within a tolerance, and says what it cannot do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ensemble as en
from ensemble.blending.output import write_blend
from ensemble.cascade.record import Cascade, Step
from ensemble.prediction import engine
from ensemble.prediction import predict as module
from ensemble.prediction.cascade import (
    cascade_notes,
    exact_cascade,
    load_source_evidence,
    pass_costs,
    run_models,
    with_cascade,
)
from ensemble.prediction.decisions import DecisionOptions
from ensemble.prediction.face import predict_images
from ensemble.prediction.predict import predict_table
from ensemble.prediction.source import load_source
from folds.errors import EnsembleError, UsageError
from tests.conftest import Called
from tests.ensemble.prediction.test_predict import TEST, _blended, blended

__all__ = ["_blended", "blended"]  # fixtures


@pytest.mark.parametrize(
    "name", ["soft", "hard", "weighted", "geometric", "median", "per_class", "stacking", "bias", "calibrated", "views"]
)
def test_exact_skips_never_change_a_decision(blended: Path, name: str) -> None:
    full = en.predict(name, TEST, progress=False)
    found = en.predict(name, TEST, cascade="exact", progress=False)
    assert found.labels.tolist() == full.labels.tolist()
    assert found.passes <= full.passes
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    assert found.source.cascade is not None


def test_skipped_models_are_not_run(blended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = load_source("soft")
    cascade = Cascade((Step({"test_resnet": 1}, 1, 0.0),), exact=False, costs=pass_costs(source))
    ran: list[tuple[str, int]] = []
    logits = engine.Engine._logits

    def counted(self, task, network, pixels, rows, views):
        ran.append((task.model.checkpoint.run, len(rows)))
        return logits(self, task, network, pixels, rows, views)

    monkeypatch.setattr(engine.Engine, "_logits", counted)
    found = en.predict("soft", TEST, cascade="exact", progress=False)
    assert sum(rows for _, rows in ran) == round(found.passes * len(found))
    ran.clear()
    from ensemble.prediction.inputs import images_table

    table = images_table(TEST, source)
    one = predict_table(with_cascade(source, cascade), table, work=Path(".ensemble/predict"), device="cpu")
    assert ran == [("test_resnet", len(table))]
    assert one.passes == 1
    alone = en.predict("checkpoints/test_resnet/fold0.pt", TEST, progress=False)
    np.testing.assert_allclose(one.probabilities, alone.probabilities, atol=1e-6)


def test_a_cascade_of_all_models_gives_what_the_blend_gives(blended: Path) -> None:
    for name in ("views", "calibrated", "stacking"):
        source = load_source(name)
        from ensemble.prediction.inputs import images_table

        table = images_table(TEST, source)
        cascade = Cascade((), exact=False)
        found = predict_table(with_cascade(source, cascade), table, work=Path(".ensemble/predict"), device="cpu")
        before = en.read_predictions(f"runs/blends/{name}/test.npy")
        np.testing.assert_allclose(found.probabilities, before.probabilities, atol=1e-5)


def test_a_fitted_cascade_is_scored_nested(blended: Path) -> None:
    for name in ("views", "calibrated"):
        full = en.predict(name, TEST, progress=False)
        found = en.predict(name, TEST, cascade=0.05, progress=False)
        assert found.cascade is not None
        blend = json.loads(Path(f"runs/blends/{name}/blend.json").read_text())
        expected = blend["blend"]["oof"]["score"]["macro_f1"]["score"]
        assert found.cascade.score.full.value == pytest.approx(expected, abs=1e-6)  # the nested score of the blend
        assert found.cascade.score.loss <= 0.05
        assert found.cascade.score.images == len(found)
        assert found.passes < full.passes
        record = found.to_dict()["cascade"]
        assert record["tolerance"] == 0.05
        assert record["score"]["all_passes"] <= full.passes or name == "views"  # without runs of weight 0
        assert "forward passes per image" in str(found.display_table().text(100))


def test_a_run_can_be_cascaded_over_its_folds(blended: Path) -> None:
    found = en.predict("test_vit", TEST, cascade=0.2, progress=False)
    assert found.passes < 3
    assert {name for step in found.source.cascade.steps for name in step.views} <= {"test_vit"}  # type: ignore[union-attr]


def test_what_cannot_be_cascaded_is_refused_before_images_are_read(blended: Path) -> None:
    for what, expected in (
        ("rank", "rank voting compares"),
        ("joined", "joins the runs of several attributes"),
        ("checkpoints/test_vit/fold1.pt", "found one checkpoint"),
    ):
        with pytest.raises(UsageError, match=expected):
            en.predict(what, "no-such-folder", cascade=0.01, progress=False)


def test_exact_skips_of_one_pass_are_refused_as_well(blended: Path) -> None:
    with pytest.raises(UsageError, match="found one checkpoint"):
        en.predict("checkpoints/test_vit/fold1.pt", "no-such-folder", cascade="exact", progress=False)
    with pytest.raises(UsageError, match="makes one pass per image"):
        en.predict("test_vit", "no-such-folder", fold=[1], cascade="exact", progress=False)


def test_an_exported_cascade_states_its_nested_score(blended: Path, tmp_path: Path) -> None:
    fitted = en.predict("views", TEST, cascade=0.05, progress=False)
    assert fitted.cascade is not None
    assert fitted.cascade.cascade.steps
    made = en.export("views", tmp_path / "model", cascade=0.05)
    found = en.predict(tmp_path / "model", TEST, progress=False)
    assert found.cascade is None
    score, change = fitted.cascade.score.cascade, fitted.cascade.score.difference.difference
    for text in (fitted.display_table().text(300), found.display_table().text(300), made.display_table().text(300)):
        assert f"nested macro_f1 {score.text()}; compared with all models {change.signed_text(4)}" in text
        assert "the decisions are those of all models" not in text
    record = found.to_dict()["cascade"]["score"]
    assert record["score"] == pytest.approx(score.value, abs=1e-6)
    assert record["difference"] == pytest.approx(change.value, abs=1e-6)
    with pytest.raises(UsageError, match="the cascade of views and decision rules"):
        en.predict(tmp_path / "model", TEST, threshold=f"{found.classes[0]}=.2", progress=False)
    with pytest.raises(UsageError, match="the cascade of views and per_person"):
        en.predict(tmp_path / "model", TEST, per_person=True, progress=False)
    with pytest.raises(UsageError, match="the cascade of views and decision rules"):
        en.load(tmp_path / "model").predict(TEST, threshold={found.classes[0]: 0.2})
    with pytest.raises(UsageError, match="the cascade of views and per_person"):
        found.by_person()
    assert f"nested macro_f1 {score.text()}" in en.load(tmp_path / "model").display_table().text(300)
    full = en.predict(tmp_path / "model", TEST, cascade="off", verify=True, progress=False)
    assert full.source.cascade is None
    assert full.passes > found.passes
    np.testing.assert_allclose(full.probabilities, en.predict("views", TEST, progress=False).probabilities, atol=1e-6)


def test_a_lossy_cascade_without_a_score_does_not_say_it_is_exact(blended: Path) -> None:
    steps = (Step({"test_resnet": 1}, 1, 0.3),)
    source = load_source("soft")
    lossy = with_cascade(source, Cascade(steps, tolerance=0.01))
    assert "may lose up to 0.01 of the macro_f1" in cascade_notes(lossy, None, 2.0)[1]
    exact = with_cascade(source, Cascade((), tolerance=0.01))
    assert "the decisions are those of all models" in cascade_notes(exact, None, 2.0)[1]


def test_a_blend_finds_its_files_from_another_folder(
    blended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It records them relative to the folder it was made from."""
    for name in ("runs", "checkpoints", "people"):
        shutil.copytree(blended / name, tmp_path / "made" / name)
    monkeypatch.chdir(tmp_path)
    files = sorted(Path("made/runs").glob("test_*.npy"))
    blend = en.blend(files, method="soft")
    write_blend(blend, Path("made/runs/blends/away"))
    inputs = json.loads(Path("made/runs/blends/away/blend.json").read_text())["inputs"]
    assert inputs[0]["path"].startswith("made/runs/")
    monkeypatch.chdir(tmp_path / "made")
    assert en.predict("away", TEST, cascade=0.1, progress=False).cascade is not None
    monkeypatch.chdir(tmp_path)
    loaded = load_source_evidence(load_source("made/runs/blends/away"), Path())
    assert len(loaded.evidence.labels) == 210
    Path("made/runs/test_vit.oof.npy").unlink()
    with pytest.raises(EnsembleError, match=r"test_vit\.oof\.npy does not exist"):
        load_source_evidence(load_source("made/runs/blends/away"), Path())


def test_a_complete_work_folder_is_not_continued(blended: Path, logged) -> None:
    first = predict_images("soft", TEST, DecisionOptions(), cascade="exact", keep_work=True, progress=False)
    again = en.predict("soft", TEST, cascade="exact", progress=False)
    assert again.labels.tolist() == first.labels.tolist()
    assert not [line for line in logged.notes if "continuing" in line]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"cascade": "fast"}, "expected exact, or the loss"),
        ({"cascade": "exact", "verify": True}, "verify compares the probabilities of all models"),
        ({"cascade": 0.1, "abstain": 0.2}, r"cascade=0\.1 and decision rules .* exclude each other"),
        ({"cascade": "exact", "sets": 0.9}, "exclude each other"),
        ({"cascade": "exact", "threshold": "no-class=1"}, "exclude each other"),
        ({"cascade": "exact", "per_person": True}, "per_person exclude each other"),
        ({"cascade": "off", "cost": "test_resnet=1"}, "cost orders the models of a cascade"),
        ({"cascade": -0.1}, "from 0 to 1"),
        ({"cascade": 2}, "from 0 to 1"),
        ({"cascade": float("nan")}, "from 0 to 1"),
        ({"cost": "test_resnet=1"}, "cost orders the models of a cascade"),
        ({"cascade": 0.1, "verify": True}, "verify compares the probabilities of all models"),
        ({"cascade": 0.1, "cost": "test_resnet=1"}, "no value for test_vit"),
    ],
)
def test_options_that_do_not_fit_are_refused(blended: Path, options: dict, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        en.predict("soft", TEST, progress=False, **options)


def test_files_that_changed_or_are_gone_are_named(blended: Path, tmp_path: Path) -> None:
    for name in ("runs", "checkpoints"):
        shutil.copytree(blended / name, tmp_path / name)
    oof = tmp_path / "runs/test_vit.oof.npy"
    values = np.load(oof)
    np.save(oof, values[:, ::-1])
    with pytest.raises(EnsembleError, match=r"test_vit\.oof\.npy has changed since the blend was made"):
        en.predict("soft", TEST, cascade=0.1, root=tmp_path, progress=False)
    oof.unlink()
    with pytest.raises(EnsembleError, match=r"test_vit\.oof\.npy does not exist"):
        en.predict("soft", TEST, cascade=0.1, root=tmp_path, progress=False)
    found = en.predict("soft", TEST, cascade="exact", root=tmp_path, progress=False)  # needs no predictions
    assert len(found) == 42


def test_a_cascade_of_other_runs_is_refused(blended: Path) -> None:
    with pytest.raises(EnsembleError, match="no run of the blend"):
        with_cascade(load_source("soft"), Cascade((Step({"other": 1}, 1, 0.5),)))


def test_costs_are_those_of_the_networks_or_given(blended: Path) -> None:
    source = load_source("soft")
    assert pass_costs(source)["test_resnet"] > pass_costs(source)["test_vit"] > 0
    assert exact_cascade(source, {"test_vit": 1.0, "test_resnet": 9.0}).costs["test_resnet"] == 9
    assert [run.name for run in run_models(source)] == ["test_resnet", "test_vit"]


def test_an_interrupted_cascade_continues(blended: Path, monkeypatch: pytest.MonkeyPatch, logged) -> None:
    whole = en.predict("soft", TEST, cascade="exact", progress=False)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(module, "BATCH", 16)
    fill, calls = engine.fill_cascade, []

    def interrupted(source, rows, logits, start, array):
        calls.append(start)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fill(source, rows, logits, start, array)

    monkeypatch.setattr(engine, "fill_cascade", interrupted)
    with pytest.raises(KeyboardInterrupt):
        en.predict("soft", TEST, cascade="exact", progress=False)
    again = en.predict("soft", TEST, cascade="exact", progress=False)
    assert calls == [0, 16, 16, 32]
    assert again.labels.tolist() == whole.labels.tolist()
    assert "continuing with image 17 of 42" in logged.notes


def test_the_command_predicts_with_a_cascade(blended: Path, tmp_path: Path, call: Callable[..., Called]) -> None:
    done = call("predict", "soft", TEST, "--cascade", "exact", "-o", tmp_path / "p.npy")
    assert done.code == 0, done.err
    assert "of 6 forward passes per image" in done.out
    done = call("predict", "soft", TEST, "--cascade", "often", "-o", tmp_path / "q.npy")
    assert done.code == 2
    assert "--cascade" in done.err
