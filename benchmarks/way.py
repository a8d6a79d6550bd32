"""The full way: studies through the local host, the storage emulator and the orchestrator."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.processes import Meter, Usage
from benchmarks.studies import PREAMBLE_ISSUE
from demo.scanner import Object, send
from demo.stack import Stack
from slicewatch import inventory, settings
from slicewatch.arrival import Intake, Offered
from slicewatch.storage import Storage

_POLL_S = 0.2  # a look costs the host some milliseconds, and is what a page does
_TIMEOUT_S = 1200.0


class WayError(Exception):
    """A study did not come through; the text says what happened to it."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One study's way; times in seconds.

    Attributes:
        wall_s: from the first byte sent until its worklist item can be read.
        flag_s: from the answer to the close until then.
        screening_s: from the start of the orchestration to its last screened batch.
        history_events: of the orchestration, raw, when the item can be read.
        max_message_bytes: the largest event of the history, as it is serialised.
        host, emulator: what their processes used meanwhile.
        sender_cpu_s: what this process used, sending and looking for the item.
    """

    slices: int
    wall_s: float
    flag_s: float
    screening_s: float
    history_events: int
    max_message_bytes: int
    host: Usage
    emulator: Usage
    sender_cpu_s: float

    @property
    def slices_per_s(self) -> float:
        """Slices over `wall_s`."""
        return self.slices / self.wall_s

    @property
    def ms_per_slice(self) -> float:
        """Milliseconds of wall time a slice."""
        return 1000 * self.wall_s / self.slices


class Way:
    """A stack that serves, warmed up, and what is sent through it."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._storage = Storage(
            settings.load({"SLICEWATCH_STORAGE": stack.azurite.connection_string})
        )
        self._client = httpx.Client(base_url=stack.url, timeout=120)

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def pass_through(self, objects: Sequence[Object]) -> Passage:
        """Send a study as a scanner would and wait for its item. Raises `WayError`."""
        with self._meter() as meter:
            began, cpu = time.perf_counter(), time.process_time()
            refused = send(self._client, objects)
            closed = time.perf_counter()
            if refused:
                raise WayError(f"{len(refused)} of {len(objects)} objects were refused")
            seen = self._await_item(objects[0].study)
            used = time.process_time() - cpu
        return self._passage(objects, (began, closed, seen), used, meter.usage)

    @property
    def connection_string(self) -> str:
        """Of the emulator behind the stack."""
        return self._stack.azurite.connection_string

    def pass_stored(self, objects: Sequence[Object]) -> Passage:
        """The way of a study that lies in storage before its orchestration starts.

        `Passage.wall_s` then begins at the close. Raises `WayError`.
        """
        intake = Intake(self._storage, settings.load({}), "benchmark")
        intake.receive_all(Offered(one.path.read_bytes()) for one in objects)
        study = objects[0].study
        with self._meter() as meter:
            began, cpu = time.perf_counter(), time.process_time()
            self._client.post(f"/api/studies/{study}/close").raise_for_status()
            closed = time.perf_counter()
            seen = self._await_item(study)
            used = time.process_time() - cpu
        return self._passage(objects, (began, closed, seen), used, meter.usage)

    def _meter(self) -> Meter:
        assert self._stack.host is not None
        emulators = [
            one.pid
            for one in psutil.Process().children()
            if any(Path(part).name == "azurite" for part in one.cmdline())
        ]
        if len(emulators) != 1:
            raise WayError(f"expected one storage emulator, found {len(emulators)}")
        return Meter({"host": self._stack.host.pid, "emulator": emulators[0]})

    def _await_item(self, study: str) -> float:
        """When the study's first worklist item could be read."""
        deadline = time.perf_counter() + _TIMEOUT_S
        while time.perf_counter() < deadline:
            answer = self._client.get("/api/worklist").raise_for_status().json()
            if any(item["study"] == study for item in answer["items"]):
                return time.perf_counter()
            time.sleep(_POLL_S)
        status = self._client.get(f"/api/studies/{study}").json()
        raise WayError(f"no item within {_TIMEOUT_S:.0f} s; the study is {status.get('status')}")

    def _passage(
        self,
        objects: Sequence[Object],
        moments: tuple[float, float, float],
        sender_cpu_s: float,
        usage: Mapping[str, Usage],
    ) -> Passage:
        began, closed, seen = moments
        study = objects[0].study
        review = inventory.latest_review(self._storage, study)
        screened = review.coverage.screened if review else 0
        codes = {issue.code for issue in review.integrity} if review else set()
        if review is None or screened != len(objects) or codes != {PREAMBLE_ISSUE}:
            raise WayError(
                f"{screened} of {len(objects)} slices were screened; integrity issues: "
                f"{', '.join(sorted(codes)) or 'none'}, expected {PREAMBLE_ISSUE} alone"
            )
        timings = review.timings
        events = self._history(inventory.instance_id(study))
        return Passage(
            slices=len(objects),
            wall_s=seen - began,
            flag_s=seen - closed,
            screening_s=timings["receiving_s"] + timings["screening_after_last_arrival_s"],
            history_events=len(events),
            max_message_bytes=max(events),
            host=usage["host"],
            emulator=usage["emulator"],
            sender_cpu_s=sender_cpu_s,
        )

    def _history(self, instance: str) -> list[int]:
        """Sizes of the history's events, from the engine's own port: it serves beside HTTP."""
        import grpc
        from durabletask.internal import orchestrator_service_pb2 as pb
        from durabletask.internal import orchestrator_service_pb2_grpc as stubs

        assert self._stack.host is not None
        served = httpx.URL(self._stack.url).port
        ports = {
            one.laddr.port
            for one in psutil.Process(self._stack.host.pid).net_connections("tcp")
            if one.status == psutil.CONN_LISTEN and one.laddr.port != served
        }
        if len(ports) != 1:
            raise WayError(f"expected one port of the durable engine, found {len(ports)}")
        with grpc.insecure_channel(f"127.0.0.1:{ports.pop()}") as channel:
            stub = stubs.TaskHubSidecarServiceStub(channel)  # type: ignore[no-untyped-call]
            chunks = stub.StreamInstanceHistory(
                pb.StreamInstanceHistoryRequest(instanceId=instance), timeout=60
            )
            return [event.ByteSize() for chunk in chunks for event in chunk.events]


@contextlib.contextmanager
def open_way(
    models: Path, log: Path, warm_up: Sequence[Object], extra: Mapping[str, str] | None = None
) -> Iterator[Way]:
    """A fresh stack with nothing stored but the warm-up study, and the models loaded."""
    wanted = {
        "SLICEWATCH_MODELS": str(models),
        # Only the close ends a study here, so that a pause of the sender cannot.
        "SLICEWATCH_QUIET_SECONDS": "600",
        **(extra or {}),
    }
    with Stack(settings=wanted, log=log) as stack:
        way = Way(stack)
        try:
            way.pass_through(warm_up)
            yield way
        finally:
            way.close()
