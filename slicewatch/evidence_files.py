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

_MAX_READ = 256 << 20
"""Of a file that is taken into memory: logs and results, of which the largest are some MiB."""
_MAX_RATIO, _UNPACKED_BYTES = 100, 1 << 30
"""Bundles are made without compression; one that was packed again is told from a bomb."""
_CHUNK = 1 << 20
_LOCAL_HEADER, _MAX_DESCRIPTOR = 30, 24  # bytes; APPNOTE 4.3.7 and 4.3.9
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
        Unreadable: it is neither a zip file nor a folder; or programs may disagree on what is in
            it: a path twice, files that only some of them would find, links; or it is a bomb.
    """

    def __init__(self, path: Path) -> None:
        self._hashes: dict[str, str] = {}
        self._open: Callable[[str], IO[bytes]]
        names = self._folder(path) if path.is_dir() else self._archive(path)
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise Unreadable(f"a path is in it more than once: {twice[0]!r}")
        self.names = frozenset(names)

    def _folder(self, path: Path) -> list[str]:
        names = []
        for found in path.rglob("*"):
            if found.is_symlink() or not (found.is_file() or found.is_dir()):
                raise Unreadable(
                    f"it holds what is no file: {found.relative_to(path).as_posix()!r}"
                )
            if found.is_file():
                names.append(found.relative_to(path).as_posix())
        self._open = lambda name: (path / name).open("rb")
        return names

    def _archive(self, path: Path) -> list[str]:
        try:
            archive = zipfile.ZipFile(path)
            _refuse_tricks(archive, path.stat().st_size)
        except _DAMAGED as error:
            raise Unreadable(f"no zip file that can be read: {error}") from None
        self._open = archive.open
        return [one.filename for one in archive.infolist() if not one.is_dir()]

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


def _refuse_tricks(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse a zip file that another program may unpack to other files than are checked here.

    Some read the directory at its end, some the files one after the other, some the first end of
    a directory that they find: where there is nothing beside and between the files of the
    directory, all of them find the same.

    Raises:
        Unreadable: there is; or the files are far larger than the zip file.
    """
    if archive.comment:
        raise Unreadable("the zip file has a comment, in which another one may hide")
    end = 0
    for one in sorted(archive.infolist(), key=lambda one: one.header_offset):
        if one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Unreadable(f"it is packed in a way that is not read here: {one.filename!r}")
        if one.is_dir() and one.file_size:
            raise Unreadable(f"a folder has content: {one.filename!r}")
        _refuse_gap(end, one.header_offset)
        end = one.header_offset + _LOCAL_HEADER + _variable(archive, one) + one.compress_size
    _refuse_gap(end, archive.start_dir)
    unpacked = sum(one.file_size for one in archive.infolist())
    if unpacked > _UNPACKED_BYTES and unpacked > _MAX_RATIO * size:
        raise Unreadable(f"a bomb: {size} bytes would unpack to {unpacked}")


def _refuse_gap(end: int, start: int) -> None:
    # After a file, its sizes may stand in a descriptor; before the first there is nothing.
    if not 0 <= start - end <= (_MAX_DESCRIPTOR if end else 0):
        raise Unreadable(
            f"the zip file has {start - end} bytes at {end} that are of none of its files; unpack"
            " it and look at the folder"
        )


def _variable(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Bytes of name and extra field in a file's own header, which may differ from its entry."""
    file = archive.fp
    assert file is not None
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("a file of the directory is not where it says")
    name, extra = struct.unpack("<HH", header[26:30])
    return int(name) + int(extra)
