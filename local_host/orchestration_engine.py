"""The engine's orchestrations: what the in-memory engine gets wrong of executions.

In ``durabletask``'s in-memory engine a sub-orchestration does not know its parent, is given up
after half a minute and fails with a bare text; each timer costs a thread; timers, activities and
sub-orchestrations of an execution that is over reach the one that follows it; an activity that
fails without a text has succeeded; an instance that gets events while it runs stalls the others;
history carries no times. All that is mended here.
"""

import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.testing.in_memory_backend import ActivityWorkItem, OrchestrationInstance

from local_host.alarms import Alarm
from local_host.entity_engine import EntityEngine, now_timestamp

_OUTLIVES_EXECUTION = (
    "eventRaised",
    "executionSuspended",
    "executionResumed",
    "executionTerminated",
)


@dataclass
class ScheduledActivity(ActivityWorkItem):
    """An activity and the execution of its instance that asked for it."""

    execution_id: str = ""


@dataclass(frozen=True)
class _Parent:
    """Who waits for a sub-orchestration, and as which task."""

    name: str
    instance_id: str
    execution_id: str
    task_id: int


class _Signal(threading.Event):
    """Calls the dispatcher each time the engine says that there is work."""

    def __init__(self, on_work: Callable[[], None]) -> None:
        super().__init__()
        self._on_work = on_work

    def set(self) -> None:
        self._on_work()


