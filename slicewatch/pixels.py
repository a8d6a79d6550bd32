"""From modality units to the detector's input: the one pixel path of serving and training.

A frame goes ``to_gray`` (windowing) → ``letterbox`` (resize and pad to a square) → ``to_tensor``.
Dataset preparation writes what `letterbox` returns, serving feeds it to the network, so both see
the same bytes. Pixel coordinates are edges, x to the right, y down, as in `slicewatch.records`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

PADDING = 114
"""Gray of the letterbox's margins: the value that Ultralytics' own augmentation pads with."""

_FAR = 1e20
"""What stands for infinity: far from every unit, and differences stay in float32."""

_SAMPLES = 1 << 14
"""Percentiles are taken over a regular grid of about this many pixels, to stay fast."""


@dataclass(frozen=True, slots=True)
class Voi:
    """What a file itself says about windowing (VOI LUT module, PS3.3 section C.11.2).

    Attributes:
        windows: (centre, width) pairs in modality units, in the file's order.
        function: VOI LUT Function: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.
    """

    windows: tuple[tuple[float, float], ...]
    function: str = "LINEAR"


type Render = Callable[[NDArray[np.float32], Voi | None], NDArray[np.float32]]
"""Maps modality units to display gray; what it returns may leave 0..255."""


def _window(
    values: NDArray[np.float32], centre: float, width: float, function: str
) -> NDArray[np.float32]:
    """PS3.3 sections C.11.2.1.2 (LINEAR) and C.11.2.1.3 (SIGMOID, LINEAR_EXACT), to 0..255."""
    if function == "SIGMOID":
        exponent = np.clip((values - np.float32(centre)) * np.float32(-4 / width), -60, 60)
        return np.asarray(255 / (1 + np.exp(exponent)), np.float32)
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    return _stretch(values, centre - width / 2, centre + width / 2)


def _stretch(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Map low..high to 0..255; a range without extent becomes a step at `low`."""
    if not high > low:
        return np.where(values > low, np.float32(255), np.float32(0))
    # Subtract first: scale and offset folded together would lose digits far from zero.
    return (values - np.float32(low)) * np.float32(255 / (high - low))


def _fixed_window(centre: float, width: float) -> Render:
    return lambda values, _: _window(values, centre, width, "LINEAR")


def _percentiles(low: float, high: float) -> Render:
    def render(values: NDArray[np.float32], _: Voi | None) -> NDArray[np.float32]:
        step = max(1, math.isqrt(values.size // _SAMPLES))
        sample = values[::step, ::step].ravel()
        ranks = [round((sample.size - 1) * share / 100) for share in (low, high)]
        ordered = np.partition(sample, ranks)
        return _stretch(values, float(ordered[ranks[0]]), float(ordered[ranks[1]]))

    return render


def _full_range(values: NDArray[np.float32], _: Voi | None) -> NDArray[np.float32]:
    return _stretch(values, float(values.min()), float(values.max()))


def _file_window(values: NDArray[np.float32], voi: Voi | None) -> NDArray[np.float32]:
    """The file's first window that is usable; without one, the frame's full range."""
    if voi is not None:
        # PS3.3 C.11.2.1.2.1: a LINEAR width is at least 1; the other functions' is above 0.
        least = 1.0 if voi.function == "LINEAR" else math.ulp(0.0)
        for centre, width in voi.windows:
            if math.isfinite(centre) and math.isfinite(width) and width >= least:
                return _window(values, centre, width, voi.function)
    return _full_range(values, voi)


_RENDER: Mapping[str, Render] = MappingProxyType(
    {
        "ct_soft_tissue": _fixed_window(40, 400),
        "ct_brain": _fixed_window(40, 80),
        "ct_bone": _fixed_window(400, 1800),
        "ct_lung": _fixed_window(-600, 1500),
        "mr_percentile": _percentiles(0.5, 99.5),
        "file_window": _file_window,
        "full_range": _full_range,
        "eight_bit": lambda values, _: values,
    }
)
"""How `intensities.PRESETS` are done."""


def to_gray(values: NDArray[np.float32], preset: str, voi: Voi | None = None) -> NDArray[np.uint8]:
    """Window a frame for display.

    Args:
        values: (rows, columns) in modality units (HU for CT), higher is brighter: MONOCHROME1
            was inverted and colour reduced to luminance before. Not-a-number reads as 0.
        preset: a key of `intensities.PRESETS`.
        voi: the file's own windowing; only ``file_window`` looks at it.

    Returns:
        (rows, columns) gray, 0 dark to 255 bright.

    Raises:
        ValueError: unknown preset, or not a two-dimensional frame with pixels.
    """
    if values.ndim != 2 or not values.size:
        raise ValueError(f"a frame has rows and columns, not the shape {values.shape}")
    try:
        render = _RENDER[preset]
    except KeyError:
        raise ValueError(f"intensity preset {preset!r} is none of {', '.join(_RENDER)}") from None
    values = np.asarray(values, np.float32)
    if not math.isfinite(float(values.sum(dtype=np.float64))):
        values = np.nan_to_num(values, posinf=_FAR, neginf=-_FAR)
    gray = render(values, voi)
    return np.rint(np.clip(gray, 0, 255)).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a frame was fitted into the square input, to map boxes there and back.

    Attributes:
        scale: input pixels per source pixel.
        left, top: margin before the picture, input pixels.
        rows, columns: of the source frame.
        size: edge of the square input.
    """

    scale: float
    left: float
    top: float
    rows: int
    columns: int
    size: int

    def to_source(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (n, 4) in input pixels → (n, 4) in source pixels, clipped to the frame."""
        mapped = (boxes - self._offset) / np.float32(self.scale)
        edges = np.array([self.columns, self.rows] * 2, np.float32)
        return np.asarray(np.clip(mapped, 0, edges), np.float32)

    def to_input(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (n, 4) in source pixels → (n, 4) in input pixels."""
        return np.asarray(boxes * np.float32(self.scale) + self._offset, np.float32)

    @property
    def _offset(self) -> NDArray[np.float32]:
        return np.array([self.left, self.top] * 2, np.float32)


def letterbox(gray: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], Letterbox]:
    """Fit a picture into a square, aspect kept, centred, margins filled with `PADDING`.

    Pillow's bilinear filter widens its support when it shrinks (antialias), so fine structures of
    large frames do not alias. A picture that already is size × size passes unchanged.

    Args:
        gray: (rows, columns).
        size: edge of the square, pixels.

    Returns:
        (size, size) picture, and the mapping of coordinates.
    """
    from PIL import Image  # waits for first use: the app's start names presets only

    rows, columns = gray.shape
    scale = min(size / rows, size / columns)
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    top, left = (size - height) // 2, (size - width) // 2
    canvas = np.full((size, size), PADDING, np.uint8)
    if (height, width) != (rows, columns):
        resized = Image.fromarray(gray).resize((width, height), Image.Resampling.BILINEAR)
        gray = np.asarray(resized)
    canvas[top : top + height, left : left + width] = gray
    return canvas, Letterbox(scale, float(left), float(top), rows, columns, size)


def to_tensor(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Pictures (size, size) of one size → network input (n, 3, size, size), 0..1."""
    stacked = np.stack(images).astype(np.float32) / np.float32(255)
    return np.repeat(stacked[:, None], 3, axis=1)
