"""The worklist: one item a flagged study, generation and lane, in table storage.

Changes are conditional on the ETag that was read, so that of several people who claim an item
one wins and the others learn who did. An item holds no patient data; the study is named by its
StudyInstanceUID, which a reader's client needs to fetch the images.

An item that needs two readers goes through stages. ``first``: anybody of the lane reads it.
``second``: another does, who is not shown the first reading. Where the two say the same it is
decided; else, ``adjudication``: a third, who sees both, decides.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from slicewatch import decision as decisions
from slicewatch.record import Record
from slicewatch.records import Lane, Review
from slicewatch.storage import WORKLIST, Conflict, Storage

STATES = ("open", "claimed", "decided", "superseded")
WAITING = ("open", "claimed")
STAGES = ("first", "second", "adjudication")
_PRIORITY_PER_LEVEL = 10
_TEXT = 30_000  # characters of a property, which may have 64 KiB of UTF-16
_LONG = ("rules", "decision", "readings")


class NoSuchItem(KeyError):
    """The worklist has no such item."""


class ItemConflict(Exception):
    """The item's state does not allow the change; `item` is the item as it stands."""

    def __init__(self, item: Item, cause: str, code: str = "") -> None:
        super().__init__(cause)
        self.item = item
        self.code = code or f"item-{item.state}"


@dataclass(frozen=True, slots=True)
class Reader:
    """Who claims, releases and decides.

    Attributes:
        user: their id, `name` what people call them.
        lock: of a workstation that works by UPS-RS, what its Transaction UID is known by: a claim
            belongs to the workstation that made it.
        development: nobody vouches for who they are.
    """

    user: str
    name: str
    lock: str | None = None
    development: bool = False


@dataclass(frozen=True, slots=True)
class Reading(Record):
    """What one reader decided, at which stage, and when (UTC ISO 8601)."""

    stage: str
    reader: str
    name: str
    time: str
    decision: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Item(Record):
    """One entry of the worklist; times are UTC ISO 8601.

    Attributes:
        state: ``open``, ``claimed``, ``decided`` or ``superseded``.
        level: how often it escalated; each level adds to `priority`, up to 100.
        notified: its lane's queue was told, at the level `notified - 1`; 0: not yet.
        holder: user id of who claimed it last, `holder_name` what people call them.
        lock: of a claim by UPS-RS, what its Transaction UID is known by.
        decision: what it was decided, once `state` is ``decided``; see `slicewatch.decision`.
        readers_needed: 1, or 2 for a second reader and, where they differ, a third.
        stage: which reading is next, or was the last.
        readings: those so far; `read` counts them, also where a list leaves them out.
    """

    id: str
    study: str
    generation: int
    lane: Lane
    priority: int
    summary: str
    rules: tuple[str, ...]
    created: str
    state: str = "open"
    level: int = 0
    notified: int = 0
    holder: str | None = None
    holder_name: str | None = None
    lock: str | None = None
    claimed: str | None = None
    decided: str | None = None
    decision: dict[str, Any] | None = None
    readers_needed: int = 1
    stage: str = "first"
    readings: tuple[Reading, ...] = ()
    read: int = 0

    @property
    def urgency(self) -> int:
        """Priority with what the escalation adds, 0 to 100."""
        return min(100, self.priority + _PRIORITY_PER_LEVEL * self.level)

    def is_held_by(self, reader: Reader) -> bool:
        """Whether it is claimed by them, through the same door."""
        return (self.state, self.holder, self.lock) == ("claimed", reader.user, reader.lock)


SUMMARY = tuple(
    one.name for one in dataclasses.fields(Item) if one.name not in ("id", "decision", "readings")
)
"""What a list needs of an item: all but what people wrote."""


def items_of(
    review: Review, instance_id: str, now: datetime, *, forensic_readers: int = 1
) -> Iterator[Item]:
    """The items that a review asks for: one a lane, with ids that depend on nothing else."""
    for flag in review.lanes:
        yield Item(
            id=_id(review, instance_id, flag.lane),
            study=review.study_instance_uid,
            generation=review.generation,
            lane=flag.lane,
            priority=flag.priority,
            summary=flag.summary,
            rules=flag.rules,
            created=now.isoformat(timespec="milliseconds"),
            readers_needed=forensic_readers if flag.lane is Lane.FORENSIC else 1,
        )


