"""Regions that were copied, within a slice or from one slice to another.

Noise never repeats: a window of 8 × 8 pixels with structure whose differences are the same, bit
for bit, at two places was copied. A copy that was scaled, turned, or changed in value by more than
an offset does not repeat exactly, and is not seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from slicewatch.checks import Check, Evidence, Study, objects
from slicewatch.forensics.windows import HASH_BITS, unpack_landmarks
from slicewatch.records import SliceResult

MIN_WITHIN = 4
"""Sampled windows (one of eight) that must repeat at one displacement within a slice."""
MAX_CHANCE = 1e-3
"""Pairs of landmarks that may be equal by chance in a series. Where it would be more (from about
a thousand slices on), two slices must share two of them at one displacement."""
MAX_PLACES = 4
"""A window at the same place of more slices than this is burned in: a logo, a scale."""


def _within(study: Study) -> Iterator[Evidence]:
    for frames in study.series.values():
        odd = [one for one in frames if one.traces and one.traces.copies[0] >= MIN_WITHIN]
        if odd:
            yield Evidence(
                f"A region of {objects(odd)} repeats pixel for pixel at another place of the same"
                " slice.",
                odd,
            )


def _between(study: Study) -> Iterator[Evidence]:
    for frames in study.series.values():
        measured = [one for one in frames if one.traces is not None]
        pairs = _shared(measured)
        odd = sorted({index for pair in pairs for index in pair})
        if odd:
            concerned = [measured[index] for index in odd]
            yield Evidence(
                f"{objects(concerned)} share a region pixel for pixel with another slice of the"
                " series.",
                concerned,
            )


def _shared(frames: Sequence[SliceResult]) -> list[tuple[int, int]]:
    """Pairs of slices (by index) that share landmarks at one displacement, beyond chance."""
    unpacked = [unpack_landmarks(one.traces) for one in frames if one.traces is not None]
    if not unpacked:
        return []
    hashes = np.concatenate([hashes for hashes, _ in unpacked])
    places = np.concatenate([places for _, places in unpacked])
    owners = np.repeat(np.arange(len(unpacked)), [len(hashes) for hashes, _ in unpacked])
    order = np.lexsort((owners, hashes))
    hashes, places, owners = hashes[order], places[order], owners[order]
    starts = np.flatnonzero(np.diff(hashes, prepend=-1))
    stops = np.append(starts[1:], len(hashes))
    votes: dict[tuple[int, int, int, int], int] = defaultdict(int)
    for start, stop in zip(starts, stops, strict=True):
        if not 2 <= stop - start <= MAX_PLACES:
            continue
        for one in range(start, stop):
            for other in range(one + 1, stop):
                a, b = int(owners[one]), int(owners[other])
                if a != b and frames[a].pixel_sha256 != frames[b].pixel_sha256:
                    dy, dx = (places[other] - places[one]).tolist()
                    votes[a, b, dy, dx] += 1
    by_chance = len(hashes) ** 2 / 2 / (1 << HASH_BITS)
    needed = 1 if by_chance < MAX_CHANCE else 2
    return [key[:2] for key, count in votes.items() if count >= needed]


CHECKS = (
    Check("copied-region", _within),
    Check("copied-region-between-slices", _between),
)
