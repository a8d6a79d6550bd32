"""The app in the local host beside its storage emulator, driven over HTTP as its senders and
readers do.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from azure.storage.queue import QueueClient, TextBase64DecodePolicy

from demo.scanner import multipart
from demo.stack import Stack
from local_host.azurite import Azurite
from slicewatch import inventory, unfinished
from slicewatch import settings as app_settings
from slicewatch import worklist as items
from slicewatch.records import Review, StudyStatus
from slicewatch.storage import INCOMING, QUARANTINE, Storage
from slicewatch.worklist import Item
from tests.identities import principal

REVIEWED = (
    StudyStatus.FLAGGED,
    StudyStatus.NOT_FLAGGED,
    StudyStatus.INCOMPLETE,
    StudyStatus.NOT_SCREENED,
)
"""What a first review may say."""

SHORT_WAITS = {
    "SLICEWATCH_QUIET_SECONDS": "3",
    "SLICEWATCH_POLL_SECONDS": "0.1",
    "SLICEWATCH_MAX_POLL_SECONDS": "0.5",
    "SLICEWATCH_BATCH_WAIT_SECONDS": "0.5",
    "SLICEWATCH_SWEEP_SCHEDULE": "*/2 * * * * *",
    "SLICEWATCH_FAILED_STUDY_PAUSE_SECONDS": "0.5",
}


class RunningApp:
    """The app and what tests ask of it.

    Args:
        folder: for the host's log.
        models: the folder of models that the app uses.
        settings: app settings on top of `SHORT_WAITS`.
    """

    def __init__(
        self,
        folder: Path,
        models: Path,
        settings: Mapping[str, str] | None = None,
        azurite: Azurite | None = None,
    ) -> None:
        self.log_path = folder / "host.log"
        self.stack = Stack(
            settings={**SHORT_WAITS, "SLICEWATCH_MODELS": str(models), **(settings or {})},
            log=self.log_path,
            azurite=azurite,
        )
        connection = self.stack.azurite.connection_string
        self.storage = Storage(app_settings.load({"AzureWebJobsStorage": connection}))
        self.http = httpx.Client(base_url=self.stack.url, timeout=60)
        self._told: dict[str, list[dict[str, Any]]] = {}

    def __enter__(self) -> RunningApp:
        self.stack.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.http.close()
        self.stack.__exit__(None, None, None)

    # --- the host

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def kill_host(self) -> None:
        """End the host at once, as a crash or a power cut does; its state is lost."""
        host = self.stack.host
        assert host is not None
        host.kill()
        host.wait()

    def worker_pids(self) -> list[int]:
        answer = self.http.get("/admin/host/status").raise_for_status()
        return list(answer.json()["workerProcessIds"])

    # --- what a sender does

    def store(self, objects: Iterable[bytes], study: str = "") -> httpx.Response:
        """One STOW-RS request."""
        content_type, body = multipart(iter(objects))
        path = f"/api/dicomweb/studies/{study}" if study else "/api/dicomweb/studies"
        return self.http.post(path, content=body, headers={"Content-Type": content_type})

    def close(self, study: str, instances: Sequence[str] | None = None) -> httpx.Response:
        body = None if instances is None else {"instances": list(instances)}
        return self.http.post(f"/api/studies/{study}/close", json=body)

    def send(self, study: str, objects: Mapping[str, bytes], chunk: int = 16) -> None:
        """Store the objects, by SOP instance UID, and close the study with their list."""
        every = list(objects.values())
        for start in range(0, len(every), chunk):
            answer = self.store(every[start : start + chunk])
            assert answer.status_code == 200, answer.text
        assert self.close(study, list(objects)).status_code == 202

    def send_with_retries(
        self, study: str, objects: Mapping[str, bytes], chunk: int = 4
    ) -> threading.Thread:
        """Send in a thread as a patient sender does: each request again until it is accepted."""
        every = list(objects.values())
        requests: list[Callable[[], httpx.Response]] = [
            partial(self.store, every[start : start + chunk])
            for start in range(0, len(every), chunk)
        ]
        requests.append(lambda: self.close(study, list(objects)))
        sender = threading.Thread(target=_patiently, args=(requests,), daemon=True)
        sender.start()
        return sender

    # --- what a reader does

    def worklist(self, study: str) -> list[Item]:
        """All items of a study, the earliest generation first."""
        return sorted(
            items.of_study(self.storage, study), key=lambda item: (item.generation, item.lane)
        )

    def act(self, item: str, action: str, reader: str = "", **body: Any) -> httpx.Response:
        """Claim, release, decide or correct an item, as this reader where one is named."""
        headers = principal(reader) if reader else {}
        return self.http.post(f"/api/worklist/{item}/{action}", json=body, headers=headers)

    def decide(self, item: str, reader: str = "reader-1", verdict: str = "confirmed") -> None:
        """Claim the item and decide it."""
        for action, more in (("claim", {}), ("decision", {"verdict": verdict})):
            answer = self.act(item, action, reader=reader, **more)
            assert answer.status_code == 200, answer.text

    def messages(self, item: str) -> list[dict[str, Any]]:
        """What the lanes' queues were told of an item so far, in order."""
        for lane in ("clinical", "forensic"):
            queue = QueueClient.from_connection_string(
                self.stack.azurite.connection_string,
                f"review-{lane}",
                message_decode_policy=TextBase64DecodePolicy(),
            )
            with queue:
                if not self._exists(queue):
                    continue
                for message in queue.receive_messages(messages_per_page=32):
                    told = json.loads(message.content)
                    self._told.setdefault(told["item"], []).append(told)
                    queue.delete_message(message)
        return self._told.get(item, [])

    @staticmethod
    def _exists(queue: QueueClient) -> bool:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            queue.get_queue_properties()
        except ResourceNotFoundError:
            return False
        return True

    # --- where things stand

    def status(self, study: str) -> dict[str, Any]:
        answer = self.http.get(f"/api/studies/{study}")
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
        return dict(answer.json())

    def instance(self, study: str, **query: str) -> dict[str, Any]:
        """The orchestration's state, from the host itself; empty when there is none."""
        answer = self.http.get(_instance_path(study), params=query)
        return {} if answer.status_code == 404 else dict(answer.json())

    def purge(self, study: str) -> None:
        """Have the host forget the study's orchestration, which has ended.

        A sweep that looked before the end may have started it once more; that run ends, too.
        """
        self.wait(
            lambda: self.http.delete(_instance_path(study)).status_code,
            lambda code: code == 200,
            "the host did not forget the orchestration",
        )

    def progress(self, study: str) -> dict[str, Any]:
        """The orchestration's custom status."""
        return self.instance(study).get("customStatus") or {}

    def await_status(self, study: str, *wanted: str, seconds: float = 45) -> dict[str, Any]:
        """Wait until the study has one of these statuses and its review is out."""
        return self.wait(
            lambda: self.status(study),
            lambda status: status["status"] in wanted and status["review"] is not None,
            f"the study never became {' or '.join(wanted)}",
            seconds,
        )

    def await_review(self, study: str, *, generation: int = 1, seconds: float = 45) -> Review:
        """Wait for a generation of the study's review, and until it is published."""
        found = self.wait(
            lambda: self.status(study),
            lambda status: (
                status["status"] in REVIEWED
                and (status["progress"] or {}).get("published")
                and status["progress"]["generation"] >= generation
            ),
            f"generation {generation} of the study's review never came",
            seconds,
        )
        assert found["review"]["generation"] == found["progress"]["generation"] == generation
        return inventory.read_review(self.storage, study, generation)

    def await_end(self, study: str, seconds: float = 30) -> None:
        """Wait until the study's orchestration has completed."""
        self.wait(
            lambda: self.instance(study),
            lambda instance: instance.get("runtimeStatus") == "Completed",
            "the orchestration never completed",
            seconds,
        )
        assert not unfinished.is_open(self.storage, study)

    def stored(self, study: str) -> dict[str, bytes]:
        """The study's originals by blob name."""
        return {
            blob.name: self.storage.read(INCOMING, blob.name)
            for blob in self.storage.listing(INCOMING, f"{study}/")
        }

    def quarantined(self, data: bytes) -> str | None:
        """Why these bytes are in quarantine; ``None`` when they are not."""
        for blob in self.storage.listing(QUARANTINE):
            if blob.size == len(data) and self.storage.read(QUARANTINE, blob.name) == data:
                return blob.metadata["reason"]
        return None

    def wait[T](
        self,
        look: Callable[[], T],
        until: Callable[[T], Any],
        otherwise: str,
        seconds: float = 45,
        every: float = 0.05,
    ) -> T:
        """Look until it is as wanted; else fail with what was seen last and the host's log."""
        deadline = time.monotonic() + seconds
        while True:
            seen = look()
            if until(seen):
                return seen
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{otherwise} within {seconds:.0f} s; last seen: {seen}\n"
                    f"The host's log ends with:\n{_without_polls(self.log)[-6000:]}"
                )
            time.sleep(every)


def said(review: Review) -> dict[str, Any]:
    """What a review says, without when it was said."""
    return dataclasses.replace(review, timings={}).to_json()


def running_app(
    folder: Path, models: Path, settings: Mapping[str, str] | None = None
) -> Iterator[RunningApp]:
    """The app as a fixture has it."""
    with RunningApp(folder, models, settings) as app:
        yield app


def _instance_path(study: str) -> str:
    return f"/runtime/webhooks/durabletask/instances/{inventory.instance_id(study)}"


def _patiently(requests: Iterable[Callable[[], httpx.Response]]) -> None:
    deadline = time.monotonic() + 90
    for request in requests:
        while time.monotonic() < deadline:
            try:
                if request().status_code in (200, 202):
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)


def _without_polls(log: str) -> str:
    lines = (line for line in log.splitlines() if "'Functions.study_status' (Succ" not in line)
    return "\n".join(lines)
