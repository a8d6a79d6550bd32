"""``worklist_decision``: a reader decides a claimed item, and the study's orchestration goes on."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import azure.durable_functions as df
import azure.functions as func
import grpc

from slicewatch import custody_record, holdings, inventory, settings, storage
from slicewatch import worklist as items
from slicewatch.identity import Identity
from slicewatch.limits import Limits
from slicewatch.settings import Settings
from triggers.responses import Problem, answers_problems, as_json
from triggers.worklist_doors import as_body, body_object, changed, reader_of, reviewed_item

if TYPE_CHECKING:
    from slicewatch.decision import Decision, FrameSizes

bp = df.Blueprint()
_log = logging.getLogger(__name__)

_REMEDIES = {
    "bad-decision": "see docs/worklist.md for what a decision says",
    "unknown-finding": "take finding ids from the item's review",
    "box-outside": "draw boxes within a frame of the study, in pixels of the source frame",
    "comment-too-long": "shorten the comment",
    "decision-too-large": "draw fewer boxes, or shorten the comments",
}


@bp.route("worklist/{item}/decision", methods=["POST"])
@bp.durable_client_input(client_name="client")
@answers_problems
def worklist_decision(
    req: func.HttpRequest, client: df.SyncDurableFunctionsClient
) -> func.HttpResponse:
    """Decide an item that one has claimed; final.

    Body: ``{"verdict", "findings", "additions", "comment"}``, see docs/worklist.md; the same once
    more is fine. 200: the item, which is decided, or open for its next reader; 400: a malformed
    body, an unknown finding, a box outside its frame; 403: not the lane's reviewer; 404: no such
    item; 409: it is not claimed by this reader, superseded, or decided otherwise, with the item
    as it stands.
    """
    identity, name = reviewed_item(req)
    body = body_object(req, identity)
    store, config = storage.current(), settings.current()
    said = decision_of(store, config, identity, name, body)
    item = changed(
        identity,
        lambda: custody_record.decide(store, config, name, reader_of(identity), said.to_json()),
    )
    if item.state == "decided":
        tell_decided(client, item)
    return as_json(as_body(item, identity))


def decision_of(
    store: storage.Storage, config: Settings, identity: Identity, name: str, body: dict[str, Any]
) -> Decision:
    """The decision in a body, checked against the item's review and its study's images.

    Raises `Problem`: 400, 404, 413.
    """
    from slicewatch import decision

    item = changed(identity, lambda: items.get(store, name))
    review = inventory.read_review(store, item.study, item.generation)
    with refusing():
        return decision.read(
            body,
            {finding.id for finding in review.findings},
            _frame_sizes(store, config, item.study),
        )


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Answer what is wrong with a decision as a `Problem`."""
    from slicewatch.decision import BadDecision

    try:
        yield
    except BadDecision as error:
        status = 413 if error.code == "decision-too-large" else 400
        raise Problem(status, error.code, str(error), _REMEDIES[error.code]) from None


def _frame_sizes(store: storage.Storage, config: Settings, study: str) -> FrameSizes:
    """Rows, columns and frames of the study's images, as they were noted at arrival; the study is
    listed when the first is asked for.
    """
    from slicewatch import catalogue

    known: dict[str, holdings.Held] = {}

    def sizes(instance: str) -> tuple[int, int, int] | None:
        if not known:
            known.update({one.instance: one for one in holdings.originals(store, study)})
        if instance not in known:
            return None
        told = catalogue.instance_attributes(store, known[instance], Limits.of(config))
        rows, columns, frames = (
            int(told.get(tag, {}).get("Value", [0])[0])
            for tag in ("00280010", "00280011", "00280008")
        )
        return (rows, columns, max(1, frames)) if rows and columns else None

    return sizes


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
