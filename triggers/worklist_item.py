"""``worklist_item``: one item, with the review that it is of and what readers said."""

from __future__ import annotations

from typing import Any

import azure.durable_functions as df
import azure.functions as func

from slicewatch import custody_record, inventory, settings, storage
from slicewatch import worklist as items
from slicewatch.identity import Role
from slicewatch.worklist import Item
from triggers import access
from triggers.responses import answers_problems, as_json
from triggers.worklist_doors import as_body, changed, item_of

bp = df.Blueprint()


@bp.route("worklist/{item}", methods=["GET"])
@answers_problems
def worklist_item(req: func.HttpRequest) -> func.HttpResponse:
    """Open an item.

    200: ``{"item", "review", "readings", "corrections", "superseded_by"}``: the review of the
    item's generation, the readings once it is decided or waits for an adjudication (before, a
    second reader is not told what the first said), and the id of the newest item of its study and
    lane where there is a newer one. 404: no such item. The custody log is told who looked.
    """
    from slicewatch import corrections
    from slicewatch.visibility import shown

    identity = access.require(req, Role.READER)
    store, name = storage.current(), item_of(req, identity)
    item = changed(identity, lambda: items.get(store, name))
    review = inventory.read_review(store, item.study, item.generation)
    body = {
        "item": as_body(item, identity),
        "review": shown(review, identity).to_json(),
        "readings": [one.to_json() for one in item.readings] if _may_be_read(item) else [],
        "corrections": [one.to_json() for one in corrections.of_item(store, item.id)],
        "superseded_by": _newer(store, item),
    }
    viewer = access.actor_of(req, identity)
    custody_record.viewing(store, settings.current(), item.study, viewer, item.id)
    return as_json(body, headers={"Cache-Control": "no-store"})


def _may_be_read(item: Item) -> bool:
    return item.state == "decided" or item.stage == "adjudication"


def _newer(store: storage.Storage, item: Item) -> str | None:
    """The newest item of the same study and lane, where it is not this one."""
    same: list[Any] = [one for one in items.of_study(store, item.study) if one.lane is item.lane]
    newest = max(same, key=lambda one: one.generation, default=item)
    return newest.id if newest.generation > item.generation else None
