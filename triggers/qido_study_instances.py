"""``qido_study_instances``: Search for a study's instances (QIDO-RS, PS3.18 section 10.6)."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from triggers.dicomweb import answers_dicomweb
from triggers.qido import search

bp = df.Blueprint()


@bp.route("dicomweb/studies/{study}/instances", methods=["GET"])
@answers_dicomweb
def qido_study_instances(req: func.HttpRequest) -> func.HttpResponse:
    """Search for a study's instances; see `triggers.qido.search`."""
    from slicewatch.qido import Level

    return search(req, Level.INSTANCE)
