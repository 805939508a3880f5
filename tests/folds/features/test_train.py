"""Heads on frozen features from the plan to the files: the same files as fine-tuning, by the same checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch

from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.errors import EnsembleError, UsageError
from folds.execution import local
from folds.features import embed
from folds.features.gradient_head import _Trainer, check_labels_of_people, labels_of_people
from folds.features.train import train_job
from folds.models.checkpoint import hash_ids, load_checkpoint
from folds.models.heads import build_head
from folds.models.inference import PixelSource, predict_logits
from folds.optim.column_losses import CellCounts
from folds.predictions.files import read_sidecar
from folds.predictions.predictions import read_predictions
from folds.runs.execute import lock_runs, train
from folds.runs.open import prepare_jobs
from folds.runs.plan import Plan, build_plan
from folds.training.criterion import SoftTargets
from folds.training.job import Job, job_from_dict
from folds.training.trainer import train_fold
from folds.utils.numeric import softmax
from tests.conftest import Logged, start_over


class InProcess:
    """Stands in for a worker process: the same job, without the start-up."""

    def __init__(self, threads: int, variables: dict[str, str]) -> None:
        self.threads = threads

    def run(self, job: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        return train_job(job_from_dict(json.loads(json.dumps(job))), report)

    def stop(self) -> None:
        pass


@pytest.fixture
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a `test_resnet`, which stand for pretrained ones."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "resnet.pt"
    torch.save(timm.create_model("test_resnet", num_classes=4).state_dict(), path)
    return path


@pytest.fixture
def plan(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path) -> Callable[..., Plan]:
    """Makes a plan of heads on a tiny backbone in a folder of its own; jobs run in this process, one at a time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "Worker", InProcess)

    def make(arch: str = "test_resnet", folds: list[int] | None = None, **recipe: Any) -> Plan:
        init = None if "+" in arch else recipe.pop("init", weights)
        values = {"features": True, "epochs": 2, "img_size": "32", "init": init} | recipe
        values |= {} if init else {"pretrained": False}
        settings = Settings(data=drawn, arch=(arch,), k=2, name="head")
        return build_plan(settings, Recipe(**values), folds=folds)

    return make


def run(made: Plan, **how: Any) -> list[Job]:
    with lock_runs(made):
        outcomes = list(train(made, prepare_jobs(made, **how)))
    assert [one.error for one in outcomes] == [None] * len(outcomes)
    return [one.job for one in outcomes]


def predicted(fold: int) -> np.ndarray:
    """The probabilities of the validation part by the model in the checkpoint, from the pixels."""
    checkpoint = load_checkpoint(Path(f"checkpoints/head/fold{fold}.pt"))
    sidecar = read_sidecar(Path("runs/head.oof.npy"))
    assert sidecar is not None
    place = {name: i for i, name in enumerate(hash_ids(sidecar.rows.ids.tolist()))}
    rows = np.array(sorted(place[one] for one in checkpoint.validation_hashes))
    pixels = next(one for one in map(np.load, Path(".ensemble/images").glob("*.npy")) if len(one) == len(place))
    network, channels_last = checkpoint.build_on("cpu")
    architecture = checkpoint.architecture
    logits = predict_logits(
        network,
        PixelSource(pixels, "cpu"),
        rows,
        architecture.mean,
        architecture.std,
        device="cpu",
        channels_last=channels_last,
        size=(architecture.height, architecture.width),
    )
    return softmax(logits[0])


@pytest.mark.parametrize(
    ("arch", "recipe"),
    [
        ("test_resnet", {}),
        ("test_resnet", {"target": "mask+gender+age", "sampler": "balanced", "loss": "wce", "l2": 0.1}),
        ("test_resnet", {"head": "mlp", "hidden": 16, "loss": "focal", "normalise": "data", "cache_scale": 1.5}),
        ("test_resnet+test_vit", {"head": "linear", "target": "mask", "feature_views": "plain"}),
    ],
)
def test_a_checkpoint_predicts_what_the_run_predicted(
    plan: Callable[..., Plan], arch: str, recipe: dict[str, Any]
) -> None:
    run(plan(arch, **recipe))
    for fold in range(2):
        np.testing.assert_allclose(predicted(fold), np.load(f"runs/head/fold{fold}/oof.npy"), atol=2e-3)
    assert len(np.load("runs/head.fold1.test.npy")) == 42
    done = json.loads(Path("runs/head/fold0/done.json").read_text())
    assert done["head"] == recipe.get("head", "logistic")


