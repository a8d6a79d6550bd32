"""UPS-RS: the worklist as other systems work it; one holder at a time, and nothing gets lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pydicom
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from slicewatch import inventory, ups, workitems, worklist
from slicewatch import settings as app_settings
from slicewatch import storage as app_storage
from slicewatch.records import Lane
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from slicewatch.worklist import Item, Reader
from tests import studies
from tests.dicomweb_doors import URL, Doors
from tests.doors import Engine, running_engine
from tests.identities import principal

DOORS = (
    "ups_change_state",
    "ups_create",
    "ups_request_cancellation",
    "ups_retrieve",
    "ups_search",
    "ups_update",
)
JSON = {"Content-Type": "application/dicom+json"}
ONE, OTHER = "2.25.1111", "2.25.2222"


@pytest.fixture(autouse=True)
def app(
    settings: Settings, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """The app's settings and storage are the tests'."""
    monkeypatch.setattr(app_settings, "current", lambda: settings)
    monkeypatch.setattr(app_storage, "current", lambda: storage)
    return monkeypatch


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    yield from running_engine()


@pytest.fixture(scope="module")
def http(engine: Engine) -> Iterator[requests.Session]:
    with requests.Session() as opened:
        opened.mount("https://", Doors(DOORS, engine.client))
        yield opened


@pytest.fixture
def item(storage: Storage, seed: int) -> Item:
    return add(storage, seed)


def add(storage: Storage, seed: int, **changes: Any) -> Item:
    study = studies.new_uid("study", seed)
    lane, generation = changes.get("lane", Lane.CLINICAL), changes.get("generation", 1)
    values: dict[str, Any] = {
        "id": f"{inventory.instance_id(study)}-{generation}-{lane}",
        "study": study,
        "generation": generation,
        "lane": lane,
        "priority": 50,
        "summary": "a mass",
        "rules": ("finding",),
        "created": datetime.now(UTC).isoformat(),
    }
    return worklist.add(storage, Item(**(values | changes)))


def path(item: Item, suffix: str = "") -> str:
    return f"{URL}/workitems/{workitems.uid_of(item.id)}{suffix}"


def attribute(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}


def to_state(
    http: requests.Session, item: Item, state: str, transaction: str | None = ONE
) -> requests.Response:
    body = {"00741000": attribute("CS", state)}
    if transaction is not None:
        body["00081195"] = attribute("UI", transaction)
    return http.put(path(item, "/state"), data=json.dumps([body]), headers=JSON)


def performed(verdict: str = "CONFIRMED", comment: str | None = None) -> dict[str, Any]:
    code = {
        "00080100": attribute("SH", verdict),
        "00080102": attribute("SH", "99SLICEWATCH"),
    }
    inner = {"00404019": attribute("SQ", code)}
    if comment is not None:
        inner["00400280"] = attribute("ST", comment)
    return {"00741216": attribute("SQ", inner)}


def tell(
    http: requests.Session, item: Item, dataset: dict[str, Any], transaction: str | None = ONE
) -> requests.Response:
    body = {**dataset} | ({"00081195": attribute("UI", transaction)} if transaction else {})
    return http.post(path(item), data=json.dumps(body), headers=JSON)


def state_of(http: requests.Session, item: Item) -> str:
    (found,) = http.get(path(item)).json()
    return str(found["00741000"]["Value"][0])


def refusal(answer: requests.Response) -> tuple[int, str]:
    """Status and the text of the Warning header, of a refusal that has both."""
    error = answer.json()["error"]
    assert all(error[key] for key in ("code", "message", "remedy"))
    service, _, text = answer.headers["Warning"].partition(": ")
    assert service == f"299 {URL}"
    return answer.status_code, text


# --- the whole way ------------------------------------------------------------------------------


def test_a_workstation_claims_tells_and_completes(
    http: requests.Session, engine: Engine, storage: Storage, item: Item
) -> None:
    assert state_of(http, item) == "SCHEDULED"
    assert to_state(http, item, "IN PROGRESS").status_code == 200
    assert state_of(http, item) == "IN PROGRESS"
    progress = {"00741002": attribute("SQ", {"00741006": attribute("ST", "at slice 40")})}
    answer = tell(http, item, progress)
    assert (answer.status_code, "Warning" in answer.headers) == (200, False)
    (found,) = http.get(path(item)).json()
    assert found["00741002"]["Value"][0]["00741006"]["Value"] == ["at slice 40"]
    assert tell(http, item, performed("CHANGED", "two, not one")).status_code == 200
    assert to_state(http, item, "COMPLETED").status_code == 200
    decided = worklist.get(storage, item.id)
    said = {"verdict": "changed", "findings": {}, "additions": [], "comment": "two, not one"}
    assert decided.decision == said
    dataset = pydicom.Dataset.from_json(http.get(path(item)).json()[0])
    assert dataset.ProcedureStepState == "COMPLETED"
    (step,) = dataset.UnifiedProcedureStepPerformedProcedureSequence
    assert step.PerformedWorkitemCodeSequence[0].CodeValue == "CHANGED"
    assert step.CommentsOnThePerformedProcedureStep == "two, not one"
    again = to_state(http, item, "COMPLETED")
    assert again.status_code == 200
    assert "already in the requested state of COMPLETED" in again.headers["Warning"]


def test_a_completion_is_told_to_the_studys_orchestration(
    http: requests.Session, app: pytest.MonkeyPatch, item: Item
) -> None:
    from triggers import ups_change_state

    told: list[str] = []
    app.setattr(ups_change_state, "tell_decided", lambda client, one: told.append(one.id))
    to_state(http, item, "IN PROGRESS")
    tell(http, item, performed())
    assert not told
    to_state(http, item, "COMPLETED")
    assert told == [item.id]


def test_a_workitem_says_what_there_is_to_do_and_names_no_patient(
    http: requests.Session, item: Item
) -> None:
    dataset = pydicom.Dataset.from_json(http.get(path(item)).json()[0])
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.34.6.1"
    assert dataset.SOPInstanceUID == workitems.uid_of(item.id)
    assert dataset.WorklistLabel == "review-clinical"
    assert dataset.ScheduledProcedureStepPriority == "MEDIUM"
    assert dataset.InputReadinessState == "READY"
    (source,) = dataset.InputInformationSequence
    assert source.StudyInstanceUID == item.study
    assert source.WADORSRetrievalSequence[0].RetrieveURL == f"{URL}/studies/{item.study}"
    assert not dataset.PatientName
    assert not dataset.PatientID
    assert len(dataset.SOPInstanceUID) <= 64


# --- claims -------------------------------------------------------------------------------------


def test_of_many_claims_at_once_one_wins(
    http: requests.Session, storage: Storage, item: Item
) -> None:
    claim = partial(to_state, http, item, "IN PROGRESS")
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(claim, [f"2.25.{n}" for n in range(1, 13)]))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) == 1
    assert statuses.count(409) == 11
    winner = f"2.25.{statuses.index(200) + 1}"
    held = worklist.get(storage, item.id)
    assert (held.holder, held.lock) == ("developer", ups.lock_of(winner))


def test_the_transaction_uid_is_never_given_out(
    http: requests.Session, storage: Storage, item: Item
) -> None:
    secret = "2.25.987654321987654321"
    to_state(http, item, "IN PROGRESS", secret)
    refused = to_state(http, item, "IN PROGRESS", OTHER)
    shown = [http.get(path(item)).text, http.get(f"{URL}/workitems").text, refused.text]
    shown.append(json.dumps(worklist.get(storage, item.id).to_json()))
    assert not [text for text in shown if secret in text]
    assert hashlib.sha256(secret.encode()).hexdigest()[:16] in shown[-1]


def test_one_claimed_at_the_other_door_is_in_progress_and_locked(
    http: requests.Session, storage: Storage, item: Item
) -> None:
    worklist.claim(storage, item.id, Reader("ada", "ada"))
    assert state_of(http, item) == "IN PROGRESS"
    assert to_state(http, item, "IN PROGRESS").status_code == 409
    assert refusal(to_state(http, item, "COMPLETED")) == (400, "The Transaction UID is incorrect.")
    assert refusal(tell(http, item, performed()))[0] == 400
    assert worklist.get(storage, item.id).holder == "ada"


def test_another_or_no_transaction_uid_changes_nothing(
    http: requests.Session, storage: Storage, item: Item
) -> None:
    missing = (400, "The Transaction UID is missing.")
    incorrect = (400, "The Transaction UID is incorrect.")
    assert refusal(to_state(http, item, "IN PROGRESS", None)) == missing
    to_state(http, item, "IN PROGRESS")
    held = worklist.get(storage, item.id)
    assert refusal(tell(http, item, performed(), None)) == missing
    assert refusal(tell(http, item, performed(), OTHER)) == incorrect
    for state in ("COMPLETED", "CANCELED"):
        assert refusal(to_state(http, item, state, None)) == missing
        assert refusal(to_state(http, item, state, OTHER)) == incorrect
    assert worklist.get(storage, item.id) == held
    assert ups.told_of(storage, held) == {}


def test_the_transaction_uid_may_stand_in_the_query(
    http: requests.Session, storage: Storage, item: Item
) -> None:
    to_state(http, item, "IN PROGRESS")
    answer = http.post(
        path(item, f"?transaction-uid={ONE}"), data=json.dumps(performed()), headers=JSON
    )
    assert answer.status_code == 200
    assert ups.told_of(storage, worklist.get(storage, item.id)) == {"verdict": "confirmed"}


def test_what_one_performer_told_is_not_the_next_ones(
    http: requests.Session, storage: Storage, item: Item
) -> None:
    to_state(http, item, "IN PROGRESS", ONE)
    tell(http, item, performed("REJECTED"), ONE)
    given_back = to_state(http, item, "CANCELED", ONE)
    assert given_back.status_code == 200
    assert "SCHEDULED again" in given_back.headers["Warning"]
    assert state_of(http, item) == "SCHEDULED"
    assert to_state(http, item, "IN PROGRESS", OTHER).status_code == 200
    assert to_state(http, item, "COMPLETED", OTHER).status_code == 409
    assert worklist.get(storage, item.id).state == "claimed"


# --- states -------------------------------------------------------------------------------------


def test_without_a_verdict_nothing_is_completed(
    http: requests.Session, storage: Storage, item: Item
) -> None:
    to_state(http, item, "IN PROGRESS")
    answer = to_state(http, item, "COMPLETED")
    assert answer.status_code == 409
    assert "verdict" in answer.json()["error"]["message"]
    assert worklist.get(storage, item.id).state == "claimed"


def test_changes_that_a_state_does_not_allow_are_409(
    http: requests.Session, storage: Storage, seed: int
) -> None:
    inconsistent = (409, ups._INCONSISTENT)
    scheduled = add(storage, seed)
    for state in ("COMPLETED", "CANCELED"):
        assert refusal(to_state(http, scheduled, state)) == inconsistent
    assert refusal(tell(http, scheduled, performed()))[0] == 409
    superseded = add(storage, seed, generation=2)
    worklist.supersede(storage, superseded.id)
    assert state_of(http, superseded) == "CANCELED"
    for state in ("IN PROGRESS", "COMPLETED"):
        assert refusal(to_state(http, superseded, state)) == inconsistent
    already = to_state(http, superseded, "CANCELED")
    assert already.status_code == 200
    assert "already in the requested state of CANCELED" in already.headers["Warning"]


def test_one_superseded_while_it_is_worked_on_is_told(
    http: requests.Session, storage: Storage, item: Item
) -> None:
    to_state(http, item, "IN PROGRESS")
    tell(http, item, performed())
    worklist.supersede(storage, item.id)
    assert refusal(to_state(http, item, "COMPLETED"))[0] == 409
    dataset = pydicom.Dataset.from_json(http.get(path(item)).json()[0])
    (progress,) = dataset.ProcedureStepProgressInformationSequence
    assert "superseded" in progress.ReasonForCancellation


def test_nothing_takes_a_flagged_study_off_the_worklist(
    http: requests.Session, storage: Storage, item: Item
) -> None:
    def ask() -> requests.Response:
        return http.post(path(item, "/cancelrequest"))

    assert refusal(ask()) == (409, "Performer chooses not to cancel.")
    to_state(http, item, "IN PROGRESS")
    assert refusal(ask())[0] == 409
    tell(http, item, performed())
    to_state(http, item, "COMPLETED")
    assert refusal(ask()) == (409, "The UPS is already COMPLETED.")
    superseded = add(storage, int(item.study[-6:]), generation=2)
    worklist.supersede(storage, superseded.id)
    answer = http.post(path(superseded, "/cancelrequest"))
    assert answer.status_code == 202
    assert "already" in answer.headers["Warning"]


def test_workitems_are_not_created_by_others(http: requests.Session) -> None:
    answer = http.post(f"{URL}/workitems", data=b"[{}]", headers=JSON)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "not-created-here"


# --- payloads -----------------------------------------------------------------------------------


def test_attributes_that_are_not_kept_are_told(
    http: requests.Session, storage: Storage, item: Item
) -> None:
    to_state(http, item, "IN PROGRESS")
    answer = tell(http, item, performed() | {"00404005": attribute("DT", "20240101")})
    assert answer.status_code == 200
    assert "optional Attributes are not supported" in answer.headers["Warning"]
    assert ups.told_of(storage, worklist.get(storage, item.id)) == {"verdict": "confirmed"}


@pytest.mark.parametrize(
    "dataset",
    [
        performed("MAYBE"),
        performed("CONFIRMED", "x" * 1025),
        {"00741216": attribute("SQ", {}, {})},
        {"00741216": attribute("SQ", 5)},
        {"00741216": {"vr": "SQ", "Value": {}}},
        {"00741216": attribute("SQ", {"00404019": attribute("SQ", {"00080100": "x"})})},
        {"00741216": attribute("SQ", {"00404019": attribute("SQ", {"00080100": {"Value": [{}]}})})},
        {"00741002": attribute("SQ", {"00741006": attribute("ST", 7)})},
        {"not a tag": attribute("ST", "x")},
    ],
)
def test_a_payload_that_cannot_be_used_is_told(
    http: requests.Session, storage: Storage, item: Item, dataset: dict[str, Any]
) -> None:
    to_state(http, item, "IN PROGRESS")
    answer = tell(http, item, dataset)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad-dataset")
    assert ups.told_of(storage, worklist.get(storage, item.id)) == {}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", JSON, 400),
        (b"[]", JSON, 400),
        (b"[{}, {}]", JSON, 400),
        (b"[1]", JSON, 400),
        (b"\xff", JSON, 400),
        (b"[" * 50_000, JSON, 400),
        (b"{}", JSON, 400),
        (b'{"00741000": {"vr": "CS", "Value": ["DONE"]}}', JSON, 400),
        (b'{"00741000": {"vr": "CS", "Value": ["SCHEDULED"]}}', JSON, 400),
        (b'{"00081195": {"vr": "UI", "Value": ["x"]}}', JSON, 400),
        (b'{"00081195": {"vr": "UI", "Value": [{}]}}', JSON, 400),
        (b" " * 70_000, JSON, 413),
        (b"{}", {"Content-Type": "application/dicom+xml"}, 415),
        (b"{}", {}, 415),
    ],
)
def test_a_state_that_cannot_be_read_is_told(
    http: requests.Session, item: Item, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = http.put(path(item, "/state"), data=body, headers=headers)
    assert answer.status_code == status
    assert state_of(http, item) == "SCHEDULED"


@pytest.mark.parametrize("uid", ["1.2.3", "2.25.1.1.1", "2.25.1.0.1", "2.25.1.1.3"])
def test_a_workitem_that_is_not_there_is_404(http: requests.Session, uid: str) -> None:
    assert http.get(f"{URL}/workitems/{uid}").status_code == 404
    assert http.post(f"{URL}/workitems/{uid}/cancelrequest").status_code == 404


@given(st.binary(min_size=16, max_size=16), st.integers(1, 10**9), st.sampled_from(list(Lane)))
def test_uids_and_items_name_each_other(digest: bytes, generation: int, lane: Lane) -> None:
    item = f"study-{digest.hex()}-{generation}-{lane}"
    uid = workitems.uid_of(item)
    assert len(uid) <= 64
    assert pydicom.uid.UID(uid).is_valid
    assert workitems.item_id(uid) == item


# --- search -------------------------------------------------------------------------------------


def found(http: requests.Session, study: str, **query: str) -> list[str]:
    answer = http.get(f"{URL}/workitems", params={"StudyInstanceUID": study, **query})
    assert answer.status_code in (200, 204)
    if answer.status_code == 204:
        return []
    return [one["00080018"]["Value"][0] for one in answer.json()]


def test_workitems_are_found_by_their_keys(
    http: requests.Session, storage: Storage, seed: int
) -> None:
    clinical = add(storage, seed, priority=90)
    forensic = add(storage, seed, lane=Lane.FORENSIC, priority=10)
    old = add(storage, seed, generation=2, created="2020-01-02T03:04:05+00:00")
    worklist.supersede(storage, old.id)
    study = clinical.study
    first, second, third = (workitems.uid_of(one.id) for one in (clinical, forensic, old))
    assert set(found(http, study)) == {first, second, third}
    assert found(http, study, ProcedureStepState="SCHEDULED") == [first, second], "by urgency"
    assert found(http, study, ProcedureStepState="CANCELED") == [third]
    assert found(http, study, ProcedureStepState="C*") == [third]
    assert found(http, study, ProcedureStepState="IN PROGRESS") == []
    assert found(http, study, WorklistLabel="review-forensic") == [second]
    assert found(http, study, ScheduledProcedureStepPriority="HIGH") == [first]
    assert found(http, study, ScheduledProcedureStepStartDateTime="2020-2021") == [third]
    assert found(http, study, ScheduledProcedureStepStartDateTime="2021-", limit="5")[:2] == [
        first,
        second,
    ]
    assert found(http, study, SOPInstanceUID=f"{second},{third}") == [third, second]
    assert found(http, study, limit="1", offset="1", ProcedureStepState="SCHEDULED") == [second]


@pytest.mark.parametrize(
    "query",
    [
        "PatientName=x",
        "ScheduledWorkitemCodeSequence.CodeValue=1",
        "ScheduledProcedureStepStartDateTime=yesterday",
        "limit=none",
    ],
)
def test_a_search_that_cannot_be_answered_is_told(http: requests.Session, query: str) -> None:
    answer = http.get(f"{URL}/workitems?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad-query")


# --- lanes and readers --------------------------------------------------------------------------


def test_a_reading_that_needs_another_leaves_the_workitem_scheduled(
    http: requests.Session, storage: Storage, seed: int
) -> None:
    item = add(storage, seed, lane=Lane.FORENSIC, readers_needed=2)
    for transaction, user in ((ONE, "ada"), (OTHER, "ben")):
        http.headers.update(principal(user))
        assert to_state(http, item, "IN PROGRESS", transaction).status_code == 200
        assert tell(http, item, performed(), transaction).status_code == 200
        answer = to_state(http, item, "COMPLETED", transaction)
        assert answer.status_code == 200
        if user == "ada":
            assert "another reader" in answer.headers["Warning"]
            assert state_of(http, item) == "SCHEDULED"
            assert to_state(http, item, "IN PROGRESS", ONE).status_code == 409, "she read it"
    assert state_of(http, item) == "COMPLETED"
    del http.headers["X-MS-CLIENT-PRINCIPAL"]


def test_the_transaction_uid_of_another_user_is_no_key(
    http: requests.Session, storage: Storage, item: Item
) -> None:
    to_state(http, item, "IN PROGRESS")
    stolen = {**JSON, **principal("mallory")}
    body = json.dumps({**performed(), "00081195": attribute("UI", ONE)})
    answer = http.post(path(item), data=body, headers=stolen)
    assert refusal(answer) == (400, "The Transaction UID is incorrect.")
    assert worklist.get(storage, item.id).holder == "developer"


def test_forensic_workitems_are_not_there_without_the_role(
    http: requests.Session, storage: Storage, seed: int
) -> None:
    item = add(storage, seed, lane=Lane.FORENSIC)
    study = {"StudyInstanceUID": item.study}
    for role, found in (("clinical-reviewer", False), ("forensic-reviewer", True)):
        told = principal("ada", role)
        assert (http.get(path(item), headers=told).status_code == 200) is found
        listed = http.get(f"{URL}/workitems", params=study, headers=told)
        assert (listed.status_code == 200) is found
