"""The flag's figures: what counts as found, as false, and which threshold is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from slicewatch.dataset import Labelled
from slicewatch.records import Box, Detection, Geometry, Outcome, SliceResult
from slicewatch.triage import load_policy
from training.cases import Case
from training.evaluate import DEFAULT_POLICY
from training.studies import Flags, choose_threshold, flags_at, free_stretches

LESION: Box = (20.0, 20.0, 60.0, 60.0)
ELSEWHERE: Box = (100.0, 100.0, 140.0, 140.0)
POLICY = load_policy(Path(DEFAULT_POLICY))


def stack(
    unit: str, *, truth: dict[int, Box], found: dict[int, tuple[Box, float]], slices: int = 20
) -> list[Case]:
    """A study of one series with 1 mm pixels and 3 mm between its slices."""
    return [
        Case(
            patient=unit,
            unit=unit,
            modality="CT",
            order=n,
            truth=(Labelled("mass", truth[n]),) if n in truth else (),
            result=SliceResult(
                blob=f"{unit}/{n}",
                content_sha256=f"{unit}/{n}",
                outcome=Outcome.SCREENED,
                series_instance_uid=unit,
                sop_instance_uid=f"{unit}.{n}",
                modality="CT",
                frame=1,
                rows=200,
                columns=200,
                geometry=Geometry((0, 0, 3.0 * n), (1, 0, 0, 0, 1, 0), (1, 1), 3.0),
                detections=(Detection("mass", found[n][1], found[n][0]),) if n in found else (),
            ),
        )
        for n in range(slices)
    ]


def boxes(box: Box, score: float, *slices: int) -> dict[int, tuple[Box, float]]:
    return dict.fromkeys(slices, (box, score))


def test_a_finding_on_the_lesion_is_found_and_no_false_flag() -> None:
    cases = stack("a", truth=dict.fromkeys(range(5, 9), LESION), found=boxes(LESION, 0.7, 5, 6, 7))
    flags = flags_at(cases, POLICY, 0.5)
    assert (flags.found, flags.with_lesion, flags.false_flags) == (1, 1, 0)


def test_a_flag_beside_the_lesion_is_false_and_finds_nothing() -> None:
    cases = stack(
        "a", truth=dict.fromkeys(range(5, 9), LESION), found=boxes(ELSEWHERE, 0.7, 5, 6, 7)
    )
    flags = flags_at(cases, POLICY, 0.5)
    assert (flags.found, flags.false_flags) == (0, 1)
    assert flags.false_flags_per_study == 1


def test_what_the_policy_does_not_flag_counts_neither_way() -> None:
    cases = stack("a", truth={5: LESION}, found=boxes(ELSEWHERE, 0.3, 12))
    assert flags_at(cases, POLICY, 0.2).false_flags == 0  # one weak slice alone


def test_the_threshold_hides_what_scores_below() -> None:
    cases = stack("a", truth=dict.fromkeys(range(5, 9), LESION), found=boxes(LESION, 0.4, 5, 6, 7))
    assert flags_at(cases, POLICY, 0.4).found == 1
    assert flags_at(cases, POLICY, 0.41).found == 0


def test_specificity_is_of_units_without_a_lesion() -> None:
    cases = stack("healthy", truth={}, found={})
    cases += stack("flagged", truth={}, found=boxes(LESION, 0.9, 3, 4, 5))
    cases += stack("ill", truth={4: LESION}, found={})
    flags = flags_at(cases, POLICY, 0.5)
    assert flags.specificity.value == 0.5
    assert flags.sensitivity.value == 0


def test_free_stretches_are_the_long_runs_without_a_lesion() -> None:
    cases = stack("a", truth=dict.fromkeys((1, 2, 12), LESION), found={}, slices=21)
    found = [[case.order for case in stretch] for stretch in free_stretches(cases)]
    assert found == [[15, 16, 17, 18, 19, 20]]  # 5 to 9 are too few, and 13 and 14 too near


def point(threshold: float, found: int, false_flags: int) -> Flags:
    return Flags(threshold, 10, found, 0, 0, 10, false_flags, 0, 0)


@pytest.mark.parametrize(
    ("curve", "chosen"),
    [
        # one more found weighs as much as one more false flag; middle of several
        ([(0.1, 10, 5), (0.2, 9, 1), (0.3, 9, 0), (0.4, 9, 0), (0.5, 9, 0), (0.6, 6, 0)], 0.4),
        ([(0.1, 10, 0), (0.2, 9, 0)], 0.1),
        ([(0.1, 8, 9), (0.2, 8, 4), (0.3, 3, 2)], 0.2),
    ],
)
def test_the_shipped_threshold_follows_its_rule(
    curve: list[tuple[float, int, int]], chosen: float
) -> None:
    best, rule = choose_threshold([point(*values) for values in curve])
    assert best.threshold == chosen
    assert "false flags" in rule
