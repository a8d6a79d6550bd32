"""The one module that talks to blob, table and queue storage.

The same path serves Azure and Azurite. Every function that reaches the account raises
`StorageUnavailable` when the account does not answer, after the SDK's own retries, so that a
door can say 503 and an activity's retry policy can try again; what a caller can act on has its
own error (`BlobMissing`, `Conflict`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from slicewatch import settings as app_settings
from slicewatch.storage_account import Account

INCOMING = "incoming"
REVIEWS = "reviews"
QUARANTINE = "quarantine"
DROPBOX = "dropbox"
CUSTODY = "custody"
CHECKPOINTS = "custody-checkpoints"
WORKLIST = "worklist"


class StorageUnavailable(Exception):
    """The storage account does not answer, or is throttling; worth another try later."""


class BlobMissing(KeyError):
    """No such blob or entity; the argument is ``container/name``, or the table."""


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

    Containers, tables and queues are made on first use. Building a `Storage` costs no import and no
    connection; it raises `SettingError` when the settings name no account.
    """

    def __init__(self, settings: app_settings.Settings) -> None:
        self._account = Account(settings)

    # --- blobs

    def read(self, container: str, name: str) -> bytes:
        """The blob's bytes. Raises `BlobMissing`, `StorageUnavailable`."""
        with _faults(f"{container}/{name}"):
            return self._account.container(container).download_blob(name).readall()

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
            self._account.container(container).upload_blob(
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
                found = (
                    self._account.container(container).get_blob_client(name).get_blob_properties()
                )
        except BlobMissing:
            return None
        return _info(found)

    def listing(self, container: str, prefix: str = "") -> Iterator[BlobInfo]:
        """The blobs whose names start with `prefix`, in the order of their names."""
        answer = b""

        def keep(response: Any) -> None:
            nonlocal answer
            answer = response.http_response.body()

        with _faults(f"{container}/{prefix}"):
            # The SDK takes 0.2 ms to make its model of a blob, and a study has thousands: the
            # listing of names spares that, and the answer it is made of tells the rest.
            pages = self._account.container(container).list_blob_names(
                name_starts_with=prefix or None, include=["metadata"], raw_response_hook=keep
            )
            for _ in pages.by_page():
                yield from _listed(answer)

    def delete(self, container: str, name: str, *, etag: str | None = None) -> None:
        """Delete a blob; a missing one is fine. Raises `Conflict` when its ETag is another."""
        from azure.core import MatchConditions

        condition: dict[str, Any] = {}
        if etag:
            condition = {"etag": etag, "match_condition": MatchConditions.IfNotModified}
        with contextlib.suppress(BlobMissing), _faults(f"{container}/{name}"):
            self._account.container(container).delete_blob(name, **condition)

    # --- blobs in pieces

    def chunks(self, container: str, name: str) -> Iterator[bytes]:
        """The blob's bytes, some MiB at a time. Raises `BlobMissing`, `StorageUnavailable`."""
        with _faults(f"{container}/{name}"):
            # One without a length is fetched whole when it is small, and in pieces when not.
            yield from self._account.container(container).download_blob(name).chunks()

    def read_from(self, container: str, name: str, offset: int, length: int | None = None) -> bytes:
        """The bytes from an offset on, at most `length`; none when the blob ends before it.

        Raises `BlobMissing`, `StorageUnavailable`.
        """
        from azure.core.exceptions import HttpResponseError

        try:
            with _faults(f"{container}/{name}"):
                return (
                    self._account.container(container)
                    .download_blob(name, offset=offset, length=length)
                    .readall()
                )
        except HttpResponseError as error:
            if error.status_code != 416:  # Range Not Satisfiable
                raise
            return b""

    def create_append_blob(self, container: str, name: str) -> None:
        """Make an empty append blob. Raises `Conflict` when the blob exists."""
        from azure.core import MatchConditions

        with _faults(f"{container}/{name}"):
            blob = self._account.container(container).get_blob_client(name)
            blob.create_append_blob(match_condition=MatchConditions.IfMissing)

    def append(self, container: str, name: str, data: bytes, *, position: int) -> None:
        """Append the bytes, all or none, if the append blob is `position` bytes long.

        Raises:
            Conflict: its length is another, also when the bytes were appended and the answer to
                that got lost.
            BlobMissing: there is no such blob.
        """
        with _faults(f"{container}/{name}"):
            blob = self._account.container(container).get_blob_client(name)
            blob.append_block(data, length=len(data), appendpos_condition=position)

    def stage_block(self, container: str, name: str, block: str, data: bytes) -> None:
        """Upload a block of a block blob that `commit_blocks` will make; ids of one length."""
        with _faults(f"{container}/{name}"):
            self._account.container(container).get_blob_client(name).stage_block(
                block, data, len(data)
            )

    def commit_blocks(
        self, container: str, name: str, blocks: Sequence[str], *, content_type: str
    ) -> None:
        """Make a blob of the staged blocks, in this order; other staged blocks are dropped."""
        from azure.storage.blob import BlobBlock, ContentSettings

        with _faults(f"{container}/{name}"):
            self._account.container(container).get_blob_client(name).commit_block_list(
                [BlobBlock(block) for block in blocks],
                content_settings=ContentSettings(content_type=content_type),
            )

    # --- tables

    def insert_entity(self, table: str, entity: Mapping[str, Any]) -> None:
        """Insert. Raises `Conflict` when the entity exists."""
        with _faults(table):
            self._account.table(table).create_entity(dict(entity))

    def entity(self, table: str, partition: str, row: str) -> dict[str, Any] | None:
        """The entity with its ETag under ``etag``; ``None`` when there is none."""
        try:
            with _faults(f"{table}/{row}"):
                found = self._account.table(table).get_entity(partition, row)
        except BlobMissing:
            return None
        return {**found, "etag": found.metadata["etag"]}

    def replace_entity(self, table: str, entity: Mapping[str, Any], *, etag: str) -> None:
        """Replace the entity when it still has this ETag; else raises `Conflict`."""
        from azure.core import MatchConditions
        from azure.data.tables import UpdateMode

        with _faults(table):
            self._account.table(table).update_entity(
                dict(entity),
                mode=UpdateMode.REPLACE,
                etag=etag,
                match_condition=MatchConditions.IfNotModified,
            )

    def merge_entity(self, table: str, entity: Mapping[str, Any]) -> None:
        """Set these properties of an entity and leave its others. Raises `BlobMissing` when there
        is no such entity.
        """
        from azure.data.tables import UpdateMode

        with _faults(table):
            self._account.table(table).update_entity(dict(entity), mode=UpdateMode.MERGE)

    def entities(
        self,
        table: str,
        query: str,
        parameters: Mapping[str, Any],
        select: Sequence[str] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Entities that match an OData filter with ``@name`` parameters, each with its ETag under
        ``etag`` and, where it was given, the service's time of its last change under ``timestamp``.

        Args:
            select: the properties that are given; all without it.
        """
        with _faults(table):
            for found in self._account.table(table).query_entities(
                query, parameters=dict(parameters), select=list(select) if select else None
            ):
                told = found.metadata
                yield {**found, "etag": told["etag"], "timestamp": told["timestamp"]}

    # --- queues

    def enqueue(self, queue: str, text: str) -> None:
        """Put a message on a queue, Base64 as the Functions queue trigger reads it."""
        with _faults(queue):
            self._account.queue(queue).send_message(text)

    # --- the account

    def ping(self) -> None:
        """One cheap round trip. Raises `StorageUnavailable`."""
        with _faults("account"):
            self._account.blobs().get_service_properties()


@cache
def current() -> Storage:
    """The storage of this process, by its app settings."""
    return Storage(app_settings.current())


def _listed(answer: bytes) -> Iterator[BlobInfo]:
    """The blobs of an answer to List Blobs (EnumerationResults/Blobs/Blob)."""
    for blob in ElementTree.fromstring(answer).iterfind("Blobs/Blob"):
        name, properties = blob.find("Name"), blob.find("Properties")
        assert name is not None
        assert properties is not None
        text = name.text or ""
        yield BlobInfo(
            # A name with characters that XML cannot have is told percent-encoded.
            name=unquote(text) if name.get("Encoded") == "true" else text,
            size=int(properties.findtext("Content-Length", "0")),
            etag=properties.findtext("Etag", ""),
            last_modified=parsedate_to_datetime(properties.findtext("Last-Modified", "")),
            metadata={one.tag: one.text or "" for one in blob.iterfind("Metadata/*")},
        )


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
