"""Traces of 8 × 8 blocks and of interpolation: what repeats at equal steps in noise should not."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from slicewatch.forensics.noise import Image
from slicewatch.forensics.scratch import SCRATCH

type Profile = NDArray[np.float64]

_ZIGZAG = ((0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0))
_BINS = 1024
_MAX_BLOCKS = 1024
_FAR = 1e9  # steps: beyond it, a number is damaged, and too large for 32 bits
_NEAR = 9  # values whose mean is the slow change of a profile


def profiles(fine: Image) -> tuple[Profile, Profile]:
    """Logarithm of the mean noise of each column and each row, without its slow changes.

    Args:
        fine: `Differences.fine`.
    """
    limit = np.float32(4 * fine[::3, ::3].mean())  # an edge is not to outweigh the rest
    clipped = np.minimum(fine, limit, out=SCRATCH.array("passing", fine.size).reshape(fine.shape))
    columns = clipped.sum(axis=0)[:-1].astype(np.float64) / len(fine)
    rows = clipped.sum(axis=1).astype(np.float64) / fine.shape[1]
    return _detrended(columns), _detrended(rows)


def _detrended(profile: Profile) -> Profile:
    logs = np.log(profile + 1e-3)
    reach = _NEAR // 2
    padded = np.concatenate([np.full(reach, logs[0]), logs, np.full(reach, logs[-1])])
    near = np.convolve(padded, np.full(_NEAR, 1 / _NEAR), mode="valid")
    detrended: Profile = np.clip(logs - near, -1, 1)
    return detrended


def middle(values: NDArray[np.floating]) -> float:
    """The median; `numpy.median` takes several times as long for so few numbers."""
    ordered = np.sort(values, axis=None)
    half = len(ordered) // 2
    return float(ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2)


def block_edges(profile: Profile) -> float:
    """How far one of the eight phases stands out, in standard errors (Chen and Hsu 2011)."""
    usable = profile[: len(profile) // 8 * 8].reshape(-1, 8)
    phases = usable.sum(axis=0) / len(usable)
    spread = 1.4826 * middle(np.abs(profile - middle(profile))) + 0.02
    return float(np.abs(phases - middle(phases)).max() / spread * len(usable) ** 0.5)


def interpolation(profile: Profile) -> float:
    """Strongest line of the profile's spectrum over its median (Gallagher 2005)."""
    power = _power(np.fft.rfft(profile * _window(len(profile))))
    power = power[len(power) // 5 :]
    return float(power.max() / (middle(power) + 1e-9))


@lru_cache(maxsize=16)
def _window(length: int) -> Profile:
    return np.hanning(length)


def _power(spectrum: NDArray[np.complexfloating]) -> NDArray[np.floating]:
    power: NDArray[np.floating] = spectrum.real**2 + spectrum.imag**2
    return power


_ANGLES = np.pi * (2 * np.arange(8) + 1) * np.arange(8)[:, None] / 16
_DCT = np.cos(_ANGLES) * np.where(np.arange(8)[:, None] == 0, 8**-0.5, 0.5)
_COSINES = np.stack([np.outer(_DCT[u], _DCT[v]).ravel() for u, v in _ZIGZAG], 1).astype(np.float32)
"""What takes a block's 64 values to its nine lowest coefficients but the mean."""
_ONES = np.ones(len(_ZIGZAG), np.float32)


def dct_comb(values: Image, step: float) -> float:
    """How far the DCT coefficients of 8 × 8 blocks prefer multiples of one step.

    The blocks begin at the first pixel, as those of an encoder do. Of each low frequency the
    histogram's spectrum is searched for a line; for data that no encoder touched the largest
    of all is about 10, and quantised coefficients give tens to hundreds.
    """
    rows, columns = values.shape[0] // 8, values.shape[1] // 8
    every = -(-rows * columns // _MAX_BLOCKS)
    bands = values[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8)[::every]
    low = bands.swapaxes(1, 2).reshape(-1, 64) @ _COSINES
    energy = np.abs(low) @ _ONES
    low = low.take(np.flatnonzero(energy > 0.3 * energy.mean()), axis=0)
    if len(low) < 32:
        return 0.0
    steps = np.rint(low * np.float32(1 / step)).clip(-_FAR, _FAR).astype(np.int32) & (_BINS - 1)
    steps += _BINS * np.arange(len(_ZIGZAG), dtype=np.int32)
    histograms = np.bincount(steps.ravel(), minlength=_BINS * len(_ZIGZAG)).reshape(-1, _BINS)
    power = _power(np.fft.rfft(histograms)[:, _BINS // 40 :])
    return float(power.max()) / len(low)
