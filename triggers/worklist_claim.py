"""``worklist_claim``: a reader takes an open item."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from slicewatch import custody_record
from triggers.responses import answers_problems
from triggers.worklist_doors import answer_change

bp = df.Blueprint()


@bp.route("worklist/{item}/claim", methods=["POST"])
@answers_problems
def worklist_claim(req: func.HttpRequest) -> func.HttpResponse:
    """Take an open item; taking one's own again is fine.

    200: the item; 403: not the lane's reviewer; 404: no such item; 409: its state does not allow
    it, with the item as it stands.
    """
    return answer_change(req, custody_record.claim)
