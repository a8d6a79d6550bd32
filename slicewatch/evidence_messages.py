"""What `export_evidence` and its activities say to each other."""

from __future__ import annotations

from dataclasses import dataclass

from slicewatch.messages import Retry
from slicewatch.record import Record


@dataclass(frozen=True, slots=True)
class EvidenceRequest(Record):
    """Input of ``export_evidence``; `requester` is who asked, as they said.

    Attributes:
        export: names the bundle; empty: the time at which the orchestration started.
    """

    study: str
    requester: str
    max_in_flight: int
    retry: Retry
    export: str = ""


@dataclass(frozen=True, slots=True)
class EvidenceParts(Record):
    """Answer of ``plan_evidence``: the parts to pack, the files and bytes in them."""

    parts: int
    files: int
    size: int


@dataclass(frozen=True, slots=True)
class EvidencePart(Record):
    """Input of ``pack_evidence``: one part, numbered from 0."""

    study: str
    export: str
    part: int


@dataclass(frozen=True, slots=True)
class Evidence(Record):
    """Output of ``export_evidence``.

    Attributes:
        bundle: the zip file's name in the container ``custody``.
        entries, head: of the custody log in it; the hash of its last entry.
        manifest: hash of its manifest, which has the hashes of all files.
    """

    study: str
    bundle: str
    files: int
    entries: int
    head: str
    manifest: str
    signed: bool
