"""Assess a study: its slice results and the ledger become the review of a generation."""

from __future__ import annotations

import dataclasses
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from slicewatch import closings, inventory
from slicewatch.messages import Assessment, AssessRequest
from slicewatch.model_registry import Registry
from slicewatch.records import ModelUse, Outcome, Review, SliceResult, StudyStatus
from slicewatch.review import assemble
from slicewatch.storage import Conflict, Storage
from slicewatch.triage import Policy


def assess(
    storage: Storage, request: AssessRequest, *, registry: Registry, policy: Policy
) -> Assessment:
    """Write the review of everything screened so far, as a new generation if it says anything new.

    The same content, models and policy give the same review, and so no new generation: running
    this twice, or again after a restart, answers with what is there.
    """
    study = request.study
    if not inventory.all_screened(storage, study, registry.digest):
        # Other models screened it than this process has, while a deployment goes on.
        raise Conflict("batches wait for these models; the study is to be looked at again")
    screened = inventory.read_results(storage, study, registry.digest)
    refused = inventory.rejections(storage, study, (one.blob for one in screened))
    slices = [*screened, *refused]
    objects = sorted({(one.blob, one.content_sha256) for one in slices})
    expected = closings.expected_instances(storage, study) or ()
    at_edge = closings.screened_at_edge(storage, study)
    missing = inventory.missing_instances((blob for blob, _ in objects), expected)
    latest = inventory.latest_review(storage, study)
    review = assemble(
        study_instance_uid=study,
        generation=latest.generation + 1 if latest else 1,
        supersedes=latest.generation if latest else None,
        slices=slices,
        missing=missing,
        screened_at_edge=at_edge,
        policy=policy,
        models=_models_used(registry, slices),
        content_digest=inventory.digest(objects, missing, at_edge),
        timings=_timings(request),
    )
    if latest is not None:
        review = _still_raised(latest, review)
    if latest is not None and _says_the_same(latest, review):
        review = latest
    else:
        try:
            inventory.write_review(storage, review)
        except Conflict:
            # This activity ran twice at once and the other run wrote first: it says the same.
            return assess(storage, request, registry=registry, policy=policy)
    return Assessment(
        study=study,
        generation=review.generation,
        status=review.status,
        lanes=review.lanes,
        findings=len(review.findings),
        content_digest=review.content_digest,
        objects=len(objects),
        assessed=datetime.now(UTC).isoformat(),
    )


RAISED_EARLIER = "raised-by-earlier-generation"


def _still_raised(latest: Review, review: Review) -> Review:
    """Flagging only raises a study: a lane, and its priority, stay in later generations, whatever
    came or whichever models and policy look now. A person takes them off, by deciding.
    """
    lanes = {flag.lane: flag for flag in review.lanes}
    for flag in latest.lanes:
        now = lanes.get(flag.lane)
        if now is None:
            rules = tuple(dict.fromkeys((*flag.rules, RAISED_EARLIER)))
            lanes[flag.lane] = dataclasses.replace(flag, rules=rules)
        elif now.priority < flag.priority:
            lanes[flag.lane] = dataclasses.replace(
                now,
                priority=flag.priority,
                rules=tuple(dict.fromkeys((*now.rules, RAISED_EARLIER))),
            )
    if not lanes:
        return review
    ordered = tuple(sorted(lanes.values(), key=lambda flag: flag.lane))
    return dataclasses.replace(review, lanes=ordered, status=StudyStatus.FLAGGED)


def _says_the_same(one: Review, other: Review) -> bool:
    def said(review: Review) -> Review:
        return dataclasses.replace(review, generation=0, supersedes=None, timings={})

    return said(one) == said(other)


def _models_used(registry: Registry, slices: list[SliceResult]) -> tuple[ModelUse, ...]:
    screened = [one for one in slices if one.outcome is Outcome.SCREENED]
    counts = Counter(one.model for one in screened)
    return tuple(
        ModelUse(
            name=model.name,
            version=model.version,
            sha256=model.sha256,
            threshold=model.threshold,
            slices=counts[model.key],
            series=tuple(
                sorted({one.series_instance_uid for one in screened if one.model == model.key})
            ),
        )
        for model in registry.models
        if counts[model.key]
    )


def _timings(request: AssessRequest) -> dict[str, Any]:
    """Times as the orchestration saw them, UTC, and the seconds between them."""
    started, last, screened = (
        datetime.fromisoformat(text).replace(tzinfo=UTC)
        for text in (request.started, request.last_arrival, request.screened)
    )
    assessed = datetime.now(UTC)
    return {
        "started": started.isoformat(),
        "last_arrival": last.isoformat(),
        "screened": screened.isoformat(),
        "assessed": assessed.isoformat(),
        "receiving_s": round((last - started).total_seconds(), 3),
        "screening_after_last_arrival_s": round((screened - last).total_seconds(), 3),
        "assessing_s": round((assessed - screened).total_seconds(), 3),
        "forced": request.forced,
    }
