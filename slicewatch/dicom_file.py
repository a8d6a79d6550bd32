"""The outer form of a DICOM file (PS3.10): preamble, file meta information, transfer syntax.

Files come without preamble, without file meta information, and with a transfer syntax that is not
theirs: what can be read all the same is read, and noted.
"""

from __future__ import annotations

from slicewatch import tags
from slicewatch.elements import EXPLICIT_LITTLE, IMPLICIT_LITTLE, Dataset, Scanner
from slicewatch.limits import Limits, Rejected
from slicewatch.records import Reason
from slicewatch.transfer_syntaxes import DEFLATED, encoding_of, inflate
from slicewatch.uids import is_uid

_MAGIC: tuple[tuple[str, tuple[bytes, ...]], ...] = (
    ("pe", (b"MZ",)),
    ("elf", (b"\x7fELF",)),
    (
        "macho",
        (
            b"\xfe\xed\xfa\xce",
            b"\xfe\xed\xfa\xcf",
            b"\xce\xfa\xed\xfe",
            b"\xcf\xfa\xed\xfe",
            b"\xca\xfe\xba\xbe",
        ),
    ),
    ("script", (b"#!", b"@echo", b"<?php", b"<script", b"<job", b"<hta:")),
    ("archive", (b"PK\x03\x04", b"Rar!", b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b")),
    ("markup", (b"<html", b"<!doctype", b"<?xml", b"<svg", b"%pdf")),
    ("tiff", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
)
_TEXT_KINDS = frozenset({"script", "markup"})


def open_file(
    data: bytes, limits: Limits, size: int | None = None
) -> tuple[str, Dataset, Dataset, list[str]]:
    """Transfer syntax, dataset, file meta information, and what is odd (`slicewatch.dicom`).

    Args:
        data: a file, with or without preamble (PS3.10 section 7.1).
        size: of the whole file, where `data` is only its beginning: `struct.error` is raised when
            a data element before the pixel data, or a fragment of it, begins after that.

    Raises:
        Rejected: NOT_DICOM, TRUNCATED, TOO_LARGE (of a deflated one) or BAD_HEADER.
    """
    notes: list[str] = []
    start = 132 if data[128:132] == b"DICM" else 0
    if start:
        notes += [f"preamble:{kind}" for kind in [_preamble_kind(data[:128])] if kind]
    else:
        _check_bare(data)
        notes.append("no-preamble")
    scanner = Scanner(data, tags.READ, limits.max_elements)
    meta = scanner.file_meta(start)
    syntax = meta.ascii(tags.TRANSFER_SYNTAX_UID)
    position = meta.end
    stop = len(data) if size is None else size
    if syntax == DEFLATED:
        inflated = inflate(memoryview(data)[position:], _max_inflated(len(data), limits))
        scanner = Scanner(inflated, tags.READ, limits.max_elements)
        position, stop = 0, len(inflated)
    if position >= stop:
        raise Rejected(Reason.TRUNCATED, "nothing follows the file meta information")
    if not is_uid(syntax):
        notes.append("no-transfer-syntax")
        syntax = _guess_syntax(scanner, position)
    encoding = encoding_of(syntax)
    implicit = scanner.looks_implicit(position)
    if implicit != encoding.implicit and encoding.order == "<":
        notes.append("vr-mismatch")
        encoding = IMPLICIT_LITTLE if implicit else EXPLICIT_LITTLE
    return syntax, scanner.dataset(position, stop, encoding), meta, notes


def _max_inflated(size: int, limits: Limits) -> int:
    """Images rarely deflate below a hundredth, but for empty ones, which are small."""
    return min(limits.max_bytes, max(1 << 24, size << 8))


def _check_bare(data: bytes) -> None:
    """Without ``DICM``, a file must begin with an early element of group 0002 or 0008."""
    begins = data[:2] in (b"\x02\x00", b"\x08\x00") and data[3:4] == b"\0" and data[2] < 0x80
    begins_big = data[:3] == b"\x00\x08\x00"
    if len(data) < 8 or not (begins or begins_big):
        raise Rejected(Reason.NOT_DICOM, "neither DICM at byte 128 nor a dataset at byte 0")


def _preamble_kind(preamble: bytes) -> str:
    """Which other file the preamble begins like; empty for an unused one (all zero)."""
    if not any(preamble):
        return ""
    text = preamble.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for kind, magics in _MAGIC:
        if (text if kind in _TEXT_KINDS else preamble).startswith(magics):
            return kind
    return "other"


def _guess_syntax(scanner: Scanner, position: int) -> str:
    if scanner.looks_implicit(position):
        return "1.2.840.10008.1.2"
    # The first group is 0008 or near: big endian, it reads as 0800 and more.
    group = int.from_bytes(scanner.data[position : position + 2], "little")
    return "1.2.840.10008.1.2.2" if group >= 0x0100 else "1.2.840.10008.1.2.1"
