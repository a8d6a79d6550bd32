"""Windows of a slice that are told by their content: what was copied has them twice.

A window is `WINDOW` × `WINDOW` differences of neighbouring values, so that an offset that was
added to a copy does not hide it. y is down, x to the right, in pixels.
"""

from __future__ import annotations

import base64
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicewatch.forensics.noise import Image
from slicewatch.forensics.scratch import SCRATCH
from slicewatch.records import Traces

WINDOW = 8
"""Side of the windows whose exact repetition is looked for."""
LANDMARKS = 96
"""Windows that are kept of each slice."""
HASH_BITS, _PLACE_BITS = 42, 11  # together 64: a window's hash, its row and its column

_ODD_Y, _ODD_X = 0x9E3779B1, 0x85EBCA6B
_MOST_SAMPLED, _SAMPLES = 1 << 29, 1 << 13
"""One window in eight, but about this many of a slice at most."""
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_SECOND_HASH = np.random.default_rng(0x51CE).integers(1, 1 << 63, WINDOW * WINDOW, np.uint64) | 1


class Windows(NamedTuple):
    """A sample of the windows with structure, chosen by their content: a copy is chosen, too.

    Attributes:
        across: (rows, columns), the differences that they are of.
        keys: hash (upper 32 bits) and place (row × columns + column), in ascending order.
    """

    across: Image
    keys: NDArray[np.uint64]

    def places(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the first pixels of windows."""
        y, x = np.divmod((keys & _LOW).astype(np.int64), self.across.shape[1])
        return y, x


def windows(across: Image, step: float) -> Windows:
    """Windows in which half of the neighbours differ by two steps of the values or more.

    The bits of the differences are hashed as they are, for a copy is exact.
    """
    rows, columns = across.shape
    passing = SCRATCH.array("passing", across.size)
    busy = np.abs(across.ravel(), out=passing) >= np.float32(2 * step)
    textured = _rolled(_rolled(busy.view(np.uint8), columns), 1)
    bits = across.ravel().view(np.uint32)
    hashes = SCRATCH.array("hashes", across.size).view(np.uint32)
    np.right_shift(bits, np.uint32(16), out=hashes)  # the low bits of small whole numbers are zero
    hashes ^= bits
    hashes = _rolled(_rolled(hashes, columns, _ODD_Y), 1, _ODD_X)
    sampled = np.uint32(min(_MOST_SAMPLED, (_SAMPLES << 32) // across.size))
    chosen = (hashes < sampled) & (textured >= WINDOW * WINDOW // 2)
    within = np.zeros((rows - WINDOW + 1, columns), np.bool_)
    within.ravel()[: chosen.size] = chosen
    within[:, columns - WINDOW :] = False  # they would go on in the next row
    at = np.flatnonzero(within)
    keys = hashes[at].astype(np.uint64) << _HALF | at.astype(np.uint64)
    keys.sort()
    return Windows(across, keys)


def _rolled[Number: (np.uint8, np.uint32)](
    values: NDArray[Number], stride: int, factor: int = 1
) -> NDArray[Number]:
    """Polynomial of `WINDOW` values that are `stride` apart, modulo their range, by doubling.

    Overwrites `values`.
    """
    reach = stride
    while reach < WINDOW * stride:
        later = values[reach:]
        values = values[:-reach]
        if factor != 1:
            passing = SCRATCH.array("passing", later.size).view(np.uint32)
            later = np.multiply(later, np.uint32(factor), out=passing)
        values += later
        factor = factor * factor & 0xFFFFFFFF
        reach *= 2
    return values


def copies_within(sample: Windows) -> tuple[int, int, int]:
    """How many sampled windows repeat at the most frequent displacement, and that (y, x).

    Windows that overlap their copy are periodic texture rather than a copy.
    """
    hashes = sample.keys >> _HALF
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    if not same.size:
        return (0, 0, 0)
    y, x = sample.places(sample.keys[same])
    other_y, other_x = sample.places(sample.keys[same + 1])
    dy, dx = other_y - y, other_x - x
    apart = np.maximum(np.abs(dy), np.abs(dx)) >= WINDOW
    if not apart.any():
        return (0, 0, 0)
    moves, counts = np.unique(dy[apart] * 4096 + dx[apart] + 2048, return_counts=True)
    best = int(np.argmax(counts))
    up, along = divmod(int(moves[best]), 4096)
    return int(counts[best]), up, along - 2048


def pack_landmarks(sample: Windows) -> str:
    """The windows of the smallest hashes, each with a second, independent hash."""
    keys = sample.keys[:LANDMARKS]
    rows, columns = np.divmod(np.arange(WINDOW * WINDOW), WINDOW)
    inside = rows * sample.across.shape[1] + columns
    bits = sample.across.ravel().view(np.uint32)[(keys & _LOW).astype(np.int64)[:, None] + inside]
    second = (bits * _SECOND_HASH).sum(axis=1, dtype=np.uint64)
    second ^= second >> np.uint64(29)
    second *= np.uint64(0xBF58476D1CE4E5B9)
    second >>= np.uint64(64 - HASH_BITS)
    y, x = sample.places(keys)
    places = (y << _PLACE_BITS | x).astype(np.uint64)
    packed = second << np.uint64(2 * _PLACE_BITS) | places
    return base64.b64encode(packed.astype("<u8").tobytes()).decode("ascii")


def unpack_landmarks(traces: Traces) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hashes (n,), and the (y, x) of their windows' first pixels, (n, 2).

    Raises:
        ValueError: they are no packed landmarks.
    """
    packed = np.frombuffer(base64.b64decode(traces.landmarks), "<u8").astype(np.int64)
    side = (1 << _PLACE_BITS) - 1
    places = np.stack([packed >> _PLACE_BITS & side, packed & side], axis=1)
    return (packed >> 2 * _PLACE_BITS) & ((1 << HASH_BITS) - 1), places
