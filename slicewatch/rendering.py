"""A frame as a picture for the screen (PS3.18 section 8.3.5, rendered media types)."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slicewatch.media_types import JPEG, PNG

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from slicewatch.dicom import Instance

_FORMATS = {JPEG: "JPEG", PNG: "PNG"}
_FUNCTIONS = {"linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}
_DEFAULT_QUALITY = 90
_MAX_EDGE = 8192
_MAX_NUMBER = 1e9


class BadRendering(ValueError):
    """A parameter of the request cannot be used; the text names it and what is expected."""


@dataclass(frozen=True, slots=True)
class Viewport:
    """A region of the frame, pixels from its upper left corner, and the size to fit it into.

    `width` and `height` are negative where the region is to be flipped.
    """

    columns: int
    rows: int
    left: float = 0.0
    top: float = 0.0
    width: float | None = None
    height: float | None = None


@dataclass(frozen=True, slots=True)
class Rendering:
    """How a frame is to be shown.

    Attributes:
        window: centre, width in modality units (HU for CT) and the VOI LUT function; ``None``: as
            the file says, or else the frame's full range.
        quality: of JPEG, 1 to 100.
    """

    window: tuple[float, float, str] | None = None
    viewport: Viewport | None = None
    quality: int = _DEFAULT_QUALITY


def parse(window: str, viewport: str, quality: str) -> Rendering:
    """Read the query parameters; an empty one is one that was not given.

    ``window``: centre,width[,function]; ``viewport``: columns,rows[,left,top,width,height];
    ``quality``: 1 to 100 (PS3.18 sections 8.3.5.1.2 to 8.3.5.1.4).

    Raises:
        BadRendering: one of them is malformed.
    """
    return Rendering(
        _window(window) if window else None,
        _viewport(viewport) if viewport else None,
        _quality(quality) if quality else _DEFAULT_QUALITY,
    )


def render(instance: Instance, frame: int, rendering: Rendering, media_type: str) -> bytes:
    """A frame (from 1) as PNG or JPEG. A window does not apply to colour, which has none.

    Raises:
        Rejected: the frame cannot be decoded.
        BadRendering: the viewport's region lies outside the frame.
    """
    from PIL import Image

    colour = instance.rgb(frame)
    picture = Image.fromarray(_gray(instance, frame, rendering) if colour is None else colour)
    if rendering.viewport is not None:
        picture = _fit(picture, rendering.viewport)
    buffer = io.BytesIO()
    picture.save(buffer, _FORMATS[media_type], quality=rendering.quality)
    return buffer.getvalue()


def _gray(instance: Instance, number: int, rendering: Rendering) -> NDArray[np.uint8]:
    from slicewatch.pixels import Voi, to_gray

    frame = instance.frame(number)
    voi = frame.voi
    if rendering.window is not None:
        centre, width, function = rendering.window
        voi = Voi(((centre, width),), function)
    return to_gray(frame.values, "file_window", voi)


def _fit(picture: Image, viewport: Viewport) -> Image:
    """The region, flipped where it is to be, scaled to fit with its aspect kept."""
    from PIL import Image as Pictures

    width = picture.width - viewport.left if viewport.width is None else viewport.width
    height = picture.height - viewport.top if viewport.height is None else viewport.height
    right, bottom = viewport.left + abs(width), viewport.top + abs(height)
    inside = viewport.left >= 0 and viewport.top >= 0
    if not (inside and abs(width) > 0 and right <= picture.width) or not (
        abs(height) > 0 and bottom <= picture.height
    ):
        raise BadRendering(
            f"the region of `viewport` lies outside the frame of {picture.width} columns and "
            f"{picture.height} rows"
        )
    scale = min(viewport.columns / abs(width), viewport.rows / abs(height))
    size = max(1, round(abs(width) * scale)), max(1, round(abs(height) * scale))
    fitted = picture.resize(
        size, Pictures.Resampling.BILINEAR, box=(viewport.left, viewport.top, right, bottom)
    )
    if width < 0:
        fitted = fitted.transpose(Pictures.Transpose.FLIP_LEFT_RIGHT)
    if height < 0:
        fitted = fitted.transpose(Pictures.Transpose.FLIP_TOP_BOTTOM)
    return fitted


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= _MAX_NUMBER:
        raise BadRendering(f"`{name}` has {text[:20]!r} where a number belongs")
    return value


def _window(text: str) -> tuple[float, float, str]:
    parts = text.split(",")
    if len(parts) not in (2, 3):
        raise BadRendering("`window` is not centre,width,function")
    function = _FUNCTIONS.get((parts[2] if len(parts) == 3 else "linear").lower())
    if function is None:
        raise BadRendering(f"the function of `window` is none of {', '.join(_FUNCTIONS)}")
    centre, width = _number(parts[0], "window"), _number(parts[1], "window")
    # PS3.3 section C.11.2.1.2.1 and C.11.2.1.3: LINEAR needs 1 at least, the others more than 0.
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise BadRendering(
            "the width of `window` is too small: 1 at least, or with another function"
        )
    return centre, width, function


def _viewport(text: str) -> Viewport:
    parts = text.split(",")
    if len(parts) not in (2, 6):
        raise BadRendering("`viewport` is not columns,rows or columns,rows,left,top,width,height")
    columns, rows = (_number(part, "viewport") for part in parts[:2])
    if not (columns.is_integer() and rows.is_integer()) or not (
        1 <= columns <= _MAX_EDGE and 1 <= rows <= _MAX_EDGE
    ):
        raise BadRendering(f"columns and rows of `viewport` are not 1 to {_MAX_EDGE}")
    # An empty value is the default (section 8.3.5.1.3).
    left, top, width, height = (
        _number(part, "viewport") if part else None for part in (parts[2:] or [""] * 4)
    )
    return Viewport(int(columns), int(rows), left or 0.0, top or 0.0, width, height)


def _quality(text: str) -> int:
    value = _number(text, "quality")
    if not value.is_integer() or not 1 <= value <= 100:
        raise BadRendering("`quality` is not 1 to 100")
    return int(value)
