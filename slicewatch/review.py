"""The review of a study: what was looked at, what was found, and what follows from it.

Status, in this order (no flag is not "normal", so only the last one says that all was seen):

1. ``flagged``: the triage policy sends it to a lane. What is missing stays in the coverage.
2. ``not_screened``: no image was screened, whatever the cause, and none is held at the edge.
3. ``incomplete``: an image was rejected, has no model, or never came, also when an edge agent
   says that it looked at it. That goes for a series without model beside a screened one, too.
4. ``not_flagged``: every image was screened and nothing is missing.

Objects that are no images (SR, RTSTRUCT) are listed and change no status.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from slicewatch import findings as finding_linker
from slicewatch import integrity
from slicewatch.records import (
    Coverage,
    EdgeScreening,
    Finding,
    FindingSlice,
    FoldedFindings,
    LinkedBy,
    ModelUse,
    Outcome,
    Reason,
    Review,
    SliceResult,
    StudyStatus,
    Unscreened,
)
from slicewatch.stacks import distinct
from slicewatch.triage import Policy, slice_positions, triage

MAX_LISTED_SLICES = 5_000
"""Boxes that a review lists: about 2 MB of JSON. A sick model can give 300 a slice; findings
beyond this are counted (`Review.folded_findings`) after they were triaged like all others."""

NO_FLAG_MEANS = 'No flag is not "normal": it says only that this model met no rule of this policy.'


def assemble(
    *,
    study_instance_uid: str,
    generation: int,
    slices: Iterable[SliceResult],
    missing: Iterable[str],
    screened_at_edge: Sequence[EdgeScreening] = (),
    policy: Policy,
    models: Iterable[ModelUse],
    content_digest: str,
    supersedes: int | None = None,
    timings: Mapping[str, Any] | None = None,
) -> Review:
    """Assess a study; the same slices in any order give the same review.

    Args:
        slices: results of all objects of the study; a frame given twice counts once.
        missing: SOP instance UIDs that the sender listed and that never came.
        screened_at_edge: what edge agents say of the study's instances.
        models: those that screened the slices.
        content_digest: of the objects that the slices are of.
        timings: passed on; ``last_arrival`` (ISO 8601 with offset) also tells which times lie
            in the future.
    """
    frames = distinct(slices)
    found = finding_linker.link(frames)
    issues = integrity.check(
        frames, study_instance_uid=study_instance_uid, received=_last_arrival(timings or {})
    )
    result = triage(policy, found, issues, _modalities(frames))
    found = tuple(
        dataclasses.replace(finding, rules=rules)
        for finding, rules in zip(found, result.rules_met, strict=True)
    )
    listed, folded = _fold(found)
    coverage = _coverage(frames, missing, screened_at_edge)
    return Review(
        study_instance_uid=study_instance_uid,
        generation=generation,
        status=StudyStatus.FLAGGED if result.flags else unflagged_status(coverage),
        lanes=result.flags,
        coverage=coverage,
        findings=listed,
        integrity=issues,
        models=tuple(sorted(models, key=lambda model: (model.name, model.version))),
        policy_name=policy.name,
        policy_sha256=policy.sha256,
        content_digest=content_digest,
        timings=dict(timings or {}),
        supersedes=supersedes,
        folded_findings=folded,
    )


def unflagged_status(coverage: Coverage) -> StudyStatus:
    """What a study is that no lane is told of."""
    # Held at the edge: models look at such images, only not at these here.
    if coverage.screened == 0 and not coverage.held_at_edge:
        return StudyStatus.NOT_SCREENED
    if coverage.screened < coverage.images or coverage.rejected or coverage.missing:
        return StudyStatus.INCOMPLETE
    return StudyStatus.NOT_FLAGGED


def _last_arrival(timings: Mapping[str, Any]) -> datetime | None:
    return datetime.fromisoformat(timings["last_arrival"]) if "last_arrival" in timings else None


def _modalities(frames: Iterable[SliceResult]) -> dict[str, str]:
    """Modality by series; of a series that contradicts itself, the first by name."""
    modalities: dict[str, str] = {}
    for frame in frames:
        if frame.modality:
            known = modalities.get(frame.series_instance_uid, frame.modality)
            modalities[frame.series_instance_uid] = min(known, frame.modality)
    return modalities


# --- coverage ---------------------------------------------------------------------------------


def _coverage(
    frames: Sequence[SliceResult], missing: Iterable[str], at_edge: Sequence[EdgeScreening]
) -> Coverage:
    screened = sum(frame.outcome is Outcome.SCREENED for frame in frames)
    passed_over = [frame for frame in frames if frame.outcome is Outcome.NOT_SCREENED]
    rejected = [frame for frame in frames if frame.outcome is Outcome.REJECTED]
    no_images = sum(frame.reason is Reason.NOT_AN_IMAGE for frame in passed_over)
    received = {frame.sop_instance_uid for frame in frames}
    never_came = tuple(sorted(set(missing) - received))
    return Coverage(
        received_objects=len({frame.blob for frame in frames}),
        images=len(frames) - no_images,
        screened=screened,
        not_screened=_by_reason(passed_over, Reason.NO_MODEL),
        rejected=_by_reason(rejected, Reason.DECODE_FAILED),
        missing=never_came,
        held_at_edge=_held_at_edge(at_edge, never_came),
        screened_at_edge=tuple(at_edge),
    )


def _held_at_edge(at_edge: Iterable[EdgeScreening], never_came: Iterable[str]) -> tuple[str, ...]:
    held = {uid for one in at_edge if one.whereabouts.is_on_site for uid in one.instances}
    return tuple(sorted(held & set(never_came)))


def _by_reason(frames: Iterable[SliceResult], otherwise: Reason) -> tuple[Unscreened, ...]:
    """Group by series, reason and detail; every object is named."""
    groups: dict[tuple[str, Reason, str], list[SliceResult]] = defaultdict(list)
    for frame in frames:
        detail = frame.detail if frame.reason else "no reason was recorded"
        groups[frame.series_instance_uid, frame.reason or otherwise, detail].append(frame)
    return tuple(
        Unscreened(
            series_instance_uid=series,
            reason=reason,
            count=len(members),
            blobs=tuple(dict.fromkeys(frame.blob for frame in members)),
            detail=detail,
        )
        for (series, reason, detail), members in sorted(groups.items(), key=lambda item: item[0])
    )


# --- size -------------------------------------------------------------------------------------


def _fold(found: Sequence[Finding]) -> tuple[tuple[Finding, ...], tuple[FoldedFindings, ...]]:
    """The findings to list, those that met a rule first, and the rest counted."""
    ranked = sorted(found, key=lambda finding: not finding.rules)  # stable: by score within
    boxes = 0
    listed: list[Finding] = []
    rest: dict[tuple[str, str, str], list[Finding]] = defaultdict(list)
    for finding in ranked:
        boxes += len(finding.slices)
        if boxes <= MAX_LISTED_SLICES or not listed:
            listed.append(finding)
        else:
            rest[finding.series_instance_uid, finding.label, finding.model].append(finding)
    folded = tuple(
        FoldedFindings(
            series_instance_uid=series,
            label=label,
            model=model,
            count=len(members),
            slices=sum(len(finding.slices) for finding in members),
            score=max(finding.score for finding in members),
            flagged=sum(bool(finding.rules) for finding in members),
        )
        for (series, label, model), members in sorted(rest.items(), key=lambda item: item[0])
    )
    return tuple(listed), folded


# --- text -------------------------------------------------------------------------------------


def describe(review: Review) -> str:
    """The review as text for a terminal: status, lanes, coverage, findings, integrity."""
    return "\n".join(_lines(review)) + "\n"


def _lines(review: Review) -> Iterator[str]:
    again = f", supersedes {review.supersedes}" if review.supersedes is not None else ""
    yield f"Study {review.study_instance_uid}, generation {review.generation}{again}"
    yield f"Status: {_status_text(review)}"
    for flag in review.lanes:
        yield f"  {flag.lane} lane, priority {flag.priority}: {flag.summary}"
        yield f"    by {', '.join(flag.rules)}"
    yield from _coverage_lines(review.coverage)
    yield from _section("Findings", review.findings, _finding_text)
    for folded in review.folded_findings:
        yield (
            f"  and {folded.count} more: {folded.label}, up to {folded.score:.2f}, on"
            f" {folded.slices} slices of series {folded.series_instance_uid}; {folded.flagged}"
            " of them met a rule (boxes are in the slice results)"
        )
    yield from _section(
        "Integrity",
        review.integrity,
        lambda issue: f"{issue.severity}: {issue.explanation} [{issue.code}]",
    )
    models = ", ".join(f"{one.name}@{one.version} {one.sha256[:12]}" for one in review.models)
    yield f"Model: {models or 'none took part'}"
    yield f"Policy: {review.policy_name} {review.policy_sha256[:12]}"
    yield NO_FLAG_MEANS
    yield f"{review.disclaimer[:1].upper()}{review.disclaimer[1:]}."


def _status_text(review: Review) -> str:
    match review.status:
        case StudyStatus.NOT_SCREENED:
            return "not screened: no image of it was looked at"
        case StudyStatus.INCOMPLETE:
            return "incomplete: not every image was looked at, and nothing was flagged in the rest"
        case StudyStatus.NOT_FLAGGED:
            return "not flagged"
        case status:
            return status.value.replace("_", " ")


def _coverage_lines(coverage: Coverage) -> Iterator[str]:
    yield (
        f"Coverage: {coverage.screened} of {coverage.images} images screened"
        f" ({coverage.received_objects} objects received)"
    )
    for what, groups in (("not screened", coverage.not_screened), ("rejected", coverage.rejected)):
        counts: dict[tuple[str, Reason], int] = defaultdict(int)
        for group in groups:
            counts[group.series_instance_uid, group.reason] += group.count
        for (series, reason), count in counts.items():
            yield f"  {count} {what}: {reason} (series {series or 'unknown'})"
    if coverage.missing:
        yield f"  {len(coverage.missing)} announced by the sender and never received"
    if coverage.held_at_edge:
        yield f"  {len(coverage.held_at_edge)} of them held at the edge, and not looked at here"
    for one in coverage.screened_at_edge:
        by = f" by {one.model} {one.model_sha256[:12]}" if one.model else ""
        yield (
            f"  at the edge: {len(one.instances)} {one.outcome.replace('_', ' ')}{by},"
            f" {len(one.detections)} with detections; {one.whereabouts}"
        )


def _section[Item](title: str, items: Sequence[Item], text: Callable[[Item], str]) -> Iterator[str]:
    yield f"{title}: {len(items) or 'none'}"
    for item in items:
        yield f"  {text(item)}"


def _finding_text(finding: Finding) -> str:
    positions = slice_positions(finding)
    parts = [
        f"{finding.label} {finding.score:.2f} (mean {finding.mean_score:.2f})",
        f"{positions} {'slice' if positions == 1 else 'slices'}, {_range(finding.slices)}",
    ]
    if finding.extent_mm and finding.centre_mm:
        parts.append(" × ".join(f"{side:.0f}" for side in finding.extent_mm) + " mm")
        parts.append("at LPS ({:.1f}, {:.1f}, {:.1f}) mm".format(*finding.centre_mm))
    if finding.linked_by is LinkedBy.ORDER:
        parts.append("no geometry: linked by instance and frame number")
    parts.append(f"flagged by {', '.join(finding.rules)}" if finding.rules else "met no rule")
    return "; ".join(parts)


def _range(slices: Sequence[FindingSlice]) -> str:
    """The image numbers that a viewer shows: of frames within one instance, else of instances."""
    if len({item.sop_instance_uid for item in slices}) == 1 and len(slices) > 1:
        what, numbers = "frame", sorted(item.frame for item in slices)
    else:
        known = [item.instance_number for item in slices if item.instance_number is not None]
        what, numbers = "image", sorted(known)
    if not numbers:
        return "images without number"
    if numbers[0] == numbers[-1]:
        return f"{what} {numbers[0]}"
    return f"{what}s {numbers[0]}–{numbers[-1]}"
