"""Transfer syntaxes: which are read, and encoded pixel data to one frame's stored values.

The table follows PS3.6 table A-1. Before a codec sees a frame, the sizes in the frame's own
header are compared with what the dataset declares (and was checked against `Limits`): a codec
allocates what the codestream asks for.
"""

from __future__ import annotations

import logging
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from slicewatch import tags
from slicewatch.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Dataset,
    Encoding,
)
from slicewatch.image_pixel import PixelDescription, Stored
from slicewatch.limits import Rejected
from slicewatch.records import Reason

DEFLATED = "1.2.840.10008.1.2.1.99"

NATIVE: dict[str, Encoding] = {
    "1.2.840.10008.1.2": IMPLICIT_LITTLE,
    "1.2.840.10008.1.2.1": EXPLICIT_LITTLE,
    DEFLATED: EXPLICIT_LITTLE,
    "1.2.840.10008.1.2.2": EXPLICIT_BIG,
}

RLE = "1.2.840.10008.1.2.5"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"

# One pydicom plugin for each, so that a frame has the same pixels wherever it is decoded.
_PLUGINS: dict[str, str] = {
    "1.2.840.10008.1.2.4.50": "pylibjpeg",  # JPEG Baseline, 8 bit
    "1.2.840.10008.1.2.4.51": "pylibjpeg",  # JPEG Extended, 12 bit
    "1.2.840.10008.1.2.4.57": "pylibjpeg",  # JPEG Lossless, process 14
    "1.2.840.10008.1.2.4.70": "pylibjpeg",  # JPEG Lossless, selection value 1
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.81": "pyjpegls",  # JPEG-LS Near-Lossless
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.91": "pylibjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.201": "pylibjpeg",  # HTJ2K Lossless
    "1.2.840.10008.1.2.4.202": "pylibjpeg",  # HTJ2K Lossless RPCL
    "1.2.840.10008.1.2.4.203": "pylibjpeg",  # HTJ2K
}

_JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})

LOSSY = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 203))
"""Syntaxes that may have lost information even where the dataset does not say so."""

DECODABLE = frozenset({*NATIVE, RLE, DEFLATED_FRAMES, *_PLUGINS})


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """How the dataset is written: encapsulated syntaxes are Explicit Little (PS3.5 annex A.4)."""
    return NATIVE.get(transfer_syntax_uid, EXPLICIT_LITTLE)


def inflate(deflated: bytes | memoryview, max_bytes: int) -> bytes:
    """Inflate raw deflate data (PS3.5 annex A.5), allocating at most about `max_bytes`.

    Raises:
        Rejected: damaged, cut short, or larger than the bound.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(deflated, max_bytes + 1)
    except zlib.error as error:
        raise Rejected(Reason.DECODE_FAILED, "deflated data does not inflate") from error
    if len(inflated) > max_bytes:
        raise Rejected(Reason.TOO_LARGE, f"inflates to more than {max_bytes} bytes")
    if not inflater.eof:
        raise Rejected(Reason.TRUNCATED, "deflated data has no end")
    return inflated


# --- fragments to frames (PS3.5 annex A.4) ------------------------------------------------------


def frame_fragments(dataset: Dataset, frames: int) -> list[list[slice]]:
    """Which fragments make up each frame of encapsulated pixel data.

    Uses, in this order: the Extended Offset Table, one fragment a frame, one frame, the Basic
    Offset Table, and the codestreams' start markers.

    Raises:
        Rejected: fewer frames than declared, or a table that points elsewhere.
    """
    element = dataset.elements[tags.PIXEL_DATA]
    items = [
        slice(item.start, item.stop) for item in dataset.scanner.items(element, EXPLICIT_LITTLE)
    ]
    if not items:
        raise Rejected(Reason.NO_PIXEL_DATA, "encapsulated pixel data without items")
    table, fragments = items[0], items[1:]
    if not fragments:
        raise Rejected(Reason.NO_PIXEL_DATA, "encapsulated pixel data without fragments")
    if tags.EXTENDED_OFFSET_TABLE in dataset and tags.EXTENDED_OFFSET_TABLE_LENGTHS in dataset:
        return _by_extended_offsets(dataset, fragments, frames)
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    if frames == 1:
        return [fragments]
    data = dataset.scanner.data
    starts = _offsets(data[table], "<L")
    if len(starts) != frames:
        first = fragments[0].start - 8
        starts = [
            fragment.start - 8 - first
            for fragment in fragments
            if data.startswith((b"\xff\xd8\xff", b"\xff\x4f\xff\x51"), fragment.start)
        ]
    if len(starts) != frames:
        raise Rejected(
            Reason.TRUNCATED if len(fragments) < frames else Reason.DECODE_FAILED,
            f"{frames} frames are declared, {len(fragments)} fragments do not make them up",
        )
    return _by_offsets(fragments, starts)


def _offsets(value: bytes, code: str) -> list[int]:
    unpack = struct.Struct(code)
    return [offset for (offset,) in unpack.iter_unpack(value[: len(value) & -unpack.size])]


def _by_extended_offsets(
    dataset: Dataset, fragments: list[slice], frames: int
) -> list[list[slice]]:
    """PS3.3 section C.7.6.3.1.8: one fragment a frame, its exact length in a second table."""
    starts = _offsets(dataset.raw(tags.EXTENDED_OFFSET_TABLE), "<Q")
    lengths = _offsets(dataset.raw(tags.EXTENDED_OFFSET_TABLE_LENGTHS), "<Q")
    first = fragments[0].start
    known = {fragment.start - first: fragment for fragment in fragments}
    try:
        pairs = [(known[start], length) for start, length in zip(starts, lengths, strict=True)]
    except (KeyError, ValueError):
        pairs = []
    if len(pairs) != frames or any(f.start + length > f.stop for f, length in pairs):
        raise Rejected(Reason.DECODE_FAILED, "the extended offset table does not fit its frames")
    return [[slice(f.start, f.start + length)] for f, length in pairs]


def _by_offsets(fragments: list[slice], starts: list[int]) -> list[list[slice]]:
    """Group fragments by frame starts, counted from the first fragment's item tag."""
    first = fragments[0].start
    groups: list[list[slice]] = []
    upcoming = iter([*starts, None])
    following = next(upcoming)
    for fragment in fragments:
        if fragment.start - first == following:
            groups.append([])
            following = next(upcoming)
        if groups:
            groups[-1].append(fragment)
    if len(groups) != len(starts):
        raise Rejected(Reason.DECODE_FAILED, "the basic offset table does not fit its frames")
    return groups


