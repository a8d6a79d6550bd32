"""What is measured of a slice's pixels at screening time, so that no later check needs them."""

from __future__ import annotations

import numpy as np

from slicewatch.forensics import noise, periodicity, windows
from slicewatch.forensics.noise import Image
from slicewatch.records import Traces

MODALITIES = frozenset({"CT", "MR", "PT"})
"""Reconstructed slices: their noise is a fingerprint, and their neighbours are alike."""
MIN_SIDE, MAX_PIXELS = 48, 2048 * 2048


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
    differing = noise.differences(values)
    some = np.abs(differing.across[::8]).ravel()
    activity = float(some.mean())
    if not 0 < activity < np.inf:  # nothing there, or a value that is no number
        return None
    # Modality units that are no whole numbers round to steps that are none.
    step = float(some[some > 1e-3 * activity].min())
    grid = noise.noise_grid(values, differing, modality)
    body = grid.body
    if np.count_nonzero(body) < 16:
        return None
    fine, coarse = grid.logs[:, body]
    profiles = periodicity.profiles(differing.fine)
    sample = windows.windows(differing.across, step)
    return Traces(
        noise=_round(2 ** periodicity.middle(fine)),
        sharpness=_round(periodicity.middle(fine - coarse)),
        cell=grid.cell,
        grid=noise.pack_grid(grid),
        landmarks=windows.pack_landmarks(sample),
        copies=windows.copies_within(sample),
        blocks=_round(min(periodicity.block_edges(profile) for profile in profiles)),
        comb=_round(periodicity.dct_comb(values, step)),
        periodicity=_round(max(periodicity.interpolation(profile) for profile in profiles)),
    )


def _round(value: float) -> float:
    return float(f"{value:.4g}")
