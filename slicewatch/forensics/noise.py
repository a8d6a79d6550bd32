"""Noise of a slice: differences of neighbouring values, and what they tell cell by cell.

Units are those of the values (HU for CT); y is down, x to the right, in pixels.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicewatch.forensics.scratch import SCRATCH
from slicewatch.records import Traces

type Image = NDArray[np.float32]
type Grid = NDArray[np.float32]

_CODES_PER_OCTAVE = 8
_OFFSET = np.float32(0.25)
"""Added before the logarithm: without it, a flat region would be infinitely quiet."""


class Differences(NamedTuple):
    """Differences of neighbouring values, in memory that the thread's next slice overwrites.

    All are as wide as the slice, so that one operation goes over their rows as over one long
    row, which numpy does five times as fast as many short ones. The last column of `across` and
    `fine` has no neighbour and is 0; the last two of `coarse` hold no difference.

    Attributes:
        across: (rows, columns), a value less the one to its left.
        fine: (rows - 1, columns), absolute mixed second difference over one pixel.
        coarse: (rows - 2, columns), the same over two pixels.
    """

    across: Image
    fine: Image
    coarse: Image


def differences(values: Image) -> Differences:
    """Differences of a slice's values, (rows, columns)."""
    rows, columns = values.shape
    flat = np.ascontiguousarray(values).ravel()
    size = flat.size
    across = SCRATCH.array("across", size)
    np.subtract(flat[1:], flat[:-1], out=across[:-1])
    across.reshape(rows, columns)[:, -1] = 0
    fine = SCRATCH.array("fine", size - columns)
    np.subtract(across[columns:], across[:-columns], out=fine)
    over_two = SCRATCH.array("passing", size - 2)
    np.subtract(flat[2:], flat[:-2], out=over_two)
    coarse = SCRATCH.array("coarse", size - 2 * columns)
    np.subtract(over_two[2 * columns :], over_two[: -2 * columns], out=coarse[:-2])
    coarse[-2:] = 0
    return Differences(
        across.reshape(rows, columns),
        np.abs(fine, out=fine).reshape(rows - 1, columns),
        np.abs(coarse, out=coarse).reshape(rows - 2, columns),
    )


class NoiseGrid(NamedTuple):
    """Noise by cells of `cell` pixels.

    Attributes:
        logs: (2, cell rows, cell columns), log2 of the values' units: the mean absolute mixed
            second difference over one pixel (fine), and over two (coarse). The busiest quarter of
            each cell is left out, so that an edge does not count as noise. For white noise both
            are the same; a reconstruction kernel makes the fine one smaller.
        body: (cell rows, cell columns), where there is something to measure: not air, not
            background.
    """

    cell: int
    logs: Grid
    body: NDArray[np.bool_]


def noise_grid(values: Image, differing: Differences, modality: str) -> NoiseGrid:
    """Noise of a slice cell by cell."""
    cell = max(8, 4 * -(-max(values.shape) // 128))
    rows, columns = values.shape
    shape = (rows - 2) // cell, (columns - 2) // cell
    levels = _sum(_quarters(values, cell, shape)) / 4
    noise = []
    for image in (differing.fine, differing.coarse):
        quarters = _quarters(image, cell, shape)
        noise.append(_sum(quarters) - reduce(np.maximum, quarters))
    logs = np.log2(np.stack(noise) / 3 + _OFFSET)
    if modality == "CT":
        body = (levels > -150) & (levels < 300)
    else:
        body = levels > 0.3 * np.percentile(levels, 98)
    return NoiseGrid(cell, logs, body)


def _quarters(image: Image, cell: int, shape: tuple[int, int]) -> list[Grid]:
    """Means of the four quarters of each cell, each (cell rows, cell columns)."""
    rows, columns = shape
    half = cell // 2
    halves = image[: rows * cell].reshape(2 * rows, half, -1).sum(axis=1)[:, : columns * cell]
    # Strided sums: numpy reduces short axes several times slower.
    means = _sum([halves[:, offset::half] for offset in range(half)]) / np.float32(half * half)
    return [means[y::2, x::2] for y in range(2) for x in range(2)]


def _sum(grids: Sequence[Grid]) -> Grid:
    return reduce(np.add, grids)


def pack_grid(grid: NoiseGrid) -> str:
    """Eighths of an octave, deflated, for `Traces.grid`."""
    steps = np.rint(_CODES_PER_OCTAVE * grid.logs)
    codes = np.clip(steps + 32, 1, 255).astype(np.uint8)
    # Differences of neighbours are small numbers, which deflate to half the size.
    codes[1] -= codes[0]
    codes *= grid.body
    codes[:, :, 1:] -= codes[:, :, :-1].copy()
    shape = np.array(codes.shape[1:], "<u2").tobytes()
    return base64.b64encode(zlib.compress(shape + codes.tobytes(), 1)).decode("ascii")


def unpack_grid(traces: Traces) -> tuple[Grid, Grid]:
    """Fine and coarse noise of a slice as log2, NaN outside of the body.

    Raises:
        ValueError: it is no packed grid.
    """
    try:
        data = zlib.decompress(base64.b64decode(traces.grid))
    except zlib.error as error:
        raise ValueError("not a packed grid") from error
    rows, columns = (int(side) for side in np.frombuffer(data, "<u2", 2))
    flat = np.frombuffer(data, np.uint8, offset=4).reshape(2, rows, columns)
    codes = np.cumsum(flat, axis=2, dtype=np.uint8)
    outside = codes[0] == 0
    codes[1] += codes[0]
    logs = (codes.astype(np.float32) - 32) / np.float32(_CODES_PER_OCTAVE)
    logs[:, outside] = np.nan
    return logs[0], logs[1]
