"""Serving against its reference: ONNX Runtime on the graph, Ultralytics on the `.pt` weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from slicewatch import dicom, pixels
from slicewatch.detector import OnnxDetector, UltralyticsDetector
from slicewatch.records import Detection
from training.export import load_model, reference_model
from training.phantom import generate_phantom
from training.sources import read_gray

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
MODELS = sorted((ROOT / "models").glob("*.toml"))
SLICES = 100

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]


def real_slices(name: str) -> list[NDArray[np.uint8]]:
    """Slices of the shared data, where it is there; evenly drawn."""
    if name == "brain":
        files = sorted((DATA / "brain-mri" / "images").glob("*.jpg"))
        chosen = files[:: max(1, len(files) // SLICES)][:SLICES]
        return [pixels.to_gray(read_gray(f).astype(np.float32), "mr_percentile") for f in chosen]
    files = sorted((DATA / "soft-tissue").glob("*/CT/image/*"))
    chosen = files[:: max(1, len(files) // SLICES)][:SLICES]
    frames = (next(iter(dicom.read_frames(path.read_bytes()))) for path in chosen)
    return [pixels.to_gray(frame.values, "ct_soft_tissue") for frame in frames]


def generated_slices() -> list[NDArray[np.uint8]]:
    volumes = (generate_phantom(seed=seed, lesions=True, slices=25) for seed in range(500, 504))
    return [
        pixels.to_gray(plane.astype(np.float32), "ct_soft_tissue")
        for volume in volumes
        for plane in volume.hounsfield
    ]


@pytest.mark.parametrize("toml", MODELS, ids=lambda path: path.stem)
def test_onnx_runtime_finds_what_ultralytics_finds(toml: Path) -> None:
    pytest.importorskip("ultralytics")
    slices = real_slices(toml.stem) or generated_slices()
    assert len(slices) == SLICES
    # Scores may differ by a hundredth, so both are asked for a little below the threshold.
    margin = 0.01
    served, reference = load_model(toml), reference_model(toml)
    low = served.threshold - margin
    ours = OnnxDetector(replace(served, threshold=low), threads=1).detect(slices)
    theirs = UltralyticsDetector(replace(reference, threshold=low), threads=1).detect(slices)
    assert any(ours)
    for one, other in zip(ours, theirs, strict=True):
        assert_each_has_a_partner(one, other, served.threshold)
        assert_each_has_a_partner(other, one, served.threshold)


def assert_each_has_a_partner(
    boxes: Sequence[Detection], others: Sequence[Detection], threshold: float
) -> None:
    for item in boxes:
        if item.score >= threshold:
            assert any(
                other.label == item.label
                and abs(other.score - item.score) <= 0.01
                and np.abs(np.subtract(other.box, item.box)).max() <= 1
                for other in others
            ), f"{item} has no partner in {others}"
