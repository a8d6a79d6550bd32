"""Files that hide in a DICOM file: in private elements, or by being two kinds of file at once.

What scanners are known to put there is left out: GE's compressed protocol block, and private
data without the marks of another file, unless it is both large and indistinguishable from noise.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from slicewatch.checks import Check, Evidence, Study, objects
from slicewatch.elements import Dataset
from slicewatch.limits import Rejected

_PROGRAM = "private:program"
_ARCHIVE = "private:archive"
_OPAQUE = "private:opaque"
_OVERSIZED = "private:oversized"
_POLYGLOT = "polyglot:"

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"\x7fELF", _PROGRAM),
    (b"#!/", _PROGRAM),
    (b"PK\x03\x04", _ARCHIVE),
    (b"Rar!\x1a\x07", _ARCHIVE),
    (b"7z\xbc\xaf\x27\x1c", _ARCHIVE),
    (b"\xfd7zXZ\0", _ARCHIVE),
    (b"\x1f\x8b\x08", _ARCHIVE),
    (b"%PDF-", _ARCHIVE),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _ARCHIVE),
)
_ANYWHERE: tuple[tuple[bytes, str], ...] = (
    (b"This program cannot be run in DOS mode", _PROGRAM),
    (b"\x7fELF\x02\x01\x01", _PROGRAM),
    (b"\x7fELF\x01\x01\x01", _PROGRAM),
    (b"powershell -", _PROGRAM),
)
_KNOWN_COMPRESSED = frozenset({(b"GEMS_SERS_01", 0x1B)})
"""Creator and element: GE's protocol data block is gzip by design."""

_OPAQUE_BYTES, _OPAQUE_BITS = 64 << 10, 7.95
"""Random bytes of this size measure 7.997 bits each; deflated text and JPEG lie just below."""
_OVERSIZED_BYTES = 8 << 20
_SEARCHED_BYTES = 16 << 20

_CENTRAL = struct.Struct("<4s4H2LH").unpack_from
_SEARCH_HEAD, _SEARCH_TAIL = 1024, (1 << 16) + 22


def notes(data: bytes, dataset: Dataset) -> tuple[str, ...]:
    """Notes on an object's bytes, each once, for `SliceResult.notes`."""
    found = dict.fromkeys([*_polyglot(data), *_private(dataset), *_private(_after_pixels(dataset))])
    return tuple(found)


def _after_pixels(dataset: Dataset) -> Dataset | None:
    size = len(dataset.scanner.data)
    if dataset.end >= size:
        return None
    try:
        return dataset.scanner.dataset(dataset.end, size, dataset.encoding)
    except Rejected:  # `trailing-data` tells of it
        return None


def _private(dataset: Dataset | None) -> Iterator[str]:
    if dataset is None:
        return
    for tag, element in dataset.private():
        size = element.stop - element.start
        if 0x10 <= tag & 0xFFFF <= 0xFF and size < 128:
            continue
        if size >= _OVERSIZED_BYTES and size > dataset.pixel_bytes:
            yield _OVERSIZED
        value = dataset.scanner.data[
            element.start : min(element.stop, element.start + _SEARCHED_BYTES)
        ]
        if kind := _kind(value):
            if kind != _ARCHIVE or (_creator(dataset, tag), tag & 0xFF) not in _KNOWN_COMPRESSED:
                yield kind
        elif size >= _OPAQUE_BYTES and _entropy(value[: 1 << 20]) > _OPAQUE_BITS:
            yield _OPAQUE


def _creator(dataset: Dataset, tag: int) -> bytes:
    return dataset.raw(tag & 0xFFFF0000 | (tag >> 8 & 0xFF)).strip(b" \0")


def _kind(value: bytes) -> str:
    for mark, kind in _BEGINNINGS:
        if value.startswith(mark):
            return kind
    if value.startswith(b"MZ") and _is_portable_executable(value):
        return _PROGRAM
    return next((kind for mark, kind in _ANYWHERE if mark in value), "")


def _is_portable_executable(value: bytes) -> bool:
    """Two letters are no evidence; the header that they point at is."""
    if len(value) < 64:
        return False
    at = int.from_bytes(value[60:64], "little")
    return value[at : at + 4] == b"PE\0\0"


def _entropy(value: bytes) -> float:
    """Bits a byte."""
    shares = np.bincount(np.frombuffer(value, np.uint8), minlength=256) / len(value)
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


def _polyglot(data: bytes) -> Iterator[str]:
    """What else the whole file can be opened as, beside the preamble's kinds."""
    head = data[:_SEARCH_HEAD]
    if b"%PDF-" in head:
        yield f"{_POLYGLOT}pdf"
    if b"<script" in head.lower():
        yield f"{_POLYGLOT}markup"
    tail = data[-_SEARCH_TAIL:]
    at = tail.rfind(b"PK\x05\x06")
    if 0 <= at <= len(tail) - 22:
        size, comment = _CENTRAL(tail, at)[5], _CENTRAL(tail, at)[7]
        end = len(data) - len(tail) + at
        # Four bytes occur by chance; a directory that ends where this begins does not.
        if data[max(0, end - size) :][:4] == b"PK\x01\x02" and at + 22 + comment <= len(tail):
            yield f"{_POLYGLOT}zip"


# --- checks -----------------------------------------------------------------------------------


def _noted(study: Study, prefix: str, text: str) -> Iterator[Evidence]:
    if frames := [one for one in study.frames if any(n.startswith(prefix) for n in one.notes)]:
        yield Evidence(f"{objects(frames)} {text}", frames)


def _programs(study: Study) -> Iterator[Evidence]:
    return _noted(study, _PROGRAM, "carry a program in a private element. Do not extract it.")


def _archives(study: Study) -> Iterator[Evidence]:
    return _noted(
        study, _ARCHIVE, "carry an archive or a document in a private element that is not known"
        " to hold one."
    )  # fmt: skip


def _opaque(study: Study) -> Iterator[Evidence]:
    return _noted(
        study, _OPAQUE, "carry private data that looks random: encrypted, compressed or hidden."
    )


def _oversized(study: Study) -> Iterator[Evidence]:
    return _noted(study, _OVERSIZED, "carry a private element larger than their image.")


def _polyglots(study: Study) -> Iterator[Evidence]:
    return _noted(
        study, _POLYGLOT, "can be opened as another kind of file, too (an archive, a PDF or a web"
        " page). Do not open them with anything but a DICOM viewer."
    )  # fmt: skip


CHECKS = (
    Check("polyglot-file", _polyglots),
    Check("private-program", _programs),
    Check("private-archive", _archives),
    Check("private-opaque", _opaque),
    Check("private-oversized", _oversized),
)
