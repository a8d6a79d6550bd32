"""Which representation a user agent accepts (PS3.18 section 8.7, RFC 9110 section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from slicewatch.multipart import media_type

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
JSON = "application/json"
OCTET_STREAM = "application/octet-stream"
JPEG = "image/jpeg"
PNG = "image/png"

_MOST_RANGES = 64
# Commas and semicolons inside a quoted parameter separate nothing.
_RANGES = re.compile(r'(?:[^",]|"[^"]*")+')


class NotAcceptable(Exception):
    """No representation that can be made is accepted; the text says which ones can be."""


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One range of an Accept header.

    Attributes:
        name: of the media type, which of ``multipart/related`` is that of its parts.
        multipart: whether the parts of a multipart message are meant.
        transfer_syntax: the ``transfer-syntax`` parameter; empty without one.
        quality: 0 to 1; 0 is a refusal.
    """

    name: str
    multipart: bool = False
    transfer_syntax: str = ""
    quality: float = 1.0

    def covers(self, name: str) -> bool:
        """Whether the range has this media type."""
        if self.name in ("*/*", name):
            return True
        kind, _, rest = self.name.partition("/")
        return rest in ("*", "") and name.startswith(f"{kind}/")


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a request accepts, best first; of equal quality, the first named first."""

    ranges: tuple[MediaRange, ...] = field(default=(MediaRange("*/*"),))

    def choose(self, offers: Sequence[str]) -> str:
        """The media type to answer with, of those in `offers` (the default first).

        Raises:
            NotAcceptable: none is accepted.
        """
        for wanted in self.ranges:
            for offer in offers:
                if wanted.covers(offer):
                    return offer
        raise NotAcceptable(f"this resource comes as {' or '.join(offers)}")

    def transfer_syntaxes(self, name: str, *, single: bool = False) -> frozenset[str] | None:
        """The transfer syntaxes in which parts of this media type are accepted; ``None``: any.

        A range without the parameter leaves it to the server, as ``*`` does.

        Args:
            single: whether a body that is no multipart message is offered, too.

        Raises:
            NotAcceptable: the media type itself is not accepted.
        """
        fitting = [
            one
            for one in self.ranges
            if one.covers(name) and (one.multipart or single or one.name == "*/*")
        ]
        if not fitting:
            raise NotAcceptable(f'this resource comes as multipart/related; type="{name}"')
        named = frozenset(one.transfer_syntax for one in fitting)
        return None if named & {"", "*"} else named

    def prefers_single(self, name: str) -> bool:
        """Whether the best range for the media type asks for it bare, without multipart."""
        best = next((one for one in self.ranges if one.covers(name)), None)
        return best is not None and not best.multipart and best.name == name


def accepted(header: str, parameter: str = "") -> Accepted:
    """Read an Accept header, and the query parameter ``accept`` which goes before it (PS3.18
    section 8.3.3.1). Neither of them: everything is accepted. What is no media range is ignored.
    """
    text = parameter or header
    ranges = [_range(part) for part in _RANGES.findall(text)[:_MOST_RANGES] if part.strip()]
    if not ranges:
        return Accepted()
    # A stable sort keeps the sender's order among equals.
    kept = sorted((one for one in ranges if one.quality > 0), key=lambda one: -one.quality)
    return Accepted(tuple(kept))


def _range(text: str) -> MediaRange:
    name, parameters = media_type(text)
    try:
        quality = min(1.0, max(0.0, float(parameters.get("q", "1"))))
    except ValueError:
        quality = 0.0
    syntax = parameters.get("transfer-syntax", "")
    if name == "multipart/related":
        parts = parameters.get("type", "*/*").lower()
        return MediaRange(parts, multipart=True, transfer_syntax=syntax, quality=quality)
    return MediaRange(name, transfer_syntax=syntax, quality=quality)
