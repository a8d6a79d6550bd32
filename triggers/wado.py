"""What the doors of WADO-RS share (PS3.18 section 10.4): they differ by how much the path names."""

from __future__ import annotations

import azure.functions as func

from slicewatch import holdings, settings, storage
from slicewatch.identity import Role
from slicewatch.limits import Limits
from slicewatch.media_types import DICOM_JSON, JSON
from triggers import access
from triggers.dicomweb import accepted_by, answer, service_url, uids_of


def metadata(req: func.HttpRequest) -> func.HttpResponse:
    """The attributes, as DICOM JSON, of what the path names."""
    from slicewatch import wado

    access.require(req, Role.READER)
    chosen = accepted_by(req).choose((DICOM_JSON, JSON))
    store = storage.current()
    held = holdings.held(store, *uids_of(req))
    config = settings.current()
    body = wado.metadata(store, held, service_url(req), config.max_request_bytes, Limits.of(config))
    return answer(body, chosen)


def instances(req: func.HttpRequest) -> func.HttpResponse:
    """The objects that the path names, bytes unchanged; 206 where some are left out."""
    from slicewatch import wado

    access.require(req, Role.READER)
    accepted, store = accepted_by(req), storage.current()
    held = holdings.held(store, *uids_of(req))
    body, content_type, partial = wado.instances(
        store, held, accepted, settings.current().max_request_bytes
    )
    return answer(body, content_type, 206 if partial else 200)
