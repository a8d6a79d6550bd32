"""``make start``: it says what ends it, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from demo.scanner import NothingToSend, find
from demo.stack import ROOT, Stack, StackError
from tests.local_host.running_host import wait_for


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """It, in a session of its own as in a terminal; ``output.txt`` is what it says."""
    with (tmp_path / "output.txt").open("w") as output, socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        one.close()
        process = subprocess.Popen(
            [sys.executable, "-m", "demo.serve", "--port", str(port), "--data", tmp_path / "data"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
    said = tmp_path / "output.txt"
    try:
        wait_for(
            lambda: "Slicewatch serves at" in said.read_text() or process.poll() is not None,
            60,
            said.read_text,
        )
        assert process.poll() is None, said.read_text()
        yield process
    finally:
        left = psutil.Process(process.pid).children() if process.poll() is None else []
        for one in [*left, process]:
            one.kill()
        process.wait()


def test_a_host_that_dies_is_told(serving: subprocess.Popen[str], tmp_path: Path) -> None:
    children = psutil.Process(serving.pid).children(recursive=True)
    (host,) = (one for one in children if "start" in one.cmdline())
    host.kill()
    assert serving.wait(30) == 1
    assert "error: the Functions host ended with status -9" in (tmp_path / "output.txt").read_text()
    wait_for(lambda: not any(one.is_running() for one in children))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_in_order(
    serving: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    children = psutil.Process(serving.pid).children(recursive=True)
    os.killpg(serving.pid, number)  # as a terminal does
    assert serving.wait(30) == 0
    wait_for(lambda: not any(one.is_running() for one in children))
    said = (tmp_path / "output.txt").read_text()
    for noise in ("Traceback", "cut off", "handed out again", "error"):
        assert noise not in said.partition("Slicewatch serves at")[2], said


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stack = Stack(folder=tmp_path / "data", port=taken.getsockname()[1])
        with pytest.raises(StackError, match=r"port \d+ cannot be had .*PORT="), stack:
            pytest.fail("it started")
    assert not (tmp_path / "data").exists(), "the storage emulator was started"


def test_what_cannot_be_sent_is_told_by_its_cause(tmp_path: Path) -> None:
    with pytest.raises(NothingToSend, match="no such file or folder"):
        find(tmp_path / "nowhere")
    with pytest.raises(NothingToSend, match="no DICOM file among 0 files"):
        find(tmp_path)
    (tmp_path / "text.txt").write_text("no image")
    with pytest.raises(NothingToSend, match="is no DICOM file"):
        find(tmp_path / "text.txt")
