"""A reader's decision on a clinical item, as the reports tell it."""

from __future__ import annotations

from dataclasses import dataclass

from slicewatch.decision import Decision


@dataclass(frozen=True, slots=True)
class Reading:
    """One decision, or one correction of it.

    Attributes:
        number: 1 for the decision, then its corrections.
        reader: what people call them.
        decided: UTC ISO 8601.
        reason: of a correction.
    """

    number: int
    reader: str
    decided: str
    decision: Decision
    reason: str = ""
