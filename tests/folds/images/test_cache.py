"""Decode once: the cache is made once, is whole, fits what it was made from, and everything that is wrong is said at
once.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folds.errors import EnsembleError
from folds.images import cache as images
from folds.images import content_index as contents
from folds.images.cache import ImageSettings, load_images
from folds.images.decode import decode_image

SMALL = ImageSettings(16, 12)


def write_image(path: Path, seed: int, kind: str = "JPEG") -> Path:
    values = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    Image.fromarray(values).resize((48, 64), Image.Resampling.BICUBIC).save(path, kind)
    return path


def settle(*paths: Path) -> None:
    """Give files the same modification time."""
    for path in paths:
        os.utime(path, (1_000_000_000, 1_000_000_000))


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files written a moment ago count as settled, so that the index can be tested without waiting."""
    monkeypatch.setattr(contents, "_SETTLED_NS", -1)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    return [write_image(folder / f"{at}.{('jpg', 'png')[at % 2]}", at, ("JPEG", "PNG")[at % 2]) for at in range(20)]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with every image decoded."""
    calls: list[int] = []
    monkeypatch.setattr(images, "decode_image", lambda *arguments: (calls.append(1), decode_image(*arguments))[1])
    return calls


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A list that grows with every image file read."""
    calls: list[Path] = []
    real = contents.read_content
    monkeypatch.setattr(images, "read_content", lambda path: (calls.append(path), real(path))[1])
    return calls


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != contents.INDEX_NAME) if folder.exists() else []


def test_images_are_read_only_bytes_in_the_order_of_the_paths(photos: list[Path], tmp_path: Path) -> None:
    order = [photos[3], photos[0], photos[3], photos[7]]
    cache = load_images(order, SMALL, cache_dir=tmp_path / "cache")
    assert cache.pixels.shape == (4, 16, 12, 3)
    assert cache.pixels.dtype == np.uint8
    assert isinstance(cache.pixels, np.memmap)
    assert not cache.pixels.flags.writeable
    for row, path in enumerate(order):
        np.testing.assert_array_equal(cache.pixels[row], decode_image(path.read_bytes(), SMALL).pixels)
    assert cache.content[0] == cache.content[2] != cache.content[1]
    np.testing.assert_array_equal(np.load(cache.path, allow_pickle=False), cache.pixels)


def test_each_image_is_decoded_once_and_not_in_a_second_run(
    photos: list[Path], tmp_path: Path, decoded: list[int], opened: list[Path]
) -> None:
    first = load_images(photos, SMALL, cache_dir=tmp_path / "cache")
    assert (first.decoded, len(decoded), len(opened)) == (20, 20, 20)
    second = load_images(photos, SMALL, cache_dir=tmp_path / "cache")
    assert (second.decoded, len(decoded), len(opened)) == (0, 20, 20)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.content == second.content


