"""The one module that talks to blob, table and queue storage.

The same path serves Azure and Azurite. Every function that reaches the account raises
`StorageUnavailable` when the account does not answer, after the SDK's own retries, so that a
door can say 503 and an activity's retry policy can try again; what a caller can act on has its
own error (`BlobMissing`, `Conflict`).
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from slicewatch import settings as app_settings

if TYPE_CHECKING:
    from azure.data.tables import TableClient
    from azure.storage.blob import BlobServiceClient, ContainerClient
    from azure.storage.queue import QueueClient

INCOMING = "incoming"
REVIEWS = "reviews"
QUARANTINE = "quarantine"
DROPBOX = "dropbox"
CUSTODY = "custody"
CHECKPOINTS = "custody-checkpoints"
WORKLIST = "worklist"

# The well-known account of the storage emulator: "UseDevelopmentStorage=true" stands for it, and
# the SDKs for Python do not expand it.
_EMULATOR = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
    "TableEndpoint=http://127.0.0.1:10002/devstoreaccount1;"
)


class StorageUnavailable(Exception):
    """The storage account does not answer, or is throttling; worth another try later."""


class BlobMissing(KeyError):
    """No such blob; the argument is ``container/name``."""


class Conflict(Exception):
    """A conditional write lost: the blob or entity is not as the caller last saw it."""


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What a listing tells of a blob."""

    name: str
    size: int
    etag: str
    last_modified: datetime
    metadata: Mapping[str, str]


