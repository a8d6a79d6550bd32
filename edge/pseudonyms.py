"""Replacements for what identifies: keyed hashes, so that the same value always has the same one,
and a table on site that leads back. Neither key nor table leaves the site.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import uuid
from pathlib import Path

from edge.database import Database

_MIN_KEY_BYTES = 32
_MAX_SHIFT_DAYS = 3650
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS pseudonyms (kind TEXT NOT NULL, outside TEXT NOT NULL,"
    " inside TEXT NOT NULL, PRIMARY KEY (kind, outside)) STRICT, WITHOUT ROWID"
)


class KeyTooShort(Exception):
    """The key could be guessed; the text says what to do."""


class Pseudonyms:
    """Safe under threads. `key` never changes: another key would give a patient another name.

    Args:
        table: SQLite file, readable for its owner only.

    Raises:
        KeyTooShort: fewer than 32 bytes.
        DatabaseDamaged: the table cannot be used; it is never begun anew by itself.
    """

    def __init__(self, key: bytes, table: Path) -> None:
        if len(key) < _MIN_KEY_BYTES:
            raise KeyTooShort(
                f"the key has {len(key)} bytes, at least {_MIN_KEY_BYTES} are needed:"
                " make one with `openssl rand -hex 32`"
            )
        self._key = key
        self._lock = threading.Lock()
        self._database = Database(table, _SCHEMA, "SELECT kind, outside, inside FROM pseudonyms")
        self._noted: dict[tuple[str, str], str] = {}

    def close(self) -> None:
        self._database.close()

    def uid(self, inside: str) -> str:
        """The UID that replaces one: under 2.25 (PS3.5 annex B.2)."""
        digest = self._digest("uid", inside)
        outside = f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"
        self._noted[("uid", outside)] = inside
        return outside

    def patient(self, issuer: str, patient_id: str) -> str:
        """The Patient ID that replaces one: 16 letters and digits."""
        digest = self._digest("patient", f"{issuer}\0{patient_id}")
        outside = base64.b32encode(digest[:10]).decode()
        self._noted[("patient", outside)] = f"{issuer}\\{patient_id}".strip("\\")
        return outside

    def shift_days(self, issuer: str, patient_id: str) -> int:
        """By how many days a patient's dates move back: one number for all of them."""
        digest = self._digest("shift", f"{issuer}\0{patient_id}")
        return 1 + int.from_bytes(digest[:8]) % _MAX_SHIFT_DAYS

    def save(self) -> None:
        """Put what was given out since the last call into the table, in one transaction: it is on
        the disk before anything leaves.
        """
        with self._lock:
            noted, self._noted = self._noted, {}
            try:
                with self._database.transaction() as db:
                    db.executemany(
                        "INSERT OR IGNORE INTO pseudonyms VALUES (?, ?, ?)",
                        [(kind, outside, inside) for (kind, outside), inside in noted.items()],
                    )
            except OSError:
                self._noted = noted | self._noted
                raise

    def inside(self, kind: str, outside: str) -> str | None:
        """What a pseudonym stands for; `kind` is ``uid`` or ``patient``."""
        rows = self._database.rows(
            "SELECT inside FROM pseudonyms WHERE kind = ? AND outside = ?", kind, outside
        )
        return rows[0][0] if rows else None

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.digest(self._key, f"{kind}\0{text}".encode(), hashlib.sha256)