def of_review(storage: Storage, review: Review, instance_id: str) -> list[Item]:
    """The items of one generation as they stand; fewer than its lanes before it is published."""
    found = []
    for flag in review.lanes:
        with contextlib.suppress(NoSuchItem):
            found.append(get(storage, _id(review, instance_id, flag.lane)))
    return found


def _id(review: Review, instance_id: str, lane: Lane) -> str:
    return f"{instance_id}-{review.generation}-{lane}"


# --- what there is ------------------------------------------------------------------------------


def add(storage: Storage, item: Item) -> Item:
    """Put an item on the worklist; one that is there already is left as it is and returned."""
    try:
        storage.insert_entity(WORKLIST, entity_of(item))
    except Conflict:
        return get(storage, item.id)
    return item


def get(storage: Storage, item: str) -> Item:
    """Raises `NoSuchItem`."""
    return _read(storage, item)[0]


def listing(
    storage: Storage, *, lane: Lane | None = None, states: tuple[str, ...] = WAITING
) -> list[Item]:
    """The items in these states with all that was decided, sorted by id."""
    condition = " or ".join(f"state eq @s{n}" for n in range(len(states)))
    parameters: dict[str, Any] = {f"s{n}": state for n, state in enumerate(states)}
    if lane is not None:
        # The SDK finds a parameter only where spaces are around it.
        condition = f"PartitionKey eq @lane and ( {condition} )"
        parameters["lane"] = lane.value
    found = [item_of(entity) for entity in storage.entities(WORKLIST, condition, parameters)]
    return sorted(found, key=lambda item: item.id)


def of_study(storage: Storage, study: str) -> list[Item]:
    """All items of a study, of every generation and state."""
    entities = storage.entities(WORKLIST, "study eq @study", {"study": study})
    return sorted((item_of(entity) for entity in entities), key=lambda item: item.id)


# --- what readers do ----------------------------------------------------------------------------


def claim(storage: Storage, item: str, reader: Reader) -> Item:
    """Take an open item; taking one's own again is fine.

    Raises:
        ItemConflict: it is not open, or this reader has given a reading of it already.
        NoSuchItem: the worklist has no such item.
    """

    def change(found: Item) -> Item:
        if found.is_held_by(reader):
            return found
        if found.state != "open":
            raise ItemConflict(found, f"the item is {_standing(found)}")
        if reader.user in {one.reader for one in found.readings}:
            raise ItemConflict(
                found, "you have read this item; it waits for another reader", "already-read"
            )
        return dataclasses.replace(
            found,
            state="claimed",
            holder=reader.user,
            holder_name=reader.name,
            lock=reader.lock,
            claimed=_now(),
        )

    return _change(storage, item, change)


def release(storage: Storage, item: str, reader: Reader, *, anybodys: bool = False) -> Item:
    """Give a claimed item back. Raises `ItemConflict`, `NoSuchItem`.

    Args:
        anybodys: also what another holds.
    """

    def change(found: Item) -> Item:
        if not (found.is_held_by(reader) or (anybodys and found.state == "claimed")):
            raise ItemConflict(
                found, f"the item is {_standing(found)}, so it is not yours to release"
            )
        return _given_back(found)

    return _change(storage, item, change)


def decide(storage: Storage, item: str, reader: Reader, decision: dict[str, Any]) -> Item:
    """Record what the reader who claimed the item decides; the same again is fine.

    Returns:
        The item: decided, or open for the next reader.

    Raises:
        ItemConflict: it is superseded, decided otherwise, or not claimed by this reader.
        NoSuchItem: the worklist has no such item.
    """

    def change(found: Item) -> Item:
        said = [one.decision for one in found.readings if one.reader == reader.user]
        if decision in said and found.state != "superseded":
            return found
        if not found.is_held_by(reader):
            ahead = "; claim it before deciding" if found.state == "open" else ""
            raise ItemConflict(found, f"the item is {_standing(found)}{ahead}")
        reading = Reading(found.stage, reader.user, reader.name, _now(), decision)
        read = dataclasses.replace(
            found, readings=(*found.readings, reading), read=len(found.readings) + 1
        )
        if _is_settled(read):
            return dataclasses.replace(
                read, state="decided", decided=reading.time, decision=decision
            )
        # The lane is told again: `notified` falls back to where this level is still to be told.
        waiting = dataclasses.replace(read, stage=STAGES[read.read], notified=read.level)
        return _given_back(waiting)

    return _change(storage, item, change)


