"""Azurite, the storage emulator, as a child process: what a laptop and the tests store in."""

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

_ROOT = Path(__file__).resolve().parent.parent
# The account and key that Microsoft publishes for its storage emulator.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_SERVICES = ("blob", "queue", "table")


def _find_azurite() -> str:
    local = _ROOT / "node_modules" / ".bin" / "azurite"
    found = str(local) if local.exists() else shutil.which("azurite")
    if found is None:
        raise RuntimeError(
            "Azurite is not installed, and these tests need it: run `make setup`, or "
            "`npm install` in the project's folder"
        )
    return found


def _path_with_node() -> str:
    """The PATH, and behind it the folder of this Python: Node from PyPI lies there."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Azurite:
    """Runs Azurite as a context manager.

    ``connection_string`` names its blob, queue and table services. It listens on free ports.
    With a `folder` it keeps its data there; without one all is in memory and lost at the end.
    Raises RuntimeError where it is not installed or does not come up.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.ports = dict(zip(_SERVICES, _free_ports(len(_SERVICES)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None
        self._keep = folder is not None
        self._lock: IO[str] | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="azurite-")
        self._folder = folder or Path(self._scratch.name)

    @property
    def _output(self) -> Path:
        return Path(self._scratch.name, "output.txt")

    @property
    def connection_string(self) -> str:
        """The connection string of the emulated account."""
        endpoints = "".join(
            f"{service.capitalize()}Endpoint=http://127.0.0.1:{port}/{ACCOUNT};"
            for service, port in self.ports.items()
        )
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};{endpoints}"

    def start(self) -> None:
        """Start the emulator, or start it again after a stop."""
        command = [_find_azurite(), "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
        if self._keep:
            self._lock_folder()
            command += ["--location", str(self._folder)]
        else:
            command += ["--inMemoryPersistence"]
        for service, port in self.ports.items():
            command += [f"--{service}Host", "127.0.0.1", f"--{service}Port", str(port)]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._scratch.name,
                env={**os.environ, "PATH": _path_with_node()},
                # Ctrl+C in a terminal reaches a whole group: the storage goes last, by `stop`.
                process_group=0,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def _lock_folder(self) -> None:
        """Two emulators on one folder overwrite each other's index: the second one is refused.
        The lock goes with this process, however it ends.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self._folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RuntimeError(
                f"{self._folder} is in use by another storage emulator: end that one first, or"
                " keep the studies in another folder"
            ) from None

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        waiting = set(self.ports.values())
        while waiting:
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._output.read_text("utf-8", "replace")
                raise RuntimeError(f"Azurite did not start:\n{said}")
            for port in list(waiting):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    waiting.discard(port)
                except OSError:
                    time.sleep(0.05)

    def stop(self) -> None:
        """End the emulator; what it holds in memory is lost."""
        if self._process is None:
            return
        if self._keep:
            # It writes its index at intervals and when it is asked to end.
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT_S)
        self._process.kill()
        self._process.wait()
        self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._scratch.cleanup()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._scratch.cleanup()
