"""Queue triggers."""

import asyncio
import base64
import binascii
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.queue import QueueClient, QueueMessage

from local_host.channel import Value
from local_host.errors import WorkerLostError
from local_host.executor import FunctionExecutor
from local_host.expressions import resolve_settings
from local_host.functions import Function
from local_host.settings import HostSettings
from local_host.storage import STORAGE_ERRORS, StorageAccounts

_LOGGER = logging.getLogger("local_host.queues")
_LEASE_S = 600
_LEAST_POLL_S = 0.1


@dataclass(frozen=True)
class _Source:
    function: Function
    connection: str
    queue: QueueClient


class QueueListener:
    """Polls queues, runs a function a message, and moves poison messages aside."""

    def __init__(
        self,
        functions: Iterable[Function],
        executor: FunctionExecutor,
        accounts: StorageAccounts,
        settings: HostSettings,
    ) -> None:
        self._executor = executor
        self._accounts = accounts
        self._options = settings.queues
        self._stop = asyncio.Event()
        self._sources: dict[str, _Source] = {}
        for function in functions:
            where = f"the queue trigger of function {function.name}"
            name = resolve_settings(
                function.trigger.text("queueName"), settings.app_settings, where
            )
            connection = function.trigger.text("connection")
            self._sources[function.name] = _Source(
                function, connection, accounts.queue(connection).get_queue_client(name.lower())
            )

    def stop(self) -> None:
        """Take no more messages."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until stopped, and until the messages in hand are done."""
        await asyncio.gather(*(self._serve(source) for source in self._sources.values()))

    def handles(self, name: str) -> bool:
        """Whether the function is one of this listener's."""
        return name in self._sources

    async def invoke(self, name: str, given: object) -> None:
        """Run the function with ``given`` as the message's body."""
        body = given if isinstance(given, str) else json.dumps(given)
        metadata = {"Id": Value("string", "manual"), "DequeueCount": Value("int", 1)}
        await self._execute(self._sources[name].function, Value("string", body), metadata)

    async def _serve(self, source: _Source) -> None:
        running: set[asyncio.Task[None]] = set()
        longest = max(self._options.max_polling_interval.total_seconds(), _LEAST_POLL_S)
        pause = _LEAST_POLL_S
        while not self._stop.is_set():
            if len(running) > self._options.new_batch_threshold:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                continue
            messages = await self._receive(source)
            for message in messages:
                task = asyncio.create_task(self._process(source, message))
                running.add(task)
                task.add_done_callback(running.discard)
            pause = _LEAST_POLL_S if messages else min(pause * 2, longest)
            await self._sleep(0 if messages else pause)
        if running:
            await asyncio.wait(running)

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    async def _receive(self, source: _Source) -> list[QueueMessage]:
        size = self._options.batch_size

        def receive() -> list[QueueMessage]:
            return list(
                source.queue.receive_messages(
                    messages_per_page=size, max_messages=size, visibility_timeout=_LEASE_S
                )
            )

        try:
            return await asyncio.to_thread(receive)
        except ResourceNotFoundError:
            return []  # nobody has made the queue yet
        except STORAGE_ERRORS as error:
            _LOGGER.warning(
                "The queue of function '%s' cannot be read: %s",
                source.function.name,
                type(error).__name__,
            )
            return []

    async def _process(self, source: _Source, message: QueueMessage) -> None:
        lease = asyncio.create_task(self._keep_lease(source, message))
        try:
            succeeded = await self._execute(
                source.function, self._body(message), _metadata(message)
            )
        finally:
            lease.cancel()
            await asyncio.gather(lease, return_exceptions=True)
        try:
            await asyncio.to_thread(self._settle, source, message, succeeded)
        except STORAGE_ERRORS as error:
            _LOGGER.warning(
                "A message of function '%s' cannot be settled and will come again: %s",
                source.function.name,
                type(error).__name__,
            )

    async def _execute(
        self, function: Function, body: Value, metadata: Mapping[str, Value]
    ) -> bool:
        data = {name: value.value for name, value in metadata.items()}
        data |= {"queueTrigger": body.value} | _json_fields(body.value)
        try:
            outcome = await self._executor.run(function, body, metadata=metadata, data=data)
        except WorkerLostError:
            return False
        return outcome.failure is None

    def _settle(self, source: _Source, message: QueueMessage, succeeded: bool) -> None:
        if not succeeded:
            if (message.dequeue_count or 0) < self._options.max_dequeue_count:
                delay = round(self._options.visibility_timeout.total_seconds())
                source.queue.update_message(message, visibility_timeout=delay)
                return
            poison = f"{source.queue.queue_name}-poison"
            self._accounts.send(source.connection, poison, [message.content])
            _LOGGER.error(
                "Message has reached MaxDequeueCount of %d. Moving message to queue '%s'.",
                self._options.max_dequeue_count,
                poison,
            )
        source.queue.delete_message(message)

    async def _keep_lease(self, source: _Source, message: QueueMessage) -> None:
        """A function may run for longer than a message stays hidden."""
        while True:
            await asyncio.sleep(_LEASE_S / 2)
            try:
                renewed = await asyncio.to_thread(
                    source.queue.update_message, message, visibility_timeout=_LEASE_S
                )
                message.pop_receipt = renewed.pop_receipt
            except STORAGE_ERRORS as error:
                _LOGGER.warning("A message's lease was not renewed: %s", type(error).__name__)

    def _body(self, message: QueueMessage) -> Value:
        raw = str(message.content)
        data = raw.encode()
        if self._options.base64:
            try:
                data = base64.b64decode(raw, validate=True)
            except binascii.Error:
                data = raw.encode()
        try:
            return Value("string", data.decode("utf-8"))
        except UnicodeDecodeError:
            return Value("bytes", data)


def _metadata(message: QueueMessage) -> dict[str, Value]:
    values: dict[str, Any] = {
        "Id": message.id,
        "PopReceipt": message.pop_receipt,
        "InsertionTime": message.inserted_on.isoformat() if message.inserted_on else None,
        "ExpirationTime": message.expires_on.isoformat() if message.expires_on else None,
        "NextVisibleTime": message.next_visible_on.isoformat() if message.next_visible_on else None,
    }
    metadata = {name: Value("string", value) for name, value in values.items() if value}
    metadata["DequeueCount"] = Value("int", message.dequeue_count or 1)
    return metadata


def _json_fields(body: object) -> dict[str, object]:
    if not isinstance(body, str) or not body.lstrip().startswith("{"):
        return {}
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
