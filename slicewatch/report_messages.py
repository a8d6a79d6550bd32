"""What `report_study` and its activities say to each other: no UIDs of objects, a few counts."""

from __future__ import annotations

from dataclasses import dataclass

from slicewatch.messages import Retry
from slicewatch.record import Record


@dataclass(frozen=True, slots=True)
class ReportPlan(Record):
    """Input of ``report_study``: an orchestrator reads no settings, so they come with it."""

    study: str
    generation: int
    retry: Retry


@dataclass(frozen=True, slots=True)
class ReportRequest(Record):
    """Input of ``report_review`` and ``send_report``."""

    study: str
    generation: int


@dataclass(frozen=True, slots=True)
class Reported(Record):
    """Answer of ``report_review``.

    Attributes:
        objects: results that the generation has now.
        unsent: how many of them are to be sent; 0 where no PACS is configured.
    """

    objects: int
    unsent: int


@dataclass(frozen=True, slots=True)
class Delivered(Record):
    """Answer of ``send_report``: objects that the PACS took, and that it refused."""

    sent: int
    refused: int
