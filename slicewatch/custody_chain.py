"""Statements that hold: canonical JSON, hashed, signed with Ed25519 (RFC 8032), chained.

A statement is one line::

    {"body": {…}, "hash": "<SHA-256 of the body>", "signature": "<Ed25519 of the body>" | null}

All of it is canonical JSON (sorted keys, no spaces, ASCII), so that a statement has one spelling
and a changed byte is a changed statement. The body says what the statement is (``kind``) and how
it is signed (``signing``: ``ed25519:`` and the SHA-256 of the raw public key, or ``none``), so
neither can be taken off without the hash noticing. Hashes and signatures are hexadecimal.

Needs `cryptography` only where something is signed; nothing here reaches storage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicewatch.settings import SettingError, Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

ENTRY, CHECKPOINT, MANIFEST = "entry", "checkpoint", "manifest"
GENESIS = "0" * 64
"""What the first entry of a log names as its predecessor's hash."""
UNSIGNED = "none"
_SIGNED = "ed25519:"

type Json = dict[str, Any]


class Broken(Exception):
    """A statement does not hold; the text says why."""


class Signer:
    """Signs statements with an Ed25519 private key.

    Attributes:
        fingerprint: SHA-256 of the raw public key; signing: how statements name it.
        public_pem: the public key, for those who verify.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        public = key.public_key()
        self.fingerprint = fingerprint(public)
        self.signing = _SIGNED + self.fingerprint
        self.public_pem = pem_of(public)

    def sign(self, body: bytes) -> str:
        """The signature, hexadecimal."""
        return self._key.sign(body).hex()


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that was read: its body, the hash of that, and whether it is signed."""

    body: Json
    hash: str
    signed: bool


def canonical(value: Any) -> bytes:
    """The one spelling of a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def digest(value: Any) -> str:
    """SHA-256 of a JSON value's one spelling, hexadecimal."""
    return hashlib.sha256(canonical(value)).hexdigest()


def state(kind: str, body: Json, signer: Signer | None) -> tuple[bytes, str]:
    """A statement without its line's end, and its hash."""
    whole = {**body, "kind": kind, "signing": signer.signing if signer else UNSIGNED}
    spelt = canonical(whole)
    signature = signer.sign(spelt) if signer else None
    hashed = hashlib.sha256(spelt).hexdigest()
    return canonical({"body": whole, "hash": hashed, "signature": signature}), hashed


def entry(
    signer: Signer | None,
    *,
    study: str,
    sequence: int,
    previous: str,
    time: str,
    event: str,
    key: str,
    actor: Mapping[str, str],
    data: Json,
) -> tuple[bytes, str]:
    """An entry of a study's log, and its hash.

    Args:
        sequence: from 0, without gaps.
        previous: hash of the entry before it, `GENESIS` for the first.
        time: UTC ISO 8601.
        key: what happened, once: a log has no two entries with one key.
        actor: who did it, as far as it is known.
    """
    body = {
        "study": study,
        "sequence": sequence,
        "previous": previous,
        "time": time,
        "event": event,
        "key": key,
        "actor": dict(actor),
        "data": data,
    }
    return state(ENTRY, body, signer)


def checkpoint(
    signer: Signer | None, *, study: str, sequence: int, head: str, time: str
) -> tuple[bytes, str]:
    """Says that the study's log had, at this time, an entry `sequence` with the hash `head`."""
    body = {"study": study, "sequence": sequence, "head": head, "time": time}
    return state(CHECKPOINT, body, signer)


def read(line: bytes, kind: str, keys: Mapping[str, Ed25519PublicKey]) -> Statement:
    """Read a statement and check its spelling, hash and signature.

    Args:
        keys: the public keys by their fingerprints.

    Raises:
        Broken: it does not hold.
    """
    body, hashed, signature = _parts(line)
    spelt = canonical(body)
    if hashlib.sha256(spelt).hexdigest() != hashed:
        raise Broken("its content was changed: it does not have the hash that it states")
    if body.get("kind") != kind:
        raise Broken(f"it is no {kind}")
    signing = body.get("signing")
    if signing == UNSIGNED and signature is None:
        return Statement(body, hashed, signed=False)
    if not isinstance(signing, str) or not signing.startswith(_SIGNED):
        raise Broken("it does not say how it is signed")
    if not isinstance(signature, str):
        raise Broken("its signature was taken off")
    key = keys.get(signing.removeprefix(_SIGNED))
    if key is None:
        raise Broken(f"it is signed with a key that is not at hand: {signing[:80]}")
    if not _is_signed(key, signature, spelt):
        raise Broken("its signature is not that of the key it names")
    return Statement(body, hashed, signed=True)


def parse(line: bytes) -> Statement:
    """A statement as it is spelt, with no look at its hash or signature. Raises `Broken`."""
    body, hashed, signature = _parts(line)
    return Statement(body, hashed, signed=signature is not None)


def lines_of(text: bytes) -> list[bytes]:
    """The lines of a log, without their ends."""
    return text.removesuffix(b"\n").split(b"\n") if text else []


def _parts(line: bytes) -> tuple[Json, str, Any]:
    try:
        outer: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise Broken("it is no JSON") from None
    if not isinstance(outer, dict) or outer.keys() != {"body", "hash", "signature"}:
        raise Broken("it is no statement with body, hash and signature")
    body = outer["body"]
    if not isinstance(body, dict) or not isinstance(outer["hash"], str):
        raise Broken("it is no statement with body, hash and signature")
    if canonical(outer) != line:
        raise Broken("it is not spelt as it was written")
    return body, outer["hash"], outer["signature"]


def _is_signed(key: Ed25519PublicKey, signature: str, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        raw = bytes.fromhex(signature)
        if raw.hex() != signature:
            return False
        key.verify(raw, message)
    except (ValueError, InvalidSignature):
        return False
    return True


# --- keys ---------------------------------------------------------------------------------------


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the raw public key (RFC 8032), hexadecimal."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def pem_of(key: Ed25519PublicKey) -> bytes:
    """The public key as PEM (SubjectPublicKeyInfo, RFC 8410)."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public_key(pem: bytes) -> Ed25519PublicKey:
    """Raises `Broken` for anything but an Ed25519 public key in PEM."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise Broken("it is no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise Broken("it is no Ed25519 key")
    return key


@cache
def signer_of(settings: Settings) -> Signer | None:
    """The signer that the app settings ask for; ``None`` when they name no key.

    Raises:
        SettingError: the key cannot be used; the text names the setting, never the key.
    """
    if settings.custody_key:
        return _signer("SLICEWATCH_CUSTODY_KEY", settings.custody_key)
    if not settings.custody_key_file:
        return None
    name = "SLICEWATCH_CUSTODY_KEY_FILE"
    try:
        text = Path(settings.custody_key_file).read_text("ascii")
    except (OSError, ValueError) as error:
        raise SettingError(f"{name}: cannot be read: {type(error).__name__}") from None
    return _signer(name, text)


def _signer(setting: str, text: str) -> Signer:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if text.startswith("@Microsoft.KeyVault("):
        raise SettingError(
            f"{setting}: the Key Vault reference was not resolved; let the app's identity read "
            "the secret"
        )
    try:
        # A secret that was pasted into one line spells its line ends.
        key = load_pem_private_key(text.replace("\\n", "\n").encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SettingError(
            f"{setting}: no private key in PEM without a password; make one with "
            "`openssl genpkey -algorithm ed25519`"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingError(f"{setting}: the key is not an Ed25519 key")
    return Signer(key)
