"""From pixel data to frames in modality units, each with its geometry and VOI.

PS3.3 sections C.7.6.2 (Image Plane), C.7.6.16 (functional groups) and C.11.2 (VOI LUT).
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicewatch import tags
from slicewatch.elements import Dataset
from slicewatch.image_pixel import PixelDescription, Stored
from slicewatch.limits import Rejected
from slicewatch.modality_transform import ModalityTransform, Rescale, read_table
from slicewatch.pixels import Voi
from slicewatch.records import Geometry, Reason
from slicewatch.transfer_syntaxes import NATIVE, decode_frame, frame_fragments

# Slopes, intercepts, windows and positions beyond this are damage, and would overflow float32.
_MAX_NUMBER = 1e20


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded slice.

    Attributes:
        number: frame number from 1.
        values: (rows, columns) float32 in modality units (HU for CT); higher is brighter, also
            where the file says MONOCHROME1; colour as luminance.
        voi: the file's windowing, in the units of `values`.
        geometry: where the slice lies, LPS mm.
        pixel_sha256: of the decoded stored values, little-endian, colour by pixel: equal for one
            image in several lossless transfer syntaxes.
    """

    number: int
    values: NDArray[np.float32]
    voi: Voi | None
    geometry: Geometry
    pixel_sha256: str


def decode_frames(
    dataset: Dataset, syntax: str, modality: str, pixels: PixelDescription
) -> Iterator[Frame]:
    """Decode an image's frames one after the other.

    Raises:
        Rejected: at the first frame that cannot be decoded; earlier ones were given out.
    """
    transform = ModalityTransform(dataset, pixels, modality)
    decoded = stored_frames(dataset, syntax, pixels, range(1, pixels.frames + 1))
    attributes = _frame_attributes(dataset, pixels.frames)
    pairs = zip(decoded, attributes, strict=True)
    for number, ((stored, photometric), described) in enumerate(pairs, 1):
        yield _frame(number, transform, stored, photometric, described, pixels)


def decode_frame_number(
    dataset: Dataset, syntax: str, modality: str, pixels: PixelDescription, number: int
) -> Frame:
    """Decode one frame, from 1, and no other. Raises `Rejected` when it cannot be decoded."""
    ((stored, photometric),) = stored_frames(dataset, syntax, pixels, [number])
    described = next(itertools.islice(_frame_attributes(dataset, pixels.frames), number - 1, None))
    transform = ModalityTransform(dataset, pixels, modality)
    return _frame(number, transform, stored, photometric, described, pixels)


def _frame(
    number: int,
    transform: ModalityTransform,
    stored: Stored,
    photometric: str,
    described: _Attributes,
    pixels: PixelDescription,
) -> Frame:
    rescale, own_voi, geometry = described
    values, voi = transform(stored, photometric, rescale, own_voi)
    return Frame(number, values, voi, geometry, _digest(stored, pixels))


def _digest(stored: Stored, pixels: PixelDescription) -> str:
    canonical = np.ascontiguousarray(stored, pixels.dtype("<"))
    return hashlib.sha256(canonical.data).hexdigest()


# --- stored values ------------------------------------------------------------------------------


def check_pixel_data(dataset: Dataset, syntax: str, pixels: PixelDescription) -> None:
    """Check that pixel data is whole, and of the form that its transfer syntax asks for.

    Raises:
        Rejected: it is not. Encapsulated frames may still be damaged inside.
    """
    element = dataset.pixel_data
    if element is None or element.undefined == (syntax in NATIVE):
        form = "encapsulated" if syntax in NATIVE else "native"
        raise Rejected(Reason.BAD_HEADER, f"{form} pixel data in transfer syntax {syntax}")
    if syntax in NATIVE and dataset.pixel_bytes < pixels.decoded_bytes:
        raise Rejected(
            Reason.TRUNCATED,
            f"pixel data of {dataset.pixel_bytes} bytes, {pixels.decoded_bytes} declared",
        )


def stored_frames(
    dataset: Dataset, syntax: str, pixels: PixelDescription, numbers: Sequence[int]
) -> Iterator[tuple[Stored, str]]:
    """Stored values of the frames with these numbers (from 1), in their order, and what
    photometric interpretation they have once decoded. Raises `Rejected`.
    """
    if syntax in NATIVE:
        for stored in _native_frames(dataset, pixels, numbers):
            yield pixels.without_unused_bits(stored), pixels.photometric
        return
    data = dataset.scanner.data
    fragments = frame_fragments(dataset, pixels.frames)
    for number in numbers:
        encoded = b"".join([data[fragment] for fragment in fragments[number - 1]])
        yield decode_frame(encoded, syntax, pixels)


