"""``worklist``: the items that wait for a reader, most urgent first."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch import storage
from slicewatch import worklist as items
from slicewatch.identity import Role
from slicewatch.records import Lane
from triggers import access
from triggers.responses import Problem, answers_problems, as_json
from triggers.worklist_doors import as_body

bp = df.Blueprint()


@bp.route("worklist", methods=["GET"])
@answers_problems
def worklist(req: func.HttpRequest) -> func.HttpResponse:
    """List the worklist.

    Query: ``lane`` (clinical, forensic), ``state`` (open, claimed, decided, superseded; more than
    one separated by commas; open and claimed where it is left out). 400: neither of these.
    """
    identity = access.require(req, Role.READER)
    lane = req.params.get("lane")
    states = tuple(req.params.get("state", "open,claimed").split(","))
    if lane is not None and lane not in set(Lane):
        raise _bad_query("lane", lane, tuple(Lane))
    for state in states:
        if state not in items.STATES:
            raise _bad_query("state", state, items.STATES)
    found = items.listing(storage.current(), lane=Lane(lane) if lane else None, states=states)
    seen = [one for one in found if identity.sees_forensic or one.lane is not Lane.FORENSIC]
    return as_json({"items": [as_body(item) for item in seen]})


def _bad_query(key: str, value: str, known: tuple[str, ...]) -> Problem:
    return Problem(400, "bad-query", f"{key} is {value[:40]!r}", f"use one of {', '.join(known)}")
