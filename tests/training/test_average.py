"""Weights that are averaged: the mean of each, and only of what fits together."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.average import average
from training.sources import BadSource

ROOT = Path(__file__).parents[2]
BRAIN, SOFT_TISSUE = ROOT / "models" / "brain.pt", ROOT / "models" / "soft-tissue.pt"

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]


def test_the_average_of_weights_and_their_negation_is_zero(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("ultralytics")
    checkpoint = torch.load(BRAIN, weights_only=False)
    with torch.no_grad():
        for parameter in checkpoint["model"].parameters():
            parameter.neg_()
    torch.save(checkpoint, tmp_path / "negated.pt")
    average([BRAIN, tmp_path / "negated.pt"], tmp_path / "mean.pt")
    mean = torch.load(tmp_path / "mean.pt", weights_only=False)
    assert all(not parameter.any() for parameter in mean["model"].parameters())
    assert mean["model"].names == checkpoint["model"].names


def test_weights_of_other_classes_and_missing_ones_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    with pytest.raises(BadSource, match=r"soft-tissue\.pt is of another architecture or classes"):
        average([BRAIN, SOFT_TISSUE], tmp_path / "mean.pt")
    with pytest.raises(BadSource, match="does not exist"):
        average([BRAIN, tmp_path / "none.pt"], tmp_path / "mean.pt")
    with pytest.raises(BadSource, match="two checkpoints"):
        average([BRAIN], tmp_path / "mean.pt")
