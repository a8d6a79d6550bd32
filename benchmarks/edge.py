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
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pydicom

from benchmarks.edge_site import NO_DELAY, Sink, agent, free_port, listens, storescu, wait
from slicewatch.dataset import VALIDATION, split_of

_ROOT = Path(__file__).resolve().parent.parent
_MIB = 1 << 20
_TOOLS = ("storescu", "storescp")
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


def receive_rate(files: Path, count: int, size: int, folder: Path, sink: Sink) -> dict[str, float]:
    """Reception by itself next to `storescp`, and while what arrives goes up at once."""
    large = ["-pdu", "131072"]
    flushing = _flushing_library(folder)
    took: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(_ROUNDS):
        # In turn, so that what else the machine does meets all of them.
        took["storescp"].append(_storescp(files, folder, [], {}))
        took["agent"].append(_agent_alone(files, folder, {}))
        took["storescp, no delay"].append(_storescp(files, folder, large, NO_DELAY))
        took["agent, no delay"].append(_agent_alone(files, folder, NO_DELAY))
        if flushing is not None:
            took["storescp, flushed"].append(
                _storescp(files, folder, large, NO_DELAY, preload=flushing)
            )
    seconds = {name: statistics.median(rounds) for name, rounds in took.items()}
    both = folder / "both"
    both.mkdir()
    with agent(both, sink.url) as (port, _):
        begin = time.perf_counter()
        while_sending = storescu(files, port, {})
        wait(lambda: len(sink.sizes) == count, "all are in the cloud")
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
        with agent(place, f"http://127.0.0.1:{free_port()}/api") as (port, _):
            return storescu(files, port, environment)
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
    port = free_port()
    process = subprocess.Popen(
        ["storescp", "-od", str(output), *options, str(port)],
        env={**os.environ, **environment, **({"LD_PRELOAD": str(preload)} if preload else {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait(lambda: listens(port), "storescp listens")
        return storescu(files, port, environment)
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
        storescu(source, port, {})
        wait(lambda: sink.closed > 0, "the study is closed", 300)
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
            storescu(patient / "CT" / "image", port, {})
        wait(lambda: sink.closed >= len(patients), "all studies are closed", 500)
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


def _peak_rss(pid: int) -> int:
    """Bytes, from the kernel's high-water mark."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise SystemExit("the kernel does not say how much memory the agent has")


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
