"""In which order the worklist is read, and how long an item may wait.

The most urgent comes first. But a score can be wrong, and a low one must not bury a study: an item
that waited for its lane's limit (`Settings.clinical_max_wait_s`, `forensic_max_wait_s`) rises
above all that did not, whatever their urgency; among those that rose, the one whose limit ran out
first comes first. So nothing that comes later, however urgent, gets before an item that rose.
docs/worklist.md shows by simulation what that does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from slicewatch.records import Lane
from slicewatch.settings import Settings
from slicewatch.worklist import WAITING, Item

_HIDDEN = ("lock", "read", "readings")


@dataclass(frozen=True, slots=True)
class Standing:
    """An item against the clock.

    Attributes:
        due: when its service level next runs out; ``None`` once it does not wait any more.
        sla_s: its lane's service level, seconds.
        overdue: the service level ran out since the item was made.
        raised: it waited for the limit, and comes before all that did not.
    """

    due: datetime | None
    sla_s: float
    overdue: bool
    raised: bool


def sla_s(lane: Lane, settings: Settings) -> float:
    """The lane's service level, seconds."""
    return settings.forensic_sla_s if lane is Lane.FORENSIC else settings.clinical_sla_s


def max_wait_s(lane: Lane, settings: Settings) -> float:
    """How long an item of the lane waits at most before it rises, seconds."""
    return settings.forensic_max_wait_s if lane is Lane.FORENSIC else settings.clinical_max_wait_s


def standing(item: Item, settings: Settings, now: datetime) -> Standing:
    """How the item stands at a time."""
    level = sla_s(item.lane, settings)
    if item.state not in WAITING:
        return Standing(None, level, False, False)
    created = created_at(item)
    return Standing(
        due=created + timedelta(seconds=level * (item.level + 1)),
        sla_s=level,
        overdue=(now - created).total_seconds() >= level,
        raised=(now - created).total_seconds() >= max_wait_s(item.lane, settings),
    )


def told(item: Item, user: str, settings: Settings, now: datetime) -> dict[str, Any]:
    """An item as JSON for somebody: how it stands, whether it is theirs, the number of readings
    instead of what they say, and no lock of a claim.
    """
    stands = standing(item, settings, now)
    said = {key: value for key, value in item.to_json().items() if key not in _HIDDEN}
    return said | {
        "urgency": item.urgency,
        "due": stands.due.isoformat(timespec="milliseconds") if stands.due else None,
        "sla_s": stands.sla_s,
        "overdue": stands.overdue,
        "raised": stands.raised,
        "readings": item.read,
        "mine": item.state == "claimed" and item.holder == user,
    }


def created_at(item: Item) -> datetime:
    """When the item was made, aware."""
    created = datetime.fromisoformat(item.created)
    return created if created.tzinfo else created.replace(tzinfo=UTC)


def by_urgency(item: Item) -> tuple[int, str, str]:
    """Sort key of items that have not risen."""
    return -item.urgency, item.created, item.id


def queue(items: Iterable[Item], settings: Settings, now: datetime) -> list[Item]:
    """The items in the order in which they are to be read; `items` may be in any."""
    return merged(sorted(items, key=by_urgency), settings, now)


def merged(items: list[Item], settings: Settings, now: datetime) -> list[Item]:
    """`queue` of items that are sorted `by_urgency`."""
    latest = {
        lane: (now - timedelta(seconds=max_wait_s(lane, settings))).isoformat(
            timespec="microseconds"
        )
        for lane in Lane
    }
    # Times of one form and zone compare as text, to the millisecond of `created`.
    rose = [one for one in items if one.created <= latest[one.lane] and one.state in WAITING]
    if not rose:
        return items
    risen = {one.id for one in rose}
    rose.sort(key=lambda one: (_limit(one, settings), one.id))
    return rose + [one for one in items if one.id not in risen]


def _limit(item: Item, settings: Settings) -> datetime:
    return created_at(item) + timedelta(seconds=max_wait_s(item.lane, settings))