# --- codestreams ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Codestream:
    """What a compressed frame says of itself."""

    rows: int
    columns: int
    components: int


# Start Of Frame markers of ISO 10918-1 table B.1 that the DICOM syntaxes allow (baseline,
# extended sequential, lossless), and JPEG-LS. Progressive ones cost a pass over the image a scan.
_SOF = frozenset({0xC0, 0xC1, 0xC3, 0xF7})
_OTHER_SOF = frozenset({0xC2, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xDE})
_MAX_SCANS = 64
# Padding, and what some writers leave behind the End Of Image marker.
_END_WITHIN = 16
# Decoders allocate some KiB a tile, whatever its size.
_MAX_TILES = 4096
_SOC_SIZ = b"\xff\x4f\xff\x51"
_SIZ = struct.Struct(">8x8LH")
_SEGMENT = struct.Struct(">BBH")
_SOF_FIELDS = struct.Struct(">4xBHHB")


def _undecodable(detail: str) -> Rejected:
    return Rejected(Reason.DECODE_FAILED, detail)


def read_codestream(frame: bytes) -> Codestream:
    """Size of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K codestream.

    Raises:
        Rejected: none of them, cut short, or of a kind that no DICOM syntax allows (openjpeg
            itself refuses JPEG 2000 that is cut short).
    """
    try:
        return _read_siz(frame) if frame.startswith(_SOC_SIZ) else _read_sof(frame)
    except struct.error as error:
        raise _undecodable("the codestream ends inside its header") from error