class OrchestrationEngine(EntityEngine):
    """The in-memory engine with executions that keep the rules of Durable Functions.

    An instance has one execution at a time; what belongs to an earlier one is dropped.
    ``on_work`` is called, from any thread and with the engine's lock held, when there may be
    something to take.
    """

    def __init__(self, on_work: Callable[[], None]) -> None:
        super().__init__(max_history_size=sys.maxsize)
        self._work_available = _Signal(on_work)
        self._executions: dict[str, str] = {}
        self._parents: dict[str, _Parent] = {}
        self._timers: dict[str, dict[int, Alarm]] = {}
        self._starts: dict[str, Alarm] = {}

    def take_orchestration(self) -> tuple[pb.OrchestratorRequest, str] | None:
        """The next instance with events, and the token that completes it, or None."""
        with self._lock:
            while self._orchestration_queue:
                instance_id = self._orchestration_queue.popleft()
                self._orchestration_queue_set.discard(instance_id)
                instance = self._instances.get(instance_id)
                if (
                    instance is None
                    or not instance.pending_events
                    or instance_id in self._orchestration_in_flight
                    or instance_id in self._starts
                ):
                    continue
                events = list(instance.pending_events)
                instance.pending_events.clear()
                if instance.history and not events[0].HasField("orchestratorStarted"):
                    events.insert(0, helpers.new_orchestrator_started_event(datetime.now(UTC)))
                _stamp(events)
                instance.dispatched_events = events
                self._orchestration_in_flight.add(instance_id)
                request = pb.OrchestratorRequest(
                    instanceId=instance_id, pastEvents=instance.history, newEvents=events
                )
                return request, str(instance.completion_token)
            return None

    def take_activity(self) -> ScheduledActivity | None:
        """The next activity to run, or None."""
        with self._lock:
            while self._activity_queue:
                activity = self._activity_queue.popleft()
                assert isinstance(activity, ScheduledActivity)
                if self._executions.get(activity.instance_id) == activity.execution_id:
                    return activity
            return None

    def complete_activity(
        self,
        activity: ScheduledActivity,
        result: str | None,
        failure: pb.TaskFailureDetails | None = None,
    ) -> None:
        """Give the result to the execution that asked, if it still runs."""
        if failure is None:
            event = helpers.new_task_completed_event(activity.task_id, result)
        else:
            event = pb.HistoryEvent(
                eventId=-1,
                taskFailed=pb.TaskFailedEvent(
                    taskScheduledId=activity.task_id, failureDetails=failure
                ),
            )
        with self._lock:
            self._deliver(activity.instance_id, activity.execution_id, event)

    def CompleteOrchestratorTask(  # noqa: N802 - the name is the service's
        self, request: pb.OrchestratorResponse, context: grpc.ServicerContext | None
    ) -> pb.CompleteTaskResponse:
        """Take over the actions of an orchestrator's run."""
        with self._lock:
            instance = self._instances.get(request.instanceId)
            known = len(instance.history) if instance is not None else 0
            response = super().CompleteOrchestratorTask(request, context)  # type: ignore[arg-type]
            if instance is None or self._instances.get(request.instanceId) is not instance:
                self._requeue(request.instanceId)
                return response
            _stamp(instance.history[min(known, len(instance.history)) :])
            self._mark_running(instance)
            if self._is_terminal_status(instance.status):
                self._end_execution(instance.instance_id)
                self._release_locks_of(instance.instance_id)
            self._requeue(request.instanceId)
            return response

    def _requeue(self, instance_id: str) -> None:
        """What arrived while the instance was in flight waits no longer."""
        instance = self._instances.get(instance_id)
        if (
            instance is not None
            and instance.pending_events
            and not self._is_terminal_status(instance.status)
        ):
            self._enqueue_orchestration(instance_id)

    def _deliver(self, instance_id: str, execution_id: str, event: pb.HistoryEvent) -> None:
        instance = self._instances.get(instance_id)
        if instance is None or self._executions.get(instance_id) != execution_id:
            return
        event.timestamp.CopyFrom(now_timestamp())
        instance.pending_events.append(event)
        instance.last_updated_at = datetime.now(UTC)
        self._enqueue_orchestration(instance_id)

    def _begin_execution(self, instance: OrchestrationInstance) -> None:
        self._end_execution(instance.instance_id)
        execution_id = uuid.uuid4().hex
        self._executions[instance.instance_id] = execution_id
        for event in instance.pending_events:
            if event.HasField("executionStarted"):
                event.executionStarted.orchestrationInstance.executionId.value = execution_id
        self._name_parent(instance)

    def _name_parent(self, instance: OrchestrationInstance) -> None:
        """Say in the events that start the instance whose sub-orchestration it is."""
        parent = self._parents.get(instance.instance_id)
        if parent is None:
            return
        for event in instance.pending_events:
            if event.HasField("executionStarted"):
                info = event.executionStarted.parentInstance
                info.name.value = parent.name
                info.taskScheduledId = parent.task_id
                info.orchestrationInstance.instanceId = parent.instance_id
                info.orchestrationInstance.executionId.value = parent.execution_id

    def _end_execution(self, instance_id: str) -> None:
        self._executions.pop(instance_id, None)
        for alarm in self._timers.pop(instance_id, {}).values():
            self._alarms.cancel(alarm)

    def _forget_purged(self) -> None:
        for instance_id in self._parents.keys() - self._instances.keys():
            del self._parents[instance_id]

    def _create_instance_internal(
        self,
        instance_id: str,
        name: str,
        encoded_input: str | None = None,
        version: str | None = None,
        parent: _Parent | None = None,
    ) -> None:
        super()._create_instance_internal(instance_id, name, encoded_input, version=version)
        if parent is None:
            self._parents.pop(instance_id, None)
        else:
            self._parents[instance_id] = parent
        self._begin_execution(self._instances[instance_id])

    def _process_complete_orchestration_action(
        self, instance: OrchestrationInstance, complete_action: pb.CompleteOrchestrationAction
    ) -> None:
        renewed = complete_action.orchestrationStatus == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW
        if renewed:
            instance.pending_events[:] = [
                event
                for event in instance.pending_events
                if any(event.HasField(kind) for kind in _OUTLIVES_EXECUTION)
            ]
        super()._process_complete_orchestration_action(instance, complete_action)
        if renewed:
            self._release_locks_of(instance.instance_id)
            self._begin_execution(instance)

    def _process_schedule_task_action(
        self, instance: OrchestrationInstance, action: pb.OrchestratorAction
    ) -> None:
        task = action.scheduleTask
        given = task.input.value if task.HasField("input") else None
        instance.history.append(helpers.new_task_scheduled_event(action.id, task.name, given))
        self._mark_running(instance)
        self._queue_activity(instance, action.id, task.name, given)

    def _queue_activity(
        self, instance: OrchestrationInstance, task_id: int, name: str, given: str | None
    ) -> None:
        self._activity_queue.append(
            ScheduledActivity(
                instance_id=instance.instance_id,
                name=name,
                task_id=task_id,
                input=given,
                completion_token=instance.completion_token,
                execution_id=self._executions[instance.instance_id],
            )
        )
        self._work_available.set()

    def _process_create_timer_action(
        self, instance: OrchestrationInstance, action: pb.OrchestratorAction
    ) -> None:
        fire_at = action.createTimer.fireAt.ToDatetime(tzinfo=UTC)
        instance.history.append(helpers.new_timer_created_event(action.id, fire_at))
        self._mark_running(instance)
        self._set_timer(instance.instance_id, action.id, fire_at)

    def _set_timer(self, instance_id: str, timer_id: int, fire_at: datetime) -> None:
        execution_id = self._executions[instance_id]

        def fire() -> None:
            self._timers.get(instance_id, {}).pop(timer_id, None)
            event = helpers.new_timer_fired_event(timer_id, fire_at)
            self._deliver(instance_id, execution_id, event)

        alarm = self._alarms.set(fire_at, self._locked(fire))
        self._timers.setdefault(instance_id, {})[timer_id] = alarm

    @staticmethod
    def _mark_running(instance: OrchestrationInstance) -> None:
        if instance.status == pb.ORCHESTRATION_STATUS_PENDING:
            instance.status = pb.ORCHESTRATION_STATUS_RUNNING

    def _process_create_sub_orchestration_action(
        self, instance: OrchestrationInstance, action: pb.OrchestratorAction
    ) -> None:
        wanted = action.createSubOrchestration
        version = wanted.version.value if wanted.HasField("version") else None
        given = wanted.input.value if wanted.HasField("input") else None
        sub_id = wanted.instanceId or uuid.uuid4().hex
        instance.history.append(
            helpers.new_sub_orchestration_created_event(
                action.id, wanted.name, sub_id, given, version=version
            )
        )
        self._mark_running(instance)
        execution_id = self._executions[instance.instance_id]
        try:
            self._create_instance_internal(
                sub_id,
                wanted.name,
                given,
                version=version,
                parent=_Parent(instance.name, instance.instance_id, execution_id, action.id),
            )
        except ValueError as error:
            event = helpers.new_sub_orchestration_failed_event(action.id, error)
            self._deliver(instance.instance_id, execution_id, event)

    def _watch_sub_orchestration(
        self, parent_instance_id: str, sub_instance_id: str, task_id: int
    ) -> None:
        """After a rewind, the parent's present execution waits for the sub-orchestration."""
        self._parents[sub_instance_id] = _Parent(
            self._instances[parent_instance_id].name,
            parent_instance_id,
            self._executions[parent_instance_id],
            task_id,
        )
        self._name_parent(self._instances[sub_instance_id])

    def _process_rewind_orchestration_action(
        self, instance: OrchestrationInstance, rewind_action: pb.RewindOrchestrationAction
    ) -> None:
        """Also begin again what the failed execution left unfinished."""
        super()._process_rewind_orchestration_action(instance, rewind_action)
        tasks, timers = unfinished(instance.history)
        for event in tasks:
            task = event.taskScheduled
            given = task.input.value if task.HasField("input") else None
            self._queue_activity(instance, event.eventId, task.name, given)
        for event in timers:
            fire_at = event.timerCreated.fireAt.ToDatetime(tzinfo=UTC)
            self._set_timer(instance.instance_id, event.eventId, fire_at)

    def _prepare_rewind(self, instance: OrchestrationInstance, reason: str | None = None) -> None:
        self._executions[instance.instance_id] = uuid.uuid4().hex
        super()._prepare_rewind(instance, reason)

    def _notify_waiters(self, instance_id: str) -> None:
        super()._notify_waiters(instance_id)
        instance = self._instances.get(instance_id)
        if instance is not None and self._is_terminal_status(instance.status):
            parent = self._parents.get(instance_id)
            if parent is not None:
                self._deliver(parent.instance_id, parent.execution_id, _outcome(instance, parent))


