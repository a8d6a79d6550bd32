"""``me``: who the app takes the caller for, and what they may do."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from triggers import access
from triggers.responses import answers_problems, as_json

bp = df.Blueprint()


@bp.route("me", methods=["GET"])
@answers_problems
def me(req: func.HttpRequest) -> func.HttpResponse:
    """``{"user", "name", "roles", "development"}``; `development`: nobody signed in."""
    identity = access.require(req)
    return as_json(
        {
            "user": identity.user,
            "name": identity.name,
            "roles": sorted(identity.roles),
            "development": identity.development,
        },
        headers={"Cache-Control": "no-store"},
    )
