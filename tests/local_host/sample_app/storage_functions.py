"""Queue and blob functions."""

import json
import os
from pathlib import Path

import azure.functions as func

storage_functions = func.Blueprint()  # type: ignore[no-untyped-call]


def _record(**content: object) -> None:
    with Path(os.environ["SAMPLE_LOG"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(content) + "\n")


@storage_functions.route(route="send", methods=["POST"])
@storage_functions.queue_output(arg_name="messages", queue_name="work", connection="")
def send(req: func.HttpRequest, messages: func.Out[list[str]]) -> func.HttpResponse:
    messages.set(req.get_json())
    return func.HttpResponse("sent")


@storage_functions.queue_trigger(arg_name="message", queue_name="%WORK_QUEUE%", connection="")
@storage_functions.blob_output(arg_name="copy", path="done/{id}-{rand-guid}.json", connection="")
def worker(message: func.QueueMessage, copy: func.Out[str]) -> None:
    body = message.get_json()
    _record(queue=body, count=message.dequeue_count, id=message.id)
    if body.get("poison"):
        raise ValueError("poison")
    copy.set(json.dumps(body))


@storage_functions.queue_trigger(arg_name="message", queue_name="chain", connection="Second")
@storage_functions.queue_output(arg_name="$return", queue_name="chained", connection="Second")
def chain(message: func.QueueMessage) -> str:
    return message.get_body().decode().upper()


@storage_functions.blob_trigger(arg_name="blob", path="dropbox/{folder}/{name}.txt", connection="")
@storage_functions.blob_input(arg_name="beside", path="beside/{name}.txt", connection="")
def on_blob(blob: func.InputStream, beside: func.InputStream) -> None:
    content = blob.read()
    _record(
        blob=blob.name,
        uri=blob.uri,
        length=blob.length,
        size=len(content),
        start=content[:20].decode(),
        beside=None if beside is None else beside.read().decode(),
        metadata=blob.metadata,  # type: ignore[attr-defined]  # the base class lacks it
    )
    if content.startswith(b"poison"):
        raise ValueError("poison")


@storage_functions.blob_trigger(
    arg_name="blob", path="events/{name}", connection="", source=func.BlobSource.EVENT_GRID
)
def on_event(blob: func.InputStream) -> None:
    _record(event=blob.name, start=blob.read()[:20].decode())
