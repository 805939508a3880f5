"""The ONNX graph combines as the blend does, and is refused by name where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ensemble as en
from ensemble.cascade.record import Cascade
from ensemble.export import onnx_graph
from ensemble.export.onnx_pools import CombinationModule
from ensemble.learning.combination import Calibration, Combination
from ensemble.prediction.arrays import LoadedModels, numbered
from ensemble.prediction.combine import combine_members, member_key
from ensemble.prediction.source import PredictionSource, load_source
from folds.errors import UsageError
from folds.models.ordinal_head import OrdinalHead
from tests.conftest import Called
from tests.ensemble.prediction.test_predict import BLENDS, _blended, blended  # noqa: F401

RANDOM = np.random.default_rng(0)
WEIGHTS = np.array([0.7, 0.3])
EXTRA = {
    "power": Combination((), "power", WEIGHTS, power=3.0),
    "harmonic": Combination((), "power", WEIGHTS, power=-1.0),
    "power 0": Combination((), "power", WEIGHTS, power=0.0),
    "trimmed": Combination((), "trimmed", WEIGHTS, trim=0.2),
    "weighted median": Combination((), "median", WEIGHTS),
    "max": Combination((), "max"),
    "one run": Combination((), "geometric", np.array([1.0, 0.0])),
    "after": Combination((), "soft", WEIGHTS, after=Calibration(np.array(0.5), RANDOM.normal(size=18))),
    "before": Combination(
        (), "soft", before=Calibration(np.array([2.0, 0.7]).reshape(2, 1, 1), RANDOM.normal(size=(2, 1, 18)))
    ),
    "weights per class": Combination((), "soft", RANDOM.random((2, 18))),
    "hard weighted": Combination((), "hard", WEIGHTS),
    "grades": Combination((), "grades", WEIGHTS),
}


def members_of(source: PredictionSource, n: int = 200) -> dict[str, np.ndarray]:
    random, found = np.random.default_rng(1), {}
    for run in source.runs:
        for model in run.models:
            values = random.dirichlet(np.full(len(run.classes), 0.3), n).astype(np.float32)
            values[:5] = np.float32(1 / len(run.classes))  # ties of votes
            found[member_key(run, model)] = values
    return found


def graph_of(source: PredictionSource, members: dict[str, np.ndarray]) -> np.ndarray:
    return CombinationModule(source)([torch.from_numpy(one).double() for one in members.values()]).numpy()


@pytest.mark.parametrize("name", [*(name for name in BLENDS if name != "rank"), "joined", "mixed"])
def test_torch_combines_as_numpy_does(blended: Path, name: str) -> None:  # noqa: F811
    source = load_source(name)
    members = members_of(source)
    np.testing.assert_allclose(graph_of(source, members), combine_members(source, members, numbered(200)), atol=2e-6)


@pytest.mark.parametrize("name", EXTRA)
def test_every_pool_and_step_is_the_same_in_torch(blended: Path, name: str) -> None:  # noqa: F811
    source = load_source("soft")
    source = replace(source, combination=replace(EXTRA[name], runs=source.combination.runs))
    members = members_of(source)
    np.testing.assert_allclose(graph_of(source, members), combine_members(source, members, numbered(200)), atol=2e-6)


@pytest.mark.parametrize("name", ["hard", "weighted median", "trimmed", "stacking"])
def test_onnxruntime_combines_as_torch_does(blended: Path, name: str) -> None:  # noqa: F811
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    source = load_source(name if name in BLENDS else "soft")
    if name in EXTRA:
        source = replace(source, combination=replace(EXTRA[name], runs=source.combination.runs))
    members = members_of(source)
    values = [torch.from_numpy(one).double() for one in members.values()]
    rows = torch.export.Dim("rows")
    dynamic = {"members": [{0: rows} for _ in values]}
    names = [f"member{i}" for i in range(len(values))]
    content = onnx_graph.export_module(CombinationModule(source), (values,), dynamic, names)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for n in (200, 1):
        fed = {name: value.numpy()[:n] for name, value in zip(names, values, strict=True)}
        found = session.run(None, fed)[0]
        expected = combine_members(source, {key: one[:n] for key, one in members.items()}, numbered(n))
        np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("link", ["corn", "cumulative"])
def test_onnxruntime_has_the_probabilities_of_grades(link: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    head, features = OrdinalHead(6, 5, link).eval(), torch.randn(7, 6, generator=torch.Generator().manual_seed(0)) * 90
    rows = {"features": {0: torch.export.Dim("rows")}}
    session = onnxruntime.InferenceSession(onnx_graph.export_module(head, (features,), rows, ["features"]))
    with torch.no_grad():
        expected = head(features).numpy()  # outputs of 50 and more: logarithms of tiny probabilities are finite
    np.testing.assert_allclose(session.run(None, {"features": features.numpy()})[0], expected, rtol=1e-5, atol=1e-5)


def test_the_graph_predicts_pixels_as_the_model(
    blended: Path,  # noqa: F811
    tmp_path: Path,
    call: Callable[..., Called],
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    source = load_source("views")
    # One fold of each run, because torch needs seconds to export a network.
    plain = tuple(replace(run, models=run.models[:1], merge=replace(run.merge, threshold=None)) for run in source.runs)
    from ensemble.export import write

    bundle = write.build_bundle(replace(source, runs=plain), write.Knowledge())
    content, timed, note = onnx_graph.build_graph(bundle)
    write.write_bundle(write.finished(bundle, content, note), tmp_path / "model")
    assert timed["difference"] <= 1e-4
    assert timed["milliseconds"] > 0
    loaded = en.load(tmp_path / "model")
    session = onnxruntime.InferenceSession(str(tmp_path / "model/model.onnx"), providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(2).integers(0, 256, (7, 32, 32, 3), np.uint8)
    found = session.run(None, {"pixels": pixels})[0]
    np.testing.assert_allclose(found, loaded.predict_proba(pixels), atol=1e-4)
    assert "model.onnx" in (tmp_path / "model/README.md").read_text()


def test_what_no_graph_can_hold_is_refused_by_name(blended: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(UsageError, match="rank voting compares all images"):
        en.export("rank", tmp_path / "a", onnx=True)
    with pytest.raises(UsageError, match="run 'test_vit' uses more views only for uncertain images"):
        en.export("views", tmp_path / "b", onnx=True)
    source = load_source("soft")
    large = replace(source.runs[0].models[0].checkpoint, images={**source.models[0].checkpoint.images, "height": 48})
    models = (replace(source.runs[0].models[0], checkpoint=large), *source.runs[0].models[1:])
    other = replace(source, runs=(replace(source.runs[0], models=models), *source.runs[1:]))
    with pytest.raises(UsageError, match="read images in 2 ways"):
        onnx_graph.check_possible(other)
    with pytest.raises(UsageError, match="a cascade cannot be an ONNX graph"):
        onnx_graph.check_possible(replace(source, cascade=Cascade()))
    assert not list(tmp_path.iterdir())


def test_a_graph_that_differs_is_not_kept(
    blended: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx_graph, "_exported", lambda module, settings: b"")
    monkeypatch.setattr(onnx_graph, "_session", lambda runtime, content: None)
    monkeypatch.setattr(onnx_graph, "_run", lambda session, pixels: np.full((len(pixels), 18), 0.5, np.float32))
    with pytest.raises(en.EnsembleError, match="differ from those of torch"):
        en.export("soft", tmp_path / "model", onnx=True)
    assert not list(tmp_path.iterdir())


def test_the_module_reads_pixels_as_the_models_do(blended: Path) -> None:  # noqa: F811
    source = load_source("test_resnet")
    models = LoadedModels(source, "cpu")
    pixels = np.random.default_rng(3).integers(0, 256, (4, 32, 32, 3), np.uint8)
    with torch.inference_mode():
        found = onnx_graph.ModelModule(source)(torch.from_numpy(pixels)).numpy()
    members = models.members({models.settings[0]: pixels})
    np.testing.assert_allclose(found, combine_members(source, members, numbered(4)), atol=1e-5)
