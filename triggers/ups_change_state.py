"""``ups_change_state``: Change a workitem's state (UPS-RS, PS3.18 section 11.7)."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch import settings, storage
from triggers.workitems import answers_ups, done, payload_of, reviewed_uid, transaction_of
from triggers.worklist_decision import tell_decided

bp = df.Blueprint()


@bp.route("dicomweb/workitems/{workitem}/state", methods=["PUT"])
@bp.durable_client_input(client_name="client")
@answers_ups
def ups_change_state(
    req: func.HttpRequest, client: df.SyncDurableFunctionsClient
) -> func.HttpResponse:
    """Claim a workitem, complete it, or give it back.

    200; 400: no UID, no dataset, or another Transaction UID; 404: there is none; 409: its state
    does not allow the change. A Warning header says which, and what else there is to say.
    """
    from slicewatch import ups, workitems

    identity, uid = reviewed_uid(req)
    payload = payload_of(req)
    state = str(workitems.first(payload.get(workitems.STATE, {})))
    transaction = transaction_of(req, payload)
    item, said = ups.change_state(
        storage.current(), settings.current(), uid, state, transaction, identity
    )
    if item.state == "decided":
        tell_decided(client, item)
    return done(req, said)
