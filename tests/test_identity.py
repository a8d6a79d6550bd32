"""Who somebody is: of the platform's header alone, and of nothing where nobody vouches for it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicewatch import identity
from slicewatch.identity import BadPrincipal, Identity, NotConfigured, NotSignedIn, Role
from slicewatch.settings import SettingError, load
from tests.identities import DEVELOPER, principal

OID = "http://schemas.microsoft.com/identity/claims/objectidentifier"
NAME_ID = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"
ROLE = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"
PLATFORM = load({"WEBSITE_AUTH_ENABLED": "True"})
DEVELOPMENT = load({"SLICEWATCH_DEVELOPMENT_IDENTITY": "ada:reader"})


def encoded(given: Any) -> str:
    return base64.b64encode(json.dumps(given).encode()).decode()


def header(*claims: tuple[str, str], **more: Any) -> str:
    listed = [{"typ": kind, "val": value} for kind, value in claims]
    return encoded({"auth_typ": "aad", "claims": listed, "name_typ": "name", **more})


def test_the_object_id_is_the_user_and_the_name_what_they_are_called() -> None:
    told = header(
        (NAME_ID, "pairwise"), ("name", "Ada L."), (OID, "0f-1"), (ROLE, "reader"), role_typ=ROLE
    )
    assert identity.parse_principal(told) == Identity("0f-1", "Ada L.", frozenset({Role.READER}))


@pytest.mark.parametrize(
    ("claims", "user"),
    [([(NAME_ID, "b"), ("name", "c")], "b"), ([("sub", "d")], "d"), ([("name", "e")], "e")],
)
def test_without_an_object_id_the_next_best_is_the_user(
    claims: list[tuple[str, str]], user: str
) -> None:
    assert identity.parse_principal(header(*claims)).user == user


def test_roles_come_from_either_claim_and_unknown_ones_are_left_out() -> None:
    told = header(("oid", "x"), ("roles", "uploader"), (ROLE, "administrator"), ("roles", "king"))
    roles = identity.parse_principal(told).roles
    assert roles == {Role.UPLOADER, Role.ADMINISTRATOR, Role.READER}


@pytest.mark.parametrize("role", [Role.CLINICAL_REVIEWER, Role.FORENSIC_REVIEWER])
def test_a_reviewer_reads_and_an_uploader_does_not(role: Role) -> None:
    assert identity.parse_principal(header(("oid", "x"), ("roles", role))).has(Role.READER)
    uploader = identity.parse_principal(header(("oid", "x"), ("roles", "uploader")))
    assert not uploader.has(Role.READER)


def test_the_forensic_lane_is_there_for_its_reviewer_and_the_administrator() -> None:
    seeing = {
        role
        for role in Role
        if identity.parse_principal(header(("oid", "x"), ("roles", role))).sees_forensic
    }
    assert seeing == {Role.FORENSIC_REVIEWER, Role.ADMINISTRATOR}


@pytest.mark.parametrize(
    "broken",
    [
        "no base64!",
        base64.b64encode(b"no json").decode(),
        base64.b64encode(b"\xff\xfe").decode(),
        base64.b64encode(b"[" * 10_000).decode(),
        encoded([]),
        encoded({}),
        encoded({"claims": {}}),
        encoded({"claims": [1]}),
        encoded({"claims": [{"typ": "oid"}]}),
        encoded({"claims": [{"typ": "oid", "val": 1}]}),
        header(),
        header(("roles", "administrator")),
        header(("oid", "a"), ("oid", "b")),
        header(("oid", " ")),
        header(("oid", "x" * 129)),
        header(("oid", "a\x00b")),
        header(("oid", "a"), ("name", "\ud800")),
        "A" * (1 << 17),
    ],
)
def test_a_malformed_principal_is_nobody(broken: str) -> None:
    with pytest.raises(BadPrincipal):
        identity.parse_principal(broken)


@given(st.one_of(st.text(), st.binary().map(lambda raw: base64.b64encode(raw).decode())))
def test_no_header_breaks_the_parser(text: str) -> None:
    with pytest.raises(BadPrincipal):
        identity.parse_principal(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_json_breaks_the_parser(value: Any) -> None:
    with pytest.raises(BadPrincipal):
        identity.parse_principal(encoded({"claims": value, "name_typ": value, "role_typ": value}))


# --- who vouches for it -------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "False", "false", "0"])
def test_a_header_that_no_platform_vouches_for_is_not_believed(value: str) -> None:
    forged = principal("mallory")["X-MS-CLIENT-PRINCIPAL"]
    for one in ("", forged):
        with pytest.raises(NotConfigured):
            identity.identify(load({"WEBSITE_AUTH_ENABLED": value}), one)


def test_where_the_platform_authenticates_nobody_is_anybody_without_the_header() -> None:
    with pytest.raises(NotSignedIn):
        identity.identify(PLATFORM, "")
    found = identity.identify(PLATFORM, header(("oid", "x"), ("roles", "reader")))
    assert (found.user, found.development) == ("x", False)


def test_in_development_everybody_is_the_developer_or_whom_the_request_names() -> None:
    ada = Identity("ada", "ada", frozenset({Role.READER}), development=True)
    assert identity.identify(DEVELOPMENT, "") == ada
    ben = identity.identify(DEVELOPMENT, principal("ben")["X-MS-CLIENT-PRINCIPAL"])
    assert (ben.user, ben.roles, ben.development) == ("ben", frozenset(Role), True)


def test_the_development_identity_is_refused_where_the_platform_authenticates() -> None:
    both = load({"SLICEWATCH_DEVELOPMENT_IDENTITY": DEVELOPER, "WEBSITE_AUTH_ENABLED": "True"})
    with pytest.raises(SettingError, match="WEBSITE_AUTH_ENABLED"):
        identity.check(both)


@pytest.mark.parametrize("text", ["ada:king", ":reader", "ada\x01:reader", "x" * 129])
def test_a_development_identity_that_is_none_is_named(text: str) -> None:
    settings = load({"SLICEWATCH_DEVELOPMENT_IDENTITY": text})
    with pytest.raises(SettingError, match="SLICEWATCH_DEVELOPMENT_IDENTITY"):
        identity.check(settings)


def test_settings_that_say_who_is_who_pass() -> None:
    for settings in (load({}), PLATFORM, DEVELOPMENT):
        identity.check(settings)
