"""Storage accounts: which setting names one, clients for it, and whether it answers."""

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.storage.blob import BlobClient, BlobServiceClient
from azure.storage.queue import QueueServiceClient

from local_host.channel import SPOOL_THRESHOLD, Payload
from local_host.errors import HostError
from local_host.functions import BLOB, Function
from local_host.settings import HostSettings

_LOGGER = logging.getLogger("local_host.storage")
DEFAULT_CONNECTION = "AzureWebJobsStorage"
# The account and key that Microsoft publishes for its storage emulator.
_EMULATOR = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/"
    "K1SZFPTOtr/KBHBeksoGMGw==;"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
    "TableEndpoint=http://127.0.0.1:10002/devstoreaccount1;"
)
_CHECK_ATTEMPTS = 3
_CHECK_PAUSE_S = 0.5
_TIMEOUTS: dict[str, Any] = {"connection_timeout": 5, "read_timeout": 60}


def connection_value(name: str, settings: Mapping[str, str]) -> str | None:
    """The connection string that a binding's ``connection`` names, or None.

    As in Functions the setting may be called ``name`` or ``AzureWebJobs`` + ``name``.
    """
    for setting in (name, f"AzureWebJobs{name}", f"ConnectionStrings:{name}"):
        value = settings.get(setting)
        if value:
            development = value.strip().rstrip(";").lower() == "usedevelopmentstorage=true"
            return _EMULATOR if development else value
    return None


def _identity_endpoint(name: str, service: str, settings: Mapping[str, str]) -> str | None:
    """The endpoint of an identity-based connection: ``NAME__blobServiceUri`` and the like."""
    for prefix in (name, f"AzureWebJobs{name}"):
        uri = settings.get(f"{prefix}__{service}ServiceUri")
        if uri:
            return uri
        account = settings.get(f"{prefix}__accountName")
        if account:
            return f"https://{account}.{service}.core.windows.net"
    return None


def _is_code(error: HttpResponseError, code: str) -> bool:
    """Whether the storage service gave this error code; the storage packages add it."""
    return getattr(error, "error_code", None) == code


def _ask(service: BlobServiceClient | QueueServiceClient) -> None:
    """A sign of life, with a little patience for an emulator that is just starting."""
    for attempt in range(1, _CHECK_ATTEMPTS + 1):
        try:
            service.get_service_properties(retry_total=0)
        except (ServiceRequestError, ServiceResponseError):
            if attempt == _CHECK_ATTEMPTS:
                raise
            time.sleep(_CHECK_PAUSE_S)
        else:
            return


class StorageAccounts:
    """Clients for the accounts that the app's bindings name; made on first use, then kept."""

    def __init__(self, settings: HostSettings, spool_dir: str) -> None:
        self._settings = settings.app_settings
        self._spool_dir = spool_dir
        self._blob: dict[str, BlobServiceClient] = {}
        self._queue: dict[str, QueueServiceClient] = {}
        digest = hashlib.sha256(str(settings.app_dir).encode()).hexdigest()[:16]
        self.host_id = f"{settings.app_dir.name.lower()[:15]}-{digest}"

    def blob(self, connection: str) -> BlobServiceClient:
        """The blob service; raises HostError where no setting names the account."""
        name = connection or DEFAULT_CONNECTION
        if name not in self._blob:
            self._blob[name] = self._client(BlobServiceClient, name, "blob")
        return self._blob[name]

    def queue(self, connection: str) -> QueueServiceClient:
        """The queue service; raises HostError where no setting names the account."""
        name = connection or DEFAULT_CONNECTION
        if name not in self._queue:
            self._queue[name] = self._client(QueueServiceClient, name, "queue")
        return self._queue[name]

    def _client(self, kind: Any, name: str, service: str) -> Any:
        value = connection_value(name, self._settings)
        endpoint = _identity_endpoint(name, service, self._settings)
        if value is not None:
            try:
                return kind.from_connection_string(value, **_TIMEOUTS)
            except ValueError:
                raise HostError(f"the setting {name} is not a storage connection string") from None
        if endpoint is not None:
            from azure.identity import DefaultAzureCredential

            return kind(endpoint, credential=DefaultAzureCredential(), **_TIMEOUTS)
        raise HostError(
            f"there is no setting {name}, which names a storage account for the app's bindings; "
            f'add it to local.settings.json ("UseDevelopmentStorage=true" for Azurite)'
        )

    def check(self, functions: Iterable[Function]) -> None:
        """Ask each account that a trigger listens to for a sign of life.

        Raises:
            HostError: One does not answer, or refuses its credential.
        """
        asked: set[tuple[str, bool]] = set()
        for function in functions:
            name = function.trigger.text("connection") or DEFAULT_CONNECTION
            is_blob = function.trigger.type == BLOB
            if (name, is_blob) in asked:
                continue
            asked.add((name, is_blob))
            service = self.blob(name) if is_blob else self.queue(name)
            try:
                _ask(service)
            except ClientAuthenticationError:
                raise HostError(
                    f"the storage account of the setting {name} refuses its credential; "
                    f"function {function.name} listens there"
                ) from None
            except (ServiceRequestError, ServiceResponseError):
                where = urlsplit(str(service.url))
                raise HostError(
                    f"the storage account of the setting {name} does not answer at "
                    f"{where.scheme}://{where.netloc}; function {function.name} listens there. "
                    "Start it (for Azurite: npx azurite --skipApiVersionCheck) or correct the "
                    "setting"
                ) from None
            except HttpResponseError as error:
                # A token for one container may not ask for the service's properties.
                _LOGGER.debug("The account of %s was not checked: %s", name, error.reason)

    def download(self, client: BlobClient) -> tuple[Payload, Any]:
        """The blob's bytes, spooled when they are many, and its properties."""
        stream = client.download_blob(max_concurrency=1)
        if stream.size <= SPOOL_THRESHOLD:
            return Payload(stream.readall()), stream.properties
        descriptor, path = tempfile.mkstemp(dir=self._spool_dir)
        payload = Payload(path=path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                stream.readinto(file)
        except BaseException:
            payload.discard()
            raise
        return payload, stream.properties

    def upload(self, connection: str, path: str, payload: Payload) -> None:
        """Write a block blob to ``container/name``; the container is made where it lacks."""
        container_name, _, name = path.partition("/")
        container = self.blob(connection).get_container_client(container_name)
        for attempt in (1, 2):
            try:
                if payload.path is None:
                    container.upload_blob(name, payload.data, overwrite=True)
                else:
                    with Path(payload.path).open("rb") as file:
                        container.upload_blob(name, file, overwrite=True)
                return
            except HttpResponseError as error:
                if attempt == 2 or not _is_code(error, "ContainerNotFound"):
                    raise
                self.ensure(container.create_container)

    def send(self, connection: str, queue_name: str, messages: Iterable[str]) -> None:
        """Send messages; the queue is made where it lacks."""
        queue = self.queue(connection).get_queue_client(queue_name)
        for message in messages:
            try:
                queue.send_message(message)
            except HttpResponseError as error:
                if not _is_code(error, "QueueNotFound"):
                    raise
                self.ensure(queue.create_queue)
                queue.send_message(message)

    @staticmethod
    def ensure(create: Any) -> None:
        """Create a container or a queue that another may be creating too."""
        try:
            create()
        except ResourceExistsError:
            return


STORAGE_ERRORS = (AzureError, OSError)
