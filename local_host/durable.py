"""Hands the engine's work to the workers and their answers back to the engine."""

import asyncio
import base64
import logging
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb

from local_host.channel import Failure, Outcome, Value
from local_host.engine import Engine
from local_host.errors import WorkerLostError
from local_host.executor import MAX_WORKER_LOSSES, FunctionExecutor
from local_host.functions import ACTIVITY, ENTITY, ORCHESTRATION, Function, of_trigger
from local_host.orchestration_engine import ScheduledActivity
from local_host.settings import DurableOptions

_LOGGER = logging.getLogger("local_host.durable")


class DurableDispatcher:
    """Takes work from the engine, as much at a time as host.json's limits allow."""

    def __init__(
        self,
        engine: Engine,
        executor: FunctionExecutor,
        functions: Iterable[Function],
        options: DurableOptions,
    ) -> None:
        every = list(functions)
        self._engine = engine
        self._executor = executor
        self._functions = {
            kind: {function.durable_name.lower(): function for function in of_trigger(every, kind)}
            for kind in (ORCHESTRATION, ACTIVITY, ENTITY)
        }
        self._limits = {
            ORCHESTRATION: options.max_orchestrators,
            ACTIVITY: options.max_activities,
            ENTITY: options.max_entities,
        }
        self._running: dict[str, set[asyncio.Task[None]]] = {kind: set() for kind in self._limits}
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._stopping = False

    def wake(self) -> None:
        """There may be work; callable from any thread."""
        self._loop.call_soon_threadsafe(self._wake.set)

    def stop(self) -> None:
        """Take no more work."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until stopped."""
        takes: dict[str, Callable[[], Coroutine[Any, Any, None] | None]] = {
            ORCHESTRATION: self._next_orchestration,
            ENTITY: self._next_entity,
            ACTIVITY: self._next_activity,
        }
        while not self._stopping:
            self._wake.clear()
            for kind, take in takes.items():
                running = self._running[kind]
                while len(running) < self._limits[kind]:
                    work = take()
                    if work is None:
                        break
                    task = asyncio.create_task(work)
                    running.add(task)
                    task.add_done_callback(partial(self._finished, kind))
            await self._wake.wait()

    def _finished(self, kind: str, task: asyncio.Task[None]) -> None:
        self._running[kind].discard(task)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            _LOGGER.error("The dispatch of durable work failed", exc_info=task.exception())

    def _next_orchestration(self) -> Coroutine[Any, Any, None] | None:
        taken = self._engine.take_orchestration()
        return None if taken is None else self._orchestrate(*taken)

    def _next_activity(self) -> Coroutine[Any, Any, None] | None:
        activity = self._engine.take_activity()
        return None if activity is None else self._act(activity)

    def _next_entity(self) -> Coroutine[Any, Any, None] | None:
        request = self._engine.take_entity()
        return None if request is None else self._operate(request)

    async def _run(
        self,
        function: Function,
        trigger: Value,
        failure_of: Callable[[Outcome], Failure | None] | None = None,
    ) -> Outcome | None:
        """The outcome, or None where the host stops: the work then never happened."""
        try:
            return await self._executor.run(function, trigger, failure_of=failure_of)
        except WorkerLostError:
            if self._stopping:
                return None
            message = f"{MAX_WORKER_LOSSES} worker processes in a row ended while they ran it"
            return Outcome("", failure=Failure("WorkerProcessExitException", message, message))

    async def _orchestrate(self, request: pb.OrchestratorRequest, token: str) -> None:
        name = _orchestrator_name(request)
        function = self._functions[ORCHESTRATION].get(name.lower())
        if function is None:
            response = _failed_orchestration(
                request,
                pb.TaskFailureDetails(
                    errorType="OrchestratorNotFound",
                    errorMessage=f"The orchestrator function '{name}' doesn't exist",
                    isNonRetriable=True,
                ),
            )
        else:
            outcome = await self._run(function, _base64_value(request), _orchestrator_failure)
            if outcome is None:
                return
            if outcome.failure is not None:
                response = _failed_orchestration(request, _details(outcome.failure))
            else:
                response = pb.OrchestratorResponse.FromString(_base64_result(outcome))
        response.completionToken = token
        self._engine.CompleteOrchestratorTask(response, None)

    async def _act(self, activity: ScheduledActivity) -> None:
        function = self._functions[ACTIVITY].get(activity.name.lower())
        if function is None:
            details = pb.TaskFailureDetails(
                errorType="ActivityNotFound",
                errorMessage=f"The activity function '{activity.name}' doesn't exist",
                isNonRetriable=True,
            )
            self._engine.complete_activity(activity, None, details)
            return
        given = "null" if activity.input is None else activity.input
        outcome = await self._run(function, Value("json", given))
        if outcome is None:
            return
        if outcome.failure is not None:
            self._engine.complete_activity(activity, None, _details(outcome.failure))
        else:
            self._engine.complete_activity(activity, str(outcome.outputs["$return"].value))

    async def _operate(self, request: pb.EntityRequest) -> None:
        batch, infos = helpers.convert_to_entity_batch_request(request)
        name = request.instanceId.split("@")[1]
        function = self._functions[ENTITY].get(name.lower())
        if function is None:
            result = _failed_batch(
                batch,
                pb.TaskFailureDetails(
                    errorType="EntityNotFound",
                    errorMessage=f"The entity function '{name}' doesn't exist",
                    isNonRetriable=True,
                ),
            )
        else:
            outcome = await self._run(function, _base64_value(batch))
            if outcome is None:
                return
            if outcome.failure is not None:
                result = _failed_batch(batch, _details(outcome.failure))
            else:
                result = pb.EntityBatchResult.FromString(_base64_result(outcome))
        del result.operationInfos[:]
        result.operationInfos.extend(infos)
        self._engine.complete_entity(request.instanceId, result)


