"""The figures: right on cases that can be worked out by hand, and against a reference."""

from __future__ import annotations

import numpy as np
import pytest

from training.metrics import (
    Slice,
    calibration,
    f1_by_threshold,
    froc,
    mean_average_precision,
    wilson,
)

BOX = (10.0, 10.0, 20.0, 20.0)
FAR = (50.0, 50.0, 60.0, 60.0)


def one(
    patient: str,
    truth: list[tuple[float, ...]],
    found: list[tuple[tuple[float, ...], float]],
    label: int = 0,
) -> Slice:
    return Slice(
        patient,
        np.array(truth, np.float64).reshape(-1, 4),
        np.full(len(truth), label, np.intp),
        np.array([box for box, _ in found], np.float64).reshape(-1, 4),
        np.array([score for _, score in found], np.float64),
        np.full(len(found), label, np.intp),
    )


def test_perfect_detections_have_precision_1_at_every_iou() -> None:
    slices = [one(f"p{n}", [BOX], [(BOX, 0.9)]) for n in range(4)]
    result = mean_average_precision(slices, 1, rounds=20)
    assert result.map50.value == result.map50_95.value == pytest.approx(1)
    assert (result.map50.low, result.map50.high) == pytest.approx((1, 1))


def test_a_false_box_above_the_true_one_halves_the_precision() -> None:
    slices = [one("p", [BOX], [(FAR, 0.9), (BOX, 0.8)])]
    assert mean_average_precision(slices, 1, rounds=0).map50.value == pytest.approx(0.5)


def test_a_lesion_is_found_once_and_its_second_box_is_false() -> None:
    slices = [one("p", [BOX, FAR], [(BOX, 0.9), (BOX, 0.8), (FAR, 0.7)])]
    # recall 1/2 at precision 1, then 2/3 once both are found
    expected = (51 * 1 + 50 * 2 / 3) / 101
    assert mean_average_precision(slices, 1, rounds=0).map50.value == pytest.approx(expected)


def test_overlap_decides_at_which_iou_a_box_counts() -> None:
    shifted = (12.0, 10.0, 22.0, 20.0)  # IoU 8/12
    result = mean_average_precision([one("p", [BOX], [(shifted, 0.9)])], 1, rounds=0)
    assert result.map50.value == pytest.approx(1)
    assert result.map50_95.value == pytest.approx(0.4)  # 0.50, 0.55, 0.60, 0.65


def test_a_class_without_truth_does_not_count() -> None:
    slices = [one("p", [BOX], [(BOX, 0.9)], label=1)]
    result = mean_average_precision(slices, 3, rounds=5)
    assert result.map50.value == pytest.approx(1)
    assert np.isnan(result.ap50[0].value)


def test_intervals_come_from_patients_not_slices() -> None:
    # Ten slices of a found patient and ten of a missed one: by slices the interval were narrow.
    slices = [one("found", [BOX], [(BOX, 0.9)]) for _ in range(10)]
    slices += [one("missed", [BOX], []) for _ in range(10)]
    result = mean_average_precision(slices, 1, rounds=300).map50
    assert (result.low, result.high) == pytest.approx((0, 1))


def test_froc_counts_false_boxes_a_slice() -> None:
    slices = [
        one("a", [BOX], [(BOX, 0.9), (FAR, 0.3)]),
        one("b", [BOX], [(FAR, 0.8), (BOX, 0.2)]),
    ]
    curve = froc(slices, 1)
    assert curve.at(0) == 0.5
    assert curve.at(0.5) == 0.5
    assert curve.at(1) == 1.0


def test_calibration_error_is_the_gap_between_score_and_share() -> None:
    honest = [one(f"p{n}", [BOX], [(BOX if n < 7 else FAR, 0.7)]) for n in range(10)]
    assert calibration(honest, 1).error == pytest.approx(0, abs=1e-9)
    boastful = [one(f"p{n}", [BOX], [(FAR, 0.95)]) for n in range(10)]
    assert calibration(boastful, 1).error == pytest.approx(0.95)


def test_f1_is_highest_between_true_and_false_scores() -> None:
    slices = [one("a", [BOX], [(BOX, 0.6), (FAR, 0.2)])]
    recall, f1 = f1_by_threshold(slices, 1, np.array([0.1, 0.4, 0.7]))
    assert recall.tolist() == [1, 1, 0]
    assert f1.tolist() == pytest.approx([2 / 3, 1, 0])


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_intervals_are_those_of_the_literature(
    successes: int, trials: int, low: float, high: float
) -> None:
    # The last is the worked example of Newcombe, Statistics in Medicine 17:857, 1998.
    interval = wilson(successes, trials)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-3)
    assert np.isnan(wilson(0, 0).value)


@pytest.mark.training
def test_average_precision_agrees_with_ultralytics() -> None:
    metrics = pytest.importorskip("ultralytics.utils.metrics")
    from training.metrics import IOUS, matches

    rng = np.random.default_rng(1)
    slices = []
    for n in range(80):
        corner = rng.uniform(0, 60, 2)
        truth = (*corner, *(corner + rng.uniform(10, 30, 2)))
        jitter = [tuple(np.array(truth) + rng.normal(0, 3, 4)) for _ in range(2)]
        slices.append(one(f"p{n % 9}", [truth], [(box, float(rng.uniform())) for box in jitter]))
    pairs = [matches(item, 0, IOUS) for item in slices]
    reference = metrics.ap_per_class(
        np.concatenate([hits for _, hits in pairs]),
        np.concatenate([scores for scores, _ in pairs]),
        np.zeros(sum(len(scores) for scores, _ in pairs)),
        np.zeros(len(slices)),
    )
    own = mean_average_precision(slices, 1, rounds=0)
    assert own.map50.value == pytest.approx(float(reference[5][0, 0]), abs=0.01)
    assert own.map50_95.value == pytest.approx(float(reference[5].mean()), abs=0.01)
