"""Chain of custody: what happened to a study, in a log that only grows.

A study's log is an append blob of one statement a line (`custody_chain`), each with the hash of
the one before it::

    custody/{study}/log/{part}.jsonl                    the log, `PART_ENTRIES` entries a part
    custody/keys/{fingerprint}.pem                      the public keys that signed
    custody-checkpoints/{study}/{sequence}.json         what the head of the log was

An append states the length that the blob must have. Of several functions that append at once one
wins; the others read what came between, chain their entries to that, and try again. Whoever wins
has seen every entry before its own, so an entry whose key is in the log already is never written
twice, whichever machine wrote it and whether or not the answer arrived.

``python -m slicewatch.custody verify EXPORT`` checks an exported bundle; see `custody_verify`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from slicewatch import custody_chain, inventory
from slicewatch.custody_chain import Signer
from slicewatch.settings import Settings
from slicewatch.storage import (
    CHECKPOINTS,
    CUSTODY,
    BlobMissing,
    Conflict,
    Storage,
    StorageUnavailable,
)

_log = logging.getLogger(__name__)

CHECKPOINT_EVERY = 32
PART_ENTRIES = 40_000
"""An append blob takes 50,000 blocks; a block holds one entry or more."""
_BLOCK_BYTES = 3 << 20  # of the 4 MiB that a block may have in all service versions
_HEADS_KEPT = 256
_PATIENCE = 3  # lost races before pausing


class Event(StrEnum):
    """What an entry says happened."""

    RECEIVED = "received"
    STORED = "stored"
    REJECTED = "rejected"
    SCREENED = "screened"
    ASSESSED = "assessed"
    FLAGGED = "flagged"
    VIEWED = "viewed"
    CLAIMED = "claimed"
    RELEASED = "released"
    READ = "read"
    DECIDED = "decided"
    CORRECTED = "corrected"
    EXPORTED = "exported"
    SUPERSEDED = "superseded"


_MILESTONES = frozenset({Event.ASSESSED, Event.DECIDED, Event.CORRECTED, Event.EXPORTED})
"""Events after which a checkpoint is written at once."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One event, before it is an entry.

    Attributes:
        key: the same for the same happening whenever it is told again, other for any other.
        actor: who, as far as it is known; data: what. Free of patient data but UIDs.
    """

    event: Event
    key: str
    actor: Mapping[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mark:
    """Where an entry is: its number in the log, and its hash."""

    sequence: int
    hash: str


@dataclass(slots=True)
class _Head:
    """What this process knows of the end of a study's log."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    known: bool = False
    part: int = 0
    position: int = 0
    ragged: bool = False  # the last line has no end: it was cut
    last: Mark = field(default=Mark(-1, custody_chain.GENESIS))
    marks: dict[str, Mark] = field(default_factory=dict)
    checkpointed: int = -1

    def forget(self) -> None:
        self.known = False
        self.part, self.position, self.ragged = 0, 0, False
        self.last, self.marks = Mark(-1, custody_chain.GENESIS), {}

    def advance(self, lines: bytes) -> None:
        """Take in lines that stand at `position`."""
        for line in custody_chain.lines_of(lines):
            try:
                statement = custody_chain.parse(line)
                key, hashed = str(statement.body.get("key")), statement.hash
            except custody_chain.Broken:
                # A log that was tampered with still has to take what happens: the entry after
                # the broken line names it by what it is now, and `verify` names the line.
                key, hashed = "", hashlib.sha256(line).hexdigest()
            self.last = Mark(self.last.sequence + 1, hashed)
            self.marks[key] = self.last
        self.position += len(lines)
        self.ragged = bool(lines) and not lines.endswith(b"\n")
        if self.last.sequence + 1 >= (self.part + 1) * PART_ENTRIES:
            self.part, self.position = self.part + 1, 0


