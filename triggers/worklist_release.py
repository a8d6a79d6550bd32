"""``worklist_release``: a reader gives a claimed item back."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch import custody_record
from slicewatch.identity import Role
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from slicewatch.worklist import Item, Reader
from triggers import access
from triggers.responses import answers_problems
from triggers.worklist_doors import answer_change

bp = df.Blueprint()


@bp.route("worklist/{item}/release", methods=["POST"])
@answers_problems
def worklist_release(req: func.HttpRequest) -> func.HttpResponse:
    """Give one's claimed item back; an administrator also gives back what another holds.

    200: the item; 403: not the lane's reviewer; 404: no such item; 409: its state does not allow
    it, with the item as it stands.
    """

    def release(store: Storage, config: Settings, item: str, reader: Reader) -> Item:
        anybodys = access.identity_of(req).has(Role.ADMINISTRATOR)
        return custody_record.release(store, config, item, reader, anybodys=anybodys)

    return answer_change(req, release, Role.ADMINISTRATOR)
