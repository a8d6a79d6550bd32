"""Stored values to modality units, or to luminance (PS3.3 sections C.11.1 and C.7.6.3.1)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slicewatch import tags
from slicewatch.elements import Dataset
from slicewatch.image_pixel import PALETTE, YBR, PixelDescription, Stored
from slicewatch.limits import Rejected
from slicewatch.pixels import Voi
from slicewatch.records import Reason

# Y of RGB, PS3.3 section C.7.6.3.1.2 (ITU-R BT.601).
_RED, _GREEN, _BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)

_MAX_ENTRIES = 1 << 16


@dataclass(frozen=True, slots=True)
class Rescale:
    """Modality units = slope × stored value + intercept."""

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, stored: Stored) -> NDArray[np.float32]:
        values = stored.astype(np.float32)
        if self.slope != 1:
            values *= np.float32(self.slope)
        if self.intercept != 0:
            values += np.float32(self.intercept)
        return values


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A table of the standard: stored value `first` maps to ``entries[0]`` (section C.11.1.1)."""

    first: int
    entries: NDArray[np.float32]

    def __call__(self, stored: Stored) -> NDArray[np.float32]:
        """Look up; values beyond the table take its first or last entry."""
        index = stored.astype(np.int64) - self.first
        return self.entries[np.clip(index, 0, len(self.entries) - 1)]


def read_table(dataset: Dataset, descriptor: int, data: int, *, signed: bool) -> LookupTable:
    """Read a lookup table.

    Args:
        signed: whether stored values, and so the first one mapped, are signed.

    Raises:
        Rejected: there is no descriptor, or it does not fit the data.
    """
    count, first, bits = _descriptor(dataset, descriptor, signed=signed)
    raw = dataset.raw(data)
    # Tables of 8-bit entries come packed, and with one entry in each word.
    packed = bits <= 8 and len(raw) < 2 * count
    if len(raw) < (count if packed else 2 * count):
        raise Rejected(Reason.BAD_HEADER, "a lookup table is shorter than its descriptor says")
    dtype = "u1" if packed else f"{dataset.encoding.order}u2"
    return LookupTable(first, np.frombuffer(raw, dtype, count).astype(np.float32))


def _descriptor(dataset: Dataset, tag: int, *, signed: bool) -> tuple[int, int, int]:
    """Number of entries, first value mapped, bits of an entry."""
    words = dataset.words(tag)
    if len(words) != 3:
        raise Rejected(Reason.BAD_HEADER, "a lookup table has no descriptor of three values")
    count, first, bits = words
    return count or _MAX_ENTRIES, first - (1 << 16 if signed and first >> 15 else 0), bits


def _palette(dataset: Dataset) -> tuple[LookupTable, ...]:
    """Red, green and blue table (section C.7.6.3.1.5), as values 0 to 255."""
    tables = []
    for descriptor, data, segmented in zip(
        tags.PALETTE_DESCRIPTORS, tags.PALETTE_DATA, tags.SEGMENTED_PALETTE_DATA, strict=True
    ):
        if data in dataset:
            table = read_table(dataset, descriptor, data, signed=False)
        else:
            table = _read_segmented(dataset, descriptor, segmented)
        # The descriptor may say 16 bits of a table that holds 8.
        wide = table.entries.max(initial=0) > 255
        tables.append(replace(table, entries=table.entries / np.float32(257 if wide else 1)))
    return tuple(tables)


def _read_segmented(dataset: Dataset, descriptor: int, data: int) -> LookupTable:
    """A table in segments, section C.7.9.2."""
    count, first, bits = _descriptor(dataset, descriptor, signed=False)
    raw = dataset.raw(data)
    if bits <= 8:
        units, offset_units = list(raw), 1
    else:
        units, offset_units = list(dataset.words(data)), 2
    try:
        entries = _expand(units, count, offset_units)
    except IndexError as error:
        raise Rejected(Reason.BAD_HEADER, "a segmented palette is damaged") from error
    return LookupTable(first, np.array(entries[:count], np.float32))


