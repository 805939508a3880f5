from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from folds.augmentation.custom import Transform, load_transform
from folds.errors import EnsembleError, UsageError

# The calling convention of albumentations: by keyword alone, a dictionary back, random numbers from a state of its own.
ALBUMENTATIONS = """
import random
class Compose:
    def __init__(self):
        self.random = random.Random()
    def set_random_seed(self, seed):
        self.random.seed(seed)
    def __call__(self, *args, force_apply=False, **data):
        if args:
            raise KeyError("You have to pass data to augmentations as named arguments")
        return {"image": data["image"] // 2 + self.random.randrange(100)}
class Old:  # its versions before 1.4.19: no seed, Python's own random state
    def __call__(self, *args, force_apply=False, **data):
        return {"image": data["image"] // 2 + random.randrange(100)}
"""
TRANSFORMS = """
import random
import albumentations as A
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

albumented, old = A.Compose(), A.Old()
torchvision = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomResizedCrop((12, 10), scale=(0.5, 1.0)), v2.ColorJitter(0.4, 0.4)])
floating = v2.Compose([v2.ToImage(), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)])
normalised = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5,), (0.1,))])
single = v2.RandomPhotometricDistort(p=1.0)

class Noise(torch.nn.Module):
    def forward(self, image):
        return (image // 2 + torch.randint(0, 100, image.shape)).to(torch.uint8)

module = Noise()

def mirrored(image): return image[:, ::-1]
def with_rng(image, rng): return image // 2 + rng.integers(0, 100, image.shape, dtype=np.uint8)
def with_other_name(image, generator): return with_rng(image, generator)
def with_keyword(image, *, rng): return with_rng(image, rng)
def with_default(image, strength=2, rng=None): return with_rng(image // strength, rng)
def of_python(image): return image // 2 + random.randrange(100)
def of_numpy(image): return image // 2 + np.random.randint(0, 100, image.shape).astype(np.uint8)
def of_torch(image): return image // 2 + torch.randint(0, 100, (), dtype=torch.uint8).numpy()
def picture(image): return Image.fromarray(image).rotate(random.uniform(-20, 20))
def half(image): return image.astype(np.float32) / 255
def in_place(image):
    image[:] = 7
    return image
class Nested:
    inner = staticmethod(mirrored)
nested = Nested()

unseeded = np.random.default_rng()
def not_repeatable(image): return image // 2 + unseeded.integers(0, 100, image.shape, dtype=np.uint8)
count = 0
def counting(image):
    global count
    count += 1
    return np.full_like(image, count)

def cut(image): return image[:5]
def grey(image): return image[..., 0]
def long(image): return image.astype(np.int64)
def bright(image): return image * 1.5
def nothing(image): return None
def fails(image): raise ValueError("no such luck")
def nan(image): return np.full(image.shape, np.nan)
def three(image, mask, boxes): return image
def none(): return None
def keyword(image, *, mask): return image
value = 7
"""
GOOD = """albumented old torchvision floating single module mirrored with_rng with_other_name with_keyword with_default of_python of_numpy
of_torch picture half in_place nested.inner""".split()


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Transform]:
    """Loads a transform of the module above, which is in the current folder."""
    (tmp_path / "albumentations.py").write_text(ALBUMENTATIONS)
    (tmp_path / "my_transforms.py").write_text(TRANSFORMS)
    monkeypatch.chdir(tmp_path)
    for name in ("albumentations", "my_transforms"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield lambda name: load_transform(f"my_transforms:{name}")
    for name in ("albumentations", "my_transforms"):
        sys.modules.pop(name, None)


def images(n: int = 6, height: int = 12, width: int = 10) -> np.ndarray[Any, np.dtype[np.uint8]]:
    found = np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    found.flags.writeable = False  # as the cache is
    return found


@pytest.mark.parametrize("name", GOOD)
def test_each_call_style_gives_an_image_determined_by_the_seed(load: Callable[[str], Transform], name: str) -> None:
    transform, batch, seeds = load(name), images(), [3, 1, 4, 1, 5, 2**62 + 9]
    transform.check(12, 10)
    found = transform.batch(batch, seeds)
    assert (found.dtype, found.shape) == (np.uint8, batch.shape)
    order = [4, 2, 0, 5, 1, 3]
    assert np.array_equal(transform.batch(batch[order], [seeds[i] for i in order]), found[order])
    assert np.array_equal(transform.batch(batch[2:3], seeds[2:3])[0], found[2])
    same = np.stack([batch[0]] * 40)
    varied = len({image.tobytes() for image in transform.batch(same, range(40))})
    assert varied == 1 if name in ("mirrored", "half", "in_place", "nested.inner") else varied > 1


def test_the_input_image_and_its_axes_are_unchanged(
    load: Callable[[str], Transform],
) -> None:
    batch = images()
    assert np.array_equal(load("mirrored").batch(batch, range(6)), batch[:, :, ::-1])
    assert np.array_equal(load("half").batch(batch, range(6)), batch)
    turned = load("floating").batch(batch, range(6))
    assert all(np.array_equal(a, b) or np.array_equal(a, b[:, ::-1]) for a, b in zip(turned, batch, strict=True))
    assert not np.array_equal(turned, batch)


def test_torchvision_is_seeded_as_by_torch_itself(load: Callable[[str], Transform]) -> None:
    found = load("torchvision").batch(images(1), [12])
    torch.manual_seed(12)
    expected = sys.modules["my_transforms"].torchvision(torch.from_numpy(images(1)[0].copy()).permute(2, 0, 1))
    assert np.array_equal(found[0], expected.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("name", ["of_python", "of_numpy", "of_torch", "fails"])
def test_the_random_states_of_the_process_stay_what_they_were(load: Callable[[str], Transform], name: str) -> None:
    transform = load(name)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = random.random(), np.random.random(), torch.rand(()).item()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    if name == "fails":
        with pytest.raises(EnsembleError):
            transform.batch(images(), range(6))
    else:
        transform.batch(images(), range(6))
    assert (random.random(), np.random.random(), torch.rand(()).item()) == expected


def test_two_threads_do_not_mix_their_random_numbers(load: Callable[[str], Transform]) -> None:
    transform, batch = load("of_numpy"), images(50)
    expected = transform.batch(batch, range(50))
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(np.array_equal(transform.batch(batch, range(50)), expected)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("cut", r"returned ndarray of shape \(5, 10, 3\), expected \(12, 10, 3\)", "resize"),
        ("grey", r"returned ndarray of shape \(12, 10\), expected \(12, 10, 3\)", "resize"),
        ("long", "returned values of type int64, expected uint8 or floats from 0 to 1", "astype"),
        ("bright", "returned floats from 0 to 382.5, expected 0 to 1", "Normalize"),
        ("normalised", "returned floats from -5 to 5, expected 0 to 1", "Normalize"),
        ("nan", "returned floats from nan to nan, expected 0 to 1", "Normalize"),
        ("nothing", "returned a NoneType", "return the image"),
        ("fails", "failed on an image of 12×10: ValueError: no such luck", "uint8"),
        ("not_repeatable", "gave different images for the same seed", "rng"),
        ("counting", "gave different images for the same seed", "rng"),
    ],
)
def test_what_is_no_image_of_that_size_is_found_before_training(
    load: Callable[[str], Transform], name: str, message: str, hint: str
) -> None:
    with pytest.raises(EnsembleError, match=f"transform=my_transforms:{name} {message}") as error:
        load(name).check(12, 10)
    assert hint in (error.value.hint or "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_transforms", "expected MODULE:OBJECT"),
        ("my_transforms:", "expected MODULE:OBJECT"),
        (":mirrored", "expected MODULE:OBJECT"),
        ("my_transforms.py:mirrored", "there is no module my_transforms.py|'my_transforms' is not a package"),
        ("../my_transforms:mirrored", "expected MODULE:OBJECT"),
        ("my_transfroms:mirrored", "there is no module my_transfroms, neither in .* nor installed"),
        ("my_transforms:miror", r"my_transforms.py has no 'miror'; did you mean mirrored"),
        ("my_transforms:nested.outer", r"has no 'nested.outer'"),
        ("my_transforms:value", "is a int, expected a function of an image"),
        ("my_transforms:Nested", "is a class, expected an instance"),
        ("my_transforms:three", r"takes \(image, mask, boxes\), expected \(image\) or \(image, rng\)"),
        ("my_transforms:none", r"takes \(\), expected"),
        ("my_transforms:keyword", r"takes \(image, \*, mask\), expected"),
        ("needs:train", "needs needs no_such_package, which is not installed"),
        ("broken:train", "importing broken failed: SyntaxError"),
    ],
)
def test_a_transform_that_cannot_be_loaded_is_a_usage_error(
    load: Callable[[str], Transform], name: str, message: str
) -> None:
    Path("needs.py").write_text("import no_such_package\n")
    Path("broken.py").write_text("def train(:\n")
    with pytest.raises(UsageError, match=message):
        load_transform(name)


def test_the_current_folder_is_looked_in_for_this_import_only(load: Callable[[str], Transform], tmp_path: Path) -> None:
    before = list(sys.path)
    found = load("mirrored")
    assert sys.path == before
    assert Path(sys.modules["my_transforms"].__file__ or "").parent == tmp_path
    assert len(found.sha) == 64
    (tmp_path / "my_transforms.py").write_text(TRANSFORMS + "\n")
    assert load("mirrored").sha != found.sha
