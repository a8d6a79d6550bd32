"""What an integrity check is: a function from a study to its evidence, and a line of a table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from slicewatch.issue_codes import ISSUES
from slicewatch.records import SliceResult
from slicewatch.stacks import Stack, distinct, stacks


@dataclass(frozen=True, slots=True)
class Study:
    """What the checks look at.

    Attributes:
        frames: one result a frame (or undecoded object), sorted by UIDs, frame and content.
        series: the same by SeriesInstanceUID.
        received: when the last object came, UTC; ``None`` when that is not known.
    """

    study_instance_uid: str
    frames: tuple[SliceResult, ...]
    series: dict[str, tuple[SliceResult, ...]]
    stacks: tuple[Stack, ...]
    received: datetime | None


class Evidence(NamedTuple):
    """What a check found: a sentence free of patient data, and the frames concerned."""

    explanation: str
    frames: Sequence[SliceResult]


class Check(NamedTuple):
    """One line of the table."""

    code: str
    look: Callable[[Study], Iterable[Evidence]]

    @property
    def severity(self) -> str:
        """By `issue_codes.ISSUES`."""
        return ISSUES[self.code]


def study_of(
    slices: Iterable[SliceResult], study_instance_uid: str, received: datetime | None
) -> Study:
    """Sort a study's results for the checks; a frame given twice counts once."""
    frames = distinct(slices)
    series: dict[str, list[SliceResult]] = defaultdict(list)
    for frame in frames:
        series[frame.series_instance_uid].append(frame)
    return Study(
        study_instance_uid=study_instance_uid or usual(one.study_instance_uid for one in frames),
        frames=frames,
        series={uid: tuple(series[uid]) for uid in sorted(series)},
        stacks=stacks(frames)[0],
        received=received.astimezone(UTC) if received else None,
    )


def usual(values: Iterable[str]) -> str:
    """The most frequent value that is not empty; of equally frequent ones the first by name."""
    counts = Counter(value for value in values if value)
    return min(counts, key=lambda value: (-counts[value], value), default="")


def odd_ones(
    frames: Iterable[SliceResult], value_of: Callable[[SliceResult], str]
) -> list[SliceResult]:
    """The frames whose value is neither empty nor the usual one."""
    frames = list(frames)
    expected = usual(map(value_of, frames))
    return [frame for frame in frames if value_of(frame) not in ("", expected)]


def objects(frames: Iterable[SliceResult]) -> str:
    """Their number in words."""
    count = len({frame.blob for frame in frames})
    return f"{count} object" if count == 1 else f"{count} objects"
