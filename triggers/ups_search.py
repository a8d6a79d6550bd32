"""``ups_search``: Search for workitems (UPS-RS, PS3.18 section 11.9)."""

from __future__ import annotations

from functools import partial

import azure.durable_functions as df
import azure.functions as func

from slicewatch import settings, storage
from slicewatch.identity import Role
from slicewatch.records import Lane
from triggers import access
from triggers.qido import answer_search
from triggers.workitems import answers_ups

bp = df.Blueprint()


@bp.route("dicomweb/workitems", methods=["GET"])
@answers_ups
def ups_search(req: func.HttpRequest) -> func.HttpResponse:
    """Search for workitems, the most urgent first; see `triggers.qido.answer_search`."""
    from slicewatch import ups, workitems

    identity = access.require(req, Role.READER)
    lanes = tuple(Lane) if identity.sees_forensic else (Lane.CLINICAL,)
    find = partial(ups.search, storage.current(), settings.current(), lanes)
    return answer_search(req, workitems.KEYS, find)
