"""``ups_retrieve``: Retrieve a workitem (UPS-RS, PS3.18 section 11.5)."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch import storage
from slicewatch.identity import Role
from slicewatch.media_types import DICOM_JSON, JSON
from triggers import access
from triggers.dicomweb import accepted_by, answer, service_url
from triggers.workitems import answers_ups, seen_uid

bp = df.Blueprint()


@bp.route("dicomweb/workitems/{workitem}", methods=["GET"])
@answers_ups
def ups_retrieve(req: func.HttpRequest) -> func.HttpResponse:
    """Send a workitem as DICOM JSON.

    200; 400: no UID; 404: there is none; 406: other than JSON.
    """
    from slicewatch import dicom_json, ups, workitems

    uid = seen_uid(req, access.require(req, Role.READER))
    chosen = accepted_by(req).choose((DICOM_JSON, JSON))
    store = storage.current()
    item = ups.get(store, uid)
    found = workitems.workitem(item, service_url(req), ups.told_of(store, item))
    return answer(dicom_json.dumps([found]), chosen)
