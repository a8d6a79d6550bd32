"""``wado_instance``: Retrieve an object as stored (WADO-RS, PS3.18 section 10.4)."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from triggers import wado
from triggers.dicomweb import answers_dicomweb, logs_viewing

bp = df.Blueprint()


@bp.route("dicomweb/studies/{study}/series/{series}/instances/{instance}", methods=["GET"])
@answers_dicomweb
@logs_viewing
def wado_instance(req: func.HttpRequest) -> func.HttpResponse:
    """Send an object, bytes unchanged, bare or as ``multipart/related``.

    200; 400: no UIDs; 404: it is not held; 406: nothing that the request accepts; 413: too large.
    """
    return wado.instances(req)
