"""Bundles of evidence, honest and forged, and what the check says of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from slicewatch import custody, custody_chain
from slicewatch.custody_chain import Signer
from slicewatch.evidence_check import Report, check
from slicewatch.evidence_files import Bundle
from slicewatch.evidence_messages import Evidence
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from tests.custody_study import Case, slices, zipped


def signing(settings: Settings) -> Settings:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return dataclasses.replace(settings, custody_key=pem.decode())


def a_case(
    storage: Storage, settings: Settings, seed: int, tmp: Path
) -> tuple[Case, Evidence, bytes]:
    study, objects = slices(seed)
    case = Case(storage, settings, custody.of(storage, settings), study)
    case.receive(objects[:2])
    case.receive(objects[2:], door="upload")
    case.review(tmp)
    return case, *case.export()


def checked(files: dict[str, bytes], tmp: Path, **given: list[bytes]) -> Report:
    return check(Bundle(zipped(files, tmp / "bundle.zip")), **given)


def lines(files: dict[str, bytes]) -> list[bytes]:
    return custody_chain.lines_of(files["log.jsonl"])


def with_lines(files: dict[str, bytes], entries: list[bytes]) -> dict[str, bytes]:
    return {**files, "log.jsonl": b"".join(line + b"\n" for line in entries)}


def entry_of(files: dict[str, bytes], event: str, which: int = 0) -> int:
    events = [json.loads(line)["body"]["event"] for line in lines(files)]
    return [number for number, one in enumerate(events) if one == event][which]


def resealed(
    files: dict[str, bytes], entries: list[bytes], signer: Signer | None = None, start: int = 0
) -> dict[str, bytes]:
    """The bundle as one would forge it who has not the key: the log chained anew from an entry
    on, unsigned or with another key, a manifest that fits, no checkpoints, the other key.
    """
    previous, forged = custody_chain.GENESIS, entries[:start]
    if start:
        previous = json.loads(entries[start - 1])["hash"]
    for number, line in enumerate(entries[start:], start):
        body = json.loads(line)["body"] | {"sequence": number, "previous": previous}
        sealed, previous = custody_chain.state("entry", body, signer)
        forged.append(sealed)
    new = {
        name: text for name, text in with_lines(files, forged).items()
        if not name.startswith(("checkpoints/", "keys/"))
    }  # fmt: skip
    if signer:
        new[f"keys/{signer.fingerprint}.pem"] = signer.public_pem
    body = json.loads(files["manifest.json"])["body"] | {"entries": len(forged), "head": previous}
    body["files"] = {name: [hashlib.sha256(text).hexdigest(), len(text)]
                     for name, text in new.items() if name != "manifest.json"}  # fmt: skip
    return new | {"manifest.json": custody_chain.state("manifest", body, signer)[0]}
