"""What may stand where a UID belongs: UIDs become paths, so they are checked before they do."""

from __future__ import annotations

import re

_COMPONENTS = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_MAX_LENGTH = 64


def is_uid(text: str) -> bool:
    """Whether `text` is digits and single dots of at most 64 characters (PS3.5 section 9.1).

    Leading zeros of a component pass, although the standard forbids them: scanners write them.
    """
    return len(text) <= _MAX_LENGTH and _COMPONENTS.fullmatch(text) is not None


_HEAD_BYTES = 1 << 16
_STATED = ((0x0020, 0x000D), (0x0020, 0x000E), (0x0008, 0x0018))


def stated_uids(data: bytes) -> tuple[str, str, str] | None:
    """Study, series and SOP instance UID that a damaged object states near its start.

    A search for the elements' bytes, little endian, explicit or implicit VR: it works where the
    object does not parse. ``None`` when no study is stated; the other two may be empty.
    """
    study, series, instance = (_stated(data[:_HEAD_BYTES], *tag) for tag in _STATED)
    return (study, series, instance) if study else None


def _stated(head: bytes, group: int, element: int) -> str:
    tag = group.to_bytes(2, "little") + element.to_bytes(2, "little")
    at = head.find(tag + b"UI")
    if at >= 0:
        start, length = at + 8, int.from_bytes(head[at + 6 : at + 8], "little")
    else:
        at = head.find(tag)
        start, length = at + 8, int.from_bytes(head[at + 4 : at + 8], "little")
    if at < 0 or length > 66:
        return ""
    text = head[start : start + length].rstrip(b" \0").decode("ascii", "replace")
    return text if is_uid(text) else ""
