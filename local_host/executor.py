"""Runs one invocation from first to last: inputs, worker, outputs, one log line."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
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
_CUT_OFF = "Cut off, the host stops"


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
        failure_of: Callable[[Outcome], Failure | None] | None = None,
    ) -> Outcome:
        """Run ``function`` once, or again when its worker process died and it is ``repeatable``.

        ``data`` is the trigger's binding data, from which paths of other bindings are made.
        A failure of the app or of a binding is in the outcome, never raised. ``failure_of`` finds
        the failure that a successful answer speaks of, for the log.

        Raises:
            WorkerLostError: The worker process died, too often or with a call that must not be
                repeated.
        """
        invocation = Invocation(
            id=str(uuid.uuid4()),
            function=function.name,
            trigger=trigger,
            metadata=metadata or {},
            retry=retry,
            trace_parent=trace_parent,
        )
        started = time.perf_counter()
        result = ""
        failure: Failure | None = None
        self._in_flight += 1
        self._idle.clear()
        try:
            outcome = await self._with_bindings(function, invocation, data or {}, repeatable)
            failure = outcome.failure
            if failure is None and failure_of is not None:
                failure = failure_of(outcome)
            result = "Succeeded" if failure is None else "Failed"
            return outcome
        except asyncio.CancelledError:
            result = _CUT_OFF
            raise
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
            if not result:
                result = _CUT_OFF if self._pool.stopping else "Failed, worker process lost"
            _log_execution(invocation, result, time.perf_counter() - started, failure)

    async def _with_bindings(
        self,
        function: Function,
        invocation: Invocation,
        data: Mapping[str, object],
        repeatable: bool,
    ) -> Outcome:
        inputs: dict[str, Value | None] = {}
        outputs: Mapping[str, Value] = {}
        try:
            inputs = await self._bindings.read(function, data)
            outcome = await self._on_a_worker(replace(invocation, inputs=inputs), repeatable)
            outputs = outcome.outputs
            if outcome.failure is None:
                await self._bindings.write(function, outputs, data)
        except WorkerLostError:
            raise
        except Exception as error:
            discard_payloads(outputs.values())
            failure = Failure(type(error).__name__, str(error), "")
            return Outcome(invocation.id, failure=failure)
        else:
            return outcome
        finally:
            discard_payloads(inputs.values())

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
                if not repeatable or attempt == MAX_WORKER_LOSSES or self._pool.stopping:
                    raise
                _LOGGER.warning(
                    "Function '%s' (Id=%s) lost its worker process and is handed out again",
                    invocation.function,
                    invocation.id,
                )
        raise AssertionError("unreachable")


def _log_execution(
    invocation: Invocation, result: str, seconds: float, failure: Failure | None
) -> None:
    _LOGGER.info(
        "Executed 'Functions.%s' (%s, Id=%s, Duration=%.0fms)",
        invocation.function,
        result,
        invocation.id,
        seconds * 1000,
    )
    if failure is not None:
        _LOGGER.error(
            "Function '%s' (Id: %s) failed: %s: %s\n%s",
            invocation.function,
            invocation.id,
            failure.type,
            failure.message,
            failure.stack,
        )
