"""The data elements of a DICOM dataset, found without copying or building objects.

Reads PS3.5 section 7 (data elements, nested sequences) for one purpose: bytes from outside are
looked at before any are trusted. So nothing here allocates more than the tags that were asked
for, nesting and the number of elements are bounded, and a value that is shorter than its declared
length is an error (`pydicom` reads it silently, and builds objects for all it meets).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Literal, NamedTuple, NoReturn

from slicewatch.limits import Rejected
from slicewatch.records import Reason

ITEM = 0xFFFEE000
ITEM_DELIMITER = 0xFFFEE00D
SEQUENCE_DELIMITER = 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF

PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float Pixel Data, Double Float Pixel Data, Pixel Data: a dataset holds at most one of them."""

_MAX_DEPTH = 32

MIN_PRIVATE = 64
"""Private elements of this many bytes and more are kept: shorter ones can hide little. Each takes
its bytes of the file, so their number is bounded by it."""

# PS3.5 section 7.1.2: these VRs have a 16-bit length, all others, unknown ones too, 32 bits.
_SHORT_VRS = frozenset(
    b"AE,AS,AT,CS,DA,DS,DT,FD,FL,IS,LO,LT,PN,SH,SL,SS,ST,TM,UI,UL,US".split(b",")
)
_EXPLICIT = {"<": Struct("<HH2sH").unpack_from, ">": Struct(">HH2sH").unpack_from}
_IMPLICIT = {"<": Struct("<HHL").unpack_from, ">": Struct(">HHL").unpack_from}
_LENGTH = {"<": Struct("<L").unpack_from, ">": Struct(">L").unpack_from}


class Encoding(NamedTuple):
    """How a dataset is written: without or with VRs; byte order ``<`` or ``>``."""

    implicit: bool
    order: str


IMPLICIT_LITTLE = Encoding(True, "<")
EXPLICIT_LITTLE = Encoding(False, "<")
EXPLICIT_BIG = Encoding(False, ">")


class Element(NamedTuple):
    """Where a value lies: ``data[start:stop]``; `undefined` for one closed by a delimiter."""

    vr: bytes
    start: int
    stop: int
    undefined: bool


def _is_notable(tag: int, length: int) -> bool:
    """Whether a private element is kept: a large one, or a creator (PS3.5 section 7.8.1)."""
    return length >= MIN_PRIVATE or 0x10 <= tag & 0xFFFF <= 0xFF


def _truncated(where: str) -> NoReturn:
    raise Rejected(Reason.TRUNCATED, where)


