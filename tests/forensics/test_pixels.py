"""Pixel checks: each fires on a series that was changed for it, and is silent before."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from slicewatch.forensics import texture, windows
from slicewatch.forensics.features import measure
from slicewatch.forensics.noise import unpack_grid
from slicewatch.forensics.windows import unpack_landmarks
from slicewatch.integrity import check
from slicewatch.records import SliceResult, Traces
from tests.slice_results import STUDY, axial, digest, frame

COUNT, SIDE = 22, 160
type Volume = list[NDArray[np.float32]]


def volume(seed: int = 0, strength: float = 30.0) -> Volume:
    """A cylinder of tissue in air, with the correlated noise of a soft kernel, in whole HU."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    body = np.where((y - 80) ** 2 + (x - 80) ** 2 < 72**2, 40.0, -1000.0)
    slices = []
    for _ in range(COUNT):
        noise = rng.normal(0, strength, (SIDE + 1, SIDE + 1))
        grain = (noise[1:, 1:] + noise[:-1, 1:] + noise[1:, :-1] + noise[:-1, :-1]) / 2
        slices.append(np.rint(np.maximum(body + grain, -1000)).astype(np.float32))
    return slices


def results(slices: Volume, modality: str = "CT") -> list[SliceResult]:
    return [
        frame(
            number + 1,
            axial(3.0 * number),
            rows=SIDE,
            columns=SIDE,
            modality=modality,
            pixel_sha256=digest(values.tobytes()),
            acquisition={"ImageType": "ORIGINAL\\PRIMARY\\AXIAL"},
            traces=measure(values, modality),
        )
        for number, values in enumerate(slices)
    ]


def issues(slices: list[SliceResult]) -> dict[str, tuple[int, ...]]:
    """Code to the numbers of the slices concerned."""
    found = check(slices, study_instance_uid=STUDY)
    return {
        issue.code: tuple(sorted(int(blob.split(".")[-2]) for blob in issue.blobs))
        for issue in found
    }


def circle(radius: int = 12, y: int = 80, x: int = 80) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[:SIDE, :SIDE]
    mask: NDArray[np.bool_] = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return mask


def test_an_untouched_series_raises_nothing() -> None:
    assert issues(results(volume())) == {}


def test_region_painted_over_is_found_in_its_slices() -> None:
    slices = volume()
    for number in (9, 10, 11, 12):
        slices[number][circle()] = 40
    assert issues(results(slices))["smoothed-region"] == (10, 11, 12, 13)


def test_region_with_white_noise_is_found() -> None:
    slices, rng = volume(), np.random.default_rng(1)
    for number in (9, 10, 11, 12):
        white = np.rint(rng.normal(100, 30, (SIDE, SIDE))).astype(np.float32)
        slices[number] = np.where(circle(16), white, slices[number])
    assert issues(results(slices)).keys() == {"foreign-noise"}


def test_region_copied_within_a_slice_is_found_though_its_values_were_shifted() -> None:
    slices = volume()
    slices[7][100:130, 90:120] = slices[7][50:80, 40:70] + 25
    found = results(slices)
    assert issues(found) == {"copied-region": (8,)}
    assert found[7].traces is not None
    assert found[7].traces.copies[1:] in ((50, 50), (-50, -50))


def test_region_copied_to_another_slice_is_found() -> None:
    slices = volume()
    slices[15][50:110, 50:110] = slices[3][45:105, 55:115]
    assert issues(results(slices)) == {"copied-region-between-slices": (4, 16)}


def test_what_is_burned_into_every_slice_is_no_copy() -> None:
    slices = volume()
    logo = np.random.default_rng(9).integers(0, 200, (40, 40)).astype(np.float32)
    for values in slices:
        values[60:100, 60:100] = logo
    assert "copied-region-between-slices" not in issues(results(slices))


@pytest.mark.parametrize("strength", [10.0, 90.0])
def test_slice_with_other_noise_is_found(strength: float) -> None:
    slices = volume()
    slices[11] = volume(5, strength)[11]
    assert issues(results(slices))["noise-outlier"] == (12,)


def test_slice_with_another_kernel_is_found() -> None:
    slices = volume()
    rough = np.random.default_rng(3).normal(0, 30, (SIDE, SIDE))
    body = np.where(circle(72), 40, -1000)
    slices[11] = np.rint(np.maximum(body + rough, -1000)).astype(np.float32)
    assert issues(results(slices))["sharpness-outlier"] == (12,)


