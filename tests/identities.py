"""Being somebody: the header that the platform's authentication would set."""

from __future__ import annotations

import base64
import json

from slicewatch.identity import Role

DEVELOPER = f"developer:{','.join(Role)}"
"""The development identity that tests have: every role."""


def principal(user: str, *roles: str) -> dict[str, str]:
    """The header of a request by this user; without roles, of every role."""
    claims = [{"typ": "name", "val": user}]
    claims += [{"typ": "roles", "val": str(role)} for role in roles or Role]
    told = {"auth_typ": "aad", "claims": claims, "name_typ": "name", "role_typ": "roles"}
    return {"X-MS-CLIENT-PRINCIPAL": base64.b64encode(json.dumps(told).encode()).decode()}
