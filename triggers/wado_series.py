"""``wado_series``: Retrieve a series' objects as stored (WADO-RS, PS3.18 section 10.4)."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch import holdings, settings, storage
from slicewatch.identity import Role
from triggers import access
from triggers.dicomweb import accepted_by, answer, answers_dicomweb, logs_viewing, uids_of

bp = df.Blueprint()


@bp.route("dicomweb/studies/{study}/series/{series}", methods=["GET"])
@answers_dicomweb
@logs_viewing
def wado_series(req: func.HttpRequest) -> func.HttpResponse:
    """Send a series' objects, bytes unchanged, as ``multipart/related; type="application/dicom"``.

    200; 206: some are left out, in another transfer syntax than the request accepts; 400: no
    UIDs; 404: nothing is held of it; 406: nothing that the request accepts; 413: too large.
    """
    from slicewatch import wado

    access.require(req, Role.READER)
    accepted, store = accepted_by(req), storage.current()
    held = holdings.held(store, *uids_of(req))
    body, content_type, partial = wado.instances(
        store, held, accepted, settings.current().max_request_bytes
    )
    return answer(body, content_type, 206 if partial else 200)
