"""``wado_bulkdata``: Retrieve a binary value of an object (WADO-RS, PS3.18 section 10.4)."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch import holdings, settings, storage
from slicewatch.identity import Role
from slicewatch.limits import Limits
from triggers import access
from triggers.dicomweb import accepted_by, answer, answers_dicomweb, logs_viewing, uids_of

bp = df.Blueprint()


@bp.route(
    "dicomweb/studies/{study}/series/{series}/instances/{instance}/bulkdata/{*path}",
    methods=["GET"],
)
@answers_dicomweb
@logs_viewing
def wado_bulkdata(req: func.HttpRequest) -> func.HttpResponse:
    """Send a value that the object's metadata name by BulkDataURI, ``application/octet-stream``.

    200; 400: no UIDs; 404: no such object or value; 406: another media type; 413: too large.
    """
    from slicewatch import wado

    access.require(req, Role.READER)
    accepted, store, config = accepted_by(req), storage.current(), settings.current()
    (held,) = holdings.held(store, *uids_of(req))
    data, path = holdings.read(store, held), req.route_params.get("path") or ""
    limits = Limits.of(config)
    return answer(*wado.bulk_data(data, path, accepted, config.max_request_bytes, limits))
