"""Queue and blob triggers, outputs and inputs, on Azurite."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient, ContainerClient
from azure.storage.queue import QueueClient, QueueServiceClient

from tests.azurite import Azurite
from tests.local_host.running_host import RunningHost, running_host, wait_for


@pytest.fixture(scope="module")
def blobs(azurite: Azurite) -> Iterator[BlobServiceClient]:
    with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        yield service


@pytest.fixture(scope="module")
def queues(azurite: Azurite) -> Iterator[QueueServiceClient]:
    with QueueServiceClient.from_connection_string(azurite.connection_string) as service:
        yield service


def container(blobs: BlobServiceClient, name: str) -> ContainerClient:
    client = blobs.get_container_client(name)
    if not client.exists():
        client.create_container()
    return client


def records(host: RunningHost, **wanted: Any) -> list[dict[str, Any]]:
    """What the sample app's functions wrote down that has these values."""
    path = host.folder / "log"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    every = [json.loads(line) for line in lines]
    return [one for one in every if wanted.items() <= one.items()]


def messages(queue: QueueClient) -> list[str]:
    """The texts in the queue; none where nobody has made it yet."""
    try:
        received = list(queue.receive_messages(max_messages=32, visibility_timeout=1))
    except ResourceNotFoundError:
        return []
    return [base64.b64decode(one.content).decode() for one in received]


def test_messages_travel_from_output_to_trigger_to_blob(
    host: RunningHost, blobs: BlobServiceClient
) -> None:
    bodies = [json.dumps({"id": f"m{n}"}) for n in range(20)]
    assert host.http.post("/api/send", json=bodies).text == "sent"
    for number in range(20):
        body = {"id": f"m{number}"}
        wait_for(lambda body=body: len(records(host, queue=body, count=1)) == 1)  # type: ignore[misc]
    done = container(blobs, "done")
    wait_for(lambda: len(list(done.list_blob_names())) >= 20)
    name = next(name for name in done.list_blob_names() if name.startswith("m7-"))
    assert json.loads(done.download_blob(name).readall()) == {"id": "m7"}


def test_a_poison_message_is_tried_five_times_and_moved_aside(
    host: RunningHost, queues: QueueServiceClient
) -> None:
    body = {"id": "p1", "poison": True}
    host.http.post("/api/send", json=[json.dumps(body)])
    wait_for(lambda: len(records(host, queue=body)) == 5)
    host.wait_for_log("Moving message to queue 'work-poison'")
    assert [one["count"] for one in records(host, queue=body)] == [1, 2, 3, 4, 5]
    poison = queues.get_queue_client("work-poison")
    wait_for(lambda: json.dumps(body) in messages(poison))


def test_a_returned_value_goes_to_the_queue_of_its_binding(
    host: RunningHost, queues: QueueServiceClient
) -> None:
    chain = queues.get_queue_client("chain")
    chain.create_queue()
    chain.send_message("plain text, not base64")
    chained = queues.get_queue_client("chained")
    wait_for(lambda: messages(chained) == ["PLAIN TEXT, NOT BASE64"])


def test_a_new_blob_runs_its_function_once_with_the_blob_beside_it(
    host: RunningHost, blobs: BlobServiceClient
) -> None:
    container(blobs, "beside").upload_blob("one.txt", b"the other")
    dropbox = container(blobs, "dropbox")
    dropbox.upload_blob("a/one.txt", b"first version", metadata={"study": "x"})
    dropbox.upload_blob("a/one.bin", b"not for this function")
    wait_for(lambda: bool(records(host, blob="dropbox/a/one.txt")))
    record = records(host, blob="dropbox/a/one.txt")[0]
    assert record["start"] == "first version"
    assert record["beside"] == "the other"
    assert record["length"] == record["size"] == 13
    assert record["uri"].endswith("/dropbox/a/one.txt")
    assert record["metadata"] == {"study": "x"}
    dropbox.upload_blob("a/one.txt", b"second version", overwrite=True)
    wait_for(lambda: bool(records(host, start="second version")))
    assert len(records(host, blob="dropbox/a/one.txt")) == 2
    assert not records(host, blob="dropbox/a/one.bin")


def test_a_large_blob_arrives_whole(host: RunningHost, blobs: BlobServiceClient) -> None:
    container(blobs, "dropbox").upload_blob("a/large.txt", b"large" * (3 << 20))
    wait_for(lambda: bool(records(host, blob="dropbox/a/large.txt", size=15 << 20)), 30)
    assert records(host, blob="dropbox/a/large.txt")[0]["beside"] is None


