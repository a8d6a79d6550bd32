"""``study_status``: where a study stands, and what its latest review says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import azure.durable_functions as df
import azure.functions as func
from durabletask.client import OrchestrationState

from slicewatch import inventory, settings, storage, unfinished, worklist
from slicewatch.identity import Role
from slicewatch.records import Lane, Review, StudyStatus
from slicewatch.reporting import stored
from triggers import access
from triggers.admission import is_known, progress_of
from triggers.responses import answers_problems, as_json, study_of, unknown_study

bp = df.Blueprint()


@bp.route("studies/{study}", methods=["GET"])
@bp.durable_client_input(client_name="client")
@answers_problems
def study_status(req: func.HttpRequest, client: df.SyncDurableFunctionsClient) -> func.HttpResponse:
    """Status, progress and the summary of the latest review.

    ``status`` is the orchestration's while there is one, else the review's; of a flagged study,
    how far its readers are; ``failure`` says when a failed one is tried again; ``report`` what was
    made of the review for other systems, and what the PACS said of it. Of the forensic
    lane nothing is told to those who do not see it, so they are not told of the orchestration,
    which waits for that lane, too. 404: nothing of the study was received.
    """
    from slicewatch.visibility import shown

    identity = access.require(req, Role.READER)
    study = study_of(req)
    store = storage.current()
    state = client.get_orchestration_state(inventory.instance_id(study))
    latest = inventory.latest_review(store, study)
    if state is None and latest is None and not is_known(store, study):
        raise unknown_study()
    review = shown(latest, identity) if latest else None
    progress = _progress(progress_of(state), latest, review)
    status = _standing(store, study, progress, latest, review)
    if progress and _is_part(review, latest):
        progress["status"] = StudyStatus.FLAGGED if status is StudyStatus.IN_REVIEW else status
    return as_json(
        {
            "study": study,
            "status": status,
            "failure": _failure(store, study) if status is StudyStatus.FAILED else None,
            "progress": progress or None,
            # It runs for as long as an item waits, of whatever lane.
            "orchestration": _orchestration(state) if identity.sees_forensic else None,
            "review": _summary(review),
            "report": stored.standing(store, study, review.generation) if review else None,
        }
    )


_FINISHED = (
    StudyStatus.NOT_FLAGGED,
    StudyStatus.NOT_SCREENED,
    StudyStatus.INCOMPLETE,
    StudyStatus.REVIEWED,
)


def _progress(
    progress: dict[str, Any], latest: Review | None, review: Review | None
) -> dict[str, Any]:
    """The progress, in step with what is shown of the latest review."""
    if not progress or latest is None or review is None or not _is_part(review, latest):
        return progress
    kept = {
        "lanes": [lane for lane in progress.get("lanes", ()) if lane != Lane.FORENSIC],
        "priority": review.priority,
    }
    if not review.lanes and progress.get("status") in (StudyStatus.FLAGGED, StudyStatus.REVIEWED):
        kept["status"] = review.status
    return progress | kept


def _is_part(review: Review | None, latest: Review | None) -> bool:
    """Whether what is shown of the latest review leaves a lane out."""
    return review is not None and latest is not None and review.lanes != latest.lanes


def _standing(
    store: storage.Storage,
    study: str,
    progress: dict[str, Any],
    latest: Review | None,
    review: Review | None,
) -> StudyStatus:
    status = StudyStatus(progress.get("status") or (review.status if review else "receiving"))
    if status in _FINISHED and _is_ahead(store, study, latest, review):
        return StudyStatus.RECEIVING
    if status is not StudyStatus.FLAGGED or review is None:
        return status
    # The items know more than an orchestration whose event is on its way, or that is long gone.
    instance = inventory.instance_id(review.study_instance_uid)
    items = worklist.of_review(store, review, instance)
    states = {item.state for item in items}
    if states == {"decided"}:
        return StudyStatus.REVIEWED
    begun = states & {"claimed", "decided"} or any(item.read for item in items)
    return StudyStatus.IN_REVIEW if begun else status


def _orchestration(state: OrchestrationState | None) -> dict[str, Any] | None:
    if state is None:
        return None
    return {
        "instance_id": state.instance_id,
        "runtime_status": state.runtime_status.name.lower(),
        "created": _utc(state.created_at),
        "updated": _utc(state.last_updated_at),
    }


def _is_ahead(
    store: storage.Storage, study: str, latest: Review | None, review: Review | None
) -> bool:
    """Whether something came that no review has seen: the old one must not speak for it."""
    if not unfinished.is_open(store, study):
        return False
    if latest is None or not _is_part(review, latest):
        return True
    # What waits in the lane that is left out keeps the study unfinished, too.
    return not inventory.covers(store, study, latest.content_digest)


def _utc(moment: datetime) -> str:
    """A time of the durable engine, which counts in UTC and does not say so."""
    return moment.replace(tzinfo=UTC).isoformat()


def _failure(store: storage.Storage, study: str) -> dict[str, Any] | None:
    """How often the study failed in a row, and when the sweep starts it again; ``None`` before the
    sweep has seen that it failed.
    """
    failure = unfinished.failure_of(store, study)
    if failure is None:
        return None
    next_attempt = failure.due(settings.current().failed_study_pause_s)
    return {
        "attempts": failure.attempts,
        "last": failure.last.isoformat(),
        "next_attempt": next_attempt.isoformat(),
    }


def _summary(review: Review | None) -> dict[str, Any] | None:
    """The review without its lists of slices, which grow with the study."""
    if review is None:
        return None
    coverage = review.coverage
    return {
        "generation": review.generation,
        "supersedes": review.supersedes,
        "status": review.status,
        "priority": review.priority,
        "lanes": [flag.to_json() for flag in review.lanes],
        "coverage": {
            "received_objects": coverage.received_objects,
            "images": coverage.images,
            "screened": coverage.screened,
            "not_screened": sum(one.count for one in coverage.not_screened),
            "rejected": sum(one.count for one in coverage.rejected),
            "missing": len(coverage.missing),
            "held_at_edge": len(coverage.held_at_edge),
            "screened_at_edge": sum(len(one.instances) for one in coverage.screened_at_edge),
        },
        "findings": [
            {
                "id": finding.id,
                "label": finding.label,
                "score": finding.score,
                "series": finding.series_instance_uid,
                "slices": len(finding.slices),
                "centre_mm": finding.centre_mm,
                "extent_mm": finding.extent_mm,
            }
            for finding in review.findings
        ],
        "integrity": [
            {"code": issue.code, "severity": issue.severity, "explanation": issue.explanation}
            for issue in review.integrity
        ],
        "models": [f"{model.name}@{model.version}" for model in review.models],
        "policy": {"name": review.policy_name, "sha256": review.policy_sha256},
        "timings": review.timings,
        "disclaimer": review.disclaimer,
    }
