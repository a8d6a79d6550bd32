"""What stands around the agent in its benchmark: a cloud that only counts, and a sender."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from slicewatch import multipart
from slicewatch.dicom import read_header

_ROOT = Path(__file__).resolve().parent.parent
NO_DELAY = {"TCP_NODELAY": "1"}
"""DCMTK leaves Nagle's algorithm on unless told: it waits for acknowledgements in mid-object."""


class Sink:
    """A STOW-RS server that keeps the SOP instance UIDs and sizes of what it gets."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.closed = 0
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer: dict[str, Any] = {}
                if self.path.endswith("/close"):
                    sink.closed += 1
                else:
                    answer = sink.store(body, self.headers["Content-Type"])
                content = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Silent: it would be measured too."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/api"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def store(self, body: bytes, content_type: str) -> dict[str, Any]:
        boundary = multipart.media_type(content_type)[1]["boundary"]
        items = []
        for part in multipart.parts(body, boundary, max_parts=10_000):
            uid = read_header(part.data).sop_instance_uid
            self.sizes[uid] = len(part.data)
            items.append({"00081155": {"vr": "UI", "Value": [uid]}})
        return {"00081199": {"vr": "SQ", "Value": items}}

    def clear(self) -> None:
        self.sizes.clear()
        self.closed = 0

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def agent(folder: Path, url: str, tables: str = "") -> Iterator[tuple[int, int]]:
    """The agent as a process; its DICOM port and its process id."""
    port, status_port = free_port(), free_port()
    config = folder / "edge.toml"
    config.write_text(
        f'[receive]\naddress = "127.0.0.1"\nport = {port}\n'
        '[[receive.peer]]\nae_title = "*"\naddresses = ["127.0.0.1"]\n'
        '[spool]\nfolder = "spool"\nmin_free_mib = 100\n'
        f'[cloud]\nurl = "{url}"\n[study]\nquiet_s = 1.0\n'
        f"[status]\nport = {status_port}\n{tables}"
    )
    command = [sys.executable, "-m", "edge", "run", "--log-level", "ERROR", "--config", str(config)]
    process = subprocess.Popen(command, cwd=_ROOT)
    try:
        wait(lambda: _answers(status_port), "the agent serves")
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def storescu(files: Path, port: int, environment: dict[str, str]) -> float:
    """Send the files of a folder; the seconds that it took."""
    command = ["storescu", "+sd", "+r", "-aec", "SLICEWATCH", "127.0.0.1", str(port), str(files)]
    begin = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    if done.returncode:
        raise SystemExit(f"storescu failed: {done.stderr[-500:]}")
    return time.perf_counter() - begin


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False


def listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def wait(what: Callable[[], bool], told: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds:.0f} s: {told}")
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
