"""One file → one array: every mode, depth, rotation and fit gives the pixels it should."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from folds.errors import UsageError
from folds.images.content_index import UnreadableImageError
from folds.images.decode import decode_image, fit_image
from folds.images.resizing import BACKGROUND
from folds.images.settings import ImageSettings

FOUR = ImageSettings(4, 4)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flat(mode: str, colour) -> Image.Image:
    return Image.new(mode, (8, 8), colour)


def png16(values: np.ndarray, colour_type: int) -> bytes:
    """A 16-bit PNG of (height, width[, channels]) uint16, which Pillow cannot write in colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def palette(transparency: int | None = None) -> bytes:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 200])
    return encoded(image, "PNG", **({} if transparency is None else {"transparency": transparency}))


def half(colour: int) -> float:
    return (colour * 128 + BACKGROUND[0] * 127) / 255


def orange_cmyk_jpeg() -> bytes:
    return encoded(flat("CMYK", (0, 100, 200, 20)), "JPEG", quality=100)


EIGHT_BITS = {
    "RGB PNG": (lambda: encoded(flat("RGB", (200, 100, 50)), "PNG"), (200, 100, 50)),
    "RGB JPEG": (lambda: encoded(flat("RGB", (200, 100, 50)), "JPEG", quality=100), (200, 100, 50)),
    "RGB WebP": (lambda: encoded(flat("RGB", (200, 100, 50)), "WEBP", lossless=True), (200, 100, 50)),
    "RGB BMP": (lambda: encoded(flat("RGB", (200, 100, 50)), "BMP"), (200, 100, 50)),
    "RGB TIFF": (lambda: encoded(flat("RGB", (200, 100, 50)), "TIFF"), (200, 100, 50)),
    "RGB PNM": (lambda: encoded(flat("RGB", (200, 100, 50)), "PPM"), (200, 100, 50)),
    "CMYK JPEG": (orange_cmyk_jpeg, (235, 143, 51)),  # 255·(1−ink)·(1−black), as Pillow rounds it
    "CMYK TIFF": (lambda: encoded(flat("CMYK", (0, 100, 200, 20)), "TIFF"), (235, 143, 51)),
    "YCbCr TIFF": (lambda: encoded(flat("YCbCr", (120, 128, 128)), "TIFF"), (120, 120, 120)),
    "grey PNG": (lambda: encoded(flat("L", 77), "PNG"), (77, 77, 77)),
    "grey JPEG": (lambda: encoded(flat("L", 77), "JPEG", quality=100), (77, 77, 77)),
    "one bit, white": (lambda: encoded(flat("1", 1), "PNG"), (255, 255, 255)),
    "one bit, black": (lambda: encoded(flat("1", 0), "PNG"), (0, 0, 0)),
    "grey with alpha": (lambda: encoded(flat("LA", (200, 128)), "PNG"), (half(200),) * 3),
    "RGBA, half": (lambda: encoded(flat("RGBA", (200, 100, 0, 128)), "PNG"), (half(200), half(100), half(0))),
    "RGBA, clear": (lambda: encoded(flat("RGBA", (255, 0, 0, 0)), "PNG"), BACKGROUND),
    "RGBA, opaque": (lambda: encoded(flat("RGBA", (200, 100, 50, 255)), "WEBP", lossless=True), (200, 100, 50)),
    "palette": (palette, (0, 0, 200)),
    "palette, its colour clear": (lambda: palette(1), BACKGROUND),
    "palette, another clear": (lambda: palette(0), (0, 0, 200)),
    "grey, its value clear": (lambda: encoded(flat("L", 77), "PNG", transparency=77), BACKGROUND),
    "palette with alpha": (lambda: encoded(flat("RGBA", (0, 0, 200, 128)).convert("PA"), "TIFF"), (half(0), half(0), half(200))),
    "GIF": (lambda: encoded(flat("RGB", (200, 100, 50)), "GIF"), (200, 100, 50)),
}  # fmt: skip


