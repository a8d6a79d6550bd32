"""Integrity checks: evidence that something in a study does not fit together.

A check is a function from the study to its evidence, and a line of `CHECKS` with its code. None of
them says that a study is authentic, and silence does not say so either.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from slicewatch import dicom_times, spacing
from slicewatch.checks import (
    Check,
    Evidence,
    Study,
    objects,
    odd_ones,
    study_of,
    usual,
)
from slicewatch.dicom_times import Span
from slicewatch.forensics import (
    copy_move,
    metadata,
    outliers,
    private_data,
    recompression,
    signatures,
    texture,
)
from slicewatch.issue_codes import SEVERITIES
from slicewatch.records import UNIFORM_PIXELS, IntegrityIssue, SliceResult
from slicewatch.stacks import SAME_PLANE_MM, is_placed

CLOCK_TOLERANCE = timedelta(hours=1)
"""Clocks of scanners and information systems differ, also by a change to summer time."""
FUTURE_TOLERANCE = timedelta(hours=24)
"""Local times run up to 14 hours ahead of UTC, and clocks are wrong."""

EXECUTABLE_PREAMBLES = {
    "pe": "a Windows program",
    "elf": "a Linux program",
    "macho": "a macOS program",
    "script": "a script",
}
FOREIGN_PREAMBLES = {
    "archive": "an archive",
    "markup": "a web page or document",
    "other": "unidentified content",
}


def check(
    slices: Iterable[SliceResult],
    *,
    study_instance_uid: str = "",
    received: datetime | None = None,
) -> tuple[IntegrityIssue, ...]:
    """Run every check of `CHECKS` over a study.

    Args:
        slices: all results of the study, in any order; a frame given twice counts once.
        study_instance_uid: the study that they were filed under; by default the one that most
            of them name.
        received: when the last object came (aware); without it no time is in the future.

    Returns:
        Issues, the most severe first; the same for every order of `slices`.
    """
    study = study_of(slices, study_instance_uid, received)
    issues = [
        _issue(line, evidence) for line in CHECKS for evidence in line.look(study)
    ]  # fmt: skip
    return tuple(sorted(issues, key=_rank))


def _rank(issue: IntegrityIssue) -> tuple[int, str, str, tuple[str, ...]]:
    severity = -SEVERITIES.index(issue.severity)
    return severity, issue.code, issue.series_instance_uid, issue.blobs


def _issue(line: Check, evidence: Evidence) -> IntegrityIssue:
    series = {frame.series_instance_uid for frame in evidence.frames}
    return IntegrityIssue(
        code=line.code,
        severity=line.severity,
        explanation=evidence.explanation,
        series_instance_uid=series.pop() if len(series) == 1 else "",
        blobs=tuple(dict.fromkeys(frame.blob for frame in evidence.frames)),
    )


# --- identity ---------------------------------------------------------------------------------


def _changed_instances(study: Study) -> Iterator[Evidence]:
    by_instance: dict[str, list[SliceResult]] = defaultdict(list)
    for frame in study.frames:
        if frame.sop_instance_uid:
            by_instance[frame.sop_instance_uid].append(frame)
    changed: dict[str, list[SliceResult]] = defaultdict(list)
    for uid in sorted(by_instance):
        frames = by_instance[uid]
        if len({frame.content_sha256 for frame in frames}) > 1:
            changed[frames[0].series_instance_uid].extend(frames)
    for frames in changed.values():
        instances = len({frame.sop_instance_uid for frame in frames})
        noun = "instance came" if instances == 1 else "instances came"
        yield Evidence(
            f"{instances} {noun} more than once under one SOP instance UID with different bytes;"
            " every version is kept.",
            frames,
        )


def _patient(study: Study, frame: SliceResult) -> str:
    """The patient's hash; it compares within a study only, so empty for a frame of another."""
    own = frame.study_instance_uid in ("", study.study_instance_uid)
    return frame.patient_hash if own else ""


def _mixed_patients(study: Study) -> Iterator[Evidence]:
    for frames in study.series.values():
        if odd := odd_ones(frames, lambda frame: _patient(study, frame)):
            yield Evidence(
                f"{objects(odd)} of the series name another patient than the rest of it.", odd
            )


def _mixed_patients_in_study(study: Study) -> Iterator[Evidence]:
    of_series = {
        uid: usual(_patient(study, frame) for frame in frames)
        for uid, frames in study.series.items()
    }
    main = usual(of_series[frame.series_instance_uid] for frame in study.frames)
    for uid, frames in study.series.items():
        if of_series[uid] not in ("", main):
            odd = [frame for frame in frames if _patient(study, frame) == of_series[uid]]
            yield Evidence("The series names another patient than the rest of the study.", odd)


