"""What a reader decides of a worklist item: a verdict on each finding, boxes of their own, words.

A decision is stored as JSON::

    {"verdict": "changed",
     "findings": {"<finding id>": {"verdict": "rejected", "comment": "vessel", "boxes": []}},
     "additions": [{"id": "added-1", "label": "mass", "comment": "",
                    "boxes": [{"sop_instance_uid": "1.2", "frame": 1, "box": [x1, y1, x2, y2]}]}],
     "comment": "…"}

Boxes are in pixels of the source frame (x right, y down, pixel edges), frames count from 1.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from slicewatch.plain_text import is_plain_text
from slicewatch.record import Record
from slicewatch.records import Box
from slicewatch.uids import is_uid

MAX_COMMENT = 4000
MAX_LABEL = 64
MAX_FINDINGS = 500
MAX_ADDITIONS = 200
MAX_STORED = 100_000
"""Characters of a decision's JSON: an item holds up to four in one table entity of 1 MiB."""

_OF_DECISION = frozenset({"verdict", "findings", "additions", "comment", "reader"})
_OF_FINDING = frozenset({"verdict", "label", "comment", "boxes"})
_OF_ADDITION = frozenset({"id", "label", "comment", "boxes"})

type FrameSizes = Callable[[str], tuple[int, int, int] | None]
"""SOP instance UID → rows, columns and frames of the study's instance; ``None``: no such image."""


class Verdict(StrEnum):
    """What a reader says of a flag, and of a finding."""

    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    CHANGED = "changed"


class BadDecision(ValueError):
    """A decision that cannot be taken; `code` names the cause for programs."""

    def __init__(self, code: str, cause: str) -> None:
        super().__init__(cause)
        self.code = code


@dataclass(frozen=True, slots=True)
class DrawnBox(Record):
    """A box that a reader drew on one frame."""

    sop_instance_uid: str
    frame: int
    box: Box


@dataclass(frozen=True, slots=True)
class FindingDecision(Record):
    """What a reader says of one finding.

    Attributes:
        label: what it is instead; ``None``: its label stays.
        boxes: where it is instead; empty: its boxes stay.
    """

    verdict: Verdict
    label: str | None = None
    comment: str = ""
    boxes: tuple[DrawnBox, ...] = ()


@dataclass(frozen=True, slots=True)
class Addition(Record):
    """Something that a reader found and the detector did not."""

    id: str
    label: str
    boxes: tuple[DrawnBox, ...]
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Decision(Record):
    """All that a reader says of an item."""

    verdict: Verdict
    findings: dict[str, FindingDecision] = field(default_factory=dict)
    additions: tuple[Addition, ...] = ()
    comment: str = ""

    def agrees_with(self, other: Decision) -> bool:
        """Whether two readers say the same: the verdict, each finding's verdict and label, and
        what was added, by labels. Words and the edges of boxes may differ.
        """
        return self._gist() == other._gist()

    def _gist(self) -> tuple[Any, ...]:
        findings = {key: (one.verdict, one.label) for key, one in self.findings.items()}
        return self.verdict, findings, Counter(one.label.casefold() for one in self.additions)


def stored(data: Mapping[str, Any]) -> Decision:
    """A decision of its JSON; findings may be mere verdicts, as they once were."""
    findings = {
        key: {"verdict": one} if isinstance(one, str) else one
        for key, one in (data.get("findings") or {}).items()
    }
    return Decision.from_json({**data, "findings": findings})


def read(
    body: Mapping[str, Any], finding_ids: Collection[str], frame_sizes: FrameSizes
) -> Decision:
    """A decision of a request's body.

    Without a ``verdict`` the findings say it: all confirmed, all rejected and nothing added, or
    else changed. One that contradicts them is refused.

    Args:
        finding_ids: of the review that is decided on.
        frame_sizes: asked for each instance that has a box.

    Raises:
        BadDecision: ``bad-decision`` for a malformed body, ``unknown-finding``, ``box-outside``
            for a box that is not on its frame, ``comment-too-long``, ``decision-too-large``.
    """
    _only(body, _OF_DECISION, "the body")
    boxes = _Boxes(frame_sizes)
    comment = _comment(body.get("comment"), "comment")
    findings = dict(_findings(body.get("findings"), finding_ids, boxes))
    additions = tuple(_additions(body.get("additions"), boxes))
    given = body.get("verdict")
    verdict = _overall(findings, additions) if given is None else _verdict(given, "verdict")
    _check_agreement(verdict, findings, additions)
    decision = Decision(verdict, findings, additions, comment)
    size = len(json.dumps(decision.to_json()))
    if size > MAX_STORED:
        raise BadDecision(
            "decision-too-large", f"the decision has {size} characters, at most {MAX_STORED}"
        )
    return decision


def read_reason(body: Mapping[str, Any]) -> str:
    """Why a decision is corrected. Raises `BadDecision`."""
    reason = _comment(body.get("reason"), "reason")
    if not reason.strip():
        raise BadDecision("bad-decision", "`reason` is missing or empty")
    return reason


def _overall(findings: Mapping[str, FindingDecision], additions: tuple[Addition, ...]) -> Verdict:
    said = {one.verdict for one in findings.values()}
    if not said and not additions:
        raise BadDecision("bad-decision", "`verdict` is missing, and no finding is judged")
    if len(said) == 1 and not additions:
        return said.pop()
    return Verdict.CHANGED


