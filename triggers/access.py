"""Who is at the door: every door but ``health`` asks here, before it looks at anything else."""

from __future__ import annotations

import contextlib
import ipaddress

import azure.functions as func

from slicewatch import settings
from slicewatch.identity import (
    BadPrincipal,
    Identity,
    NotConfigured,
    NotSignedIn,
    Role,
    identify,
)
from slicewatch.records import Lane
from triggers.responses import Problem

PRINCIPAL = "X-MS-CLIENT-PRINCIPAL"

REVIEWERS = {
    Lane.CLINICAL: Role.CLINICAL_REVIEWER,
    Lane.FORENSIC: Role.FORENSIC_REVIEWER,
}
"""Who claims and decides the items of a lane."""


def require(request: func.HttpRequest, *roles: Role) -> Identity:
    """Who sent the request, who has one of these roles; with no role named, anybody signed in.

    Raises `Problem`: 503 where no authentication is configured, 401 where nobody is signed in or
    the principal cannot be read, 403 without the role.
    """
    identity = identity_of(request)
    if roles and not identity.has(*roles):
        raise Problem(
            403,
            "role-missing",
            f"this needs the role {' or '.join(roles)}, which you do not have",
            "ask an administrator of the app for the role",
        )
    return identity


def identity_of(request: func.HttpRequest) -> Identity:
    """Who sent the request. Raises `Problem`: 503, 401."""
    try:
        return identify(settings.current(), request.headers.get(PRINCIPAL, "").strip())
    except NotConfigured:
        raise Problem(
            503,
            "no-authentication",
            "the app has no authentication configured, so it serves nothing but health",
            "turn App Service authentication on; on a laptop set SLICEWATCH_DEVELOPMENT_IDENTITY",
        ) from None
    except NotSignedIn:
        raise Problem(
            401, "not-signed-in", "nobody is signed in", "sign in, and send the request again"
        ) from None
    except BadPrincipal as error:
        raise Problem(
            401,
            "bad-principal",
            f"the {PRINCIPAL} header cannot be used: {error}",
            "sign in again; only the platform's authentication sets this header",
        ) from None


def actor_of(request: func.HttpRequest, identity: Identity) -> dict[str, str]:
    """Who sent the request, for the custody log: ``principal``, the ``name`` where it is another,
    the network ``address`` where the front end tells it, and ``identity`` where it is only the
    development's. Without the port: a request that is repeated comes from another one.
    """
    told = {"principal": identity.user}
    if identity.name != identity.user:
        told["name"] = identity.name
    if identity.development:
        told["identity"] = "development"
    # The front end appends the address that it sees; what stands before it is the sender's word.
    last = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    host = last.partition("]")[0].lstrip("[") if last.startswith("[") else last
    host = host.partition(":")[0] if host.count(":") == 1 else host
    with contextlib.suppress(ValueError):
        told["address"] = str(ipaddress.ip_address(host))
    return told
