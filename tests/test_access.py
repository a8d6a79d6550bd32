"""Every door asks who is there, before it does anything else; a table says who may what."""

from __future__ import annotations

import inspect
import json
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest

from slicewatch import settings as app_settings
from slicewatch import storage as app_storage
from slicewatch.identity import Role
from tests.doors import BASE, body_of, function_of
from tests.identities import principal

ROOT = Path(__file__).resolve().parent.parent

UPLOADS = {"uploader"}
READS = {"reader", "clinical-reviewer", "forensic-reviewer", "administrator"}
CLINICAL = {"clinical-reviewer"}
EVERYBODY: set[str] = set(Role)

MAY: dict[str, set[str]] = {
    "dataset_prepare": UPLOADS | {"administrator"},
    "dataset_status": UPLOADS | {"administrator"},
    "detect": UPLOADS | READS,
    "me": EVERYBODY,
    "review_page": EVERYBODY,
    "stow_store": UPLOADS,
    "studies_upload": UPLOADS,
    "study_close": UPLOADS,
    "study_evidence": {"administrator"},
    "study_status": READS,
    "ups_change_state": CLINICAL,
    "ups_create": READS,
    "ups_request_cancellation": READS,
    "ups_retrieve": READS,
    "ups_search": READS,
    "ups_update": CLINICAL,
    "worklist": READS,
    "worklist_claim": CLINICAL,
    "worklist_correction": CLINICAL,
    "worklist_decision": CLINICAL,
    "worklist_item": READS,
    "worklist_release": CLINICAL | {"administrator"},
}
"""Door → the roles that pass; QIDO and WADO are `READS`. Items and workitems are clinical here."""

ROUTE = {
    "study": "1.2.3",
    "series": "1.2.3",
    "instance": "1.2.3",
    "frames": "1",
    "item": f"study-{0:032x}-1-clinical",
    "workitem": "2.25.0.1.1",
    "dataset": "a-data-set",
    "path": "",
}


class Beyond(Exception):
    """The door let the request in: it reached for storage or the engine."""


class _Absent:
    def __getattr__(self, name: str) -> Any:
        raise Beyond(name)


def doors() -> dict[str, str]:
    """Name → method of each HTTP function of the app but `health`."""
    found = {}
    for file in sorted((ROOT / "triggers").glob("*.py")):
        name = file.stem
        module = import_module(f"triggers.{name}")
        registered: Any = getattr(module, name, None)
        trigger: Any = getattr(registered, "_function", None) and registered._function.get_trigger()
        if getattr(trigger, "route", None) and name != "health":
            found[name] = next(iter(trigger.methods)).value
    return found


DOORS = doors()


@pytest.fixture(autouse=True)
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_storage, "current", _Absent)


def knock(
    name: str, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], **environ: str
) -> tuple[int, str]:
    """Status and error code that a door answers; (0, "") where it went on to its work."""
    config = app_settings.load({"AzureWebJobsStorage": "unused", **environ})
    monkeypatch.setattr(app_settings, "current", lambda: config)
    door = function_of(import_module(f"triggers.{name}"))
    if "client" in inspect.signature(door).parameters:
        door = partial(door, client=_Absent())
    asked = func.HttpRequest(
        DOORS[name],
        f"{BASE}/dicomweb/studies",
        headers={**headers, "Content-Type": "application/json"},
        route_params=ROUTE,
        body=b"{}",
    )
    try:
        answer = door(asked)
    except Beyond:
        return 0, ""
    if answer.status_code not in (401, 403, 503):
        return 0, ""
    error = body_of(answer)["error"]
    assert all(error[key] for key in ("code", "message", "remedy"))
    return answer.status_code, error["code"]


def roles_of(name: str) -> set[str]:
    return MAY[name] if name in MAY else READS if name[:4] in ("qido", "wado") else set()


@pytest.mark.parametrize("name", DOORS)
def test_a_door_serves_nobody_where_nothing_authenticates(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for headers in ({}, principal("mallory")):
        assert knock(name, monkeypatch, headers) == (503, "no-authentication")


# The files of the page tell of no study, and lead to the sign-in.
@pytest.mark.parametrize("name", sorted(DOORS.keys() - {"review_page"}))
def test_a_door_asks_who_is_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on = {"WEBSITE_AUTH_ENABLED": "True"}
    assert knock(name, monkeypatch, {}, **on) == (401, "not-signed-in")
    broken = {"X-MS-CLIENT-PRINCIPAL": "e30="}
    assert knock(name, monkeypatch, broken, **on) == (401, "bad-principal")


@pytest.mark.parametrize("name", DOORS)
def test_a_door_opens_to_its_roles_and_no_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert roles_of(name), "who may use this door is not said"
    opened = set()
    for role in Role:
        found = knock(name, monkeypatch, principal("ada", role), WEBSITE_AUTH_ENABLED="True")
        # Creating workitems is refused to all who get that far; the page may not be built here.
        if found in ((0, ""), (403, "not-created-here"), (503, "not-built")):
            opened.add(str(role))
        else:
            assert found == (403, "role-missing")
    assert opened == roles_of(name)


@pytest.mark.parametrize(
    "name", [one for one in MAY if one.startswith(("worklist_", "ups_")) and one != "ups_create"]
)
def test_a_forensic_item_is_not_there_for_those_without_the_role(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name not in DOORS or name == "ups_search":
        pytest.skip("a list: what it holds is tested where it is listed")
    monkeypatch.setitem(ROUTE, "item", f"study-{0:032x}-1-forensic")
    monkeypatch.setitem(ROUTE, "workitem", "2.25.0.1.2")
    config = app_settings.load({"AzureWebJobsStorage": "x", "WEBSITE_AUTH_ENABLED": "True"})
    monkeypatch.setattr(app_settings, "current", lambda: config)
    door = function_of(import_module(f"triggers.{name}"))
    if "client" in inspect.signature(door).parameters:
        door = partial(door, client=_Absent())
    roles = ("reader", "clinical-reviewer")
    asked = func.HttpRequest(
        "POST",
        f"{BASE}/dicomweb/x",
        headers={**principal("ada", *roles), "Content-Type": "application/json"},
        route_params=ROUTE,
        body=json.dumps({}).encode(),
    )
    assert door(asked).status_code == 404
