"""Timer schedules: NCRONTAB with six fields (or five), or a duration.

The fields are second, minute, hour, day, month, day of week; with five the second is 0. A time
must fit all fields: day and day of week both, other than in crontab(5).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from local_host.timespan import parse_timespan

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)
_HORIZON_YEARS = 9  # 29 February comes at least every eight years

Schedule = Callable[[datetime], datetime]


def _number(text: str, field: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if len(text) >= 3 and text[:3].lower() in names and text.isalpha():
        return names.index(text[:3].lower()) + low
    if not text.isdigit() or not low <= int(text) <= high:
        raise ValueError(f"{text!r} is no {field}; it goes from {low} to {high}")
    return int(text)


def _parse_field(text: str, field: str, low: int, high: int, names: tuple[str, ...]) -> set[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        if slash and (not step_text.isdigit() or int(step_text) < 1):
            raise ValueError(f"{part!r} has no valid step")
        step = int(step_text) if slash else 1
        if span == "*":
            first, last = low, high
        elif "-" in span:
            begin, _, end = span.partition("-")
            first = _number(begin, field, low, high, names)
            last = _number(end, field, low, high, names)
            if last < first:
                raise ValueError(f"{part!r} ends before it begins")
        else:
            first = _number(span, field, low, high, names)
            last = high if slash else first
        values.update(range(first, last + 1, step))
    return values


@dataclass(frozen=True)
class _Cron:
    seconds: list[int]
    minutes: list[int]
    hours: list[int]
    days: set[int]
    months: set[int]
    weekdays: set[int]
    zone: tzinfo

    def __call__(self, after: datetime) -> datetime:
        local = after.astimezone(self.zone).replace(microsecond=0, tzinfo=None)
        day = local.date()
        for _ in range(366 * _HORIZON_YEARS):
            if (
                day.month in self.months
                and day.day in self.days
                and day.isoweekday() % 7 in self.weekdays
            ):
                for hour in self.hours:
                    for minute in self.minutes:
                        if (day, hour, minute) < (local.date(), local.hour, local.minute):
                            continue
                        for second in self.seconds:
                            wall = datetime(day.year, day.month, day.day, hour, minute, second)
                            when = wall.replace(tzinfo=self.zone).astimezone(after.tzinfo)
                            if when > after:
                                return when
            day += timedelta(days=1)
        raise ValueError("the schedule never comes")


def parse_schedule(text: str, zone: tzinfo) -> Schedule:
    """The function that gives the first time after another (aware) one.

    Raises:
        ValueError: The text is neither NCRONTAB nor a duration, or such a time never comes.
    """
    fields = text.split()
    if len(fields) == 1 and ":" in text:
        interval = parse_timespan(text)
        if interval <= timedelta(0):
            raise ValueError(f"{text!r} is not longer than nothing")
        return lambda after: after + interval
    if len(fields) == 5:
        fields.insert(0, "0")
    if len(fields) != 6:
        raise ValueError(f"{text!r} has {len(fields)} fields; NCRONTAB has six")
    sets = [_parse_field(part, *spec) for part, spec in zip(fields, _FIELDS, strict=True)]
    return _Cron(sorted(sets[0]), sorted(sets[1]), sorted(sets[2]), sets[3], sets[4], sets[5], zone)
