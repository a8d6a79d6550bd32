"""What monitoring asks over HTTP: ``/metrics`` (Prometheus), ``/health``, ``/status`` (JSON)."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from edge.config import Status
from edge.snapshot import Snapshot

_log = logging.getLogger(__name__)
_REQUEST_S = 10.0


class StatusServer:
    """Serves from `start` to `stop`; `port` says where, also when 0 was asked for.

    Args:
        fault: what is wrong with the agent; empty when nothing is.
    """

    def __init__(self, config: Status, snapshot: Snapshot, fault: Callable[[], str]) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(snapshot)

        class Handler(BaseHTTPRequestHandler):
            timeout = _REQUEST_S

            def do_GET(self) -> None:
                match self.path.partition("?")[0]:
                    case "/metrics":
                        self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                    case "/status":
                        self._json(200, snapshot.take())
                    case "/health":
                        wrong = fault()
                        body = {"status": "failed", "cause": wrong} if wrong else {"status": "ok"}
                        self._json(503 if wrong else 200, body)
                    case _:
                        self._json(404, {"error": "known are /health, /metrics and /status"})

            def _json(self, code: int, body: object) -> None:
                self._answer(code, "application/json", json.dumps(body).encode())

            def _answer(self, code: int, media_type: str, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                _log.debug(format, *args)

        self._server = ThreadingHTTPServer((config.address, config.port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="status", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
