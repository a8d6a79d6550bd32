"""Blob triggers: container scan, or Event Grid posts to the blobs webhook."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobProperties, ContainerClient
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute
from starlette.routing import Route as StarletteRoute

from local_host.channel import Payload, Value
from local_host.errors import HostError, WorkerLostError
from local_host.executor import FunctionExecutor
from local_host.expressions import BlobPattern, resolve_settings
from local_host.front import presented_key
from local_host.functions import Function
from local_host.keys import FunctionKeys
from local_host.settings import HostSettings
from local_host.storage import STORAGE_ERRORS, StorageAccounts

_LOGGER = logging.getLogger("local_host.blobs")
_SCAN_INTERVAL_S = 1.0
_FIRST_RETRY_S = 0.2
_LONGEST_RETRY_S = 10.0
_RECEIPTS = "azure-webjobs-hosts"
_POISON_QUEUE = "webjobs-blobtrigger-poison"
_SUBJECT_PREFIX = "/blobServices/default/containers/"


@dataclass(frozen=True)
class _Source:
    function: Function
    connection: str
    pattern: BlobPattern
    container: ContainerClient
    event_grid: bool

    @property
    def id(self) -> str:
        return f"Host.Functions.{self.function.name}"


class BlobListener:
    """Runs a function for each new or changed blob, once a version, poison ones aside."""

    def __init__(
        self,
        functions: Iterable[Function],
        executor: FunctionExecutor,
        accounts: StorageAccounts,
        settings: HostSettings,
    ) -> None:
        self._executor = executor
        self._accounts = accounts
        self._threshold = settings.blobs.poison_threshold
        self._slots = asyncio.Semaphore(settings.blobs.max_degree_of_parallelism)
        self._stop = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._sources: dict[str, _Source] = {}
        for function in functions:
            where = f"the blob trigger of function {function.name}"
            path = resolve_settings(function.trigger.text("path"), settings.app_settings, where)
            source_text = resolve_settings(
                function.trigger.text("source"), settings.app_settings, where
            )
            try:
                pattern = BlobPattern(path)
            except ValueError as error:
                raise HostError(f"{where}: {error}") from None
            connection = function.trigger.text("connection")
            self._sources[function.name] = _Source(
                function,
                connection,
                pattern,
                accounts.blob(connection).get_container_client(pattern.container),
                source_text.lower() == "eventgrid",
            )

    def stop(self) -> None:
        """Take no more blobs."""
        self._stop.set()

    async def run(self) -> None:
        """Scan until stopped, and until the blobs in hand are done."""
        scans = [one for one in self._sources.values() if not one.event_grid]
        await asyncio.gather(self._stop.wait(), *(self._scan(source) for source in scans))
        if self._running:
            await asyncio.wait(self._running)

    def handles(self, name: str) -> bool:
        """Whether the function is one of this listener's."""
        return name in self._sources

    async def invoke(self, name: str, given: object) -> None:
        """Run the function for the blob at the path ``given`` (container/name)."""
        source = self._sources[name]
        container, _, blob = str(given).partition("/")
        values = source.pattern.match(blob)
        if container != source.pattern.container or values is None:
            _LOGGER.error("'%s' is no blob that function '%s' takes", given, name)
            return
        await self._process(source, blob, values, None)

    # Container scan

    async def _scan(self, source: _Source) -> None:
        seen: dict[str, str] = {}
        receipts: set[str] | None = None
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                if receipts is None:
                    receipts = await asyncio.to_thread(self._read_receipts, source)
                listed = await asyncio.to_thread(self._list, source)
            except STORAGE_ERRORS as error:
                _LOGGER.warning(
                    "The container of function '%s' cannot be listed: %s",
                    source.function.name,
                    type(error).__name__,
                )
                listed = None
            if listed is not None and receipts is not None:
                for name, etag in listed.items():
                    values = source.pattern.match(name)
                    known = seen.get(name) == etag or self._receipt(source, name, etag) in receipts
                    if values is not None and not known:
                        await self._begin(source, name, values, etag)
                seen = listed
                receipts = set()  # from here on ``seen`` knows
            # A container of many blobs is listed less often: a tenth of the time at most.
            await self._sleep(max(_SCAN_INTERVAL_S, 9 * (time.monotonic() - begun)))

    def _list(self, source: _Source) -> dict[str, str]:
        try:
            return {
                blob.name: (blob.etag or "").strip('"')
                for blob in source.container.list_blobs(name_starts_with=source.pattern.prefix)
            }
        except ResourceNotFoundError:
            return {}  # nobody has made the container yet

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    async def _begin(
        self, source: _Source, name: str, values: Mapping[str, str], etag: str | None
    ) -> None:
        await self._slots.acquire()
        task = asyncio.create_task(self._process(source, name, values, etag))
        self._running.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._slots.release()
        if not task.cancelled() and task.exception() is not None:
            _LOGGER.error("A blob could not be processed", exc_info=task.exception())

    # One blob

    async def _process(
        self, source: _Source, name: str, values: Mapping[str, str], etag: str | None
    ) -> None:
        """Run the function until it succeeds, or the blob is poison or gone."""
        pause = _FIRST_RETRY_S
        attempt = 1
        while not self._stop.is_set():
            try:
                payload, properties = await asyncio.to_thread(
                    self._accounts.download, source.container.get_blob_client(name)
                )
            except ResourceNotFoundError:
                return
            except STORAGE_ERRORS as error:
                _LOGGER.warning("A blob cannot be read: %s", type(error).__name__)
            else:
                if await self._execute(source, name, values, payload, properties):
                    await self._settle(source, name, etag, poison=False)
                    return
                if attempt >= self._threshold:
                    await self._settle(source, name, etag, poison=True)
                    return
                attempt += 1
            await self._sleep(pause)
            pause = min(pause * 2, _LONGEST_RETRY_S)

    async def _execute(
        self,
        source: _Source,
        name: str,
        values: Mapping[str, str],
        payload: Payload,
        properties: BlobProperties,
    ) -> bool:
        path = f"{source.pattern.container}/{name}"
        uri = source.container.get_blob_client(name).url.partition("?")[0]
        metadata = {
            "BlobTrigger": Value("string", path),
            "Uri": Value("string", uri),
            "Properties": Value("json", json.dumps(_properties(properties))),
            "Metadata": Value("json", json.dumps(properties.metadata or {})),
        } | {key: Value("string", value) for key, value in values.items()}
        try:
            outcome = await self._executor.run(
                source.function,
                Value("bytes", payload),
                metadata=metadata,
                data={**values, "blobTrigger": path, "uri": uri},
            )
        except WorkerLostError:
            return False
        finally:
            payload.discard()
        return outcome.failure is None

    async def _settle(self, source: _Source, name: str, etag: str | None, *, poison: bool) -> None:
        try:
            if poison:
                await asyncio.to_thread(self._send_poison, source, name, etag)
            if etag is not None:
                await asyncio.to_thread(self._write_receipt, source, name, etag)
        except STORAGE_ERRORS as error:
            _LOGGER.warning(
                "A blob is done but that cannot be stored; it may come again after a restart: %s",
                type(error).__name__,
            )

    def _send_poison(self, source: _Source, name: str, etag: str | None) -> None:
        message = {
            "Type": "BlobTrigger",
            "FunctionId": source.id,
            "BlobType": "BlockBlob",
            "ContainerName": source.pattern.container,
            "BlobName": name,
            "ETag": f'"{etag}"' if etag else None,
        }
        text = base64.b64encode(json.dumps(message).encode()).decode("ascii")
        self._accounts.send(source.connection, _POISON_QUEUE, [text])
        _LOGGER.error(
            "A blob failed %d times in function '%s'. Adding it to queue '%s'.",
            self._threshold,
            source.function.name,
            _POISON_QUEUE,
        )

    # Receipts: which versions of which blobs are done, kept in the account as Functions does

    def _receipt(self, source: _Source, name: str, etag: str) -> str:
        folder = f"blobreceipts/{self._accounts.host_id}/{source.id}"
        return f"{folder}/{etag}/{source.pattern.container}/{name}"

    def _receipts_container(self, source: _Source) -> ContainerClient:
        return self._accounts.blob(source.connection).get_container_client(_RECEIPTS)

    def _read_receipts(self, source: _Source) -> set[str]:
        folder = f"blobreceipts/{self._accounts.host_id}/{source.id}/"
        container = self._receipts_container(source)
        try:
            return {blob.name for blob in container.list_blobs(name_starts_with=folder)}
        except ResourceNotFoundError:
            self._accounts.ensure(container.create_container)
            return set()

    def _write_receipt(self, source: _Source, name: str, etag: str) -> None:
        try:
            self._receipts_container(source).upload_blob(self._receipt(source, name, etag), b"")
        except ResourceExistsError:
            return

    # Event Grid

    def routes(self, keys: FunctionKeys | None) -> list[BaseRoute]:
        """The webhook to which an Event Grid subscription posts."""

        async def receive(request: Request) -> Response:
            presented = presented_key(request)
            if keys is not None and not keys.admits_webhook("blobs_extension", presented):
                return Response(status_code=401)
            return await self._receive(request)

        methods = ["POST", "OPTIONS"]
        return [StarletteRoute("/runtime/webhooks/blobs", receive, methods=methods)]

    async def _receive(self, request: Request) -> Response:
        if request.method == "OPTIONS":  # the handshake of CloudEvents
            origin = request.headers.get("webhook-request-origin", "*")
            return Response(headers={"webhook-allowed-origin": origin})
        wanted = request.query_params.get("functionName", "")
        source = self._sources.get(wanted.removeprefix("Host.Functions."))
        if source is None or not source.event_grid:
            return PlainTextResponse(
                f"'{wanted}' is no blob function with Event Grid as its source\n", status_code=404
            )
        try:
            content = await request.json()
        except ValueError:
            return PlainTextResponse("the body is not JSON\n", status_code=400)
        events = content if isinstance(content, list) else [content]
        if not all(isinstance(event, dict) for event in events):
            return PlainTextResponse("the body holds no events\n", status_code=400)
        for event in events:
            kind = str(event.get("eventType") or event.get("type"))
            if kind == "Microsoft.EventGrid.SubscriptionValidationEvent":
                code = event.get("data", {}).get("validationCode")
                return JSONResponse({"validationResponse": code})
            if kind == "Microsoft.Storage.BlobCreated":
                await self._on_created(source, event)
        return Response(status_code=202)

    async def _on_created(self, source: _Source, event: Mapping[str, object]) -> None:
        subject = str(event.get("subject", ""))
        container, _, name = subject.removeprefix(_SUBJECT_PREFIX).partition("/blobs/")
        values = source.pattern.match(name)
        if container == source.pattern.container and values is not None:
            await self._begin(source, name, values, None)


def _properties(properties: BlobProperties) -> dict[str, object]:
    """Blob properties under the names that the Functions host gives them."""
    modified, created = properties.last_modified, properties.creation_time
    return {
        "ContentLength": properties.size,
        "Length": properties.size,
        "ContentType": properties.content_settings.content_type,
        "ETag": properties.etag,
        "LastModified": modified.isoformat() if modified else None,
        "CreatedOn": created.isoformat() if created else None,
    }
