"""The normal brain: the same slice for the same seed, none alike otherwise, a head in each."""

from __future__ import annotations

import numpy as np
import pytest

from training.normal_brain import PLANES, normal_slice

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]


@pytest.fixture(autouse=True)
def _template() -> None:
    pytest.importorskip("nilearn")


def test_a_seed_gives_one_slice() -> None:
    one, plane = normal_slice(3)
    again, same_plane = normal_slice(3)
    other, _ = normal_slice(4)
    assert np.array_equal(one, again)
    assert plane == same_plane
    assert plane in PLANES
    assert one.shape != other.shape or not np.array_equal(one, other)


@pytest.mark.parametrize("seed", range(5))
def test_a_slice_shows_a_head_in_the_middle_of_air(seed: int) -> None:
    values, _ = normal_slice(seed)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert values.min() >= 0
    head = values > 0.2 * np.percentile(values, 99)
    assert 0.05 < head.mean() < 0.8
    corners = [values[:8, :8], values[:8, -8:], values[-8:, :8], values[-8:, -8:]]
    assert max(float(np.median(corner)) for corner in corners) < 0.15 * values.max()
