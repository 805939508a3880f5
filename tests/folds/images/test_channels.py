"""Files of other channels than red, green and blue: arrays, TIFF of many bands or pages, stacks of files."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folds.errors import UsageError
from folds.images.cache import load_images
from folds.images.content_index import UnreadableImageError, read_content
from folds.images.decode import decode_image, fit_array, fit_colors, identify_image
from folds.images.settings import ImageSettings
from folds.images.stacks import join_contents, stack_path
from folds.images.tiff_bands import read_page
from tests.conftest import Logged

SIZE = 6, 8
RANDOM = np.random.default_rng(0)
VALUES = RANDOM.integers(0, 256, (*SIZE, 5), np.uint8)
DEEP = RANDOM.integers(0, 65_536, (*SIZE, 5)).astype(np.uint16)


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def tiff(values: np.ndarray, order: str = "<", packed: bool = False, planar: bool = False, **tags: int) -> bytes:
    """A TIFF of one strip per channel, or one in all, of bands that Pillow does not read."""
    height, width, bands = values.shape
    parts = [values[:, :, at] for at in range(bands)] if planar else [values]
    strips = [np.ascontiguousarray(one).astype(values.dtype.newbyteorder(order)).tobytes() for one in parts]
    strips = [zlib.compress(one) for one in strips] if packed else strips
    kinds = {"u": 1, "i": 2, "f": 3}
    listed = {
        **{256: width, 257: height, 259: 8 if packed else 1, 262: 1, 277: bands, 278: height},
        **{284: 2 if planar else 1, 339: kinds[values.dtype.kind], 258: values.dtype.itemsize * 8},
    } | {int(tag.removeprefix("t")): value for tag, value in tags.items()}
    place = 8
    offsets = []
    for one in strips:
        offsets.append(place)
        place += len(one)
    arrays = place
    entries = {tag: (4, 1, struct.pack(f"{order}I", value)) for tag, value in listed.items()}
    for tag, numbers in ((273, offsets), (279, [len(one) for one in strips])):
        packed_numbers = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            strips.append(packed_numbers)
            packed_numbers, arrays = struct.pack(f"{order}I", arrays), arrays + len(packed_numbers)
        entries[tag] = (4, len(numbers), packed_numbers)
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(
        struct.pack(f"{order}HHI", tag, kind, count) + value for tag, (kind, count, value) in sorted(entries.items())
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, arrays)
    return head + b"".join(strips) + directory + struct.pack(f"{order}I", 0)


def decoded(data: bytes, **settings: object) -> np.ndarray:
    return decode_image(data, ImageSettings(*SIZE, **settings)).pixels  # type: ignore[arg-type]


def refused(data: bytes, **settings: object) -> str:
    with pytest.raises(UnreadableImageError) as error:
        decoded(data, **settings)
    return str(error.value)


def test_chosen_channels_of_an_array_are_read_in_their_order() -> None:
    assert np.array_equal(decoded(npy(VALUES), channels=(4, 0)), VALUES[:, :, [4, 0]])
    assert np.array_equal(decoded(npy(np.asfortranarray(VALUES)), channels=(1,)), VALUES[:, :, [1]])
    first = np.ascontiguousarray(VALUES.transpose(2, 0, 1))  # channels, height, width
    assert np.array_equal(decoded(npy(first), channels=(4, 0)), VALUES[:, :, [4, 0]])
    assert identify_image(io.BytesIO(npy(VALUES))) == SIZE


def test_arrays_without_chosen_channels_are_gray_or_colors() -> None:
    assert np.array_equal(decoded(npy(VALUES[:, :, 0])), VALUES[:, :, [0, 0, 0]])
    assert np.array_equal(decoded(npy(VALUES[:, :, :3])), VALUES[:, :, :3])
    assert "has 5 channels: `channels=0,1,2`" in refused(npy(VALUES))
    assert np.array_equal(decoded(npy(VALUES), preview=True), VALUES[:, :, :3])
    assert "has 5 channels, counted from 0, and `channels` names 7" in refused(npy(VALUES), channels=(0, 7))


def test_deep_arrays_have_a_window_like_other_images() -> None:
    found = decode_image(npy(DEEP), ImageSettings(*SIZE, channels=(2, 3), window=(1000, 40_000)))
    expected = ((DEEP[:, :, 2:4].astype(float) - 1000) / 39_000 * 255).clip(0, 255).round()
    assert np.array_equal(found.pixels, expected.astype(np.uint8))
    assert found.depth is not None
    assert found.depth.window == (1000, 40_000)
    assert (found.depth.lowest, found.depth.highest) == (DEEP[:, :, 2:4].min(), DEEP[:, :, 2:4].max())
    assert "needs a window" in refused(npy(VALUES.astype(np.float32)), channels=(0,))
    whole = decoded(npy(VALUES.astype(np.float32)), channels=(0, 1, 2, 3, 4), window=(0, 255))
    assert np.array_equal(whole, VALUES)
    assert np.array_equal(decoded(npy(VALUES[:, :, 0] > 99)), np.repeat((VALUES[:, :, :1] > 99) * np.uint8(255), 3, 2))


def test_channels_of_a_picture_are_those_of_its_file() -> None:
    picture = Image.fromarray(RANDOM.integers(0, 256, (12, 16, 4), np.uint8), "RGBA")
    file = io.BytesIO()
    picture.save(file, "PNG")
    colors = io.BytesIO()
    picture.convert("RGB").save(colors, "PNG")
    assert decoded(file.getvalue(), channels=(3,)).shape == (*SIZE, 1)
    assert np.array_equal(decoded(colors.getvalue(), channels=(0, 1, 2)), decoded(colors.getvalue()))
    assert np.array_equal(decoded(colors.getvalue(), channels=(2, 0)), decoded(colors.getvalue())[:, :, [2, 0]])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_a_tiff_of_many_channels_is_read(order: str, planar: bool, packed: bool) -> None:
    data = tiff(DEEP, order, packed, planar)
    settings = {"channels": (4, 1), "window": (0, 65_535)}
    assert np.array_equal(decoded(data, **settings), decoded(npy(DEEP), **settings))
    assert identify_image(io.BytesIO(data)) == SIZE
    assert "has 5 channels" in refused(data)


def test_other_forms_of_a_tiff_say_what_is_read() -> None:
    floats = VALUES.astype(np.float32)
    assert np.array_equal(decoded(tiff(floats), channels=(0, 4), window=(0, 255)), VALUES[:, :, [0, 4]])
    steps = np.diff(VALUES, axis=1, prepend=np.uint8(0))
    assert np.array_equal(decoded(tiff(steps, packed=True, t317=2), channels=(3,)), VALUES[:, :, [3]])
    assert "compressed by LZW" in refused(tiff(VALUES, t259=5), channels=(0,))
    assert "predictor 3" in refused(tiff(floats, t317=3), channels=(0,))
    assert "decompression bomb" in refused(tiff(VALUES, t256=10**6, t257=10**6), channels=(0,))
    assert "cut off" in refused(tiff(VALUES, t257=500, t278=500), channels=(0,))


def paged(pages: list[np.ndarray], kind: str = "TIFF") -> bytes:
    file = io.BytesIO()
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(file, kind, save_all=True, append_images=rest)
    return file.getvalue()


def test_a_page_is_chosen_by_number_or_as_the_middle_one() -> None:
    pages = [VALUES[:, :, at] for at in range(5)]
    data = paged(pages)
    assert np.array_equal(decoded(data)[:, :, 0], pages[0])
    assert np.array_equal(decoded(data, frame=3)[:, :, 0], pages[3])
    assert np.array_equal(decoded(data, frame="middle")[:, :, 0], pages[2])
    assert "has 5 frames, counted from 0, and `frame=5` is none" in refused(data, frame=5)
    assert "has 1 frame," in refused(paged(pages[:1]), frame=1)
    deep = paged([DEEP[:, :, at] for at in range(3)])
    assert np.array_equal(decoded(deep, frame=1), decoded(npy(DEEP[:, :, 1])))


def test_gray_pages_are_the_channels_where_channels_are_chosen() -> None:
    data = paged([VALUES[:, :, at] for at in range(5)])
    assert np.array_equal(decoded(data, channels=(3, 1)), VALUES[:, :, [3, 1]])
    assert np.array_equal(decoded(data, channels=(0,), frame=2), VALUES[:, :, [2]])
    assert "several sizes" in refused(paged([VALUES[:, :, 0], VALUES[:4, :, 0]]), channels=(0, 1))


def test_what_is_chosen_in_files_is_logged_with_a_cache_too(tmp_path: Path, logged: Logged) -> None:
    path = tmp_path / "pages.tif"
    path.write_bytes(paged([VALUES[:, :, 0], VALUES[:, :, 1]]))
    for _ in range(2):
        logged.records.clear()
        load_images([path], ImageSettings(*SIZE), cache_dir=tmp_path / "cache")
        assert logged.notes == [
            "1 image of several frames: the first one is read (`frame=N` or `frame=middle` chooses another)"
        ]


def test_a_stack_of_files_is_one_image_of_their_channels(tmp_path: Path) -> None:
    files = [tmp_path / "t1.png", tmp_path / "t2.npy", tmp_path / "flair.png"]
    Image.fromarray(VALUES[:, :, 0]).save(files[0])
    np.save(files[1], VALUES[:, :, 1])
    Image.fromarray(VALUES[:, :, :3]).save(files[2])
    settings = ImageSettings(*SIZE, stack=("t1", "t2", "flair"))
    first = load_images([stack_path(files)], settings, cache_dir=tmp_path / "cache")
    gray = np.asarray(Image.fromarray(VALUES[:, :, :3]).convert("L"))
    assert np.array_equal(first.pixels[0], np.stack([VALUES[:, :, 0], VALUES[:, :, 1], gray], axis=2))
    assert load_images([stack_path(files)], settings, cache_dir=tmp_path / "cache").decoded == 0
    Image.fromarray(VALUES[:, :, 4]).save(files[0])
    changed = load_images([stack_path(files)], settings, cache_dir=tmp_path / "cache")
    assert np.array_equal(changed.pixels[0, :, :, 0], VALUES[:, :, 4])
    assert changed.content != first.content


def test_a_stack_names_the_file_that_cannot_be_used(tmp_path: Path) -> None:
    files = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for path in files:
        np.save(path, VALUES[:, :, 0])
    settings = {"stack": ("one", "two")}
    files[1].write_bytes(b"")
    assert refused(read_content(stack_path(files)).data, **settings) == "in 'two' is empty (0 bytes)"
    assert "is one file, and a sample is a stack of 2: one, two" in refused(files[0].read_bytes(), **settings)
    files[1].unlink()
    with pytest.raises(UnreadableImageError, match=r"b\.npy does not exist"):
        read_content(stack_path(files))


def test_arrays_in_memory_are_channels_too() -> None:
    assert np.array_equal(fit_array(VALUES, ImageSettings(*SIZE, channels=(4, 2))), VALUES[:, :, [4, 2]])
    assert np.array_equal(fit_array(VALUES[:, :, :2], ImageSettings(*SIZE, stack=("a", "b"))), VALUES[:, :, :2])
    with pytest.raises(UnreadableImageError, match="has 5 channels, expected those of the stack: a, b"):
        fit_array(VALUES, ImageSettings(*SIZE, stack=("a", "b")))
    colors = fit_colors(Image.fromarray(VALUES[:, :, :3]), ImageSettings(*SIZE, channels=(7, 8, 9, 2)))
    assert np.array_equal(colors, VALUES[:, :, [0, 1, 2, 0]])


@pytest.mark.parametrize(
    "settings",
    [{"channels": (1, 1)}, {"channels": (-1,)}, {"stack": ("a",)}, {"stack": ("a", "b"), "channels": (0, 1)}],
)
def test_channels_that_cannot_be_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ImageSettings(*SIZE, **settings)  # type: ignore[arg-type]


def test_settings_of_colors_have_the_keys_of_earlier_caches() -> None:
    assert set(ImageSettings(*SIZE).as_dict()) == {"height", "width", "fit", "window"}
    assert ImageSettings(*SIZE, channels=(1,), frame="middle").as_dict()["channels"] == [1]


def test_pickled_and_odd_arrays_are_never_loaded() -> None:
    file = io.BytesIO()
    np.save(file, np.array([[object()]]), allow_pickle=True)
    assert "expected numbers" in refused(file.getvalue())
    assert "expected numbers" in refused(npy(VALUES.astype(complex)))
    assert "(height, width, channels)" in refused(npy(np.zeros((2, 2, 2, 2))))
    assert "is cut off" in refused(npy(VALUES)[:-9], channels=(0,))
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
    huge = b"{'descr': '|u1', 'fortran_order': False, 'shape': (900000000, 900000000), }".ljust(117) + b"\n"
    assert "decompression bomb" in refused(head + huge)
    assert "damaged header" in refused(head + b"__import__('os').system('true')".ljust(118))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow
def test_damaged_files_of_channels_are_unusable_and_nothing_else() -> None:
    chance = random.Random(0)
    for data in (npy(DEEP), tiff(DEEP, packed=True), tiff(DEEP, ">", planar=True), paged([DEEP[:, :, 0]] * 3)):
        for _ in range(60):
            changed = bytearray(data[: chance.randint(9, len(data))])
            for _ in range(chance.randint(0, 6)):
                changed[chance.randrange(8, len(changed))] = chance.randrange(256)
            try:
                found = decoded(bytes(changed), channels=(2, 0), window=(0, 9), max_pixels=10_000)
                assert found.shape == (*SIZE, 2)
            except UnreadableImageError:
                pass


def test_a_damaged_tiff_of_huge_tags_or_strips_costs_little_memory() -> None:
    data = tiff(VALUES)
    start = struct.unpack_from("<I", data, 4)[0]
    many = 1 << 19  # numbers of each tag, all at one place
    filler = bytes(4 * many)
    entries = b"".join(struct.pack("<HHII", 60_000 + tag, 4, many, len(data)) for tag in range(200))
    head = data[:4] + struct.pack("<I", len(data) + len(filler))
    count = struct.unpack_from("<H", data, start)[0]
    listed = data[start + 2 : start + 2 + 12 * count]
    bomb = head + data[8:] + filler + struct.pack("<H", count + 200) + listed + entries + bytes(4)
    tracemalloc.start()
    try:
        found = read_page(bomb)
        assert found is not None
        assert found.shape == (*SIZE, 5)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    wide = tiff(VALUES, packed=True, t277=60_000, t257=1_000, t278=1_000, t256=1_000)
    assert "may be a decompression bomb" in refused(wide, channels=(0,), max_pixels=1_000_000)
    tall = tiff(VALUES, packed=True, t277=60_000, t257=10, t278=10, t322=4_096, t323=4_096)
    assert "may be a decompression bomb" in refused(tall, channels=(0,), max_pixels=1_000_000)


def test_only_gray_pages_are_channels() -> None:
    gray, colors = VALUES[:, :, 3], VALUES[:, :, :3]
    pages = paged([colors, colors[::-1]])
    assert np.array_equal(decoded(pages, channels=(2, 0)), colors[:, :, [2, 0]])
    assert "has pages in color (RGB)" in refused(paged([gray, colors]), channels=(0, 1))


def test_a_stack_in_a_stack_is_refused() -> None:
    inner = join_contents([npy(VALUES[:, :, 0])] * 2)
    nested = join_contents([inner, inner])
    assert "holds another stack" in refused(nested, preview=True)
    assert "holds another stack" in refused(nested, stack=("a", "b"))
    with pytest.raises(UnreadableImageError, match="holds another stack"):
        identify_image(io.BytesIO(nested))
