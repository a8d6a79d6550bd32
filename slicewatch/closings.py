"""What the senders of a study say when they have sent it: which instances it has, and what an edge
agent looked at before it sent them.

What an agent says of itself is its word. It is put down in the study's coverage, and raises or
lowers nothing: a slice that stayed on site is one that was not looked at here.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from slicewatch.records import EdgeDetection, EdgeScreening, Outcome, Whereabouts
from slicewatch.storage import REVIEWS, Storage
from slicewatch.uids import is_uid

MOST_INSTANCES = 200_000
_MOST_GROUPS = 1_000
_MOST_TEXT = 200
_GROUP_KEYS = {
    *("outcome", "whereabouts", "instances"),
    *("model", "model_sha256", "threshold", "detections"),
}
_DETECTION_KEYS = {"sop_instance_uid", "count", "score"}


class BadClosing(ValueError):
    """The list or the statement cannot be used; the text names the place."""


def close_study(
    storage: Storage,
    study: str,
    expected: Sequence[str] | None,
    screened_at_edge: Sequence[EdgeScreening] = (),
) -> None:
    """Record that the sender has sent everything, and the SOP instance UIDs where it lists them.

    Each list is a blob of its own and all of them count: senders that close at once lose none,
    and no sender makes an instance un-expected. What was screened at the edge is expected, too.
    """
    listed = {*(expected or ()), *(uid for one in screened_at_edge for uid in one.instances)}
    closing: dict[str, Any] = {"instances": sorted(listed)}
    if screened_at_edge:
        closing["screened_at_edge"] = [one.to_json() for one in screened_at_edge]
    digest = hashlib.sha256(json.dumps(closing).encode()).hexdigest()
    # Storage knows when a blob was written to the second, and two closings may share one.
    body = json.dumps(closing | {"noted": datetime.now(UTC).isoformat()}).encode()
    name = f"{study}/closed/{digest[:32]}.json"
    storage.write(REVIEWS, name, body, content_type="application/json")


def expected_instances(storage: Storage, study: str) -> tuple[str, ...] | None:
    """SOP instance UIDs that its senders listed at the close; ``None`` while it is not closed."""
    closings = _closings(storage, study)
    if not closings:
        return None
    return tuple(sorted({uid for closing in closings for uid in closing["instances"]}))


def awaited_instances(storage: Storage, study: str) -> tuple[str, ...] | None:
    """`expected_instances` but for those that an edge agent holds: nobody waits for these."""
    expected = expected_instances(storage, study)
    if expected is None:
        return None
    held = {
        uid
        for one in screened_at_edge(storage, study)
        if one.whereabouts.is_on_site
        for uid in one.instances
    }
    return tuple(uid for uid in expected if uid not in held)


def screened_at_edge(storage: Storage, study: str) -> tuple[EdgeScreening, ...]:
    """What edge agents say of the study's instances; of each instance, what was said last."""
    said: dict[str, tuple[EdgeScreening, EdgeDetection | None]] = {}
    for closing in _closings(storage, study):
        for one in map(EdgeScreening.from_json, closing.get("screened_at_edge", ())):
            found = {detection.sop_instance_uid: detection for detection in one.detections}
            for uid in one.instances:
                said[uid] = (one, found.get(uid))
    groups: defaultdict[tuple[Any, ...], list[str]] = defaultdict(list)
    for uid, (one, _) in said.items():
        groups[one.model, one.model_sha256, one.threshold, one.outcome, one.whereabouts].append(uid)
    return tuple(
        EdgeScreening(
            model=model,
            model_sha256=sha256,
            threshold=threshold,
            outcome=outcome,
            whereabouts=whereabouts,
            instances=tuple(sorted(uids)),
            detections=tuple(seen for uid in sorted(uids) if (seen := said[uid][1])),
        )
        for (model, sha256, threshold, outcome, whereabouts), uids in sorted(groups.items())
    )


def read_statement(given: Any) -> tuple[EdgeScreening, ...]:
    """What an agent sent as ``screened_at_edge``. Raises `BadClosing`."""
    if not isinstance(given, list) or len(given) > _MOST_GROUPS:
        raise BadClosing(f"`screened_at_edge` is not a list of at most {_MOST_GROUPS}")
    return tuple(_group(one, f"screened_at_edge[{at}]") for at, one in enumerate(given))


def read_instances(given: Any, where: str = "instances") -> list[str]:
    """A list of SOP instance UIDs. Raises `BadClosing`."""
    if not isinstance(given, list) or len(given) > MOST_INSTANCES:
        raise BadClosing(f"`{where}` is not a list of at most {MOST_INSTANCES}")
    for at, one in enumerate(given):
        if not isinstance(one, str) or not is_uid(one):
            raise BadClosing(f"`{where}[{at}]` is not a UID")
    return given


def _group(given: Any, where: str) -> EdgeScreening:
    _check_keys(given, _GROUP_KEYS, where)
    instances = read_instances(given.get("instances"), f"{where}.instances")
    detections = given.get("detections", [])
    if not isinstance(detections, list) or len(detections) > len(instances):
        raise BadClosing(f"`{where}.detections` is not a list of at most one an instance")
    try:
        return EdgeScreening(
            outcome=Outcome(given.get("outcome")),
            whereabouts=Whereabouts(given.get("whereabouts")),
            instances=tuple(instances),
            model=_text(given, "model", where),
            model_sha256=_text(given, "model_sha256", where),
            threshold=_number(given, "threshold", where),
            detections=tuple(
                _detection(one, f"{where}.detections[{at}]", set(instances))
                for at, one in enumerate(detections)
            ),
        )
    except ValueError as error:
        if isinstance(error, BadClosing):
            raise
        raise BadClosing(f"`{where}`: {error}") from None


def _detection(given: Any, where: str, instances: set[str]) -> EdgeDetection:
    _check_keys(given, _DETECTION_KEYS, where)
    uid, count = given.get("sop_instance_uid"), given.get("count")
    if uid not in instances:
        raise BadClosing(f"`{where}.sop_instance_uid` is none of the group's instances")
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise BadClosing(f"`{where}.count` is no whole number from 1")
    return EdgeDetection(uid, count, _number(given, "score", where))


def _check_keys(given: Any, known: set[str], where: str) -> None:
    if not isinstance(given, dict) or not given.keys() <= known:
        raise BadClosing(f"`{where}` is not an object with keys of {', '.join(sorted(known))}")


def _text(given: dict[str, Any], key: str, where: str) -> str:
    text = given.get(key, "")
    if not isinstance(text, str) or len(text) > _MOST_TEXT or not text.isprintable():
        raise BadClosing(f"`{where}.{key}` is no text of at most {_MOST_TEXT} characters")
    return text


def _number(given: dict[str, Any], key: str, where: str) -> float:
    number = given.get(key, 0.0)
    # A comparison with NaN is false.
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
        raise BadClosing(f"`{where}.{key}` is no number from 0 to 1")
    return float(number)


def _closings(storage: Storage, study: str) -> list[dict[str, Any]]:
    """Oldest first."""
    names = [blob.name for blob in storage.listing(REVIEWS, f"{study}/closed/")]
    found: list[dict[str, Any]] = [json.loads(storage.read(REVIEWS, name)) for name in names]
    return sorted(found, key=lambda closing: str(closing.get("noted", "")))
