"""The agent as a process of its own, and the peers that talk to it."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

_START_S = 60.0
_fork = multiprocessing.get_context("forkserver")
# The modules are imported once: a start takes a moment, also the twentieth.
_fork.set_forkserver_preload(["edge.__main__", "tests.edge.running_agent"])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def wait_for[T](what: Callable[[], T], told: str, seconds: float = 60.0) -> T:
    """Ask again and again, until the answer is truthy."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {told}")
        time.sleep(0.02)
    return answer


def _main(log: str, arguments: list[str]) -> None:
    from edge.__main__ import main

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["edge", *arguments]
    sys.exit(main())


class RunningAgent:
    """Runs as a context manager; started again after a kill, it finds what it had.

    Args:
        place: its folder: configuration, log and spool.
        url: of the cloud.
        toml: replaces tables of the configuration, by name.
    """

    def __init__(self, place: Path, url: str, /, **toml: str) -> None:
        self.port, self.status_port = free_port(), free_port()
        self.config = place / "edge.toml"
        self.log = place / "agent.log"
        self.spool = place / "spool"
        tables = {
            "receive": f'[receive]\naddress = "127.0.0.1"\nport = {self.port}\n'
            '[[receive.peer]]\nae_title = "*"\naddresses = ["127.0.0.1"]\n',
            "spool": '[spool]\nfolder = "spool"\nmin_free_mib = 1\n',
            "cloud": f'[cloud]\nurl = "{url}"\nbackoff_first_s = 0.05\nbackoff_max_s = 0.3\n',
            "study": "[study]\nquiet_s = 1.0\n",
        }
        tables |= {
            name: text.format(port=self.port, url=url, folder=place) for name, text in toml.items()
        }
        self.config.write_text(
            "\n".join([*tables.values(), f"[status]\nport = {self.status_port}\n"])
        )
        self._process: Any = None

    def start(self) -> None:
        """Start it and wait until it serves."""
        self._process = _fork.Process(
            target=_main, args=(str(self.log), ["run", "--config", str(self.config)])
        )
        self._process.start()
        wait_for(self._serves, "the agent serves", _START_S)

    def kill(self) -> None:
        """As a power cut does: SIGKILL, without a word."""
        self._process.kill()
        self._process.join()
        self._process = None

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        self._process.terminate()
        self._process.join(40)
        code: int | None = self._process.exitcode
        if code is None:
            self._process.kill()
            raise AssertionError(f"the agent did not end:\n{self.said()}")
        self._process = None
        return code

    def _serves(self) -> bool:
        if not self._process.is_alive():
            raise AssertionError(f"the agent ended: {self.said()}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                pass
            return bool(self.get("status"))
        except OSError:
            return False

    def get(self, path: str) -> Any:
        """What it answers; JSON is read."""
        url = f"http://127.0.0.1:{self.status_port}/{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            body = answer.read()
        return body.decode() if path == "metrics" else json.loads(body)

    def count(self, state: str) -> int:
        count: int = self.get("status")["states"][state][0]
        return count

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def __enter__(self) -> RunningAgent:
        self.start()
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is not None:
            print(f"The agent said:\n{self.said()}")
        if self._process is not None:
            self.stop()


class Dcmtk:
    """DCMTK's clients; `None` of them is optional in these tests."""

    _REMEDY = (
        "these tests send with DCMTK's own clients, and {} is not installed:"
        " `apt-get install dcmtk` (Debian, Ubuntu) or `brew install dcmtk`"
    )

    def __init__(self) -> None:
        for tool in ("storescu", "echoscu", "dcmsend", "storescp"):
            if shutil.which(tool) is None:
                raise RuntimeError(self._REMEDY.format(tool))

    def run(self, tool: str, *arguments: str | Path, timeout: float = 120) -> tuple[int, str]:
        """Exit status and output."""
        done = subprocess.run(
            [tool, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def store(
        self, port: int, files: Iterable[Path], *options: str, called: str = "SLICEWATCH"
    ) -> tuple[int, str]:
        """storescu; `options` come before the address."""
        return self.run("storescu", "-v", *options, "-aec", called, "127.0.0.1", str(port), *files)

    def start_store(self, port: int, files: Sequence[Path], *options: str) -> subprocess.Popen[str]:
        command = ["storescu", "-v", *options, "-aec", "SLICEWATCH", "127.0.0.1", str(port)]
        return subprocess.Popen(
            [*command, *map(str, files)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def acknowledged(output: str) -> list[Path]:
    """The files that storescu got a success for."""
    done, current = [], None
    for line in output.splitlines():
        if found := re.search(r"Sending file: (.*)", line):
            current = Path(found[1].strip())
        elif "Received Store Response (Success)" in line and current is not None:
            done.append(current)
            current = None
    return done


def dataset_of(data: bytes) -> bytes:
    """What follows the File Meta Information (PS3.10 section 7.1) of a file."""
    assert data[128:132] == b"DICM"
    assert data[132:140] == bytes.fromhex("02000000554c0400"), "no group length first"
    return data[144 + int.from_bytes(data[140:144], "little") :]