def _is_settled(item: Item) -> bool:
    """Whether the readings decide it: as many as are needed, who agree, or an adjudication."""
    if len(item.readings) < item.readers_needed:
        return False
    if item.stage != "second":
        return True
    first, second = (decisions.stored(one.decision) for one in item.readings)
    return first.agrees_with(second)


# --- what the study's orchestration does --------------------------------------------------------


def supersede(storage: Storage, item: str) -> Item:
    """A newer review took over; a decided item stays decided."""

    def change(found: Item) -> Item:
        if found.state == "decided":
            return found
        return dataclasses.replace(found, state="superseded")

    return _change(storage, item, change)


def escalate(storage: Storage, item: str, level: int) -> Item:
    """Raise an undecided item to a level; it never falls."""

    def change(found: Item) -> Item:
        if found.state not in WAITING:
            return found
        return dataclasses.replace(found, level=max(level, found.level))

    return _change(storage, item, change)


def notify(storage: Storage, item: Item) -> None:
    """Tell the lane's queue of the item, once a level and stage: queue ``review-{lane}``.

    A crash between the message and the note of it sends the message twice, never not at all.
    """
    if item.state not in WAITING or item.notified > item.level:
        return
    message = {
        "item": item.id,
        "lane": item.lane.value,
        "priority": item.urgency,
        "level": item.level,
        "stage": item.stage,
        "created": item.created,
    }
    storage.enqueue(f"review-{item.lane}", json.dumps(message))

    def change(found: Item) -> Item:
        if found.stage != item.stage:
            return found
        return dataclasses.replace(found, notified=max(found.notified, item.level + 1))

    _change(storage, item.id, change)


def _given_back(item: Item) -> Item:
    return dataclasses.replace(
        item, state="open", holder=None, holder_name=None, lock=None, claimed=None
    )


def _standing(item: Item) -> str:
    if item.state != "claimed":
        return item.state
    return f"claimed by {item.holder_name or item.holder}" + (" with UPS-RS" if item.lock else "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# --- entities -----------------------------------------------------------------------------------


def _change(storage: Storage, item: str, change: Callable[[Item], Item]) -> Item:
    """Apply a change to the item as it stands; a lost race is judged anew on the new state."""
    while True:
        found, etag = _read(storage, item)
        changed = change(found)
        if changed == found:
            return found
        try:
            storage.replace_entity(WORKLIST, entity_of(changed), etag=etag)
        except Conflict:
            continue
        return changed


def _read(storage: Storage, item: str) -> tuple[Item, str]:
    lane = item.rsplit("-", 1)[-1]
    entity = storage.entity(WORKLIST, lane, item) if lane in set(Lane) else None
    if entity is None:
        raise NoSuchItem(item)
    return item_of(entity), entity["etag"]


def entity_of(item: Item) -> dict[str, Any]:
    """An item as a table entity; what is too long for one property goes on in the next."""
    plain = item.to_json()
    plain.pop("id")
    for key in _LONG:
        if key in plain:
            plain |= parts(key, json.dumps(plain.pop(key)))
    return {"PartitionKey": item.lane.value, "RowKey": item.id, **plain}


def item_of(entity: dict[str, Any]) -> Item:
    """The item of an entity, or of its `SUMMARY`."""
    values = {**entity, "id": entity["RowKey"]}
    for key in _LONG:
        if values.get(key) is not None:
            values[key] = json.loads(joined(key, values))
    return Item.from_json({key: value for key, value in values.items() if value is not None})


def parts(key: str, text: str) -> dict[str, str]:
    """A long text as properties: `key`, ``{key}_1``, …"""
    found = {key: text[:_TEXT]}
    for number, start in enumerate(range(_TEXT, len(text), _TEXT), start=1):
        found[f"{key}_{number}"] = text[start : start + _TEXT]
    return found


def joined(key: str, values: dict[str, Any]) -> str:
    """The text that `parts` made the properties of."""
    text, number = str(values[key]), 1
    while (more := values.get(f"{key}_{number}")) is not None:
        text, number = text + more, number + 1
    return text
