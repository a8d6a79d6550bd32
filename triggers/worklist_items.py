"""What the worklist's doors share: the item of the route, the reader of the body, a lost race."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import azure.functions as func

from slicewatch import settings, storage
from slicewatch.settings import Settings
from slicewatch.worklist import Item, ItemConflict, NoSuchItem
from triggers.responses import Problem, as_json, is_plain_text

_MAX_BODY = 1 << 20
_MAX_READER = 128
_ITEM = re.compile(r"study-[0-9a-f]{32}-\d{1,9}-(clinical|forensic)")


def as_body(item: Item) -> dict[str, Any]:
    """An item as the API shows it."""
    return {**item.to_json(), "urgency": item.urgency}


def item_of(request: func.HttpRequest) -> str:
    """The item id in the request's route. Raises `Problem` (404) for what can be none."""
    item = request.route_params.get("item") or ""
    if not _ITEM.fullmatch(item):
        raise _unknown_item()
    return item


def body_object(request: func.HttpRequest) -> dict[str, Any]:
    """The request's JSON object. Raises `Problem`: 400 for anything else, 413 when too large."""
    body = request.get_body()
    if len(body) > _MAX_BODY:
        raise Problem(
            413, "too-large", f"the body is over {_MAX_BODY} bytes", "shorten the comment"
        )
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise Problem(
            400, "bad-body", "the body is not a JSON object", 'send {"reader": "…"} as JSON'
        )
    return given


def reader_of(body: dict[str, Any]) -> str:
    """Who acts. Raises `Problem` (400) when the body does not say."""
    reader = body.get("reader")
    if (
        not isinstance(reader, str)
        or not reader.strip()
        or len(reader) > _MAX_READER
        or not is_plain_text(reader)
    ):
        raise Problem(
            400,
            "no-reader",
            f"`reader` is missing, empty, over {_MAX_READER} characters, or no plain text",
            'say who acts: {"reader": "…"}',
        )
    return reader.strip()


def changed(change: Callable[[], Item]) -> Item:
    """The item that a change gives. Raises `Problem`: 404 for no such item, 409 when its state
    does not allow the change, with the item as it stands.
    """
    try:
        return change()
    except NoSuchItem:
        raise _unknown_item() from None
    except ItemConflict as error:
        raise Problem(
            409,
            f"item-{error.item.state}",
            str(error),
            "look at the item as it stands, in this answer, and go on from there",
            extra={"item": as_body(error.item)},
        ) from error


def answer_change(
    request: func.HttpRequest, change: Callable[[storage.Storage, Settings, str, str], Item]
) -> func.HttpResponse:
    """Apply a change that needs the item and the reader alone, and answer with the item."""
    reader = reader_of(body_object(request))
    store, config = storage.current(), settings.current()
    return as_json(as_body(changed(lambda: change(store, config, item_of(request), reader))))


def _unknown_item() -> Problem:
    return Problem(
        404, "unknown-item", "the worklist has no such item", "take an id from GET worklist"
    )
