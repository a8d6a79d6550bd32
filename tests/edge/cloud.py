"""A small STOW-RS server over real HTTP that keeps what it gets, and can be told to misbehave."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from slicewatch import multipart
from slicewatch.dicom import Header, read_header


@dataclass(frozen=True)
class Stored:
    """One object as it came, with its header."""

    data: bytes
    header: Header


@dataclass(frozen=True)
class Fault:
    """An answer in place of the right one; `hang_s` before it; `status` 0 drops the connection.

    With `after_storing` the objects are kept, so only the answer is lost.
    """

    status: int = 0
    hang_s: float = 0.0
    after_storing: bool = False
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


type Faults = Callable[[int, list[Stored]], Fault | None]
"""The fault for a request, by its number from 1 and its objects."""


class Cloud:
    """Runs as a context manager; `url` is its base.

    Attributes:
        objects: what was stored, by SHA-256.
        offers: how often each of them was offered in a request that was read to its end.
        order: SHA-256 of the objects as they were stored first.
        closed: the instance lists (or `None`) that studies were closed with.
        statements: what was said to be screened at the edge, by study.
        headers: of the last request.
        refuses: gives a failure reason for an object, or `None`.
    """

    def __init__(self, port: int = 0) -> None:
        self.objects: dict[str, Stored] = {}
        self.offers: Counter[str] = Counter()
        self.order: list[str] = []
        self.sizes: list[int] = []
        self.closed: list[tuple[str, list[str] | None]] = []
        self.statements: dict[str, list[dict[str, Any]]] = {}
        self.headers: dict[str, str] = {}
        self.faults: Faults = lambda number, objects: None
        self.refuses: Callable[[Stored], int | None] = lambda stored: None
        self.requests = 0
        self.lock = threading.Lock()
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                cloud.headers = {name.lower(): value for name, value in self.headers.items()}
                if self.path.endswith("/close"):
                    cloud._close(self.path.split("/")[-2], body)
                    self.answer(202, b"{}", {})
                else:
                    cloud._store(self, body)

            def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A killed sender leaves half a request; nothing to tell."""

        self._handler = Handler
        self._server_class = Server
        self.port = port
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def __enter__(self) -> Cloud:
        self.up()
        return self

    def __exit__(self, *exc: object) -> None:
        self.down()

    def up(self) -> None:
        """Begin to listen, again on the same port after `down`."""
        self._server = self._server_class(("127.0.0.1", self.port), self._handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def down(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _close(self, study: str, body: bytes) -> None:
        with self.lock:
            told = json.loads(body) if body else {}
            self.statements[study] = told.get("screened_at_edge", [])
            self.closed.append((study, told.get("instances")))

    def _store(self, handler: Any, body: bytes) -> None:
        _, parameters = multipart.media_type(handler.headers["Content-Type"])
        parts = multipart.parts(body, parameters["boundary"], max_parts=10_000)
        stored = [Stored(bytes(part.data), read_header(bytes(part.data))) for part in parts]
        with self.lock:
            self.requests += 1
            number = self.requests
            self.sizes.append(len(stored))
        fault = self.faults(number, stored)
        if fault is None or fault.after_storing:
            answer = self._keep(stored)
        if fault is not None:
            time.sleep(fault.hang_s)
            if fault.status:
                handler.answer(fault.status, fault.body, fault.headers)
            else:
                handler.close_connection = True
            return
        done, failed = answer
        handler.answer(
            (202 if done else 409) if failed else 200,
            json.dumps(
                {
                    "00081199": {"vr": "SQ", "Value": done},
                    "00081198": {"vr": "SQ", "Value": failed},
                }
            ).encode(),
            {"Content-Type": "application/dicom+json"},
        )

    def _keep(self, stored: list[Stored]) -> tuple[list[Any], list[Any]]:
        done, failed = [], []
        with self.lock:
            for one in stored:
                item: dict[str, Any] = {
                    "00081155": {"vr": "UI", "Value": [one.header.sop_instance_uid]}
                }
                if (reason := self.refuses(one)) is not None:
                    item["00081197"] = {"vr": "US", "Value": [reason]}
                    failed.append(item)
                    continue
                sha256 = hashlib.sha256(one.data).hexdigest()
                self.offers[sha256] += 1
                if sha256 not in self.objects:
                    self.objects[sha256] = one
                    self.order.append(sha256)
                done.append(item)
        return done, failed
