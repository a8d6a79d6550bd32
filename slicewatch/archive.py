"""Archives that arrive: zip files, read entry by entry and within bounds.

Two kinds of refusal, since two kinds of sender make them:

- An entry that is not taken (a link, an absolute name or one with ``..``, another archive,
  encrypted, too large, damaged) is refused alone. It is a mistake of who packed the study, and
  the slices beside it must not be lost with it.
- An archive that is damaged as a whole, or would unpack to more than the bounds, is refused
  before any of it is unpacked. A bomb is an attack, and nothing that comes with one is trusted.

Names of entries are checked, never used: objects are stored by the UIDs inside them. They stay
out of texts, too, since people put names of patients there; an entry is told by its number.
"""

from __future__ import annotations

import io
import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator

from slicewatch.arrival import Offered
from slicewatch.limits import Rejected
from slicewatch.records import Reason
from slicewatch.settings import Settings

_CHUNK = 1 << 20
_DIRECTORY_BYTES_AN_ENTRY = 1024
_RATIO_FREE_BYTES = 64 << 20
"""Unpacked bytes below which no ratio is suspicious: an empty slice deflates a thousandfold."""

_DRIVE = re.compile(r"[A-Za-z]:")
_ENCRYPTED = 0x1  # APPNOTE.TXT section 4.4.4, bit 0
_ARCHIVES = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\x00",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!",
    b"\x28\xb5\x2f\xfd",
)
_UNPACK_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


class BadArchive(Exception):
    """The archive is refused as a whole; the text says why, without names of entries."""


class ArchiveTooLarge(BadArchive):
    """It breaks a bound: entries, unpacked size or ratio."""


def is_archive(data: bytes) -> bool:
    """Whether the bytes are a zip file; a DICOM file that begins like one is none."""
    return data[:4] in _ARCHIVES[:2] and data[128:132] != b"DICM"


def unpack(data: bytes, settings: Settings) -> Iterator[Offered]:
    """Check a zip file, then hand out its entries, folders left out, one at a time.

    Raises:
        ArchiveTooLarge, BadArchive: at once, before any entry is unpacked.
    """
    source = _Source(data, settings.max_archive_entries * _DIRECTORY_BYTES_AN_ENTRY)
    try:
        archive = zipfile.ZipFile(source)
    except ArchiveTooLarge:
        raise
    except _UNPACK_ERRORS:
        raise BadArchive("not a zip file, or its directory is damaged") from None
    source.opened = True
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _check_bounds(entries, len(data), settings)
    return (_offered(archive, entry, settings) for entry in entries)


class _Source(io.BytesIO):
    """The archive's bytes; its directory, which `zipfile` reads in one go, is bounded."""

    def __init__(self, data: bytes, max_directory: int) -> None:
        super().__init__(data)
        self._max_directory = max(max_directory, 1 << 17)
        self.opened = False

    def read(self, size: int | None = -1, /) -> bytes:
        if not self.opened and size is not None and size > self._max_directory:
            raise ArchiveTooLarge("the archive's directory is larger than its bound")
        return super().read(size)


def _check_bounds(entries: list[zipfile.ZipInfo], size: int, settings: Settings) -> None:
    if not entries:
        raise BadArchive("the archive is empty")
    if len(entries) > settings.max_archive_entries:
        raise ArchiveTooLarge(
            f"{len(entries)} entries; at most {settings.max_archive_entries} are accepted"
        )
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > settings.max_archive_bytes:
        raise ArchiveTooLarge(
            f"unpacks to {unpacked} bytes; at most {settings.max_archive_bytes} are accepted"
        )
    # What an entry says of its packed size may be a lie; the size of the archive is not.
    if sum(entry.compress_size for entry in entries) > size:
        raise BadArchive("its entries claim more bytes than the archive has")
    _check_ratio(unpacked, size, settings.max_archive_ratio)
    for entry in entries:
        _check_ratio(entry.file_size, entry.compress_size, settings.max_archive_ratio)


def _check_ratio(unpacked: int, packed: int, bound: int) -> None:
    if unpacked > _RATIO_FREE_BYTES and unpacked > bound * packed:
        raise ArchiveTooLarge(f"unpacks to more than {bound} times its size")


def _offered(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, settings: Settings) -> Offered:
    """The entry's bytes, with why they are refused if they are."""
    if entry.flag_bits & _ENCRYPTED:
        return Offered(b"", Rejected(Reason.REFUSED_ENTRY, "encrypted"))
    if entry.file_size > settings.max_object_bytes:
        detail = f"{entry.file_size} bytes, at most {settings.max_object_bytes}"
        return Offered(b"", Rejected(Reason.TOO_LARGE, detail))
    try:
        with archive.open(entry) as stream:
            data = b"".join(iter(lambda: stream.read(_CHUNK), b""))
    except _UNPACK_ERRORS:
        return Offered(b"", Rejected(Reason.BAD_ARCHIVE, "the entry does not unpack"))
    fault = _fault(entry, data)
    return Offered(data, Rejected(Reason.REFUSED_ENTRY, fault) if fault else None)


def _fault(entry: zipfile.ZipInfo, data: bytes) -> str:
    """Why an entry that unpacks is not taken; empty for one that is."""
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "a link" if stat.S_ISLNK(mode) else "a device or another special file"
    # `filename` ends at the first NUL and has the platform's separator; the original has neither.
    path = entry.orig_filename.replace("\\", "/")
    if path.startswith("/") or _DRIVE.match(path):
        return "its name is absolute"
    if ".." in path.split("/"):
        return "its name leads out of the archive"
    if "\0" in path:
        return "its name has a NUL"
    if data[128:132] != b"DICM" and (data.startswith(_ARCHIVES) or data[257:262] == b"ustar"):
        return "an archive inside the archive"
    return ""
