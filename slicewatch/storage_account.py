"""One storage account: which it is, how it is reached, and the SDK's clients of it.

The same clients serve Azure and Azurite.
"""

from __future__ import annotations

import contextlib
import math
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from slicewatch import settings as app_settings

if TYPE_CHECKING:
    from azure.core.pipeline.transport import RequestsTransport
    from azure.data.tables import TableClient
    from azure.storage.blob import BlobServiceClient, ContainerClient
    from azure.storage.queue import QueueClient

# The well-known account of the storage emulator: "UseDevelopmentStorage=true" stands for it, and
# the SDKs for Python do not expand it.
_EMULATOR = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
    "TableEndpoint=http://127.0.0.1:10002/devstoreaccount1;"
)


_CONNECTIONS = 64
"""As many as threads that may use the blob service at once; above it, connections are thrown away
after one request."""
_BLOCK_BYTES = 256 << 10
"""A body is read in pieces of this size; in the 4 KiB of the SDK, reading an image of 512 KiB takes
a third more processor time."""


class Account:
    """The clients of the account that the app settings name; safe under threads.

    Clients are made on first use and kept, so that building an `Account` costs no import and no
    connection. Raises `SettingError` when the settings name no account.
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

    def blobs(self) -> BlobServiceClient:
        """The account's blob service."""
        from azure.storage.blob import BlobServiceClient, ExponentialRetry

        def make() -> BlobServiceClient:
            options = self._retry_soon(ExponentialRetry) | {
                "max_single_get_size": 64 << 20,
                "transport": _transport(self._settings.storage_timeout_s),
            }
            if self._settings.storage_account_url:
                return BlobServiceClient(**self._identity("blob"), **options)
            return BlobServiceClient.from_connection_string(self._connection(), **options)

        service: BlobServiceClient = self._client("blob", "", make)
        return service

    def container(self, name: str) -> ContainerClient:
        """A container, made where it is missing."""

        def make() -> ContainerClient:
            from azure.core.exceptions import ResourceExistsError

            client = self.blobs().get_container_client(name)
            with contextlib.suppress(ResourceExistsError):
                client.create_container()
            return client

        container: ContainerClient = self._client("container", name, make)
        return container

    def table(self, name: str) -> TableClient:
        """A table, made where it is missing."""

        def make() -> TableClient:
            from azure.data.tables import TableServiceClient

            if self._settings.storage_account_url:
                service = TableServiceClient(**self._identity("table"), **self._retry())
            else:
                service = TableServiceClient.from_connection_string(
                    self._connection(), **self._retry()
                )
            return service.create_table_if_not_exists(name)

        table: TableClient = self._client("table", name, make)
        return table

    def queue(self, name: str) -> QueueClient:
        """A queue, made where it is missing; its messages are Base64, as the trigger reads them."""

        def make() -> QueueClient:
            from azure.core.exceptions import ResourceExistsError
            from azure.storage.queue import ExponentialRetry, QueueClient, TextBase64EncodePolicy

            options = self._retry_soon(ExponentialRetry) | {
                "message_encode_policy": TextBase64EncodePolicy()
            }
            if self._settings.storage_account_url:
                client = QueueClient(**self._identity("queue"), queue_name=name, **options)
            else:
                client = QueueClient.from_connection_string(self._connection(), name, **options)
            with contextlib.suppress(ResourceExistsError):
                client.create_queue()
            return client

        queue: QueueClient = self._client("queue", name, make)
        return queue

    def _client(self, kind: str, name: str, make: Any) -> Any:
        with self._lock:
            if (kind, name) not in self._clients:
                self._clients[kind, name] = make()
            return self._clients[kind, name]

    def _connection(self) -> str:
        text = self._settings.storage
        return _EMULATOR if text.rstrip(";") == "UseDevelopmentStorage=true" else text

    def _identity(self, service: str) -> dict[str, Any]:
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


def _transport(seconds: float) -> RequestsTransport:
    """The SDK's own transport, whose pool keeps 10 connections, with more of them.

    A client hands its timeouts to a transport that it makes itself, and to no other.
    """
    from azure.core.pipeline.transport import RequestsTransport

    transport = RequestsTransport(
        connection_timeout=seconds,
        read_timeout=seconds,
        connection_data_block_size=_BLOCK_BYTES,
    )
    transport.open()
    for scheme in ("http://", "https://"):
        adapter = transport.session.get_adapter(scheme)
        adapter.init_poolmanager(connections=_CONNECTIONS, maxsize=_CONNECTIONS)
    return transport


@cache
def _managed_identity() -> Any:
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()
