from __future__ import annotations

from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from folds.augmentation import batch as batch_module
from folds.augmentation import changes as changes_module
from folds.augmentation import operations
from folds.augmentation.batch import PRESETS, apply_changes, augment_batch, compiled_work
from folds.augmentation.changes import Changes, compute_changes, sample_parameters, split_changes
from folds.augmentation.mixup import MixupCutmix, apply_mixing, compute_mixing, draw_mixing, mix_batch, split_mixing
from tests.folds.augmentation.kernels import Kernels, on_gpu

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [5, 1, 7, 3]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, height: int = 12, width: int = 10) -> torch.Tensor:
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=generator(n))


@pytest.mark.parametrize("names", [("light",), ("standard",), ("strong",), ("none", "light", "strong")])
def test_steps_computed_together_are_those_computed_alone(names: tuple[str, ...]) -> None:
    ways = [PRESETS[name] for name in names]
    index = torch.arange(sum(SIZES)) % len(ways)
    draws = sample_parameters(sum(SIZES), ways, generator())
    together = split_changes(compute_changes(draws, ways, (12, 10), index), SIZES, "cpu")
    recoded = 0
    for changes, some, kind in zip(together, draws.split(SIZES), index.split(SIZES), strict=True):
        batch = images(len(some))
        found, expected = apply_changes(batch, changes, MEAN, STD), augment_batch(batch, some, ways, MEAN, STD, kind)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
        if changes.recoding is not None:
            recoded += len(changes.recoding.code)
            assert torch.equal(
                operations.recode(batch, changes.recoding),
                operations.recode(batch, compute_changes(some, ways, (12, 10), kind).recoding),  # type: ignore[arg-type]
            )
    assert (recoded > 0) == ("strong" in names)


def test_mixing_computed_together_is_that_of_each_step() -> None:
    draws = torch.cat([draw_mixing(n, MixupCutmix(0.4, 1.0), generator(n)) for n in SIZES])
    for mixing, some in zip(
        split_mixing(compute_mixing(draws, (12, 10)), SIZES, "cpu"), draws.split(SIZES), strict=True
    ):
        inputs, targets = torch.rand(len(some), 3, 12, 10), torch.rand(len(some), 4)
        for found, expected in zip(
            apply_mixing(inputs, targets, mixing), mix_batch(inputs, targets, some), strict=True
        ):
            assert torch.equal(found, expected)


def test_rows_are_counted_from_the_first_sample_of_their_step() -> None:
    rows = torch.tensor([0, 4, 5, 6, 12, 15])
    assert [some.tolist() for some in operations.split_rows(rows, SIZES, "cpu")] == [[0, 4], [0], [0, 6], [2]]
    assert [some.tolist() for some in operations.split_rows(rows[:0], SIZES, "cpu")] == [[], [], [], []]


@pytest.mark.parametrize(("name", "most"), [("light", 7), ("standard", 13), ("strong", 80)])
def test_a_step_on_a_gpu_starts_few_kernels(name: str, most: int) -> None:
    """Most of the work of a step on small batches is to start its kernels."""
    way, n = PRESETS[name], 64
    changes = compute_changes(sample_parameters(n, way, generator()), way, (16, 16))
    assert (name == "strong") == (changes.recoding is not None and len(changes.recoding.kind) > 0)
    try:
        with FakeTensorMode() as mode:
            batch, fake = torch.empty((n, 16, 16, 3), dtype=torch.uint8, device="cuda"), on_gpu(changes, mode)
            apply_changes(batch, fake, MEAN, STD, in_place=True)  # fills the caches
            with Kernels() as kernels:
                apply_changes(batch, fake, MEAN, STD, in_place=True)
    finally:  # what is kept for this device has no values
        for module in (batch_module, changes_module, operations):
            for kept in vars(module).values():
                if hasattr(kept, "cache_clear"):
                    kept.cache_clear()
    assert sum(kernels.found.values()) <= most, kernels.found


def test_compiled_pixel_work_gives_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the compiler, which takes a minute: what is traced is what would be compiled, in one graph."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    compiled_work.cache_clear()
    batch, way = images(6, 16, 16), PRESETS["strong"]
    changes = compute_changes(sample_parameters(6, way, generator()), way, (16, 16))
    found = apply_changes(batch, changes, MEAN, STD, work=compiled_work())
    compiled_work.cache_clear()
    torch.testing.assert_close(found, apply_changes(batch, changes, MEAN, STD), atol=1e-4, rtol=0)


def test_without_augmentation_there_is_nothing_to_change() -> None:
    draws = sample_parameters(4, PRESETS["none"], generator())
    assert compute_changes(draws, PRESETS["none"], (8, 8)) == Changes()
