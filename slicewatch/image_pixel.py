"""The Image Pixel module (PS3.3 section C.7.6.3): what a frame's bytes mean."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from slicewatch import tags
from slicewatch.elements import Dataset
from slicewatch.limits import Limits, Rejected
from slicewatch.records import Reason

type Stored = np.ndarray[Any, np.dtype[Any]]

PALETTE = "PALETTE COLOR"
SINGLE_SAMPLE = frozenset({"MONOCHROME1", "MONOCHROME2", PALETTE})
YBR = frozenset(
    {"YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"}
)
_SUBSAMPLED = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422"})
_FLOAT_BITS = {tags.FLOAT_PIXEL_DATA: 32, tags.DOUBLE_FLOAT_PIXEL_DATA: 64}


@dataclass(frozen=True)
class PixelDescription:
    """The module's attributes, checked.

    Attributes:
        samples: per pixel, 1 or 3.
        allocated, stored, high_bit: bits of a sample.
        kind: numpy's letter of the stored type: ``u``, ``i`` or ``f``.
        planar: colour by plane.
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    high_bit: int
    kind: str
    planar: bool
    frames: int

    @classmethod
    def of(cls, dataset: Dataset, limits: Limits) -> PixelDescription:
        """Read and check the module.

        Raises:
            Rejected: attributes are missing or contradictory, or over the bounds.
        """
        rows, columns, frames = dimensions(dataset, limits)
        if not rows or not columns:
            raise Rejected(Reason.BAD_HEADER, f"{rows} rows × {columns} columns")
        photometric, samples = _photometric(dataset)
        kind, allocated = _stored_type(dataset)
        whole = kind == "f" or allocated == 1
        stored = allocated if whole else dataset.unsigned(tags.BITS_STORED) or allocated
        high_bit = None if whole else dataset.unsigned(tags.HIGH_BIT)
        high_bit = stored - 1 if high_bit is None else high_bit
        if not stored - 1 <= high_bit < allocated:
            raise Rejected(
                Reason.BAD_HEADER,
                f"{stored} bits stored with high bit {high_bit} of {allocated} allocated",
            )
        planar = samples > 1 and dataset.unsigned(tags.PLANAR_CONFIGURATION) == 1
        pixels = cls(
            rows, columns, samples, photometric, allocated, stored, high_bit, kind, planar, frames
        )
        if pixels.decoded_bytes > limits.max_decoded_bytes:
            raise Rejected(
                Reason.TOO_LARGE,
                f"{pixels.decoded_bytes} decoded bytes, at most {limits.max_decoded_bytes}",
            )
        return pixels

    @cached_property
    def frame_bits(self) -> int:
        """Size of one native frame."""
        samples = 2 if self.photometric in _SUBSAMPLED else self.samples
        return self.rows * self.columns * samples * self.allocated

    @property
    def decoded_bytes(self) -> int:
        """Size of all native frames."""
        return -(-self.frame_bits * self.frames // 8)

    def dtype(self, order: str) -> np.dtype[Any]:
        """Stored type of a sample in byte order `order` (``<`` or ``>``)."""
        if self.allocated == 1:
            return np.dtype(np.uint8)
        return np.dtype(f"{order}{self.kind}{self.allocated // 8}")

    def native(self, frame: bytes | memoryview, order: str) -> Stored:
        """Stored values of one uncompressed frame: (rows, columns) or (rows, columns, samples).

        Of subsampled YBR (section C.7.6.3.1.2) only the luminance, (rows, columns).

        Raises:
            Rejected: fewer bytes than the frame needs.
        """
        if len(frame) * 8 < self.frame_bits:
            raise Rejected(Reason.TRUNCATED, "a frame holds fewer bytes than declared")
        shape = (self.rows, self.columns)
        count = self.frame_bits // self.allocated
        values = np.frombuffer(frame, self.dtype(order), count)
        if self.photometric in _SUBSAMPLED:
            return values.reshape(-1, 4)[:, :2].reshape(shape)
        if self.samples == 1:
            return values.reshape(shape)
        if self.planar:
            return np.moveaxis(values.reshape(self.samples, *shape), 0, -1)
        return values.reshape(*shape, self.samples)

    def without_unused_bits(self, values: Stored) -> Stored:
        """Stored values without the bits around them, sign extended (PS3.5 section 8.1.1)."""
        unused = self.allocated - self.stored
        if not unused:
            return values
        return np.right_shift(np.left_shift(values, self.allocated - 1 - self.high_bit), unused)

    def pydicom_options(self) -> dict[str, Any]:
        """The description as pydicom's decoders take it, for one frame."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "number_of_frames": 1,
            "samples_per_pixel": self.samples,
            "photometric_interpretation": self.photometric,
            "bits_allocated": self.allocated,
            "bits_stored": self.stored,
            "pixel_representation": int(self.kind == "i"),
            "planar_configuration": int(self.planar),
            "pixel_keyword": "PixelData",
        }


def dimensions(dataset: Dataset, limits: Limits) -> tuple[int, int, int]:
    """Rows, columns (0 where absent) and frames (1 where absent or 0).

    Raises:
        Rejected: over the bounds, or a negative number of frames.
    """
    rows, columns = dataset.unsigned(tags.ROWS) or 0, dataset.unsigned(tags.COLUMNS) or 0
    frames = dataset.integer(tags.NUMBER_OF_FRAMES) or 1
    if rows * columns > limits.max_pixels_per_frame:
        raise Rejected(
            Reason.TOO_LARGE,
            f"{rows} rows × {columns} columns, at most {limits.max_pixels_per_frame} pixels",
        )
    if frames > limits.max_frames:
        raise Rejected(Reason.TOO_LARGE, f"{frames} frames, at most {limits.max_frames}")
    if frames < 0:
        raise Rejected(Reason.BAD_HEADER, f"{frames} frames")
    return rows, columns, frames


def _photometric(dataset: Dataset) -> tuple[str, int]:
    """Photometric interpretation and samples; guessed from each other where one is absent."""
    samples = dataset.unsigned(tags.SAMPLES_PER_PIXEL)
    photometric = dataset.ascii(tags.PHOTOMETRIC_INTERPRETATION)
    if not photometric:
        photometric = "RGB" if samples == 3 else "MONOCHROME2"
    needed = 1 if photometric in SINGLE_SAMPLE else 3
    if needed == 3 and photometric != "RGB" and photometric not in YBR:
        raise Rejected(Reason.BAD_HEADER, "the photometric interpretation is none that is read")
    if (samples or needed) != needed:
        raise Rejected(
            Reason.BAD_HEADER, f"{samples} samples a pixel where {photometric} has {needed}"
        )
    return photometric, needed


def _stored_type(dataset: Dataset) -> tuple[str, int]:
    for tag, bits in _FLOAT_BITS.items():
        if tag in dataset:
            return "f", bits
    allocated = dataset.unsigned(tags.BITS_ALLOCATED) or 0
    if allocated not in (1, 8, 16, 32):
        raise Rejected(Reason.BAD_HEADER, f"{allocated} bits allocated")
    signed = allocated > 1 and dataset.unsigned(tags.PIXEL_REPRESENTATION) == 1
    return "i" if signed else "u", allocated
