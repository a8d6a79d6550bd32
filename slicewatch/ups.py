"""The worklist as Unified Procedure Steps (UPS-RS, PS3.18 chapter 11; PS3.4 annex CC).

A worklist item is a workitem. The states are those of the item:

===========  ===========  =================================================================
item         workitem     how it comes there
===========  ===========  =================================================================
open         SCHEDULED    the review flagged the study
claimed      IN PROGRESS  Change State with a Transaction UID, or a claim at another door
decided      COMPLETED    Change State, after an update gave the verdict
superseded   CANCELED     a newer review of the study took over
===========  ===========  =================================================================

The Transaction UID is the lock of its workitem and is never given out. A hash of it is kept with
the claim, beside the user who claimed: a claim is one conditional write whichever door it came
through, and only the user who made it goes on with it, with its Transaction UID.

A workitem's UID follows from its item's id, and back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from slicewatch import custody_record, matching, worklist, worklist_index
from slicewatch.decision import Decision, Verdict
from slicewatch.identity import Identity
from slicewatch.qido import Found, Parameters
from slicewatch.records import Lane
from slicewatch.settings import Settings
from slicewatch.storage import Conflict, Storage
from slicewatch.workitems import (
    STATE,
    STATES,
    BadDataset,
    NoSuchWorkitem,
    has_uid,
    item_id,
    read_update,
    workitem,
)
from slicewatch.worklist import Item, ItemConflict, NoSuchItem, Reader

type Json = dict[str, Any]

UPDATES = "upsupdates"
"""Table of what performers told of workitems they have claimed."""


class Refused(Exception):
    """A transaction that the workitem's state or its lock does not allow.

    Attributes:
        status: HTTP status.
        warning: the standard's text for the Warning header (PS3.18 sections 11.6 to 11.8).
        remedy: what can be done; the exception's text is the cause.
    """

    def __init__(self, status: int, warning: str, cause: str, remedy: str) -> None:
        super().__init__(cause)
        self.status, self.warning, self.remedy = status, warning, remedy


_INCONSISTENT = "The submitted request is inconsistent with the state of the UPS Instance."
_INCORRECT = "The Transaction UID is incorrect."
_ALREADY = "The UPS is already in the requested state of {}."


def _inconsistent(cause: str, remedy: str) -> Refused:
    return Refused(409, _INCONSISTENT, cause, remedy)


# --- items -------------------------------------------------------------------------------------


def lock_of(transaction_uid: str) -> str:
    """What a claim with this Transaction UID is known by."""
    return hashlib.sha256(transaction_uid.encode()).hexdigest()[:32]


def get(storage: Storage, uid: str) -> Item:
    """The item of a workitem. Raises `NoSuchWorkitem`."""
    try:
        return worklist.get(storage, item_id(uid))
    except NoSuchItem:
        raise NoSuchWorkitem(uid) from None


# --- what a performer tells ---------------------------------------------------------------------


def told_of(storage: Storage, item: Item) -> Json:
    """What the performer who holds the item told: ``verdict``, ``comment``, ``progress``."""
    entity = storage.entity(UPDATES, item.lane, item.id)
    if entity is None or entity["lock"] != item.lock:
        return {}
    found: Json = json.loads(entity["told"])
    return found


def update(
    storage: Storage, uid: str, transaction_uid: str, user: str, dataset: Mapping[str, Any]
) -> bool:
    """The Update transaction (section 11.6), of a workitem IN PROGRESS.

    Kept are the progress (Procedure Step Progress Description), and of the performed procedure
    its Performed Workitem Code (the verdict) and the comments on it.

    Returns:
        Whether all attributes were kept; ``False``: some are not supported.

    Raises:
        NoSuchWorkitem: there is none.
        Refused: it is not IN PROGRESS, or claimed with another Transaction UID.
        BadDataset: a supported attribute has a value that cannot be used.
    """
    item = get(storage, uid)
    if item.state != "claimed":
        raise Refused(
            409 if item.state == "open" else 400,
            "The target URI did not reference a claimed Workitem.",
            f"the workitem is {STATES[item.state]}",
            "claim it first: change its state to IN PROGRESS",
        )
    _check_lock(item, transaction_uid, user)
    told, whole = read_update(dataset)
    kept = {**told_of(storage, item), **told}
    entity = {
        "PartitionKey": item.lane.value,
        "RowKey": item.id,
        "lock": item.lock,
        "told": json.dumps(kept),
    }
    _put(storage, entity)
    return whole


def _put(storage: Storage, entity: Json) -> None:
    """Insert or replace; of two updates at once, the later is what counts."""
    while True:
        found = storage.entity(UPDATES, entity["PartitionKey"], entity["RowKey"])
        with contextlib.suppress(Conflict):
            if found is None:
                storage.insert_entity(UPDATES, entity)
            else:
                storage.replace_entity(UPDATES, entity, etag=found["etag"])
            return


def _check_lock(item: Item, transaction_uid: str, user: str) -> None:
    if not transaction_uid:
        raise Refused(
            400,
            "The Transaction UID is missing.",
            "the request has no Transaction UID",
            "send the one that the workitem was claimed with",
        )
    if (item.holder, item.lock) != (user, lock_of(transaction_uid)):
        raise Refused(
            400,
            _INCORRECT,
            "the workitem is claimed with another Transaction UID, by another, or at another door",
            "send the one that the workitem was claimed with",
        )


# --- states -------------------------------------------------------------------------------------


def change_state(
    storage: Storage, settings: Settings, uid: str, state: str, transaction_uid: str, user: Identity
) -> tuple[Item, str]:
    """The Change State transaction (section 11.7).

    COMPLETED needs a verdict, which an update gave before. CANCELED gives a claimed workitem
    back: what was flagged stays on the worklist until somebody decides it.

    Returns:
        The item, and a text for the Warning header; empty where there is nothing to say.

    Raises:
        NoSuchWorkitem: there is none.
        Refused: its state or its lock does not allow the change.
        BadDataset: there is no such state to change to.
    """
    item = get(storage, uid)
    if state not in ("IN PROGRESS", "COMPLETED", "CANCELED"):
        raise BadDataset("the state to change to is none of IN PROGRESS, COMPLETED and CANCELED")
    if STATES[item.state] == state and state != "IN PROGRESS":
        return item, _ALREADY.format(state)
    if not transaction_uid:
        _check_lock(item, transaction_uid, user.user)
    reader = Reader(user.user, user.name, lock_of(transaction_uid), user.development)
    try:
        if state == "IN PROGRESS":
            return _claim(storage, settings, item, reader), ""
        if item.state != "claimed":
            raise _inconsistent(
                f"the workitem is {STATES[item.state]}", "change only what is IN PROGRESS"
            )
        _check_lock(item, transaction_uid, user.user)
        if state == "COMPLETED":
            return _completed(_complete(storage, settings, item, reader))
        item = custody_record.release(storage, settings, item.id, reader)
    except ItemConflict as error:
        raise _inconsistent(
            f"the workitem is {STATES[error.item.state]} meanwhile", "retrieve it and look again"
        ) from None
    return item, "The Workitem is SCHEDULED again: what was flagged is not taken off the worklist."


def _claim(storage: Storage, settings: Settings, item: Item, reader: Reader) -> Item:
    if item.state != "open":
        raise _inconsistent(f"the workitem is {STATES[item.state]}", "take one that is SCHEDULED")
    return custody_record.claim(storage, settings, item.id, reader)


def _complete(storage: Storage, settings: Settings, item: Item, reader: Reader) -> Item:
    told = told_of(storage, item)
    if "verdict" not in told:
        raise _inconsistent(
            "the workitem has no verdict, which its final state needs",
            "update it first: a Performed Workitem Code in the Unified Procedure Step Performed "
            "Procedure Sequence",
        )
    decision = Decision(Verdict(told["verdict"]), comment=told.get("comment", ""))
    return custody_record.decide(storage, settings, item.id, reader, decision.to_json())


def _completed(item: Item) -> tuple[Item, str]:
    if item.state == "decided":
        return item, ""
    return item, "The reading is kept; the Workitem is SCHEDULED again for another reader."


def request_cancellation(storage: Storage, uid: str) -> str:
    """The Request Cancellation transaction (section 11.8): refused, since nothing takes a flagged
    study off the worklist but a decision or a newer review.

    Returns:
        A text for the Warning header, of a workitem that is CANCELED already.

    Raises:
        NoSuchWorkitem: there is none.
        Refused: always else.
    """
    item = get(storage, uid)
    if item.state == "superseded":
        return _ALREADY.format("CANCELED")
    warning = "Performer chooses not to cancel."
    if item.state == "decided":
        warning = "The UPS is already COMPLETED."
    raise Refused(
        409,
        warning,
        "a flagged study leaves the worklist by a decision or a newer review alone",
        "decide the workitem, or leave it to others",
    )


# --- search -------------------------------------------------------------------------------------


def search(
    storage: Storage,
    settings: Settings,
    lanes: Collection[Lane],
    query: Parameters,
    base_url: str,
) -> Found:
    """The Search transaction (section 11.9): workitems of these lanes by `KEYS`, in the
    order of the queue.
    """
    wanted = query.values.get(STATE, [""])[0]
    states = tuple(state for state, name in STATES.items() if wanted in ("", "*", name))
    # A wildcard is matched below like any other key.
    items = worklist_index.in_order(
        storage,
        settings,
        datetime.now(UTC),
        lanes=lanes,
        states=states or worklist.STATES,
    )
    shown = (workitem(item, base_url) for item in items if has_uid(item.id))
    return query.page(
        one
        for one in shown
        if all(matching.matches(one.get(tag), test) for tag, test in query.tests.items())
    )
