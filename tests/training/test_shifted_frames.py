"""The soft-tissue frames were cropped round their tumour: does the detector just point at it?

A frame is shifted, padded to a larger field of view, or both. A detector that had learnt the
middle of the frame would leave its box there; one that sees the mass moves its box along.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from slicewatch.annotations import mask_box
from slicewatch.detector import detector_for
from slicewatch.pixels import to_gray
from slicewatch.records import Box
from training.export import load_model
from training.phantom import generate_phantom

TOML = Path(__file__).parents[2] / "models" / "soft-tissue.toml"
SEEDS = range(2000, 2010)


def moved(
    hounsfield: NDArray[np.int16], box: Box, offset: tuple[int, int], pad: int
) -> tuple[NDArray[np.uint8], Box]:
    """The frame in a field of view larger by `pad` on each side, its content off by `offset`."""
    rows, columns = hounsfield.shape
    dx, dy = offset
    canvas = np.full((rows + 2 * pad, columns + 2 * pad), -1000, np.int16)
    top, left = pad + dy, pad + dx
    canvas[top : top + rows, left : left + columns] = hounsfield
    x1, y1, x2, y2 = box
    gray = to_gray(canvas.astype(np.float32), "ct_soft_tissue")
    return gray, (x1 + left, y1 + top, x2 + left, y2 + top)


def covers(found: Box, truth: Box) -> bool:
    width = min(found[2], truth[2]) - max(found[0], truth[0])
    height = min(found[3], truth[3]) - max(found[1], truth[1])
    shared = max(width, 0) * max(height, 0)
    areas = ((b[2] - b[0]) * (b[3] - b[1]) for b in (found, truth))
    return shared / (sum(areas) - shared) >= 0.3


@pytest.mark.skipif(not TOML.is_file(), reason="no weights are shipped")
@pytest.mark.parametrize(
    ("offset", "pad"),
    [((0, 0), 0), ((-30, -30), 40), ((30, 30), 40), ((-30, 30), 40), ((0, 0), 60)],
)
def test_the_box_follows_the_mass_and_not_the_middle(offset: tuple[int, int], pad: int) -> None:
    detector = detector_for(load_model(TOML), threads=1)
    frames = []
    for seed in SEEDS:
        phantom = generate_phantom(seed=seed, lesions=True)
        index = int(phantom.lesion.sum(axis=(1, 2)).argmax())
        box = mask_box(phantom.lesion[index])
        assert box is not None
        frames.append(moved(phantom.hounsfield[index], box, offset, pad))
    found = detector.detect([gray for gray, _ in frames])
    hits = sum(
        any(covers(item.box, truth) for item in boxes)
        for boxes, (_, truth) in zip(found, frames, strict=True)
    )
    assert hits >= 8, f"{hits} of {len(frames)} masses were found after the shift"
