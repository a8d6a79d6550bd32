"""Check a custody log, offline, entry by entry; everything in it is taken for hostile.

Of each entry: spelling, hash, signature, number, link to the entry before it, checkpoints. What
the entries say of files is noted, for `slicewatch.evidence_check` to look at those.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slicewatch import custody_chain
from slicewatch.custody_chain import Broken, Statement
from slicewatch.evidence_files import ORIGINALS, Unreadable
from slicewatch.record import Record

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Fault(Record):
    """Something that does not hold.

    Attributes:
        cause: a sentence for people.
        entry: number of the entry that does not hold; ``None`` for the bundle as a whole.
        file: path in the bundle of the file concerned, if it is one.
    """

    cause: str
    entry: int | None = None
    file: str | None = None


@dataclass(slots=True)
class Vouched:
    """What the entries say of the files."""

    originals: dict[str, tuple[int, str]] = field(default_factory=dict)
    results: dict[str, tuple[int, set[str]]] = field(default_factory=dict)
    screened: list[tuple[int, str]] = field(default_factory=list)
    decisions: list[tuple[int, str, str, str]] = field(default_factory=list)
    exports: list[tuple[int, str, str]] = field(default_factory=list)
    found: set[str] = field(default_factory=set)
    arrived: set[str] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)


class LogCheck:
    """The walk through a log.

    Attributes:
        keys: public keys by their fingerprints; to be filled before anything is read.
        faults: what does not hold; hashes: of the entries, ``None`` for one that does not hold.
        signed_from: number of the first signed entry; signers: the keys that signed anything.
    """

    def __init__(self) -> None:
        self.keys: dict[str, Ed25519PublicKey] = {}
        self.faults: list[Fault] = []
        self.vouched = Vouched()
        self.hashes: list[str | None] = []
        self.signed_from: int | None = None
        self.signers: set[str] = set()
        self._seen: dict[str, int] = {}
        self._study = ""

    def fault(self, cause: str, entry: int | None = None, file: str | None = None) -> None:
        """Note something that does not hold."""
        self.faults.append(Fault(cause, entry, file))

    def read(self, line: bytes, kind: str) -> Statement:
        """Read a statement with the keys at hand. Raises `Broken`."""
        statement = custody_chain.read(line, kind, self.keys)
        if statement.signed:
            self.signers.add(str(statement.body["signing"]))
        return statement

    def trust(self, pems: Iterable[bytes]) -> None:
        """Take public keys that the caller has from elsewhere.

        Raises:
            Unreadable: one is no Ed25519 public key in PEM.
        """
        for pem in pems:
            try:
                key = custody_chain.public_key(pem)
            except Broken as error:
                raise Unreadable(f"a public key cannot be used: {error}") from None
            self.keys[custody_chain.fingerprint(key)] = key

    def points(self, texts: Iterable[tuple[str, bytes]], study: str) -> list[dict[str, Any]]:
        """The bodies of checkpoints that hold.

        Args:
            texts: name and text; those that are "given" may be of other studies, too.
        """
        points: list[dict[str, Any]] = []
        for name, text in texts:
            try:
                body = self.read(text, custody_chain.CHECKPOINT).body
                if not isinstance(body.get("sequence"), int):
                    raise Broken("it names no entry")
            except Broken as error:
                self.fault(f"the checkpoint {name} does not hold: {error}", file=name)
                continue
            if name != "given" or body.get("study") == study:
                points.append(body)
        return points

    def walk(self, lines: Sequence[bytes], study: str, points: Iterable[Mapping[str, Any]]) -> None:
        """Check the entries of a log, in order.

        Args:
            study: whose log it should be.
            points: bodies of checkpoints, each with a whole number as ``sequence``.
        """
        seen: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for point in points:
            seen[point["sequence"]].append(point)
        if seen and max(seen) >= len(lines):
            self.fault(
                f"the log was cut: entries {len(lines)} to {max(seen)} are missing, which a"
                " checkpoint saw",
                len(lines),
            )
        self._study = study
        expected, previous = 0, custody_chain.GENESIS
        for number, line in enumerate(lines):
            try:
                statement = self.read(line, custody_chain.ENTRY)
            except Broken as error:
                self.fault(f"entry {number} does not hold: {error}", number)
                expected, previous = expected + 1, _stated_hash(line)
                self.hashes.append(None)
                continue
            self._link(number, statement, expected, previous)
            self._signing(number, statement)
            self._twice(number, statement)
            self.hashes.append(statement.hash)
            for point in seen[number]:
                if point.get("head") != statement.hash:
                    time = point.get("time")
                    self.fault(
                        f"entry {number} is not the one that a checkpoint of {time} saw", number
                    )
            try:
                self._vouch(number, statement.body)
            except (KeyError, TypeError, ValueError, AttributeError):
                self.fault(f"entry {number} lacks what its event has to say", number)
            sequence = statement.body.get("sequence")
            expected = sequence + 1 if isinstance(sequence, int) else expected + 1
            previous = statement.hash

    def _link(self, number: int, one: Statement, expected: int, previous: str) -> None:
        sequence = one.body.get("sequence")
        if one.body.get("study") != self._study:
            self.fault(f"entry {number} is of another study than the log", number)
        if sequence != expected:
            what = (
                f"entry {expected} is missing or was moved: entry {sequence} stands in its place"
                if isinstance(sequence, int) and sequence > expected
                else f"an entry that calls itself {sequence} was added or moved to place {number}"
            )
            self.fault(what, number)
        elif previous and one.body.get("previous") != previous:
            self.fault(
                f"entry {number} does not follow the entry before it: one of them was replaced",
                number,
            )

    def _signing(self, number: int, one: Statement) -> None:
        if one.signed and self.signed_from is None:
            self.signed_from = number
        elif not one.signed and self.signed_from is not None:
            self.fault(f"entry {number} is not signed, and an earlier entry is", number)

    def _twice(self, number: int, one: Statement) -> None:
        first = self._seen.setdefault(str(one.body.get("key")), number)
        if first != number:
            self.fault(f"entry {number} tells again what entry {first} tells", number)

    def _vouch(self, number: int, body: dict[str, Any]) -> None:
        """Note what an entry says of files. Raises for data of another shape."""
        data, said = body["data"], self.vouched
        match body["event"]:
            case "stored":
                (said.found if "found" in body["actor"] else said.arrived).update(data["objects"])
                for name, (sha256, _size) in data["objects"].items():
                    first = said.originals.setdefault(name, (number, _text(sha256)))
                    if first[1] != sha256:
                        self.fault(
                            f"entry {number} stores other bytes of an object than entry {first[0]}",
                            number,
                            ORIGINALS + name,
                        )
            case "rejected":
                said.rejected.update(data["objects"])
            case "screened" | "assessed" as event:
                for name, sha256 in data["results"].items():
                    said.results.setdefault(name, (number, set()))[1].add(_text(sha256))
                    if event == "screened":
                        said.screened.append((number, name))
            case "decided":
                self._said(number, "decision", data["item"], data["decision_sha256"])
            case "read":
                self._said(number, "reading", data["item"], data["decision_sha256"])
            case "corrected":
                self._said(number, "correction", data["item"], data["correction_sha256"])
            case "exported" if "bundle" in data:
                said.exports.append((number, data["bundle"], data["content_sha256"]))

    def _said(self, number: int, kind: str, item: Any, sha256: Any) -> None:
        self.vouched.decisions.append((number, kind, _text(item), _text(sha256)))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def study_of(lines: Sequence[bytes]) -> str:
    """The study that the first entry names which can be read; empty when there is none."""
    for line in lines:
        with contextlib.suppress(Broken):
            return str(custody_chain.parse(line).body.get("study", ""))
    return ""


def _stated_hash(line: bytes) -> str:
    """The hash that a broken entry states; empty when it states none."""
    with contextlib.suppress(Broken):
        return custody_chain.parse(line).hash
    return ""