def unfinished(
    history: list[pb.HistoryEvent],
) -> tuple[list[pb.HistoryEvent], list[pb.HistoryEvent]]:
    """The activities and the timers in ``history`` that have no result yet."""
    done = {
        event.taskCompleted.taskScheduledId for event in history if event.HasField("taskCompleted")
    } | {event.taskFailed.taskScheduledId for event in history if event.HasField("taskFailed")}
    fired = {event.timerFired.timerId for event in history if event.HasField("timerFired")}
    tasks = [e for e in history if e.HasField("taskScheduled") and e.eventId not in done]
    timers = [e for e in history if e.HasField("timerCreated") and e.eventId not in fired]
    return tasks, timers


def _outcome(instance: OrchestrationInstance, parent: _Parent) -> pb.HistoryEvent:
    """What a parent hears of its sub-orchestration that is over."""
    if instance.status == pb.ORCHESTRATION_STATUS_COMPLETED:
        return helpers.new_sub_orchestration_completed_event(parent.task_id, instance.output)
    details = instance.failure_details or pb.TaskFailureDetails(
        errorType="OrchestrationTerminated",
        errorMessage=f"Sub-orchestration '{instance.instance_id}' was terminated",
    )
    return pb.HistoryEvent(
        eventId=-1,
        subOrchestrationInstanceFailed=pb.SubOrchestrationInstanceFailedEvent(
            taskScheduledId=parent.task_id, failureDetails=details
        ),
    )


def _stamp(events: list[pb.HistoryEvent]) -> None:
    """Give events that have no time the present one."""
    now = now_timestamp()
    for event in events:
        if not event.timestamp.seconds:
            event.timestamp.CopyFrom(now)
