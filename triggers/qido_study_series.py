"""``qido_study_series``: Search for a study's series (QIDO-RS, PS3.18 section 10.6)."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from triggers.dicomweb import answers_dicomweb
from triggers.qido import search

bp = df.Blueprint()


@bp.route("dicomweb/studies/{study}/series", methods=["GET"])
@answers_dicomweb
def qido_study_series(req: func.HttpRequest) -> func.HttpResponse:
    """Search for a study's series; see `triggers.qido.search`."""
    from slicewatch.qido import Level

    return search(req, Level.SERIES)
