"""``study_close``: the sender says that a study is complete."""

from __future__ import annotations

import json
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from slicewatch import inventory, settings, storage, unfinished
from slicewatch.identity import Role
from slicewatch.uids import is_uid
from triggers import access
from triggers.admission import ensure_review, start_review, tell_review
from triggers.responses import Problem, answers_problems, as_json, study_of, unknown_study

bp = df.Blueprint()

_MAX_BYTES = 16 << 20
_MAX_INSTANCES = 200_000


@bp.route("studies/{study}/close", methods=["POST"])
@bp.durable_client_input(client_name="client")
@answers_problems
def study_close(req: func.HttpRequest, client: df.SyncDurableFunctionsClient) -> func.HttpResponse:
    """End the waiting for more of the study.

    Body: none, or ``{"instances": [SOPInstanceUID, …]}``: what was sent, so that what is missing
    can be told. 202: noted; 400: a malformed UID or body; 404: nothing of the study was received;
    413: too large.
    """
    access.require(req, Role.UPLOADER)
    study = study_of(req)
    expected = _expected(req.get_body())
    store, config = storage.current(), settings.current()
    received = inventory.received(store, study)
    if not received:
        raise unknown_study()
    inventory.close_study(store, study, expected)
    listed = inventory.expected_instances(store, study) or ()
    missing = inventory.missing_instances((blob.name for blob in received), listed)
    # A review may be out that did not know of the list: marked unfinished, it is made again.
    unfinished.open_study(store, study)
    running = ensure_review(client, config, study)
    if running is not None and not tell_review(client, study, "close"):
        start_review(client, config, study)
    return as_json(
        {"study": study, "closed": True, "received": len(received), "missing": len(missing)}, 202
    )


def _expected(body: bytes) -> list[str] | None:
    """The SOP instance UIDs that the body lists; ``None`` without a list."""
    if not body.strip():
        return None
    if len(body) > _MAX_BYTES:
        raise Problem(
            413, "too-large", f"the body is over {_MAX_BYTES} bytes", "send SOP instance UIDs only"
        )
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise _bad_body("the body is not JSON") from None
    if not isinstance(given, dict) or not given.keys() <= {"instances"}:
        raise _bad_body("the body is not an object with the one key `instances`")
    instances = given.get("instances")
    if instances is None:
        return None
    if not isinstance(instances, list) or len(instances) > _MAX_INSTANCES:
        raise _bad_body(f"`instances` is not a list of at most {_MAX_INSTANCES}")
    for position, one in enumerate(instances):
        if not isinstance(one, str) or not is_uid(one):
            raise _bad_body(f"`instances[{position}]` is not a UID")
    return instances


def _bad_body(message: str) -> Problem:
    return Problem(
        400, "bad-body", message, 'send no body, or {"instances": ["SOPInstanceUID", …]}'
    )
