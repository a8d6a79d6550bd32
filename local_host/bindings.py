"""Blob input bindings, and blob and queue output bindings."""

import asyncio
import base64
import json
from collections.abc import Mapping

from azure.core.exceptions import ResourceNotFoundError

from local_host.channel import Payload, Value
from local_host.expressions import resolve_expressions, resolve_settings
from local_host.functions import Binding, Function
from local_host.settings import HostSettings
from local_host.storage import StorageAccounts


class StorageBindings:
    """Reads and writes the bindings beside the trigger."""

    def __init__(self, accounts: StorageAccounts, settings: HostSettings) -> None:
        self._accounts = accounts
        self._settings = settings

    async def read(self, function: Function, data: Mapping[str, object]) -> dict[str, Value | None]:
        """The blobs that the function's input bindings name; None for one that is not there."""
        values: dict[str, Value | None] = {}
        for binding in function.inputs:
            if binding.type == "blob":
                path = self._resolve(function, binding, "path", data)
                values[binding.name] = await asyncio.to_thread(
                    self._download, binding.text("connection"), path
                )
        return values

    async def write(
        self, function: Function, outputs: Mapping[str, Value], data: Mapping[str, object]
    ) -> None:
        """Write what the function set or returned."""
        for binding in function.outputs:
            value = outputs.get(binding.name)
            if value is None or binding.type not in ("blob", "queue"):
                continue
            payload: Payload = value.value
            connection = binding.text("connection")
            try:
                if binding.type == "blob":
                    path = self._resolve(function, binding, "path", data)
                    await asyncio.to_thread(self._accounts.upload, connection, path, payload)
                else:
                    queue = self._resolve(function, binding, "queueName", data)
                    messages = self._messages(value.type, payload)
                    await asyncio.to_thread(self._accounts.send, connection, queue, messages)
            finally:
                payload.discard()

    def _resolve(
        self, function: Function, binding: Binding, key: str, data: Mapping[str, object]
    ) -> str:
        where = f"the {binding.type} binding of function {function.name}"
        text = resolve_settings(binding.text(key), self._settings.app_settings, where)
        return resolve_expressions(text, data)

    def _download(self, connection: str, path: str) -> Value | None:
        container, _, name = path.partition("/")
        client = self._accounts.blob(connection).get_blob_client(container, name)
        try:
            payload, _ = self._accounts.download(client)
        except ResourceNotFoundError:
            return None
        return Value("bytes", payload)

    def _messages(self, kind: str, payload: Payload) -> list[str]:
        """The texts of queue messages: a JSON list is a message an item."""
        data = payload.read()
        bodies = [data]
        if kind == "json":
            content = json.loads(data)
            items = content if isinstance(content, list) else [content]
            bodies = [_message_body(item) for item in items]
        return [self.encode(body) for body in bodies]

    def encode(self, body: bytes) -> str:
        """A message's text, as host.json's ``messageEncoding`` says."""
        if self._settings.queues.base64:
            return base64.b64encode(body).decode("ascii")
        return body.decode("utf-8")


def _message_body(item: object) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, dict) and item.keys() == {"id", "body"}:
        return str(item["body"]).encode()
    return json.dumps(item).encode()