@pytest.mark.parametrize("name", EIGHT_BITS)
def test_every_mode_of_eight_bits_gives_its_colour(name: str) -> None:
    try:
        data = EIGHT_BITS[name][0]()
    except OSError:
        pytest.skip("this Pillow does not write it")
    expected = EIGHT_BITS[name][1]
    decoded = decode_image(data, FOUR)
    assert decoded.pixels.shape == (4, 4, 3)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.depth is None
    np.testing.assert_allclose(decoded.pixels, np.broadcast_to(np.array(expected, float), (4, 4, 3)), atol=1.01)


RAMP = np.repeat(np.arange(0, 4096, 16, dtype=np.uint16)[:, None], 4, axis=1)  # 12-bit values in 16 bits


def ramp(kind: str) -> bytes:
    if kind == "PNG":
        return encoded(Image.fromarray(RAMP), "PNG")
    if kind == "TIFF":
        return encoded(Image.fromarray(RAMP), "TIFF")
    if kind == "TIFF, big-endian":
        return encoded(Image.frombytes("I;16B", RAMP.shape[::-1], RAMP.astype(">u2").tobytes()), "TIFF")
    if kind == "TIFF, 32 bits":
        return encoded(Image.fromarray(RAMP.astype(np.int32)), "TIFF")
    if kind == "TIFF, floats":
        return encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF")
    return b"P5 4 256 65535\n" + RAMP.astype(">u2").tobytes()  # PGM, which Pillow opens in mode I


DEEP = ("PNG", "TIFF", "TIFF, big-endian", "TIFF, 32 bits", "TIFF, floats", "PGM")


@pytest.mark.parametrize("kind", DEEP)
def test_deep_images_are_scaled_by_the_window_and_not_clipped(kind: str) -> None:
    decoded = decode_image(ramp(kind), ImageSettings(256, 4, window=(0, 4095)))
    np.testing.assert_array_equal(decoded.pixels[:, 0, 1], np.rint(RAMP[:, 0] / 4095 * 255))
    assert decoded.depth is not None
    assert (decoded.depth.lowest, decoded.depth.highest, decoded.depth.window) == (0, 4080, (0, 4095))


