"""What is done to real slices to see whether the forensic checks notice (`benchmarks.tampering`).

A manipulation takes a series, the place where it is done, numbers that follow from the seed, and
another series of the same modality, and returns the slices that it changed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slicewatch.records import SliceResult

type Volume = NDArray[np.float32]
"""(slices, rows, columns) in modality units, by position."""

RADIUS, DEPTH = 10, 5
"""Of a changed region: pixels, slices."""


@dataclass(frozen=True, slots=True)
class Series:
    """A real series: its results, sorted by position, and the values they are of."""

    name: str
    modality: str
    results: tuple[SliceResult, ...]
    values: Volume


@dataclass(frozen=True, slots=True)
class Site:
    """Where a manipulation is done: centre in (slice, y, x)."""

    z: int
    y: int
    x: int

    @property
    def slices(self) -> range:
        return range(self.z - DEPTH // 2, self.z + DEPTH // 2 + 1)


def sites(series: Series, count: int, rng: np.random.Generator) -> list[Site]:
    """Places in soft tissue, a lesion's radius and more from the border."""
    depth, rows, columns = series.values.shape
    low, high = (-150.0, 250.0) if series.modality == "CT" else tuple(
        np.percentile(series.values, (60, 99))
    )  # fmt: skip
    margin, found = RADIUS + 4, []
    if min(rows, columns) <= 2 * margin + 8:
        return []
    for _ in range(3000):
        site = Site(
            int(rng.integers(6, depth - 6)),
            int(rng.integers(margin, rows - margin)),
            int(rng.integers(margin, columns - margin)),
        )
        tissue = series.values[site.z][_mask(series.values.shape[1:], site)]
        if low < np.median(tissue) < high and np.mean(tissue < low) < 0.05:
            found.append(site)
        if len(found) == count:
            break
    return found


def _mask(shape: Sequence[int], site: Site, grow: int = 0) -> NDArray[np.bool_]:
    y, x = np.ogrid[: shape[0], : shape[1]]
    mask: NDArray[np.bool_] = (y - site.y) ** 2 + (x - site.x) ** 2 <= (RADIUS + grow) ** 2
    return mask


def _neighbours(image: NDArray[np.float32]) -> NDArray[np.float32]:
    padded = np.pad(image, 1, mode="edge")
    mean = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
    return mean.astype(np.float32)


def _blend(old: NDArray[np.float32], new: NDArray[np.float32], site: Site) -> NDArray[np.float32]:
    """`new` inside the site, with an edge of two pixels, in whole numbers."""
    share = _mask(old.shape, site).astype(np.float32)
    for _ in range(2):
        share = np.float32(0.2) * share + np.float32(0.8) * _neighbours(share)
    return np.rint(share * new + (1 - share) * old).astype(np.float32)


def _filled(image: NDArray[np.float32], site: Site) -> NDArray[np.float32]:
    """The site filled in smoothly from its border (Laplace's equation)."""
    reach = RADIUS + 4
    window = slice(site.y - reach, site.y + reach), slice(site.x - reach, site.x + reach)
    mask = _mask(image.shape, site)[window]
    border = _mask(image.shape, site, 3)[window] & ~mask
    filled: NDArray[np.float32] = image.copy()
    part = filled[window]
    part[mask] = np.float32(part[border].mean())
    for _ in range(150):
        part[mask] = _neighbours(part)[mask]
    return filled


def _white_noise(image: NDArray[np.float32], site: Site, rng: np.random.Generator) -> Any:
    """Noise as strong as what is there, without its correlation."""
    mask = _mask(image.shape, site)
    return rng.normal(0, 0.7 * float((image - _filled(image, site))[mask].std()), image.shape)


def removal_smooth(
    series: Series, site: Site, rng: np.random.Generator, other: Series
) -> dict[int, Any]:
    """Painted over, without noise."""
    values = series.values
    return {z: _blend(values[z], _filled(values[z], site), site) for z in site.slices}


def removal_noise(
    series: Series, site: Site, rng: np.random.Generator, other: Series
) -> dict[int, Any]:
    """Painted over, with white noise of the right strength."""
    values = series.values
    return {
        z: _blend(values[z], _filled(values[z], site) + _white_noise(values[z], site, rng), site)
        for z in site.slices
    }


def removal_clone(
    series: Series, site: Site, rng: np.random.Generator, other: Series
) -> dict[int, Any]:
    """Covered with tissue from beside it."""
    columns = series.values.shape[2]
    move = 3 * RADIUS if site.x > columns // 2 else -3 * RADIUS
    return {
        z: _blend(series.values[z], np.roll(series.values[z], move, axis=1), site)
        for z in site.slices
    }


def copied_from_slice(
    series: Series, site: Site, rng: np.random.Generator, other: Series
) -> dict[int, Any]:
    """Covered with tissue from the same place far above or below."""
    count = len(series.values)
    move = count // 3 if site.z < count // 2 else -(count // 3)
    return {z: _blend(series.values[z], series.values[z + move], site) for z in site.slices}


def insertion_added(
    series: Series, site: Site, rng: np.random.Generator, other: Series
) -> dict[int, Any]:
    """A lesion added to what is there: its noise is kept."""
    raise_by = 60.0 if series.modality == "CT" else 0.3 * float(np.percentile(series.values, 95))
    return {z: _blend(series.values[z], series.values[z] + raise_by, site) for z in site.slices}


