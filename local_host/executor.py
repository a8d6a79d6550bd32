"""Runs one invocation from first to last: inputs, worker, outputs, one log line."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Protocol

from local_host.channel import (
    Failure,
    Invocation,
    Outcome,
    RetryState,
    Value,
    discard_payloads,
)
from local_host.errors import InvocationTimeoutError, WorkerLostError
from local_host.functions import Function
from local_host.workers import WorkerPool

_LOGGER = logging.getLogger("local_host")
MAX_WORKER_LOSSES = 5


class Bindings(Protocol):
    """Reads input bindings and writes output bindings beside the trigger."""

    async def read(self, function: Function, data: Mapping[str, object]) -> dict[str, Value | None]:
        """The values of the function's input bindings."""
        ...

    async def write(
        self, function: Function, outputs: Mapping[str, Value], data: Mapping[str, object]
    ) -> None:
        """Write the function's output bindings."""
        ...


class FunctionExecutor:
    """Runs invocations on the pool and keeps count of those in flight."""

    def __init__(self, pool: WorkerPool, bindings: Bindings, timeout: float | None) -> None:
        self._pool = pool
        self._bindings = bindings
        self._timeout = timeout
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def drained(self, timeout: float) -> bool:
        """Wait until nothing is in flight, ``timeout`` seconds at most; whether that came."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout)
        except TimeoutError:
            return False
        return True

    async def run(
        self,
        function: Function,
        trigger: Value,
        *,
        metadata: Mapping[str, Value] | None = None,
        data: Mapping[str, object] | None = None,
        retry: RetryState | None = None,
        trace_parent: str = "",
        repeatable: bool = True,
        failure_of: Callable[[Outcome], str | None] | None = None,
    ) -> Outcome:
        """Run ``function`` once, or again when its worker process died and it is ``repeatable``.

        ``data`` is the trigger's binding data, from which paths of other bindings are made.
        A failure of the app or of a binding is in the outcome, never raised. ``failure_of`` finds
        the failure that an answer speaks of, for the log.

        Raises:
            WorkerLostError: The worker process died, too often or with a call that must not be
                repeated.
        """
        invocation_id = str(uuid.uuid4())
        started = time.perf_counter()
        self._in_flight += 1
        self._idle.clear()
        result = "Failed"
        inputs: dict[str, Value | None] = {}
        outcome: Outcome | None = None
        try:
            inputs = await self._bindings.read(function, data or {})
            invocation = Invocation(
                id=invocation_id,
                function=function.name,
                trigger=trigger,
                metadata=metadata or {},
                inputs=inputs,
                retry=retry,
                trace_parent=trace_parent,
            )
            outcome = await self._on_a_worker(invocation, repeatable)
            if outcome.failure is None:
                await self._bindings.write(function, outcome.outputs, data or {})
                told = failure_of(outcome) if failure_of is not None else None
                result = "Succeeded" if told is None else "Failed"
                if told is not None:
                    _LOGGER.error("Function '%s' failed: %s", function.name, told)
        except WorkerLostError:
            result = "Failed, worker process lost"
            raise
        except Exception as error:
            discard_payloads(outcome.outputs.values() if outcome is not None else ())
            outcome = Outcome(
                invocation_id, failure=Failure(type(error).__name__, str(error), str(error))
            )
        finally:
            discard_payloads(inputs.values())
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
            _LOGGER.info(
                "Executed 'Functions.%s' (%s, Id=%s, Duration=%.0fms)",
                function.name,
                result,
                invocation_id,
                (time.perf_counter() - started) * 1000,
            )
        if outcome.failure is not None:
            _LOGGER.error(
                "Function '%s' (Id=%s) failed: %s: %s\n%s",
                function.name,
                invocation_id,
                outcome.failure.type,
                outcome.failure.message,
                outcome.failure.stack,
            )
        return outcome

    async def _on_a_worker(self, invocation: Invocation, repeatable: bool) -> Outcome:
        for attempt in range(1, MAX_WORKER_LOSSES + 1):
            try:
                return await self._pool.run(invocation, self._timeout)
            except InvocationTimeoutError as error:
                return Outcome(
                    invocation.id,
                    failure=Failure("FunctionTimeoutException", str(error), str(error)),
                )
            except WorkerLostError:
                if not repeatable or attempt == MAX_WORKER_LOSSES:
                    raise
                _LOGGER.warning(
                    "Function '%s' (Id=%s) lost its worker process and is handed out again",
                    invocation.function,
                    invocation.id,
                )
        raise AssertionError("unreachable")
