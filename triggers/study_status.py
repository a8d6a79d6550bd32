"""``study_status``: where a study stands, and what its latest review says."""

from __future__ import annotations

from typing import Any

import azure.durable_functions as df
import azure.functions as func
from durabletask.client import OrchestrationState

from slicewatch import inventory, storage, worklist
from slicewatch.records import Review, StudyStatus
from triggers.admission import is_known, progress_of
from triggers.responses import answers_problems, as_json, study_of, unknown_study

bp = df.Blueprint()


@bp.route("studies/{study}", methods=["GET"])
@bp.durable_client_input(client_name="client")
@answers_problems
def study_status(req: func.HttpRequest, client: df.SyncDurableFunctionsClient) -> func.HttpResponse:
    """Status, progress and the summary of the latest review.

    ``status`` is the orchestration's while there is one, else the review's; of a flagged study,
    how far its readers are. 404: nothing of the study was received.
    """
    study = study_of(req)
    store = storage.current()
    state = client.get_orchestration_state(inventory.instance_id(study))
    review = inventory.latest_review(store, study)
    if state is None and review is None and not is_known(store, study):
        raise unknown_study()
    progress = progress_of(state)
    return as_json(
        {
            "study": study,
            "status": _standing(store, study, progress, review),
            "progress": progress or None,
            "orchestration": _orchestration(state),
            "review": _summary(review),
        }
    )


_FINISHED = (
    StudyStatus.NOT_FLAGGED,
    StudyStatus.NOT_SCREENED,
    StudyStatus.INCOMPLETE,
    StudyStatus.REVIEWED,
)


def _standing(
    store: storage.Storage, study: str, progress: dict[str, Any], review: Review | None
) -> StudyStatus:
    status = StudyStatus(progress.get("status") or (review.status if review else "receiving"))
    if status in _FINISHED and inventory.is_open(store, study):
        # Something came that no review has seen: the old one must not speak for it.
        return StudyStatus.RECEIVING
    if status is not StudyStatus.FLAGGED or review is None:
        return status
    # The items know more than an orchestration whose event is on its way, or that is long gone.
    instance = inventory.instance_id(review.study_instance_uid)
    states = {item.state for item in worklist.of_review(store, review, instance)}
    if states == {"decided"}:
        return StudyStatus.REVIEWED
    return StudyStatus.IN_REVIEW if states & {"claimed", "decided"} else status


def _orchestration(state: OrchestrationState | None) -> dict[str, Any] | None:
    if state is None:
        return None
    return {
        "instance_id": state.instance_id,
        "runtime_status": state.runtime_status.name.lower(),
        "created": state.created_at.isoformat(),
        "updated": state.last_updated_at.isoformat(),
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
