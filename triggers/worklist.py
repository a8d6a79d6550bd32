"""``worklist``: the items that wait for a reader, in the order in which they are to be read."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import azure.durable_functions as df
import azure.functions as func

from slicewatch import settings, storage
from slicewatch import worklist as items
from slicewatch.identity import Identity, Role
from slicewatch.records import Lane
from triggers import access
from triggers.responses import Problem, answers_problems
from triggers.worklist_doors import as_body

bp = df.Blueprint()

_LIMIT = 500
_MAX_LIMIT = 10_000


@bp.route("worklist", methods=["GET"])
@answers_problems
def worklist(req: func.HttpRequest) -> func.HttpResponse:
    """List the worklist; see `slicewatch.worklist_order` for the order.

    Query: ``lane`` (clinical, forensic), ``state`` (open, claimed, decided, superseded; more than
    one separated by commas; open and claimed where it is left out), ``limit`` (500). 200:
    ``{"items", "total", "now"}`` with an ETag, `total` counting what the limit left out, too; 304
    where it is the one of If-None-Match; 400: none of these. Who does not see the forensic lane
    gets an empty list of it.
    """
    from slicewatch import worklist_index

    identity = access.require(req, Role.READER)
    now = datetime.now(UTC)
    found = worklist_index.in_order(
        storage.current(),
        settings.current(),
        now,
        lanes=_lanes(req, identity),
        states=_states(req),
    )
    body = {
        "items": [as_body(item, identity, now) for item in found[: _limit(req)]],
        "total": len(found),
    }
    text = json.dumps(body, separators=(",", ":"))
    # Whose item it is depends on who asks, so a shared cache must not answer.
    etag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if etag in (one.strip() for one in req.headers.get("If-None-Match", "").split(",")):
        return func.HttpResponse(status_code=304, headers=headers)
    told = f'{text[:-1]},"now":"{now.isoformat(timespec="milliseconds")}"}}'
    return func.HttpResponse(told, mimetype="application/json", headers=headers)


def _lanes(req: func.HttpRequest, identity: Identity) -> set[Lane]:
    lane = req.params.get("lane")
    if lane is not None and lane not in set(Lane):
        raise _bad_query("lane", lane, f"one of {', '.join(Lane)}")
    asked = set(Lane) if lane is None else {Lane(lane)}
    return asked if identity.sees_forensic else asked - {Lane.FORENSIC}


def _states(req: func.HttpRequest) -> tuple[str, ...]:
    states = tuple(req.params.get("state", ",".join(items.WAITING)).split(","))
    for state in states:
        if state not in items.STATES:
            raise _bad_query("state", state, f"one of {', '.join(items.STATES)}")
    return states


def _limit(req: func.HttpRequest) -> int:
    text = req.params.get("limit", str(_LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) <= _MAX_LIMIT):
        raise _bad_query("limit", text, f"a number from 1 to {_MAX_LIMIT}")
    return int(text)


def _bad_query(key: str, value: str, expected: str) -> Problem:
    return Problem(400, "bad-query", f"{key} is {value[:40]!r}", f"use {expected}")