def insertion_drawn(
    series: Series, site: Site, rng: np.random.Generator, other: Series
) -> dict[int, Any]:
    """A lesion drawn with white noise."""
    raise_by = 60.0 if series.modality == "CT" else 0.3 * float(np.percentile(series.values, 95))
    return {
        z: _blend(
            series.values[z],
            _filled(series.values[z], site) + raise_by + _white_noise(series.values[z], site, rng),
            site,
        )
        for z in site.slices
    }


def spliced_region(
    series: Series, site: Site, rng: np.random.Generator, other: Series
) -> dict[int, Any]:
    """Tissue of another patient."""
    found = sites(other, 1, rng)
    if not found:
        return {}
    source = found[0]
    changed = {}
    for step, z in enumerate(site.slices):
        donor = other.values[source.slices[step]]
        foreign = series.values[z].copy()
        reach = RADIUS + 3
        foreign[site.y - reach : site.y + reach, site.x - reach : site.x + reach] = donor[
            source.y - reach : source.y + reach, source.x - reach : source.x + reach
        ]
        changed[z] = _blend(series.values[z], foreign, site)
    return changed


def spliced_slice(
    series: Series, site: Site, rng: np.random.Generator, other: Series
) -> dict[int, Any]:
    """One whole slice of another patient, cut or padded to size."""
    rows, columns = series.values.shape[1:]
    donor = other.values[len(other.values) // 2]
    grown = np.pad(
        donor, ((0, max(0, rows - donor.shape[0])), (0, max(0, columns - donor.shape[1]))),
        constant_values=float(donor.min()),
    )  # fmt: skip
    return {site.z: grown[:rows, :columns].copy()}


def _each(change: Callable[[Any], Any], *, whole: bool) -> Manipulation:
    def manipulate(
        series: Series, site: Site, rng: np.random.Generator, other: Series
    ) -> dict[int, Any]:
        chosen = range(len(series.values)) if whole else [site.z]
        return {z: change(series.values[z]) for z in chosen}

    return manipulate


def jpeg(quality: int) -> Callable[[Any], Any]:
    """Through an 8-bit JPEG of the values between their 1st and 99.5th percentile."""

    def change(image: NDArray[np.float32]) -> NDArray[np.float32]:
        low, high = (float(one) for one in np.percentile(image, (1, 99.5)))
        scale = 255 / max(high - low, 1)
        gray = np.rint(np.clip((image - low) * scale, 0, 255)).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(gray).save(file, "JPEG", quality=quality)
        return np.rint(np.asarray(Image.open(file)).astype(np.float32) / scale + low)

    return change


def jpeg2000(ratio: int) -> Callable[[Any], Any]:
    """Through a lossy JPEG 2000 of 16 bits."""

    def change(image: NDArray[np.float32]) -> NDArray[np.float32]:
        low = float(image.min())
        file = io.BytesIO()
        Image.fromarray((image - low).astype(np.uint16)).save(
            file, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[ratio]
        )
        return np.asarray(Image.open(file)).astype(np.float32) + low

    return change


def scaled(factor: float) -> Callable[[Any], Any]:
    """To another pixel size and cut or padded back to the frame, bicubic."""

    def change(image: NDArray[np.float32]) -> NDArray[np.float32]:
        rows, columns = image.shape
        resized = Image.fromarray(image).resize(
            (round(columns * factor), round(rows * factor)), Image.Resampling.BICUBIC
        )
        values = np.rint(np.asarray(resized))[:rows, :columns]
        grow = (0, rows - values.shape[0]), (0, columns - values.shape[1])
        return np.pad(values, grow, constant_values=float(image.min()))

    return change


def rotated(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """By three degrees, bilinear."""
    return np.rint(np.asarray(Image.fromarray(image).rotate(3, Image.Resampling.BILINEAR)))


type Manipulation = Callable[[Series, Site, np.random.Generator, Series], dict[int, Any]]

LOCAL: dict[str, Manipulation] = {
    "removal, smooth fill": removal_smooth,
    "removal, fill with white noise": removal_noise,
    "removal, cloned from beside it": removal_clone,
    "removal, copied from another slice": copied_from_slice,
    "insertion, drawn with white noise": insertion_drawn,
    "insertion, added to the noise": insertion_added,
    "region of another patient": spliced_region,
    "slice of another patient": spliced_slice,
    "JPEG 95, one slice": _each(jpeg(95), whole=False),
    "JPEG 75, one slice": _each(jpeg(75), whole=False),
    "JPEG 2000 10:1, one slice": _each(jpeg2000(10), whole=False),
    "rotated by 3 degrees, one slice": _each(rotated, whole=False),
    "scaled by 1.1, one slice": _each(scaled(1.1), whole=False),
}
WHOLE: dict[str, Manipulation] = {
    "JPEG 95, whole series": _each(jpeg(95), whole=True),
    "JPEG 75, whole series": _each(jpeg(75), whole=True),
    "JPEG 2000 10:1, whole series": _each(jpeg2000(10), whole=True),
    "scaled by 1.1, whole series": _each(scaled(1.1), whole=True),
    "scaled by 1.5, whole series": _each(scaled(1.5), whole=True),
}
