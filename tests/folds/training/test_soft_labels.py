"""Soft labels: joined by id and class name, in the loss as its formula says, recorded, and compared on a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import folds
from folds.augmentation.mixup import mix_batch
from folds.config.checks import check
from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.data.targets import resolve_target
from folds.errors import EnsembleError, UsageError
from folds.models.checkpoint import load_checkpoint
from folds.predictions.predictions import Predictions
from folds.training.criterion import SoftTargets, at_temperature, build_criterion
from folds.training.soft_labels import soft_label_warnings, soft_labels_of

SMALL: dict[str, Any] = {"k": 2, "epochs": 1, "img_size": 32, "pretrained": False, "batch_size": 32, "progress": False}


@pytest.fixture
def table(drawn: Path) -> folds.SampleTable:
    return folds.read_table(drawn).train


def probabilities(table: folds.SampleTable, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).dirichlet(np.ones(len(table.classes)), len(table))


def saved(table: folds.SampleTable, path: Path, values: NDArray[Any], **changes: Any) -> Path:
    """Write predictions of a table with shuffled rows and reversed classes."""
    order, columns = np.random.default_rng(1).permutation(len(table)), list(range(len(table.classes)))[::-1]
    made = Predictions.from_array(
        values[order][:, columns], ids=table.ids[order], classes=[table.classes[i] for i in columns], run="t", **changes
    )
    return made.save(path, force=True)


def target_of(table: folds.SampleTable, name: str = "label") -> Any:
    return resolve_target(name, table.classes, table.class_attributes)


def test_rows_are_joined_by_id_and_columns_by_name(table: folds.SampleTable, tmp_path: Path) -> None:
    values = probabilities(table)
    path = saved(table, tmp_path / "t.oof.npy", values)
    found = soft_labels_of(Recipe(soft_labels=path), table, target_of(table))
    assert found is not None
    np.testing.assert_allclose(found.values, values, atol=1e-6)
    assert found.teacher == "t"
    other = soft_labels_of(
        Recipe(soft_labels=saved(table, tmp_path / "u.oof.npy", probabilities(table, 1))), table, target_of(table)
    )
    assert other is not None
    assert other.sha != found.sha
    assert soft_labels_of(Recipe(), table, target_of(table)) is None


def test_heads_get_the_sums_over_their_classes(table: folds.SampleTable, tmp_path: Path) -> None:
    values = probabilities(table)
    path = saved(table, tmp_path / "t.oof.npy", values)
    target = target_of(table, "mask+gender+age")
    found = soft_labels_of(Recipe(soft_labels=path), table, target)
    assert found is not None
    at = 0
    for head in target.heads:
        for code in range(len(head.values)):
            expected = values[:, [of == code for of in head.of_label]].sum(axis=1)
            np.testing.assert_allclose(found.values[:, at], expected, atol=1e-6)
            at += 1
    assert at == found.values.shape[1] == 8


@pytest.mark.parametrize(("change", "said"), [("rows", "has no row for 1 of the"), ("classes", "other classes")])
def test_a_missing_image_or_class_is_refused(table: folds.SampleTable, tmp_path: Path, change: str, said: str) -> None:
    values, names = probabilities(table), list(table.classes)
    ids, kept = table.ids, slice(None)
    if change == "rows":
        kept = slice(1, None)
    else:
        names[0] = "someone else"
    made = Predictions.from_array(values[kept], ids=ids[kept], classes=names, run="t")
    path = made.save(tmp_path / "t.oof.npy")
    with pytest.raises(EnsembleError, match=said):
        soft_labels_of(Recipe(soft_labels=path), table, target_of(table))


def test_values_that_are_no_probabilities_are_refused(table: folds.SampleTable, tmp_path: Path) -> None:
    path = saved(table, tmp_path / "t.oof.npy", probabilities(table))
    np.save(path, np.load(path) * 3)
    with pytest.raises(EnsembleError, match="expected probabilities that sum to 1"):
        soft_labels_of(Recipe(soft_labels=path), table, target_of(table))


def test_predictions_that_are_not_out_of_fold_are_doubted(table: folds.SampleTable, tmp_path: Path) -> None:
    inside = saved(table, tmp_path / "t.test.npy", probabilities(table), split="test")
    assert "are not out-of-fold predictions" in soft_label_warnings(Recipe(soft_labels=inside))[0]
    outside = saved(table, tmp_path / "t.oof.npy", probabilities(table))
    assert soft_label_warnings(Recipe(soft_labels=outside)) == []


def test_settings_without_soft_labels_are_refused() -> None:
    with pytest.raises(UsageError, match="soft_weight needs soft_labels"):
        check(Settings(), Recipe(soft_weight=0.5))
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        check(Settings(), Recipe(soft_labels=Path("x.npy"), soft_weight=0.0))
    with pytest.raises(UsageError, match="contradict"):
        check(Settings(), Recipe(soft_labels=Path("x.npy"), rebin={"age": {"column": "years", "cuts": [30]}}))
    complete = Recipe(soft_labels=Path("x.npy")).completed({})[0]
    assert (complete.soft_weight, complete.soft_temperature) == (0.5, 1.0)
    assert Recipe().completed({})[0].soft_weight is None


CLASSES = ("a", "b", "c")
TARGET = resolve_target("label", CLASSES, {})
COUNTS = [torch.tensor([4, 2, 1])]


def drawn_batch(n: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(n, 3, generator=generator)
    hard = torch.nn.functional.one_hot(torch.randint(3, (n,), generator=generator), 3).float()
    return logits, hard, torch.rand(n, 3, generator=generator).softmax(1)


@pytest.mark.parametrize("loss", ["ce", "wce", "focal:gamma=1", "bce"])
@pytest.mark.parametrize(("weight", "temperature"), [(0.3, 1.0), (0.7, 3.0), (1.0, 2.0)])
def test_the_loss_is_the_mixture_of_both_parts(loss: str, weight: float, temperature: float) -> None:
    logits, hard, soft = drawn_batch()
    tempered = at_temperature(TARGET, soft, temperature)
    made = build_criterion(TARGET, loss, {}, 0.1, COUNTS, 1.0, SoftTargets(weight, temperature))
    found = made(logits, torch.cat([hard, tempered], 1))
    of_table = build_criterion(TARGET, loss, {}, 0.1, COUNTS, 1.0)(logits, hard)
    of_teacher = build_criterion(TARGET, loss, {}, 0.0, COUNTS, 1.0)(logits / temperature, tempered)
    expected = (1 - weight) * of_table + weight * temperature**2 * of_teacher
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_its_gradient_is_that_of_the_kl_divergence() -> None:
    logits, hard, soft = drawn_batch()
    t = 2.0
    tempered = at_temperature(TARGET, soft, t)
    np.testing.assert_allclose(tempered, (soft.log() / t).softmax(1), atol=1e-6)
    logits.requires_grad_()
    build_criterion(TARGET, "ce", {}, 0.1, COUNTS, 0.0, SoftTargets(1.0, t))(
        logits, torch.cat([hard, tempered], 1)
    ).backward()
    found = logits.grad
    other = logits.detach().clone().requires_grad_()
    divergence = torch.nn.functional.kl_div((other / t).log_softmax(1), tempered, reduction="batchmean")
    (t**2 * divergence).backward()
    assert found is not None
    np.testing.assert_allclose(found, other.grad, atol=1e-6)


def test_soft_labels_are_not_smoothed_even_where_the_loss_says_so() -> None:
    logits, hard, soft = drawn_batch()
    both = torch.cat([hard, soft], 1)
    smoothed, plain = (
        build_criterion(TARGET, text, {}, smoothing, COUNTS, 0.0, SoftTargets(1.0, 1.0))(logits, both)
        for text, smoothing in (("ce:smoothing=.3", 0.2), ("ce", 0.0))
    )
    assert float(smoothed) == pytest.approx(float(plain))


def test_mixed_images_mix_both_labels() -> None:
    _, hard, soft = drawn_batch(4)
    images, draws = torch.rand(4, 3, 8, 8), torch.tensor([[1, 0.25], [0, 0.5], [3, 1.0], [2, 0.0]])
    _, both = mix_batch(images, torch.cat([hard, soft], 1), draws)
    np.testing.assert_allclose(both[:, :3], mix_batch(images, hard, draws)[1])
    np.testing.assert_allclose(both[:, 3:], mix_batch(images, soft, draws)[1])


@pytest.fixture(scope="module")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with soft labels, mixup and class weights, in a folder with the soft labels."""
    root = tmp_path_factory.mktemp("soft")
    table = folds.read_table(drawn).train
    path = saved(table, root / "t.oof.npy", probabilities(table))
    made = {"arch": "test_resnet", "soft_labels": path, "soft_temperature": 2.0, "mixup": 0.2, "loss": "wce"}
    folds.kfold(folds.read_table(drawn), root=root, **made, **SMALL)
    return root, path