def _read_siz(frame: bytes) -> Codestream:
    """SIZ segment, ISO 15444-1 section A.5.1."""
    x1, y1, x0, y0, tile_w, tile_h, tile_x0, tile_y0, components = _SIZ.unpack_from(frame)
    if not (x0 < x1 and y0 < y1 and tile_w and tile_h and tile_x0 <= x0 and tile_y0 <= y0):
        raise _undecodable("the codestream's image area is empty")
    tiles = -((tile_x0 - x1) // tile_w) * -((tile_y0 - y1) // tile_h)
    if tiles > _MAX_TILES:
        raise Rejected(Reason.TOO_LARGE, f"the codestream has {tiles} tiles")
    return Codestream(y1 - y0, x1 - x0, components)


def _read_sof(frame: bytes) -> Codestream:
    """SOF segment, ISO 10918-1 section B.2.2 and ISO 14495-1 section C.2.2."""
    if not frame.startswith(b"\xff\xd8"):
        raise _undecodable("the frame is no JPEG, JPEG-LS or JPEG 2000 codestream")
    # Without it, JPEG decoders make up what is missing, and CharLS searches for seconds.
    if b"\xff\xd9" not in frame[-_END_WITHIN:]:
        raise Rejected(Reason.TRUNCATED, "the codestream has no end marker")
    if frame.count(b"\xff\xda") > _MAX_SCANS:
        raise Rejected(Reason.TOO_LARGE, f"the codestream has more than {_MAX_SCANS} scans")
    position = 2
    while True:
        fill, marker, length = _SEGMENT.unpack_from(frame, position)
        if fill != 0xFF:
            raise _undecodable("the codestream's header is damaged")
        if marker == 0xFF:
            position += 1
        elif marker in _SOF:
            _, rows, columns, components = _SOF_FIELDS.unpack_from(frame, position)
            return Codestream(rows, columns, components)
        elif marker in _OTHER_SOF or marker in (0xD8, 0xD9, 0xDA) or length < 2:
            raise _undecodable(f"marker FF{marker:02X} has no place in this transfer syntax")
        else:
            position += 2 + length


# --- decoding one frame -------------------------------------------------------------------------


def decode_frame(encoded: bytes, syntax: str, pixels: PixelDescription) -> tuple[Stored, str]:
    """Decode one encapsulated frame.

    Returns:
        Stored values, (rows, columns) or (rows, columns, samples), and the photometric
        interpretation they have now (a codec may undo a colour transform).

    Raises:
        Rejected: damaged, or another image than the dataset declares.
    """
    if syntax in _PLUGINS:
        return _decode_with_plugin(encoded, syntax, pixels)
    if pixels.allocated == 1 or pixels.kind == "f":
        raise _undecodable(f"{pixels.allocated} bits allocated in transfer syntax {syntax}")
    if syntax == RLE:
        stored = _decode_rle(encoded, pixels)
    else:
        # Frames are padded to even length.
        stored = pixels.native(inflate(encoded, pixels.frame_bits // 8 + 1), "<")
    return pixels.without_unused_bits(stored), pixels.photometric


def _decode_with_plugin(
    encoded: bytes, syntax: str, pixels: PixelDescription
) -> tuple[Stored, str]:
    # A JP2 file in place of the bare codestream is illegal and exists: hand on the codestream.
    if encoded.startswith(b"\x00\x00\x00\x0cjP  "):
        encoded = encoded[max(encoded.find(_SOC_SIZ), 0) :]
    size = read_codestream(encoded)
    if (size.rows, size.columns, size.components) != (
        pixels.rows,
        pixels.columns,
        pixels.samples,
    ):
        raise _undecodable(
            f"the codestream holds {size.columns}×{size.rows}×{size.components}, the header "
            f"declares {pixels.columns}×{pixels.rows}×{pixels.samples}"
        )

    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    # Its tracebacks of hostile frames say nothing that the rejection does not.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    try:
        stored, properties = get_decoder(syntax).as_array(
            encapsulate([encoded], has_bot=False),
            raw=True,
            index=0,
            decoding_plugin=_PLUGINS[syntax],
            **pixels.pydicom_options(),
        )
    except Exception as error:  # the codecs raise what they like; each means the same here
        raise _undecodable(f"{type(error).__name__} in the decoder") from error
    if syntax in _JPEG_LS:
        # Their sign is lost where the codestream's precision is wider than the bits stored.
        stored = pixels.without_unused_bits(stored.astype(pixels.dtype("<"), copy=False))
    return stored, str(properties["photometric_interpretation"])


def _decode_rle(encoded: bytes, pixels: PixelDescription) -> Stored:
    """PS3.5 annex G: a segment for each byte of each sample, most significant first."""
    if len(encoded) < 64:
        raise _undecodable("an RLE frame ends inside its header")
    count, *offsets = struct.unpack_from("<16L", encoded)
    width = pixels.allocated // 8
    if count != width * pixels.samples:
        raise _undecodable(
            f"an RLE frame has {count} segments in place of {width * pixels.samples}"
        )
    bounds = [*offsets[:count], len(encoded)]
    if bounds[0] < 64 or bounds != sorted(bounds):
        raise _undecodable("an RLE frame's segments overlap")
    size = pixels.rows * pixels.columns
    planes = np.empty((pixels.samples, size, width), np.uint8)
    for index in range(count):
        segment = unpack_bits(encoded[bounds[index] : bounds[index + 1]], size)
        # Reversed, so that the little-endian view below puts the first segment on top.
        planes[index // width, :, width - 1 - index % width] = np.frombuffer(segment, np.uint8)
    stored = planes.view(pixels.dtype("<")).reshape(pixels.samples, pixels.rows, pixels.columns)
    return stored[0] if pixels.samples == 1 else np.moveaxis(stored, 0, -1)


def unpack_bits(segment: bytes, size: int) -> bytearray:
    """Decode PackBits (PS3.5 section G.3.1) to exactly `size` bytes; the rest is padding.

    Raises:
        Rejected: the segment gives fewer bytes.
    """
    unpacked = bytearray()
    position, end = 0, len(segment)
    while len(unpacked) < size and position < end:
        control = segment[position]
        if control < 128:
            unpacked += segment[position + 1 : position + 2 + control]
            position += 2 + control
        else:
            if control > 128:
                unpacked += segment[position + 1 : position + 2] * (257 - control)
            position += 2
            if control == 128:
                position -= 1
    if len(unpacked) < size:
        raise Rejected(Reason.TRUNCATED, "an RLE segment ends early")
    del unpacked[size:]
    return unpacked
