"""``python -m benchmarks.detector``: this project's detector beside Ultralytics, in one run.

The same decoded slices, as display gray, go through Ultralytics on the `.pt` weights, Ultralytics
on the ONNX file, and this project in FP32 and INT8; each from frames to boxes in the frame's
pixels, letterboxing included. Every measurement is a fresh process (`detector_run`), and the four
take turns, so that what else runs on the machine slows all alike; figures are medians.

It needs Ultralytics: run it with the Python of ``.venv-train``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from slicewatch import dicom, pixels
from slicewatch.limits import Rejected
from slicewatch.model_registry import Model, Registry
from training.evaluate import evaluate
from training.export import load_model
from training.phantom import generate_phantom

SHARED = Path("../shared/data/soft-tissue")


@dataclass(frozen=True, slots=True)
class System:
    """What is measured: a name, how `detector_run` runs it, and on which file."""

    name: str
    runner: str
    file: Path


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians of one system."""

    slices_per_s: float
    cold_s: float
    peak_rss_mib: float
    batch: int


def slices_of(
    folder: Path, model: Model, registry: Registry, count: int
) -> list[NDArray[np.uint8]]:
    """Display gray of evenly drawn DICOM slices that the model covers; else of generated ones."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    step = max(1, len(files) // (2 * count))
    found = list(islice(_grays(files[::step], model, registry), count))
    if found:
        return found
    volumes = (generate_phantom(seed=seed, lesions=True, slices=32) for seed in range(count // 32))
    planes = (plane for volume in volumes for plane in volume.hounsfield)
    return [pixels.to_gray(plane.astype(np.float32), model.intensity) for plane in planes]


def _grays(files: Sequence[Path], model: Model, registry: Registry) -> Iterator[NDArray[np.uint8]]:
    for path in files:
        try:
            instance = dicom.read(path.read_bytes())
            choice = registry.choose(instance.header.attributes)
            if choice is None or choice.model != model:
                continue
            for frame in instance.frames():
                yield pixels.to_gray(frame.values, choice.intensity, frame.voi)
        except Rejected:
            continue  # RTSTRUCT and other objects without pixels lie beside the images


def measure(
    systems: Sequence[System], slices: Path, size: int, rounds: int, seconds: float
) -> dict[str, Figures]:
    """Run the systems in turn, `rounds` times.

    Raises:
        RuntimeError: one of them failed.
    """
    runs: dict[str, list[dict[str, float]]] = {system.name: [] for system in systems}
    for turn in range(rounds):
        for system in systems:
            print(f"round {turn + 1} of {rounds}: {system.name}", file=sys.stderr)
            runs[system.name].append(_run(system, slices, size, seconds))
    return {
        name: Figures(
            median(run["slices_per_s"] for run in found),
            median(run["cold_s"] for run in found),
            max(run["peak_rss_mib"] for run in found),
            int(found[0]["batch"]),
        )
        for name, found in runs.items()
    }


def _run(system: System, slices: Path, size: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.detector_run", system.runner, str(system.file)]
    command += [str(slices), repr(time.perf_counter()), str(seconds), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{system.name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def int8_loss(fp32: Path, int8: Path, data: Path) -> tuple[float, float] | None:
    """mAP50 of both graphs on the validation patients; ``None`` without a prepared data set."""
    if not (data / "images").is_dir():
        return None
    found = [evaluate(toml, data, rounds=0).flat["map50"] for toml in (fp32, int8)]
    if not all(isinstance(value, float) for value in found):
        return None
    return float(found[0] or 0.0), float(found[1] or 0.0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detector", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/soft-tissue.toml"))
    parser.add_argument("--slices", type=Path, default=SHARED, help="folder of DICOM")
    parser.add_argument("--count", type=int, default=256, help="slices to run")
    parser.add_argument("--data", type=Path, help="data set to compare quality on, YOLO layout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="write the figures here, flat keys")
    return parser.parse_args()


def main() -> int:
    options = _arguments()
    if find_spec("ultralytics") is None:
        print(
            "Ultralytics is not installed here. Run ./setup.sh train, then"
            " .venv-train/bin/python -m benchmarks.detector",
            file=sys.stderr,
        )
        return 2
    toml: Path = options.model
    int8 = toml.parent / "int8" / toml.name
    model = load_model(toml)
    grays = slices_of(options.slices, model, Registry.load(toml.parent), options.count)
    systems = [
        System("ultralytics_pt", "ultralytics", model.weights.with_suffix(".pt")),
        System("ultralytics_onnx", "ultralytics", model.weights),
        System("fp32", "slicewatch", toml),
        System("int8", "slicewatch", int8),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        slices = Path(temporary) / "slices.npz"
        np.savez(slices, *grays)
        found = measure(systems, slices, model.input_size, options.rounds, options.seconds)
    quality = int8_loss(toml, int8, options.data or Path("runs/data") / toml.stem)
    flat = _flat(found, quality)
    flat |= {"model": model.key, "slices": len(grays)}
    print(_table(found))
    for key, value in flat.items():
        print(f"{key:<30} {value:.3f}" if isinstance(value, float) else f"{key:<30} {value}")
    if options.json:
        options.json.write_text(json.dumps(flat, indent=1) + "\n", "utf-8")
    return 0


def _flat(
    found: dict[str, Figures], quality: tuple[float, float] | None
) -> dict[str, float | int | str | None]:
    ours, theirs = found["fp32"], found["ultralytics_onnx"]
    rates: dict[str, float | int | str | None] = {
        f"{name}_slices_per_s": figures.slices_per_s for name, figures in found.items()
    }
    memory = {f"{name}_peak_rss_mib": figures.peak_rss_mib for name, figures in found.items()}
    return {
        **rates,
        "fp32_over_ultralytics_onnx": ours.slices_per_s / theirs.slices_per_s,
        "int8_over_fp32": found["int8"].slices_per_s / ours.slices_per_s,
        "cold_start_ultralytics_s": theirs.cold_s,
        "cold_start_s": ours.cold_s,
        "cold_start_ratio": theirs.cold_s / ours.cold_s,
        "fp32_map50": quality[0] if quality else None,
        "int8_map50": quality[1] if quality else None,
        "int8_map50_loss": quality[0] - quality[1] if quality else None,
        **memory,
    }


def _table(found: dict[str, Figures]) -> str:
    lines = [f"{'':<18}{'slices/s':>10}{'batch':>7}{'first box, s':>14}{'peak, MiB':>11}"]
    for name, one in found.items():
        batch = one.batch if name.startswith("ultralytics") else 8
        lines.append(
            f"{name:<18}{one.slices_per_s:>10.1f}{batch:>7}{one.cold_s:>14.2f}"
            f"{one.peak_rss_mib:>11.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