def test_the_choice_of_the_strength_is_recorded(plan: Callable[..., Plan]) -> None:
    run(plan(target="mask+gender"[:4]))
    done = json.loads(Path("runs/head/fold0/done.json").read_text())
    choice = done["choice"]["mask"]
    assert choice["inner_folds"] == 5
    assert choice["C"] == pytest.approx(1 / (choice["l2"] * done["images"]))
    lines = Path("runs/head/fold0/selection.csv").read_text().splitlines()
    losses = {float(one.split(",")[1]): float(one.split(",")[2]) for one in lines[1:]}
    assert choice["l2"] == min(losses, key=lambda one: losses[one])


def test_the_same_bytes_after_a_stop_and_from_one_embedding(
    plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(plan())
    names = [*Path("runs").glob("*.npy"), *Path("checkpoints/head").glob("*.pt")]
    expected = {path: path.read_bytes() for path in names}
    start_over()
    monkeypatch.setattr(embed._Engine, "_fill", lambda *arguments: pytest.fail("it was computed again"))
    run(plan(folds=[1]))
    run(plan(), resume=True)
    assert {path: path.read_bytes() for path in expected} == expected
    assert len(expected) == 5


def test_features_depend_on_no_number_of_cores(plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    made, found = plan(folds=[0]), []
    with lock_runs(made):
        jobs = prepare_jobs(made)
        for cores in (1, 3):
            monkeypatch.setattr(embed, "cpu_count", lambda cores=cores: cores)
            embed.embed_jobs(jobs, ["cpu"])
            found.append({path.name: path.read_bytes() for path in Path(".ensemble/features").glob("*.npy")})
            shutil.rmtree(".ensemble/features")
    assert found[0] == found[1]
    assert len(found[0]) == 2


def test_attention_needs_all_images_of_a_person(plan: Callable[..., Plan], logged: Logged) -> None:
    run(plan(head="attention"))
    assert Path("runs/head.fold0.test.npy").is_file()
    with pytest.raises(EnsembleError, match="from all images of its person"):
        load_checkpoint(Path("checkpoints/head/fold0.pt")).build()


def test_gated_attention_writes_one_prediction_per_person(plan: Callable[..., Plan]) -> None:
    made = plan(head="attention-person", target="gender")
    assert any("one prediction per person, written for each" in line for line in made.warnings)
    run(made)
    found = read_predictions(Path("runs/head.oof.npy"))
    assert found.persons is not None
    for person in set(found.persons.tolist()):
        own = found.probabilities[found.persons == person]
        np.testing.assert_allclose(own, np.broadcast_to(own[0], own.shape), atol=1e-6)
    assert len(np.unique(found.probabilities.round(5), axis=0)) > 3
    with pytest.raises(UsageError, match="images of a person have several labels"):
        check_labels_of_people(np.array([0, 1, 1]), np.array([0, 0, 1]))
    nan = np.nan
    images = np.array([[0, 1], [nan, 0], [1, nan], [0, nan]], np.float32)
    people = np.array([1, 0, 1, 0])
    labels = labels_of_people(images, people, "multilabel")
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, [[1, 1], [0, 0], [1, 1], [0, 0]])
    np.testing.assert_array_equal(labels_of_people(images, people, "regression"), [[0.5, 1], [0, 0], [0.5, 1], [0, 0]])
    unknown = labels_of_people(images, np.arange(4), "regression")
    np.testing.assert_array_equal(unknown, images)
    with pytest.raises(EnsembleError, match="from all images of its person"):
        load_checkpoint(Path("checkpoints/head/fold0.pt")).build()


def test_one_prediction_per_person_learns_the_labels_of_the_person_once() -> None:
    labels = np.array([[0, 1], [np.nan, 0], [1, np.nan], [0, 0], [1, 1]], np.float32)
    rows, persons = np.arange(5), np.array(["b", "a", "b", "a", "left out"])
    context = SimpleNamespace(
        training=rows[:4],
        training_labels=labels,
        target=SimpleNamespace(task="multilabel", has_columns=True),
        soft_targets=SoftTargets(1.0, 1.0),
        soft_labels=np.array([[0.2, 0.6], [np.nan, 0], [0.7, 0.1], [np.nan, 0.25], [1, 1]], np.float32),
        schedule=None,
        recipe=SimpleNamespace(opt="sgd", weight_decay=0.0, opt_args={}, batch_size=64),
        epochs=SimpleNamespace(rows=lambda epoch: np.array([2, 3, 0, 1])),
    )
    torch.manual_seed(0)
    features = torch.randn(4, 6)
    head = build_head("attention-person:4", 6, 2).eval()
    trainer = _Trainer(context, features.numpy(), 1, persons, head)  # type: ignore[arg-type]
    ((count, loss_of),) = trainer._batches(0, np.zeros(4, np.int64))
    assert count == 4
    seen: list[torch.Tensor] = []
    loss_of(lambda outputs, targets: seen.extend([outputs, targets]) or outputs.sum())
    # Person b, then a, each once, also in soft labels: of any image, and so the largest.
    labels, soft = seen[1].numpy()[:, :2], seen[1].numpy()[:, 2:]
    assert labels.tolist() == [[1, 1], [0, 0]]
    np.testing.assert_allclose(soft, [[0.7, 0.6], [np.nan, 0.25]], rtol=1e-6)
    # What a person knows counts once: of the images, only three quarters of the labels are known.
    assert isinstance(trainer.counts, CellCounts)
    assert (trainer.counts.images, trainer.counts.known_share, trainer.counts.soft_share) == (2, 1.0, 0.75)
    assert trainer.counts.positive.tolist() == [1, 1]
    expected = [head(features[[0, 2]])[0], head(features[[1, 3]])[0]]
    assert torch.allclose(seen[0], torch.stack(expected), atol=1e-6)


def test_features_relative_to_the_person_are_learned_and_predicted(plan: Callable[..., Plan]) -> None:
    run(plan(head="relative"))
    sidecar = read_sidecar(Path("runs/head.oof.npy"))
    assert sidecar is not None
    assert Path("runs/head.fold0.test.npy").is_file()
    weights = load_checkpoint(Path("checkpoints/head/fold0.pt")).weights
    relative = next(value for name, value in weights.items() if name.endswith("output.weight"))
    assert np.abs(np.asarray(relative)).max() > 0
    with pytest.raises(EnsembleError, match="from all images of its person"):
        load_checkpoint(Path("checkpoints/head/fold0.pt")).build()


def test_changed_weights_are_noticed(plan: Callable[..., Plan], weights: Path) -> None:
    made = plan(folds=[0])
    with lock_runs(made):
        (job,) = embed.embed_jobs(prepare_jobs(made), ["cpu"])
    torch.save(timm.create_model("test_resnet", num_classes=4).state_dict(), weights)
    with pytest.raises(EnsembleError, match="weights of the frozen model changed"):
        train_job(job)
    with pytest.raises(EnsembleError, match="are trained by"):
        train_fold(job)


def test_doubtful_settings_are_said(plan: Callable[..., Plan]) -> None:
    made = plan(init=None, mixup=0.2, lr=0.01)
    assert any("random weights" in line for line in made.warnings)
    assert any("`lr`" in line and "`mixup`" in line and "plain, hflip are used" in line for line in made.warnings)
    assert not [line for line in plan(head="mlp", epochs=3, lr=0.01).warnings if "not used" in line]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"keep": "best"}, "keeps its last weights"),
        ({"loss": "focal"}, "fitted with ce or wce"),
        ({"hidden": 5}, "is for head=mlp"),
        ({"features": None, "head": "mlp"}, "needs features"),
        ({"head": "cosine:16"}, "a cosine head belongs to a model that is trained"),
        ({"head": "round"}, "expected logistic, linear, mlp, attention, attention-person, relative"),
        ({"weight_column": "w"}, "images have equal weights"),
        ({"pseudo": "run", "head": "linear"}, "only images of the table"),
        ({"average_last": 2}, "keeps its last weights"),
        ({"drop_path": 0.1}, "the frozen model is not trained"),
        ({"soft_columns": "a,b"}, "takes no soft_columns"),
        ({"feature_views": "plain,rot90"}, "rot90"),
    ],
)
def test_contradicting_settings_are_refused(recipe: dict[str, Any], message: str) -> None:
    from folds.config.checks import check

    with pytest.raises(UsageError, match=message):
        check(Settings(), Recipe(**{"features": True} | recipe))


def test_joined_backbones_keep_their_normalization(plan: Callable[..., Plan]) -> None:
    with pytest.raises(UsageError, match="normalized as their model was"):
        plan("test_resnet+test_vit", normalise="data")
    with pytest.raises(UsageError, match="are not fine-tuned"):
        plan("test_resnet+test_vit", features=None)
    with pytest.raises(UsageError, match="images of one size"):
        plan("resnet18+test_vit", img_size=None)


def test_a_model_with_two_classifiers_is_refused_by_name(plan: Callable[..., Plan]) -> None:
    with pytest.raises(UsageError, match="that of deit_tiny_distilled_patch16_224 is 2 of them"):
        plan("deit_tiny_distilled_patch16_224", init=None, img_size="224")
