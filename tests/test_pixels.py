"""The pixel path: windowing as the standard defines it, and boxes that survive the letterbox."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from slicewatch.intensities import PRESETS
from slicewatch.pixels import PADDING, Voi, letterbox, to_gray, to_tensor


def frame(*values: float) -> NDArray[np.float32]:
    return np.array([values], np.float32)


def picture(rows: int, columns: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns), np.uint8)


def smooth_slice(seed: int = 0, size: int = 256) -> NDArray[np.float32]:
    """A head-like picture: dark outside, smooth inside, 0 to 4000."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    inside = x**2 + y**2 < 0.7
    waves = sum(np.sin(a * x + b * y + c) for a, b, c in rng.uniform(-6, 6, (5, 3)))
    return np.asarray(np.where(inside, 1800 + 400 * waves, 10), np.float32).clip(0, 4000)


def test_ct_window_maps_its_edges_to_black_and_white() -> None:
    # PS3.3 C.11.2.1.2.1 with centre 40, width 400: -160 is the lower edge, 239 the upper.
    assert to_gray(frame(-1000, -160, 239, 3000), "ct_soft_tissue").tolist() == [[0, 0, 255, 255]]
    assert to_gray(frame(39.5), "ct_soft_tissue")[0, 0] in {127, 128}


