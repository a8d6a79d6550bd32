"""Storage: what a caller can act on has an error of its own."""

from __future__ import annotations

import base64
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from slicewatch import settings as app_settings
from slicewatch.storage import BlobMissing, Conflict, Storage, StorageUnavailable

CONTAINER = "storagetests"


def test_bytes_and_metadata_come_back(storage: Storage, seed: int) -> None:
    storage.write(CONTAINER, f"{seed}/a", b"bytes", metadata={"sha256": "abc"})
    assert storage.read(CONTAINER, f"{seed}/a") == b"bytes"
    found = storage.info(CONTAINER, f"{seed}/a")
    assert found is not None
    assert (found.size, found.metadata) == (5, {"sha256": "abc"})
    assert [one.name for one in storage.listing(CONTAINER, f"{seed}/")] == [f"{seed}/a"]


def test_a_listing_tells_what_the_blobs_themselves_tell(storage: Storage, seed: int) -> None:
    names = sorted(f"{seed}/{name}" for name in ("a<&>b", "ä ö", "100%25.dcm"))
    for name in names:
        storage.write(CONTAINER, name, name.encode(), metadata={"sha256": "abc", "note": "1;;<2>"})
    listed = list(storage.listing(CONTAINER, f"{seed}/"))
    assert [one.name for one in listed] == names
    for one in listed:
        found = storage.info(CONTAINER, one.name)
        assert found is not None
        assert (one.size, one.metadata) == (found.size, found.metadata)
        assert one.last_modified == found.last_modified
        assert one.etag.strip('"') == found.etag.strip('"')


def test_a_missing_blob_is_missing_not_broken(storage: Storage, seed: int) -> None:
    with pytest.raises(BlobMissing):
        storage.read(CONTAINER, f"{seed}/none")
    assert storage.info(CONTAINER, f"{seed}/none") is None
    storage.delete(CONTAINER, f"{seed}/none")


def test_a_blob_that_is_there_is_not_overwritten_by_a_conditional_write(
    storage: Storage, seed: int
) -> None:
    storage.write(CONTAINER, f"{seed}/a", b"first", if_absent=True)
    with pytest.raises(Conflict):
        storage.write(CONTAINER, f"{seed}/a", b"second", if_absent=True)
    assert storage.read(CONTAINER, f"{seed}/a") == b"first"


def test_a_blob_that_changed_is_not_deleted(storage: Storage, seed: int) -> None:
    storage.write(CONTAINER, f"{seed}/a", b"first")
    found = storage.info(CONTAINER, f"{seed}/a")
    assert found is not None
    storage.write(CONTAINER, f"{seed}/a", b"second")
    with pytest.raises(Conflict):
        storage.delete(CONTAINER, f"{seed}/a", etag=found.etag)
    assert storage.read(CONTAINER, f"{seed}/a") == b"second"


def test_an_entity_is_replaced_only_as_it_was_read(storage: Storage, seed: int) -> None:
    entity = {"PartitionKey": "p", "RowKey": str(seed), "value": 1}
    storage.insert_entity("storagetests", entity)
    with pytest.raises(Conflict):
        storage.insert_entity("storagetests", entity)
    found = storage.entity("storagetests", "p", str(seed))
    assert found is not None
    storage.replace_entity("storagetests", {**entity, "value": 2}, etag=found["etag"])
    with pytest.raises(Conflict):
        storage.replace_entity("storagetests", {**entity, "value": 3}, etag=found["etag"])


def test_many_threads_keep_their_connections(
    storage: Storage, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    storage.write(CONTAINER, f"{seed}/a", b"bytes")
    with ThreadPoolExecutor(32) as pool:
        read = list(pool.map(lambda _: storage.read(CONTAINER, f"{seed}/a"), range(200)))
    assert read == [b"bytes"] * 200
    assert "Connection pool is full" not in caplog.text


def test_an_account_that_does_not_answer_is_said_so_soon() -> None:
    key = base64.b64encode(b"key").decode()
    nobody = f"AccountName=none;AccountKey={key};BlobEndpoint=http://127.0.0.1:9/none;"
    storage = Storage(app_settings.load({"AzureWebJobsStorage": nobody}))
    before = time.monotonic()
    with pytest.raises(StorageUnavailable, match="storage does not answer"):
        storage.read(CONTAINER, "a")
    assert time.monotonic() - before < 60


def test_without_an_account_the_remedy_is_named() -> None:
    with pytest.raises(app_settings.SettingError, match="set AzureWebJobsStorage"):
        Storage(app_settings.load({}))
