"""``wado_instance_metadata``: the attributes of an object (WADO-RS, PS3.18 section 10.4)."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch import holdings, settings, storage
from slicewatch.identity import Role
from slicewatch.limits import Limits
from slicewatch.media_types import DICOM_JSON, JSON
from triggers import access
from triggers.dicomweb import (
    accepted_by,
    answer,
    answers_dicomweb,
    logs_viewing,
    service_url,
    uids_of,
)

bp = df.Blueprint()


@bp.route("dicomweb/studies/{study}/series/{series}/instances/{instance}/metadata", methods=["GET"])
@answers_dicomweb
@logs_viewing
def wado_instance_metadata(req: func.HttpRequest) -> func.HttpResponse:
    """Send the attributes as DICOM JSON, with bulk data named by URI.

    200; 400: no UIDs; 404: nothing is held of it; 406: other than JSON; 413: too large.
    """
    from slicewatch import wado

    access.require(req, Role.READER)
    chosen = accepted_by(req).choose((DICOM_JSON, JSON))
    store = storage.current()
    held = holdings.held(store, *uids_of(req))
    config = settings.current()
    body = wado.metadata(store, held, service_url(req), config.max_request_bytes, Limits.of(config))
    return answer(body, chosen)
