"""What the host and its worker processes say to each other, and how it is framed.

A frame is eight bytes of length and a pickle. Both ends are the same program on the same
machine, joined by a socket pair that nothing else can reach, so pickle is safe here.
"""

import asyncio
import os
import pickle
import struct
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_host.functions import Function

_LENGTH = struct.Struct(">Q")
SPOOL_THRESHOLD = 1 << 20


@dataclass(frozen=True)
class Payload:
    """Bytes that travel in the frame, or beside it in a spool file when they are many."""

    data: bytes = b""
    path: str | None = None

    def read(self) -> bytes:
        """All the bytes."""
        if self.path is None:
            return self.data
        return Path(self.path).read_bytes()

    def discard(self) -> None:
        """Remove the spool file, if there is one; harmless to repeat."""
        if self.path is not None:
            Path(self.path).unlink(missing_ok=True)


def payload_of(data: bytes, spool_dir: str) -> Payload:
    """Wrap ``data``, through a spool file in ``spool_dir`` when it is large."""
    if len(data) <= SPOOL_THRESHOLD:
        return Payload(data)
    descriptor, path = tempfile.mkstemp(dir=spool_dir)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return Payload(path=path)


def discard_payloads(values: Iterable["Value | None"]) -> None:
    """Remove the spool files of values that nobody will read any more."""
    for value in values:
        content = value.value if value is not None else None
        payload = content.body if isinstance(content, HttpReply) else content
        if isinstance(payload, Payload):
            payload.discard()


@dataclass(frozen=True)
class HttpCall:
    """An HTTP request on its way to a function."""

    method: str
    url: str
    headers: dict[str, str]
    params: dict[str, str]
    route_params: dict[str, str]
    body: Payload


@dataclass(frozen=True)
class HttpReply:
    """A function's HTTP response."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: Payload


@dataclass(frozen=True)
class Value:
    """A value of a binding: ``type`` is azure-functions' datum type (string, bytes, json, …)."""

    type: str
    value: Any


@dataclass(frozen=True)
class RetryState:
    """Where a function with a retry policy stands; ``count`` is 0 for the first run."""

    count: int
    maximum: int
    error: "Failure | None" = None


@dataclass(frozen=True)
class Invocation:
    """One call of a function. ``metadata`` is the trigger's, as the Functions host gives it."""

    id: str
    function: str
    trigger: Value
    metadata: Mapping[str, Value] = field(default_factory=dict)
    inputs: Mapping[str, Value | None] = field(default_factory=dict)
    retry: RetryState | None = None
    trace_parent: str = ""


@dataclass(frozen=True)
class Failure:
    """An exception of the app: class name, text, and stack from the app's first frame."""

    type: str
    message: str
    stack: str


@dataclass(frozen=True)
class Outcome:
    """What came of an invocation. ``outputs`` holds ``$return`` too."""

    id: str
    outputs: Mapping[str, Value] = field(default_factory=dict)
    failure: Failure | None = None


@dataclass(frozen=True)
class Hello:
    """What a worker process needs before it loads the app."""

    app_dir: str
    script_file: str
    log_level: str
    thread_count: int | None
    durable_client: str
    spool_dir: str
    import_path_to_drop: str | None


@dataclass(frozen=True)
class Ready:
    """The app is loaded; these are its functions."""

    functions: tuple[Function, ...]


@dataclass(frozen=True)
class LoadFailure:
    """The app cannot be loaded."""

    message: str
    stack: str


def encode(message: object) -> bytes:
    """One frame."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


async def read_message(reader: asyncio.StreamReader) -> Any:
    """The next frame's message; raises asyncio.IncompleteReadError when the peer is gone."""
    header = await reader.readexactly(_LENGTH.size)
    (length,) = _LENGTH.unpack(header)
    return pickle.loads(await reader.readexactly(length))