def _base64_value(message: pb.OrchestratorRequest | pb.EntityBatchRequest) -> Value:
    return Value("string", base64.b64encode(message.SerializeToString()).decode("ascii"))


def _base64_result(outcome: Outcome) -> bytes:
    return base64.b64decode(outcome.outputs["$return"].value)


def _orchestrator_name(request: pb.OrchestratorRequest) -> str:
    for events in (request.newEvents, request.pastEvents):
        for event in reversed(events):
            if event.HasField("executionStarted"):
                return event.executionStarted.name
    return ""


def _orchestrator_failure(outcome: Outcome) -> Failure | None:
    """The exception that ended the orchestration, where one did."""
    response = pb.OrchestratorResponse.FromString(_base64_result(outcome))
    for action in response.actions:
        complete = action.completeOrchestration
        if complete.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED:
            details = complete.failureDetails
            return Failure(details.errorType, details.errorMessage, details.stackTrace.value)
    return None


def _details(failure: Failure) -> pb.TaskFailureDetails:
    details = pb.TaskFailureDetails(errorType=failure.type, errorMessage=failure.message)
    details.stackTrace.value = failure.stack
    return details


def _failed_orchestration(
    request: pb.OrchestratorRequest, details: pb.TaskFailureDetails
) -> pb.OrchestratorResponse:
    action = helpers.new_complete_orchestration_action(
        -1, pb.ORCHESTRATION_STATUS_FAILED, failure_details=details
    )
    return pb.OrchestratorResponse(instanceId=request.instanceId, actions=[action])


def _failed_batch(
    batch: pb.EntityBatchRequest, details: pb.TaskFailureDetails
) -> pb.EntityBatchResult:
    failure = pb.OperationResult(failure=pb.OperationResultFailure(failureDetails=details))
    result = pb.EntityBatchResult(results=[failure] * len(batch.operations))
    if batch.HasField("entityState"):
        result.entityState.CopyFrom(batch.entityState)
    return result