def uncompressed_frames(
    dataset: Dataset, syntax: str, pixels: PixelDescription, numbers: Sequence[int]
) -> Iterator[bytes]:
    """The frames with these numbers (from 1) as Explicit VR Little Endian pixel data has them.

    Native frames keep their bytes, but for their order. Decoded ones have colour by pixel, in
    RGB where they have 8 bits: what a codec leaves otherwise depends on its codestream. Frames of
    single bits begin at a byte of their own. Raises `Rejected`.
    """
    if syntax not in NATIVE:
        for stored, photometric in stored_frames(dataset, syntax, pixels, numbers):
            values = _to_rgb(stored, photometric) if pixels.allocated == 8 else stored
            yield np.ascontiguousarray(values, pixels.dtype("<")).tobytes()
        return
    data, order = _native_data(dataset, pixels)
    size = pixels.frame_bits // 8
    for number in numbers:
        if pixels.allocated == 1:
            (bits,) = _single_bit_frames(data, pixels, [number])
            yield np.packbits(bits, bitorder="little").tobytes()
            continue
        frame = data[(number - 1) * size : number * size]
        if order == ">" and pixels.allocated > 8:
            yield np.frombuffer(frame, pixels.dtype(">")).astype(pixels.dtype("<")).tobytes()
        else:
            yield bytes(frame)


def rgb_frame(
    dataset: Dataset, syntax: str, pixels: PixelDescription, number: int
) -> NDArray[np.uint8] | None:
    """A colour frame as (rows, columns, 3) RGB; ``None`` where it is gray, has a palette, another
    depth than 8 bits or native subsampled colour. Raises `Rejected`.
    """
    if pixels.samples != 3 or pixels.allocated != 8 or pixels.kind != "u":
        return None
    ((stored, photometric),) = stored_frames(dataset, syntax, pixels, [number])
    return np.ascontiguousarray(_to_rgb(stored, photometric)) if stored.ndim == 3 else None


def _to_rgb(stored: Stored, photometric: str) -> Stored:
    if stored.ndim != 3 or photometric not in ("YBR_FULL", "YBR_FULL_422"):
        return stored
    from pydicom.pixels.processing import convert_color_space

    return convert_color_space(stored, "YBR_FULL", "RGB")


def _native_data(dataset: Dataset, pixels: PixelDescription) -> tuple[memoryview, str]:
    """The value of native pixel data, and the byte order of what is wider than a byte."""
    element = dataset.pixel_data
    assert element is not None  # check_pixel_data
    data = memoryview(dataset.scanner.data)[element.start : element.stop]
    order = dataset.encoding.order
    if order == ">" and pixels.allocated == 8 and element.vr == b"OW":
        # Bytes travel in swapped words (PS3.5 section 7.3).
        data = memoryview(np.frombuffer(data[: len(data) & ~1], ">u2").astype("<u2").tobytes())
    return data, order


def _native_frames(
    dataset: Dataset, pixels: PixelDescription, numbers: Sequence[int]
) -> Iterator[Stored]:
    data, order = _native_data(dataset, pixels)
    if pixels.allocated == 1:
        yield from _single_bit_frames(data, pixels, numbers)
        return
    size = pixels.frame_bits // 8
    for number in numbers:
        yield pixels.native(data[(number - 1) * size : number * size], order)


