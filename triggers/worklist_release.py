"""``worklist_release``: a reader gives a claimed item back."""

from __future__ import annotations

import azure.functions as func

from slicewatch import storage
from slicewatch import worklist as items
from triggers.responses import answers_problems, as_json
from triggers.worklist_items import (
    as_body,
    body_object,
    conflict,
    item_of,
    reader_of,
    unknown_item,
)

bp = func.Blueprint()


@bp.route("worklist/{item}/release", methods=["POST"])
@answers_problems
def worklist_release(req: func.HttpRequest) -> func.HttpResponse:
    """Give one's claimed item back.

    Body: ``{"reader": "…"}``. 200: the item; 400: no reader; 404: no such item; 409: its state
    does not allow it, with the item as it stands.
    """
    reader = reader_of(body_object(req))
    try:
        item = items.release(storage.current(), item_of(req), reader)
    except items.NoSuchItem as error:
        raise unknown_item(error) from error
    except items.ItemConflict as error:
        raise conflict(error) from error
    return as_json(as_body(item))
