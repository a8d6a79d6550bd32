"""Runs the real host as a process."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent
SAMPLE_APP = _HERE / "sample_app"
_START_TIMEOUT_S = 60.0


class RunningHost:
    """A host process; ``http`` speaks to it, ``log`` is all that it has said."""

    def __init__(self, arguments: list[str], environment: dict[str, str], folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local_host", "start", *arguments],
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.base_url = ""
        self.http = httpx.Client()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            found = re.search(r"^Listening on (http://\S+)$", self.log, re.MULTILINE)
            if found:
                self.base_url = found[1]
            return bool(found) or self.process.poll() is not None

        wait_for(ready, _START_TIMEOUT_S)
        assert self.base_url, f"the host did not start:\n{self.log}"
        self.http.close()
        self.http = httpx.Client(base_url=self.base_url, timeout=30.0)

    def wait_for_log(self, text: str, seconds: float = 15.0) -> None:
        wait_for(lambda: text in self.log, seconds, lambda: f"{text!r} not in:\n{self.log}")

    def worker_pids(self) -> list[int]:
        return list(self.http.get("/admin/host/status").json()["workerProcessIds"])

    def exit_status(self, seconds: float = 30.0) -> int:
        status = self.process.wait(seconds)
        self._reader.join(5)
        return status

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._close()

    def _close(self) -> None:
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.http.close()

    # Durable functions

    def start_orchestration(
        self, name: str, given: Any = None, instance_id: str | None = None
    ) -> str:
        query = {"id": instance_id} if instance_id else {}
        response = self.http.post(f"/api/start/{name}", params=query, json=given)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def state(self, instance_id: str, **query: str) -> dict[str, Any]:
        path = f"/runtime/webhooks/durabletask/instances/{instance_id}"
        response = self.http.get(path, params=query)
        assert response.status_code in (200, 202), response.status_code
        return dict(response.json())

    def finished(self, instance_id: str, seconds: float = 20.0) -> dict[str, Any]:
        def over() -> bool:
            return self.state(instance_id)["runtimeStatus"] in (
                "Completed",
                "Failed",
                "Terminated",
            )

        wait_for(over, seconds, lambda: f"{self.state(instance_id)}\n{self.log[-4000:]}")
        return self.state(instance_id)

    def run_orchestration(self, name: str, given: Any = None) -> Any:
        state = self.finished(self.start_orchestration(name, given))
        assert state["runtimeStatus"] == "Completed", f"{state}\n{self.log}"
        return state["output"]


def wait_for(
    reached: Callable[[], bool],
    seconds: float = 15.0,
    explain: Callable[[], str] = lambda: "",
) -> None:
    """Wait until ``reached``; fails with what ``explain`` says when it never is."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"not within {seconds} s: {explain()}"
        time.sleep(0.03)


@contextlib.contextmanager
def running_host(
    folder: Path, *arguments: str, app: Path = SAMPLE_APP, **settings: str
) -> Iterator[RunningHost]:
    """A host that is ready; ``settings`` are app settings. It is stopped at the end."""
    host = launch(folder, *arguments, app=app, **settings)
    try:
        host.wait_until_ready()
        yield host
    finally:
        host.stop()


def launch(folder: Path, *arguments: str, app: Path = SAMPLE_APP, **settings: str) -> RunningHost:
    """A host that may not come up."""
    environment = {key: value for key, value in os.environ.items() if "AzureWeb" not in key}
    environment |= {
        "SAMPLE_SCHEDULE": "0 0 0 1 1 *",
        "SAMPLE_TICKS": str(folder / "ticks"),
        "SAMPLE_LOG": str(folder / "log"),
        "SAMPLE_SETTING": "from the environment",
        "WORK_QUEUE": "work",
        "XDG_STATE_HOME": str(folder / "state"),
        "TMPDIR": str(folder),
    }
    options = ["--app", str(app), "--port", "0", *arguments]
    return RunningHost(options, environment | settings, folder)
