"""What is measured of a slice's pixels at screening time, so that no later check needs them.

All of it is derived from first and second differences of the values, in about a millisecond for
512 × 512 pixels. Units are those of the values (HU for CT); y is down, x to the right, in pixels.
"""

from __future__ import annotations

import base64
import zlib
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicewatch.records import Traces

type Image = NDArray[np.float32]
type Grid = NDArray[np.float64]

MODALITIES = frozenset({"CT", "MR", "PT"})
"""Reconstructed slices: their noise is a fingerprint, and their neighbours are alike."""
MIN_SIDE, MAX_PIXELS = 48, 2048 * 2048

WINDOW = 8
"""Side of the windows whose exact repetition is looked for."""
LANDMARKS = 96
"""Windows that are kept of each slice."""
HASH_BITS, _PLACE_BITS = 42, 11  # together 64: a window's hash, its row and its column

_CODES_PER_OCTAVE = 8
_OFFSET = 0.25
"""Added before the logarithm: without it, a flat region would be infinitely quiet."""

_ODD_Y, _ODD_X = 0x9E3779B1, 0x85EBCA6B
_SAMPLED = 1 << 29  # one window in eight
_SECOND_HASH = np.random.default_rng(0x51CE).integers(1, 1 << 63, (WINDOW, WINDOW), np.uint64) | 1

_ZIGZAG = ((0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0))
_BINS = 1024
_MAX_BLOCKS = 1024


def measure(values: Image, modality: str) -> Traces | None:
    """Measure one slice.

    Args:
        values: (rows, columns) in modality units.

    Returns:
        ``None`` for what is no reconstructed slice, very small, or empty.
    """
    rows, columns = values.shape
    if modality not in MODALITIES or min(rows, columns) < MIN_SIDE or values.size > MAX_PIXELS:
        return None
    across = values[:, 1:] - values[:, :-1]
    changes = np.abs(across)
    activity = float(changes.mean())
    if not 0 < activity < np.inf:  # nothing there, or a value that is no number
        return None
    fine = np.abs(across[1:] - across[:-1])
    # Modality units that are no whole numbers round to steps that are none.
    some = changes[::4]
    step = float(np.min(some, where=some > 1e-3 * activity, initial=activity))
    grid = _noise_grid(values, fine, modality)
    body = grid.body
    if np.count_nonzero(body) < 16:
        return None
    profiles = _profiles(fine)
    windows = _windows(across, changes, step)
    return Traces(
        noise=_round(np.median(grid.fine[body])),
        sharpness=_round(np.median(np.log2(grid.fine[body] / grid.coarse[body]))),
        cell=grid.cell,
        grid=_pack_grid(grid),
        landmarks=_pack_landmarks(across, windows),
        copies=_copies_within(windows),
        blocks=_round(min(_block_edges(profile) for profile in profiles)),
        comb=_round(_dct_comb(values, step)),
        periodicity=_round(max(_periodicity(profile) for profile in profiles)),
    )


def _round(value: float | np.floating) -> float:
    return float(f"{float(value):.4g}")


# --- noise ------------------------------------------------------------------------------------


class NoiseGrid(NamedTuple):
    """Noise by cells of `cell` pixels, each (cell rows, cell columns), in units of the values.

    `fine` is the mean absolute mixed second difference over one pixel, `coarse` that over two;
    the busiest quarter of each cell is left out, so that an edge does not count as noise. For
    white noise both are the same; a reconstruction kernel makes `fine` the smaller one.
    `body` is where there is something to measure: not air, not background.
    """

    cell: int
    fine: Grid
    coarse: Grid
    body: NDArray[np.bool_]


