"""Distances between the slices of a stack: gaps, uneven steps, and the ends of stacks.

A step is judged by the median step between slices of the same thickness, so that one missing
slice does not move the yardstick and a protocol that changes its thickness on the way is no gap.
What lies outside the first and the last slice leaves no trace in the spacing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import median

from slicewatch.records import SliceResult
from slicewatch.stacks import Stack

MIN_PLANES = 4
"""With fewer there is no usual step; localizers mostly have no more."""
MIN_STACK = 3
"""Planes on either side that make a wide step the end of a stack."""
GAP = 1.5
STACK_BREAK = 3.0
"""In usual steps: a slice is missing from `GAP` on; a wide step may end a stack from
`STACK_BREAK` on, when the instance numbers go on over it."""
UNEVEN_SHARE = 0.1
UNEVEN_MM = 0.15
"""A step is uneven beyond both bounds: some systems round positions to a tenth of a mm."""


class Kind(Enum):
    """What is wrong with a step."""

    GAP = "gap"
    UNEVEN = "uneven"
    STACK_BREAK = "stack break"


@dataclass(frozen=True, slots=True)
class Step:
    """An irregular step above the plane `below`; both lengths in mm."""

    kind: Kind
    below: int
    length: float
    usual: float


def regular_stacks(stacks: Iterable[Stack]) -> Iterator[Stack]:
    """The stacks that ought to be evenly spaced.

    A series of several orientations is a localizer or a radial acquisition, unless most of its
    frames lie in one of them.
    """
    stacks = list(stacks)
    frames: Counter[str] = Counter()
    for stack in stacks:
        frames[stack.series_instance_uid] += len(stack.frames)
    for stack in stacks:
        leads = 2 * len(stack.frames) > frames[stack.series_instance_uid]
        if leads and len(stack.plane_offsets) >= MIN_PLANES:
            yield stack


def steps(stack: Stack) -> list[Step]:
    """The irregular steps of a stack, by position."""
    gaps = stack.gaps
    thickness, numbers = _by_plane(stack)
    usual = _usual_steps(gaps, thickness)
    found = []
    for below, (length, expected) in enumerate(zip(gaps, usual, strict=True)):
        wide = length > GAP * expected
        even = abs(length - expected) <= max(UNEVEN_SHARE * expected, UNEVEN_MM)
        changes = thickness[below] != thickness[below + 1]
        if wide and length >= STACK_BREAK * expected and _ends_stack(below, numbers):
            found.append(Step(Kind.STACK_BREAK, below, length, expected))
        elif wide:
            found.append(Step(Kind.GAP, below, length, expected))
        elif not even and not changes:
            found.append(Step(Kind.UNEVEN, below, length, expected))
    return found


def explain(kind: Kind, found: Sequence[Step]) -> str:
    """One sentence for all steps of one kind of a stack."""
    usual = f"{found[0].usual:.2f} mm"
    longest = max(step.length for step in found)
    if kind is Kind.GAP:
        missing = sum(max(1, round(step.length / step.usual) - 1) for step in found)
        where = "one gap" if len(found) == 1 else f"{len(found)} gaps"
        return (
            f"About {missing} {'slice is' if missing == 1 else 'slices are'} missing in {where} of"
            f" up to {longest:.2f} mm; the usual spacing is {usual}."
        )
    if kind is Kind.STACK_BREAK:
        return (
            f"The series falls into {len(found) + 1} stacks, up to {longest:.2f} mm apart; its"
            " numbering says that they were planned so."
        )
    shortest = min(step.length for step in found)
    return (
        f"{len(found)} {'step' if len(found) == 1 else 'steps'} between slices of"
        f" {shortest:.2f} to {longest:.2f} mm where {usual} is usual."
    )


def frames_beside(stack: Stack, found: Iterable[Step]) -> list[SliceResult]:
    """The frames on the planes below and above the steps."""
    planes = {plane for step in found for plane in (step.below, step.below + 1)}
    return [
        frame for frame, plane in zip(stack.frames, stack.planes, strict=True) if plane in planes
    ]


def _by_plane(stack: Stack) -> tuple[list[float | None], list[set[int]]]:
    """Thickness (to 0.1 mm) and instance numbers for each plane."""
    thickness: list[float | None] = [None] * len(stack.plane_offsets)
    numbers: list[set[int]] = [set() for _ in stack.plane_offsets]
    for frame, plane in zip(stack.frames, stack.planes, strict=True):
        if frame.geometry.thickness is not None and thickness[plane] is None:
            thickness[plane] = round(frame.geometry.thickness, 1)
        # Frames of one instance share its number; their own numbers go on within it.
        if frame.instance_number is not None:
            numbers[plane].add(frame.frame if frame.frame > 1 else frame.instance_number)
    return thickness, numbers


def _usual_steps(gaps: Sequence[float], thickness: Sequence[float | None]) -> list[float]:
    """For each step the median of those between slices of that thickness."""
    zones: dict[float | None, list[float]] = defaultdict(list)
    for below, length in enumerate(gaps):
        if thickness[below] == thickness[below + 1]:
            zones[thickness[below]].append(length)
    medians = {zone: median(lengths) for zone, lengths in zones.items() if len(lengths) > 1}
    overall = median(gaps)
    return [
        max(medians.get(thickness[at], overall) for at in (below, below + 1))
        for below in range(len(gaps))
    ]


def _ends_stack(below: int, numbers: Sequence[set[int]]) -> bool:
    """Whether the step lies between two stacks that were numbered on without a gap."""
    if below + 1 < MIN_STACK or len(numbers) - below - 1 < MIN_STACK:
        return False
    return any(abs(a - b) == 1 for a in numbers[below] for b in numbers[below + 1])
