"""The review: what status a study gets, what is listed, and that order changes nothing."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicewatch import settings
from slicewatch.findings import link
from slicewatch.records import Lane, ModelUse, Reason, Review, SliceResult, StudyStatus
from slicewatch.review import MAX_LISTED_SLICES, assemble, describe
from slicewatch.triage import load_policy
from tests.slice_results import (
    SERIES,
    STUDY,
    axial,
    axial_series,
    digest,
    frame,
    lesion,
    mass,
    rejected,
    unscreened,
)

POLICY = load_policy(settings.Settings().policy)
MODELS = (ModelUse("test-model", "1.0.0", "ab" * 32, 0.4, 12, (SERIES,)),)
SR = unscreened(90, Reason.NOT_AN_IMAGE, modality="SR", series_instance_uid=f"{STUDY}.90")
OTHER_SERIES = [unscreened(n, series_instance_uid=f"{STUDY}.80") for n in (1, 2)]


def review(slices: list[SliceResult], **changes: Any) -> Review:
    values: dict[str, Any] = {
        "study_instance_uid": STUDY,
        "generation": 1,
        "slices": slices,
        "missing": (),
        "policy": POLICY,
        "models": MODELS,
        "content_digest": digest("content"),
    }
    return assemble(**values | changes)


# --- status -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slices", "missing", "status"),
    [
        (axial_series(6), (), StudyStatus.NOT_FLAGGED),
        ([*axial_series(6), SR], (), StudyStatus.NOT_FLAGGED),
        ([*axial_series(6), rejected(7)], (), StudyStatus.INCOMPLETE),
        ([*axial_series(6), *OTHER_SERIES], (), StudyStatus.INCOMPLETE),
        (axial_series(6), ("1.2.99",), StudyStatus.INCOMPLETE),
        (OTHER_SERIES, (), StudyStatus.NOT_SCREENED),
        ([SR], (), StudyStatus.NOT_SCREENED),
        ([rejected(1)], (), StudyStatus.NOT_SCREENED),
        ([], (), StudyStatus.NOT_SCREENED),
        ([], ("1.2.99",), StudyStatus.NOT_SCREENED),
        (lesion([3, 4, 5]), (), StudyStatus.FLAGGED),
        ([*lesion([3, 4, 5]), rejected(50), *OTHER_SERIES], ("1.2.99",), StudyStatus.FLAGGED),
    ],
)
def test_status(slices: list[SliceResult], missing: tuple[str, ...], status: StudyStatus) -> None:
    assert review(slices, missing=missing).status is status


def test_an_integrity_error_alone_flags_an_unread_study_for_the_forensic_lane() -> None:
    unread = unscreened(1, notes=("preamble:elf",))
    result = review([unread])
    assert result.status is StudyStatus.FLAGGED
    assert [flag.lane for flag in result.lanes] == [Lane.FORENSIC]
    assert result.coverage.screened == 0


def test_a_flagged_study_says_what_is_missing_from_it() -> None:
    coverage = review(
        [*lesion([3, 4, 5]), rejected(50, detail="at byte 9"), *OTHER_SERIES, SR],
        missing=("1.2.99", f"{SERIES}.1"),
    ).coverage
    assert (coverage.received_objects, coverage.images, coverage.screened) == (16, 15, 12)
    assert coverage.missing == ("1.2.99",)  # the other one did come
    (read_error,) = coverage.rejected
    assert (read_error.reason, read_error.count) == (Reason.TRUNCATED, 1)
    assert read_error.detail == "at byte 9"
    assert {(group.reason, group.count) for group in coverage.not_screened} == {
        (Reason.NO_MODEL, 2),
        (Reason.NOT_AN_IMAGE, 1),
    }


def test_every_object_that_was_not_read_is_named() -> None:
    slices = [rejected(n) for n in range(2000)]
    (group,) = review(slices).coverage.rejected
    assert set(group.blobs) == {item.blob for item in slices}


def test_a_suppressed_finding_is_listed_and_names_no_rule() -> None:
    slices = changed(lesion([5]), score=0.45)
    result = review(slices)
    assert result.status is StudyStatus.NOT_FLAGGED
    assert [finding.rules for finding in result.findings] == [()]


def test_a_finding_that_met_a_rule_names_it() -> None:
    (finding,) = review(lesion([3, 4, 5])).findings
    assert finding.rules == ("clear-finding", "finding", "confident-finding")


def changed(slices: list[SliceResult], score: float) -> list[SliceResult]:
    return [
        dataclasses.replace(
            item,
            detections=tuple(dataclasses.replace(found, score=score) for found in item.detections),
        )
        for item in slices
    ]


# --- what comes twice, and in other orders ----------------------------------------------------


def as_text(result: Review) -> str:
    return json.dumps(result.to_json())


def test_a_batch_that_was_screened_twice_counts_once() -> None:
    slices = [*lesion([3, 4, 5]), rejected(50)]
    assert as_text(review([*slices, *slices])) == as_text(review(slices))


def test_a_screened_result_wins_over_a_refused_one_of_the_same_frame() -> None:
    seen = frame(1, axial(0.0))
    refused = dataclasses.replace(rejected(1), frame=1)
    assert as_text(review([refused, seen])) == as_text(review([seen, refused]))
    assert review([refused, seen]).coverage.screened == 1


def test_timings_change_nothing_else() -> None:
    timings = {"last_arrival": "2026-03-01T12:00:00+00:00", "assessing_s": 0.1}
    result = review(lesion([3, 4]), timings=timings)
    assert dataclasses.replace(result, timings={}) == review(lesion([3, 4]))
    assert result.timings == timings


def test_times_after_the_last_arrival_are_found() -> None:
    slices = [frame(1, axial(0.0), times={"StudyDateTime": "20300101"})]
    timings = {"last_arrival": "2026-03-01T12:00:00+00:00"}
    assert [one.code for one in review(slices, timings=timings).integrity] == ["time-in-future"]


slice_lists = st.lists(
    st.one_of(
        st.builds(
            lambda number, z, x, score: frame(
                number, axial(z), mass((x, x, x + 20, x + 20), score)
            ),
            st.integers(1, 30),
            st.integers(0, 20).map(float),
            st.integers(0, 80).map(float),
            st.integers(0, 100).map(lambda value: value / 100),
        ),
        st.builds(rejected, st.integers(31, 40), st.sampled_from(list(Reason))),
        st.builds(unscreened, st.integers(41, 50), st.sampled_from(list(Reason))),
    ),
    max_size=15,
)
missing_lists = st.lists(st.sampled_from(["1.2.98", "1.2.99", f"{SERIES}.1"]), max_size=3)


@given(slice_lists, missing_lists, st.randoms(use_true_random=False))
def test_the_same_slices_in_any_order_give_the_same_bytes(
    slices: list[SliceResult], missing: list[str], rng: random.Random
) -> None:
    shuffled = rng.sample(slices, len(slices))
    other = review(shuffled, missing=rng.sample(missing, len(missing)))
    assert as_text(other) == as_text(review(slices, missing=missing))


@given(slice_lists, missing_lists)
def test_not_flagged_means_that_every_image_was_screened(
    slices: list[SliceResult], missing: list[str]
) -> None:
    result = review(slices, missing=missing)
    coverage = result.coverage
    if result.status is StudyStatus.NOT_FLAGGED:
        assert coverage.screened == coverage.images > 0
        assert (coverage.rejected, coverage.missing) == ((), ())
        assert all(one.reason is Reason.NOT_AN_IMAGE for one in coverage.not_screened)
    assert (result.status is StudyStatus.FLAGGED) == bool(result.lanes)


@given(slice_lists, missing_lists)
def test_a_review_survives_json(slices: list[SliceResult], missing: list[str]) -> None:
    result = review(slices, missing=missing)
    assert Review.from_json(json.loads(as_text(result))) == result


@given(slice_lists, slice_lists)
def test_more_slices_never_take_a_flag_away_from_what_they_do_not_touch(
    slices: list[SliceResult], more: list[SliceResult]
) -> None:
    before = review(slices)
    other = f"{STUDY}.7"
    moved = [
        dataclasses.replace(
            item,
            series_instance_uid=other,
            sop_instance_uid=f"{other}.{item.instance_number}",
            blob=f"{STUDY}/{other}/{other}.{item.instance_number}.dcm",
        )
        for item in more
    ]
    after = {flag.lane: flag.priority for flag in review([*slices, *moved]).lanes}
    for flag in before.lanes:
        assert after[flag.lane] >= flag.priority


# --- size -------------------------------------------------------------------------------------


def noisy(slices: int, boxes: int) -> list[SliceResult]:
    rng = random.Random(7)

    def noise() -> tuple[float, float, float, float]:
        x, y = rng.uniform(0, 480), rng.uniform(0, 480)
        return x, y, x + rng.uniform(3, 20), y + rng.uniform(3, 20)

    return [
        frame(n, axial(2.0 * n), *(mass(noise(), rng.uniform(0.0, 0.3)) for _ in range(boxes)))
        for n in range(slices)
    ]


def test_a_sick_model_does_not_explode_the_review_and_hides_nothing() -> None:
    slices = noisy(200, 100)
    slices += lesion(range(4), series_instance_uid=f"{STUDY}.2")
    result = review(slices)
    listed = sum(len(finding.slices) for finding in result.findings)
    assert listed <= MAX_LISTED_SLICES
    assert len(as_text(result)) < 3_000_000
    assert result.findings[0].series_instance_uid == f"{STUDY}.2"
    boxes = {item.box for finding in result.findings for item in finding.slices}
    assert boxes >= {item.detections[0].box for item in slices[200:204]}
    (folded,) = result.folded_findings
    assert folded.series_instance_uid == SERIES
    every = link(slices)
    assert folded.count == len(every) - len(result.findings)
    assert folded.slices == sum(len(finding.slices) for finding in every) - listed
    assert f"and {folded.count} more" in describe(result)


def test_what_flagged_the_study_is_listed_before_higher_scores_that_did_not() -> None:
    result = review([*changed(lesion([3, 4]), 0.41), *single_boxes(0.55)])
    assert [bool(finding.rules) for finding in result.findings] == [True, False]


def single_boxes(score: float) -> list[SliceResult]:
    series = f"{STUDY}.3"
    return [frame(1, axial(0.0), mass((1, 1, 9, 9), score), series_instance_uid=series)]


def test_the_review_of_two_thousand_slices_is_small() -> None:
    result = review(lesion(range(500, 560), count=2000))
    assert len(as_text(result)) < 50_000


# --- text -------------------------------------------------------------------------------------


def test_the_text_shows_findings_lanes_coverage_and_that_no_flag_is_not_normal() -> None:
    text = describe(
        review([*lesion([3, 4, 5]), rejected(50), *OTHER_SERIES], missing=("1.2.99",), supersedes=1)
    )
    for expected in (
        "Status: flagged",
        "clinical lane, priority 80: mass 0.80 on 3 slices, 20 × 20 × 6 mm",
        "by clear-finding, finding, confident-finding",
        "Coverage: 12 of 15 images screened (15 objects received)",
        "2 not screened: no model covers this series",
        "1 rejected: file ends before its data does",
        "1 announced by the sender and never received",
        "mass 0.80 (mean 0.80); 3 slices, images 4–6; 20 × 20 × 6 mm; at LPS (19.5, 19.5, 8.0) mm",
        "Integrity: none",
        "Model: test-model@1.0.0 abababababab",
        'No flag is not "normal"',
        "Not a medical device; for research and evaluation.",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        (axial_series(4), "Status: not flagged\n"),
        ([*axial_series(4), rejected(9)], "Status: incomplete: not every image was looked at"),
        (OTHER_SERIES, "Status: not screened: no image of it was looked at"),
    ],
)
def test_every_text_without_flag_says_that_this_is_not_normal(
    slices: list[SliceResult], expected: str
) -> None:
    text = describe(review(slices))
    assert expected in text
    assert 'No flag is not "normal"' in text


def test_the_text_says_when_geometry_is_missing() -> None:
    box = (10.0, 10.0, 30.0, 30.0)
    text = describe(review([frame(n, None, mass(box)) for n in (1, 2)]))
    assert "no geometry: linked by instance and frame number" in text


def test_the_text_names_the_frames_of_a_multi_frame_instance() -> None:
    box = (10.0, 10.0, 30.0, 30.0)
    frames = [
        frame(1, axial(2.0 * n), mass(box), frame=n, sop_instance_uid="1.5", blob="e.dcm")
        for n in range(3, 6)
    ]
    assert "frames 3–5" in describe(review(frames))
