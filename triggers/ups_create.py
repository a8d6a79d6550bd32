"""``ups_create``: Create a workitem (UPS-RS, PS3.18 section 11.4)."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch.identity import Role
from triggers import access
from triggers.responses import Problem
from triggers.workitems import answers_ups

bp = df.Blueprint()


@bp.route("dicomweb/workitems", methods=["POST"])
@answers_ups
def ups_create(req: func.HttpRequest) -> func.HttpResponse:
    """Refuse: workitems come of reviews alone.

    403 in every case.
    """
    access.require(req, Role.READER)
    raise Problem(
        403,
        "not-created-here",
        "workitems are made by the review of a study alone",
        "store the study: when its review flags it, its workitem is there",
    )
