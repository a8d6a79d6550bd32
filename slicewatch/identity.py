"""Who acts, and what they may do.

The platform's authentication tells who somebody is: App Service puts the claims of the signed-in
principal into ``X-MS-CLIENT-PRINCIPAL``, and lets no request from outside set that header ("Work
with user identities in Azure App Service authentication"). Where that authentication is off, the
header is anybody's word. So there are three modes:

platform
    App Service says that its authentication is on (``WEBSITE_AUTH_ENABLED``); the header counts.
development
    ``SLICEWATCH_DEVELOPMENT_IDENTITY`` names who everybody is. A request may carry the header to
    act as somebody else, so that one machine can be several people. For a laptop and for tests.
none
    Neither: nobody is known, and nothing is served.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from slicewatch.plain_text import is_plain_text
from slicewatch.settings import SettingError, Settings

_MAX_HEADER = 64 << 10
_MAX_NAME = 128

_ROLE_TYPES = ("roles", "http://schemas.microsoft.com/ws/2008/06/identity/claims/role")
# The object id is unique and is never given to another; a name or an address may be.
_USER_TYPES = (
    ("http://schemas.microsoft.com/identity/claims/objectidentifier", "oid"),
    ("http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier", "sub"),
)


class Role(StrEnum):
    """What somebody may do; the values are those of the identity provider's role claims."""

    UPLOADER = "uploader"
    """Send studies, close them, have data sets prepared."""
    READER = "reader"
    """Search and retrieve studies and their status, see the clinical worklist."""
    CLINICAL_REVIEWER = "clinical-reviewer"
    """Claim and decide items of the clinical lane."""
    FORENSIC_REVIEWER = "forensic-reviewer"
    """See the forensic lane, claim and decide its items."""
    ADMINISTRATOR = "administrator"
    """Evidence and data sets, see everything, give back what others hold."""


_READ_TOO = frozenset({Role.CLINICAL_REVIEWER, Role.FORENSIC_REVIEWER, Role.ADMINISTRATOR})


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who is signed in.

    Attributes:
        user: unique and lasting id of the identity provider; who holds an item is told by it.
        name: what people call them.
        roles: who reviews or administers is a reader, too.
        development: nobody signed in: the app setting or the request itself says who it is.
    """

    user: str
    name: str
    roles: frozenset[Role]
    development: bool = False

    def has(self, *roles: Role) -> bool:
        """Whether they have one of these roles."""
        return not self.roles.isdisjoint(roles)

    @property
    def sees_forensic(self) -> bool:
        """Whether the forensic lane is there for them."""
        return self.has(Role.FORENSIC_REVIEWER, Role.ADMINISTRATOR)


class NotConfigured(Exception):
    """There is no authentication: nobody can be told from anybody else."""


class NotSignedIn(Exception):
    """The request names nobody."""


class BadPrincipal(ValueError):
    """The principal header is malformed or contradicts itself; the text says what it lacks."""


def check(settings: Settings) -> None:
    """Raises `SettingError` where the settings that say who is who cannot be used."""
    if settings.development_identity:
        _development(settings)


def identify(settings: Settings, header: str) -> Identity:
    """Who sent a request, of its ``X-MS-CLIENT-PRINCIPAL`` header, empty where it has none.

    Raises:
        NotConfigured: there is no authentication.
        NotSignedIn: there is, and nobody signed in.
        BadPrincipal: the header cannot be used.
    """
    if _platform(settings):
        if not header:
            raise NotSignedIn
        return parse_principal(header)
    if not settings.development_identity:
        raise NotConfigured
    return parse_principal(header, development=True) if header else _development(settings)


def parse_principal(header: str, *, development: bool = False) -> Identity:
    """The identity of a principal header: Base64 of JSON with ``auth_typ``, ``claims``
    (``typ``, ``val``), ``name_typ`` and ``role_typ``. Roles that are not known here are left out.

    Raises:
        BadPrincipal: it is anything else, names nobody, or two people.
    """
    given = _decoded(header)
    claims = _claims(given.get("claims"))
    name_type, role_type = given.get("name_typ"), given.get("role_typ")
    names = claims.get(name_type, []) if isinstance(name_type, str) else []
    found = [claims[one] for types in _USER_TYPES for one in types if one in claims]
    user = _one([*found, names][0])
    name = names[0] if names else user
    role_types = {*_ROLE_TYPES, *([role_type] if isinstance(role_type, str) else [])}
    said = {value for one in role_types for value in claims.get(one, [])}
    return _identity(_checked(user), _checked(name), said & set(Role), development)


def _platform(settings: Settings) -> bool:
    return settings.platform_authentication.lower() == "true"


def _development(settings: Settings) -> Identity:
    text = settings.development_identity
    if _platform(settings):
        raise SettingError(
            "SLICEWATCH_DEVELOPMENT_IDENTITY is set where App Service authenticates "
            "(WEBSITE_AUTH_ENABLED); remove it: it would make everybody the same person"
        )
    user, _, listed = text.partition(":")
    roles = {one.strip() for one in listed.split(",") if one.strip()}
    if unknown := sorted(roles - set(Role)):
        raise SettingError(
            f"SLICEWATCH_DEVELOPMENT_IDENTITY is {text!r}, and {unknown[0]!r} is no role; "
            f"expected user:role,role of {', '.join(Role)}"
        )
    try:
        user = _checked(user)
    except BadPrincipal:
        raise SettingError(
            f"SLICEWATCH_DEVELOPMENT_IDENTITY is {text!r}; expected user:role,role with a user "
            f"of 1 to {_MAX_NAME} characters"
        ) from None
    return _identity(user, user, roles, True)


def _identity(user: str, name: str, roles: set[str], development: bool) -> Identity:
    held = {Role(one) for one in roles}
    if held & _READ_TOO:
        held.add(Role.READER)
    return Identity(user, name, frozenset(held), development)


def _decoded(header: str) -> dict[str, Any]:
    if len(header) > _MAX_HEADER:
        raise BadPrincipal(f"it is over {_MAX_HEADER} characters")
    try:
        given = json.loads(base64.b64decode(header, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise BadPrincipal("it is not Base64 of JSON") from None
    if not isinstance(given, dict):
        raise BadPrincipal("it is no JSON object")
    return given


def _claims(listed: Any) -> dict[str, list[str]]:
    """Claim type → its values, in order."""
    claims: dict[str, list[str]] = {}
    if not isinstance(listed, list):
        raise BadPrincipal("it has no list of claims")
    for one in listed:
        kind, value = (one.get("typ"), one.get("val")) if isinstance(one, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(value, str):
            raise BadPrincipal("a claim is not a `typ` and a `val`, both text")
        claims.setdefault(kind, []).append(value)
    return claims


def _one(values: list[str]) -> str:
    if len(set(values)) != 1:
        raise BadPrincipal("it names nobody" if not values else "it names several people")
    return values[0]


def _checked(name: str) -> str:
    name = name.strip()
    if not name or len(name) > _MAX_NAME or not is_plain_text(name):
        raise BadPrincipal(f"a name in it is no plain text of 1 to {_MAX_NAME} characters")
    return name
