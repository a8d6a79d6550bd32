"""The durable engine: ``durabletask``'s in-memory one, made to behave as Durable Functions does.

This is its service: the calls of durable clients. An id can be used again when its instance is
over, a scheduled start waits, calls that no instance can take are refused, and waits do not
starve other calls. Orchestrations and entities are in the modules beside this one.
"""

import logging
import time
from collections.abc import Callable
from concurrent import futures
from datetime import UTC, datetime

import grpc
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal import orchestrator_service_pb2_grpc as stubs
from durabletask.testing.in_memory_backend import OrchestrationInstance, StateWaiter

from local_host.orchestration_engine import OrchestrationEngine

MAX_MESSAGE_BYTES = (1 << 31) - 1
_RPC_THREADS = 256
_WAIT_SLICE_S = 1.0
_OVER = (
    pb.ORCHESTRATION_STATUS_COMPLETED,
    pb.ORCHESTRATION_STATUS_FAILED,
    pb.ORCHESTRATION_STATUS_TERMINATED,
)
_ACTIVE = (
    pb.ORCHESTRATION_STATUS_PENDING,
    pb.ORCHESTRATION_STATUS_RUNNING,
    pb.ORCHESTRATION_STATUS_SUSPENDED,
    pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW,
)


class Engine(OrchestrationEngine):
    """All state of orchestrations and entities, behind a gRPC service for durable clients.

    ``replace_running`` lets a start replace an instance that still runs; one that is over is
    always replaced.
    """

    def __init__(self, on_work: Callable[[], None], *, replace_running: bool) -> None:
        super().__init__(on_work)
        self._logger = logging.getLogger("local_host.engine.inner")
        self._logger.setLevel(logging.ERROR)
        self._replaceable = (*_OVER, *_ACTIVE) if replace_running else _OVER

    def start(self) -> str:
        """Serve on a free port of the loopback interface; the address."""
        server = grpc.server(
            futures.ThreadPoolExecutor(_RPC_THREADS, thread_name_prefix="engine-rpc"),
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ],
        )
        stubs.add_TaskHubSidecarServiceServicer_to_server(  # type: ignore[no-untyped-call]
            self, server
        )
        self._port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self._server = server
        self._alarms.start()
        return f"127.0.0.1:{self._port}"

    def stop(self, grace: float | None = None) -> None:
        """Stop serving; state is lost."""
        self._alarms.stop()
        super().stop(grace)

    def StartInstance(  # noqa: N802
        self, request: pb.CreateInstanceRequest, context: grpc.ServicerContext
    ) -> pb.CreateInstanceResponse:
        """Start an instance; one that is over gives its id free, as host.json's policy says."""
        if request.instanceId.startswith("@") or any(
            c in "/\\?#" or ord(c) < 32 for c in request.instanceId
        ):
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "instance ids must not start with @, nor contain /, \\, ?, # or control characters",
            )
        with self._lock:
            wanted = pb.CreateInstanceRequest()
            wanted.CopyFrom(request)
            if not wanted.orchestrationIdReusePolicy.replaceableStatus:
                wanted.orchestrationIdReusePolicy.replaceableStatus.extend(self._replaceable)
            response = super().StartInstance(wanted, context)
            instance = self._instances[response.instanceId]
            self._parents.pop(instance.instance_id, None)
            self._begin_execution(instance)
            if request.HasField("scheduledStartTimestamp"):
                self._start_later(
                    instance.instance_id, request.scheduledStartTimestamp.ToDatetime(tzinfo=UTC)
                )
            return response

    def _start_later(self, instance_id: str, at: datetime) -> None:
        if at <= datetime.now(UTC):
            return

        def begin() -> None:
            if self._starts.pop(instance_id, None) is not None:
                self._requeue(instance_id)

        self._starts[instance_id] = self._alarms.set(at, self._locked(begin))

    def RaiseEvent(  # noqa: N802
        self, request: pb.RaiseEventRequest, context: grpc.ServicerContext
    ) -> pb.RaiseEventResponse:
        """Raise an event; NOT_FOUND or FAILED_PRECONDITION where nobody can receive it."""
        with self._lock:
            self._require_running(request.instanceId, context)
            response = super().RaiseEvent(request, context)
            self._requeue(request.instanceId)
            return response

    def TerminateInstance(  # noqa: N802
        self, request: pb.TerminateRequest, context: grpc.ServicerContext
    ) -> pb.TerminateResponse:
        """Terminate; as in Durable Functions, sub-orchestrations run on."""
        with self._lock:
            self._require_running(request.instanceId, context)
            alarm = self._starts.pop(request.instanceId, None)
            if alarm is not None:
                self._alarms.cancel(alarm)
            alone = pb.TerminateRequest(instanceId=request.instanceId, output=request.output)
            return super().TerminateInstance(alone, context)

    def SuspendInstance(  # noqa: N802
        self, request: pb.SuspendRequest, context: grpc.ServicerContext
    ) -> pb.SuspendResponse:
        """Suspend a running instance."""
        with self._lock:
            self._require_running(request.instanceId, context)
            return super().SuspendInstance(request, context)

    def ResumeInstance(  # noqa: N802
        self, request: pb.ResumeRequest, context: grpc.ServicerContext
    ) -> pb.ResumeResponse:
        """Resume a suspended instance."""
        with self._lock:
            self._require_running(request.instanceId, context)
            return super().ResumeInstance(request, context)

    def PurgeInstances(  # noqa: N802
        self, request: pb.PurgeInstancesRequest, context: grpc.ServicerContext
    ) -> pb.PurgeInstancesResponse:
        """Forget instances that are over."""
        with self._lock:
            response = super().PurgeInstances(request, context)
            if response.deletedInstanceCount:
                self._forget_purged()
            return response

    def _require_running(self, instance_id: str, context: grpc.ServicerContext) -> None:
        instance = self._instances.get(instance_id)
        if instance is None:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"No instance with ID '{instance_id}' was found."
            )
        elif self._is_terminal_status(instance.status):
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"The orchestration instance '{instance_id}' is not running.",
            )

    def WaitForInstanceStart(  # noqa: N802
        self, request: pb.GetInstanceRequest, context: grpc.ServicerContext
    ) -> pb.GetInstanceResponse:
        """Wait until the instance has left the pending state."""
        return self._wait(
            request, context, lambda one: one.status != pb.ORCHESTRATION_STATUS_PENDING
        )

    def WaitForInstanceCompletion(  # noqa: N802
        self, request: pb.GetInstanceRequest, context: grpc.ServicerContext
    ) -> pb.GetInstanceResponse:
        """Wait until the instance is over."""
        return self._wait(request, context, self._is_terminal_status_check)

    def _wait(
        self,
        request: pb.GetInstanceRequest,
        context: grpc.ServicerContext,
        reached: Callable[[OrchestrationInstance], bool],
    ) -> pb.GetInstanceResponse:
        """Wait for as long as the caller does; its deadline, not ours, ends the wait."""
        remaining = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        waiter = StateWaiter(predicate=reached)
        with self._lock:
            instance = self._instances.get(request.instanceId)
            if instance is not None and reached(instance):
                return self._build_instance_response(instance, request.getInputsAndOutputs)
            self._state_waiters.setdefault(request.instanceId, []).append(waiter)
        while not waiter.event.wait(_WAIT_SLICE_S):
            with self._lock:  # a restart or a purge forgets those who wait
                instance = self._instances.get(request.instanceId)
                if instance is not None and reached(instance):
                    return self._build_instance_response(instance, request.getInputsAndOutputs)
            late = deadline is not None and time.monotonic() >= deadline
            if late or not context.is_active() or self._shutdown_event.is_set():
                self._forget_waiter(request.instanceId, waiter)
                context.abort(
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    f"Timed out waiting for instance '{request.instanceId}'",
                )
        if waiter.result is None:
            return pb.GetInstanceResponse(exists=False)
        with self._lock:
            return self._build_instance_response(waiter.result, request.getInputsAndOutputs)

    def _forget_waiter(self, instance_id: str, waiter: StateWaiter) -> None:
        with self._lock:
            waiters = self._state_waiters.get(instance_id, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._state_waiters.pop(instance_id, None)
