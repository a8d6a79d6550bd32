"""The engine's entities: what the in-memory engine leaves out of locks, deletion and clean-up.

In ``durabletask``'s in-memory engine a lock keeps nobody out, a deleted entity still exists, a
clean-up releases every lock, and completing a batch searches all entities. Here a locked entity
serves its lock's owner alone, and a deleted one is gone.
"""

import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import grpc
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.testing.in_memory_backend import (
    EntityState,
    InMemoryOrchestrationBackend,
    PendingLockRequest,
)
from google.protobuf import timestamp_pb2, wrappers_pb2

from local_host.alarms import AlarmClock

_LOGGER = logging.getLogger("local_host.engine")


def now_timestamp() -> timestamp_pb2.Timestamp:
    """The present time."""
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromDatetime(datetime.now(UTC))
    return timestamp


class EntityEngine(InMemoryOrchestrationBackend):
    """The in-memory engine with entities that keep the rules of Durable Functions."""

    def __init__(self, max_history_size: int) -> None:
        super().__init__(max_history_size=max_history_size)
        self._alarms = AlarmClock()
        self._lock_owners: dict[str, str] = {}

    def take_entity(self) -> pb.EntityRequest | None:
        """The next batch of operations, or None. It is in flight until it is completed."""
        with self._lock:
            while self._entity_queue:
                entity_id = self._entity_queue.popleft()
                self._entity_queue_set.discard(entity_id)
                entity = self._entities.get(entity_id)
                if entity is None or entity_id in self._entity_in_flight:
                    continue
                operations = self._admitted(entity)
                if not operations:
                    continue
                self._entity_in_flight.add(entity_id)
                entity.dispatched_operations = operations
                state = entity.serialized_state
                return pb.EntityRequest(
                    instanceId=entity_id,
                    entityState=None if state is None else wrappers_pb2.StringValue(value=state),
                    operationRequests=operations,
                )
            return None

    def _admitted(self, entity: EntityState) -> list[pb.HistoryEvent]:
        """Take the pending operations that may run now: with a lock, its owner's calls alone."""
        admitted: list[pb.HistoryEvent] = []
        kept: list[pb.HistoryEvent] = []
        owner = self._lock_owners.get(entity.locked_by or "")
        for operation in entity.pending_operations:
            mine = (
                operation.HasField("entityOperationCalled")
                and operation.entityOperationCalled.parentInstanceId.value == owner
            )
            (admitted if mine or entity.locked_by is None else kept).append(operation)
        entity.pending_operations[:] = kept
        return admitted

    def complete_entity(self, entity_id: str, result: pb.EntityBatchResult) -> None:
        """Store the batch's state, answer its callers, and do what it asked for."""
        with self._lock:
            self._entity_in_flight.discard(entity_id)
            entity = self._entities.get(entity_id)
            if entity is None:
                return
            entity.serialized_state = (
                result.entityState.value if result.HasField("entityState") else None
            ) or None
            entity.last_modified_at = datetime.now(UTC)
            entity.dispatched_operations.clear()
            for info, operation in zip(result.operationInfos, result.results, strict=False):
                self._answer_caller(info, operation)
            for action in result.actions:
                self._do_entity_action(action)
            if entity.pending_operations:
                self._enqueue_entity(entity_id)
            else:
                self._drop_if_empty(entity)

    def _drop_if_empty(self, entity: EntityState) -> None:
        idle = not entity.pending_operations and entity.instance_id not in self._entity_in_flight
        if entity.serialized_state is None and entity.locked_by is None and idle:
            self._entities.pop(entity.instance_id, None)

    def _answer_caller(self, info: pb.OperationInfo, operation: pb.OperationResult) -> None:
        caller = self._instances.get(info.responseDestination.instanceId)
        if caller is None or self._is_terminal_status(caller.status):
            return
        event = pb.HistoryEvent(eventId=-1, timestamp=now_timestamp())
        if operation.HasField("failure"):
            event.entityOperationFailed.requestId = info.requestId
            event.entityOperationFailed.failureDetails.CopyFrom(operation.failure.failureDetails)
        else:
            event.entityOperationCompleted.requestId = info.requestId
            event.entityOperationCompleted.output.CopyFrom(operation.success.result)
        caller.pending_events.append(event)
        self._enqueue_orchestration(caller.instance_id)

    def _do_entity_action(self, action: pb.OperationAction) -> None:
        try:
            if action.HasField("sendSignal"):
                signal = action.sendSignal
                self._signal_entity_internal(
                    signal.instanceId,
                    signal.name,
                    signal.input.value if signal.HasField("input") else None,
                    scheduled_time=(
                        signal.scheduledTime.ToDatetime(tzinfo=UTC)
                        if signal.HasField("scheduledTime")
                        else None
                    ),
                )
            elif action.HasField("startNewOrchestration"):
                start = action.startNewOrchestration
                self._create_instance_internal(
                    start.instanceId or uuid.uuid4().hex,
                    start.name,
                    start.input.value if start.HasField("input") else None,
                    version=start.version.value if start.HasField("version") else None,
                )
        except ValueError as error:
            _LOGGER.warning("An entity's request was dropped: %s", error)

    def GetEntity(  # noqa: N802 - the name is the service's
        self, request: pb.GetEntityRequest, context: grpc.ServicerContext
    ) -> pb.GetEntityResponse:
        """The entity, which exists as long as it has a state."""
        with self._lock:
            entity = self._entities.get(request.instanceId)
            if entity is None or entity.serialized_state is None:
                return pb.GetEntityResponse(exists=False)
            return super().GetEntity(request, context)

    def QueryEntities(  # noqa: N802
        self, request: pb.QueryEntitiesRequest, context: grpc.ServicerContext
    ) -> pb.QueryEntitiesResponse:
        """Entities that match; those without state only where transient ones are asked for."""
        with self._lock:
            wanted = request.query.includeTransient
            full = pb.QueryEntitiesRequest()
            full.CopyFrom(request)
            full.query.includeTransient = True  # the engine leaves out all with a backlog else
            everything = self._entities
            if not wanted:
                self._entities = {
                    key: one for key, one in everything.items() if one.serialized_state is not None
                }
            try:
                return super().QueryEntities(full, context)
            finally:
                self._entities = everything

    def CleanEntityStorage(  # noqa: N802
        self, request: pb.CleanEntityStorageRequest, context: grpc.ServicerContext
    ) -> pb.CleanEntityStorageResponse:
        """Remove empty entities, and release locks whose orchestration is over."""
        with self._lock:
            released = 0
            if request.releaseOrphanedLocks:
                for entity in self._entities.values():
                    section = entity.locked_by
                    if section is not None and not self._owner_runs(section):
                        entity.locked_by = None
                        released += 1
                        self._enqueue_entity(entity.instance_id)
                self._try_grant_pending_locks()
            removed = 0
            if request.removeEmptyEntities:
                before = len(self._entities)
                for entity in list(self._entities.values()):
                    self._drop_if_empty(entity)
                removed = before - len(self._entities)
            return pb.CleanEntityStorageResponse(
                emptyEntitiesRemoved=removed, orphanedLocksReleased=released
            )

    def _owner_runs(self, section: str) -> bool:
        owner = self._instances.get(self._lock_owners.get(section, ""))
        return owner is not None and not self._is_terminal_status(owner.status)

    def _grant_lock(self, pending: PendingLockRequest) -> None:
        self._lock_owners[pending.critical_section_id] = pending.parent_instance_id
        super()._grant_lock(pending)

    def _try_grant_pending_locks(self) -> None:
        """Also lets the operations run that a lock, released just now, kept waiting."""
        self._pending_lock_requests = [
            one
            for one in self._pending_lock_requests
            if (parent := self._instances.get(one.parent_instance_id)) is not None
            and not self._is_terminal_status(parent.status)
        ]
        super()._try_grant_pending_locks()  # type: ignore[no-untyped-call]
        held = {entity.locked_by for entity in self._entities.values() if entity.locked_by}
        for section in set(self._lock_owners) - held:
            del self._lock_owners[section]
        for entity in list(self._entities.values()):
            if entity.locked_by is None and entity.pending_operations:
                self._enqueue_entity(entity.instance_id)

    def _release_locks_of(self, instance_id: str) -> None:
        """An orchestration is over: its locks go, and so do the ones it waits for."""
        sections = {key for key, owner in self._lock_owners.items() if owner == instance_id}
        waiting = any(one.parent_instance_id == instance_id for one in self._pending_lock_requests)
        if not sections and not waiting:
            return
        for entity in self._entities.values():
            if entity.locked_by in sections:
                entity.locked_by = None
        self._try_grant_pending_locks()

    def _schedule_delayed_entity_operation(
        self, entity_id: str, event: pb.HistoryEvent, fire_at: datetime
    ) -> None:
        self._alarms.set(
            fire_at, self._locked(lambda: self._queue_entity_operation(entity_id, event))
        )

    def _locked(self, action: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            with self._lock:
                action()

        return run
