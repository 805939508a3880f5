"""DICOM: what a viewer shows of one frame, and nothing else of the file."""

from __future__ import annotations

import io
import random
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest

from folds.errors import EnsembleError
from folds.images import dicom
from folds.images.content_index import UnreadableImageError
from folds.images.decode import decode_image, identify_image
from folds.images.settings import ImageSettings

pydicom = pytest.importorskip("pydicom")
SIZE = 6, 8
RAMP = np.arange(48, dtype=np.uint16).reshape(SIZE) * 80  # 0 to 3760


def written(
    values: np.ndarray = RAMP, syntax: str = "1.2.840.10008.1.2.1", bits: int | None = None, **elements: Any
) -> bytes:
    """A DICOM file; frames are the first axis of four, or of three with one sample."""
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    samples = values.shape[-1] if values.ndim > 2 and values.shape[-1] == 3 else 1
    made.Rows, made.Columns = values.shape[-2:] if samples == 1 else values.shape[-3:-1]
    frames = values.size // (made.Rows * made.Columns * samples)
    made.SamplesPerPixel, made.PhotometricInterpretation = samples, "RGB" if samples == 3 else "MONOCHROME2"
    if samples == 3:
        made.PlanarConfiguration = 0
    if frames > 1:
        made.NumberOfFrames = frames
    made.BitsAllocated = 8 * values.dtype.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(values.dtype.kind == "i")
    made.PixelData = values.tobytes()
    made["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    for name, value in elements.items():
        setattr(made, name, value)
    file = io.BytesIO()
    pydicom.dcmwrite(file, made, enforce_file_format=True)
    return file.getvalue()


def decoded(data: bytes, **settings: Any) -> np.ndarray:
    return decode_image(data, ImageSettings(*SIZE, **settings)).pixels


def gray(data: bytes, **settings: Any) -> np.ndarray:
    pixels = decoded(data, **settings)
    assert (pixels == pixels[:, :, :1]).all()
    return pixels[:, :, 0]


def refused(data: bytes, **settings: Any) -> str:
    with pytest.raises(UnreadableImageError) as error:
        decoded(data, **settings)
    return str(error.value)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(((values.astype(float) - low) / (high - low) * 255).clip(0, 255)).astype(np.uint8)


def test_the_window_of_the_file_is_that_of_the_standard() -> None:
    found = decode_image(written(WindowCenter=1000, WindowWidth=2001), ImageSettings(*SIZE))
    assert np.array_equal(found.pixels[:, :, 0], scaled(RAMP, -0.5, 1999.5))
    assert found.remarks == ("of DICOM: the window of each file becomes 0 to 255 (`window=LO,HI` sets one for all)",)
    exact = written(WindowCenter=[1000, 7], WindowWidth=[2000, 7], VOILUTFunction="LINEAR_EXACT")
    assert np.array_equal(gray(exact), scaled(RAMP, 0, 2000))
    curve = gray(written(WindowCenter=1000, WindowWidth=2000, VOILUTFunction="SIGMOID")).astype(float)
    assert np.abs(curve - 255 / (1 + np.exp(-4 * (RAMP - 1000.0) / 2000))).max() <= 0.5
    assert set(np.unique(gray(written(WindowCenter=1000, WindowWidth=1)))) == {0, 255}


def test_a_window_of_the_user_is_of_rescaled_values() -> None:
    data = written(RAMP.astype(np.int16), RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    assert np.array_equal(gray(data, window=(-1000, 2000)), scaled(RAMP * 2.0 - 1024, -1000, 2000))
    assert np.array_equal(gray(data), scaled(RAMP * 2.0 - 1024, -160, 239))


def test_without_a_window_the_bits_of_the_file_are_the_range() -> None:
    found = decode_image(written(bits=12, RescaleSlope=1, RescaleIntercept=-1000), ImageSettings(*SIZE))
    assert np.array_equal(found.pixels[:, :, 0], scaled(RAMP, 0, 4095))
    assert found.depth is not None
    assert (found.depth.kind, found.depth.window) == ("12-bit DICOM", (-1000, 3095))
    plain = (RAMP // 16).astype(np.uint8)
    assert np.array_equal(gray(written(plain), window=(0, 4095)), plain)  # a window is for more than 8 bits
    assert "needs one" in refused(written(RAMP.astype(np.uint32)))


def test_monochrome1_is_inverted_and_padding_is_black() -> None:
    assert np.array_equal(
        gray(written(PhotometricInterpretation="MONOCHROME1"), window=(0, 3760)), 255 - scaled(RAMP, 0, 3760)
    )
    values = RAMP.astype(np.int16)
    values[0] = -2000
    padded = written(values, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1")
    found = decode_image(padded, ImageSettings(*SIZE, window=(0, 3760)))
    assert not found.pixels[0].any()
    assert found.pixels[1].all()
    assert found.depth is not None
    assert found.depth.lowest == values[1:].min()


def test_a_voi_lut_of_the_file_is_applied() -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    item = Dataset()
    item.LUTDescriptor = [256, 0, 8]
    item.add_new("LUTData", "US", list(range(255, -1, -1)))
    data = written(np.minimum(RAMP, 255), VOILUTSequence=Sequence([item]))
    assert np.array_equal(gray(data), 255 - np.minimum(RAMP, 255))


def test_colors_are_rgb_whatever_the_file_has() -> None:
    colors = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    assert np.array_equal(decoded(written(colors)), colors)
    flat = np.full((*SIZE, 3), (100, 128, 128), np.uint8)  # gray as Y, Cb, Cr
    assert (decoded(written(flat, PhotometricInterpretation="YBR_FULL")) == 100).all()
    index = (RAMP // 80).astype(np.uint8)
    palette = {f"{name}PaletteColorLookupTableDescriptor": [48, 0, 8] for name in ("Red", "Green", "Blue")}
    for at, name in enumerate(("Red", "Green", "Blue")):
        palette[f"{name}PaletteColorLookupTableData"] = bytes((at * 50 + one) % 256 for one in range(48))
    found = decoded(written(index, PhotometricInterpretation="PALETTE COLOR", **palette))
    assert np.array_equal(found, np.stack([index, index + 50, index + 100], axis=2))


def test_one_frame_of_several_is_decoded() -> None:
    frames = np.stack([RAMP + 100 * at for at in range(5)])
    data = written(frames)
    for frame, at in ((None, 0), (3, 3), ("middle", 2)):
        assert np.array_equal(gray(data, frame=frame, window=(0, 5000)), scaled(frames[at], 0, 5000))
    assert "has 5 frames" in refused(data, frame=9)
    assert decode_image(data, ImageSettings(*SIZE, frame=3)).remarks == ("of several frames: frame 3 is read",)


def test_rescale_and_window_of_a_frame_are_its_own() -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    groups = []
    for at in range(2):
        group, scale, window = Dataset(), Dataset(), Dataset()
        scale.RescaleSlope, scale.RescaleIntercept = at + 1, 0
        window.WindowCenter, window.WindowWidth = 1000.5, 2001
        group.PixelValueTransformationSequence = Sequence([scale])
        group.FrameVOILUTSequence = Sequence([window])
        groups.append(group)
    data = written(np.stack([RAMP, RAMP]), PerFrameFunctionalGroupsSequence=Sequence(groups))
    assert np.array_equal(gray(data), scaled(RAMP, 0, 2000))
    assert np.array_equal(gray(data, frame=1), scaled(2.0 * RAMP, 0, 2000))


def compressed(syntax: str) -> bytes:
    made = pydicom.dcmread(io.BytesIO(written(bits=12)))
    made.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    made.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    pydicom.dcmwrite(file, made)
    return file.getvalue()


def test_compression_is_read_or_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.array_equal(gray(compressed("1.2.840.10008.1.2.5")), scaled(RAMP, 0, 4095))  # run lengths
    from pydicom.pixels.decoders.base import Decoder

    monkeypatch.setattr(Decoder, "is_available", property(lambda self: False))
    text = refused(compressed("1.2.840.10008.1.2.4.70"))
    assert "JPEG Lossless" in text
    assert "1.2.840.10008.1.2.4.70" in text
    assert "pip install pylibjpeg" in text
    assert "which is not read" in refused(compressed("1.2.3.4"))


def deflated(data: bytes) -> bytes:
    start = dicom._transfer_syntax(data)[1]
    made = pydicom.dcmread(io.BytesIO(written(syntax="1.2.840.10008.1.2.1.99")), stop_before_pixels=True)
    file = io.BytesIO()
    pydicom.dcmwrite(file, made)
    head = file.getvalue()[: dicom._transfer_syntax(file.getvalue())[1]]
    packer = zlib.compressobj(wbits=-15)
    return head + packer.compress(data[start:]) + packer.flush()


def test_a_deflated_file_is_read_and_a_bomb_is_not() -> None:
    data = deflated(written(bits=12))
    assert np.array_equal(gray(data), scaled(RAMP, 0, 4095))
    assert identify_image(io.BytesIO(data)) == SIZE
    bomb = deflated(written() + bytes(40_000_000))
    assert len(bomb) < 100_000
    assert "is not decoded" in refused(bomb, max_pixels=1_000_000)


def test_parts_of_rows_give_the_values_of_the_whole_and_few_temporary_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    options = [
        {"window": (0, 3000), "RescaleSlope": 0.7, "RescaleIntercept": -9, "PixelPaddingValue": 240},
        {"WindowCenter": 1000, "WindowWidth": 1500},
        {"bits": 12, "PhotometricInterpretation": "MONOCHROME1"},
    ]
    files = [written(**{name: value for name, value in one.items() if name != "window"}) for one in options]
    whole = [gray(data, window=one.get("window")) for data, one in zip(files, options, strict=True)]
    monkeypatch.setattr(dicom, "_AT_ONCE", 10)
    for data, one, expected in zip(files, options, whole, strict=True):
        assert np.array_equal(gray(data, window=one.get("window")), expected)
    monkeypatch.undo()
    large = written(np.zeros((2_000, 2_000), np.uint16), RescaleSlope=2, RescaleIntercept=1)
    tracemalloc.start()
    try:
        decoded(large, window=(0, 100))
        assert tracemalloc.get_traced_memory()[1] < 20 * 4_000_000  # bytes; 64-bit temporaries were over 30 a pixel
    finally:
        tracemalloc.stop()


def test_sizes_that_are_too_large_or_missing_are_unusable() -> None:
    assert "decompression bomb" in refused(written(Rows=65_000, Columns=65_000))
    assert "decompression bomb" in refused(written(), max_pixels=47)
    assert "without an image" in refused(written(Rows=0))
    assert "cannot be decoded" in refused(written(Rows=60))
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        identify_image(io.BytesIO(written(Rows=65_000, Columns=65_000)))


def test_nothing_private_is_in_a_reason_or_a_warning(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    data = written(PatientName="Secret^Name", PatientID="secret-7", PatientBirthDate="19700101", RescaleIntercept=0)
    chance = random.Random(0)
    reasons = []
    start = dicom._transfer_syntax(data)[1]
    for _ in range(150):
        changed = bytearray(data[: chance.randint(start, len(data))])
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(start - 20, len(changed))] = chance.randrange(256)
        try:
            assert decoded(bytes(changed), max_pixels=100_000).shape == (*SIZE, 3)
        except UnreadableImageError as error:
            reasons.append(str(error))
    said = " ".join([*reasons, *capfd.readouterr(), *(str(one.message) for one in recwarn), caplog.text]).lower()
    assert reasons
    assert "secret" not in said
    assert "1970" not in said


def test_nested_sequences_end() -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    def nested(depth: int) -> Dataset:
        inner = Dataset()
        if depth:
            inner.VOILUTSequence = Sequence([nested(depth - 1)])
        return inner

    start = written(WindowCenter=1000, WindowWidth=2001)
    opened = b"\x28\x00\x10\x30SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"  # a sequence and an item in it
    assert "DICOM file" in refused(start[:-110] + opened * 20_000)
    data = written(VOILUTSequence=Sequence([nested(30)]))
    assert "damaged window" in refused(data)


def test_a_patient_id_is_read_alone() -> None:
    assert dicom.patient_id(io.BytesIO(written(PatientID=" p 7 ", PatientName="A^B"))) == "p 7"
    assert dicom.patient_id(io.BytesIO(written())) == ""


def test_without_pydicom_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written()
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(EnsembleError, match="need pydicom") as error:
        decoded(data)
    assert error.value.hint == "pip install 'ensemble-folds[dicom]'"