@pytest.mark.parametrize("damage", ["lost", "not json", "json of another shape", "half", "cannot be written"])
def test_without_the_content_index_files_are_hashed_not_decoded(
    damage: str, photos: list[Path], tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_images(photos, SMALL, cache_dir=tmp_path / "cache")
    index = tmp_path / "cache" / contents.INDEX_NAME
    if damage == "half":
        index.write_bytes(index.read_bytes()[: index.stat().st_size // 2])
    elif damage == "json of another shape":
        index.write_text('{"files": [1, 2]}')
    elif damage == "not json":
        index.write_bytes(b"\x80\x04.")
    else:
        index.unlink()
        if damage == "cannot be written":
            index.mkdir()
    assert load_images(photos, SMALL, cache_dir=tmp_path / "cache").decoded == 0
    assert len(decoded) == 20


def test_the_pixels_do_not_depend_on_the_number_of_threads(photos: list[Path], tmp_path: Path) -> None:
    caches = [load_images(photos, SMALL, cache_dir=tmp_path / str(threads), threads=threads) for threads in (1, 2, 7)]
    assert len({cache.path.read_bytes() for cache in caches}) == 1
    assert len({cache.path.name for cache in caches}) == 1


def test_new_content_under_the_same_name_is_noticed(photos: list[Path], tmp_path: Path) -> None:
    before = load_images(photos, SMALL, cache_dir=tmp_path / "cache")
    write_image(photos[4], 99)
    after = load_images(photos, SMALL, cache_dir=tmp_path / "cache")
    assert [a == b for a, b in zip(before.content, after.content)] == [at != 4 for at in range(20)]
    np.testing.assert_array_equal(after.pixels[4], decode_image(photos[4].read_bytes(), SMALL).pixels)


def test_new_content_of_equal_size_and_mtime_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    write_image(path, 1, "BMP")
    settle(path)
    before = load_images([path], SMALL, cache_dir=tmp_path / "cache")
    write_image(path, 2, "BMP")
    settle(path)
    after = load_images([path], SMALL, cache_dir=tmp_path / "cache")
    assert before.content != after.content
    assert (before.pixels != after.pixels).any()


def test_a_file_only_just_written_is_read_again_next_time(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Path], decoded: list[int]
) -> None:
    monkeypatch.setattr(contents, "_SETTLED_NS", 3_600_000_000_000)
    for _ in range(2):
        load_images(photos, SMALL, cache_dir=tmp_path / "cache")
    assert len(opened) == 40
    assert len(decoded) == 20


def test_a_file_that_was_only_touched_is_not_decoded_again(photos: list[Path], tmp_path: Path) -> None:
    load_images(photos, SMALL, cache_dir=tmp_path / "cache")
    settle(photos[0])
    assert load_images(photos, SMALL, cache_dir=tmp_path / "cache").decoded == 0


def test_other_settings_and_another_order_are_another_cache(photos: list[Path], tmp_path: Path) -> None:
    variants = [SMALL, ImageSettings(12, 16), ImageSettings(16, 12, "crop"), ImageSettings(16, 12, window=(0, 9))]
    files = {load_images(photos, settings, cache_dir=tmp_path / "cache").path for settings in variants}
    files.add(load_images(photos[::-1], SMALL, cache_dir=tmp_path / "cache").path)
    assert len(files) == 5
    assert ImageSettings(16, 12, window=(0, 9)).as_dict() == ImageSettings(16, 12, window=(0.0, 9.0)).as_dict()


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def other_shape(path: Path) -> None:
    np.save(path, np.zeros((20, 12, 16, 3), np.uint8))


def other_type(path: Path) -> None:
    np.save(path, np.zeros((20, 16, 12, 3), np.int8))


def pickled(path: Path) -> None:
    np.save(path, np.array([print] * 20, object), allow_pickle=True)


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        other_shape,
        other_type,
        pickled,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{}"),
        lambda path: path.with_suffix(".json").write_text("[" * 100_000),
    ],
)
def test_a_damaged_cache_is_built_again(damage: Callable[[Path], object], photos: list[Path], tmp_path: Path) -> None:
    good = load_images(photos, SMALL, cache_dir=tmp_path / "cache")
    expected = np.array(good.pixels)
    damage(good.path)
    again = load_images(photos, SMALL, cache_dir=tmp_path / "cache")
    assert again.decoded == 20
    np.testing.assert_array_equal(again.pixels, expected)


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fsync"])
def test_a_full_disk_is_an_error_that_leaves_nothing(
    call: str, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(EnsembleError, match=r"cannot write .*cache.*: no space left on device"):
        load_images(photos, SMALL, cache_dir=tmp_path / "cache")
    assert left_over(tmp_path / "cache") == []


def test_a_disk_that_cannot_reserve_space_is_still_written(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "")

    monkeypatch.setattr(os, "posix_fallocate", unable)
    assert load_images(photos, SMALL, cache_dir=tmp_path / "cache").pixels.shape == (20, 16, 12, 3)


def test_an_interrupt_leaves_nothing(photos: list[Path], tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_images(photos, SMALL, cache_dir=tmp_path / "cache", progress=interrupt)
    assert left_over(tmp_path / "cache") == []


def test_only_temporaries_of_killed_processes_are_removed(photos: list[Path], tmp_path: Path) -> None:
    cache_dir = tmp_path / "cache"
    cache_dir.mkdir()
    abandoned, alive = cache_dir / ".a.building", cache_dir / ".b.building"
    abandoned.write_bytes(b"x")
    with open(alive, "x+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        load_images(photos, SMALL, cache_dir=cache_dir)
        assert not abandoned.exists()
        assert alive.exists()


def test_parallel_builds_of_one_cache_all_give_a_valid_one(photos: list[Path], tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from folds.images.cache import ImageSettings, load_images
print("ready", flush=True)
sys.stdin.readline()
cache = load_images(sorted(Path({str(photos[0].parent)!r}).iterdir()), ImageSettings(16, 12), cache_dir=Path({str(tmp_path / "cache")!r}))
print(cache.path.name, int(cache.pixels.sum()))
"""
    children = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    found = {child.communicate(timeout=60)[0] for child in children}
    cache = load_images(sorted(photos), SMALL, cache_dir=tmp_path / "cache")
    assert cache.decoded == 0
    assert found == {f"{cache.path.name} {int(cache.pixels.sum())}\n"}
    assert left_over(tmp_path / "cache") == sorted([cache.path.name, cache.path.with_suffix(".json").name])


def test_progress_is_reported_by_the_calling_thread_to_the_end(photos: list[Path], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        seen.append((done, total))

    load_images(photos, SMALL, cache_dir=tmp_path / "cache", progress=progress)
    assert seen[-1] == (20, 20)
    assert seen == sorted(seen)


def test_no_images_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(EnsembleError, match="no images"):
        load_images([], SMALL, cache_dir=tmp_path)


def test_nothing_about_this_machine_is_written_beside_the_pixels(photos: list[Path], tmp_path: Path) -> None:
    cache = load_images(photos, SMALL, cache_dir=tmp_path / "cache")
    record = json.loads(cache.path.with_suffix(".json").read_text())
    assert str(tmp_path) not in json.dumps(record)
    assert record["content"] == list(cache.content)
