"""``study_close``: the sender says that a study is complete."""

from __future__ import annotations

import json
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from slicewatch import closings, inventory, settings, storage, unfinished
from slicewatch.identity import Role
from slicewatch.records import EdgeScreening
from triggers import access
from triggers.admission import ensure_review, start_review, tell_review
from triggers.responses import (
    Problem,
    answers_problems,
    as_json,
    plain_body,
    study_of,
    unknown_study,
)

bp = df.Blueprint()

_MAX_BYTES = 16 << 20
_KEYS = {"instances", "screened_at_edge"}


@bp.route("studies/{study}/close", methods=["POST"])
@bp.durable_client_input(client_name="client")
@answers_problems
def study_close(req: func.HttpRequest, client: df.SyncDurableFunctionsClient) -> func.HttpResponse:
    """End the waiting for more of the study.

    Body: none, or ``{"instances": [SOPInstanceUID, …]}``: what was sent, so that what is missing
    can be told. An edge agent that screened them adds ``"screened_at_edge": [{"outcome",
    "whereabouts", "instances", "model", "model_sha256", "threshold", "detections"}, …]``, see
    `slicewatch.records.EdgeScreening`. 202: noted; 400: a malformed UID or body; 404: nothing of
    the study was received; 413: too large.
    """
    access.require(req, Role.UPLOADER)
    study = study_of(req)
    expected, at_edge = _said(plain_body(req))
    store, config = storage.current(), settings.current()
    received = inventory.received(store, study)
    if not received:
        raise unknown_study()
    closings.close_study(store, study, expected, at_edge)
    listed = closings.expected_instances(store, study) or ()
    missing = inventory.missing_instances((blob.name for blob in received), listed)
    # A review may be out that did not know of the list: marked unfinished, it is made again.
    unfinished.open_study(store, study)
    running = ensure_review(client, config, study)
    if running is not None and not tell_review(client, study, "close"):
        start_review(client, config, study)
    return as_json(
        {"study": study, "closed": True, "received": len(received), "missing": len(missing)}, 202
    )


def _said(body: bytes) -> tuple[list[str] | None, tuple[EdgeScreening, ...]]:
    """The SOP instance UIDs that the body lists (``None`` without a list), and what an edge agent
    says of them.
    """
    if not body.strip():
        return None, ()
    if len(body) > _MAX_BYTES:
        raise Problem(
            413, "too-large", f"the body is over {_MAX_BYTES} bytes", "send SOP instance UIDs only"
        )
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise _bad_body("the body is not JSON") from None
    if not isinstance(given, dict) or not given.keys() <= _KEYS:
        raise _bad_body(f"the body is not an object with keys of {', '.join(sorted(_KEYS))}")
    instances = given.get("instances")
    try:
        return (
            None if instances is None else closings.read_instances(instances),
            closings.read_statement(given.get("screened_at_edge", [])),
        )
    except closings.BadClosing as error:
        raise _bad_body(str(error)) from None


def _bad_body(message: str) -> Problem:
    return Problem(
        400, "bad-body", message, 'send no body, or {"instances": ["SOPInstanceUID", …]}'
    )
