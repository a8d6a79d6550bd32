"""Check an evidence bundle, offline: a zip file or the folder that it was unpacked to.

Everything in it is taken for hostile. The log is walked entry by entry: spelling, hash,
signature, number, link to the entry before it, checkpoints, and the files that the entry vouches
for; then what is left is held against the manifest. Faults are told in the order of the entries
that they concern, so the first is the first entry that does not hold.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slicewatch import custody_chain
from slicewatch.custody_chain import Broken, Statement
from slicewatch.evidence_files import (
    CHECKPOINTS,
    KEYS,
    LOG,
    MANIFEST,
    ORIGINALS,
    RESULTS,
    WORKLIST,
    Bundle,
    Unreadable,
)
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


@dataclass(frozen=True, slots=True)
class Report(Record):
    """What the check found.

    Attributes:
        faults: the first is that of the first entry that does not hold.
        signed_from: number of the first signed entry; ``None``: nothing is signed.
        keys: fingerprints of the keys that signed; trusted: they were given by the caller, and
            did not just come with the bundle.
        found: objects that were found in storage without an entry of their arrival.
    """

    study: str
    entries: int
    files: int
    checkpoints: int
    faults: tuple[Fault, ...]
    signed_from: int | None = None
    keys: tuple[str, ...] = ()
    trusted: bool = False
    found: int = 0

    @property
    def holds(self) -> bool:
        """Whether nothing was found that does not hold."""
        return not self.faults


def check(
    bundle: Bundle,
    *,
    keys: Sequence[bytes] = (),
    checkpoints: Sequence[bytes] = (),
) -> Report:
    """Check a bundle.

    Args:
        keys: public keys (PEM) to trust; none: those in the bundle, which prove only that it
            is of one piece.
        checkpoints: more checkpoints, kept elsewhere than in the bundle.

    Raises:
        Unreadable: one of the `keys` is no Ed25519 public key.
    """
    return _Check(bundle, keys, checkpoints).run()


@dataclass(slots=True)
class _Vouched:
    """What the entries say of the files."""

    originals: dict[str, tuple[int, str]] = field(default_factory=dict)
    results: dict[str, tuple[int, set[str]]] = field(default_factory=dict)
    screened: list[tuple[int, str]] = field(default_factory=list)
    decisions: list[tuple[int, str, str, str]] = field(default_factory=list)
    exports: list[tuple[int, str, str]] = field(default_factory=list)
    found: set[str] = field(default_factory=set)
    arrived: set[str] = field(default_factory=set)


def _words(item: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What people said of an item of the worklist, by kind."""
    yield "decision", item.get("decision") or {}
    yield from (("reading", one["decision"]) for one in item.get("readings") or ())
    yield from (("correction", one) for one in item.get("corrections") or ())


