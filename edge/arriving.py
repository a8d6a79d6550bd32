"""An object while it arrives: its dataset as the peer sends it, behind a File Meta header."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from io import RawIOBase
from pathlib import Path

from pydicom.uid import UID

from edge.spool import DiskFull, Spool, write_all

IMPLEMENTATION_CLASS_UID = UID("2.25.291836458117412690533210938465526931202")
IMPLEMENTATION_VERSION = "SLICEWATCH_EDGE"

_MEMORY_BYTES = 4 << 20
"""A file costs a small object more than its fragments do; times associations, this is memory."""


class TooLarge(Exception):
    """The object is over its bound; its association ends."""


class Arriving:
    """A C-STORE's object as it arrives, as a Part 10 file: a small one in memory, a large one in
    the spool's ``arriving``. `sha256` is of the whole file.

    Args:
        meta: see `file_meta`.
    """

    def __init__(self, spool: Spool, meta: bytes, max_bytes: int) -> None:
        self._path: Path | None = None
        self._spool = spool
        self._left = max_bytes
        self._hash = hashlib.sha256()
        self._memory: bytearray | None = bytearray()
        self._file: RawIOBase | None = None
        self.write(bytes(128) + b"DICM" + meta)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes | memoryview) -> None:
        """Raises `DiskFull`, and `TooLarge` when the object is larger than allowed."""
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge("the object is larger than receive.max_object_bytes")
        self._hash.update(data)
        if self._memory is not None:
            self._memory += data
            if len(self._memory) > _MEMORY_BYTES:
                self._spill(self._memory)
        else:
            self._write(data)

    def _spill(self, data: bytearray) -> None:
        try:
            self._path = self._spool.create()
            self._file = self._path.open("wb", 0)
        except OSError as error:
            raise DiskFull(f"writing to the spool failed: {error.strerror}") from error
        self._memory = None
        self._write(data)

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        assert self._file is not None
        try:
            write_all(self._file, data)
        except OSError as error:
            raise DiskFull(f"writing to the spool failed: {error.strerror}") from error

    def finish(self) -> Path | bytes:
        """All of it: where it is, or itself."""
        if self._memory is not None:
            return bytes(self._memory)
        assert self._path is not None
        self._close()
        return self._path

    def discard(self) -> None:
        """The object will not be completed, or the spool has it; safe to call again."""
        self._close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        """Nothing is buffered here, so nothing can be lost here: the spool flushes the file."""
        self._memory = None
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def file_meta(sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    """File Meta Information (PS3.10 section 7.1) that follows from the object alone: the same
    object from another sender gives the same bytes.
    """
    elements = b"".join(
        (
            # (0002,0001) has the long form of a length (PS3.5 table 7.1-1).
            bytes.fromhex("020001004f420000020000000001"),
            _element(0x0002, b"UI", sop_class, b"\0"),
            _element(0x0003, b"UI", sop_instance, b"\0"),
            _element(0x0010, b"UI", transfer_syntax, b"\0"),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION, b" "),
        )
    )
    return struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(elements)) + elements


def _element(number: int, vr: bytes, text: str, padding: bytes) -> bytes:
    value = text.encode("ascii")
    value += padding * (len(value) % 2)
    return struct.pack("<HH2sH", 2, number, vr, len(value)) + value
