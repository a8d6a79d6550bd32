"""``worklist_decision``: a reader decides a claimed item, and the study's orchestration goes on."""

from __future__ import annotations

import logging
from typing import Any

import azure.durable_functions as df
import azure.functions as func
import grpc

from slicewatch import custody_record, inventory, settings, storage
from slicewatch import worklist as items
from slicewatch.plain_text import is_plain_text
from triggers.responses import Problem, answers_problems, as_json
from triggers.worklist_doors import as_body, body_object, changed, reviewed_item

bp = df.Blueprint()
_log = logging.getLogger(__name__)

VERDICTS = ("confirmed", "rejected", "changed")
_MAX_COMMENT = 4000
_MAX_FINDINGS = 500


@bp.route("worklist/{item}/decision", methods=["POST"])
@bp.durable_client_input(client_name="client")
@answers_problems
def worklist_decision(
    req: func.HttpRequest, client: df.SyncDurableFunctionsClient
) -> func.HttpResponse:
    """Decide an item that one has claimed; final.

    Body: ``{"reader": "…", "verdict": "confirmed" | "rejected" | "changed", "findings":
    {finding id: verdict}, "comment": "…"}``; the last two may be left out. 200: the item; 400: a
    malformed body or an unknown finding; 404: no such item; 409: it is not claimed by this reader,
    superseded, or decided otherwise, with the item as it stands.
    """
    identity, item_id = reviewed_item(req)
    body = body_object(req, identity)
    decision = _decision(body)
    store = storage.current()
    item = changed(lambda: items.get(store, item_id))
    _check_findings(store, item, decision["findings"])
    config, reader = settings.current(), items.Reader(identity.user, identity.name)
    item = changed(lambda: custody_record.decide(store, config, item.id, reader, decision))
    tell_decided(client, item)
    return as_json(as_body(item))


def _decision(body: dict[str, Any]) -> dict[str, Any]:
    verdict, findings = body.get("verdict"), body.get("findings", {})
    comment = body.get("comment", "")
    if verdict not in VERDICTS:
        raise _bad("`verdict` is missing or unknown")
    if not isinstance(findings, dict) or any(one not in VERDICTS for one in findings.values()):
        raise _bad("`findings` does not map finding ids to verdicts")
    if len(findings) > _MAX_FINDINGS:
        raise _bad(f"`findings` names more than {_MAX_FINDINGS}")
    if not isinstance(comment, str) or len(comment) > _MAX_COMMENT or not is_plain_text(comment):
        raise _bad(f"`comment` is no plain text of at most {_MAX_COMMENT} characters")
    return {"verdict": verdict, "findings": findings, "comment": comment}


def _bad(message: str) -> Problem:
    return Problem(400, "bad-decision", message, f"use the verdicts {', '.join(VERDICTS)}")


def _check_findings(store: storage.Storage, item: items.Item, findings: dict[str, str]) -> None:
    review = inventory.read_review(store, item.study, item.generation)
    unknown = sorted(findings.keys() - {finding.id for finding in review.findings})
    if unknown:
        raise Problem(
            400,
            "unknown-finding",
            f"the review has no finding {unknown[0][:64]!r}",
            "take finding ids from the study's review",
        )


def tell_decided(client: df.SyncDurableFunctionsClient, item: items.Item) -> None:
    """Raise the event. The decision stands without it: the orchestration looks at its items when
    their time runs out, and the sweep starts one that is gone.
    """
    try:
        client.raise_orchestration_event(
            inventory.instance_id(item.study), "decision", data={"item": item.id}
        )
    except grpc.RpcError as error:
        _log.warning("the decision of %s waits for the sweep: %s", item.id, error.code().name)
