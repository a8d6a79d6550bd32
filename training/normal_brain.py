"""Slices of a normal brain, as negatives where every annotated slice shows a tumour.

The brain is the ICBM152 template (non-linear symmetric 2009a, the average of 152 healthy people)
that nilearn ships: V. Fonov et al., NeuroImage 54(1), 2011. It has no skull, which would tell it
from patients at a glance, so a head is drawn around it: dark cerebrospinal fluid and bone, bright
fat and skin. Tilt, plane, size, contrast, coil shading, sharpness and noise vary with the seed.

One brain many times is no sample of healthy people: it teaches what ventricles, falx and basal
ganglia look like, and measures nothing.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
_MARGIN = 24
"""Voxels of 1 mm around the template, to hold the head."""


@lru_cache(maxsize=1)
def template() -> NDArray[np.float32]:
    """The template, (right to left, posterior to anterior, inferior to superior) at 1 mm, 0 to 1.

    Raises:
        ImportError: nilearn is not installed.
    """
    import nibabel
    import nilearn

    file = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    volume = nibabel.load(Path(nilearn.__file__).parent / "datasets" / "data" / file)
    voxels = np.asarray(volume.dataobj, np.float32)
    return np.pad(voxels / voxels.max(), _MARGIN)


def normal_slice(seed: int) -> tuple[NDArray[np.float32], str]:
    """One slice, (rows, columns) in arbitrary units as an MR scanner gives, and its plane.

    The same seed gives the same slice.
    """
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    plane = sorted(PLANES)[int(rng.integers(len(PLANES)))]
    axis = PLANES[plane]
    volume = template()
    head = _tilted(volume, rng)
    inside = np.flatnonzero((head > 0.05).sum(axis=tuple({0, 1, 2} - {axis})) > 5000)
    chosen = int(rng.choice(inside[4:-4]))
    brain = np.rot90(np.take(head, chosen, axis=axis))
    brain = _contrast(brain, rng)
    picture = _with_head(brain, rng)
    picture = ndimage.zoom(picture, float(rng.uniform(1.3, 2.2)), order=1)
    picture = ndimage.gaussian_filter(picture, float(rng.uniform(0.3, 1.4)))
    picture = picture * _shading(picture.shape, rng)
    noise = rng.uniform(0.005, 0.035)
    real, imaginary = rng.normal(0, noise, (2, *picture.shape))
    return np.hypot(picture + real, imaginary).astype(np.float32) * 1000, plane  # Rician


def _tilted(volume: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    from scipy import ndimage

    tilts = np.deg2rad(rng.uniform(-12, 12, 3))
    turn = np.eye(3)
    for first, second, angle in ((0, 1, tilts[0]), (0, 2, tilts[1]), (1, 2, tilts[2])):
        step = np.eye(3)
        step[[first, second], [first, second]] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    turn = turn @ np.diag(rng.uniform(0.92, 1.1, 3))
    centre = (np.array(volume.shape) - 1) / 2
    tilted = ndimage.affine_transform(volume, turn, centre - turn @ centre, order=1)
    return np.asarray(tilted, np.float32)


def _contrast(brain: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Another scanner's gray and white matter; the average of many is smoother than a patient."""
    from scipy import ndimage

    detail = brain - ndimage.gaussian_filter(brain, 2.0)
    sharpened = np.clip(brain + rng.uniform(0.5, 2.0) * detail, 0, 1)
    return np.asarray(rng.uniform(0.45, 0.8) * sharpened ** rng.uniform(0.8, 1.8), np.float32)


def _with_head(brain: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    from scipy import ndimage

    grown = ndimage.binary_closing(np.pad(brain > 0.02, 16), iterations=16)
    inside = ndimage.binary_fill_holes(grown)[16:-16, 16:-16]
    away = ndimage.distance_transform_edt(~inside)
    waves = ndimage.gaussian_filter(rng.normal(0, 1, brain.shape), 12)
    away = away + 2.5 * waves / waves.std()
    fluid, bone, fat = np.cumsum(rng.uniform((1.5, 3, 3), (4, 6, 8)))
    head = np.where(away < fluid, 0.12, np.where(away < bone, 0.04, rng.uniform(0.5, 1.0)))
    head = np.where(away > fat, 0.0, head)
    # Vessels and dura take up contrast medium along the surface of the brain.
    dura = (away > 0) & (away < 1.2) & (waves > 0)
    head = np.where(dura, rng.uniform(0.3, 0.7), head)
    return np.asarray(np.where(inside, np.maximum(brain, 0.06), head), np.float32)


def _shading(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    slope, bow = rng.uniform(-0.2, 0.2, 2), rng.uniform(-0.2, 0.2, 2)
    field = 1 + slope[0] * rows + slope[1] * columns + bow[0] * rows**2 + bow[1] * columns**2
    return np.asarray(field, np.float64)