class Log:
    """The custody logs of all studies; safe under threads and processes.

    Args:
        checkpoints: the account that keeps the checkpoints.
        signer: signs the entries; ``None``: they are chained alone, and say so.
    """

    def __init__(self, storage: Storage, checkpoints: Storage, signer: Signer | None) -> None:
        self._storage = storage
        self._checkpoints = checkpoints
        self._signer = signer
        self._heads: OrderedDict[str, _Head] = OrderedDict()
        self._lock = threading.Lock()
        self._key_kept = signer is None

    def append(self, study: str, happenings: Sequence[Happening]) -> list[Mark]:
        """Append an entry for each happening that the log does not have, in one write.

        Returns:
            Where the entries of the happenings are.

        Raises:
            StorageUnavailable: some may be missing: tell them again, none is written twice.
        """
        self._keep_key()
        head = self._head(study)
        with head.lock:
            self._append(study, head, happenings)
            marks = [head.marks[one.key] for one in happenings]
            milestones = [
                mark
                for one, mark in zip(happenings, marks, strict=True)
                if one.event in _MILESTONES
            ]
            self._checkpoint_if_due(study, head, milestones)
        return marks

    def lines(self, study: str) -> Iterator[bytes]:
        """The entries of a study's log as they are stored, without their line ends."""
        part = 0
        while True:
            try:
                text = self._storage.read(CUSTODY, _part_name(study, part))
            except BlobMissing:
                return
            yield from custody_chain.lines_of(text)
            part += 1

    def checkpoint(self, study: str, mark: Mark) -> bytes:
        """Write a checkpoint of an entry, once; returns it. Raises `StorageUnavailable`."""
        line, _ = custody_chain.checkpoint(
            self._signer, study=study, sequence=mark.sequence, head=mark.hash, time=now()
        )
        name = f"{study}/{mark.sequence:08d}.json"
        try:
            self._write_checkpoint(name, line)
        except Conflict:
            found = self._checkpoints.read(CHECKPOINTS, name)
            if _head_of(found) == mark.hash:
                return found
            # The log is not what it was. The work goes on; both checkpoints stay as evidence.
            _log.error(
                "custody: the log of %s contradicts its checkpoint %d: verify an export of it",
                inventory.instance_id(study),
                mark.sequence,
            )
            with contextlib.suppress(Conflict):
                self._write_checkpoint(f"{study}/{mark.sequence:08d}~{mark.hash[:16]}.json", line)
        return line

    def checkpoints(self, study: str) -> dict[str, bytes]:
        """The checkpoints of a study, by their file names."""
        prefix = f"{study}/"
        return {
            blob.name.removeprefix(prefix): self._checkpoints.read(CHECKPOINTS, blob.name)
            for blob in self._checkpoints.listing(CHECKPOINTS, prefix)
        }

    def public_keys(self) -> dict[str, bytes]:
        """PEM files of the public keys that signed entries, by their file names."""
        self._keep_key()
        return {
            blob.name.removeprefix(_KEYS): self._storage.read(CUSTODY, blob.name)
            for blob in self._storage.listing(CUSTODY, _KEYS)
        }

    @property
    def signer(self) -> Signer | None:
        """Signs entries, checkpoints and manifests; ``None`` in unsigned mode."""
        return self._signer

    # --- the end of the log

    def _head(self, study: str) -> _Head:
        with self._lock:
            head = self._heads.setdefault(study, _Head())
            self._heads.move_to_end(study)
            while len(self._heads) > _HEADS_KEPT:
                self._heads.popitem(last=False)
        return head

    def _append(self, study: str, head: _Head, happenings: Sequence[Happening]) -> None:
        lost = 0
        while True:
            if not head.known:
                self._read(study, head)
            block = self._block(study, head, happenings)
            if not block:
                return
            if not self._write(study, head, block):
                lost += 1
                time.sleep(random.uniform(0, min(0.02 * lost, 0.5)) if lost > _PATIENCE else 0)

    def _block(self, study: str, head: _Head, happenings: Sequence[Happening]) -> bytes:
        """Lines for what the log does not have yet, as many as one block takes."""
        lines: list[bytes] = []
        last, size, told = head.last, 0, set[str]()
        for one in happenings:
            if one.key in head.marks or one.key in told:
                continue
            line, hashed = custody_chain.entry(
                self._signer,
                study=study,
                sequence=last.sequence + 1,
                previous=last.hash,
                time=now(),
                event=one.event,
                key=one.key,
                actor=one.actor,
                data=one.data,
            )
            if lines and size + len(line) >= _BLOCK_BYTES:
                break
            lines.append(line + b"\n")
            told.add(one.key)
            last, size = Mark(last.sequence + 1, hashed), size + len(line) + 1
        return b"".join(lines)

    def _write(self, study: str, head: _Head, block: bytes) -> bool:
        """Append at the end as it is known; where that is not the end, learn where it is."""
        name = _part_name(study, head.part)
        rest = b"\n" if head.ragged else b""
        try:
            self._storage.append(CUSTODY, name, rest + block, position=head.position)
        except BlobMissing:
            if head.position:  # somebody removed it: its checkpoints tell
                head.forget()
            else:
                with contextlib.suppress(Conflict):
                    self._storage.create_append_blob(CUSTODY, name)
            return False
        except Conflict:
            self._catch_up(study, head)
            return False
        head.position += len(rest)
        head.advance(block)
        return True

    def _read(self, study: str, head: _Head) -> None:
        head.forget()
        part = -1
        while part < head.part:
            part = head.part
            with contextlib.suppress(BlobMissing):
                head.advance(self._storage.read(CUSTODY, _part_name(study, part)))
        head.checkpointed = (head.last.sequence + 1) // CHECKPOINT_EVERY * CHECKPOINT_EVERY - 1
        head.known = True

    def _catch_up(self, study: str, head: _Head) -> None:
        """Read what others appended; everything, where that does not follow what is known."""
        tail = self._storage.read_from(CUSTODY, _part_name(study, head.part), head.position)
        lines = custody_chain.lines_of(tail)
        try:
            follows = bool(lines) and not head.ragged
            follows = follows and custody_chain.parse(lines[0]).body["previous"] == head.last.hash
        except (custody_chain.Broken, KeyError):
            follows = False
        if follows:
            head.advance(tail)
        else:
            head.forget()

    # --- checkpoints and keys

    def _checkpoint_if_due(self, study: str, head: _Head, milestones: Sequence[Mark]) -> None:
        if milestones:
            mark = max(milestones, key=lambda one: one.sequence)
        elif head.last.sequence - head.checkpointed >= CHECKPOINT_EVERY:
            mark = head.last
        else:
            return
        try:
            self.checkpoint(study, mark)
        except StorageUnavailable as error:
            # The entries are safe, which is what the caller has to know; the next append tries.
            _log.warning("custody: a checkpoint waits for the next entry: %s", error)
            head.checkpointed = -CHECKPOINT_EVERY
        else:
            head.checkpointed = max(head.checkpointed, mark.sequence)

    def _write_checkpoint(self, name: str, line: bytes) -> None:
        self._checkpoints.write(
            CHECKPOINTS, name, line, content_type="application/json", if_absent=True
        )

    def _keep_key(self) -> None:
        """Keep the public key beside the logs: the key may be replaced, its entries stay."""
        if self._signer is None or self._key_kept:
            return
        name = f"{_KEYS}{self._signer.fingerprint}.pem"
        with contextlib.suppress(Conflict):
            self._storage.write(CUSTODY, name, self._signer.public_pem, if_absent=True)
        self._key_kept = True


@lru_cache(maxsize=8)
def of(storage: Storage, settings: Settings) -> Log:
    """The custody logs that are kept in this storage, by the app settings.

    Raises:
        SettingError: the key cannot be used.
    """
    elsewhere = settings.custody_checkpoint_storage
    checkpoints = (
        Storage(dataclasses.replace(settings, storage=elsewhere, storage_account_url=""))
        if elsewhere
        else storage
    )
    return Log(storage, checkpoints, custody_chain.signer_of(settings))


def unassigned(day: date) -> str:
    """The log, one a day (UTC), of what came and names no study that could be read."""
    return f"unassigned-{day.isoformat()}"


def now() -> str:
    """The time as entries tell it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


_KEYS = "keys/"


def _part_name(study: str, part: int) -> str:
    return f"{study}/log/{part:04d}.jsonl"


def _head_of(checkpoint: bytes) -> str:
    try:
        return str(custody_chain.parse(checkpoint).body.get("head"))
    except custody_chain.Broken:
        return ""


if __name__ == "__main__":
    from slicewatch.custody_verify import main

    main()
