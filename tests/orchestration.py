"""The durable engine in this process, a simulated study, and replay of recorded histories."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
from azure.durable_functions.worker import DurableFunctionsWorker
from durabletask.client import OrchestrationState, TaskHubGrpcClient
from durabletask.internal import helpers
from durabletask.testing import InMemoryOrchestrationBackend
from durabletask.testing.in_memory_backend import OrchestrationInstance
from durabletask.worker import TaskHubGrpcWorker

from orchestrators.report_study import report_study
from orchestrators.review_study import review_study
from slicewatch.messages import (
    Assessment,
    AssessRequest,
    BatchRequest,
    Escalation,
    Inventory,
    InventoryRequest,
    ItemState,
    Published,
    Retry,
    ReviewPlan,
    Settlement,
    SettleRequest,
    WaitingItem,
)
from slicewatch.records import BatchResult, Lane, LaneFlag, StudyStatus
from slicewatch.report_messages import Delivered, Reported, ReportRequest
from tests.doors import orchestrator_of

REVIEW_STUDY = orchestrator_of(review_study)
REPORT_STUDY = orchestrator_of(report_study)
STUDY = "1.2.3"
TERMINAL = ("COMPLETED", "FAILED", "TERMINATED")


def plan(**changes: Any) -> ReviewPlan:
    """A plan with waits short enough for a test."""
    values: dict[str, Any] = {
        "study": STUDY,
        "quiet_s": 30.0,
        "force_s": 60.0,
        "poll_s": 0.05,
        "max_poll_s": 0.2,
        "max_in_flight": 3,
        "retry": Retry(3, 0.01),
        "sla_s": {"clinical": 60.0, "forensic": 60.0},
        "max_escalation": 2,
    }
    return ReviewPlan(**(values | changes))


@dataclass
class Study:
    """What storage would hold of a study, and what the activities did with it."""

    batch_size: int = 4
    received: int = 0
    unnoted: int = 0  # stored, and seen only by a look that lists
    closed: bool = False
    missing: int = 0
    status: StudyStatus = StudyStatus.NOT_FLAGGED
    lanes: tuple[Lane, ...] = ()
    decided: set[str] = field(default_factory=set)
    screen: Callable[[int], None] = lambda batch: None
    report: Callable[[int], None] = lambda generation: None
    send: Callable[[int], None] = lambda generation: None
    has_pacs: bool = False
    reported: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    batches: dict[int, int] = field(default_factory=dict)
    results: dict[int, int] = field(default_factory=dict)
    in_flight: int = 0
    most_in_flight: int = 0
    seen_at_screening: list[int] = field(default_factory=list)
    generations: list[int] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    listings: list[bool] = field(default_factory=list)  # whether each look listed what is stored
    escalations: list[tuple[str, int]] = field(default_factory=list)
    open: bool = True
    lock: threading.RLock = field(default_factory=threading.RLock)

    def take_inventory(self, _: Any, data: dict[str, Any]) -> dict[str, Any]:
        request = InventoryRequest.from_json(data)
        listed = request.flush or request.after < 0
        with self.lock:
            self.listings.append(listed)
            if listed:
                self.received, self.unnoted = self.received + self.unnoted, 0
            waiting = self.received - sum(self.batches.values())
            while waiting >= self.batch_size or (waiting and request.flush):
                self.batches[len(self.batches)] = min(self.batch_size, waiting)
                waiting -= min(self.batch_size, waiting)
            pending = [n for n in self.batches if n > request.after and n not in self.results]
            answer = pending[:128]
            return Inventory(
                received=self.received,
                batches=tuple(answer),
                last_batch=answer[-1] if len(pending) > 128 else len(self.batches) - 1,
                more=len(pending) > 128,
                unassigned=waiting,
                done=BatchResult(-1, sum(self.results.values()), 0, 0, 0),
                closed=self.closed,
                missing=self.missing,
                listed=listed,
            ).to_json()

    def screen_slices(self, _: Any, data: dict[str, Any]) -> dict[str, Any]:
        batch = BatchRequest.from_json(data).batch
        with self.lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.seen_at_screening.append(self.received)
        try:
            self.screen(batch)
        finally:
            with self.lock:
                self.in_flight -= 1
        with self.lock:
            self.results[batch] = self.batches[batch]
            return BatchResult(batch, self.batches[batch], 0, 0, 0).to_json()

    def assess_study(self, _: Any, data: dict[str, Any]) -> dict[str, Any]:
        request = AssessRequest.from_json(data)
        with self.lock:
            covered = sum(self.results.values())
            if not self.generations or self.generations[-1] != covered:
                self.generations.append(covered)
            self.forced.append(request.forced)
            return Assessment(
                study=request.study,
                generation=len(self.generations),
                status=self.status,
                lanes=tuple(LaneFlag(lane, 50, ("rule",), "") for lane in self.lanes),
                findings=len(self.lanes),
                content_digest=str(covered),
                objects=covered,
            ).to_json()

    def publish_review(self, _: Any, data: dict[str, Any]) -> dict[str, Any]:
        assessment = Assessment.from_json(data)
        items = [f"item-{assessment.generation}-{lane}" for lane in self.lanes]
        now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        waiting = tuple(
            WaitingItem(item, lane, now)
            for item, lane in zip(items, self.lanes, strict=True)
            if item not in self.decided
        )
        return Published(waiting, len(items) - len(waiting)).to_json()

    def escalate_item(self, _: Any, data: dict[str, Any]) -> dict[str, Any]:
        wanted = Escalation.from_json(data)
        with self.lock:
            self.escalations.append((wanted.item, wanted.level))
            state = "decided" if wanted.item in self.decided else "open"
            return ItemState(wanted.item, state, wanted.level).to_json()

    def report_review(self, _: Any, data: dict[str, Any]) -> dict[str, Any]:
        generation = ReportRequest.from_json(data).generation
        self.report(generation)
        with self.lock:
            self.reported.append(generation)
        return Reported(2, 2 if self.has_pacs else 0).to_json()

    def send_report(self, _: Any, data: dict[str, Any]) -> dict[str, Any]:
        generation = ReportRequest.from_json(data).generation
        self.send(generation)
        with self.lock:
            self.sent.append(generation)
        return Delivered(2, 0).to_json()

    def settle_study(self, _: Any, data: dict[str, Any]) -> dict[str, Any]:
        request = SettleRequest.from_json(data)
        with self.lock:
            covered = request.content_digest == str(self.received)
            self.open = self.open and not (covered and request.finished)
            return Settlement(covered).to_json()


class Backend(InMemoryOrchestrationBackend):
    """The SDK's engine, kept from giving one execution what an earlier one of its instance began.

    Durable Functions drops such results. Here the answer of a report that an earlier generation
    started would end another task of the same number in the generation after it.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port=port)
        self._renewals: Counter[str] = Counter()

    def _process_complete_orchestration_action(
        self, instance: OrchestrationInstance, complete_action: pb.CompleteOrchestrationAction
    ) -> None:
        if complete_action.orchestrationStatus == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
            self._renewals[instance.instance_id] += 1
            kept = [one for one in instance.pending_events if _kind(one) not in _OF_ONE_EXECUTION]
            instance.pending_events[:] = kept
        super()._process_complete_orchestration_action(instance, complete_action)

    def _watch_sub_orchestration(
        self, parent_instance_id: str, sub_instance_id: str, task_id: int
    ) -> None:
        execution = self._renewals[parent_instance_id]

        def deliver() -> None:
            sub = self._wait_for_state(sub_instance_id, self._is_terminal_status_check, None)
            with self._lock:
                parent = self._instances.get(parent_instance_id)
                stale = self._renewals[parent_instance_id] != execution
                if (
                    sub is None
                    or parent is None
                    or stale
                    or self._is_terminal_status(parent.status)
                ):
                    return
                if sub.status == pb.ORCHESTRATION_STATUS_COMPLETED:
                    event = helpers.new_sub_orchestration_completed_event(task_id, sub.output)
                else:
                    error = RuntimeError(f"{sub_instance_id} failed")
                    event = helpers.new_sub_orchestration_failed_event(task_id, error)
                parent.pending_events.append(event)
                self._enqueue_orchestration(parent_instance_id)

        threading.Thread(target=deliver, daemon=True).start()


