"""Compression and resampling: their traces in the pixels, and what the tags say of them."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from slicewatch.checks import Check, Evidence, Study, objects
from slicewatch.records import SliceResult, Traces
from slicewatch.transfer_syntaxes import LOSSY

COMB = 40.0
"""One slice: its coefficients alone are enough …"""
COMB_AND_BLOCKS = 25.0, 4.0
"""… or, where they are less clear, together with its block edges."""
SERIES_COMB = 25.0
SERIES_PERIODICITY = 60.0
"""Medians over a series: what one slice may show by chance, the half of them does not."""
MIN_SLICES = 5


def _is_declared(frame: SliceResult) -> bool:
    return any(note.startswith("lossy:") for note in frame.notes)


def _measured(study: Study) -> Iterator[list[tuple[SliceResult, Traces]]]:
    """By series, the slices that are said to be no product of lossy compression."""
    for frames in study.series.values():
        yield [(one, one.traces) for one in frames if one.traces and not _is_declared(one)]


def _compressed(study: Study) -> Iterator[Evidence]:
    for slices in _measured(study):
        odd = [frame for frame, traces in slices if _is_quantised(traces)]
        many = len(slices) >= MIN_SLICES
        if many and median(traces.comb for _, traces in slices) > SERIES_COMB:
            odd = [frame for frame, _ in slices]
        if odd:
            yield Evidence(
                f"{objects(odd)} show the 8 × 8 blocks of JPEG compression, and their attributes"
                " say nothing of it.",
                odd,
            )


def _is_quantised(traces: Traces) -> bool:
    comb, blocks = COMB_AND_BLOCKS
    return traces.comb > COMB or (traces.comb > comb and traces.blocks > blocks)


def _resampled(study: Study) -> Iterator[Evidence]:
    for slices in _measured(study):
        original = [one for one in slices if _is_original(one[0])]
        if len(original) < MIN_SLICES or any(_is_quantised(traces) for _, traces in original):
            continue
        if median(traces.periodicity for _, traces in original) > SERIES_PERIODICITY:
            frames = [frame for frame, _ in original]
            yield Evidence(
                f"The noise of {objects(frames)} is periodic, as after interpolation to another"
                " pixel size, though they are said to be original.",
                frames,
            )


def _is_original(frame: SliceResult) -> bool:
    return frame.acquisition.get("ImageType", "").startswith("ORIGINAL")


# --- what the tags say ------------------------------------------------------------------------


def _undeclared(study: Study) -> Iterator[Evidence]:
    for frames in study.series.values():
        odd = [
            one
            for one in frames
            if one.transfer_syntax_uid in LOSSY
            and one.acquisition.get("LossyImageCompression") == "00"
        ]
        if odd:
            yield Evidence(
                f"{objects(odd)} are stored with lossy compression, and LossyImageCompression says"
                " that they never were.",
                odd,
            )


def _contradictory(study: Study) -> Iterator[Evidence]:
    for frames in study.series.values():
        odd = [
            one
            for one in frames
            if one.acquisition.get("LossyImageCompression") == "00"
            and one.transfer_syntax_uid not in LOSSY
            and ("LossyImageCompressionMethod" in one.acquisition or _has_ratio(one))
        ]
        if odd:
            yield Evidence(
                f"{objects(odd)} give the ratio or the method of a lossy compression that"
                " LossyImageCompression denies.",
                odd,
            )


def _has_ratio(frame: SliceResult) -> bool:
    text = frame.acquisition.get("LossyImageCompressionRatio", "").rpartition("\\")[2]
    try:
        return float(text) > 1
    except ValueError:
        return False


def _mixed(study: Study) -> Iterator[Evidence]:
    for frames in study.series.values():
        images = [one for one in frames if one.frame]
        lossy = [one for one in images if _is_declared(one)]
        odd = min(lossy, [one for one in images if not _is_declared(one)], key=len)
        if odd:
            which = "were" if odd is lossy else "were not"
            yield Evidence(
                f"{objects(odd)} {which} compressed with loss, unlike the rest of the series.", odd
            )


CHECKS = (
    Check("compression-traces", _compressed),
    Check("resampling-traces", _resampled),
    Check("lossy-undeclared", _undeclared),
    Check("lossy-contradiction", _contradictory),
    Check("lossy-mixed", _mixed),
)
