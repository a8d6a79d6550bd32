"""Which boxes of a review a result can show, and on which originals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from slicewatch.decision import DrawnBox
from slicewatch.records import Box, Finding, Review
from slicewatch.reporting.reading import Reading
from slicewatch.reporting.subject import Referenced

MAX_REGIONS = 1000
"""Boxes in one object: 1,000 findings of one slice each make a report of 2 MB."""

type Originals = Mapping[str, Referenced]
"""SOP instance UID → what is known of the original."""


@dataclass(frozen=True, slots=True)
class Region:
    """A box on a frame of an original; `score` 0 to 1, ``None`` for a reader's."""

    on: Referenced
    frame: int
    box: Box
    score: float | None = None

    @property
    def frames(self) -> list[int] | None:
        """The frame as a reference names it: only where the object has several."""
        return [self.frame] if self.on.frames > 1 else None

    @property
    def corners(self) -> list[tuple[float, float]]:
        """The closed outline, (column, row): pixel edges, (0, 0) the frame's upper left corner
        (PS3.3 sections C.18.6.1.1 and C.10.5.1.2 count the same way).
        """
        x1, y1, x2, y2 = self.box
        return [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]


@dataclass(slots=True)
class Selection:
    """The boxes that one object shows, and what it leaves out, in words.

    Attributes:
        findings: finding id → its regions, in the order of the review.
        left: boxes that may be added.
    """

    findings: dict[str, list[Region]] = field(default_factory=dict)
    left: int = field(default_factory=lambda: MAX_REGIONS)
    too_many: int = 0
    not_referable: int = 0

    def take(
        self, boxes: Iterable[tuple[DrawnBox, float | None]], originals: Originals
    ) -> list[Region]:
        """Those of the boxes that can be shown."""
        taken = []
        for marked, score in boxes:
            original = originals.get(marked.sop_instance_uid)
            if original is None or not 1 <= marked.frame <= original.frames:
                self.not_referable += 1
            elif not self.left:
                self.too_many += 1
            elif (box := _inside(marked.box, original)) is None:
                self.not_referable += 1
            else:
                self.left -= 1
                taken.append(Region(original, marked.frame, box, score))
        return taken

    @property
    def remarks(self) -> list[str]:
        """What was left out, a sentence each."""
        found = []
        if self.too_many:
            found.append(
                f"{self.too_many} boxes beyond the {MAX_REGIONS} that one document holds; those of"
                " the findings with the lowest scores"
            )
        if self.not_referable:
            found.append(f"{self.not_referable} boxes on objects that cannot be referred to")
        return found


def select(review: Review, originals: Originals) -> Selection:
    """The boxes of a review's findings, the flagged and highest ones first, up to the bound."""
    selection = Selection()
    for finding in review.findings:
        selection.findings[finding.id] = selection.take(_boxes(finding), originals)
    return selection


def instances(review: Review, reading: Reading | None = None) -> set[str]:
    """SOP instance UIDs of what the boxes lie on."""
    found = {one.sop_instance_uid for finding in review.findings for one in finding.slices}
    if reading is not None:
        said = reading.decision
        found |= {box.sop_instance_uid for one in said.additions for box in one.boxes}
        found |= {box.sop_instance_uid for one in said.findings.values() for box in one.boxes}
    return found


def _boxes(finding: Finding) -> list[tuple[DrawnBox, float | None]]:
    # A box on a variant (``~`` in its name) lies on other pixels than the UID's instance shows.
    return [
        (
            DrawnBox(one.sop_instance_uid if "~" not in one.blob else "", one.frame, one.box),
            one.score,
        )
        for one in finding.slices
    ]


def _inside(box: Box, original: Referenced) -> Box | None:
    """The part of the box that lies in the frame; ``None`` when there is none."""
    x1, x2 = (min(max(side, 0.0), float(original.columns)) for side in (box[0], box[2]))
    y1, y2 = (min(max(side, 0.0), float(original.rows)) for side in (box[1], box[3]))
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
