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
