"""``wado_frames_rendered``: a frame as a picture (WADO-RS, PS3.18 section 10.4)."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch import holdings, settings, storage
from slicewatch.identity import Role
from slicewatch.limits import Limits
from slicewatch.media_types import JPEG, PNG
from triggers import access
from triggers.dicomweb import accepted_by, answer, answers_dicomweb, logs_viewing, query_of, uids_of

bp = df.Blueprint()


@bp.route(
    "dicomweb/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/rendered",
    methods=["GET"],
)
@answers_dicomweb
@logs_viewing
def wado_frames_rendered(req: func.HttpRequest) -> func.HttpResponse:
    """Send one frame as JPEG or PNG; query ``window``, ``viewport``, ``quality``.

    200; 400: no UIDs, a bad parameter, or more than one frame; 404: no such object or frame; 406:
    another media type, or the frame cannot be decoded.
    """
    from slicewatch import dicom, rendering, wado

    access.require(req, Role.READER)
    chosen = accepted_by(req).choose((JPEG, PNG))
    asked = dict(query_of(req))
    wanted = rendering.parse(*(asked.get(key, "") for key in ("window", "viewport", "quality")))
    store = storage.current()
    (held,) = holdings.held(store, *uids_of(req))
    instance = dicom.read(holdings.read(store, held), Limits.of(settings.current()))
    numbers = wado.frame_numbers(req.route_params["frames"], instance.header.frames)
    if len(numbers) > 1:
        raise wado.BadFrameList("one frame is rendered at a time")
    return answer(rendering.render(instance, numbers[0], wanted, chosen), chosen)
