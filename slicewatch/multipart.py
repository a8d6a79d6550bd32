"""Multipart request bodies: ``multipart/related`` (PS3.18 section 8.6.1.2) and ``form-data``.

The framing is RFC 2046's. Parsing stands on the package ``multipart``, which finds delimiters
with `bytes.find`: a part's bytes are copied once, when it is handed out.
"""

from __future__ import annotations

import email.message
import email.utils
import re
from collections.abc import Iterator
from dataclasses import dataclass

import multipart  # type: ignore[import-untyped]

# RFC 2046 section 5.1.1 allows 1 to 70 characters of a smaller set; senders use others, too.
_BOUNDARY = re.compile(r"[\x20-\x7e]{0,69}[\x21-\x7e]")


class BadMultipart(ValueError):
    """The body is no multipart message of its boundary; the text says what is wrong."""


class TooManyParts(ValueError):
    """The body has more parts than the bound."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its media type in lower case without parameters (empty when it has none), the
    file name of its Content-Disposition, and its bytes.
    """

    media_type: str
    filename: str | None
    data: bytes


def media_type(content_type: str) -> tuple[str, dict[str, str]]:
    """A Content-Type as its media type, in lower case, and its parameters, names in lower case."""
    message = email.message.Message()
    message["Content-Type"] = content_type
    (name, _), *parameters = message.get_params([("", "")])
    return name.strip().lower(), {
        key.lower(): email.utils.collapse_rfc2231_value(value) for key, value in parameters
    }


def check(body: bytes, boundary: str, *, max_parts: int) -> int:
    """Walk the framing of the whole body, so that nothing is taken from a message that is cut.

    Returns:
        The number of parts.

    Raises:
        BadMultipart: no or a malformed boundary, a boundary that does not occur, a body that
            ends before the closing one, a damaged part header.
        TooManyParts: more than `max_parts`.
    """
    return sum(1 for _ in parts(body, boundary, max_parts=max_parts))


def parts(body: bytes, boundary: str, *, max_parts: int) -> Iterator[Part]:
    """The parts one after the other, so that only one needs to be in memory beside the body.

    Raises:
        BadMultipart, TooManyParts: see `check`; possibly after some parts were handed out.
    """
    if not boundary:
        raise BadMultipart("the Content-Type has no boundary parameter")
    if not _BOUNDARY.fullmatch(boundary):
        raise BadMultipart("the boundary is not 1 to 70 printable characters (RFC 2046)")
    parser = _Parser(boundary)
    seen = 0
    try:
        for part in _collected(parser.parse(body) if body else iter(())):
            seen += 1
            if seen > max_parts:
                raise TooManyParts(f"the body has more than {max_parts} parts")
            yield part
    except multipart.MultipartError as error:
        raise BadMultipart(f"part {seen + 1}: {error}") from None
    try:
        parser.close()
    except multipart.MultipartError:
        where = "does not close the body" if parser.begun else "does not occur in the body"
        raise BadMultipart(f"the boundary of the Content-Type {where}") from None


class _Parser(multipart.PushMultipartParser):  # type: ignore[misc]  # the package has no types
    """Parts of any multipart type: only ``form-data`` asks for a Content-Disposition."""

    begun = False

    def _create_segment(self, headerlist: list[tuple[str, str]]) -> multipart.MultipartSegment:
        self.begun = True
        return multipart.MultipartSegment(headerlist)


def _collected(events: Iterator[multipart.MultipartSegment | bytes | None]) -> Iterator[Part]:
    """Join the parser's events: a segment, chunks of its bytes, ``None`` at its end."""
    segment: multipart.MultipartSegment | None = None
    chunks: list[bytes] = []
    for event in events:
        if isinstance(event, bytes):
            chunks.append(event)
        elif event is not None:
            segment = event
        else:
            assert segment is not None
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks = []
            yield Part((segment.content_type or "").lower(), segment.filename, data)
