"""``ups_request_cancellation``: Ask to cancel a workitem (UPS-RS, PS3.18 section 11.8)."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch import storage
from slicewatch.identity import Role
from triggers import access
from triggers.workitems import answers_ups, done, seen_uid

bp = df.Blueprint()


@bp.route("dicomweb/workitems/{workitem}/cancelrequest", methods=["POST"])
@answers_ups
def ups_request_cancellation(req: func.HttpRequest) -> func.HttpResponse:
    """Refuse: nothing takes a flagged study off the worklist but a decision or a newer review.

    202: it is CANCELED already; 400: no UID; 404: there is none; 409: always else.
    """
    from slicewatch import ups

    uid = seen_uid(req, access.require(req, Role.READER))
    said = ups.request_cancellation(storage.current(), uid)
    return done(req, said, 202)
