"""The files of an evidence bundle: their places, and reading them from hostile zip files."""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO

FORMAT = "slicewatch-evidence-1"
ORIGINALS, RESULTS = "originals/", "results/"
LOG, MANIFEST, WORKLIST = "log.jsonl", "manifest.json", "results/worklist.json"
CHECKPOINTS, KEYS = "checkpoints/", "keys/"
SUMMARY, README = "summary.pdf", "README.txt"

_MAX_READ = 1 << 30
_CHUNK = 1 << 20
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
)
"""What reading a file of a damaged zip file raises."""


class Unreadable(Exception):
    """What was given is no bundle that can be looked at; the text says why."""


class Bundle:
    """The files of a bundle, by their paths.

    Raises:
        Unreadable: it is neither a zip file nor a folder, or a path is in it twice.
    """

    def __init__(self, path: Path) -> None:
        self._hashes: dict[str, str] = {}
        self._open: Callable[[str], IO[bytes]]
        if path.is_dir():
            names = [p.relative_to(path).as_posix() for p in path.rglob("*") if not p.is_dir()]
            self._open = lambda name: (path / name).open("rb")
        else:
            try:
                archive = zipfile.ZipFile(path)
            except _DAMAGED as error:
                raise Unreadable(f"no zip file that can be read: {error}") from None
            names = [one.filename for one in archive.infolist() if not one.is_dir()]
            self._open = archive.open
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise Unreadable(f"a path is in it more than once: {twice[0]!r}")
        self.names = frozenset(names)

    def read(self, name: str) -> bytes | None:
        """The file; ``None`` when it is missing, damaged, or larger than such a file can be."""
        if name not in self.names:
            return None
        try:
            with self._open(name) as file:
                text = file.read(_MAX_READ + 1)
        except _DAMAGED:
            return None
        return text if len(text) <= _MAX_READ else None

    def sha256(self, name: str) -> str:
        """Hash of the file; empty when it is missing or damaged."""
        if name not in self._hashes:
            self._hashes[name] = self._sha256(name) if name in self.names else ""
        return self._hashes[name]

    def _sha256(self, name: str) -> str:
        hashed = hashlib.sha256()
        try:
            with self._open(name) as file:
                while chunk := file.read(_CHUNK):
                    hashed.update(chunk)
        except _DAMAGED:
            return ""
        return hashed.hexdigest()
