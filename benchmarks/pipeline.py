"""``make bench``: the same slices through the bare network and through the whole pipeline.

One run measures, on one machine:

* the ceiling: ONNX Runtime on arrays that are prepared already, at the fastest setting found,
  before and after everything else and around the large study (the fastest counts);
* the full way: STOW-RS into the local host, storage emulator, orchestrator, activities, review and
  worklist; wall time from the first byte sent until the worklist item can be read. Sender and
  emulator run on the same cores, and what they take is in it;
* the same with one activity a slice and no bound on those in flight, as the fan-out sample of
  Durable Functions does;
* a small and a large study, each through a fresh stack: growth of time and memory;
* a cold start: fresh processes that index the app and screen one slice.

Progress goes to stderr, the table to stdout.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import cold_start
from benchmarks.ceiling import Ceiling, Rate, prepare
from benchmarks.chart import save_chart
from benchmarks.cold_start import ColdStart
from benchmarks.studies import make_study
from benchmarks.way import Passage, WayError, open_way
from demo.scanner import Object
from demo.stack import ROOT, StackError
from slicewatch.model_registry import ModelError, Registry

_SMALL, _LARGE, _COMPARED, _WARM_UP = 100, 1600, 400, 40
_PREPARED = 64
_TRY_S, _MEASURE_S = 0.7, 4.0
_ONE_EACH = {"SLICEWATCH_BATCH_SIZE": "1", "SLICEWATCH_MAX_IN_FLIGHT": "256"}


@dataclass(frozen=True, slots=True)
class Measured:
    """All that one run measured."""

    ceiling: Rate
    ceiling_setting: str
    small: Passage
    large: Passage
    batched: Passage
    one_each: Passage
    stored: Passage
    cold: ColdStart


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; the exit status."""
    options = _options(arguments)
    logging.getLogger("azure").setLevel(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory(prefix="slicewatch-bench-") as folder:
            measured = _measure(options, Path(folder))
    except (StackError, WayError, ModelError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    figures = _figures(measured)
    print(_table(measured, figures, options))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.plot:
        _plot(measured, figures, options.plot)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures, flat")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="draw them, PNG")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="model registry")
    parser.add_argument("--edge", type=int, default=192, help="rows and columns of a slice (192)")
    parser.add_argument("--log", type=Path, default=ROOT / "runs" / "bench.log",
                        help="the hosts' log (runs/bench.log)")  # fmt: skip
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an app setting for all runs; may be given several times",
    )
    return parser.parse_args(arguments)


def _measure(options: argparse.Namespace, folder: Path) -> Measured:
    options.log.parent.mkdir(parents=True, exist_ok=True)
    options.log.unlink(missing_ok=True)
    registry = Registry.load(options.models)
    _say(f"generating slices of {options.edge} x {options.edge} pixels")
    sizes = {
        "warm-up": _WARM_UP,
        "small": _SMALL,
        "large": _LARGE,
        "batched": _COMPARED,
        "one-each": _COMPARED,
        "stored": _COMPARED,
    }
    rows = columns = options.edge
    studies = {
        name: make_study(folder / name, folder / "pool", name, size, rows=rows, columns=columns)
        for name, size in sizes.items()
    }
    model, tensor = prepare(studies["small"][:_PREPARED], registry)
    ceiling = Ceiling(model, tensor, os.process_cpu_count() or 1)
    _say("looking for the fastest setting of ONNX Runtime")
    setting = ceiling.best(_TRY_S)
    rates: list[Rate] = []

    def measure_ceiling() -> None:
        rates.append(ceiling.measure(setting, _MEASURE_S))
        _say(f"ceiling: {rates[-1].slices_per_s:.1f} slices/s, {rates[-1].cpu_ms:.1f} ms of CPU")

    def go(name: str, extra: Mapping[str, str] | None = None) -> Passage:
        return _pass_alone(options, studies["warm-up"], studies[name], name, extra)

    measure_ceiling()
    large = go("large")
    measure_ceiling()
    small = go("small")
    batched = go("batched")
    one_each = go("one-each", _ONE_EACH)
    settings = _settings(options)
    with open_way(options.models, options.log, studies["warm-up"], settings) as way:
        stored = way.pass_stored(studies["stored"])
        _tell("stored before", stored)
        cold = cold_start.measure(
            way.connection_string, options.models, studies["warm-up"][0].study
        )
    measure_ceiling()
    best = Rate(max(one.slices_per_s for one in rates), min(one.cpu_ms for one in rates))
    return Measured(best, str(setting), small, large, batched, one_each, stored, cold)


def _pass_alone(
    options: argparse.Namespace,
    warm_up: Sequence[Object],
    objects: Sequence[Object],
    name: str,
    extra: Mapping[str, str] | None,
) -> Passage:
    """A study through a stack of its own: what memory it needs is this study's."""
    settings = _settings(options) | dict(extra or {})
    with open_way(options.models, options.log, warm_up, settings) as way:
        passage = way.pass_through(objects)
    _tell(name, passage)
    return passage


def _settings(options: argparse.Namespace) -> dict[str, str]:
    """The app settings of the command line. Raises ValueError for one without a value."""
    settings = {}
    for text in options.settings:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ValueError(f"--set {text}: expected NAME=VALUE")
        settings[name] = value
    return settings


def _figures(measured: Measured) -> dict[str, float]:
    """The figures by flat keys; ratios have no unit."""
    batched, one_each, stored = measured.batched, measured.one_each, measured.stored
    small, large, cores = measured.small, measured.large, os.process_cpu_count() or 1
    # As if emulator and sender had machines of their own, and nothing else changed.
    apart_s = large.wall_s - (large.emulator.cpu_s + large.sender_cpu_s) / cores
    ceiling = measured.ceiling.slices_per_s
    all_cpu_s = large.host.cpu_s + large.emulator.cpu_s + large.sender_cpu_s
    figures = {
        "ceiling_slices_per_s": ceiling,
        "end_to_end_slices_per_s": large.slices_per_s,
        "end_to_end_over_ceiling": large.slices_per_s / ceiling,
        "end_to_end_over_ceiling_without_emulator_and_sender_cpu": (
            large.slices / apart_s / ceiling
        ),
        "screening_only_slices_per_s": stored.slices / stored.screening_s,
        "screening_only_over_ceiling": stored.slices / stored.screening_s / ceiling,
        "per_slice_activity_slices_per_s": one_each.slices_per_s,
        "batched_over_per_slice": batched.slices_per_s / one_each.slices_per_s,
        "time_to_flag_s": large.flag_s,
        "time_to_flag_s_100": small.flag_s,
        "ms_per_slice_100": small.ms_per_slice,
        "ms_per_slice_1600": large.ms_per_slice,
        "peak_rss_mib_100": small.host.peak_rss_mib,
        "peak_rss_mib_400": batched.host.peak_rss_mib,
        "peak_rss_mib_1600": large.host.peak_rss_mib,
        "emulator_peak_rss_mib_100": small.emulator.peak_rss_mib,
        "emulator_peak_rss_mib_1600": large.emulator.peak_rss_mib,
        "ceiling_cpu_ms_per_slice": measured.ceiling.cpu_ms,
        "ceiling_cpu_over_all_cpu": measured.ceiling.cpu_ms * large.slices / 1000 / all_cpu_s,
        "host_cpu_ms_per_slice": 1000 * large.host.cpu_s / large.slices,
        "emulator_cpu_ms_per_slice": 1000 * large.emulator.cpu_s / large.slices,
        "sender_cpu_ms_per_slice": 1000 * large.sender_cpu_s / large.slices,
        "history_events_per_slice": large.history_events / large.slices,
        "max_message_bytes": max(large.max_message_bytes, small.max_message_bytes),
        "cold_index_s": measured.cold.index_s,
        "cold_first_detection_s": measured.cold.first_detection_s,
    }
    return {name: round(value, 4) for name, value in figures.items()}


def _table(measured: Measured, figures: Mapping[str, float], options: argparse.Namespace) -> str:
    f = figures
    rows = [
        ("ceiling: ONNX Runtime alone", f"{f['ceiling_slices_per_s']:.1f} slices/s"),
        ("", measured.ceiling_setting),
        (f"full way, {_LARGE} slices", f"{f['end_to_end_slices_per_s']:.1f} slices/s"),
        ("  over the ceiling", f"{f['end_to_end_over_ceiling']:.2f} (aim 0.8)"),
        ("  emulator and sender elsewhere, estimated",
         f"{f['end_to_end_over_ceiling_without_emulator_and_sender_cpu']:.2f}"),
        (f"screening only, {_COMPARED} stored slices",
         f"{f['screening_only_slices_per_s']:.1f} slices/s, "
         f"{f['screening_only_over_ceiling']:.2f} of the ceiling"),
        (f"one activity a slice, {_COMPARED} slices",
         f"{f['per_slice_activity_slices_per_s']:.1f} slices/s"),
        (f"  batches over it, {_COMPARED} slices", f"{f['batched_over_per_slice']:.2f}"),
        (f"close to worklist item, {_SMALL} and {_LARGE} slices",
         f"{f['time_to_flag_s_100']:.2f} and {f['time_to_flag_s']:.2f} s (aim 3)"),
        (f"wall time a slice, {_SMALL} and {_LARGE}",
         f"{f['ms_per_slice_100']:.1f} and {f['ms_per_slice_1600']:.1f} ms"),
        (f"peak memory of host and workers, {_SMALL}, {_COMPARED} and {_LARGE}",
         f"{f['peak_rss_mib_100']:.0f}, {f['peak_rss_mib_400']:.0f} and "
         f"{f['peak_rss_mib_1600']:.0f} MiB"),
        ("peak memory of the emulator, which keeps all blobs in it",
         f"{f['emulator_peak_rss_mib_100']:.0f} and {f['emulator_peak_rss_mib_1600']:.0f} MiB"),
        ("CPU a slice: host and workers, emulator, sender",
         f"{f['host_cpu_ms_per_slice']:.1f}, {f['emulator_cpu_ms_per_slice']:.1f}, "
         f"{f['sender_cpu_ms_per_slice']:.1f} ms"),
        ("  the ceiling's CPU a slice, and its share of theirs",
         f"{f['ceiling_cpu_ms_per_slice']:.1f} ms, {f['ceiling_cpu_over_all_cpu']:.2f}"),
        ("history events a slice", f"{f['history_events_per_slice']:.3f} (bound 0.5)"),
        ("largest durable message", f"{f['max_message_bytes']:.0f} bytes (bound 16384)"),
        ("cold start: app indexed", f"{f['cold_index_s']:.2f} s (aim 1)"),
        ("  and the first detection after that",
         f"{f['cold_first_detection_s']:.2f} s (aim 1.5)"),
    ]  # fmt: skip
    width = max(len(label) for label, _ in rows) + 2
    head = f"Slices of {options.edge} x {options.edge} pixels, {os.process_cpu_count()} cores"
    return "\n".join([head, *(f"{label:<{width}}{value}" for label, value in rows)])


def _plot(measured: Measured, figures: Mapping[str, float], path: Path) -> None:
    rates = [
        ("ONNX Runtime alone", figures["ceiling_slices_per_s"]),
        ("screening only", figures["screening_only_slices_per_s"]),
        (f"full way, {_LARGE} slices", figures["end_to_end_slices_per_s"]),
        (f"full way, {_COMPARED} slices", measured.batched.slices_per_s),
        ("one activity a slice", figures["per_slice_activity_slices_per_s"]),
    ]
    growth = [
        (f"{one.slices} slices", one.ms_per_slice)
        for one in (measured.small, measured.batched, measured.large)
    ]
    save_chart([("Slices a second", rates), ("Full way, milliseconds a slice", growth)], path)


def _tell(name: str, passage: Passage) -> None:
    _say(
        f"{name}: {passage.slices} slices in {passage.wall_s:.1f} s, "
        f"{passage.slices_per_s:.1f} slices/s, item {passage.flag_s:.2f} s after the close"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