def test_a_poison_blob_is_tried_five_times_and_named_in_a_queue(
    host: RunningHost, blobs: BlobServiceClient, queues: QueueServiceClient
) -> None:
    container(blobs, "dropbox").upload_blob("a/bad.txt", b"poison")
    wait_for(lambda: len(records(host, blob="dropbox/a/bad.txt")) == 5, 20)
    poison = queues.get_queue_client("webjobs-blobtrigger-poison")
    host.wait_for_log("Adding it to queue 'webjobs-blobtrigger-poison'")
    told: list[str] = []

    def heard() -> bool:
        told.extend(messages(poison))
        return bool(told)

    wait_for(heard)
    message = json.loads(told[0])
    assert message["FunctionId"] == "Host.Functions.on_blob"
    assert (message["ContainerName"], message["BlobName"]) == ("dropbox", "a/bad.txt")


def test_blobs_done_before_a_restart_are_not_done_again(
    azurite: Azurite, host: RunningHost, blobs: BlobServiceClient, tmp_path: Path
) -> None:
    dropbox = container(blobs, "dropbox")
    dropbox.upload_blob("restart/old.txt", b"old")
    wait_for(lambda: bool(records(host, blob="dropbox/restart/old.txt")))
    receipts = blobs.get_container_client("azure-webjobs-hosts")
    wait_for(lambda: any("restart/old.txt" in one for one in receipts.list_blob_names()))
    settings: dict[str, Any] = {
        "AzureWebJobsStorage": azurite.connection_string,
        "Second": azurite.connection_string,
        "WORK_QUEUE": "other-work",
    }
    with running_host(tmp_path, **settings) as second:
        dropbox.upload_blob("restart/new.txt", b"new")
        wait_for(lambda: bool(records(second, blob="dropbox/restart/new.txt")))
        assert not records(second, blob="dropbox/restart/old.txt")


def event(name: str, kind: str = "Microsoft.Storage.BlobCreated") -> dict[str, Any]:
    subject = f"/blobServices/default/containers/events/blobs/{name}"
    return {"id": "1", "eventType": kind, "subject": subject, "data": {}, "eventTime": "now"}


def test_an_event_grid_post_runs_the_function_and_a_scan_does_not(
    host: RunningHost, blobs: BlobServiceClient
) -> None:
    events = container(blobs, "events")
    events.upload_blob("silent.txt", b"no event tells of it")
    events.upload_blob("told here.txt", b"told")
    path = "/runtime/webhooks/blobs?functionName=Host.Functions.on_event"
    posted = [event("told here.txt"), event("silent.txt", "Microsoft.Storage.BlobDeleted")]
    assert host.http.post(path, json=posted).status_code == 202
    wait_for(lambda: bool(records(host, event="events/told here.txt", start="told")))
    cloud = {
        "type": "Microsoft.Storage.BlobCreated",
        "subject": "/blobServices/default/containers/events/blobs/told here.txt",
        "specversion": "1.0",
    }
    assert host.http.post(path, json=cloud).status_code == 202
    wait_for(lambda: len(records(host, event="events/told here.txt")) == 2)
    assert not records(host, event="events/silent.txt")


def test_the_event_grid_handshakes_are_answered(host: RunningHost) -> None:
    path = "/runtime/webhooks/blobs?functionName=Host.Functions.on_event"
    validation = {
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": {"validationCode": "the code"},
    }
    answer = host.http.post(path, json=[validation])
    assert answer.json() == {"validationResponse": "the code"}
    headers = {"WebHook-Request-Origin": "eventgrid.azure.net"}
    answer = host.http.options(path, headers=headers)
    assert answer.headers["webhook-allowed-origin"] == "eventgrid.azure.net"
    scanned = "/runtime/webhooks/blobs?functionName=Host.Functions.on_blob"
    assert host.http.post(scanned, json=[validation]).status_code == 404
    assert host.http.post(path, content=b"{").status_code == 400


def test_queue_and_blob_functions_run_by_hand(host: RunningHost, blobs: BlobServiceClient) -> None:
    body = {"id": "by-hand"}
    path = "/admin/functions/worker"
    assert host.http.post(path, json={"input": json.dumps(body)}).status_code == 202
    wait_for(lambda: bool(records(host, queue=body)))
    container(blobs, "events").upload_blob("by-hand.txt", b"hand")
    given = {"input": "events/by-hand.txt"}
    assert host.http.post("/admin/functions/on_event", json=given).status_code == 202
    wait_for(lambda: bool(records(host, event="events/by-hand.txt")))
    assert host.http.post("/admin/functions/fan_out", json={}).status_code == 400
