"""Check an evidence bundle, offline: a zip file or the folder that it was unpacked to.

Everything in it is taken for hostile. The log is walked entry by entry (`custody_check`), the
files are held against the entries that vouch for them, and what is left against the manifest.
Faults are told in the order of the entries that they concern, so the first is the first entry that
does not hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slicewatch import custody_chain
from slicewatch.custody_chain import Broken
from slicewatch.custody_check import Fault, LogCheck, study_of
from slicewatch.evidence_files import (
    CHECKPOINTS,
    KEYS,
    LOG,
    MANIFEST,
    ORIGINALS,
    RESULTS,
    WORKLIST,
    Bundle,
)
from slicewatch.record import Record


@dataclass(frozen=True, slots=True)
class Report(Record):
    """What the check found.

    Attributes:
        faults: the first is that of the first entry that does not hold.
        signed_from: number of the first signed entry; ``None``: nothing is signed.
        keys: fingerprints of the keys that signed; trusted: they were given by the caller, and
            did not just come with the bundle.
        found: objects that were found in storage without an entry of their arrival.
        rejected: objects that came and were refused; their bytes are not in the bundle.
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
    rejected: int = 0

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


def check_log(
    text: bytes, *, keys: Sequence[bytes] = (), checkpoints: Sequence[bytes] = ()
) -> Report:
    """Check a log alone, as it is stored, without the files that it speaks of; as `check`."""
    log = LogCheck()
    log.trust(keys)
    lines = custody_chain.lines_of(text)
    study = study_of(lines)
    points = log.points((("given", one) for one in checkpoints), study)
    log.walk(lines, study, points)
    return _report(log, study, 0, len(points), bool(keys))


def _report(log: LogCheck, study: str, files: int, points: int, trusted: bool) -> Report:
    if trusted and log.signed_from is None:
        log.fault("no entry is signed, although a public key is given", 0)
    order = sorted(log.faults, key=lambda one: (one.entry is None, one.entry or 0))
    return Report(
        study=study,
        entries=len(log.hashes),
        files=files,
        checkpoints=points,
        faults=tuple(order),
        signed_from=log.signed_from,
        keys=tuple(sorted(log.signers)),
        trusted=trusted,
        found=len(log.vouched.found - log.vouched.arrived),
        rejected=len(log.vouched.rejected),
    )


def _words(item: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What people said of an item of the worklist, by kind."""
    yield "decision", item.get("decision") or {}
    yield from (("reading", one["decision"]) for one in item.get("readings") or ())
    yield from (("correction", one) for one in item.get("corrections") or ())


class _Check:
    def __init__(self, bundle: Bundle, keys: Sequence[bytes], checkpoints: Sequence[bytes]) -> None:
        self._bundle = bundle
        self._trusted = bool(keys)
        self._given = checkpoints
        self._log = LogCheck()
        self._vouched = self._log.vouched
        self._fault = self._log.fault
        self._study = ""
        self._manifest_signed = False
        if keys:
            self._log.trust(keys)
        else:
            self._take_bundled()

    def run(self) -> Report:
        manifest = self._manifest()
        lines = custody_chain.lines_of(self._bundle.read(LOG) or b"")
        self._study = str(manifest.get("study", "")) or study_of(lines)
        points = self._checkpoints()
        self._log.walk(lines, self._study, points)
        self._tail(len(lines), manifest)
        self._files()
        if manifest:
            self._against_manifest(manifest)
        return _report(self._log, self._study, len(self._bundle.names), len(points), self._trusted)

    # --- keys, manifest, checkpoints

    def _take_bundled(self) -> None:
        for name in sorted(self._bundle.names):
            if name.startswith(KEYS):
                try:
                    key = custody_chain.public_key(self._bundle.read(name) or b"")
                except Broken as error:
                    self._fault(f"the public key {name} cannot be used: {error}", file=name)
                else:
                    self._log.keys[custody_chain.fingerprint(key)] = key

    def _manifest(self) -> dict[str, Any]:
        text = self._bundle.read(MANIFEST)
        if text is None:
            self._fault("the manifest is missing, damaged or too large", file=MANIFEST)
            return {}
        try:
            statement = self._log.read(text, custody_chain.MANIFEST)
            self._manifest_signed = statement.signed
        except Broken as error:
            self._fault(f"the manifest does not hold: {error}", file=MANIFEST)
            return {}
        body: dict[str, Any] = statement.body
        return body

    def _checkpoints(self) -> list[dict[str, Any]]:
        texts = [
            (name, self._bundle.read(name) or b"")
            for name in sorted(self._bundle.names)
            if name.startswith(CHECKPOINTS)
        ]
        given = (("given", text) for text in self._given)
        return self._log.points([*texts, *given], self._study)

    def _tail(self, count: int, manifest: dict[str, Any]) -> None:
        if not manifest:
            return
        said = manifest.get("entries")
        if said != count:
            self._fault(f"the log has {count} entries, the manifest says {said}", count)
        elif count and self._log.hashes[-1] not in (None, manifest.get("head")):
            self._fault("the last entry is not the one in the manifest", count - 1)
        exports = [number for number, bundle, _ in self._vouched.exports
                   if bundle == manifest.get("bundle")]  # fmt: skip
        if not exports or exports[-1] != count - 1:
            self._fault("the log does not end with the entry of this export", count)

    # --- files

    def _files(self) -> None:
        said, before = self._vouched, len(self._log.faults)
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
        if len(self._log.faults) == before and said.exports:
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
        if self._log.signed_from is not None and not self._manifest_signed:
            self._fault("the manifest is not signed, and entries are", file=MANIFEST)
        listed = manifest.get("files")
        if not isinstance(listed, dict):
            self._fault("the manifest lists no files", file=MANIFEST)
            return
        blamed = {fault.file for fault in self._log.faults}
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
