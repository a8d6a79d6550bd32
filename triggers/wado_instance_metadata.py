"""``wado_instance_metadata``: the attributes of an object (WADO-RS, PS3.18 section 10.4)."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from triggers import wado
from triggers.dicomweb import answers_dicomweb, logs_viewing

bp = df.Blueprint()


@bp.route("dicomweb/studies/{study}/series/{series}/instances/{instance}/metadata", methods=["GET"])
@answers_dicomweb
@logs_viewing
def wado_instance_metadata(req: func.HttpRequest) -> func.HttpResponse:
    """Send the attributes as DICOM JSON, with bulk data named by URI.

    200; 400: no UIDs; 404: nothing is held of it; 406: other than JSON; 413: too large.
    """
    return wado.metadata(req)
