"""Attribute matching of searches (PS3.4 section C.2.2.2) on DICOM JSON objects.

Single value, list of UIDs, wildcard, range of dates or times, and universal matching. Text matches
exactly, names of people without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from slicewatch.uids import is_uid

type Json = dict[str, Any]
type Test = Callable[[str], bool]

_WILDCARDS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")
_MAX_KEY = 1024
_MOST_UIDS = 1000
_DATE_TIME = re.compile(r"\d{4}(\d{2}){0,5}|\d{14}\.\d{1,6}")
# Digits of a whole value: HHMMSSFFFFFF, YYYYMMDDHHMMSSFFFFFF.
_RANGES = {"DA": (_DATE, 8), "TM": (_TIME, 12), "DT": (_DATE_TIME, 20)}


class BadKey(ValueError):
    """A matching key has a value that its VR does not allow; the text does not repeat it."""


def compile_key(vr: str, values: Sequence[str]) -> Test | None:
    """The test that a value of this VR must pass; ``None`` for universal matching.

    Args:
        values: of the key; more than one only for UIDs.

    Raises:
        BadKey: it is malformed.
    """
    if any(len(value) > _MAX_KEY and vr != "UI" for value in values):
        raise BadKey(f"it has more than {_MAX_KEY} characters")
    if not any(values) or (vr in _WILDCARDS and set(values) == {"*"}):
        return None
    if vr == "UI":
        return _uids(values)
    if len(values) > 1:
        raise BadKey("it is given more than once")
    (value,) = values
    if vr in _RANGES:
        return _range(value, vr)
    if vr in ("IS", "US"):
        return _number(value)
    if vr == "PN":
        value = value.casefold()
        return lambda text: _wild(value, text.casefold())
    return lambda text: _wild(value, text)


def matches(attribute: Json | None, test: Test) -> bool:
    """Whether one of the attribute's values passes; an absent one passes none."""
    for value in (attribute or {}).get("Value", ()):
        # A name has up to three representations; any of them may match.
        for text in value.values() if isinstance(value, dict) else (value,):
            if test(str(text)):
                return True
    return False


def uid_list(value: str) -> list[str]:
    """The UIDs of a UI key: commas between them (PS3.18 section 8.3.4), or backslashes."""
    return [part for part in re.split(r"[,\\]", value) if part]


def date_range(values: Sequence[str]) -> tuple[str, str]:
    """First and last date of a DA key that `compile_key` accepted; empty where it has no bound."""
    value = values[0] if values else ""
    low, dash, high = value.partition("-")
    return low, high if dash else low


def _uids(values: Sequence[str]) -> Test:
    wanted = {part for value in values for part in uid_list(value)}
    if len(wanted) > _MOST_UIDS or not all(map(is_uid, wanted)):
        raise BadKey(f"it is no list of at most {_MOST_UIDS} UIDs with commas between them")
    return wanted.__contains__


def _number(value: str) -> Test:
    try:
        wanted = int(value)
    except ValueError:
        raise BadKey("it is no whole number") from None
    return lambda text: text.lstrip("-").isdigit() and int(text) == wanted


def _range(value: str, vr: str) -> Test:
    form, digits = _RANGES[vr]
    low, dash, high = value.partition("-")
    if not (low or high) or not all(form.fullmatch(part) for part in (low, high) if part):
        raise BadKey(f"it is neither a {vr} value nor a range, from-to, of two or one of them")
    least = _padded(low, "0", digits)
    most = _padded(high if dash else low, "9" if dash else "0", digits)

    def within(text: str) -> bool:
        # An offset from UTC is not compared.
        return least <= _padded(re.split(r"[+-]", text)[0], "0", digits) <= most

    return within


def _padded(text: str, digit: str, digits: int) -> str:
    """A value of a date or time, or a part of one, as all of its digits."""
    return text.replace(".", "").strip().ljust(digits, digit)


def _wild(pattern: str, text: str) -> bool:
    """Whether the text is the pattern's, with ``*`` for any characters and ``?`` for one.

    In steps of at most the product of both lengths, whatever the pattern.
    """
    at = seen = 0
    star, after = -1, 0
    while seen < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, after = at, seen
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[seen]):
            at, seen = at + 1, seen + 1
        elif star >= 0:
            after += 1
            at, seen = star + 1, after
        else:
            return False
    return set(pattern[at:]) <= {"*"}
