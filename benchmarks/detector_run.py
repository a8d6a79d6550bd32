"""One measurement of `benchmarks.detector`, in a process of its own.

``python -m benchmarks.detector_run SYSTEM MODEL SLICES SPAWNED SECONDS SIZE``: SYSTEM is
``ultralytics`` or ``slicewatch``, MODEL the weights or the TOML, SLICES an ``.npz`` of (rows,
columns) uint8 arrays, SPAWNED the monotonic clock when the process was started, SIZE the edge of
the network's input, pixels. Prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Gray = NDArray[np.uint8]
type Detect = Callable[[Sequence[Gray]], Any]

ULTRALYTICS_BATCHES = (1, 8, 32)
"""The fastest of these counts; ours chooses its batches itself."""


def _ultralytics(weights: Path, size: int) -> Detect:
    from ultralytics import YOLO

    network = YOLO(str(weights), task="detect")

    def detect(images: Sequence[Gray]) -> Any:
        colour = [np.repeat(image[..., None], 3, axis=2) for image in images]
        return network.predict(
            colour, imgsz=size, conf=0.2, nms=False, device="cpu", verbose=False, max_det=300
        )

    return detect


def _slicewatch(toml: Path) -> Detect:
    from slicewatch.detector import OnnxDetector
    from slicewatch.model_registry import Registry

    (model,) = (one for one in Registry.load(toml.parent).models if one.file == toml)
    return OnnxDetector(model).detect


def _rate(detect: Detect, slices: Sequence[Gray], batch: int, seconds: float) -> float:
    """Slices a second; whole rounds over the slices until the time is up."""
    detect(slices[:batch])
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for images in batched(slices, batch, strict=False):
            detect(images)
            done += len(images)
            if time.perf_counter() - began >= seconds:
                break
    return done / (time.perf_counter() - began)


def main() -> None:
    system, model, slices_path, spawned, seconds, size = sys.argv[1:]
    # The clock is the system's monotonic one, so both processes read the same.
    with np.load(slices_path) as archive:
        slices = [archive[name] for name in archive.files]
    batches: tuple[int, ...] = (len(slices),)
    if system == "ultralytics":
        detect = _ultralytics(Path(model), int(size))
        batches = ULTRALYTICS_BATCHES
    else:
        detect = _slicewatch(Path(model))
    detect(slices[:1])
    cold = time.perf_counter() - float(spawned)
    rates = {batch: _rate(detect, slices, batch, float(seconds)) for batch in batches}
    best = max(rates, key=lambda batch: rates[batch])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"cold_s": cold, "slices_per_s": rates[best], "batch": best, "peak_rss_mib": peak}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
