"""Generated studies: deterministic, readable, and a twin that differs in the mass alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from slicewatch import dicom
from training.phantom import generate_phantom, generate_study


def test_the_twin_differs_only_around_the_mass() -> None:
    with_mass = generate_phantom(seed=5, lesions=True, slices=16, rows=128, columns=128)
    clean = generate_phantom(seed=5, lesions=False, slices=16, rows=128, columns=128)
    assert not clean.lesion.any()
    assert with_mass.lesion.sum() > 500
    differs = with_mass.hounsfield != clean.hounsfield
    grown = np.zeros_like(differs)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            grown |= np.roll(with_mass.lesion, (dy, dx), axis=(1, 2))
    assert not (differs & ~grown).any()


def test_the_mass_is_less_dense_than_muscle_and_never_bone_or_air() -> None:
    phantom = generate_phantom(seed=8, lesions=True, slices=16)
    values = phantom.hounsfield[phantom.lesion]
    assert 0 < np.median(values) < 50
    low, high = np.percentile(values, [5, 90])  # the very rim is blurred into what lies beside it
    assert low > -60
    assert high < 120


def test_same_arguments_write_the_same_files_and_others_do_not(tmp_path: Path) -> None:
    first, again, twin = (
        generate_study(tmp_path / name, seed=3, lesions=lesions, slices=3, rows=64, columns=64)
        for name, lesions in (("a", True), ("b", True), ("c", False))
    )
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in again]
    one, other = (dicom.read_header(files[0].read_bytes()) for files in (first, twin))
    assert one.study_instance_uid != other.study_instance_uid
    assert one.sop_instance_uid != other.sop_instance_uid


def test_a_study_is_read_back_as_it_was_generated(tmp_path: Path) -> None:
    files = generate_study(tmp_path, seed=4, lesions=True, slices=4, rows=96, columns=80)
    phantom = generate_phantom(seed=4, lesions=True, slices=4, rows=96, columns=80)
    positions = []
    for path, plane in zip(files, phantom.hounsfield, strict=True):
        (frame,) = dicom.read_frames(path.read_bytes())
        assert np.array_equal(frame.values, plane)
        assert frame.geometry.position is not None
        positions.append(frame.geometry.position[2])
    assert np.diff(positions) == pytest.approx(3.27)
    assert len({pydicom.dcmread(f).SOPInstanceUID for f in files}) == 4
    assert len({pydicom.dcmread(f).SeriesInstanceUID for f in files}) == 1


def test_a_phantom_too_small_for_its_anatomy_is_refused() -> None:
    with pytest.raises(ValueError, match="64 x 64"):
        generate_phantom(seed=1, lesions=True, rows=32)
