"""What a reader decided of a clinical item, as the reports tell it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from slicewatch.records import Box


@dataclass(frozen=True, slots=True)
class Marked:
    """A box on a frame (from 1), pixels of the frame as in `slicewatch.records`."""

    sop_instance_uid: str
    frame: int
    box: Box


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one finding; `label` and `boxes` where the reader changed them."""

    verdict: str
    label: str = ""
    comment: str = ""
    boxes: tuple[Marked, ...] = ()


@dataclass(frozen=True, slots=True)
class Addition:
    """What the reader drew that no finding shows."""

    id: str
    label: str
    boxes: tuple[Marked, ...]
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """One decision, or one correction of it.

    Attributes:
        number: 1 for the decision, then its corrections.
        decided: UTC ISO 8601.
        reason: of a correction.
    """

    number: int
    reader: str
    decided: str
    verdict: str
    comment: str = ""
    reason: str = ""
    findings: Mapping[str, Judged] = field(default_factory=dict)
    additions: tuple[Addition, ...] = ()


def reading(
    number: int, reader: str, decided: str, decision: Mapping[str, Any], reason: str = ""
) -> Reading:
    """A decision as it is stored; findings are verdicts, or objects with a verdict."""
    findings = decision.get("findings") or {}
    return Reading(
        number=number,
        reader=reader,
        decided=decided,
        verdict=str(decision["verdict"]),
        comment=str(decision.get("comment") or ""),
        reason=reason,
        findings={key: _judged(value) for key, value in sorted(findings.items())},
        additions=tuple(
            Addition(
                id=str(one.get("id") or position),
                label=str(one.get("label") or "finding"),
                boxes=tuple(_boxes(one.get("boxes"))),
                comment=str(one.get("comment") or ""),
            )
            for position, one in enumerate(decision.get("additions") or (), start=1)
        ),
    )


def _judged(value: Any) -> Judged:
    if isinstance(value, str):
        return Judged(value)
    return Judged(
        verdict=str(value["verdict"]),
        label=str(value.get("label") or ""),
        comment=str(value.get("comment") or ""),
        boxes=tuple(_boxes(value.get("boxes"))),
    )


def _boxes(values: Iterable[Mapping[str, Any]] | None) -> Iterator[Marked]:
    for one in values or ():
        x1, y1, x2, y2 = (float(side) for side in one["box"])
        yield Marked(str(one["sop_instance_uid"]), int(one.get("frame") or 1), (x1, y1, x2, y2))