class _Check:
    def __init__(self, bundle: Bundle, keys: Sequence[bytes], checkpoints: Sequence[bytes]) -> None:
        self._bundle = bundle
        self._trusted = bool(keys)
        self._faults: list[Fault] = []
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._given = checkpoints
        self._vouched = _Vouched()
        self._hashes: list[str | None] = []
        self._signed_from: int | None = None
        self._signers: set[str] = set()
        self._seen: dict[str, int] = {}
        self._study = ""
        self._manifest_signed = False
        if keys:
            self._take_given(keys)
        else:
            self._take_bundled()

    def run(self) -> Report:
        manifest = self._manifest()
        self._study = str(manifest.get("study", ""))
        points = self._checkpoints()
        lines = custody_chain.lines_of(self._bundle.read(LOG) or b"")
        self._walk(lines, points)
        self._tail(len(lines), manifest, points)
        self._files()
        if manifest:
            self._against_manifest(manifest)
        if self._trusted and self._signed_from is None:
            self._fault("no entry is signed, although a public key is given", 0)
        order = sorted(self._faults, key=lambda one: (one.entry is None, one.entry or 0))
        return Report(
            study=self._study,
            entries=len(lines),
            files=len(self._bundle.names),
            checkpoints=len(points),
            faults=tuple(order),
            signed_from=self._signed_from,
            keys=tuple(sorted(self._signers)),
            trusted=self._trusted,
            found=len(self._vouched.found - self._vouched.arrived),
        )

    def _fault(self, cause: str, entry: int | None = None, file: str | None = None) -> None:
        self._faults.append(Fault(cause, entry, file))

    # --- keys, manifest, checkpoints

    def _take_given(self, keys: Sequence[bytes]) -> None:
        for pem in keys:
            try:
                key = custody_chain.public_key(pem)
            except Broken as error:
                raise Unreadable(f"a public key cannot be used: {error}") from None
            self._keys[custody_chain.fingerprint(key)] = key

    def _take_bundled(self) -> None:
        for name in sorted(self._bundle.names):
            if name.startswith(KEYS):
                try:
                    key = custody_chain.public_key(self._bundle.read(name) or b"")
                except Broken as error:
                    self._fault(f"the public key {name} cannot be used: {error}", file=name)
                else:
                    self._keys[custody_chain.fingerprint(key)] = key

    def _read(self, line: bytes, kind: str) -> Statement:
        statement = custody_chain.read(line, kind, self._keys)
        if statement.signed:
            self._signers.add(str(statement.body["signing"]))
        return statement

    def _manifest(self) -> dict[str, Any]:
        text = self._bundle.read(MANIFEST)
        if text is None:
            self._fault("the manifest is missing", file=MANIFEST)
            return {}
        try:
            statement = self._read(text, custody_chain.MANIFEST)
            self._manifest_signed = statement.signed
        except Broken as error:
            self._fault(f"the manifest does not hold: {error}", file=MANIFEST)
            return {}
        return statement.body

    def _checkpoints(self) -> list[dict[str, Any]]:
        texts = [
            (name, self._bundle.read(name) or b"")
            for name in sorted(self._bundle.names)
            if name.startswith(CHECKPOINTS)
        ]
        points = []
        for name, text in [*texts, *(("given", text) for text in self._given)]:
            try:
                body = self._read(text, custody_chain.CHECKPOINT).body
                if not isinstance(body.get("sequence"), int):
                    raise Broken("it names no entry")
            except Broken as error:
                self._fault(f"the checkpoint {name} does not hold: {error}", file=name)
                continue
            if name == "given" and body.get("study") != self._study:
                continue  # those of other studies may lie in the same folder
            points.append(body)
        return points

    # --- the log

    def _walk(self, lines: list[bytes], points: list[dict[str, Any]]) -> None:
        expected, previous = 0, custody_chain.GENESIS
        for number, line in enumerate(lines):
            try:
                statement = self._read(line, custody_chain.ENTRY)
            except Broken as error:
                self._fault(f"entry {number} does not hold: {error}", number)
                expected, previous = expected + 1, _stated_hash(line)
                self._hashes.append(None)
                continue
            self._link(number, statement, expected, previous)
            self._signing(number, statement)
            self._twice(number, statement)
            self._hashes.append(statement.hash)
            for point in points:
                if point["sequence"] == number and point.get("head") != statement.hash:
                    self._fault(
                        f"entry {number} is not the one that a checkpoint of {point.get('time')} "
                        "saw",
                        number,
                    )
            try:
                self._vouch(number, statement.body)
            except (KeyError, TypeError, ValueError, AttributeError):
                self._fault(f"entry {number} lacks what its event has to say", number)
            sequence = statement.body.get("sequence")
            expected = sequence + 1 if isinstance(sequence, int) else expected + 1
            previous = statement.hash

    def _link(self, number: int, one: Statement, expected: int, previous: str) -> None:
        sequence = one.body.get("sequence")
        if one.body.get("study") != self._study:
            self._fault(f"entry {number} is of another study than the manifest", number)
        if sequence != expected:
            what = (
                f"entry {expected} is missing or was moved: entry {sequence} stands in its place"
                if isinstance(sequence, int) and sequence > expected
                else f"an entry that calls itself {sequence} was added or moved to place {number}"
            )
            self._fault(what, number)
        elif previous and one.body.get("previous") != previous:
            self._fault(
                f"entry {number} does not follow the entry before it: one of them was replaced",
                number,
            )

    def _signing(self, number: int, one: Statement) -> None:
        if one.signed and self._signed_from is None:
            self._signed_from = number
        elif not one.signed and self._signed_from is not None:
            self._fault(f"entry {number} is not signed, and an earlier entry is", number)

    def _twice(self, number: int, one: Statement) -> None:
        first = self._seen.setdefault(str(one.body.get("key")), number)
        if first != number:
            self._fault(f"entry {number} tells again what entry {first} tells", number)

    def _vouch(self, number: int, body: dict[str, Any]) -> None:
        """Note what an entry says of files. Raises for data of another shape."""
        data, said = body["data"], self._vouched
        match body["event"]:
            case "stored":
                (said.found if "found" in body["actor"] else said.arrived).update(data["objects"])
                for name, (sha256, _size) in data["objects"].items():
                    first = said.originals.setdefault(name, (number, sha256))
                    if first[1] != sha256:
                        self._fault(
                            f"entry {number} stores other bytes of an object than entry {first[0]}",
                            number,
                            ORIGINALS + name,
                        )
            case "screened" | "assessed" as event:
                for name, sha256 in data["results"].items():
                    said.results.setdefault(name, (number, set()))[1].add(sha256)
                    if event == "screened":
                        said.screened.append((number, name))
            case "decided":
                said.decisions.append((number, "decision", data["item"], data["decision_sha256"]))
            case "read":
                said.decisions.append((number, "reading", data["item"], data["decision_sha256"]))
            case "corrected":
                sha256 = data["correction_sha256"]
                said.decisions.append((number, "correction", data["item"], sha256))
            case "exported" if "bundle" in data:
                said.exports.append((number, data["bundle"], data["content_sha256"]))

    def _tail(self, count: int, manifest: dict[str, Any], points: list[dict[str, Any]]) -> None:
        seen = max((point["sequence"] for point in points), default=-1)
        if seen >= count:
            self._fault(
                f"the log was cut: entries {count} to {seen} are missing, which a checkpoint saw",
                count,
            )
        if not manifest:
            return
        said = manifest.get("entries")
        if said != count:
            self._fault(f"the log has {count} entries, the manifest says {said}", count)
        elif count and self._hashes[-1] not in (None, manifest.get("head")):
            self._fault("the last entry is not the one in the manifest", count - 1)
        exports = [number for number, bundle, _ in self._vouched.exports
                   if bundle == manifest.get("bundle")]  # fmt: skip
        if not exports or exports[-1] != count - 1:
            self._fault("the log does not end with the entry of this export", count)

    # --- files

    def _files(self) -> None:
        said, before = self._vouched, len(self._faults)
        for name, (number, sha256) in said.originals.items():
            self._same(number, ORIGINALS + name, {sha256}, "original")
        for name, (number, hashes) in said.results.items():
            self._same(number, RESULTS + name, hashes, "result")
        for number, name in said.screened:
            self._screened(number, RESULTS + name)
        self._decided()
        originals = [name for name in self._bundle.names if name.startswith(ORIGINALS)]
        for name in sorted(originals):
            if name.removeprefix(ORIGINALS) not in said.originals:
                self._fault("an original is here that no entry stored", file=name)
        if len(self._faults) == before and said.exports:
            number, _, content = said.exports[-1]
            files = {name: self._bundle.sha256(name) for name in self._bundle.names
                     if name.startswith((ORIGINALS, RESULTS))}  # fmt: skip
            if custody_chain.digest(files) != content:
                self._fault(
                    f"entry {number} exported other files: a result was changed, added or removed",
                    number,
                )

    def _same(self, number: int, path: str, hashes: set[str], what: str) -> None:
        found = self._bundle.sha256(path)
        if found in hashes:
            return
        if path not in self._bundle.names:
            cause = f"the {what} that entry {number} vouches for is missing"
        else:
            cause = f"the {what} is not the one that entry {number} vouches for"
        self._fault(cause, number, path)

    def _screened(self, number: int, path: str) -> None:
        """What was screened has to be what was stored."""
        try:
            slices = json.loads(self._bundle.read(path) or b"[]")
            pairs = {(one["blob"], one["content_sha256"]) for one in slices}
        except (ValueError, KeyError, TypeError, RecursionError):
            self._fault(f"the results of entry {number} cannot be read", number, path)
            return
        for blob, sha256 in pairs:
            stored = self._vouched.originals.get(str(blob).removeprefix(f"{self._study}/"))
            if stored is None:
                self._fault(f"entry {number} screened an object that none stored", number, path)
            elif stored[1] != sha256:
                self._fault(f"entry {number} screened other bytes than were stored", number, path)

    def _decided(self) -> None:
        try:
            items = json.loads(self._bundle.read(WORKLIST) or b"[]")
            told = {(kind, one["id"], custody_chain.digest(words))
                    for one in items for kind, words in _words(one)}  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            told = set()
        for number, kind, item, sha256 in self._vouched.decisions:
            if (kind, item, sha256) not in told:
                self._fault(
                    f"the worklist has another {kind} than entry {number}", number, WORKLIST
                )

    def _against_manifest(self, manifest: Mapping[str, Any]) -> None:
        if self._signed_from is not None and not self._manifest_signed:
            self._fault("the manifest is not signed, and entries are", file=MANIFEST)
        listed = manifest.get("files")
        if not isinstance(listed, dict):
            self._fault("the manifest lists no files", file=MANIFEST)
            return
        blamed = {fault.file for fault in self._faults}
        for name, said in sorted(listed.items()):
            if name in blamed:
                continue
            if name not in self._bundle.names:
                self._fault("a file of the manifest is missing", file=name)
            elif not isinstance(said, list) or said[:1] != [self._bundle.sha256(name)]:
                self._fault("a file is not the one in the manifest", file=name)
        for name in sorted(self._bundle.names - listed.keys() - {MANIFEST}):
            if name not in blamed:
                self._fault("a file is not in the manifest", file=name)


def _stated_hash(line: bytes) -> str:
    """The hash that a broken entry states; empty when it states none."""
    with contextlib.suppress(Broken):
        return custody_chain.parse(line).hash
    return ""
