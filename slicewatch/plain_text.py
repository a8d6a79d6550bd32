"""What of people's words can be stored and shown again."""

from __future__ import annotations


def is_plain_text(text: str) -> bool:
    """Whether a text can be stored and shown: no lone surrogates, no control characters but line
    ends and tabs.
    """
    return not any(
        (ord(one) < 32 and one not in "\n\r\t") or one == "\x7f" or "\ud800" <= one <= "\udfff"
        for one in text
    )
