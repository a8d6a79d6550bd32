"""The measurements as a picture: bars of slices a second, and of milliseconds a slice by size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_WIDTH, _ROW, _LABEL, _MARGIN = 900, 34, 300, 20
_BAR, _TEXT, _PAPER = (47, 111, 171), (30, 30, 30), (255, 255, 255)

type Bars = tuple[str, Sequence[tuple[str, float]]]
"""A title with its unit, and (label, value) pairs; each group of bars has its own scale."""


def save_chart(groups: Sequence[Bars], path: Path) -> None:
    """Draw the groups one below the other and save them as PNG."""
    lines = sum(len(bars) + 2 for _, bars in groups)
    picture = Image.new("RGB", (_WIDTH, lines * _ROW + 2 * _MARGIN), _PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=16)
    y = _MARGIN
    for title, bars in groups:
        draw.text((_MARGIN, y + 6), title, fill=_TEXT, font=font)
        y += _ROW
        longest = max(value for _, value in bars) or 1.0
        for label, value in bars:
            end = _LABEL + (_WIDTH - _LABEL - 5 * _MARGIN) * value / longest
            draw.text((2 * _MARGIN, y + 6), label, fill=_TEXT, font=font)
            draw.rectangle([_LABEL, y + 4, end, y + _ROW - 6], fill=_BAR)
            draw.text((end + 8, y + 6), f"{value:.1f}", fill=_TEXT, font=font)
            y += _ROW
        y += _ROW
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
