"""Cold start: from nothing to an indexed app, and from there to the first detection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from demo.stack import ROOT
from slicewatch.inventory import received
from slicewatch.settings import load
from slicewatch.storage import Storage

# What a worker does first: import the app's script and ask the app for its functions. The first
# detection then reads one object from storage, so that the storage SDK's import counts, too.
_CHILD = """
import json, sys, time
spawned, blob = float(sys.argv[1]), sys.argv[2]
import function_app
functions = len(function_app.app.get_functions())
indexed = time.perf_counter()
from slicewatch import model_registry, screening, storage
from slicewatch.limits import DEFAULT_LIMITS
load = lambda: storage.current().read(storage.INCOMING, blob)
(result,) = screening.screen([(blob, "", load)], model_registry.current(), DEFAULT_LIMITS)
detected = time.perf_counter()
print(json.dumps([functions, result.outcome, indexed - spawned, detected - indexed]))
"""
_RUNS = 5


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Seconds, medians: process start to indexed app; indexed app to the first slice's result."""

    index_s: float
    first_detection_s: float


def measure(connection_string: str, models: Path, study: str) -> ColdStart:
    """Start fresh processes, one after the other; the files are in the system's cache.

    Args:
        study: its first object is in `incoming`, and a model covers it.

    Raises:
        RuntimeError: a process failed, or did not screen the slice.
    """
    storage = Storage(load({"SLICEWATCH_STORAGE": connection_string}))
    blob = received(storage, study)[0].name
    environment = os.environ | {
        "AzureWebJobsStorage": connection_string,
        "SLICEWATCH_MODELS": str(models),
    }
    runs = [_run(environment, blob) for _ in range(_RUNS)]
    return ColdStart(*(median(values) for values in zip(*runs, strict=True)))


def _run(environment: dict[str, str], blob: str) -> tuple[float, float]:
    # The clock is the system's monotonic one, so both processes read the same.
    command = [sys.executable, "-c", _CHILD, repr(time.perf_counter()), blob]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the cold process failed:\n{done.stderr[-2000:]}")
    functions, outcome, index_s, first_s = json.loads(done.stdout.splitlines()[-1])
    if not functions or outcome != "screened":
        raise RuntimeError(f"the cold process found {functions} functions; the slice: {outcome}")
    return index_s, first_s
