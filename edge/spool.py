"""The spool: objects on the site's disk, each named by the SHA-256 of its bytes.

Layout, readable for the agent's user only::

    objects/ab/abcd….dcm    an object; two hex digits make the folder
    arriving/               files that are still being written; emptied at each start
    aside/                  what was damaged, beside a .txt that says why
    journal.sqlite          see `edge.journal`

File and folder are flushed to the disk before `keep` returns: what it returned for survives a
power cut. The name proves the content, so a lost journal can be rebuilt from the files alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import RawIOBase
from pathlib import Path

from slicewatch.dicom import Header, read_header
from slicewatch.limits import Limits, Rejected
from slicewatch.records import Reason

_TAKEN = itertools.count()
_FREE_S = 0.25
_SYNCING = 16


class DiskFull(Exception):
    """The spool must not take more; what it holds is safe."""


class Damaged(Exception):
    """A spooled file is missing, or is not what was received."""


class Spool:
    """The files under `folder`; one agent at a time uses it.

    Args:
        min_free_bytes: of the file system, below which nothing more is taken.
        max_bytes: of objects that wait.
    """

    def __init__(self, folder: Path, *, min_free_bytes: int, max_bytes: int) -> None:
        self.folder = folder
        self.journal_file = folder / "journal.sqlite"
        self.arriving = folder / "arriving"
        self._objects = folder / "objects"
        self._aside = folder / "aside"
        self._min_free = min_free_bytes
        self._max = max_bytes
        self._free, self._free_at = 0, float("-inf")
        self._syncing = ThreadPoolExecutor(_SYNCING, "spool-sync")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in (self.arriving, self._objects, self._aside):
            part.mkdir(mode=0o700, exist_ok=True)
        for shard in range(256):
            (self._objects / f"{shard:02x}").mkdir(mode=0o700, exist_ok=True)
        _sync_folder(self._objects)
        _sync_folder(folder)

    def clear_arriving(self) -> int:
        """Remove what a crash left half written: it was never acknowledged."""
        leftovers = list(self.arriving.iterdir())
        for leftover in leftovers:
            if leftover.is_dir() and not leftover.is_symlink():
                self.set_aside(leftover, "a folder that the agent did not make")
            else:
                leftover.unlink()
        return len(leftovers)

    # --- space ----------------------------------------------------------------------------------

    def free_bytes(self) -> int:
        """Of the file system; at most `_FREE_S` old: asking costs as much as a small write."""
        now = time.monotonic()
        if now - self._free_at > _FREE_S:
            self._free, self._free_at = shutil.disk_usage(self.folder).free, now
        return self._free

    def check_space(self, waiting_bytes: int, size: int = 0) -> None:
        """Raises `DiskFull` when `size` bytes more would be too much."""
        free = self.free_bytes()
        if free - size < self._min_free:
            raise DiskFull(f"{free >> 20} MiB are free, {self._min_free >> 20} MiB must stay so")
        if waiting_bytes + size > self._max:
            raise DiskFull(f"{waiting_bytes >> 20} MiB wait, at most {self._max >> 20} MiB may")

    # --- objects --------------------------------------------------------------------------------

    def path(self, sha256: str) -> Path:
        """Where the object with these bytes lies, or would."""
        return self._objects / sha256[:2] / f"{sha256}.dcm"

    def create(self) -> Path:
        """A new empty file in ``arriving``."""
        handle, name = tempfile.mkstemp(dir=self.arriving, suffix=".part")
        os.close(handle)
        return Path(name)

    def keep(self, arriving: Path | bytes, sha256: str) -> Path:
        """Give a complete file, or bytes, its name; all is on the disk when this returns.

        A file has its name before it is flushed: then the file system writes both in one go. Should
        the power fail in between, its name does not prove its content, and it is set aside at the
        next start; nobody was told that it is safe. What is there already is not replaced.

        Raises:
            DiskFull: the disk has no room for it.
        """
        final = self.path(sha256)
        try:
            if not (final.exists() and hash_of(final) == sha256):
                self._place(arriving, final)
            handle = os.open(final, os.O_RDONLY)
            try:
                self._flush(handle, final.parent)
            finally:
                os.close(handle)
        except OSError as error:
            raise DiskFull(f"writing to the spool failed: {error.strerror}") from error
        return final

    def _flush(self, handle: int, folder: Path) -> None:
        """File and folder at once, so that a journalling file system writes both in one commit:
        one after the other they wait for the disk twice. What is to be written has begun its way
        before, and so belongs to the same commit.
        """
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        named = self._syncing.submit(_sync_folder, folder)
        os.fsync(handle)
        named.result()

    def _place(self, arriving: Path | bytes, final: Path) -> None:
        """Never writes into a file that has its name already: it may be another sender's, who was
        told that it is safe.
        """
        if isinstance(arriving, Path):
            arriving.replace(final)
            return
        own = final
        try:
            file = own.open("xb", 0)
        except FileExistsError:
            own = self.create()
            file = own.open("wb", 0)
        try:
            with file:
                write_all(file, arriving)
        except OSError:
            own.unlink(missing_ok=True)
            raise
        if own is not final:
            own.replace(final)

    def verify(self, sha256: str) -> Path:
        """The object's file, once its bytes were found to be those that were received.

        Raises:
            Damaged: it is missing or changed.
        """
        path = self.path(sha256)
        try:
            found = hash_of(path)
        except FileNotFoundError:
            raise Damaged("the spooled file is missing") from None
        except OSError as error:
            raise Damaged(f"the spooled file cannot be read: {error.strerror}") from None
        if found != sha256:
            raise Damaged("the spooled file is not what was received")
        return path

    def remove(self, sha256: str) -> None:
        """Forget an object that the cloud has; doing it again changes nothing."""
        self.path(sha256).unlink(missing_ok=True)

    def set_aside(self, path: Path, reason: str) -> Path | None:
        """Move what is damaged out of the way, with its reason; ``None`` when it is gone."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        target = self._aside / f"{stamp}-{os.getpid()}-{next(_TAKEN)}-{path.name}"
        try:
            path.replace(target)
        except FileNotFoundError:
            return None
        target.with_name(target.name + ".txt").write_text(reason + "\n", encoding="utf-8")
        _sync_folder(self._aside)
        return target

    def set_journal_aside(self, reason: str) -> None:
        """Move the journal's files out of the way; the spool can rebuild it."""
        for suffix in ("", "-wal", "-shm"):
            self.set_aside(self.journal_file.with_name(self.journal_file.name + suffix), reason)

    def objects(self) -> Iterator[tuple[str, Path]]:
        """Name (SHA-256) and file of every spooled object."""
        for shard in sorted(self._objects.iterdir()):
            for path in sorted(shard.glob("*.dcm")):
                yield path.stem, path


def hash_of(path: Path | bytes) -> str:
    """SHA-256 of bytes or of a file, hex; a file is read in bounded memory."""
    if isinstance(path, bytes):
        return hashlib.sha256(path).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def header_of(path: Path | bytes, max_bytes: int = 1 << 40) -> Header:
    """The header of an object; a file is read where it lies: its pixels do not enter memory.

    Raises:
        Rejected: it is no sound DICOM object.
    """
    limits = Limits(max_bytes=max_bytes)
    if isinstance(path, bytes):
        return read_header(path, limits)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise Rejected(Reason.NOT_DICOM, "the file is empty")
        with contextlib.closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as view:
            # The reader slices and unpacks, which a map does as bytes do.
            return read_header(view, limits)  # type: ignore[arg-type]


def write_all(file: RawIOBase, data: bytes | bytearray | memoryview) -> None:
    """Write to an unbuffered file, which may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
