"""DICOM date and time text as the span of instants it can mean (PS3.5 section 6.2, DA, TM, DT).

Text may stop after the year, the day or the minute, so it stands for a span rather than for an
instant; without an offset from UTC, it is in a local time that nobody knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

_DATE_TIME = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?)?)?)?([+-]\d{4})?"
)
_FIRST_RADIOGRAPH = 1895

UNKNOWN_ZONE = timedelta(hours=14)
"""Local times lie up to 14 hours from UTC."""


@dataclass(frozen=True, slots=True)
class Span:
    """From the earliest instant that a text can mean to the latest; UTC where `zoned`."""

    earliest: datetime
    latest: datetime
    zoned: bool = False


def parse(text: str) -> Span:
    """The span of a DT value, or of a DA value with a TM value appended.

    Raises:
        ValueError: it is not such text, no date of the calendar, or before the first radiograph.
            The error does not repeat the text.
    """
    match = _DATE_TIME.fullmatch(text.strip(" \0"))
    if match is None:
        raise ValueError("not written as the standard asks")
    *parts, fraction, offset = match.groups()
    if not _FIRST_RADIOGRAPH <= int(parts[0]) < datetime.max.year:
        raise ValueError("before the first radiograph, or the end of the calendar")
    earliest = _instant(parts, fraction)
    latest = earliest + _precision(earliest, parts, fraction)
    if offset is None:
        return Span(earliest, latest)
    shift = _offset(offset)
    return Span(earliest - shift, latest - shift, zoned=True)


def lead(first: Span, second: Span) -> timedelta:
    """By how much `first` lies before `second` at least; negative where it may not."""
    slack = timedelta() if first.zoned == second.zoned else UNKNOWN_ZONE
    return second.earliest - first.latest - slack


def _instant(parts: list[str | None], fraction: str | None) -> datetime:
    year, month, day, hour, minute, second = (
        default if part is None else int(part)
        for part, default in zip(parts, (1, 1, 1, 0, 0, 0), strict=True)
    )
    if second > 60:  # 60 is a leap second
        raise ValueError("no time of a day")
    moment = datetime(year, month, day, hour, minute, min(second, 59))
    return moment + timedelta(microseconds=int((fraction or "0").ljust(6, "0")))


def _precision(start: datetime, parts: list[str | None], fraction: str | None) -> timedelta:
    """How long the written unit lasts."""
    _, month, day, hour, minute, second = parts
    if month is None:
        return start.replace(year=start.year + 1) - start
    if day is None:
        after = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
        return after - start
    if hour is None:
        return timedelta(days=1)
    if minute is None:
        return timedelta(hours=1)
    if second is None:
        return timedelta(minutes=1)
    return timedelta(seconds=1) if fraction is None else timedelta()


def _offset(text: str) -> timedelta:
    shift = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    if shift > UNKNOWN_ZONE or int(text[3:5]) > 59:
        raise ValueError("no offset from UTC")
    return -shift if text[0] == "-" else shift
