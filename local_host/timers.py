"""Timer triggers."""

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from local_host.channel import Failure, RetryState, Value
from local_host.errors import HostError, WorkerLostError
from local_host.executor import FunctionExecutor
from local_host.expressions import resolve_settings
from local_host.functions import Function
from local_host.ncrontab import Schedule, parse_schedule
from local_host.timespan import parse_timespan

_LOGGER = logging.getLogger("local_host")
_LONGEST_SLEEP_S = 60.0  # the clock may be set; look again at least this often


class TimerListener:
    """Runs timer functions at their times, never two runs of one function at once."""

    def __init__(
        self,
        functions: Iterable[Function],
        executor: FunctionExecutor,
        settings: Mapping[str, str],
    ) -> None:
        self._executor = executor
        self._stop = asyncio.Event()
        zone_name = settings.get("WEBSITE_TIME_ZONE") or "UTC"
        try:
            zone = ZoneInfo(zone_name)
        except (ZoneInfoNotFoundError, ValueError):
            raise HostError(f"WEBSITE_TIME_ZONE is {zone_name!r}, which is no time zone") from None
        self._timers: dict[str, tuple[Function, Schedule]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        for function in functions:
            where = f"the schedule of function {function.name}"
            text = resolve_settings(function.trigger.text("schedule"), settings, where)
            try:
                schedule = parse_schedule(text, zone)
                schedule(datetime.now(UTC))
            except ValueError as error:
                raise HostError(f"{where} is wrong: {error}") from None
            self._timers[function.name] = (function, schedule)
            self._locks[function.name] = asyncio.Lock()

    def stop(self) -> None:
        """Start no more runs."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until stopped."""
        await asyncio.gather(*(self._serve(*timer) for timer in self._timers.values()))

    def handles(self, name: str) -> bool:
        """Whether the function is one of this listener's."""
        return name in self._timers

    async def invoke(self, name: str, _given: object) -> None:
        """Run the function now, outside its schedule."""
        function, schedule = self._timers[name]
        now = datetime.now(UTC)
        await self._fire(function, now, schedule(now), past_due=False)

    async def _serve(self, function: Function, schedule: Schedule) -> None:
        last = datetime.now(UTC)
        due = schedule(last)
        if function.trigger.options.get("runOnStartup"):
            await self._fire(function, last, due, past_due=False)
        while not self._stop.is_set():
            now = datetime.now(UTC)
            if now < due:
                await self._sleep((due - now).total_seconds())
                continue
            following = schedule(due)
            past_due = following <= now
            await self._fire(function, last, schedule(now), past_due=past_due)
            last, due = due, schedule(max(due, now))

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), min(seconds, _LONGEST_SLEEP_S))
        except TimeoutError:
            return

    async def _fire(
        self, function: Function, last: datetime, following: datetime, *, past_due: bool
    ) -> None:
        info = {
            "Schedule": {"AdjustForDST": True},
            "ScheduleStatus": {
                "Last": last.isoformat(),
                "Next": following.isoformat(),
                "LastUpdated": last.isoformat(),
            },
            "IsPastDue": past_due,
        }
        policy = RetryPolicy(function.retry)
        async with self._locks[function.name]:
            failure: Failure | None = None
            attempt = 0
            while not self._stop.is_set():
                try:
                    outcome = await self._executor.run(
                        function,
                        Value("json", json.dumps(info)),
                        retry=policy.state(attempt, failure),
                    )
                    failure = outcome.failure
                except WorkerLostError as error:
                    failure = Failure("WorkerProcessExitException", str(error), "")
                if failure is None or not policy.again(attempt):
                    return
                await self._sleep(policy.delay(attempt).total_seconds())
                attempt += 1


class RetryPolicy:
    """A function's retry policy; without one a run is never repeated."""

    def __init__(self, options: Mapping[str, object] | None) -> None:
        self._options = options or {}
        self._maximum = int(str(self._options.get("max_retry_count") or 0))

    def again(self, attempt: int) -> bool:
        """Whether another run follows the failed run number ``attempt`` (from 0)."""
        return self._maximum < 0 or attempt < self._maximum

    def state(self, attempt: int, failure: Failure | None) -> RetryState | None:
        """What the function's context says of it."""
        return RetryState(attempt, self._maximum, failure) if self._options else None

    def delay(self, attempt: int) -> timedelta:
        """How long to wait after the failed run number ``attempt`` (from 0)."""
        if self._options.get("strategy") == "exponential_backoff":
            least = parse_timespan(str(self._options["minimum_interval"]))
            most = parse_timespan(str(self._options["maximum_interval"]))
            factor: int = 2 ** min(attempt, 30)
            return min(least * factor, most)
        return parse_timespan(str(self._options.get("delay_interval") or "00:00:00"))