def test_values_outside_the_window_become_black_and_white() -> None:
    pixels = decode_image(ramp("PNG"), ImageSettings(256, 4, window=(1000, 2000))).pixels[:, 0, 0]
    assert (pixels[RAMP[:, 0] <= 1000] == 0).all()
    assert (pixels[RAMP[:, 0] >= 2000] == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF, big-endian", "PGM"])
def test_without_a_window_16_bits_span_the_range_of_their_type(kind: str) -> None:
    decoded = decode_image(ramp(kind), ImageSettings(256, 4))
    np.testing.assert_array_equal(decoded.pixels[:, 0, 0], np.rint(RAMP[:, 0] / 65535 * 255))
    assert decoded.depth is not None
    assert decoded.depth.window == (0, 65535)


@pytest.mark.parametrize("kind", ["TIFF, 32 bits", "TIFF, floats"])
def test_32_bits_and_floats_need_a_window_and_report_values(kind: str) -> None:
    with pytest.raises(UnreadableImageError, match=r"0 to 4080.*needs a window") as caught:
        decode_image(ramp(kind), FOUR)
    assert caught.value.values == (0, 4080)


def test_floats_that_are_not_finite_are_refused() -> None:
    image = Image.fromarray(np.array([[1.0, np.nan], [np.inf, 2.0]], np.float32))
    with pytest.raises(UnreadableImageError, match="2 pixels that are not finite"):
        decode_image(encoded(image, "TIFF"), ImageSettings(2, 2, window=(0, 1)))


def test_a_tiff_whose_zero_is_white_is_inverted_after_its_window() -> None:
    data = encoded(Image.fromarray(RAMP), "TIFF", tiffinfo={262: 0})
    pixels = decode_image(data, ImageSettings(256, 4, window=(0, 4095))).pixels
    np.testing.assert_allclose(pixels[:, 0, 0], 255 - RAMP[:, 0] / 4095 * 255, atol=0.51)


def test_signed_sixteen_bits_reach_below_zero() -> None:
    values = np.repeat(np.array([[-1000, 0, 1000, 3000]], np.int16), 4, axis=0)
    data = encoded(Image.fromarray(values.view(np.uint16)), "TIFF", tiffinfo={339: 2})
    decoded = decode_image(data, ImageSettings(4, 4, window=(-1000, 1000)))
    assert decoded.pixels[0, :, 0].tolist() == [0, 128, 255, 255]
    whole = decode_image(data, FOUR)
    assert whole.depth is not None
    assert (whole.depth.kind, whole.depth.window) == ("signed 16-bit grey", (-32768, 32767))


def test_16_bit_color_is_read_by_its_high_byte_and_reported() -> None:
    values = np.full((4, 4, 3), (0x80FF, 0x4000, 0xFFFF), np.uint16)
    decoded = decode_image(png16(values, 2), FOUR)
    assert decoded.pixels[0, 0].tolist() == [0x80, 0x40, 0xFF]
    assert decoded.depth is not None
    assert decoded.depth.kind == "16-bit colour"
    clear = np.full((4, 4, 4), (0x80FF, 0x4000, 0xFFFF, 0), np.uint16)
    assert tuple(decode_image(png16(clear, 6), FOUR).pixels[0, 0]) == BACKGROUND


CORNERS = np.zeros((16, 32, 3), np.uint8)  # wider than high, each quarter another colour
CORNERS[:8, :16], CORNERS[:8, 16:], CORNERS[8:, :16], CORNERS[8:, 16:] = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_rotation_is_applied(kind: str, orientation: int) -> None:
    # The file holds the picture turned so that `orientation` turns it back.
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose values of the inverse
    stored = Image.fromarray(CORNERS)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    best = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    pixels = decode_image(encoded(stored, kind, exif=exif, **best), ImageSettings(16, 32)).pixels
    np.testing.assert_allclose(pixels.astype(int), CORNERS, atol=8)


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [flat("RGB", (200, 100, 50)), flat("RGB", (0, 0, 0))]
    for kind, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert decode_image(data, FOUR).pixels[0, 0].tolist() == [200, 100, 50], kind


def test_squash_keeps_the_whole_image() -> None:
    pixels = decode_image(encoded(Image.fromarray(CORNERS), "PNG"), ImageSettings(8, 8)).pixels
    assert [pixels[at].tolist() for at in ((0, 0), (0, 7), (7, 0), (7, 7))] == [
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [255, 255, 255],
    ]


@pytest.mark.parametrize("turn", [False, True])
def test_crop_keeps_the_centre_and_the_proportions(turn: bool) -> None:
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, 8:24] = 255  # the central square
    image = Image.fromarray(wide.swapaxes(0, 1) if turn else wide)
    pixels = decode_image(encoded(image, "PNG"), ImageSettings(8, 8, fit="crop")).pixels
    assert (pixels[1:-1, 1:-1] == 255).all()
    assert (pixels > 200).all()  # the filter reaches a little beyond the edge, as if the crop came after the resizing


@pytest.mark.parametrize("turn", [False, True])
def test_crop_with_pixels_keeps_the_central_square_of_that_size(turn: bool) -> None:
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[4:12, 12:20] = 255  # the central 8 × 8
    image = Image.fromarray(wide.swapaxes(0, 1) if turn else wide)
    pixels = decode_image(encoded(image, "PNG"), ImageSettings(8, 8, fit="crop:8")).pixels
    assert (pixels == 255).all()
    assert (decode_image(encoded(image, "PNG"), ImageSettings(8, 8, fit="crop:16")).pixels == 0).any()
    # Of a side that is longer than the image there is only the image.
    larger, cropped = (
        decode_image(encoded(image, "PNG"), ImageSettings(8, 8, fit=fit)).pixels for fit in ("crop:400", "crop")
    )
    np.testing.assert_array_equal(larger, cropped)