def jpeg(values: NDArray[np.float32], quality: int) -> NDArray[np.float32]:
    gray = np.rint(np.clip((values + 160) / 400, 0, 1) * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(gray).save(file, "JPEG", quality=quality)
    return np.rint(np.asarray(Image.open(file)).astype(np.float32) / 255 * 400 - 160)


def test_one_slice_through_jpeg_is_found_and_a_declared_one_is_not() -> None:
    slices = volume()
    slices[11] = jpeg(slices[11], 75)
    found = results(slices)
    assert issues(found)["compression-traces"] == (12,)
    found = [dataclasses.replace(one, notes=("lossy:10",)) for one in found]
    assert "compression-traces" not in issues(found)


def test_series_through_jpeg_of_high_quality_is_found() -> None:
    found = issues(results([jpeg(values, 90) for values in volume()]))
    assert len(found["compression-traces"]) == COUNT


def test_enlarged_series_said_to_be_original_is_told_as_information() -> None:
    def enlarged(values: NDArray[np.float32]) -> NDArray[np.float32]:
        side = round(SIDE * 1.5)
        image = Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC)
        return np.rint(np.asarray(image)[40:200, 40:200])

    found = results([enlarged(values) for values in volume()])
    assert len(issues(found)["resampling-traces"]) == COUNT
    derived = [dataclasses.replace(one, acquisition={"ImageType": "DERIVED"}) for one in found]
    assert "resampling-traces" not in issues(derived)


# --- the measurements -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((SIDE, SIDE), np.float32),
        np.full((SIDE, SIDE), np.nan, np.float32),
        np.full((SIDE, SIDE), -1000, np.float32),
        np.zeros((8, 8), np.float32),
    ],
)
def test_nothing_to_measure_is_no_error(values: NDArray[np.float32]) -> None:
    assert measure(values, "CT") is None


def test_projections_and_captures_are_not_measured() -> None:
    assert measure(volume()[0], "CR") is None


def test_traces_are_small_and_survive_json() -> None:
    traces = measure(volume()[0], "CT")
    assert traces is not None
    assert len(traces.grid) + len(traces.landmarks) < 2048
    assert Traces.from_json(traces.to_json()) == traces
    fine, coarse = unpack_grid(traces)
    assert fine.shape == coarse.shape == (19, 19)
    hashes, places = unpack_landmarks(traces)
    assert len(hashes) == len(places) == windows.LANDMARKS
    assert places.max() < SIDE


@settings(max_examples=30, deadline=None)
@given(
    st.integers(48, 130), st.integers(48, 130), st.integers(0, 2**32 - 1),
    st.sampled_from([0.1, 1.0, 1e4, 1e30]), st.sampled_from(["CT", "MR", "PT"]),
)  # fmt: skip
def test_any_finite_slice_is_measured_without_a_fault(
    rows: int, columns: int, seed: int, scale: float, modality: str
) -> None:
    values = np.random.default_rng(seed).normal(0, scale, (rows, columns)).astype(np.float32)
    traces = measure(values, modality)
    if traces is not None:
        assert np.isfinite([traces.noise, traces.sharpness, traces.blocks, traces.comb]).all()


def test_slices_measured_at_once_by_several_threads_do_not_disturb_each_other() -> None:
    slices = [*volume(1), *(one[:100, :90] for one in volume(2))]
    alone = [measure(values, "CT") for values in slices]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda values: measure(values, "CT"), slices * 4)) == alone * 4


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 20),
    # Differences are multiples of 0.05: a bound on one of them would be met by rounding alone.
    st.integers(2, 20).map(lambda tenths: tenths / 10 + 0.03),
)
def test_a_region_sticks_out_where_both_medians_say_so(seed: int, depth: int, bound: float) -> None:
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(0, 1, (depth, 12, 10)), 1).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    found = texture._above_both(values, bound)
    for z, y, x in np.ndindex(values.shape):
        others = [
            values[i, y, x] for i in range(depth) if texture.NEAR <= abs(i - z) <= texture.FAR
        ]
        ring = [
            values[z, i, j]
            for i in range(12)
            for j in range(10)
            if texture.RING_INNER <= max(abs(i - y), abs(j - x)) <= texture.RING_OUTER
        ]
        expected = True
        for references, minimum in (
            (others, texture.MIN_SLICES_COMPARED),
            (ring, texture.MIN_RING),
        ):
            known = [one for one in references if np.isfinite(one)]
            expected &= len(known) >= minimum and bool(
                values[z, y, x] - np.float32(np.median(known)) > bound
            )
        assert found[z, y, x] == expected


def test_order_of_slices_changes_nothing() -> None:
    slices = volume()
    slices[15][50:110, 50:110] = slices[3][45:105, 55:115]
    found = results(slices)
    shuffled: Callable[[list[SliceResult]], list[SliceResult]] = lambda one: one[::-1]  # noqa: E731
    assert check(shuffled(found)) == check(found)
