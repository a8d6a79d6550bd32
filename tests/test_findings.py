"""Linking detections into findings: what belongs together, in every order, in patient space."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicewatch.findings import link
from slicewatch.records import Finding, Geometry, LinkedBy
from tests.slice_results import (
    AXIAL,
    CORONAL,
    SERIES,
    axial,
    digest,
    frame,
    lesion,
    mass,
)

BOX = (10.0, 10.0, 30.0, 30.0)
FAR = (200.0, 200.0, 230.0, 230.0)


def test_boxes_of_neighbouring_slices_are_one_finding_with_its_size_in_mm() -> None:
    (finding,) = link(lesion([3, 4, 5]))
    assert [item.instance_number for item in finding.slices] == [4, 5, 6]
    assert finding.planes == 3
    assert finding.extent_mm == (20.0, 20.0, 6.0)  # three slices of 2 mm
    # Pixel edges 10 to 30 lie at 9.5 to 29.5 mm: the first pixel's centre is the origin.
    assert finding.centre_mm == (19.5, 19.5, 8.0)
    assert finding.linked_by is LinkedBy.POSITION


def test_score_is_the_highest_and_mean_score_the_mean_over_slices() -> None:
    slices = [frame(n, axial(2.0 * n), mass(BOX, score)) for n, score in enumerate((0.5, 0.9, 0.7))]
    (finding,) = link(slices)
    assert finding.score == 0.9
    assert finding.mean_score == pytest.approx(0.7)


def test_a_skipped_slice_does_not_cut_a_finding_in_two() -> None:
    assert len(link(lesion([2, 3, 5, 6], step=5.0))) == 1


def test_a_gap_is_measured_in_mm_and_not_in_slices() -> None:
    assert len(link(lesion([0, 6], step=1.0))) == 1
    assert len(link(lesion([0, 6], step=2.0))) == 2


def test_boxes_apart_in_the_plane_are_findings_of_their_own() -> None:
    slices = [frame(n, axial(2.0 * n), mass(BOX), mass(FAR, 0.6)) for n in range(4)]
    assert [len(finding.slices) for finding in link(slices)] == [4, 4]


def test_another_label_series_model_or_frame_of_reference_is_another_finding() -> None:
    neighbours = [
        frame(2, axial(2.0), mass(BOX, label="cyst")),
        frame(2, axial(2.0), mass(BOX), series_instance_uid=f"{SERIES}1"),
        frame(2, axial(2.0), mass(BOX), model="other@1"),
        frame(2, axial(2.0, frame_of_reference_uid="1.9"), mass(BOX)),
    ]
    for neighbour in neighbours:
        assert len(link([frame(1, axial(0.0), mass(BOX)), neighbour])) == 2


def test_a_wide_box_does_not_join_two_lesions_side_by_side() -> None:
    left, right, wide = (10, 10, 30, 30), (40, 10, 60, 30), (8, 8, 62, 32)
    slices = [
        frame(n, axial(2.0 * n), *([mass(wide)] if n == 2 else [mass(left), mass(right, 0.7)]))
        for n in range(5)
    ]
    findings = link(slices)
    assert len(findings) == 2
    assert all(finding.planes >= 4 for finding in findings)


def test_a_small_box_in_a_huge_one_is_not_the_same_thing() -> None:
    huge, small = (0, 0, 500, 500), (100, 100, 110, 110)
    assert len(link([frame(1, axial(0), mass(huge)), frame(2, axial(2), mass(small))])) == 2


def test_two_boxes_for_one_thing_on_a_slice_count_as_one_slice() -> None:
    slices = [frame(1, axial(0.0), mass(BOX, 0.5), mass((12, 10, 31, 30), 0.8))]
    (finding,) = link(slices)
    assert len(finding.slices) == 1
    assert finding.slices[0].score == finding.mean_score == 0.8
    assert finding.slices[0].box == (10, 10, 31, 30)


def test_a_series_stored_at_other_pixel_spacing_and_crop_links_in_patient_space() -> None:
    fine = axial(2.0, x=5.0, y=5.0, spacing=(0.5, 0.5))
    # The same 20 mm square: pixel edges in mm are 5 + (x - 0.5) / 2.
    (finding,) = link(
        [frame(1, axial(0.0), mass(BOX)), frame(2, fine, mass((9.5, 9.5, 49.5, 49.5)))]
    )
    assert finding.extent_mm == pytest.approx((20.0, 20.0, 4.0))


def oblique(angle: float, along: float, shift: float = 0.0) -> Geometry:
    """A plane tilted about x, `along` mm along its normal and `shift` mm along its columns."""
    cos, sin = math.cos(angle), math.sin(angle)
    column, normal = (0.0, cos, sin), (0.0, -sin, cos)
    position = tuple(along * n + shift * c for n, c in zip(normal, column, strict=True))
    return axial(0.0, position=position, orientation=(1.0, 0.0, 0.0, *column), spacing=(1.0, 1.0))


def test_oblique_slices_link_along_their_normal() -> None:
    (finding,) = link([frame(n, oblique(0.6, 2.0 * n), mass(BOX)) for n in range(4)])
    assert finding.extent_mm == pytest.approx((20.0, 20.0, 8.0))
    assert finding.centre_mm is not None
    across, along = 19.5, 3.0
    expected = (
        across,
        across * math.cos(0.6) - along * math.sin(0.6),
        across * math.sin(0.6) + along * math.cos(0.6),
    )
    assert finding.centre_mm == pytest.approx(expected, abs=1e-3)


def test_gantry_tilt_shears_the_stack_and_the_boxes_follow_the_patient() -> None:
    # Tilted CT: each slice is shifted along its columns, so that a fixed structure moves back.
    slices = [
        frame(n, oblique(0.4, 4.6 * n, shift=2.0 * n), mass((10, 40 - 2 * n, 30, 60 - 2 * n)))
        for n in range(6)
    ]
    (finding,) = link(slices)
    assert finding.planes == 6
    assert finding.extent_mm is not None
    assert finding.extent_mm[:2] == pytest.approx((20.0, 20.0))


def test_orientations_of_a_localizer_are_not_linked_to_each_other() -> None:
    slices = [
        frame(1, axial(0.0), mass(BOX)),
        frame(2, axial(1.0, orientation=CORONAL), mass(BOX)),
    ]
    assert len(link(slices)) == 2


def test_rounding_of_the_orientation_does_not_split_a_stack() -> None:
    wobble = [(1.0, 1e-4 * (n % 2), 0.0, 0.0, 1.0, 1e-4 * (n % 3)) for n in range(6)]
    slices = [frame(n, axial(2.0 * n, orientation=wobble[n]), mass(BOX)) for n in range(6)]
    assert len(link(slices)) == 1


def test_a_dynamic_series_gives_one_finding_that_counts_positions_once() -> None:
    slices = [
        frame(10 * time + n, axial(2.0 * n), mass(BOX, 0.5 + time / 10))
        for time in range(4)
        for n in range(3)
    ]
    (finding,) = link(slices)
    assert len(finding.slices) == 12
    assert finding.planes == 3


def test_parallel_stacks_of_one_series_stay_apart() -> None:
    slices = [
        frame(10 * stack + n, axial(40.0 * stack + 4.0 * n), mass(BOX))
        for stack in range(3)
        for n in range(4)
    ]
    assert [finding.planes for finding in link(slices)] == [4, 4, 4]


def test_without_geometry_instance_numbers_order_the_slices_and_the_finding_says_so() -> None:
    slices = [frame(n, None, mass(BOX)) for n in (1, 2, 4, 9)]
    findings = link(slices)
    assert sorted(len(finding.slices) for finding in findings) == [1, 3]
    assert {finding.linked_by for finding in findings} == {LinkedBy.ORDER}
    assert all(finding.centre_mm is None and finding.extent_mm is None for finding in findings)


def test_without_geometry_the_frames_of_one_instance_follow_each_other() -> None:
    cine = [
        frame(1, None, mass(BOX), frame=n, sop_instance_uid="1.5", modality="US") for n in (1, 2, 3)
    ]
    other = frame(2, None, mass(BOX), sop_instance_uid="1.6", modality="US")
    assert sorted(len(finding.slices) for finding in link([*cine, other])) == [1, 3]


def test_two_views_of_a_radiograph_are_not_neighbours() -> None:
    assert len(link([frame(n, None, mass(BOX), modality="DX") for n in (1, 2)])) == 2


def test_slices_without_number_or_geometry_stand_alone() -> None:
    slices = [frame(n, None, mass(BOX), instance_number=None) for n in (1, 2)]
    assert len(link(slices)) == 2


@pytest.mark.parametrize(
    "geometry",
    [
        axial(math.nan),
        axial(0.0, orientation=(0.0,) * 6),
        axial(0.0, orientation=(1.0, 0.0, 0.0, 1.0, 0.0, 0.0)),
        axial(0.0, spacing=(0.0, 1.0)),
        axial(0.0, spacing=None),
        axial(0.0, orientation=(math.inf, 0.0, 0.0, 0.0, 1.0, 0.0)),
    ],
)
def test_geometry_that_makes_no_sense_counts_as_missing(geometry: Geometry) -> None:
    (finding,) = link([frame(1, geometry, mass(BOX))])
    assert finding.linked_by is LinkedBy.ORDER


def test_versions_of_one_instance_share_a_finding_and_are_both_in_it() -> None:
    first = frame(1, axial(0.0), mass(BOX))
    second = dataclasses.replace(first, blob=f"{first.blob}~2", content_sha256=digest("other"))
    (finding,) = link([first, second])
    assert {item.blob for item in finding.slices} == {first.blob, second.blob}


def test_no_detections_no_findings() -> None:
    assert link([]) == ()
    assert link(lesion([])) == ()


def test_five_thousand_slices_with_a_lesion_each_are_linked() -> None:
    slices = lesion(range(5000), count=5000, step=0.6)
    random.Random(1).shuffle(slices)
    (finding,) = link(slices)
    assert finding.planes == 5000


coordinate = st.integers(0, 60).map(lambda value: value * 2.5)
boxes = st.tuples(coordinate, coordinate, st.integers(0, 40), st.integers(0, 40)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)
detections = st.builds(
    mass, boxes, st.integers(0, 100).map(lambda value: value / 100), st.sampled_from(["a", "b"])
)
geometries = st.one_of(
    st.none(),
    st.builds(
        axial,
        st.integers(0, 12).map(lambda value: value * 1.5),
        orientation=st.sampled_from([AXIAL, CORONAL]),
        spacing=st.sampled_from([(1.0, 1.0), (0.5, 0.8)]),
    ),
)
studies = st.lists(st.tuples(geometries, st.lists(detections, max_size=4)), max_size=12).map(
    lambda items: [frame(n, geometry, *found) for n, (geometry, found) in enumerate(items)]
)


@given(studies, st.randoms(use_true_random=False))
def test_the_order_of_slices_and_boxes_changes_nothing(study, rng) -> None:  # type: ignore[no-untyped-def]
    shuffled = []
    for item in rng.sample(study, len(study)):
        found = rng.sample(list(item.detections), len(item.detections))
        shuffled.append(dataclasses.replace(item, detections=tuple(found)))
    assert link(shuffled) == link(study)


@given(studies)
def test_no_box_is_lost_and_ids_are_unique(study) -> None:  # type: ignore[no-untyped-def]
    findings = link(study)
    assert len({finding.id for finding in findings}) == len(findings)
    for item in study:
        for detection in item.detections:
            homes = [
                entry
                for finding in findings
                if finding.label == detection.label
                for entry in finding.slices
                if entry.blob == item.blob
                and contains(entry.box, detection.box)
                and entry.score >= detection.score
            ]
            assert homes
    assert all(finding.score >= finding.mean_score - 1e-12 for finding in findings)


@given(studies)
def test_findings_survive_json(study) -> None:  # type: ignore[no-untyped-def]
    for finding in link(study):
        assert Finding.from_json(finding.to_json()) == finding


def contains(outer: tuple[float, ...], inner: tuple[float, ...]) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and outer[2] >= inner[2]
        and outer[3] >= inner[3]
    )