@pytest.mark.parametrize("fit", ["crop:", "crop:0", "crop:x", "squash:8", "cropp"])
def test_a_fit_that_cannot_be_is_refused(fit: str) -> None:
    with pytest.raises(UsageError, match="resize"):
        ImageSettings(8, 8, fit=fit)


def test_letterbox_keeps_proportions_and_pads_with_background() -> None:
    pixels = decode_image(
        encoded(Image.new("RGB", (32, 16), (200, 100, 50)), "PNG"), ImageSettings(8, 8, fit="letterbox")
    ).pixels
    assert (pixels[2:6] == (200, 100, 50)).all()
    assert (pixels[[0, 1, 6, 7]] == BACKGROUND).all()


@pytest.mark.parametrize("fit", ["squash", "crop", "crop:300", "letterbox"])
@pytest.mark.parametrize("size", [(515, 387), (1024, 300), (90, 1400)])
def test_a_jpeg_decoded_at_reduced_size_matches_full_decoding(
    fit: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    picture = np.stack([127 + 120 * np.sin(x / 40), 127 + 120 * np.cos(y / 30), (x + y) % 256], axis=-1).astype(
        np.uint8
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(picture), "JPEG", quality=95, exif=exif)
    settings = ImageSettings(24, 32, fit=fit)
    drafted = decode_image(data, settings).pixels.astype(int)
    monkeypatch.setattr("folds.images.decode.draft", lambda image, settings: None)
    whole = decode_image(data, settings).pixels.astype(int)
    difference = np.abs(drafted - whole)[..., :2]  # the third channel jumps at every 256
    assert difference.mean() < 1.5
    assert difference.max() < 12


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean squash"):
        ImageSettings(8, 8, fit="squish")
    with pytest.raises(UsageError, match="LO < HI"):
        ImageSettings(8, 8, window=(5, 5))
    with pytest.raises(UsageError, match="at least 1 pixel"):
        ImageSettings(0, 8)


def test_a_margin_is_decoded_and_cut_off() -> None:
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)), "PNG")
    settings = ImageSettings(24, 20, margin=(3, 2))
    large = decode_image(data, settings.enlarged).pixels
    assert large.shape == (30, 24, 3)
    np.testing.assert_array_equal(decode_image(data, settings).pixels, large[3:27, 2:22])
    np.testing.assert_array_equal(fit_image(Image.open(io.BytesIO(data)), settings), large[3:27, 2:22])
    assert settings.as_dict() != settings.enlarged.as_dict()
    assert ImageSettings(24, 20).as_dict() == {"height": 24, "width": 20, "fit": "squash", "window": None}
    with pytest.raises(UsageError, match="half the side, found 13 and 2"):
        ImageSettings(24, 20, margin=(13, 2))


def test_formats_that_start_other_programs_are_not_opened() -> None:
    with pytest.raises(UnreadableImageError, match="not an image of a known format"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", FOUR)


def test_the_limit_of_pixels_can_be_raised_and_lowered(monkeypatch):
    data = encoded(flat("L", 90), "PNG")
    assert decode_image(data, ImageSettings(4, 4, max_pixels=64)).pixels.shape == (4, 4, 3)
    with pytest.raises(UnreadableImageError, match="more than 63 pixels"):
        decode_image(data, ImageSettings(4, 4, max_pixels=63))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(UnreadableImageError, match="more than 40 pixels"):
        decode_image(data, FOUR)
    assert decode_image(data, ImageSettings(4, 4, max_pixels=64)).pixels.max() == 90
    assert Image.MAX_IMAGE_PIXELS == 20, "the limit of other programs in this process is restored"
    assert ImageSettings(4, 4, max_pixels=64).as_dict() == FOUR.as_dict(), "the same pixels need no second cache"