def test_run_and_checkpoint_record_what_was_learned(trained: tuple[Path, Path]) -> None:
    root, _ = trained
    run = folds.load_run("test_resnet", root=root)
    config = run.config
    assert (config["soft_weight"], config["soft_temperature"]) == (0.5, 2.0)
    recipe = load_checkpoint(run.checkpoints[0]).recipe
    assert recipe["soft_sha"] == config["resolved"]["soft_sha"]
    assert recipe["teacher"] == config["resolved"]["teacher"] == "t"
    assert "soft_labels" not in recipe  # a path
    assert run.oof.metadata.teacher == "t"
    assert run.summary().selected_on_validation


def test_a_resume_compares_them(trained: tuple[Path, Path], drawn: Path, table: folds.SampleTable) -> None:
    root, _ = trained
    made: dict[str, Any] = {"arch": "test_resnet", "soft_temperature": 2.0, "mixup": 0.2, "loss": "wce", "root": root}
    data = folds.read_table(drawn)
    elsewhere = saved(table, root / "moved.oof.npy", probabilities(table))
    folds.kfold(data, soft_labels=elsewhere, **made, **SMALL)  # equal content
    changed = saved(table, root / "changed.oof.npy", probabilities(table, 5))
    with pytest.raises(EnsembleError) as other:
        folds.kfold(data, soft_labels=changed, **made, **SMALL)
    assert any("soft_sha" in line for line in other.value.details)
    del made["soft_temperature"]
    with pytest.raises(EnsembleError) as without:
        folds.kfold(data, **made, **SMALL)
    assert any(line.startswith("soft_weight") for line in without.value.details)


def test_a_run_without_them_records_nothing_new(grid: Path, table: folds.SampleTable, tmp_path: Path) -> None:
    run = folds.load_run("test_resnet")
    assert not any("soft" in key or "teacher" in key for key in (*run.config, *run.config["resolved"]))
    assert not any("soft" in key or "teacher" in key for key in load_checkpoint(run.checkpoints[0]).recipe)
    assert not (grid / "runs/test_resnet/soft.npy").exists()
    assert run.oof.metadata.teacher is None
