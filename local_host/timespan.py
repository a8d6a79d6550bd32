"""Durations as host.json and timer schedules write them: .NET's ``[d.]hh:mm:ss[.fffffff]``."""

import re
from datetime import timedelta

_TIMESPAN = re.compile(
    r"(?P<minus>-)?(?:(?P<days>\d+)\.)?(?P<hours>\d{1,2}):(?P<minutes>\d{1,2})"
    r"(?::(?P<seconds>\d{1,2})(?P<fraction>\.\d{1,7})?)?"
)


def parse_timespan(text: str) -> timedelta:
    """Read ``[-][d.]hh:mm[:ss[.fffffff]]``.

    Raises:
        ValueError: The text is not such a duration, or a part is out of its range.
    """
    match = _TIMESPAN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write [d.]hh:mm:ss, as in 00:05:00")
    hours, minutes, seconds = (int(match[part] or 0) for part in ("hours", "minutes", "seconds"))
    if hours > 23 or minutes > 59 or seconds > 59:
        raise ValueError(f"{text!r} is not a duration: hours go to 23, minutes and seconds to 59")
    value = timedelta(
        days=int(match["days"] or 0),
        hours=hours,
        minutes=minutes,
        seconds=seconds + float(match["fraction"] or 0),
    )
    return -value if match["minus"] else value
