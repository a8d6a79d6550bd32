"""``wado_frames``: Retrieve frames of an object (WADO-RS, PS3.18 section 10.4)."""

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
    "dicomweb/studies/{study}/series/{series}/instances/{instance}/frames/{frames}", methods=["GET"]
)
@answers_dicomweb
@logs_viewing
def wado_frames(req: func.HttpRequest) -> func.HttpResponse:
    """Send frames as uncompressed pixel data, little endian, ``application/octet-stream``.

    200; 400: no UIDs, or the frame list is malformed; 404: no such object or frame; 406: another
    media type, or the frames cannot be decoded; 413: too large.
    """
    from slicewatch import dicom, wado

    access.require(req, Role.READER)
    accepted, store, config = accepted_by(req), storage.current(), settings.current()
    study, series, uid = uids_of(req)
    data = holdings.read_instance(store, study, series, uid)
    instance = dicom.read(data, Limits.of(config))
    numbers = wado.frame_numbers(req.route_params["frames"], instance.header.frames)
    return answer(*wado.frames(instance, numbers, accepted, config.max_request_bytes))
