"""``worklist_correction``: a reader corrects a decision, which stays; a new entry follows it."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch import custody_record, settings, storage
from triggers.reporting import report_again
from triggers.responses import answers_problems, as_json
from triggers.worklist_decision import decision_of, refusing
from triggers.worklist_doors import as_body, body_object, changed, reader_of, reviewed_item

bp = df.Blueprint()


@bp.route("worklist/{item}/correction", methods=["POST"])
@bp.durable_client_input(client_name="client")
@answers_problems
def worklist_correction(
    req: func.HttpRequest, client: df.SyncDurableFunctionsClient
) -> func.HttpResponse:
    """Append a correction to a decided item.

    Body: as of a decision, and ``"reason"``. 200: ``{"item", "correction"}``; 400: a malformed
    body, an unknown finding, a box outside; 403: not the lane's reviewer; 404: no such item; 409:
    it is not decided.
    """
    from slicewatch import decision

    identity, name = reviewed_item(req)
    body = body_object(req, identity)
    with refusing():
        reason = decision.read_reason(body)
    del body["reason"]
    store, config = storage.current(), settings.current()
    said = decision_of(store, config, identity, name, body)
    item, made = changed(
        identity,
        lambda: custody_record.correct(
            store, config, name, reader_of(identity), said.to_json(), reason
        ),
    )
    report_again(client, store, config, item, made.number)
    return as_json({"item": as_body(item, identity), "correction": made.to_json()})
