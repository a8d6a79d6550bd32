"""``wado_series``: Retrieve a series' objects as stored (WADO-RS, PS3.18 section 10.4)."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from triggers import wado
from triggers.dicomweb import answers_dicomweb, logs_viewing

bp = df.Blueprint()


@bp.route("dicomweb/studies/{study}/series/{series}", methods=["GET"])
@answers_dicomweb
@logs_viewing
def wado_series(req: func.HttpRequest) -> func.HttpResponse:
    """Send a series' objects, bytes unchanged, as ``multipart/related; type="application/dicom"``.

    200; 206: some are left out, in another transfer syntax than the request accepts; 400: no
    UIDs; 404: nothing is held of it; 406: nothing that the request accepts; 413: too large.
    """
    return wado.instances(req)