def _check_agreement(
    verdict: Verdict, findings: Mapping[str, FindingDecision], additions: tuple[Addition, ...]
) -> None:
    """Rejecting all that was judged confirms no flag, and a finding that is left rejects none."""
    said = {one.verdict for one in findings.values()}
    nothing_left = said == {Verdict.REJECTED} and not additions
    something_left = Verdict.CONFIRMED in said or bool(additions)
    if (verdict is Verdict.CONFIRMED and nothing_left) or (
        verdict is Verdict.REJECTED and something_left
    ):
        raise BadDecision(
            "bad-decision", f"`verdict` is {verdict}, which contradicts `findings` or `additions`"
        )


def _findings(
    given: Any, known: Collection[str], boxes: _Boxes
) -> Iterator[tuple[str, FindingDecision]]:
    if given is None:
        return
    if not isinstance(given, dict):
        raise BadDecision("bad-decision", "`findings` is no object of finding ids")
    if len(given) > MAX_FINDINGS:
        raise BadDecision("bad-decision", f"`findings` names more than {MAX_FINDINGS}")
    for name, one in given.items():
        if name not in known:
            raise BadDecision("unknown-finding", f"the review has no finding {name[:64]!r}")
        where = f"findings[{name}]"
        said = one if isinstance(one, dict) else {"verdict": one}
        _only(said, _OF_FINDING, f"`{where}`")
        label = said.get("label")
        yield (
            name,
            FindingDecision(
                _verdict(said.get("verdict"), f"{where}.verdict"),
                None if label is None else _label(label, where),
                _comment(said.get("comment"), f"{where}.comment"),
                tuple(boxes.read(said.get("boxes"), where)),
            ),
        )


def _additions(given: Any, boxes: _Boxes) -> Iterator[Addition]:
    if given is None:
        return
    if not isinstance(given, list) or len(given) > MAX_ADDITIONS:
        raise BadDecision("bad-decision", f"`additions` is no list of at most {MAX_ADDITIONS}")
    for number, one in enumerate(given, start=1):
        where = f"additions[{number - 1}]"
        if not isinstance(one, dict):
            raise BadDecision("bad-decision", f"`{where}` is no object")
        _only(one, _OF_ADDITION, f"`{where}`")
        drawn = tuple(boxes.read(one.get("boxes"), where))
        if not drawn:
            raise BadDecision("bad-decision", f"`{where}` has no boxes")
        comment = _comment(one.get("comment"), f"{where}.comment")
        yield Addition(f"added-{number}", _label(one.get("label"), where), drawn, comment)


class _Boxes:
    """Reads boxes; each instance's size is asked for once."""

    def __init__(self, frame_sizes: FrameSizes) -> None:
        self._ask = frame_sizes
        self._sizes: dict[str, tuple[int, int, int] | None] = {}

    def read(self, given: Any, where: str) -> Iterator[DrawnBox]:
        if given is None:
            return
        if not isinstance(given, list):
            raise BadDecision("bad-decision", f"`{where}.boxes` is no list")
        if len(given) * 40 > MAX_STORED:  # no box takes less than 40 characters
            raise BadDecision("decision-too-large", f"`{where}.boxes` has {len(given)} boxes")
        for number, one in enumerate(given):
            yield self._box(one, f"{where}.boxes[{number}]")

    def _box(self, given: Any, where: str) -> DrawnBox:
        one = given if isinstance(given, dict) else {}
        uid, frame, box = one.get("sop_instance_uid"), one.get("frame"), one.get("box")
        if not isinstance(uid, str) or not is_uid(uid):
            raise BadDecision("bad-decision", f"`{where}.sop_instance_uid` is no UID")
        if not isinstance(frame, int) or isinstance(frame, bool):
            raise BadDecision("bad-decision", f"`{where}.frame` is no frame number")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            raise BadDecision("bad-decision", f"`{where}.box` is not [x1, y1, x2, y2]")
        if uid not in self._sizes:
            self._sizes[uid] = self._ask(uid)
        size = self._sizes[uid]
        if size is None:
            raise BadDecision("box-outside", f"`{where}`: the study has no such image")
        rows, columns, frames = size
        if not 1 <= frame <= frames:
            raise BadDecision("box-outside", f"`{where}`: frame {frame} of {frames}")
        x1, y1, x2, y2 = (float(edge) for edge in box)
        if not (0 <= x1 < x2 <= columns and 0 <= y1 < y2 <= rows):
            raise BadDecision(
                "box-outside", f"`{where}` is not within the frame of {columns} × {rows} pixels"
            )
        return DrawnBox(uid, frame, (x1, y1, x2, y2))


def _only(given: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    """Refuse a key that means nothing: a decision is final, and what it holds would be lost."""
    for key in given:
        if key not in known:
            raise BadDecision("bad-decision", f"{where} has {key[:64]!r}, which is not known")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # A whole number of thousands of digits is one to JSON, and none to a float.
    return abs(value) < 1e9 if isinstance(value, int) else math.isfinite(value)


def _verdict(value: Any, where: str) -> Verdict:
    if not isinstance(value, str) or value not in set(Verdict):
        raise BadDecision("bad-decision", f"`{where}` is none of {', '.join(Verdict)}")
    return Verdict(value)


def _comment(value: Any, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not is_plain_text(value):
        raise BadDecision("bad-decision", f"`{where}` is no plain text")
    if len(value) > MAX_COMMENT:
        raise BadDecision(
            "comment-too-long", f"`{where}` has {len(value)} characters, at most {MAX_COMMENT}"
        )
    return value


def _label(value: Any, where: str) -> str:
    if (
        not isinstance(value, str)
        or not value.strip()
        or len(value) > MAX_LABEL
        or not is_plain_text(value)
    ):
        raise BadDecision(
            "bad-decision", f"`{where}.label` is no plain text of 1 to {MAX_LABEL} characters"
        )
    return value.strip()