def _mixed_frames_of_reference(study: Study) -> Iterator[Evidence]:
    for frames in study.series.values():
        if odd := odd_ones(frames, lambda one: one.geometry.frame_of_reference_uid or ""):
            yield Evidence(
                f"{objects(odd)} of the series have another frame of reference than the rest of"
                " it: their positions cannot be compared.",
                odd,
            )


def _other_study(study: Study) -> Iterator[Evidence]:
    odd = [
        frame
        for frame in study.frames
        if frame.study_instance_uid not in ("", study.study_instance_uid)
    ]
    if odd:
        yield Evidence(f"{objects(odd)} name another study than the one they are filed under.", odd)


def _misfiled(study: Study) -> Iterator[Evidence]:
    """The name ends in study, series and instance UID; names of another form are left alone."""
    odd = []
    for frame in study.frames:
        parts = tuple(frame.blob.removesuffix(".dcm").split("/")[-3:])
        parts = (*parts[:-1], parts[-1].partition("~")[0])
        own = (frame.study_instance_uid, frame.series_instance_uid, frame.sop_instance_uid)
        is_name = len(parts) == 3 and all(set(part) <= set("0123456789.") for part in parts)
        if is_name and all(own) and parts[1:] != own[1:]:
            odd.append(frame)
    if odd:
        yield Evidence(f"{objects(odd)} carry other UIDs than the name they are stored under.", odd)


# --- what reading the file noticed ------------------------------------------------------------


def _with_note(study: Study, note: str) -> list[SliceResult]:
    return [frame for frame in study.frames if note in frame.notes]


def _preambles(study: Study, kinds: dict[str, str], consequence: str) -> Iterator[Evidence]:
    for kind, name in kinds.items():
        if frames := _with_note(study, f"preamble:{kind}"):
            yield Evidence(
                f"The preamble of {objects(frames)} begins like {name}{consequence}", frames
            )


def _executable_preambles(study: Study) -> Iterator[Evidence]:
    return _preambles(study, EXECUTABLE_PREAMBLES, ": the file may run as one. Do not open it.")


def _foreign_preambles(study: Study) -> Iterator[Evidence]:
    return _preambles(study, FOREIGN_PREAMBLES, "; it is meant to be empty or TIFF.")


def _meta_mismatch(study: Study) -> Iterator[Evidence]:
    if frames := _with_note(study, "meta-uid-mismatch"):
        yield Evidence(
            f"The file meta information of {objects(frames)} names another instance or class than"
            " the dataset.",
            frames,
        )


def _trailing_data(study: Study) -> Iterator[Evidence]:
    if frames := _with_note(study, "trailing-data"):
        yield Evidence(f"{objects(frames)} hold bytes after their last data element.", frames)


# --- pixels -----------------------------------------------------------------------------------


def _pixel_groups(study: Study) -> Iterator[list[SliceResult]]:
    """Frames of different instances, or at places of their own, with the same pixels."""
    groups: dict[str, list[SliceResult]] = defaultdict(list)
    for frame in study.frames:
        if frame.pixel_sha256 and UNIFORM_PIXELS not in frame.notes:
            groups[frame.pixel_sha256].append(frame)
    for digest in sorted(groups):
        # Versions of one instance are the business of `_changed_instances`.
        frames = list({(one.sop_instance_uid, one.frame): one for one in groups[digest]}.values())
        instances = {frame.sop_instance_uid for frame in frames}
        if len(instances) > 1 or (len(frames) > 1 and is_placed(frames[0].geometry)):
            yield frames


def _same_place(one: SliceResult, other: SliceResult) -> bool:
    a, b = one.geometry, other.geometry
    if a.position is None or b.position is None:
        return False
    return math.dist(a.position, b.position) <= SAME_PLANE_MM and (
        a.orientation is None
        or b.orientation is None
        or math.dist(a.orientation, b.orientation) <= 0.01
    )


def _by_series(groups: Iterable[Sequence[SliceResult]]) -> Iterator[list[Sequence[SliceResult]]]:
    """Gather the groups that concern the same series: one piece of evidence for all of them."""
    gathered: dict[tuple[str, ...], list[Sequence[SliceResult]]] = defaultdict(list)
    for group in groups:
        gathered[tuple(sorted({frame.series_instance_uid for frame in group}))].append(group)
    for series in sorted(gathered):
        yield gathered[series]