@dataclass(slots=True)
class Scanner:
    """Walks one object's bytes.

    Attributes:
        wanted: tags that are kept, at every level, so that hostile bytes cannot fill memory.
        remaining: elements and items that may still be looked at, so they cannot fill time.
    """

    data: bytes
    wanted: frozenset[int]
    remaining: int

    def looks_implicit(self, start: int) -> bool:
        """Whether the element at `start` carries no VR: two capitals would be a 16 KiB length."""
        vr = self.data[start + 4 : start + 6]
        return not (len(vr) == 2 and vr.isalpha() and vr.isupper())

    def dataset(self, start: int, stop: int, encoding: Encoding) -> Dataset:
        """The wanted elements of ``data[start:stop]``, up to and with pixel data.

        Raises:
            Rejected: the data ends before an element does, or its structure is damaged.
        """
        found: dict[int, Element] = {}
        end = self._walk(start, stop, encoding, found, 0)
        return Dataset(self, encoding, found, end)

    def file_meta(self, start: int) -> Dataset:
        """The File Meta Information (group 0002, always Explicit VR Little Endian)."""
        found: dict[int, Element] = {}
        position, size = start, len(self.data)
        while self.data[position : position + 2] == b"\x02\x00":
            if size - position < 8:
                _truncated("in the file meta information")
            tag, vr, value, length = self._header(position, size, EXPLICIT_LITTLE)
            stop = value + length
            if stop > size:
                _truncated("in the file meta information")
            self._count()
            found[tag] = Element(vr, value, stop, False)
            position = stop
        return Dataset(self, EXPLICIT_LITTLE, found, position)

    def items(self, element: Element, encoding: Encoding) -> Iterator[Element]:
        """The items of a sequence, or the fragments of encapsulated pixel data."""
        position = element.start
        while position < element.stop:
            self._count()
            tag, length = self._item_header(position, element.stop, encoding.order)
            position += 8
            if tag == SEQUENCE_DELIMITER:
                return
            if length == UNDEFINED:
                end = self._walk(position, element.stop, encoding, None, 1, delimited=True)
                yield Element(b"", position, end - 8, True)
            else:
                end = position + length
                if end > element.stop:
                    self._overrun(element.stop, "an item")
                yield Element(b"", position, end, False)
            position = end

    def trailing_is_sound(self, start: int, encoding: Encoding) -> bool:
        """Whether what follows the pixel data reads as data elements (or is zero padding)."""
        try:
            end = self._walk(start, len(self.data), encoding, None, 1)
        except Rejected:
            return not any(self.data[start:])
        return end == len(self.data)

    def close_undefined(self, start: int, stop: int, encoding: Encoding, depth: int = 0) -> int:
        """Where the delimiter of a value of undefined length begins.

        Raises:
            Rejected: the delimiter is missing (truncated), or something is no item.
        """
        if depth > _MAX_DEPTH:
            raise Rejected(Reason.BAD_HEADER, f"sequences nested deeper than {_MAX_DEPTH}")
        position = start
        while True:
            self._count()
            tag, length = self._item_header(position, stop, encoding.order)
            if tag == SEQUENCE_DELIMITER:
                return position
            position += 8
            if length == UNDEFINED:
                position = self._walk(position, stop, encoding, None, depth + 1, delimited=True)
            else:
                position += length
                if position > stop:
                    self._overrun(stop, "an item")

    def _walk(
        self,
        position: int,
        stop: int,
        encoding: Encoding,
        found: dict[int, Element] | None,
        depth: int,
        *,
        delimited: bool = False,
    ) -> int:
        """Put the wanted elements into `found`; return the position after the last one."""
        wanted = self.wanted
        while position < stop:
            if stop - position < 8:
                if any(self.data[position:stop]):
                    _truncated("inside the header of a data element")
                break
            tag, vr, value, length = self._header(position, stop, encoding)
            self._count()
            if tag == ITEM_DELIMITER:
                return value
            if length == UNDEFINED:
                # PS3.5 section 6.2.2 note 4: UN of undefined length holds Implicit VR Little.
                nested = IMPLICIT_LITTLE if vr == b"UN" else encoding
                end = self.close_undefined(value, stop, nested, depth + 1)
                position = end + 8
            else:
                end = position = value + length
                if end > stop:
                    self._overrun(stop, f"({tag >> 16:04X},{tag & 0xFFFF:04X})")
            keep = tag in wanted or (tag & 0x10000 and _is_notable(tag, end - value))
            if found is not None and keep:
                found[tag] = Element(vr, value, end, length == UNDEFINED)
                if tag in PIXEL_TAGS:
                    return position
        if delimited:
            _truncated("inside a sequence item")
        return stop

    def _header(self, position: int, stop: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
        """Tag, VR (empty where there is none), start and length of the value."""
        implicit, order = encoding
        if not implicit:
            group, number, vr, length = _EXPLICIT[order](self.data, position)
            if vr in _SHORT_VRS:
                return group << 16 | number, vr, position + 8, length
            if vr.isalpha() and vr.isupper():
                if position + 12 > stop:
                    _truncated("inside the header of a data element")
                (length,) = _LENGTH[order](self.data, position + 8)
                return group << 16 | number, vr, position + 12, length
            # Some writers fall back to Implicit VR inside an explicit dataset.
        group, number, length = _IMPLICIT[order](self.data, position)
        return group << 16 | number, b"", position + 8, length

    def _item_header(self, position: int, stop: int, order: str) -> tuple[int, int]:
        if position + 8 > stop:
            _truncated("a sequence has no delimiter")
        group, number, length = _IMPLICIT[order](self.data, position)
        tag = group << 16 | number
        if tag not in (ITEM, SEQUENCE_DELIMITER):
            raise Rejected(
                Reason.BAD_HEADER,
                f"({group:04X},{number:04X}) stands where a sequence item should begin",
            )
        return tag, length

    def _overrun(self, stop: int, what: str) -> NoReturn:
        if stop >= len(self.data):
            _truncated(f"inside {what}")
        raise Rejected(Reason.BAD_HEADER, f"{what} is longer than the item that holds it")

    def _count(self) -> None:
        self.remaining -= 1
        if self.remaining < 0:
            raise Rejected(Reason.TOO_LARGE, "more data elements than the bound")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Elements by tag, read as Python values on request. `end` is where the walk stopped."""

    scanner: Scanner
    encoding: Encoding
    elements: dict[int, Element]
    end: int

    def __contains__(self, tag: int) -> bool:
        element = self.elements.get(tag)
        return element is not None and (element.stop > element.start or element.undefined)

    @property
    def pixel_data(self) -> Element | None:
        """The pixel data, integer or float."""
        return next((self.elements[tag] for tag in PIXEL_TAGS if tag in self.elements), None)

    @property
    def pixel_bytes(self) -> int:
        """Length of the pixel data's value; 0 without pixel data."""
        element = self.pixel_data
        return 0 if element is None else element.stop - element.start

    def private(self) -> Iterator[tuple[int, Element]]:
        """Tag and place of the private elements that were kept; see `MIN_PRIVATE`."""
        return ((tag, element) for tag, element in self.elements.items() if tag & 0x10000)

    def raw(self, tag: int) -> bytes:
        """The value's bytes; empty where the element is absent."""
        element = self.elements.get(tag)
        return b"" if element is None else self.scanner.data[element.start : element.stop]

    def ascii(self, tag: int) -> str:
        """Text of a VR in the default repertoire (CS, UI, DA, …), padding removed."""
        return self.raw(tag).decode("latin-1").strip(" \0\t\r\n")

    def unsigned(self, tag: int) -> int | None:
        """The first value of a US element (UL and IS are understood too)."""
        value = self.raw(tag)
        if not value:
            return None
        vr = self.elements[tag].vr
        if vr in (b"IS", b"DS"):
            return self.integer(tag)
        order: Literal["little", "big"] = "little" if self.encoding.order == "<" else "big"
        return int.from_bytes(value[: 4 if vr == b"UL" else 2], order)

    def integer(self, tag: int) -> int | None:
        """The first value of an IS element."""
        decimals = self.decimals(tag)
        return int(decimals[0]) if decimals else None

    def words(self, tag: int) -> tuple[int, ...]:
        """The value as unsigned 16-bit words."""
        value = self.raw(tag)
        return Struct(f"{self.encoding.order}{len(value) // 2}H").unpack_from(value)

    def decimals(self, tag: int) -> tuple[float, ...]:
        """The values of an IS or DS element, or of FD and FL; empty when one is no number."""
        element = self.elements.get(tag)
        if element is None:
            return ()
        value = self.raw(tag)
        try:
            if element.vr in (b"FD", b"FL"):
                code = "d" if element.vr == b"FD" else "f"
                count = len(value) // (8 if code == "d" else 4)
                numbers = Struct(f"{self.encoding.order}{count}{code}").unpack_from(value)
            else:
                numbers = tuple(map(float, value.strip(b" \0").split(b"\\")))
        except ValueError:
            return ()
        return numbers if all(map(math.isfinite, numbers)) else ()

    def items(self, tag: int) -> Iterator[Dataset]:
        """The datasets of a sequence, one after the other; none where it is absent."""
        element = self.elements.get(tag)
        if element is None:
            return
        encoding = IMPLICIT_LITTLE if element.vr == b"UN" else self.encoding
        for item in self.scanner.items(element, encoding):
            yield self.scanner.dataset(item.start, item.stop, encoding)

    def item(self, tag: int) -> Dataset | None:
        """The first dataset of a sequence."""
        return next(self.items(tag), None)