def _single_bit_frames(
    data: memoryview, pixels: PixelDescription, numbers: Sequence[int]
) -> Iterator[Stored]:
    """Frames of single bits follow without a gap, least significant bit first (PS3.5 8.1.1)."""
    size = pixels.rows * pixels.columns
    for number in numbers:
        first = (number - 1) * size
        octets = np.frombuffer(data[first // 8 : -(-(first + size) // 8)], np.uint8)
        bits = np.unpackbits(octets, bitorder="little")[first % 8 : first % 8 + size]
        yield bits.reshape(pixels.rows, pixels.columns)


# --- what differs from frame to frame -----------------------------------------------------------

type _Attributes = tuple[Rescale, Voi | None, Geometry]


def _frame_attributes(dataset: Dataset, frames: int) -> Iterator[_Attributes]:
    """For each frame: its own functional groups, else the shared ones, else the dataset itself."""
    shared = dataset.item(tags.SHARED_FUNCTIONAL_GROUPS_SEQUENCE)
    grouped = shared is not None or tags.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE in dataset
    if not grouped:
        # One position is not that of every frame: those of a cine loop have no place of their own.
        yield from [_attributes([], dataset, placed=frames == 1)] * frames
        return
    own = dataset.items(tags.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
    for _ in range(frames):
        groups = [group for group in (next(own, None), shared) if group is not None]
        yield _attributes(groups, dataset, placed=True)


def _attributes(groups: list[Dataset], dataset: Dataset, *, placed: bool) -> _Attributes:
    def find(sequence: int, *any_of: int) -> Dataset:
        for group in groups:
            item = group.item(sequence)
            if item is not None and any(tag in item for tag in any_of):
                return item
        return dataset

    measures = find(tags.PIXEL_MEASURES_SEQUENCE, tags.PIXEL_SPACING)
    position = find(tags.PLANE_POSITION_SEQUENCE, tags.IMAGE_POSITION_PATIENT)
    orientation = find(tags.PLANE_ORIENTATION_SEQUENCE, tags.IMAGE_ORIENTATION_PATIENT)
    geometry = Geometry(
        position=_position(position) if placed else None,
        orientation=_orientation(_numbers(orientation, tags.IMAGE_ORIENTATION_PATIENT)),
        spacing=_spacing(_numbers(measures, tags.PIXEL_SPACING)),
        thickness=_thickness(_numbers(measures, tags.SLICE_THICKNESS)),
        frame_of_reference_uid=dataset.ascii(tags.FRAME_OF_REFERENCE_UID)[:64] or None,
    )
    rescale = _rescale(find(tags.PIXEL_VALUE_TRANSFORMATION_SEQUENCE, tags.RESCALE_SLOPE))
    voi = find(tags.FRAME_VOI_LUT_SEQUENCE, tags.WINDOW_CENTER, tags.VOI_LUT_SEQUENCE)
    signed = dataset.unsigned(tags.PIXEL_REPRESENTATION) == 1 or rescale.intercept < 0
    return rescale, _windows(voi) or _window_of_table(voi, signed=signed), geometry


def _numbers(dataset: Dataset, tag: int) -> tuple[float, ...]:
    numbers = dataset.decimals(tag)
    return numbers if all(abs(number) < _MAX_NUMBER for number in numbers) else ()


def _rescale(dataset: Dataset) -> Rescale:
    slope = _numbers(dataset, tags.RESCALE_SLOPE)
    intercept = _numbers(dataset, tags.RESCALE_INTERCEPT)
    return Rescale(slope[0] if slope and slope[0] else 1.0, intercept[0] if intercept else 0.0)


def _windows(dataset: Dataset) -> Voi | None:
    centres, widths = _numbers(dataset, tags.WINDOW_CENTER), _numbers(dataset, tags.WINDOW_WIDTH)
    windows = tuple(zip(centres, widths, strict=False))
    if not windows:
        return None
    function = dataset.ascii(tags.VOI_LUT_FUNCTION)
    return Voi(windows, function if function in ("LINEAR_EXACT", "SIGMOID") else "LINEAR")


def _window_of_table(dataset: Dataset, *, signed: bool) -> Voi | None:
    """The window that comes nearest to a rising VOI LUT (section C.11.2.1.1).

    It spans the values that the table maps to between a fiftieth and all but a fiftieth of its
    range: tables of radiographs are flat at both ends and about straight between.
    """
    item = dataset.item(tags.VOI_LUT_SEQUENCE)
    if item is None:
        return None
    try:
        table = read_table(item, tags.LUT_DESCRIPTOR, tags.LUT_DATA, signed=signed)
    except Rejected:  # a damaged table is a display matter: the pixels are sound
        return None
    low, high = float(table.entries.min()), float(table.entries.max())
    margin = (high - low) / 50
    inner = np.flatnonzero((table.entries > low + margin) & (table.entries < high - margin))
    if not len(inner) or table.entries[inner[0]] > table.entries[inner[-1]]:
        return None
    first, last = table.first + int(inner[0]) - 1, table.first + int(inner[-1]) + 1
    return Voi((((first + last) / 2, float(last - first)),), "LINEAR_EXACT")


def _position(dataset: Dataset) -> tuple[float, float, float] | None:
    numbers = _numbers(dataset, tags.IMAGE_POSITION_PATIENT)
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def _spacing(numbers: tuple[float, ...]) -> tuple[float, float] | None:
    return (numbers[0], numbers[1]) if len(numbers) == 2 and min(numbers) > 0 else None


def _thickness(numbers: tuple[float, ...]) -> float | None:
    return numbers[0] if numbers and numbers[0] > 0 else None


def _orientation(
    numbers: tuple[float, ...],
) -> tuple[float, float, float, float, float, float] | None:
    """Direction cosines; ``None`` unless they are unit vectors at about a right angle."""
    if len(numbers) != 6:
        return None
    a, b, c, d, e, f = numbers
    lengths = math.hypot(a, b, c), math.hypot(d, e, f)
    if max(abs(length - 1) for length in lengths) > 0.05 or abs(a * d + b * e + c * f) > 0.05:
        return None
    return (a, b, c, d, e, f)