def _repeats(study: Study, *, same_place: bool, where: str) -> Iterator[Evidence]:
    groups = (
        group
        for group in _pixel_groups(study)
        if all(_same_place(group[0], frame) for frame in group) is same_place
    )
    for gathered in _by_series(groups):
        frames = [frame for group in gathered for frame in group]
        images = "one image" if len(gathered) == 1 else f"{len(gathered)} images"
        yield Evidence(f"{len(frames)} slices {where} hold the pixels of {images}.", frames)


def _repeated_pixels(study: Study) -> Iterator[Evidence]:
    return _repeats(study, same_place=False, where="at different positions")


def _duplicate_images(study: Study) -> Iterator[Evidence]:
    return _repeats(study, same_place=True, where="under different UIDs at the same position")


# --- times ------------------------------------------------------------------------------------


def _malformed_times(study: Study) -> Iterator[Evidence]:
    for frames in study.series.values():
        for keyword in sorted({keyword for frame in frames for keyword in frame.times}):
            odd = [
                frame for frame in frames if keyword in frame.times and not _span(frame, keyword)
            ]
            if odd:
                yield Evidence(f"{keyword} of {objects(odd)} is no date and time.", odd)


def _future_times(study: Study) -> Iterator[Evidence]:
    if study.received is None:
        return
    now = study.received.replace(tzinfo=None)
    received = Span(now, now, zoned=True)
    for frames in study.series.values():
        odd = [
            frame
            for frame in frames
            for keyword in frame.times
            if (span := _span(frame, keyword))
            and span.earliest - received.latest > FUTURE_TOLERANCE
        ]
        if odd:
            yield Evidence(f"{objects(odd)} bear a time after they were received.", odd)


def _content_before(study: Study, keyword: str, what: str) -> Iterator[Evidence]:
    for frames in study.series.values():
        leads = {}
        for index, frame in enumerate(frames):
            content, other = _span(frame, "ContentDateTime"), _span(frame, keyword)
            if content and other and dicom_times.lead(content, other) > CLOCK_TOLERANCE:
                leads[index] = dicom_times.lead(content, other)
        if leads:
            odd = [frames[index] for index in leads]
            hours = max(leads.values()) / timedelta(hours=1)
            amount = f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.0f} days"
            yield Evidence(
                f"The content of {objects(odd)} is up to {amount} older than {what}.", odd
            )


def _content_before_study(study: Study) -> Iterator[Evidence]:
    return _content_before(study, "StudyDateTime", "the start of the study")


def _content_before_acquisition(study: Study) -> Iterator[Evidence]:
    return _content_before(study, "AcquisitionDateTime", "the acquisition of its data")


def _span(frame: SliceResult, keyword: str) -> Span | None:
    """The time's span; ``None`` where it is absent or malformed."""
    try:
        return dicom_times.parse(frame.times[keyword]) if keyword in frame.times else None
    except ValueError:
        return None


# --- spacing ----------------------------------------------------------------------------------


def _irregular(kind: spacing.Kind) -> Callable[[Study], Iterator[Evidence]]:
    def look(study: Study) -> Iterator[Evidence]:
        for stack in spacing.regular_stacks(study.stacks):
            if steps := [step for step in spacing.steps(stack) if step.kind is kind]:
                yield Evidence(spacing.explain(kind, steps), spacing.frames_beside(stack, steps))

    return look


CHECKS: tuple[Check, ...] = (
    # identity
    Check("instance-changed", _changed_instances),
    Check("mixed-patients", _mixed_patients),
    Check("mixed-patients-in-study", _mixed_patients_in_study),
    Check("mixed-frames-of-reference", _mixed_frames_of_reference),
    Check("study-uid-mismatch", _other_study),
    Check("misfiled-object", _misfiled),
    # the file
    Check("executable-preamble", _executable_preambles),
    Check("foreign-preamble", _foreign_preambles),
    Check("meta-uid-mismatch", _meta_mismatch),
    Check("trailing-data", _trailing_data),
    # pixels
    Check("repeated-pixels", _repeated_pixels),
    Check("duplicate-image", _duplicate_images),
    # spacing
    Check("slice-gap", _irregular(spacing.Kind.GAP)),
    Check("uneven-spacing", _irregular(spacing.Kind.UNEVEN)),
    Check("separate-stacks", _irregular(spacing.Kind.STACK_BREAK)),
    # times
    Check("time-malformed", _malformed_times),
    Check("time-in-future", _future_times),
    Check("content-before-study", _content_before_study),
    Check("content-before-acquisition", _content_before_acquisition),
    # forensic: what screening measured, compared over the study
    *outliers.CHECKS,
    *copy_move.CHECKS,
    *texture.CHECKS,
    *recompression.CHECKS,
    *metadata.CHECKS,
    *signatures.CHECKS,
    *private_data.CHECKS,
)
