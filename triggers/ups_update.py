"""``ups_update``: Update a workitem (UPS-RS, PS3.18 section 11.6)."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch import storage
from triggers.workitems import answers_ups, done, payload_of, reviewed_uid, transaction_of

bp = df.Blueprint()


@bp.route("dicomweb/workitems/{workitem}", methods=["POST"])
@answers_ups
def ups_update(req: func.HttpRequest) -> func.HttpResponse:
    """Keep what its performer tells of a workitem IN PROGRESS: progress, verdict, comment.

    200, with a Warning where attributes are not supported; 400: no UID, no dataset, or another
    Transaction UID; 404: there is none; 409: it is not claimed.
    """
    from slicewatch import ups

    identity, uid = reviewed_uid(req)
    payload = payload_of(req)
    transaction = transaction_of(req, payload)
    whole = ups.update(storage.current(), uid, transaction, identity.user, payload)
    return done(req, "" if whole else "Requested optional Attributes are not supported.")