def _noise_grid(values: Image, fine: Image, modality: str) -> NoiseGrid:
    cell = max(8, 4 * -(-max(values.shape) // 128))
    coarse = values[2:, 2:] - values[2:, :-2] - values[:-2, 2:] + values[:-2, :-2]
    shape = coarse.shape[0] // cell, coarse.shape[1] // cell
    levels = _quarters(values, cell, shape).mean(-1)
    quiet = []
    for one in (fine, np.abs(coarse)):
        quarters = _quarters(one, cell, shape)
        quiet.append((quarters.sum(-1) - quarters.max(-1)) / 3 + _OFFSET)
    if modality == "CT":
        body = (levels > -150) & (levels < 300)
    else:
        body = levels > 0.3 * np.percentile(levels, 98)
    return NoiseGrid(cell, quiet[0], quiet[1], body)


def _quarters(image: Image, cell: int, shape: tuple[int, int]) -> Grid:
    """Means of the quarters of each cell: (cell rows, cell columns, 4)."""
    rows, columns = shape
    half = cell // 2
    trimmed = image[: rows * cell, : columns * cell]
    # Strided sums: numpy reduces short axes several times slower.
    sums = reduce(np.add, (trimmed[offset::half] for offset in range(half)))
    sums = reduce(np.add, (sums[:, offset::half] for offset in range(half)))
    means = sums.reshape(rows, 2, columns, 2).swapaxes(1, 2).reshape(rows, columns, 4)
    means = means / np.float32(half * half)
    return means.astype(np.float64)


def _pack_grid(grid: NoiseGrid) -> str:
    fine, coarse = (
        np.clip(np.rint(_CODES_PER_OCTAVE * np.log2(one)) + 32, 1, 255).astype(np.uint8)
        for one in (grid.fine, grid.coarse)
    )
    # Differences of neighbours are small numbers, which deflate to half the size.
    planes = np.stack([np.where(grid.body, fine, 0), np.where(grid.body, coarse - fine, 0)])
    flat = planes.astype(np.uint8)
    flat[:, :, 1:] = flat[:, :, 1:] - flat[:, :, :-1]
    shape = np.array(flat.shape[1:], "<u2").tobytes()
    return base64.b64encode(zlib.compress(shape + flat.tobytes(), 1)).decode("ascii")


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
    fine, beyond = np.cumsum(flat, axis=2, dtype=np.uint8)
    codes = np.stack([fine, fine + beyond]).astype(np.float64)
    logs = np.where(fine > 0, (codes - 32) / _CODES_PER_OCTAVE, np.nan)
    return logs[0], logs[1]


# --- repeated windows -------------------------------------------------------------------------


class _Windows(NamedTuple):
    """A sample of the windows with structure, chosen by their content: a copy is chosen, too.

    They are sorted by hash, then by place.
    """

    hashes: NDArray[np.uint32]
    y: NDArray[np.int64]
    x: NDArray[np.int64]


def _windows(across: Image, changes: Image, step: float) -> _Windows:
    """Windows in which neighbours differ by two steps of the values or more on average.

    Differences make the hash of a copy independent of an offset of the values; their bits are
    hashed as they are, for a copy is exact. Each difference counts as four steps at most, so
    that one speck does not make an empty window a window with structure.
    """
    hashes = np.ascontiguousarray(across).view(np.uint32)
    hashes = hashes ^ (hashes >> np.uint32(16))  # the low bits of small whole numbers are zero
    hashes = _rolled(_rolled(hashes, 0, _ODD_Y), 1, _ODD_X)
    structure = np.minimum(changes * np.float32(1 / step), np.float32(4)).astype(np.uint16)
    structure = _rolled(_rolled(structure, 0, 1), 1, 1)
    textured = structure >= np.uint16(2 * WINDOW * WINDOW)
    chosen = np.flatnonzero(textured & (hashes < np.uint32(_SAMPLED)))
    keys = np.sort(hashes.ravel()[chosen].astype(np.uint64) << np.uint64(32) | chosen.astype("u8"))
    y, x = np.divmod((keys & np.uint64(0xFFFFFFFF)).astype(np.int64), hashes.shape[1])
    return _Windows((keys >> np.uint64(32)).astype(np.uint32), y, x)


def _rolled[Number: (np.uint16, np.uint32)](
    values: NDArray[Number], axis: int, factor: int
) -> NDArray[Number]:
    """Polynomial of `WINDOW` consecutive values at each place, modulo their range, by doubling."""
    length = 1
    while length < WINDOW:
        head = values[:-length] if axis == 0 else values[:, :-length]
        tail = values[length:] if axis == 0 else values[:, length:]
        values = head + tail if factor == 1 else head + values.dtype.type(factor) * tail
        factor = factor * factor & 0xFFFFFFFF
        length *= 2
    return values


def _copies_within(windows: _Windows) -> tuple[int, int, int]:
    """How many sampled windows repeat at the most frequent displacement, and that (y, x).

    Windows that overlap their copy are periodic texture rather than a copy.
    """
    same = np.flatnonzero(windows.hashes[1:] == windows.hashes[:-1])
    dy = windows.y[same + 1] - windows.y[same]
    dx = windows.x[same + 1] - windows.x[same]
    apart = np.maximum(np.abs(dy), np.abs(dx)) >= WINDOW
    if not apart.any():
        return (0, 0, 0)
    moves, counts = np.unique(dy[apart] * 4096 + dx[apart] + 2048, return_counts=True)
    best = int(np.argmax(counts))
    up, along = divmod(int(moves[best]), 4096)
    return int(counts[best]), up, along - 2048


def _pack_landmarks(across: Image, windows: _Windows) -> str:
    """The windows of the smallest hashes, each with a second, independent hash."""
    y, x = windows.y[:LANDMARKS], windows.x[:LANDMARKS]
    inside = np.arange(WINDOW)
    content = across[y[:, None, None] + inside[:, None], x[:, None, None] + inside]
    bits = content.view(np.uint32).astype(np.uint64)
    second = (bits * _SECOND_HASH).sum(axis=(1, 2), dtype=np.uint64)
    second ^= second >> np.uint64(29)
    second *= np.uint64(0xBF58476D1CE4E5B9)
    second >>= np.uint64(64 - HASH_BITS)
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


# --- traces of compression and resampling -----------------------------------------------------


def _profiles(fine: Image) -> tuple[Grid, Grid]:
    """Logarithm of the mean noise of each column and each row, without its slow changes."""
    limit = np.float32(4 * np.mean(fine[::3, ::3]))  # an edge is not to outweigh the rest
    clipped = np.minimum(fine, limit)
    columns, rows = (clipped.mean(axis=axis, dtype=np.float32) for axis in (0, 1))
    return _detrended(np.asarray(columns)), _detrended(np.asarray(rows))


def _detrended(profile: Image) -> Grid:
    logs = np.log(profile.astype(np.float64) + 1e-3)
    near = np.convolve(np.pad(logs, 4, mode="edge"), np.full(9, 1 / 9), mode="valid")
    detrended: Grid = np.clip(logs - near, -1, 1)
    return detrended


def _block_edges(profile: Grid) -> float:
    """How far one of the eight phases stands out, in standard errors (Chen and Hsu 2011)."""
    usable = profile[: len(profile) // 8 * 8].reshape(-1, 8)
    phases = usable.mean(axis=0)
    spread = 1.4826 * float(np.median(np.abs(profile - np.median(profile)))) + 0.02
    strongest = phases[np.argmax(np.abs(phases - np.median(phases)))]
    return float(abs(strongest - np.median(phases)) / spread * len(usable) ** 0.5)


def _periodicity(profile: Grid) -> float:
    """Strongest line of the profile's spectrum over its median (Gallagher 2005)."""
    power = np.abs(np.fft.rfft(profile * np.hanning(len(profile)))) ** 2
    power = power[len(power) // 5 :]
    return float(power.max() / (np.median(power) + 1e-9))


_ANGLES = np.pi * (2 * np.arange(8) + 1) * np.arange(8)[:, None] / 16
_DCT = np.cos(_ANGLES) * np.where(np.arange(8)[:, None] == 0, 8**-0.5, 0.5)
_COSINES = np.stack([np.outer(_DCT[u], _DCT[v]).ravel() for u, v in _ZIGZAG], 1).astype(np.float32)
"""What takes a block's 64 values to its nine lowest coefficients but the mean."""


def _dct_comb(values: Image, step: float) -> float:
    """How far the DCT coefficients of 8 × 8 blocks prefer multiples of one step.

    The blocks begin at the first pixel, as those of an encoder do. Of each low frequency the
    histogram's spectrum is searched for a line; for data that no encoder touched the largest
    of all is about 10, and quantised coefficients give tens to hundreds.
    """
    rows, columns = values.shape[0] // 8, values.shape[1] // 8
    blocks = values[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8)
    every = -(-rows * columns // _MAX_BLOCKS)
    blocks = blocks.swapaxes(1, 2).reshape(-1, 8, 8)[::every]
    low = blocks.reshape(-1, 64) @ _COSINES
    energy = np.abs(low).sum(axis=1)
    low = low[energy > 0.3 * energy.mean()]
    if len(low) < 32:
        return 0.0
    bins = np.rint(np.clip(low * np.float32(1 / step), -1e9, 1e9)).astype(np.int64) % _BINS
    shifted = (bins + _BINS * np.arange(len(_ZIGZAG))).ravel()
    histograms = np.bincount(shifted, minlength=_BINS * len(_ZIGZAG)).reshape(-1, _BINS)
    power = np.abs(np.fft.rfft(histograms)[:, _BINS // 40 :]) ** 2
    return float(power.max()) / len(low)
