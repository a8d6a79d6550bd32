"""Slices that do not belong: noise, sharpness or table break the pattern of their series.

Noise and sharpness change slowly from slice to slice, whatever the anatomy: a slice from another
scan, or one that was rebuilt, filtered or compressed alone, steps out of line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from slicewatch.checks import Check, Evidence, Study, objects
from slicewatch.forensics.neighbours import Numbers, deviations, measured_stacks, spread
from slicewatch.records import NOT_MEASURED, SliceResult, Traces
from slicewatch.stacks import Stack

NOISE_OCTAVES = {"CT": 0.5}
SHARPNESS_OCTAVES = {"CT": 0.25}
_OTHER_NOISE, _OTHER_SHARPNESS = 2.0, 0.5
"""Smallest deviations that count, in octaves; tissue itself is textured where there are no HU."""
SPREADS = 8.0
"""… and as many times the series' own spread."""
MAX_SHARE = 0.25
"""Where more than this share stands out, there is no pattern to break."""

TABLE_MM = 1.0


def _noise(study: Study) -> Iterator[Evidence]:
    return _standing_out(
        study, lambda traces: float(np.log2(traces.noise)), NOISE_OCTAVES, _OTHER_NOISE, "noise"
    )


def _sharpness(study: Study) -> Iterator[Evidence]:
    return _standing_out(
        study, lambda traces: traces.sharpness, SHARPNESS_OCTAVES, _OTHER_SHARPNESS,
        "sharpness of the noise",
    )  # fmt: skip


def _standing_out(
    study: Study,
    value_of: Callable[[Traces], float],
    bounds: dict[str, float],
    otherwise: float,
    what: str,
) -> Iterator[Evidence]:
    for slices in measured_stacks(study):
        apart = deviations(np.array([value_of(traces) for _, traces in slices]))
        bound = max(bounds.get(slices[0][0].modality, otherwise), SPREADS * spread(apart))
        odd = _beyond(slices, apart, bound)
        if odd and len(odd) <= MAX_SHARE * len(slices):
            most = 2 ** float(np.abs(apart).max())
            yield Evidence(
                f"The {what} of {objects(odd)} differs from that of the neighbouring slices by up"
                f" to {most:.1f} times; it changes slowly over the rest of the series.",
                odd,
            )


def _beyond(
    slices: Sequence[tuple[SliceResult, Traces]], apart: Numbers, bound: float
) -> list[SliceResult]:
    return [
        frame for (frame, _), distance in zip(slices, apart, strict=True) if abs(distance) > bound
    ]


def _table(study: Study) -> Iterator[Evidence]:
    """Table height within a stack, and the slice location against the position."""
    for stack in study.stacks:
        for keyword, measure in (("TableHeight", _height), ("SliceLocation", _location)):
            if odd := _displaced(stack, measure):
                yield Evidence(
                    f"{keyword} of {objects(odd)} does not fit the rest of the series.", odd
                )


type _Measure = Callable[[Stack, int], float | None]


def _height(stack: Stack, index: int) -> float | None:
    return _number(stack.frames[index], "TableHeight")


def _location(stack: Stack, index: int) -> float | None:
    """Slice location less the position along the normal, whichever way the scanner counts."""
    location = _number(stack.frames[index], "SliceLocation")
    if location is None:
        return None
    first = _number(stack.frames[0], "SliceLocation")
    last = _number(stack.frames[-1], "SliceLocation")
    rising = first is None or last is None or last >= first
    return location - stack.offsets[index] * (1 if rising else -1)


def _displaced(stack: Stack, measure: _Measure) -> list[SliceResult]:
    known = [
        (frame, value)
        for index, frame in enumerate(stack.frames)
        if (value := measure(stack, index)) is not None
    ]
    if len(known) < 4:
        return []
    middle = float(np.median([value for _, value in known]))
    odd = [frame for frame, value in known if abs(value - middle) > TABLE_MM]
    return odd if len(odd) <= MAX_SHARE * len(known) else []


def _number(frame: SliceResult, keyword: str) -> float | None:
    try:
        value = float(frame.acquisition.get(keyword, "").partition("\\")[0])
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _not_measured(study: Study) -> Iterator[Evidence]:
    if frames := [one for one in study.frames if NOT_MEASURED in one.notes]:
        yield Evidence(
            f"A forensic measurement of {objects(frames)} failed: the checks know less of them.",
            frames,
        )


CHECKS = (
    Check("not-measured", _not_measured),
    Check("noise-outlier", _noise),
    Check("sharpness-outlier", _sharpness),
    Check("table-outlier", _table),
)
