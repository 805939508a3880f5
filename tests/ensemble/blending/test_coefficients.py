"""Tests of blend.npy.gz: many coefficients are kept beside blend.toml, read as written, and bounded."""

from __future__ import annotations

import gzip
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from ensemble.blending.coefficients import FILE, read_coefficients, write_coefficients
from ensemble.blending.recipe import BlendRecipe, RunRecipe, read_recipe, to_text
from ensemble.learning.combination import LARGE, MAX_NUMBERS, Combination
from folds.errors import EnsembleError

NAMES = ("run0", "run1")


def stacked(classes: int) -> BlendRecipe:
    numbers = np.random.default_rng(0).normal(size=(2 * classes + 1, classes))
    combination = Combination(NAMES, "geometric", stacked=numbers, bias=np.linspace(-1, 1, classes))
    return BlendRecipe("1a2b", tuple(f"c{i}" for i in range(classes)), combination, tuple(map(RunRecipe, NAMES)))


def written(folder: Path, recipe: BlendRecipe) -> Path:
    write_coefficients(folder, recipe.combination.large_arrays())
    path = folder / "blend.toml"
    path.write_text(to_text(recipe, "x"))
    return path


def test_many_coefficients_are_read_as_written(tmp_path: Path) -> None:
    recipe = stacked(60)
    path = written(tmp_path, recipe)
    read = read_recipe(path).combination
    assert read.stacked is not None
    assert read.bias is not None
    assert np.array_equal(read.stacked, recipe.combination.stacked)
    assert read.bias == pytest.approx(recipe.combination.bias, abs=1e-8)
    assert path.stat().st_size < 5000
    assert len(json.dumps(recipe.combination.as_record(inline=False))) < 5000


def test_few_coefficients_stay_in_the_text(tmp_path: Path) -> None:
    recipe = stacked(20)
    assert recipe.combination.as_record(inline=False) == recipe.combination.as_record()
    path = written(tmp_path, recipe)
    assert not (tmp_path / FILE).exists()
    assert read_recipe(path).combination.stacked == pytest.approx(recipe.combination.stacked, rel=1e-8)


def test_text_with_many_coefficients_of_earlier_versions_is_read(tmp_path: Path) -> None:
    recipe = stacked(60)
    path = written(tmp_path, recipe)
    record = recipe.combination.as_record()
    lines = [
        f"stacked = {record['stacked']}" if line.startswith("stacked") else line
        for line in path.read_text().split("\n")
    ]
    path.write_text("\n".join(lines))
    (tmp_path / FILE).unlink()
    assert read_recipe(path).combination.stacked == pytest.approx(recipe.combination.stacked, rel=1e-8)


def test_equal_arrays_give_equal_bytes_and_none_remove_the_file(tmp_path: Path) -> None:
    arrays = {"stacked": np.arange(LARGE + 1.0)}
    (path,) = write_coefficients(tmp_path, arrays)
    before = path.read_bytes()
    write_coefficients(tmp_path, arrays)
    assert path.read_bytes() == before
    assert write_coefficients(tmp_path, {}) == []
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(b"x" * 100), "cannot be read"),
        (lambda file: file.write_bytes(file.read_bytes()[:-2000]), "cannot be read"),
        (lambda file: file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()) + b"more")), "cannot be read"),
        (lambda file: file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-8])), "cannot be read"),
        (
            lambda file: write_coefficients(file.parent, {"stacked": np.zeros((121, 60))}),
            "not the file that was written",
        ),
    ],
)
def test_another_file_is_refused(tmp_path: Path, change: object, message: str) -> None:
    path = written(tmp_path, stacked(60))
    change(tmp_path / FILE)  # type: ignore[operator]
    with pytest.raises(EnsembleError, match=message):
        read_recipe(path)


@pytest.mark.parametrize(
    "content",
    [
        b"(" * 9000,  # headers that a parser of literals cannot end
        b"-" * 9000,
        b"a" + b".a" * 4000,
        b"",
    ],
)
def test_a_hostile_header_is_refused_without_being_parsed(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, stacked(60))
    with gzip.open(tmp_path / FILE, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(content)) + content + bytes(8 * 7260))
    with pytest.raises(EnsembleError, match="cannot be read: expected 7,260 numbers"):
        read_recipe(path)


def test_a_file_with_more_than_its_numbers_is_refused(tmp_path: Path) -> None:
    """Zeros at the end, a second part, or a long name in front would take any time and memory."""
    path = written(tmp_path, stacked(60))
    good = (tmp_path / FILE).read_bytes()
    long_name = io.BytesIO()
    with gzip.GzipFile("n" * 300_000, "wb", 1, long_name, mtime=0) as file:
        file.write(gzip.decompress(good))
    bomb = gzip.compress(gzip.decompress(good) + bytes(50_000_000))
    for content in (good + bytes(300_000), good + bytes(8), good + good, long_name.getvalue(), bomb):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(EnsembleError, match="cannot be read"):
            read_recipe(path)
    (tmp_path / FILE).write_bytes(good)
    assert read_recipe(path).combination.stacked is not None


def test_objects_are_refused_without_being_loaded(tmp_path: Path) -> None:
    path = written(tmp_path, stacked(60))
    with gzip.open(tmp_path / FILE, "wb") as file:
        np.lib.format.write_array(file, np.array([{}] * 10, dtype=object))
    with pytest.raises(EnsembleError, match="cannot be read: expected 7,260 numbers"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"shape": [MAX_NUMBERS, 2], "sha": "0" * 64}, "expected at most"),
        ({"shape": [-1], "sha": "0" * 64}, "shape"),
        ({"shape": [5]}, "sha"),
        ({"shape": [2] * 65 + [5000], "sha": "0" * 64}, "expected at most 3 numbers in 'shape', found 66"),
        ({"shape": [2] * 200_000, "sha": "0" * 64}, "found 200,000"),
    ],
)
def test_a_field_is_bounded_before_the_file_is_opened(tmp_path: Path, field: dict[str, object], message: str) -> None:
    with pytest.raises(EnsembleError, match=message):
        read_coefficients(tmp_path / "blend.toml", {"stacked": field})