def _expand(units: list[int], count: int, unit_bytes: int) -> list[int]:
    """Expand segments to `count` entries; each segment must add one, so that this ends."""
    entries: list[int] = []
    position = 0
    pending = [(0, _MAX_ENTRIES)]  # (where to go on, how many segments): copies on top
    while len(entries) < count:
        position, segments = pending.pop()
        opcode, length = units[position], units[position + 1]
        position += 2
        before = len(entries)
        if opcode == 0:
            entries += units[position : position + length]
            position += length
        elif opcode == 1:
            entries += _line(entries[-1], units[position], length)
            position += 1
        elif opcode == 2 and len(pending) == 0:
            offset, position = _offset(units, position, unit_bytes)
            pending.append((position, segments - 1))
            pending.append((offset, length))
            continue
        if len(entries) == before:
            raise Rejected(Reason.BAD_HEADER, "a segmented palette has an empty segment")
        if segments > 1:
            pending.append((position, segments - 1))
    return entries


def _line(start: int, end: int, length: int) -> list[int]:
    steps = np.arange(1, length + 1) * ((end - start) / max(length, 1))
    return [int(value) for value in np.rint(start + steps)]


def _offset(units: list[int], position: int, unit_bytes: int) -> tuple[int, int]:
    """The byte offset of an indirect segment, in units; least significant word first."""
    words = 4 // unit_bytes
    parts = units[position : position + words]
    byte_offset = sum(part << 8 * unit_bytes * index for index, part in enumerate(parts))
    return byte_offset // unit_bytes, position + words


class ModalityTransform:
    """What an object's stored values mean; the same for all of its frames but for `Rescale`."""

    def __init__(self, dataset: Dataset, pixels: PixelDescription, modality: str) -> None:
        """
        Raises:
            Rejected: a lookup table is damaged.
        """
        self._pixels = pixels
        self._palette = _palette(dataset) if pixels.photometric == PALETTE else ()
        self._table: LookupTable | None = None
        item = dataset.item(tags.MODALITY_LUT_SEQUENCE)
        if item is not None and pixels.samples == 1 and not self._palette:
            self._table = read_table(
                item, tags.LUT_DESCRIPTOR, tags.LUT_DATA, signed=pixels.kind == "i"
            )
        # HU do not depend on how a viewer shows them: air stays dark whatever the polarity.
        self._inverted = pixels.photometric == "MONOCHROME1" and modality != "CT"

    def __call__(
        self, stored: Stored, photometric: str, rescale: Rescale, voi: Voi | None
    ) -> tuple[NDArray[np.float32], Voi | None]:
        """Modality units, higher is brighter, or luminance; and the VOI in the same units.

        Args:
            stored: (rows, columns) or (rows, columns, 3).
            photometric: what `stored` holds now; a codec may have undone a colour transform.
        """
        if self._palette:
            return _luminance(*(table(stored) for table in self._palette)), None
        if stored.ndim == 3:
            if photometric in YBR:
                return stored[..., 0].astype(np.float32), None
            return _luminance(*(stored[..., i].astype(np.float32) for i in range(3))), None
        with np.errstate(over="ignore"):  # doubles beyond float32 become infinite
            to_modality = self._table or rescale
            values = to_modality(stored)
            if not self._inverted:
                return values, voi
            mirror = float(to_modality(self._ends(stored)).sum(dtype=np.float64))
            return np.float32(mirror) - values, _mirrored(voi, mirror)

    def _ends(self, stored: Stored) -> Stored:
        """The lowest and the highest value that can be stored (for floats: that is)."""
        if self._pixels.kind == "f":
            return np.array([stored.min(), stored.max()])
        low = -(1 << self._pixels.stored - 1) if self._pixels.kind == "i" else 0
        return np.array([low, low + (1 << self._pixels.stored) - 1])


def _luminance(
    red: NDArray[np.float32], green: NDArray[np.float32], blue: NDArray[np.float32]
) -> NDArray[np.float32]:
    return np.asarray(red * _RED + green * _GREEN + blue * _BLUE, np.float32)


def _mirrored(voi: Voi | None, mirror: float) -> Voi | None:
    """Windows for values that were subtracted from `mirror`."""
    if voi is None:
        return None
    # LINEAR is centred half a unit below its centre (section C.11.2.1.2.1).
    shift = 1.0 if voi.function == "LINEAR" else 0.0
    return replace(
        voi, windows=tuple((mirror - centre + shift, width) for centre, width in voi.windows)
    )
