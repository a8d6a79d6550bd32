"""What the worklist's doors share: the item of the route, who may see it, a lost race."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import azure.functions as func

from slicewatch import settings, storage, worklist_order
from slicewatch.identity import Identity, Role
from slicewatch.records import Lane
from slicewatch.settings import Settings
from slicewatch.worklist import Item, ItemConflict, NoSuchItem, Reader
from triggers import access
from triggers.responses import Problem, as_json, plain_body

_MAX_BODY = 1 << 20
_ITEM = re.compile(r"study-[0-9a-f]{32}-\d{1,9}-(clinical|forensic)")


def as_body(item: Item, identity: Identity, now: datetime | None = None) -> dict[str, Any]:
    """An item as the API shows it to somebody; see `worklist_order.told`."""
    return worklist_order.told(item, identity.user, settings.current(), now or datetime.now(UTC))


def item_of(request: func.HttpRequest, identity: Identity) -> str:
    """The item id in the request's route. Raises `Problem` (404) for what can be none, and for
    an item of a lane that this identity does not see: nothing tells that it is there.
    """
    item = request.route_params.get("item") or ""
    found = _ITEM.fullmatch(item)
    if found is None or (found[1] == Lane.FORENSIC and not identity.sees_forensic):
        raise unknown_item()
    return item


def reviewed_item(request: func.HttpRequest, *others: Role) -> tuple[Identity, str]:
    """Who reviews the item of the route, and its id: they need the role of its lane, or one of
    `others`. Raises `Problem`: 503, 401, 403, 404.
    """
    identity = access.require(request, *access.REVIEWERS.values(), *others)
    item = item_of(request, identity)
    lane = Lane(item.rpartition("-")[2])
    return access.require(request, access.REVIEWERS[lane], *others), item


def body_object(request: func.HttpRequest, identity: Identity) -> dict[str, Any]:
    """The request's JSON object; empty without a body.

    Raises `Problem`: 400 for anything else, and for a `reader` who is not the one who asks; 413
    when too large.
    """
    body = plain_body(request)
    if len(body) > _MAX_BODY:
        raise Problem(
            413, "too-large", f"the body is over {_MAX_BODY} bytes", "shorten the comments"
        )
    try:
        given: Any = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise Problem(400, "bad-body", "the body is not a JSON object", "send a JSON object")
    if given.get("reader", identity.user) != identity.user:
        raise Problem(
            400,
            "another-reader",
            "`reader` is not who is signed in, and nobody acts for others",
            "leave `reader` out",
        )
    return given


def changed[T](identity: Identity, change: Callable[[], T]) -> T:
    """What a change gives. Raises `Problem`: 404 for no such item, 409 when its state
    does not allow the change, with the item as it stands.
    """
    try:
        return change()
    except NoSuchItem:
        raise unknown_item() from None
    except ItemConflict as error:
        raise Problem(
            409,
            error.code,
            str(error),
            "look at the item as it stands, in this answer, and go on from there",
            extra={"item": as_body(error.item, identity)},
        ) from error


def answer_change(
    request: func.HttpRequest,
    change: Callable[[storage.Storage, Settings, str, Reader], Item],
    *others: Role,
) -> func.HttpResponse:
    """Apply a change that needs the item and the reader alone, and answer with the item. `others`
    may, beside the lane's reviewers.
    """
    identity, item = reviewed_item(request, *others)
    body_object(request, identity)
    store, config = storage.current(), settings.current()
    reader = reader_of(identity)
    found = changed(identity, lambda: change(store, config, item, reader))
    return as_json(as_body(found, identity))


def reader_of(identity: Identity) -> Reader:
    """Who acts, as the worklist knows them."""
    return Reader(identity.user, identity.name, development=identity.development)


def unknown_item() -> Problem:
    """404: there is none, or none for who asks."""
    return Problem(
        404, "unknown-item", "the worklist has no such item", "take an id from GET worklist"
    )
