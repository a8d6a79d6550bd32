"""UIDs of what is made of a study's review: they follow from what it says, and from nothing else.

UIDs are under 2.25 (PS3.5 annex B.2), made of 128 bits of a SHA-256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from enum import StrEnum
from typing import Any

from slicewatch.records import Review


class Kind(StrEnum):
    """The two series that a study is given; the value is the Modality."""

    REPORT = "SR"
    PRESENTATION = "PR"


def uid(*parts: Any) -> str:
    """A UID that follows from `parts`, JSON values."""
    text = json.dumps(["slicewatch", *parts], sort_keys=True, separators=(",", ":"))
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}"


def series_uid(study: str, kind: Kind) -> str:
    """The series of a study's reports, or of its presentation states, of all generations."""
    return uid("series", study, kind.value)


def is_ours(study: str, series: str) -> bool:
    """Whether a series holds results that were made here: a PACS may send them back."""
    return series in (series_uid(study, kind) for kind in Kind)


def of_review(review: Review, *parts: Any) -> str:
    """A UID of one thing that is made of a review: what it says counts, not when it was said."""
    said = dataclasses.replace(review, timings={}).to_json()
    return uid("review", said, *parts)


def of_finding(study: str, finding: str) -> str:
    """The tracking UID of a finding: the same in all generations that list it."""
    return uid("finding", study, finding)
