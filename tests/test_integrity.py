"""Integrity checks: each fires on a case made for it, and stays silent on what is sound."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicewatch import dicom
from slicewatch.dicom_times import UNKNOWN_ZONE, lead, parse
from slicewatch.forensics import evidence
from slicewatch.integrity import CHECKS, check
from slicewatch.issue_codes import ISSUES, SEVERITIES
from slicewatch.records import UNIFORM_PIXELS, IntegrityIssue, Outcome, Reason, SliceResult
from tests.slice_results import (
    CORONAL,
    SERIES,
    STUDY,
    axial,
    axial_series,
    digest,
    frame,
    rejected,
    unscreened,
)
from tests.studies import ct_image, to_bytes

REAL = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "soft-tissue"
RECEIVED = datetime(2026, 3, 1, 12, tzinfo=UTC)


def codes(slices: list[SliceResult], received: datetime | None = RECEIVED) -> list[str]:
    return [issue.code for issue in check(slices, study_instance_uid=STUDY, received=received)]


def only(slices: list[SliceResult]) -> IntegrityIssue:
    (issue,) = check(slices, study_instance_uid=STUDY, received=RECEIVED)
    return issue


def changed(slices: list[SliceResult], index: int, **changes: object) -> list[SliceResult]:
    return [
        dataclasses.replace(item, **changes) if at == index else item  # type: ignore[arg-type]
        for at, item in enumerate(slices)
    ]


SOUND = {
    "evenly spaced": axial_series(20),
    "empty": [],
    "rejected and non-image objects": [rejected(1), unscreened(2, Reason.NOT_AN_IMAGE)],
    "one slice": axial_series(1),
    "no geometry": [frame(n) for n in range(1, 8)],
    "positions rounded to a tenth": [frame(n, axial(round(n * 0.625, 1))) for n in range(20)],
    "dynamic": [frame(10 * t + n, axial(3.0 * n)) for t in range(3) for n in range(6)],
    "localizer": [
        frame(10 * k + n, axial(10.0 * n * (1 + n), orientation=orientation))
        for k, orientation in enumerate([(1, 0, 0, 0, 1, 0), CORONAL, (0, 1, 0, 0, 0, -1)])
        for n in range(4)
    ],
    "thinner slices in the lower half": [
        frame(n, axial(3.0 * min(n, 8) + 6.0 * max(0, n - 8), thickness=3.0 if n < 8 else 6.0))
        for n in range(16)
    ],
    "times with a long study": [
        frame(1, times={"StudyDateTime": "20260228", "ContentDateTime": "20260301101500.5"})
    ],
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_studies_raise_no_issue(name: str) -> None:
    assert codes(SOUND[name]) == []


def test_the_table_has_one_line_a_code_with_a_known_severity() -> None:
    assert sorted(ISSUES) == sorted(line.code for line in CHECKS)
    assert set(ISSUES.values()) <= set(SEVERITIES)


# --- identity ---------------------------------------------------------------------------------


def test_one_instance_with_other_bytes_is_an_error_that_names_every_version() -> None:
    first = frame(1, axial(0.0))
    second = dataclasses.replace(
        first, blob=first.blob.replace(".dcm", "~0123456789abcdef.dcm"), content_sha256=digest("x")
    )
    issue = only([first, second])
    assert (issue.code, issue.severity) == ("instance-changed", "error")
    assert set(issue.blobs) == {first.blob, second.blob}
    assert issue.series_instance_uid == SERIES


def test_the_same_instance_delivered_or_screened_twice_is_no_issue() -> None:
    slices = axial_series(5)
    assert codes([*slices, *slices]) == []


def test_another_patient_inside_a_series_is_found() -> None:
    slices = changed(axial_series(6), 3, patient_hash="b2")
    issue = only(slices)
    assert issue.code == "mixed-patients"
    assert issue.blobs == (slices[3].blob,)


def test_a_series_of_another_patient_is_found() -> None:
    other = axial_series(3, series_instance_uid=f"{STUDY}.2", patient_hash="b2")
    issue = only([*axial_series(6), *other])
    assert issue.code == "mixed-patients-in-study"
    assert issue.series_instance_uid == f"{STUDY}.2"


def test_a_missing_patient_id_is_not_another_patient() -> None:
    assert codes(changed(axial_series(6), 3, patient_hash="")) == []


def test_another_frame_of_reference_inside_a_series_is_found() -> None:
    slices = changed(axial_series(6), 5, geometry=axial(10.0, frame_of_reference_uid="1.2.3"))
    assert codes(slices) == ["mixed-frames-of-reference"]


def test_an_object_of_another_study_is_found_once_and_not_as_another_patient() -> None:
    # Patient hashes compare within a study only, so this one says nothing of the patient.
    slices = changed(axial_series(6), 2, study_instance_uid="1.2.3", patient_hash="c3")
    assert codes(slices) == ["study-uid-mismatch"]


def test_without_a_given_study_the_usual_one_counts() -> None:
    slices = changed(axial_series(6), 2, study_instance_uid="1.2.3")
    assert [issue.code for issue in check(slices)] == ["study-uid-mismatch"]


def test_an_object_stored_under_another_instances_name_is_found() -> None:
    slices = changed(axial_series(6), 2, blob=f"{STUDY}/{SERIES}/{SERIES}.99.dcm")
    assert codes(slices) == ["misfiled-object"]


# --- the file ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("note", "code", "severity"),
    [
        ("preamble:pe", "executable-preamble", "error"),
        ("preamble:elf", "executable-preamble", "error"),
        ("preamble:macho", "executable-preamble", "error"),
        ("preamble:script", "executable-preamble", "error"),
        ("preamble:archive", "foreign-preamble", "warning"),
        ("preamble:markup", "foreign-preamble", "warning"),
        ("preamble:other", "foreign-preamble", "warning"),
        ("meta-uid-mismatch", "meta-uid-mismatch", "warning"),
        ("trailing-data", "trailing-data", "info"),
    ],
)
def test_what_reading_noticed_becomes_an_issue(note: str, code: str, severity: str) -> None:
    slices = changed(axial_series(5), 1, notes=(note,))
    issue = only(slices)
    assert (issue.code, issue.severity, issue.blobs) == (code, severity, (slices[1].blob,))


def test_a_program_in_the_preamble_of_a_file_is_found() -> None:
    data = to_bytes(ct_image(), preamble=b"MZ\x90".ljust(128, b"\0"))
    header = dicom.read_header(data)
    issue = only([frame(1, axial(0.0), notes=header.notes)])
    assert issue.code == "executable-preamble"


def test_dual_personality_tiff_is_legal() -> None:
    assert codes(changed(axial_series(5), 1, notes=("preamble:tiff",))) == []


# --- pixels -----------------------------------------------------------------------------------


def test_an_image_copied_to_another_position_is_found() -> None:
    slices = axial_series(8)
    slices = changed(slices, 6, pixel_sha256=slices[1].pixel_sha256)
    issue = only(slices)
    assert issue.code == "repeated-pixels"
    assert set(issue.blobs) == {slices[1].blob, slices[6].blob}


def test_an_image_copied_from_another_series_is_found() -> None:
    slices = [*axial_series(6), *axial_series(6, series_instance_uid=f"{STUDY}.2")]
    assert codes(changed(slices, 9, pixel_sha256=slices[1].pixel_sha256)) == ["repeated-pixels"]


def test_uniform_frames_repeat_without_meaning() -> None:
    blank = {"pixel_sha256": digest("zeros"), "notes": (UNIFORM_PIXELS,)}
    slices = axial_series(8)
    for index in (5, 6, 7):
        slices = changed(slices, index, **blank)
    assert codes(slices) == []


def test_a_copy_at_the_same_position_under_another_uid_is_told_as_information() -> None:
    slices = axial_series(6)
    copy = frame(7, axial(2.0), pixel_sha256=slices[1].pixel_sha256)
    issue = only([*slices, copy])
    assert (issue.code, issue.severity) == ("duplicate-image", "info")


def test_a_frozen_cine_loop_is_no_issue() -> None:
    loop = [
        frame(1, frame=n, sop_instance_uid="1.5", pixel_sha256=digest("still"), blob="cine.dcm")
        for n in (1, 2, 3)
    ]
    assert codes(loop) == []


def test_frames_of_one_instance_repeated_at_other_positions_are_found() -> None:
    enhanced = [
        frame(1, axial(2.0 * n), frame=n, sop_instance_uid="1.5", blob="enhanced.dcm")
        for n in range(1, 7)
    ]
    assert codes(changed(enhanced, 4, pixel_sha256=enhanced[0].pixel_sha256)) == ["repeated-pixels"]


# --- spacing ----------------------------------------------------------------------------------


def without(slices: list[SliceResult], *indices: int) -> list[SliceResult]:
    return [item for at, item in enumerate(slices) if at not in indices]


def test_a_removed_slice_leaves_a_gap_with_its_neighbours_named() -> None:
    slices = axial_series(12, step=3.27)
    issue = only(without(slices, 5))
    assert (issue.code, issue.severity) == ("slice-gap", "warning")
    assert set(issue.blobs) == {slices[4].blob, slices[6].blob}
    assert "About 1 slice is missing" in issue.explanation


def test_a_removed_slice_is_found_in_a_tilted_series() -> None:
    slices = [
        frame(n, axial(0.0, position=(0.0, -2.0 * n, 4.0 * n), orientation=(1, 0, 0, 0, 0.8, 0.6)))
        for n in range(12)
    ]
    assert codes(slices) == []
    assert codes(without(slices, 6)) == ["slice-gap"]


def test_many_removed_slices_are_a_gap_as_the_numbering_jumps() -> None:
    issue = only(without(axial_series(40), *range(10, 25)))
    assert issue.code == "slice-gap"
    assert "About 15 slices are missing" in issue.explanation


def test_a_shifted_slice_is_uneven_spacing() -> None:
    assert codes(changed(axial_series(10, step=3.0), 4, geometry=axial(13.2))) == ["uneven-spacing"]


def test_an_inserted_slice_is_uneven_spacing() -> None:
    extra = frame(99, axial(7.0))
    assert codes([*axial_series(10), extra]) == ["uneven-spacing"]


def test_stacks_that_are_numbered_on_are_told_as_information() -> None:
    slices = [
        frame(5 * stack + n + 1, axial(33.0 * stack + 4.0 * n))
        for stack in range(3)
        for n in range(5)
    ]
    issue = only(slices)
    assert (issue.code, issue.severity) == ("separate-stacks", "info")


def test_a_slice_of_another_orientation_does_not_silence_the_spacing_check() -> None:
    scout = frame(50, axial(5.0, orientation=CORONAL))
    assert codes([*without(axial_series(12), 5), scout]) == ["slice-gap"]


def test_a_gap_in_one_of_the_series_names_that_series() -> None:
    other = without(axial_series(10, series_instance_uid=f"{STUDY}.2"), 4)
    assert only([*axial_series(10), *other]).series_instance_uid == f"{STUDY}.2"


# --- times ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"ContentDateTime": "20261301"}, ["time-malformed"]),
        ({"ContentDateTime": "20260230120000"}, ["time-malformed"]),
        ({"StudyDateTime": ""}, ["time-malformed"]),
        ({"SeriesDateTime": "18500101"}, ["time-malformed"]),
        ({"StudyDateTime": "99991231235959"}, ["time-malformed"]),
        ({"StudyDateTime": "20260303", "ContentDateTime": "20260303"}, ["time-in-future"]),
        ({"StudyDateTime": "20260301235959"}, []),
        ({"StudyDateTime": "20260202", "ContentDateTime": "20260201"}, []),
        ({"StudyDateTime": "20260203", "ContentDateTime": "20260201"}, ["content-before-study"]),
        (
            {"StudyDateTime": "20260201120000", "ContentDateTime": "20260201103000"},
            ["content-before-study"],
        ),
        ({"StudyDateTime": "20260201120000", "ContentDateTime": "20260201113000"}, []),
        (
            {"AcquisitionDateTime": "20260203101010", "ContentDateTime": "20260201101010"},
            ["content-before-acquisition"],
        ),
        # A merged order: the series is older than the study that it was filed under.
        ({"StudyDateTime": "20260228", "SeriesDateTime": "20260101"}, []),
    ],
)
def test_impossible_times(times: dict[str, str], expected: list[str]) -> None:
    assert codes([frame(1, times=times)]) == expected


def test_the_future_is_not_judged_when_the_time_of_reception_is_unknown() -> None:
    assert codes([frame(1, times={"StudyDateTime": "29990101"})], received=None) == []


def test_explanations_repeat_no_dates() -> None:
    times = {"StudyDateTime": "20260203", "ContentDateTime": "20250201"}
    assert not any(text in only([frame(1, times=times)]).explanation for text in ("2025", "2026"))


@pytest.mark.parametrize(
    ("text", "earliest", "length"),
    [
        ("2024", datetime(2024, 1, 1), timedelta(days=366)),
        ("202312", datetime(2023, 12, 1), timedelta(days=31)),
        ("20240229", datetime(2024, 2, 29), timedelta(days=1)),
        ("2024022910", datetime(2024, 2, 29, 10), timedelta(hours=1)),
        ("202402291011", datetime(2024, 2, 29, 10, 11), timedelta(minutes=1)),
        ("20240229101160", datetime(2024, 2, 29, 10, 11, 59), timedelta(seconds=1)),
        ("20240229101112.5", datetime(2024, 2, 29, 10, 11, 12, 500_000), timedelta()),
        ("20240229101112.5+0130", datetime(2024, 2, 29, 8, 41, 12, 500_000), timedelta()),
        ("20240229101112-0500 ", datetime(2024, 2, 29, 15, 11, 12), timedelta(seconds=1)),
    ],
)
def test_date_time_text_stands_for_a_span(text: str, earliest: datetime, length: timedelta) -> None:
    span = parse(text)
    assert (span.earliest, span.latest - span.earliest) == (earliest, length)


@given(st.one_of(st.text(), st.from_regex(r"\A[0-9.+-]{0,26}\Z")))
def test_any_text_is_a_span_or_a_value_error(text: str) -> None:
    try:
        span = parse(text)
    except ValueError:
        return
    assert span.earliest <= span.latest


def test_an_unknown_offset_from_utc_gives_the_benefit_of_the_doubt() -> None:
    local, zoned = parse("20240101000000"), parse("20240102000000+0000")
    assert lead(local, zoned) == timedelta(hours=24) - timedelta(seconds=1) - UNKNOWN_ZONE


# --- all together -----------------------------------------------------------------------------

spoilt = st.lists(
    st.builds(
        lambda number, z, patient, pixels, note, study: frame(
            number,
            axial(z),
            patient_hash=patient,
            pixel_sha256=pixels,
            notes=(note,),
            study_instance_uid=study,
            times={"ContentDateTime": "2025" + note},
        ),
        st.integers(1, 12),
        st.integers(0, 20).map(float),
        st.sampled_from(["a1", "b2", ""]),
        st.sampled_from(["p", "q", ""]),
        st.sampled_from(["preamble:pe", "trailing-data", ""]),
        st.sampled_from([STUDY, "1.2.3"]),
    ),
    max_size=12,
)


@given(spoilt, st.randoms(use_true_random=False))
def test_the_order_of_slices_changes_no_issue(slices, rng) -> None:  # type: ignore[no-untyped-def]
    assert check(rng.sample(slices, len(slices))) == check(slices)
    for issue in check(slices):
        assert IntegrityIssue.from_json(issue.to_json()) == issue


def test_five_thousand_slices_are_checked() -> None:
    slices = without(axial_series(5000, step=0.6), 2500)
    random.Random(1).shuffle(slices)
    assert codes(slices) == ["slice-gap"]


# --- real studies -----------------------------------------------------------------------------


def real_results(patient: Path) -> Iterator[SliceResult]:
    """What screening says of a real study's objects, without a model."""
    for path in sorted(patient.rglob("*.dcm")):
        data = path.read_bytes()
        instance = dicom.read(data)
        header = instance.header
        uids = (header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid)
        base = SliceResult(
            blob="/".join(uids) + ".dcm",
            content_sha256=hashlib.sha256(data).hexdigest(),
            outcome=Outcome.NOT_SCREENED,
            study_instance_uid=uids[0],
            series_instance_uid=uids[1],
            sop_instance_uid=uids[2],
            modality=header.modality,
            instance_number=header.instance_number,
            patient_hash=header.patient_hash,
            times=header.times,
            notes=header.notes,
            reason=Reason.NOT_AN_IMAGE,
        )
        base = evidence.with_object(base, data, instance)
        if not header.is_image:
            yield base
            continue
        for decoded in instance.frames():
            uniform = decoded.values.min() == decoded.values.max()
            result = dataclasses.replace(
                base,
                outcome=Outcome.SCREENED,
                reason=None,
                frame=decoded.number,
                rows=header.rows,
                columns=header.columns,
                geometry=decoded.geometry,
                pixel_sha256=decoded.pixel_sha256,
                notes=(*base.notes, *([UNIFORM_PIXELS] if uniform else [])),
            )
            yield evidence.with_pixels(result, decoded.values)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real studies in {os.path.relpath(REAL)}")
def test_every_check_is_silent_on_the_real_studies() -> None:
    patients = sorted(path for path in REAL.iterdir() if path.is_dir())
    assert patients
    found = {
        patient.name: issues
        for patient in patients
        if (issues := check(real_results(patient), received=datetime.now(UTC)))
    }
    assert found == {}


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real studies in {os.path.relpath(REAL)}")
def test_a_slice_removed_and_one_copied_in_a_real_study_are_found() -> None:
    slices = list(real_results(REAL / "STS_001"))
    ct = sorted(
        (item for item in slices if item.modality == "CT"),
        key=lambda item: (item.geometry.position or (0, 0, 0))[2],
    )
    rest = [item for item in slices if item is not ct[20]]
    copied = dataclasses.replace(ct[40], pixel_sha256=ct[10].pixel_sha256)
    tampered = [copied if item is ct[40] else item for item in rest]
    assert {issue.code for issue in check(tampered)} == {"slice-gap", "repeated-pixels"}
