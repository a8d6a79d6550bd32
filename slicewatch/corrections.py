"""Corrections of decided items: a decision is final, and a correction is a new entry beside it.

Entries are only ever inserted, numbered from 1 by item, and each says why and by whom. The last one
is what counts for whoever asks what an item was decided; all of them are kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from slicewatch import worklist
from slicewatch.record import Record
from slicewatch.storage import Conflict, Storage
from slicewatch.worklist import Item, ItemConflict, Reader

CORRECTIONS = "corrections"
"""The table: partition the item, row the number."""


@dataclass(frozen=True, slots=True)
class Correction(Record):
    """One correction; `time` is UTC ISO 8601, `decision` as `slicewatch.decision` has it."""

    number: int
    reader: str
    name: str
    time: str
    reason: str
    decision: dict[str, Any]


def of_item(storage: Storage, item: str) -> list[Correction]:
    """The corrections of an item, in order."""
    entities = storage.entities(CORRECTIONS, "PartitionKey eq @item", {"item": item})
    found = [
        Correction.from_json(json.loads(worklist.joined("correction", one))) for one in entities
    ]
    return sorted(found, key=lambda one: one.number)


def correct(
    storage: Storage, item: str, reader: Reader, decision: dict[str, Any], reason: str
) -> tuple[Item, Correction]:
    """Append a correction; the same again by the same reader, next to the last one, is fine.

    Raises:
        ItemConflict: the item is not decided.
        NoSuchItem: the worklist has no such item.
    """
    found = worklist.get(storage, item)
    if found.state != "decided":
        raise ItemConflict(found, f"the item is {found.state}, and only a decision is corrected")
    while True:
        earlier = of_item(storage, item)
        last = earlier[-1] if earlier else None
        same = (reader.user, reason, decision)
        if last and (last.reader, last.reason, last.decision) == same:
            return found, last
        made = Correction(
            number=len(earlier) + 1,
            reader=reader.user,
            name=reader.name,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            reason=reason,
            decision=decision,
        )
        text = json.dumps(made.to_json())
        row = {"PartitionKey": item, "RowKey": f"{made.number:06d}"}
        try:
            storage.insert_entity(CORRECTIONS, row | worklist.parts("correction", text))
        except Conflict:
            continue
        return found, made


def standing_decision(storage: Storage, item: Item) -> dict[str, Any] | None:
    """What counts: the last correction, else the decision; ``None`` of an undecided item."""
    if item.state != "decided":
        return None
    made = of_item(storage, item.id)
    return made[-1].decision if made else item.decision
