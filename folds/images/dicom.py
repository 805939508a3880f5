"""Decode one frame of a DICOM file as a radiologist's viewer shows it: rescaled, windowed, black at 0.

Only technical elements are read, and PatientID where persons are asked for; no value of a file is part of a message.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from folds.errors import EnsembleError
from folds.images.bit_depth import Depth
from folds.images.content_index import UnreadableImageError
from folds.images.frames import frame_of, frame_remark
from folds.images.settings import MAX_PIXELS

_PREAMBLE = 132  # bytes with the mark
_DEFLATED, _PLAIN = "1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0"
_FEW_BYTES = 4_096  # that hold the transfer syntax
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_MAX_ELEMENTS = 64
_AT_ONCE = 1 << 18  # pixels
_SIZE_TAGS = ("Rows", "Columns")
_TAGS = (
    *_SIZE_TAGS,
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "BitsAllocated", "BitsStored"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "ModalityLUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelPresentation"),
    *(f"{color}PaletteColorLookupTable{part}" for color in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")),
    *(f"Segmented{color}PaletteColorLookupTableData" for color in ("Red", "Green", "Blue")),
)
_OF_FILE = "of DICOM: the window of each file becomes 0 to 255 (`window=LO,HI` sets one for all)"
_LUT_OF_FILE = "of DICOM: the VOI LUT of each file makes 0 to 255 (`window=LO,HI` replaces it)"
_DECODERS = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or python-gdcm"


@dataclass(frozen=True)
class DicomImage:
    """A frame of a DICOM file.

    Attributes
    ----------
    image : of mode L, RGB or F (0 to 255).
    depth : of gray that was scaled by a window that is not of the file itself.
    remarks : what was chosen in the file.
    """

    image: Image.Image
    depth: Depth | None
    remarks: tuple[str, ...]


def is_dicom(start: bytes) -> bool:
    """Return whether bytes are the start of a DICOM file, which has a mark after its preamble."""
    return start[128:_PREAMBLE] == b"DICM"


def dicom_size(file: IO[bytes], max_pixels: int | None = None) -> tuple[int, int]:
    """Return (rows, columns) of a DICOM file from its header.

    Raises
    ------
    UnreadableImageError : they are missing, or too large.
    """
    found = _read(file, _SIZE_TAGS, max_pixels)
    return _checked_size(found, max_pixels)


def read_dicom(
    data: bytes,
    window: tuple[float, float] | None = None,
    frame: int | str | None = None,
    max_pixels: int | None = None,
) -> DicomImage:
    """Decode one frame of a DICOM file.

    Gray is rescaled (or mapped by the modality LUT), then windowed by `window`, else by the file's VOI LUT or window,
    else by the full range of its type; MONOCHROME1 is inverted and pixel padding is black. YBR and palettes become
    RGB.

    Parameters
    ----------
    frame : counted from 0, or ``middle``; None for the first.

    Raises
    ------
    EnsembleError : pydicom is not installed.
    UnreadableImageError : the file is damaged or too large, has no such frame, or its compression is not read.
    """
    data = _inflated(data, max_pixels)
    header = _read(io.BytesIO(data), _TAGS, max_pixels)
    height, width = _checked_size(header, max_pixels)
    frames = max(1, int(header.get("NumberOfFrames") or 1))
    at = frame_of(frame, frames)
    remarks = frame_remark(frame, at, frames)
    stored = _stored(data, at, header)
    samples = int(header.get("SamplesPerPixel") or 1)
    if stored.shape[:2] != (height, width) or stored.ndim != (2 if samples == 1 else 3):
        raise UnreadableImageError("is a damaged DICOM file: its pixels are not those of its size")
    if samples == 3:
        return DicomImage(Image.fromarray(_eight_bits(stored[:, :, :3], _bits(header))), None, remarks)
    if header.get("PhotometricInterpretation") == "PALETTE COLOR":
        return DicomImage(_from_palette(stored, header), None, remarks)
    if samples != 1:
        raise UnreadableImageError(f"is a DICOM file of {samples} samples per pixel, expected 1 or 3")
    image, depth, more = _gray(stored, header, at, window)
    return DicomImage(image, depth, (*remarks, *more))


def patient_id(file: IO[bytes]) -> str:
    """Return the PatientID of a DICOM file; "" if it is missing.

    Raises
    ------
    UnreadableImageError : the file is damaged.
    """
    found = _read(file, ("PatientID",), None).get("PatientID")
    return "" if found is None else " ".join(str(found).split())


def _pydicom() -> Any:
    try:
        import pydicom
    except ModuleNotFoundError:
        raise EnsembleError(
            "DICOM files need pydicom, which is not installed", hint="pip install 'ensemble-folds[dicom]'"
        ) from None
    # Warnings of a file quote its values.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    return pydicom


def _read(file: IO[bytes], tags: Sequence[str], max_pixels: int | None) -> Any:
    """Return the elements `tags` of a file as a data set of pydicom, without the pixels."""
    pydicom = _pydicom()
    start = file.read(_FEW_BYTES)
    if not is_dicom(start):
        raise UnreadableImageError("has a name of DICOM, and not the mark DICM after its preamble of 128 bytes")
    if _transfer_syntax(start)[0] == _DEFLATED:
        file = io.BytesIO(_inflated(start + file.read(), max_pixels))
    file.seek(0)
    try:
        found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(tags))
        for tag in tags:
            found.get(tag)  # the values are converted here: a damaged one raises
        return found
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises many kinds, whose texts quote values
        raise UnreadableImageError(f"is a damaged DICOM file ({type(error).__name__})") from None


def _transfer_syntax(data: bytes) -> tuple[str, int]:
    """Return the transfer syntax in the file meta information, and where that ends; "" if it is not found."""
    at, found = _PREAMBLE, ""
    for _ in range(_MAX_ELEMENTS):
        if len(data) < at + 12 or data[at : at + 2] != b"\x02\x00":
            break
        element, kind = data[at + 2 : at + 4], data[at + 4 : at + 6]
        long = kind in _LONG
        size = struct.unpack_from("<I" if long else "<H", data, at + (8 if long else 6))[0]
        start = at + (12 if long else 8)
        if element == b"\x10\x00":
            found = data[start : start + min(size, 64)].rstrip(b"\0 ").decode("ascii", "replace")
        at = start + size
    return found, at


def _inflated(data: bytes, max_pixels: int | None) -> bytes:
    """Return a file whose data set is deflated as one that is not; others are unchanged."""
    syntax, end = _transfer_syntax(data)
    if syntax != _DEFLATED:
        return data
    limit = 2 * (max_pixels or MAX_PIXELS) + (1 << 20)
    try:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        plain = inflater.decompress(data[end:], limit)
    except zlib.error:
        raise UnreadableImageError("is a damaged DICOM file: its deflated data set cannot be read") from None
    if inflater.unconsumed_tail:
        raise UnreadableImageError(f"is a deflated DICOM file of more than {limit:,} bytes and is not decoded")
    meta = struct.pack("<HH2sHI", 2, 0, b"UL", 4, 8 + len(_PLAIN)) + struct.pack("<HH2sH", 2, 16, b"UI", len(_PLAIN))
    return b"".join([data[:_PREAMBLE], meta, _PLAIN, plain])


def _checked_size(header: Any, max_pixels: int | None) -> tuple[int, int]:
    height, width = (header.get(name) for name in _SIZE_TAGS)
    if not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 1:
        raise UnreadableImageError("is a DICOM file without an image (no rows and columns)")
    if height * width > (max_pixels or MAX_PIXELS):
        raise Image.DecompressionBombError
    return height, width


def _bits(header: Any) -> int:
    allocated = int(header.get("BitsAllocated") or 8)
    return min(int(header.get("BitsStored") or allocated), allocated)


def _stored(data: bytes, at: int, header: Any) -> NDArray[Any]:
    """Return (rows, columns) or (rows, columns, samples) the stored values of a frame; YBR becomes RGB."""
    pydicom = _pydicom()
    from pydicom.pixels import get_decoder, pixel_array

    syntax = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
    if syntax is None:
        raise UnreadableImageError("is a damaged DICOM file: it has no transfer syntax")
    named = "".join(letter for letter in str(syntax)[:64] if letter.isdigit() or letter == ".")
    try:
        decoder = get_decoder(pydicom.uid.UID(named))
    except NotImplementedError:
        raise UnreadableImageError(f"has the transfer syntax {named}, which is not read") from None
    if not decoder.is_available:
        raise UnreadableImageError(
            f"is compressed as {pydicom.uid.UID(named).name} ({named}), for which no decoder is installed: {_DECODERS}"
        )
    try:
        return np.asarray(pixel_array(io.BytesIO(data), index=at))
    except (MemoryError, Image.DecompressionBombError):
        raise
    except Exception as error:
        raise UnreadableImageError(f"is a DICOM file whose pixels cannot be decoded ({type(error).__name__})") from None


def _eight_bits(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray((values >> max(0, bits - 8)) if values.dtype.itemsize > 1 else values).astype(np.uint8)


def _from_palette(stored: NDArray[Any], header: Any) -> Image.Image:
    from pydicom.pixels import apply_color_lut

    try:
        colors = apply_color_lut(stored, header)[:, :, :3]
    except MemoryError:
        raise
    except Exception as error:
        raise UnreadableImageError(f"is a DICOM file with a damaged palette ({type(error).__name__})") from None
    return Image.fromarray(_eight_bits(colors, 8 * colors.dtype.itemsize))


def _groups(header: Any, at: int) -> list[Any]:
    """Return where the rescale and the window of a frame may be: its own items, those of all frames, the file."""
    places = []
    frames = header.get("PerFrameFunctionalGroupsSequence") or ()
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    for group in (*frames[at : at + 1], *shared[:1]):
        for name in ("FrameVOILUTSequence", "PixelValueTransformationSequence"):
            places += list(group.get(name) or ())[:1]
    return [*places, header]


def _first(places: Sequence[Any], name: str) -> float | None:
    """Return the first value of an element as a number; None if no place has it."""
    for place in places:
        value = place.get(name)
        if value not in (None, ""):
            number = float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)
            if math.isfinite(number):
                return number
    return None


def _gray(
    stored: NDArray[Any], header: Any, at: int, window: tuple[float, float] | None
) -> tuple[Image.Image, Depth | None, tuple[str, ...]]:
    try:
        return _gray_of(stored, header, _groups(header, at), window)
    except (UnreadableImageError, MemoryError):
        raise
    except Exception as error:  # of values that are no numbers, or of look-up tables
        raise UnreadableImageError(f"is a DICOM file with a damaged window or scale ({type(error).__name__})") from None


def _gray_of(
    stored: NDArray[Any], header: Any, places: Sequence[Any], window: tuple[float, float] | None
) -> tuple[Image.Image, Depth | None, tuple[str, ...]]:
    from pydicom.pixels import apply_modality_lut

    # Rows are taken in parts, whose temporary numbers of 64 bits are few: those of a large image would be gigabytes.
    step = max(1, _AT_ONCE // stored.shape[1])
    parts = [slice(top, top + step) for top in range(0, len(stored), step)]
    padding = _padding(stored, header)
    inverted = header.get("PhotometricInterpretation") == "MONOCHROME1"
    slope, intercept = (_first(places, name) for name in ("RescaleSlope", "RescaleIntercept"))
    rescaled: Callable[[NDArray[Any]], NDArray[Any]] | None = None
    full = _range_of_type(stored, header)
    if header.get("ModalityLUTSequence"):
        rescaled = functools.partial(apply_modality_lut, ds=header)
        full = (0.0, float(2 ** (8 * rescaled(stored[:1]).dtype.itemsize) - 1))
    elif (slope, intercept) not in ((None, None), (1.0, 0.0)):
        slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
        rescaled = functools.partial(_linear, slope=slope, intercept=intercept)
        ends = [] if full is None else [end * slope + intercept for end in full]
        full = (min(ends), max(ends)) if ends else None

    def values(part: slice) -> NDArray[Any]:
        return stored[part] if rescaled is None else rescaled(stored[part])

    plain = rescaled is None and full is not None and full[1] - full[0] <= 255  # 8 bits: `window` is not for these
    center, width = _first(places, "WindowCenter"), _first(places, "WindowWidth")
    shade: Callable[[NDArray[Any]], NDArray[Any]]
    depth: Depth | None = None
    remarks: tuple[str, ...] = ()
    if (window is None or plain) and header.get("VOILUTSequence"):
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        shade, remarks = functools.partial(_by_lut, header=header, bits=bits), (_LUT_OF_FILE,)
    elif (window is None or plain) and center is not None and width is not None and width > 0:
        kind = next((str(one.get("VOILUTFunction")) for one in places if one.get("VOILUTFunction")), "LINEAR")
        shade, remarks = functools.partial(_windowed, center=center, width=width, kind=kind), (_OF_FILE,)
    else:
        used = full if plain else window or full
        inside = (values(part) if padding is None else values(part)[~padding[part]] for part in parts)
        ends = [float(end) for one in inside if one.size for end in (one.min(), one.max())]
        lowest, highest = (float(np.min(ends)), float(np.max(ends))) if ends else (0.0, 0.0)
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            raise UnreadableImageError("has pixels that are not finite numbers")
        if used is None or used[0] >= used[1]:
            raise UnreadableImageError(
                f"is DICOM of {8 * stored.dtype.itemsize} bits without a window (values {lowest:.9g} to {highest:.9g}) "
                "and needs one: the values of black and white",
                (lowest, highest),
            )
        factor = 255 / (used[1] - used[0])
        shade = functools.partial(_linear_from, low=used[0], factor=factor)
        depth = None if plain else Depth(f"{_bits(header)}-bit DICOM", lowest, highest, used)
    scaled = np.empty(stored.shape, np.float32)
    for part in parts:
        scaled[part] = np.clip(np.nan_to_num(shade(values(part)), nan=0.0), 0, 255)
    if inverted:
        np.subtract(255, scaled, out=scaled)
    if padding is not None:
        scaled[padding] = 0
    if plain and not remarks:
        return Image.fromarray(scaled.astype(np.uint8)), None, ()
    return Image.fromarray(scaled), depth, remarks


def _by_lut(values: NDArray[Any], header: Any, bits: int) -> NDArray[np.float64]:
    from pydicom.pixels import apply_voi

    return np.asarray(apply_voi(np.rint(values).astype(np.int64), header)) * (255.0 / (2**bits - 1))


def _linear(values: NDArray[Any], slope: float, intercept: float) -> NDArray[np.float64]:
    return values.astype(np.float64) * slope + intercept


def _linear_from(values: NDArray[Any], low: float, factor: float) -> NDArray[np.float64]:
    return (values.astype(np.float64) - low) * factor


def _range_of_type(stored: NDArray[Any], header: Any) -> tuple[float, float] | None:
    """Return the range of the stored values by their bits; None for floats and more than 16 bits."""
    bits = _bits(header)
    if stored.dtype.kind == "f" or bits > 16:
        return None
    if stored.dtype.kind == "i":
        return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1


def _windowed(values: NDArray[Any], center: float, width: float, kind: str) -> NDArray[np.floating]:
    """Return values by a window of DICOM (PS3.3 C.11.2.1.2), 0 to 255 or beyond."""
    values = values.astype(np.float64)
    if kind == "SIGMOID":
        return 255 / (1 + np.exp(np.clip(-4 * (values - center) / width, -50, 50)))
    if kind != "LINEAR_EXACT":
        center, width = center - 0.5, width - 1
        if width <= 0:
            return np.where(values > center, 255.0, 0.0)
    return ((values - center) / width + 0.5) * 255


def _padding(stored: NDArray[Any], header: Any) -> NDArray[np.bool_] | None:
    """Return (rows, columns) where pixels are padding around the image; None if there is none."""
    ends = [header.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if not isinstance(ends[0], int) or stored.dtype.kind not in "iu":
        return None
    bits = 8 * stored.dtype.itemsize
    signed = stored.dtype.kind == "i"
    # The type of the element is ambiguous: a negative value may be written without a sign.
    low, high = (
        one - 2**bits if signed and one >= 2 ** (bits - 1) else one
        for one in (int(ends[0]), int(ends[1]) if isinstance(ends[1], int) else int(ends[0]))
    )
    found = (stored >= min(low, high)) & (stored <= max(low, high))
    return found if found.any() else None