@pytest.mark.parametrize(
    ("function", "values", "expected"),
    [
        # PS3.3 C.11.2.1.2.1, the standard's own example: c=2048, w=4096 over 0..4095
        ("LINEAR", (0.0, 4095.0), (0, 255)),
        # C.11.2.1.3.2: x <= c - w/2 is dark, x > c + w/2 is bright
        ("LINEAR_EXACT", (0.0, 1024.0, 4096.0), (0, 64, 255)),
        # C.11.2.1.3.1: half at the centre, 1 / (1 + exp(-4)) one width above
        ("SIGMOID", (2048.0, 6144.0), (128, 250)),
    ],
)
def test_file_window_follows_its_voi_function(
    function: str, values: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    voi = Voi(((2048.0, 4096.0),), function)
    assert to_gray(frame(*values), "file_window", voi)[0].tolist() == pytest.approx(expected, abs=1)


def test_file_window_skips_windows_that_are_no_windows() -> None:
    voi = Voi(((40.0, 0.0), (float("nan"), 10.0), (50.0, 101.0)))
    assert to_gray(frame(-0.5, 99.5), "file_window", voi)[0].tolist() == [0, 255]


def test_file_window_without_a_window_takes_the_full_range() -> None:
    values = frame(3, 5, 7)
    assert to_gray(values, "file_window").tolist() == to_gray(values, "full_range").tolist()


@given(slope=st.floats(0.01, 50), intercept=st.floats(-2000, 2000), seed=st.integers(0, 20))
def test_mr_picture_does_not_depend_on_the_scanners_scale(
    slope: float, intercept: float, seed: int
) -> None:
    values = smooth_slice(seed, 64)
    plain = to_gray(values, "mr_percentile").astype(int)
    scaled = to_gray(values * np.float32(slope) + np.float32(intercept), "mr_percentile")
    assert np.abs(plain - scaled).max() <= 1


def test_mr_picture_of_a_jpeg_is_that_of_its_original() -> None:
    values = smooth_slice(3, 512)
    eight_bit = Image.fromarray((values / values.max() * 255).astype(np.uint8))
    buffer = io.BytesIO()
    eight_bit.save(buffer, "JPEG", quality=90)
    jpeg = np.asarray(Image.open(buffer)).astype(np.float32)
    original, copy = to_gray(values, "mr_percentile"), to_gray(jpeg, "mr_percentile")
    assert np.abs(original.astype(int) - copy).mean() < 2


def test_mr_picture_is_not_darkened_by_hot_pixels() -> None:
    values = smooth_slice(1)
    hot = values.copy()
    hot[100, 100:110] = 60000
    difference = np.abs(
        to_gray(values, "mr_percentile").astype(int) - to_gray(hot, "mr_percentile")
    )
    assert np.median(difference) <= 3


def test_eight_bit_passes_unchanged() -> None:
    gray = picture(20, 30)
    assert np.array_equal(to_gray(gray.astype(np.float32), "eight_bit"), gray)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_survives_a_constant_frame_and_numbers_that_are_none(preset: str) -> None:
    constant = np.full((4, 5), 7, np.float32)
    broken = np.array([[np.nan, np.inf], [-np.inf, 1.0]], np.float32)
    for values in (constant, broken):
        gray = to_gray(values, preset)
        assert gray.dtype == np.uint8
        assert gray.shape == values.shape


@pytest.mark.parametrize("preset", PRESETS)
def test_brighter_values_never_become_darker(preset: str) -> None:
    values = np.linspace(-1500, 3000, 900, dtype=np.float32).reshape(30, 30)
    assert (np.diff(to_gray(values, preset).astype(int).ravel()) >= 0).all()


def test_unknown_preset_and_shapeless_frames_are_named() -> None:
    with pytest.raises(ValueError, match="'ct_sof' is none of ct_soft_tissue"):
        to_gray(frame(1.0), "ct_sof")
    with pytest.raises(ValueError, match="rows and columns"):
        to_gray(np.zeros((2, 2, 3), np.float32), "full_range")
    with pytest.raises(ValueError, match="rows and columns"):
        to_gray(np.zeros((0, 4), np.float32), "full_range")


@given(
    rows=st.integers(1, 700),
    columns=st.integers(1, 700),
    size=st.sampled_from([64, 224, 256]),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_box_comes_back_from_the_letterbox(
    rows: int, columns: int, size: int, corners: tuple[float, float, float, float]
) -> None:
    _, fit = letterbox(np.zeros((rows, columns), np.uint8), size)
    xs, ys = sorted(corners[:2]), sorted(corners[2:])
    box = np.array([[xs[0] * columns, ys[0] * rows, xs[1] * columns, ys[1] * rows]], np.float32)
    assert fit.to_source(fit.to_input(box)) == pytest.approx(box, abs=0.01 / fit.scale)


def test_boxes_are_clipped_to_the_frame() -> None:
    _, fit = letterbox(picture(100, 50), 100)
    outside = np.array([[-50.0, -50.0, 500.0, 500.0]], np.float32)
    assert fit.to_source(outside).tolist() == [[0.0, 0.0, 50.0, 100.0]]


def test_letterbox_keeps_the_aspect_and_centres() -> None:
    square, fit = letterbox(np.full((100, 50), 200, np.uint8), 64)
    assert (fit.scale, fit.left, fit.top) == (0.64, 16.0, 0.0)
    assert set(np.unique(square[:, 16:48])) == {200}
    assert set(np.unique(square[:, :16])) == set(np.unique(square[:, 48:])) == {PADDING}


def test_letterbox_lands_where_its_boxes_say() -> None:
    gray = np.zeros((300, 200), np.uint8)
    gray[60:120, 50:100] = 255
    square, fit = letterbox(gray, 96)
    box = fit.to_input(np.array([[50, 60, 100, 120]], np.float32))[0]
    rows, columns = np.nonzero(square > 190)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert found == pytest.approx(box.tolist(), abs=1)


def test_letterbox_leaves_a_picture_of_the_right_size_alone() -> None:
    gray = picture(64, 64)
    square, fit = letterbox(gray, 64)
    assert np.array_equal(square, gray)
    assert (fit.scale, fit.left, fit.top) == (1.0, 0.0, 0.0)


def test_shrinking_does_not_alias() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (512, 256))
    square, _ = letterbox(stripes, 64)
    assert np.abs(square[8:-8, 8:-8].astype(int) - 127).max() <= 2


def test_tensor_has_three_equal_channels_from_0_to_1() -> None:
    images = [picture(32, 32, seed) for seed in range(3)]
    tensor = to_tensor(images)
    assert tensor.shape == (3, 3, 32, 32)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    assert np.array_equal(tensor[:, 0], tensor[:, 2])
    assert np.array_equal(np.rint(tensor[1, 1] * 255).astype(np.uint8), images[1])
