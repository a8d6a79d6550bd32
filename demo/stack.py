"""Storage emulator and local host as child processes, with the app settings of a laptop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from local_host.azurite import Azurite

ROOT = Path(__file__).resolve().parent.parent
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 20.0

LAPTOP = {
    # One worker process with the models warm; batches of one study still overlap in its threads.
    "FUNCTIONS_WORKER_PROCESS_COUNT": "1",
    "PYTHON_THREADPOOL_THREAD_COUNT": "8",
    "SLICEWATCH_SWEEP_SCHEDULE": "*/30 * * * * *",
    # Nobody signs in on a laptop. A request may name somebody else: see docs/identity.md.
    "SLICEWATCH_DEVELOPMENT_IDENTITY": (
        "developer:uploader,reader,clinical-reviewer,forensic-reviewer,administrator"
    ),
}


class StackError(Exception):
    """The stack did not come up; the text says why and holds the end of the host's log."""


class Stack:
    """Runs the app as a context manager; `url` is where it serves, without a trailing slash.

    With a `folder` the studies stay there for the next run; without one they are gone at the end.
    With a `log` the host writes there; else to this process's output.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
        log: Path | None = None,
        azurite: Azurite | None = None,
    ) -> None:
        self.azurite = azurite or Azurite(folder)
        self._owns_azurite = azurite is None
        self._port = port or _free_port()
        self._settings = dict(settings or {})
        self._log = log
        self.host: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start_host(self) -> None:
        """Start the Functions host, or start it again after it ended, and wait until it serves.

        Raises:
            StackError: it ended, or did not serve in time.
        """
        environment = {
            **LAPTOP,
            **os.environ,  # who sets one of these knows why
            **self._settings,
            "AzureWebJobsStorage": self.azurite.connection_string,
        }
        command = [sys.executable, "-m", "local_host", "start", "--app", str(ROOT)]
        command += ["--port", str(self._port)]
        output = self._log.open("ab") if self._log else None
        try:
            self.host = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
                # Ctrl+C in a terminal reaches a whole group, and a host stops at once at the second
                # signal: it gets one, from `stop_host`.
                process_group=0,
            )
        finally:
            if output:
                output.close()
        self._wait_until_healthy()

    def _wait_until_healthy(self) -> None:
        assert self.host is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        said = "it does not answer"
        while time.monotonic() < deadline:
            if self.host.poll() is not None:
                raise StackError(f"the host ended with status {self.host.returncode}{self._tail()}")
            try:
                answer = httpx.get(f"{self.url}/api/health", timeout=10)
                if answer.status_code == httpx.codes.OK:
                    return
                said = f"health says {answer.status_code}: {answer.text[:2000]}"
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise StackError(
            f"the host did not serve within {_START_TIMEOUT_S:.0f} s: {said}{self._tail()}"
        )

    def _tail(self) -> str:
        if self._log is None:
            return ""
        return "; its log ends with:\n" + self._log.read_text("utf-8", "replace")[-4000:]

    def stop_host(self) -> None:
        """Ask the host to end; kill it when it does not."""
        if self.host is None:
            return
        self.host.send_signal(signal.SIGTERM)
        try:
            self.host.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.host.kill()
            self.host.wait()
        self.host = None

    def __enter__(self) -> Self:
        try:
            _check_port(self._port)
            if self._owns_azurite:
                self.azurite.start()
            self.start_host()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop_host()
        if self._owns_azurite:
            self.azurite.__exit__(None, None, None)


def _check_port(port: int) -> None:
    """Say that the port is taken before the storage emulator takes its seconds to start."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError as error:
            raise StackError(
                f"port {port} cannot be had ({error.strerror}): stop the process that uses it, or "
                "name another port: make start PORT=7072"
            ) from None


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
