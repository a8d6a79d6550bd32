"""Attributes that contradict each other across the instances of a series or of a study."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import timedelta
from statistics import median

from slicewatch import dicom_times
from slicewatch.checks import Check, Evidence, Study, objects, odd_ones
from slicewatch.records import SliceResult

EQUIPMENT = (
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "StationName",
)
"""One series comes from one machine (PS3.3 section C.7.5.1)."""
SETTINGS = ("KVP", "ConvolutionKernel", "MagneticFieldStrength", "GantryDetectorTilt")
"""What a scanner keeps within a series."""
MAX_SHARE = 1 / 3
"""More than this share is a series of two kinds rather than one with odd slices."""
DOSE_FACTOR = 1.3
APART = timedelta(hours=12)


def _mixed_equipment(study: Study) -> Iterator[Evidence]:
    for frames in study.series.values():
        yield from _odd(frames, EQUIPMENT, "another scanner or software than the rest")


def _mixed_settings(study: Study) -> Iterator[Evidence]:
    for frames in study.series.values():
        yield from _odd(frames, SETTINGS, "other settings of the acquisition than the rest")


def _odd(frames: Iterable[SliceResult], keywords: Iterable[str], what: str) -> Iterator[Evidence]:
    images = [one for one in frames if one.frame]
    keys: dict[str, list[SliceResult]] = {}
    for keyword in keywords:
        odd = odd_ones(images, lambda one, key=keyword: one.acquisition.get(key, ""))  # type: ignore[misc]
        if 0 < len(odd) <= MAX_SHARE * len(images):
            keys[keyword] = odd
    if keys:
        concerned = list({id(one): one for odd in keys.values() for one in odd}.values())
        yield Evidence(
            f"{objects(concerned)} with {what} of the series ({', '.join(keys)}).", concerned
        )


def _one_serial_number(study: Study) -> Iterator[Evidence]:
    """One serial number that belongs to two models, over all series of the study."""
    models: dict[str, dict[tuple[str, str], list[SliceResult]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for frame in study.frames:
        serial = frame.acquisition.get("DeviceSerialNumber", "")
        model = tuple(frame.acquisition.get(key, "").upper() for key in EQUIPMENT[:2])
        if serial and all(model):
            models[serial][model[0], model[1]].append(frame)
    for serial in sorted(models):
        if len(models[serial]) > 1:
            frames = [frame for model in sorted(models[serial]) for frame in models[serial][model]]
            yield Evidence(
                f"One device serial number stands for {len(models[serial])} models of scanner.",
                frames,
            )


# --- dose against exposure --------------------------------------------------------------------


def _exposure(study: Study) -> Iterator[Evidence]:
    """Dose, exposure, current and time are proportional within a series.

    Their ratio is compared rather than computed: vendors give the exposure per rotation, per
    pitch or in total. Where the ratio follows no constant, nothing is said.
    """
    for frames in study.series.values():
        for over, under in (
            (("Exposure",), ("XRayTubeCurrent", "ExposureTime")),
            (("CTDIvol",), ("Exposure",)),
        ):
            if odd := _disproportionate(frames, over, under):
                yield Evidence(
                    f"{' × '.join(over)} of {objects(odd)} does not fit {' × '.join(under)} as in"
                    " the rest of the series.",
                    odd,
                )


def _disproportionate(
    frames: Iterable[SliceResult], over: tuple[str, ...], under: tuple[str, ...]
) -> list[SliceResult]:
    ratios = []
    for frame in frames:
        above, below = (math.prod(_number(frame, key) for key in keys) for keys in (over, under))
        # Of small whole numbers, rounding alone makes up more than what is looked for.
        if above >= 5 or (above > 0 and "CTDIvol" in over and below >= 5):
            ratios.append((frame, above / below if below > 0 else math.inf))
    if len(ratios) < 5:
        return []
    middle = median(ratio for _, ratio in ratios)
    if not 0 < middle < math.inf:
        return []
    odd = [one for one, ratio in ratios if not 1 / DOSE_FACTOR < ratio / middle < DOSE_FACTOR]
    return odd if len(odd) <= MAX_SHARE * len(ratios) else []


def _number(frame: SliceResult, keyword: str) -> float:
    try:
        number = float(frame.acquisition.get(keyword, ""))
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


# --- times ------------------------------------------------------------------------------------


def _apart_in_time(study: Study) -> Iterator[Evidence]:
    """Objects acquired or made on another day than the rest of a series that took no day."""
    for frames in study.series.values():
        for keyword in ("AcquisitionDateTime", "ContentDateTime"):
            spans = []
            for frame in frames:
                try:
                    spans.append((frame, dicom_times.parse(frame.times.get(keyword, ""))))
                except ValueError:
                    continue
            if len(spans) < 5:
                continue
            middle = sorted((span for _, span in spans), key=lambda one: one.earliest)[
                len(spans) // 2
            ]
            odd = [
                frame
                for frame, span in spans
                if max(dicom_times.lead(span, middle), dicom_times.lead(middle, span)) > APART
            ]
            if odd and len(odd) <= MAX_SHARE * len(spans):
                yield Evidence(
                    f"{keyword} of {objects(odd)} lies more than"
                    f" {APART // timedelta(hours=1)} hours from the rest of the series.",
                    odd,
                )


CHECKS = (
    Check("mixed-equipment", _mixed_equipment),
    Check("mixed-settings", _mixed_settings),
    Check("serial-number-shared", _one_serial_number),
    Check("exposure-contradiction", _exposure),
    Check("time-outlier", _apart_in_time),
)
