"""Measures the edge agent: ``python -m benchmarks.edge [--json PATH]``.

- Reception: `storescu` into the agent, with the object on the disk before each acknowledgement,
  next to DCMTK's `storescp` (which does not flush) on the same objects in the same run: as both
  are by default, with Nagle's algorithm off at both of their ends (``no_delay``), and so that
  `storescp` keeps the same promise (``flushed``): a library that is loaded before it flushes each
  file and its folder when the file is closed. That needs a C compiler (``cc``).
- To the cloud: from the first byte sent to the last object stored by a STOW-RS server on this
  machine that only counts, so the agent is what is measured.
- Memory: the agent's peak while a study of 5,000 objects passes through.
- Look-first: what stays on site of real studies when only slices near a detection go up, and how
  many slices with tumour stay with it; of the patients that the detector was not trained on.

Needs DCMTK (`apt-get install dcmtk`), requirements-edge.txt and the real studies.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom

from slicewatch import multipart
from slicewatch.dataset import VALIDATION, split_of
from slicewatch.dicom import read_header

_ROOT = Path(__file__).resolve().parent.parent
_MIB = 1 << 20
_TOOLS = ("storescu", "storescp")
_NO_DELAY = {"TCP_NODELAY": "1"}
"""DCMTK leaves Nagle's algorithm on unless told: it waits for acknowledgements in mid-object."""
_FLUSHES = 50
_ROUNDS = 3
"""Of each measurement of reception; the median counts."""
_FLUSHING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int fclose(FILE *file) {
    int (*plain)(FILE *) = (int (*)(FILE *))dlsym(RTLD_NEXT, "fclose");
    int handle = fileno(file);
    struct stat about;
    if (handle >= 0 && (fcntl(handle, F_GETFL) & O_ACCMODE) != O_RDONLY
        && fstat(handle, &about) == 0 && S_ISREG(about.st_mode)) {
        char link[64], path[4096];
        fflush(file);
        fsync(handle);
        snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
        ssize_t length = readlink(link, path, sizeof path - 1);
        if (length > 0) {
            path[length] = 0;
            int folder = open(dirname(path), O_RDONLY | O_DIRECTORY);
            if (folder >= 0) { fsync(folder); close(folder); }
        }
    }
    return plain(file);
}
"""


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
    port, status_port = _free_port(), _free_port()
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
        _wait(lambda: _answers(status_port), "the agent serves")
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def receive_rate(files: Path, count: int, size: int, folder: Path, sink: Sink) -> dict[str, float]:
    """Reception by itself next to `storescp`, and while what arrives goes up at once."""
    large = ["-pdu", "131072"]
    flushing = _flushing_library(folder)
    took: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(_ROUNDS):
        # In turn, so that what else the machine does meets all of them.
        took["storescp"].append(_storescp(files, folder, [], {}))
        took["agent"].append(_agent_alone(files, folder, {}))
        took["storescp, no delay"].append(_storescp(files, folder, large, _NO_DELAY))
        took["agent, no delay"].append(_agent_alone(files, folder, _NO_DELAY))
        if flushing is not None:
            took["storescp, flushed"].append(
                _storescp(files, folder, large, _NO_DELAY, preload=flushing)
            )
    seconds = {name: statistics.median(rounds) for name, rounds in took.items()}
    both = folder / "both"
    both.mkdir()
    with agent(both, sink.url) as (port, _):
        begin = time.perf_counter()
        while_sending = _storescu(files, port, {})
        _wait(lambda: len(sink.sizes) == count, "all are in the cloud")
        stored = time.perf_counter() - begin
    megabytes = size / 1e6
    figures = {
        "objects": count,
        "flush_ms": _flush_ms(folder, size // count),
        "receive_objects_per_s": count / seconds["agent"],
        "receive_mb_per_s": megabytes / seconds["agent"],
        "receive_while_sending_mb_per_s": megabytes / while_sending,
        "storescp_mb_per_s": megabytes / seconds["storescp"],
        "receive_over_storescp": seconds["storescp"] / seconds["agent"],
        "no_delay_receive_mb_per_s": megabytes / seconds["agent, no delay"],
        "no_delay_storescp_mb_per_s": megabytes / seconds["storescp, no delay"],
        "no_delay_receive_over_storescp": seconds["storescp, no delay"]
        / seconds["agent, no delay"],
        "to_cloud_objects_per_s": count / stored,
        "to_cloud_mb_per_s": megabytes / stored,
    }
    if flushing is not None:
        figures["flushed_storescp_mb_per_s"] = megabytes / seconds["storescp, flushed"]
        figures["flushed_receive_over_storescp"] = (
            seconds["storescp, flushed"] / seconds["agent, no delay"]
        )
    return figures


def _agent_alone(files: Path, folder: Path, environment: dict[str, str]) -> float:
    """Seconds for the objects, with a cloud that cannot be reached."""
    place = folder / "alone"
    place.mkdir()
    try:
        with agent(place, f"http://127.0.0.1:{_free_port()}/api") as (port, _):
            return _storescu(files, port, environment)
    finally:
        shutil.rmtree(place)


def _flushing_library(folder: Path) -> Path | None:
    """What makes a program flush the files that it closes; ``None`` without a C compiler."""
    if shutil.which("cc") is None:
        return None
    source, library = folder / "flushing.c", folder / "flushing.so"
    source.write_text(_FLUSHING)
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    return library


def _flush_ms(folder: Path, size: int) -> float:
    """What it costs here to write a file of `size` bytes and flush it with its folder."""
    target = folder / "flush"
    target.mkdir()
    handle = os.open(target, os.O_RDONLY)
    begin = time.perf_counter()
    for number in range(_FLUSHES):
        with (target / str(number)).open("wb") as file:
            file.write(os.urandom(size))
            file.flush()
            os.fsync(file.fileno())
        os.fsync(handle)
    spent = time.perf_counter() - begin
    os.close(handle)
    return 1000 * spent / _FLUSHES


def _storescp(
    files: Path,
    folder: Path,
    options: list[str],
    environment: dict[str, str],
    *,
    preload: Path | None = None,
) -> float:
    """Seconds for the objects; `preload` is for the receiver alone."""
    output = folder / "storescp"
    output.mkdir()
    port = _free_port()
    process = subprocess.Popen(
        ["storescp", "-od", str(output), *options, str(port)],
        env={**os.environ, **environment, **({"LD_PRELOAD": str(preload)} if preload else {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(lambda: _listens(port), "storescp listens")
        return _storescu(files, port, environment)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(output)


def peak_memory(count: int, folder: Path, sink: Sink) -> dict[str, float]:
    """Peak resident memory while one study of `count` objects passes through."""
    source = folder / "large"
    source.mkdir()
    template = pydicom.dcmread(_real_slices()[0])
    template.Rows = template.Columns = 64
    template.PixelData = bytes(2 * 64 * 64)
    for number in range(count):
        template.SOPInstanceUID = f"2.25.{10**20 + number}"
        template.file_meta.MediaStorageSOPInstanceUID = template.SOPInstanceUID
        template.InstanceNumber = number + 1
        template.save_as(source / f"{number:05d}.dcm")
    with agent(folder, sink.url) as (port, pid):
        idle = _peak_rss(pid)
        _storescu(source, port, {})
        _wait(lambda: sink.closed > 0, "the study is closed", 300)
        peak = _peak_rss(pid)
    shutil.rmtree(source)
    return {
        f"peak_rss_mib_{count}": peak / _MIB,
        "rss_mib_at_start": idle / _MIB,
        "objects_in_study": count,
    }


def look_first(
    patients: Sequence[Path], models: Path, folder: Path, sink: Sink
) -> dict[str, float]:
    """What the strictest policy keeps on site, and what of it shows tumour."""
    tables = (
        f'[look_first]\nmodels = "{models.resolve()}"\ncalm = "summary"\nrest = "summary"\n'
        "context_slices = 3\nthreads = 2\n"
    )
    size, tumour = 0, set()
    lesions: list[set[str]] = []
    total: set[str] = set()
    with agent(folder, sink.url, tables) as (port, _):
        for patient in patients:
            slices = sorted((patient / "CT" / "image").glob("*.dcm"))
            with_tumour = _tumour_slices(patient / "CT", slices)
            lesions.append(with_tumour)
            tumour |= with_tumour
            for path in slices:
                size += path.stat().st_size
                total.add(
                    str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
                )
            _storescu(patient / "CT" / "image", port, {})
        _wait(lambda: sink.closed >= len(patients), "all studies are closed", 500)
    sent = sum(sink.sizes.values())
    lost = tumour - sink.sizes.keys()
    return {
        "look_first_patients": len(patients),
        "look_first_slices": len(total),
        "look_first_bytes_saved": 1 - sent / size,
        "look_first_sensitivity_lost": len(lost) / len(tumour),
        "look_first_tumour_slices": len(tumour),
        "look_first_tumours_lost_whole": sum(not one & sink.sizes.keys() for one in lesions),
    }


def _tumour_slices(folder: Path, slices: Sequence[Path]) -> set[str]:
    """SOP instance UIDs of the slices with a contour of the tumour."""
    structures = pydicom.dcmread(folder / "mask" / "RS.dcm")
    heights = {
        round(float(contour.ContourData[2]), 1)
        for roi in structures.ROIContourSequence
        for contour in roi.ContourSequence
    }
    found = set()
    for path in slices:
        header = pydicom.dcmread(path, specific_tags=["SOPInstanceUID", "ImagePositionPatient"])
        if round(float(header.ImagePositionPatient[2]), 1) in heights:
            found.add(str(header.SOPInstanceUID))
    return found


def _held_out() -> list[Path]:
    """The patients that the detector was not trained on."""
    patients = []
    for patient in sorted(_data().iterdir()):
        for path in sorted((patient / "CT" / "image").glob("*.dcm"))[:1]:
            header = pydicom.dcmread(path, specific_tags=["PatientID", "IssuerOfPatientID"])
            identity = f"{header.get('IssuerOfPatientID', '')}{header.get('PatientID', '')}"
            if split_of(identity) == VALIDATION:
                patients.append(patient)
    return patients


def _real_slices() -> list[Path]:
    return sorted(_data().glob("*/CT/image/*.dcm"))


def _data() -> Path:
    folder = _ROOT.parent / "shared" / "data" / "soft-tissue"
    if not folder.is_dir():
        raise SystemExit(f"the real studies are not here: {folder}")
    return folder


def _storescu(files: Path, port: int, environment: dict[str, str]) -> float:
    """Send the files of a folder; the seconds that it took."""
    command = ["storescu", "+sd", "+r", "-aec", "SLICEWATCH", "127.0.0.1", str(port), str(files)]
    begin = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    if done.returncode:
        raise SystemExit(f"storescu failed: {done.stderr[-500:]}")
    return time.perf_counter() - begin


def _peak_rss(pid: int) -> int:
    """Bytes, from the kernel's high-water mark."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise SystemExit("the kernel does not say how much memory the agent has")


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def _wait(what: Callable[[], bool], told: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds:.0f} s: {told}")
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    parser.add_argument("--objects", type=int, default=300, help="for the rates")
    parser.add_argument("--study", type=int, default=5000, help="objects of the large study")
    parser.add_argument(
        "--models", type=Path, default=_ROOT / "models" / "int8", help="that look first"
    )
    parser.add_argument("--only", choices=("rates", "memory", "look-first"))
    arguments = parser.parse_args()
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} not found: apt-get install dcmtk")
    figures: dict[str, float] = {}
    sink = Sink()
    for name in ("rates", "memory", "look-first"):
        if arguments.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory(prefix="edge-bench-") as scratch:
            folder = Path(scratch)
            sink.clear()
            if name == "rates":
                source = folder / "source"
                source.mkdir()
                slices = _real_slices()[: arguments.objects]
                for number, path in enumerate(slices):
                    shutil.copy(path, source / f"{number:05d}.dcm")
                size = sum(path.stat().st_size for path in slices)
                figures |= receive_rate(source, len(slices), size, folder, sink)
            elif name == "memory":
                figures |= peak_memory(arguments.study, folder, sink)
            else:
                figures |= look_first(_held_out(), arguments.models, folder, sink)
        print(json.dumps(figures, indent=2), flush=True)
    sink.stop()
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
