"""Every setting of the four teams, one at a time, through a real training of one fold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.errors import UsageError
from folds.models.checkpoint import hash_ids, hash_labels, load_checkpoint
from folds.models.model_names import resolve
from folds.runs.open import prepare_jobs
from folds.runs.plan import build_plan
from folds.training import loop as fitting
from folds.training.job import Job
from folds.training.trainer import train_fold


@pytest.fixture
def job(drawn: Path, elsewhere: Path) -> Callable[..., Job]:
    """Makes fold 0 of a tiny run in a folder of its own."""

    def make(**recipe: Any) -> Job:
        values = {"epochs": 1, "img_size": "32", "pretrained": False} | recipe
        return prepare_jobs(build_plan(Settings(data=drawn, arch=("test_resnet",), k=3), Recipe(**values), folds=[0]))[
            0
        ]

    return make


@pytest.mark.parametrize(
    "setting",
    [
        *(
            {"loss": loss}
            for loss in (
                "ce",
                "wce",
                "wce:weights=effective",
                "focal",
                "ldam",
                "ldam:margin=1:drw=0",
                "bce",
                "f1",
                "focal+f1",
            )
        ),
        {"label_smoothing": 0.0},
        *({"sampler": sampler} for sampler in ("balanced", "sqrt", "power:.7")),
        {"sample_counts": {"3": 5, "17": 30}},  # down and up
        {"per_person": {"mask=wear": 1}},
        {"per_person": {"mask=wear": 1}, "per_person_fixed": True},
        *({"augment": preset} for preset in ("none", "light", "standard", "strong")),
        {"erase": 0.5},
        {"mixup": 0.2},
        {"cutmix": 1.0},
        {"mixup": 0.2, "cutmix": 1.0, "loss": "focal", "target": "mask+gender+age"},
        {"augment_more": {"mask=incorrect": "strong", "17": "strong"}},
        {"transform": "torchvision.transforms.v2.functional:vertical_flip"},
        *({"target": target} for target in ("mask", "gender", "age", "mask+gender+age")),
        {"target": "mask+gender+age", "head_loss": {"age": "ce:smoothing=.1+focal", "mask": "wce"}},
        {"rebin": {"age": {"column": "years", "cuts": [30, 58]}}},
        *({"opt": opt} for opt in ("adam", "sgd", "lion")),
        *({"schedule": schedule, "warmup": 0.0} for schedule in ("onecycle", "cyclic", "step", "plateau", "constant")),
        {"warmup": 0.0, "layer_decay": 0.7, "clip": 0.0},
        {"accumulate": 4},
        {"grad_checkpointing": True},
        {"freeze": 1, "epochs": 2},
        {"normalise": "imagenet"},
        {"normalise": "data"},
        {"fit": "crop:40"},
        {"fit": "letterbox"},
    ],
    ids=lambda setting: " ".join(f"{key}={value}" for key, value in setting.items()),
)
def test_a_setting_trains_and_changes_what_comes_out(
    job: Callable[..., Job], plain: bytes, setting: dict[str, Any]
) -> None:
    one = job(**setting)
    train_fold(one)
    predicted = np.load(one.fold_dir / "oof.npy")
    assert np.isfinite(predicted).all()
    np.testing.assert_allclose(predicted.sum(1), 1, atol=1e-5)
    same = setting in ({"loss": "ce"}, {"augment": "standard"})
    assert (predicted.tobytes() == plain) == same


@pytest.fixture(scope="module")
def plain(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the defaults predict."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("plain"))
        plan = build_plan(
            Settings(data=drawn, arch=("test_resnet",), k=3),
            Recipe(epochs=1, img_size="32", pretrained=False),
            folds=[0],
        )
        one = prepare_jobs(plan)[0]
        train_fold(one)
        return np.load(one.fold_dir / "oof.npy").tobytes()


def test_the_mean_of_the_data_is_that_of_the_training_part_alone(job: Callable[..., Job]) -> None:
    one = job(normalise="data")
    train_fold(one)
    checkpoint = load_checkpoint(Path(one.checkpoint))
    plan = build_plan(
        Settings(data=Path(one.data["data"]), arch=("test_resnet",), k=3),
        Recipe(img_size="32", pretrained=False),
        folds=[0],
    )
    pixels = np.load(one.pixels)[plan.assignment.training_index(0)] / 255
    np.testing.assert_allclose(checkpoint.architecture.mean, pixels.mean((0, 1, 2)), atol=1e-9)
    np.testing.assert_allclose(checkpoint.architecture.std, pixels.std((0, 1, 2)), atol=1e-9)


def test_a_fold_without_hope_is_stopped_and_marked(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    judge = fitting.validation_scores
    monkeypatch.setattr(
        fitting, "validation_scores", lambda *given: judge(*given) | {"validation_macro_f1": next(scores)}
    )
    done = train_fold(job(epochs=8, patience=2))
    assert (done["epochs"], done["optimistic"]) == (4, True)


def test_a_fold_that_is_not_stopped_is_not_marked(job: Callable[..., Job]) -> None:
    assert train_fold(job())["optimistic"] is False


def test_what_is_trained_on_need_not_be_what_is_scored(job: Callable[..., Job]) -> None:
    one = job(rebin={"age": {"column": "years", "cuts": [30, 58]}})
    assert one.training_labels is not None
    trained = dict(line.rsplit(",", 1) for line in Path(one.training_labels).read_text().splitlines()[1:])
    moved = {name for name, label in trained.items() if name.split("/")[0].endswith(("_58", "_59"))}
    table = build_plan(
        Settings(data=Path(one.data["data"]), arch=("test_resnet",), k=3), Recipe(img_size="32", pretrained=False)
    ).table
    official = dict(zip(table.ids.tolist(), (table.labels if table.labels is not None else []), strict=True))
    assert {name for name in trained if trained[name] != official[name]} == moved
    train_fold(one)
    checkpoint = load_checkpoint(Path(one.checkpoint))
    label_of = dict(zip(hash_ids(official), official.values(), strict=True))
    scored = [label_of[name] for name in checkpoint.validation_hashes]
    assert hash_labels(checkpoint.validation_hashes, scored) == checkpoint.labels_sha


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("swin", 224),
        ("resnet18", 224),
        ("vit", 224),
        ("beit", 224),
        ("efficientnet", 300),
        ("efficientnet_b4", 380),
        ("swin", 384),
    ],
)
def test_model_families_accept_the_sizes_of_the_team_recipes(name: str, size: int) -> None:
    architecture = resolve(name, (size, size))
    assert (architecture.height, architecture.width) == (size, size)


def test_each_model_has_the_size_it_asks_for() -> None:
    assert {
        name: resolve(name).height
        for name in ("swin", "vit", "efficientnet_b3", "efficientnet_b4", "swin_base_patch4_window12_384")
    } == {
        "swin": 224,
        "vit": 224,
        "efficientnet_b3": 288,
        "efficientnet_b4": 320,
        "swin_base_patch4_window12_384": 384,
    }


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"loss": "focall"}, "did you mean focal"),
        ({"sampler": "balance"}, "did you mean balanced"),
        ({"augment": "stron"}, "did you mean strong"),
        ({"target": "agee"}, "did you mean age"),
        ({"head_loss": {"age": "ce"}}, "unknown head_loss 'age'"),
        ({"opt": "adamm"}, "did you mean adam"),
        ({"opt_args": {"lr": 1}}, "lr has a setting of its own"),
        ({"per_person": {"mask=weear": 1}}, "did you mean wear"),
        ({"sample_counts": {"99": 1}}, "'99'"),
        ({"augment_more": {"age=>=60": "strng"}}, "did you mean strong"),
        ({"rebin": {"age": {"column": "yeers", "cuts": [30, 58]}}}, "did you mean years"),
        ({"rebin": {"age": [30, 58]}}, "expected a column and cuts"),
        ({"rebin": {"age": {"column": "years", "cuts": [30, "58"]}}}, "expected numbers as cuts"),
        ({"target": "mask+gender+age", "head_loss": {"age": 3}}, "head_loss of 'age': expected a name, found 3"),
        ({"augment_more": {"3": ["strong"]}}, "augment_more of '3': expected a name"),
        ({"transform": "no_such_module:train"}, "no module no_such_module"),
        ({"grad_checkpointing": True, "img_size": "75", "arch": "inception_v3"}, "not supported by inception_v3"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_decoded(
    drawn: Path, tmp_path: Path, recipe: dict[str, Any], message: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        values = {"img_size": "32", "arch": "test_resnet"} | recipe
        settings = Settings(data=drawn, arch=(values.pop("arch"),), k=3)
        with pytest.raises(UsageError, match=message):
            build_plan(settings, Recipe(pretrained=False, **values))
        assert not list(tmp_path.iterdir())


def test_init_run_loads_the_weights_of_the_same_fold(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def jobs(name: str, k: int = 3, **recipe: Any) -> list[Job]:
        values = {"epochs": 1, "img_size": "32", "pretrained": False} | recipe
        return prepare_jobs(build_plan(Settings(data=drawn, arch=("test_vit",), k=k, name=name), Recipe(**values)))

    for one in jobs("small"):
        train_fold(one)
    fine = jobs("fine", img_size="48", pretrained=None, init_run="small", lr=1e-9)
    assert [Path(one.init or "").name for one in fine] == [f"fold{one.fold}.pt" for one in fine]
    train_fold(fine[0])
    before, after = (load_checkpoint(Path(f"checkpoints/{name}/fold{fine[0].fold}.pt")) for name in ("small", "fine"))
    assert (before.architecture.height, after.architecture.height) == (32, 48)
    assert after.weights["pos_embed"].shape != before.weights["pos_embed"].shape
    for name in ("head.weight", "blocks.0.attn.qkv.weight"):  # the head is kept, too
        np.testing.assert_allclose(after.weights[name].numpy(), before.weights[name].numpy(), atol=1e-6)
    with pytest.raises(Exception, match="was trained on other folds"):
        jobs("leaking", k=2, pretrained=None, init_run="small")
