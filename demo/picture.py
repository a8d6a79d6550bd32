"""A sheet with the findings' most telling slices and their boxes, for people who rather look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from slicewatch import dicom, pixels
from slicewatch.records import DISCLAIMER, Finding, FindingSlice, Review

_TILE = 320
_CAPTION = 34
_COLUMNS = 4
_MOST = 12
_BOX = (255, 176, 0)
_TEXT = (225, 225, 225)


def save_sheet(review: Review, load: Callable[[str], bytes], path: Path) -> bool:
    """Draw the findings of a review, highest score first, and save them as PNG.

    Args:
        load: the bytes of an object by its blob name.

    Returns:
        ``False`` when there is nothing to draw.
    """
    findings = sorted(review.findings, key=lambda finding: -finding.score)[:_MOST]
    if not findings:
        return False
    rows = -(-len(findings) // _COLUMNS)
    width = _TILE * min(_COLUMNS, len(findings))
    sheet = Image.new("RGB", (width, (_TILE + _CAPTION) * rows + 18))
    for n, finding in enumerate(findings):
        best = max(finding.slices, key=lambda one: one.score)
        tile = _tile(load(best.blob), best)
        x, y = n % _COLUMNS * _TILE, n // _COLUMNS * (_TILE + _CAPTION)
        sheet.paste(tile, (x, y + _CAPTION))
        ImageDraw.Draw(sheet).text((x + 6, y + 4), _caption(finding), fill=_TEXT)
    ImageDraw.Draw(sheet).text((6, sheet.height - 16), DISCLAIMER, fill=_TEXT)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return True


def _caption(finding: Finding) -> str:
    extent = " x ".join(f"{edge:.0f}" for edge in finding.extent_mm or ())
    size = f"{extent} mm, " if extent else ""
    count = len(finding.slices)
    slices = "1 slice" if count == 1 else f"{count} slices"
    return f"{finding.label}  score {finding.score:.2f}\n{size}{slices}"


def _tile(data: bytes, shown: FindingSlice) -> Image.Image:
    """The slice in a square tile, its box around it."""
    instance = dicom.read(data)
    frame = next(one for one in instance.frames() if one.number == shown.frame)
    preset = "ct_soft_tissue" if instance.header.modality == "CT" else "mr_percentile"
    gray, fit = pixels.letterbox(pixels.to_gray(frame.values, preset, frame.voi), _TILE)
    tile = Image.fromarray(gray).convert("RGB")
    box = fit.to_input(np.array([shown.box], np.float32))[0]
    ImageDraw.Draw(tile).rectangle([float(edge) for edge in box], outline=_BOX, width=2)
    return tile