class Storage:
    """Blobs, tables and queues of one storage account; safe under threads.

    Containers, tables and queues are made on first use. Clients are made lazily, so that building
    a `Storage` costs no import and no connection.
    """

    def __init__(self, settings: app_settings.Settings) -> None:
        if not settings.storage and not settings.storage_account_url:
            raise app_settings.SettingError(
                "no storage account: set AzureWebJobsStorage, SLICEWATCH_STORAGE or "
                "SLICEWATCH_STORAGE_ACCOUNT"
            )
        self._settings = settings
        self._lock = threading.RLock()
        self._clients: dict[tuple[str, str], Any] = {}

    # --- blobs

    def read(self, container: str, name: str) -> bytes:
        """The blob's bytes. Raises `BlobMissing`, `StorageUnavailable`."""
        with _faults(f"{container}/{name}"):
            return self._container(container).download_blob(name).readall()

    def write(
        self,
        container: str,
        name: str,
        data: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/octet-stream",
        if_absent: bool = False,
    ) -> None:
        """Store the bytes. Raises `Conflict` when `if_absent` and the blob exists already."""
        from azure.storage.blob import ContentSettings

        with _faults(f"{container}/{name}"):
            self._container(container).upload_blob(
                name,
                data,
                overwrite=not if_absent,
                metadata=dict(metadata or {}),
                content_settings=ContentSettings(content_type=content_type),
            )

    def info(self, container: str, name: str) -> BlobInfo | None:
        """Size, ETag, time and metadata of a blob; ``None`` when there is none."""
        try:
            with _faults(f"{container}/{name}"):
                found = self._container(container).get_blob_client(name).get_blob_properties()
        except BlobMissing:
            return None
        return _info(found)

    def listing(self, container: str, prefix: str = "") -> Iterator[BlobInfo]:
        """The blobs whose names start with `prefix`, in the order of their names."""
        with _faults(f"{container}/{prefix}"):
            pages = self._container(container).list_blobs(
                name_starts_with=prefix or None, include=["metadata"]
            )
            yield from map(_info, pages)

    def delete(self, container: str, name: str, *, etag: str | None = None) -> None:
        """Delete a blob; a missing one is fine. Raises `Conflict` when its ETag is another."""
        from azure.core import MatchConditions

        condition: dict[str, Any] = {}
        if etag:
            condition = {"etag": etag, "match_condition": MatchConditions.IfNotModified}
        with contextlib.suppress(BlobMissing), _faults(f"{container}/{name}"):
            self._container(container).delete_blob(name, **condition)

    # --- blobs in pieces

    def chunks(self, container: str, name: str) -> Iterator[bytes]:
        """The blob's bytes, some MiB at a time. Raises `BlobMissing`, `StorageUnavailable`."""
        with _faults(f"{container}/{name}"):
            # One without a length is fetched whole when it is small, and in pieces when not.
            yield from self._container(container).download_blob(name).chunks()

    def read_from(self, container: str, name: str, offset: int) -> bytes:
        """The bytes from an offset on; none when the blob ends before it.

        Raises `BlobMissing`, `StorageUnavailable`.
        """
        from azure.core.exceptions import HttpResponseError

        try:
            with _faults(f"{container}/{name}"):
                return self._container(container).download_blob(name, offset=offset).readall()
        except HttpResponseError as error:
            if error.status_code != 416:  # Range Not Satisfiable
                raise
            return b""

    def create_append_blob(self, container: str, name: str) -> None:
        """Make an empty append blob. Raises `Conflict` when the blob exists."""
        from azure.core import MatchConditions

        with _faults(f"{container}/{name}"):
            blob = self._container(container).get_blob_client(name)
            blob.create_append_blob(match_condition=MatchConditions.IfMissing)

    def append(self, container: str, name: str, data: bytes, *, position: int) -> None:
        """Append the bytes, all or none, if the append blob is `position` bytes long.

        Raises:
            Conflict: its length is another, also when the bytes were appended and the answer to
                that got lost.
            BlobMissing: there is no such blob.
        """
        with _faults(f"{container}/{name}"):
            blob = self._container(container).get_blob_client(name)
            blob.append_block(data, length=len(data), appendpos_condition=position)

    def stage_block(self, container: str, name: str, block: str, data: bytes) -> None:
        """Upload a block of a block blob that `commit_blocks` will make; ids of one length."""
        with _faults(f"{container}/{name}"):
            self._container(container).get_blob_client(name).stage_block(block, data, len(data))

    def commit_blocks(
        self, container: str, name: str, blocks: Sequence[str], *, content_type: str
    ) -> None:
        """Make a blob of the staged blocks, in this order; other staged blocks are dropped."""
        from azure.storage.blob import BlobBlock, ContentSettings

        with _faults(f"{container}/{name}"):
            self._container(container).get_blob_client(name).commit_block_list(
                [BlobBlock(block) for block in blocks],
                content_settings=ContentSettings(content_type=content_type),
            )

    # --- tables

    def insert_entity(self, table: str, entity: Mapping[str, Any]) -> None:
        """Insert. Raises `Conflict` when the entity exists."""
        with _faults(table):
            self._table(table).create_entity(dict(entity))

    def entity(self, table: str, partition: str, row: str) -> dict[str, Any] | None:
        """The entity with its ETag under ``etag``; ``None`` when there is none."""
        try:
            with _faults(f"{table}/{row}"):
                found = self._table(table).get_entity(partition, row)
        except BlobMissing:
            return None
        return {**found, "etag": found.metadata["etag"]}

    def replace_entity(self, table: str, entity: Mapping[str, Any], *, etag: str) -> None:
        """Replace the entity when it still has this ETag; else raises `Conflict`."""
        from azure.core import MatchConditions
        from azure.data.tables import UpdateMode

        with _faults(table):
            self._table(table).update_entity(
                dict(entity),
                mode=UpdateMode.REPLACE,
                etag=etag,
                match_condition=MatchConditions.IfNotModified,
            )

    def merge_entity(self, table: str, entity: Mapping[str, Any]) -> None:
        """Set these properties of an entity and leave its others; make it where it is missing."""
        from azure.data.tables import UpdateMode

        with _faults(table):
            self._table(table).upsert_entity(dict(entity), mode=UpdateMode.MERGE)

    def entities(
        self, table: str, query: str, parameters: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Entities that match an OData filter with ``@name`` parameters."""
        with _faults(table):
            for found in self._table(table).query_entities(query, parameters=dict(parameters)):
                yield {**found, "etag": found.metadata["etag"]}

    # --- queues

    def enqueue(self, queue: str, text: str) -> None:
        """Put a message on a queue, Base64 as the Functions queue trigger reads it."""
        with _faults(queue):
            self._queue(queue).send_message(text)

    # --- clients

    def ping(self) -> None:
        """One cheap round trip. Raises `StorageUnavailable`."""
        with _faults("account"):
            self._blob_service().get_service_properties()

    def _client(self, kind: str, name: str, make: Any) -> Any:
        with self._lock:
            if (kind, name) not in self._clients:
                self._clients[kind, name] = make()
            return self._clients[kind, name]

    def _connection(self) -> str:
        text = self._settings.storage
        return _EMULATOR if text.rstrip(";") == "UseDevelopmentStorage=true" else text

    def _account(self, service: str) -> dict[str, Any]:
        return {
            "account_url" if service != "table" else "endpoint": (
                f"https://{self._settings.storage_account_url}.{service}.core.windows.net"
            ),
            "credential": _managed_identity(),
        }

    def _retry(self) -> dict[str, Any]:
        """Options of every client: the tries whose pauses (2, 4, 8 … s) fit into the setting."""
        seconds = self._settings.storage_timeout_s
        tries = max(0, int(math.log2(seconds + 2)) - 1)
        return {
            "retry_total": tries,
            "retry_connect": tries,
            "retry_read": tries,
            "retry_status": tries,
            "connection_timeout": seconds,
            "read_timeout": seconds,
        }

    def _retry_soon(self, exponential_retry: type[Any]) -> dict[str, Any]:
        """`_retry` for a client of blobs or queues, whose own policy waits up to 27 s between
        tries: a door that answers 503 soon lets its sender keep the data, and an activity is
        tried again by its retry policy.
        """
        options = self._retry()
        policy = exponential_retry(
            initial_backoff=0,
            increment_base=2,
            random_jitter_range=1,
            **{key: options.pop(key) for key in list(options) if key.startswith("retry_")},
        )
        return options | {"retry_policy": policy}

    def _blob_service(self) -> BlobServiceClient:
        from azure.storage.blob import BlobServiceClient, ExponentialRetry

        def make() -> BlobServiceClient:
            options = self._retry_soon(ExponentialRetry) | {"max_single_get_size": 64 << 20}
            if self._settings.storage_account_url:
                return BlobServiceClient(**self._account("blob"), **options)
            return BlobServiceClient.from_connection_string(self._connection(), **options)

        service: BlobServiceClient = self._client("blob", "", make)
        return service

    def _container(self, name: str) -> ContainerClient:
        def make() -> ContainerClient:
            from azure.core.exceptions import ResourceExistsError

            client = self._blob_service().get_container_client(name)
            with contextlib.suppress(ResourceExistsError):
                client.create_container()
            return client

        container: ContainerClient = self._client("container", name, make)
        return container

    def _table(self, name: str) -> TableClient:
        def make() -> TableClient:
            from azure.data.tables import TableServiceClient

            if self._settings.storage_account_url:
                service = TableServiceClient(**self._account("table"), **self._retry())
            else:
                service = TableServiceClient.from_connection_string(
                    self._connection(), **self._retry()
                )
            return service.create_table_if_not_exists(name)

        table: TableClient = self._client("table", name, make)
        return table

    def _queue(self, name: str) -> QueueClient:
        def make() -> QueueClient:
            from azure.core.exceptions import ResourceExistsError
            from azure.storage.queue import ExponentialRetry, QueueClient, TextBase64EncodePolicy

            options = self._retry_soon(ExponentialRetry) | {
                "message_encode_policy": TextBase64EncodePolicy()
            }
            if self._settings.storage_account_url:
                client = QueueClient(**self._account("queue"), queue_name=name, **options)
            else:
                client = QueueClient.from_connection_string(self._connection(), name, **options)
            with contextlib.suppress(ResourceExistsError):
                client.create_queue()
            return client

        queue: QueueClient = self._client("queue", name, make)
        return queue


@cache
def current() -> Storage:
    """The storage of this process, by its app settings."""
    return Storage(app_settings.current())


@cache
def _managed_identity() -> Any:
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


def _info(found: Any) -> BlobInfo:
    return BlobInfo(
        found.name, found.size, found.etag, found.last_modified, dict(found.metadata or {})
    )


@contextlib.contextmanager
def _faults(what: str) -> Iterator[None]:
    """Translate the SDK's errors to the three that callers act on."""
    from azure.core import exceptions as azure_errors

    try:
        yield
    except azure_errors.ResourceNotFoundError as error:
        raise BlobMissing(what) from error
    except (azure_errors.ResourceExistsError, azure_errors.ResourceModifiedError) as error:
        raise Conflict(what) from error
    except (azure_errors.ServiceRequestError, azure_errors.ServiceResponseError) as error:
        raise StorageUnavailable(f"storage does not answer: {type(error).__name__}") from error
    except azure_errors.HttpResponseError as error:
        if error.status_code == 412:
            raise Conflict(what) from error
        # Without a status the answer broke off while it was read.
        if error.status_code in (None, 408, 429) or error.status_code >= 500:
            raise StorageUnavailable(f"storage answers {error.status_code}") from error
        raise