_OF_ONE_EXECUTION = (
    "taskCompleted",
    "taskFailed",
    "timerFired",
    "subOrchestrationInstanceCompleted",
    "subOrchestrationInstanceFailed",
)


class Engine:
    """The in-memory engine with ``review_study`` over a simulated study."""

    def __init__(self, backend: InMemoryOrchestrationBackend, port: int, study: Study) -> None:
        self.backend = backend
        self.study = study
        self.client = TaskHubGrpcClient(host_address=f"localhost:{port}")
        self.worker: Any = TaskHubGrpcWorker(host_address=f"localhost:{port}")
        self.worker._registry.add_named_orchestrator("review_study", REVIEW_STUDY)
        self.worker._registry.add_named_orchestrator("report_study", REPORT_STUDY)
        for name in (
            "take_inventory",
            "screen_slices",
            "assess_study",
            "publish_review",
            "escalate_item",
            "report_review",
            "send_report",
            "settle_study",
        ):
            self.worker._registry.add_named_activity(name, getattr(study, name))

    def start(self, wanted: ReviewPlan) -> str:
        """Start the orchestration; its instance id."""
        return self.client.schedule_new_orchestration("review_study", input=wanted.to_json())

    def state(self, instance: str) -> OrchestrationState:
        found = self.client.get_orchestration_state(instance)
        assert found is not None
        return found

    def status(self, instance: str) -> dict[str, Any]:
        """The custom status."""
        return self.state(instance).get_custom_status() or {}

    def wait(self, instance: str, until: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait for a condition; fails with the instance's state when it does not come."""
        deadline = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < deadline, f"{self.state(instance)}"
            time.sleep(0.02)

    def finish(self, instance: str) -> OrchestrationState:
        """Wait for the end of the orchestration."""
        state = self.client.wait_for_orchestration_completion(instance, timeout=30)
        assert state is not None
        return state

    def event(self, instance: str, name: str, data: Any = None) -> None:
        self.client.raise_orchestration_event(instance, name, data=data)

    def history(self, instance: str) -> list[pb.HistoryEvent]:
        """The history of the current run."""
        return list(self.backend._instances[instance].history)


@contextlib.contextmanager
def engine(study: Study) -> Iterator[Engine]:
    """A running engine on a free port."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    backend = Backend(port)
    backend.start()
    running = Engine(backend, port, study)
    running.worker.start()
    try:
        yield running
    finally:
        running.worker.stop()
        running.client.close()
        backend.stop()


def replay(
    history: Sequence[pb.HistoryEvent],
    orchestrator: Callable[..., Any] = REVIEW_STUDY,
) -> None:
    """Run the orchestrator again over every prefix of its history, as a host does after a restart.

    Fails when a turn schedules anything but what the history says that it scheduled.
    """
    begun = next(event for event in history if event.HasField("executionStarted"))
    instance = begun.executionStarted.orchestrationInstance.instanceId
    starts = [n for n, event in enumerate(history) if event.HasField("orchestratorStarted")]
    assert starts, "the history is empty"
    for start, end in zip(starts, [*starts[1:], len(history)], strict=True):
        turn = history[start:end]
        new = [event for event in turn if _kind(event) not in _OUTCOMES]
        request = pb.OrchestratorRequest(
            instanceId=instance, pastEvents=history[:start], newEvents=new
        )
        encoded = base64.b64encode(request.SerializeToString()).decode()
        answer = DurableFunctionsWorker().execute_orchestration_request(orchestrator, encoded)
        response = pb.OrchestratorResponse.FromString(base64.b64decode(answer))
        expected = [_scheduled(event) for event in turn if _kind(event) in _SCHEDULED]
        got = [_action(one) for one in response.actions]
        assert [one for one in got if one[0] in ("task", "timer", "orchestration")] == expected
        failures = [
            one.completeOrchestration.failureDetails.errorMessage
            for one in response.actions
            if one.HasField("completeOrchestration")
            and one.completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED
        ]
        recorded = [
            event
            for event in turn
            if event.HasField("executionCompleted")
            and event.executionCompleted.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED
        ]
        assert bool(failures) == bool(recorded), failures


_SCHEDULED = ("taskScheduled", "timerCreated", "subOrchestrationInstanceCreated")
_OUTCOMES = (*_SCHEDULED, "orchestratorCompleted", "executionCompleted", "eventSent")


def _kind(event: pb.HistoryEvent) -> str:
    return str(event.WhichOneof("eventType"))


def _scheduled(event: pb.HistoryEvent) -> tuple[str, str]:
    if event.HasField("taskScheduled"):
        return "task", event.taskScheduled.name
    if event.HasField("subOrchestrationInstanceCreated"):
        created = event.subOrchestrationInstanceCreated
        return "orchestration", f"{created.name} {created.instanceId}"
    return "timer", event.timerCreated.fireAt.ToJsonString()


def _action(action: pb.OrchestratorAction) -> tuple[str, str]:
    if action.HasField("scheduleTask"):
        return "task", action.scheduleTask.name
    if action.HasField("createSubOrchestration"):
        created = action.createSubOrchestration
        return "orchestration", f"{created.name} {created.instanceId}"
    if action.HasField("createTimer"):
        return "timer", action.createTimer.fireAt.ToJsonString()
    return str(action.WhichOneof("orchestratorActionType")), ""
