"""Quality of a detector, as a radiologist and a statistician would ask for it.

Slices: average precision as COCO defines it (101 recall points, IoU 0.5 to 0.95), with bootstrap
intervals over patients, for slices of one patient are no independent samples; FROC (sensitivity
against false positives a slice); calibration of the scores.
Rates of studies: Wilson score intervals (Wilson, JASA 22:209, 1927).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IOUS = np.arange(0.5, 0.96, 0.05)
RECALLS = np.linspace(0, 1, 101)
FROC_POINTS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)

type Floats = NDArray[np.float64]
type Bools = NDArray[np.bool_]
type Ints = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Slice:
    """Ground truth and detections of one slice, all in the same pixels.

    Attributes:
        patient: groups slices for the bootstrap.
        truth: (n, 4) boxes; truth_classes: (n,).
        boxes: (m, 4); scores: (m,); classes: (m,).
    """

    patient: str
    truth: Floats
    truth_classes: Ints
    boxes: Floats
    scores: Floats
    classes: Ints


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def iou_matrix(a: Floats, b: Floats) -> Floats:
    """IoU of every pair: (n, 4), (m, 4) → (n, m)."""
    width = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0])
    height = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1])
    shared = np.clip(width, 0, None) * np.clip(height, 0, None)
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    return np.asarray(shared / np.maximum(area_a[:, None] + area_b - shared, 1e-12), np.float64)


def matches(item: Slice, label: int, ious: Floats = IOUS) -> tuple[Floats, Bools]:
    """Match one class' detections to its truth, the highest score first, each truth once.

    Returns:
        scores (k,) in descending order, and whether each is a hit at each IoU (k, len(ious)).
    """
    chosen = np.flatnonzero(item.classes == label)
    chosen = chosen[np.argsort(-item.scores[chosen], kind="stable")]
    truth = item.truth[item.truth_classes == label]
    hits = np.zeros((len(chosen), len(ious)), np.bool_)
    if len(truth) and len(chosen):
        overlap = iou_matrix(item.boxes[chosen], truth)
        for column, least in enumerate(ious):
            free = np.ones(len(truth), np.bool_)
            for row in range(len(chosen)):
                candidates = np.where(free, overlap[row], -1.0)
                best = int(candidates.argmax())
                if candidates[best] >= least:
                    hits[row, column] = True
                    free[best] = False
    return item.scores[chosen], hits


@dataclass(frozen=True, slots=True)
class _Pool:
    """All detections of one class, by descending score, and what bootstrap weights need."""

    hits: Bools
    scores: Floats
    patient: Ints
    truths: Floats
    """Number of true boxes of each patient."""


def _pool(slices: Sequence[Slice], label: int, patients: dict[str, int]) -> _Pool:
    scores, hits, owner = [], [], []
    truths = np.zeros(len(patients))
    for item in slices:
        own_scores, own_hits = matches(item, label)
        scores.append(own_scores)
        hits.append(own_hits)
        owner.append(np.full(len(own_scores), patients[item.patient]))
        truths[patients[item.patient]] += np.count_nonzero(item.truth_classes == label)
    all_scores = np.concatenate(scores)
    order = np.argsort(-all_scores, kind="stable")
    return _Pool(
        np.concatenate(hits)[order], all_scores[order], np.concatenate(owner)[order], truths
    )


def _average_precision(pool: _Pool, weights: Floats) -> Floats:
    """AP at each IoU, every patient counted `weights` times; NaN without any truth."""
    total = float(weights @ pool.truths)
    if total == 0:
        return np.full(len(IOUS), np.nan)
    each = weights[pool.patient]
    result = np.zeros(len(IOUS))
    for column in range(len(IOUS)):
        hit = np.cumsum(each * pool.hits[:, column])
        seen = np.cumsum(each)
        recall = hit / total
        precision = hit / np.maximum(seen, 1e-12)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        index = np.searchsorted(recall, RECALLS, side="left")
        padded = np.append(envelope, 0.0)
        result[column] = padded[np.minimum(index, len(envelope))].mean()
    return result


@dataclass(frozen=True, slots=True)
class Precision:
    """mAP over the classes that have truth, and AP at IoU 0.5 of each class."""

    map50: Interval
    map50_95: Interval
    ap50: tuple[Interval, ...]


def mean_average_precision(
    slices: Sequence[Slice], classes: int, *, rounds: int = 500, seed: int = 0
) -> Precision:
    """mAP with percentile bootstrap intervals over patients.

    Args:
        slices: at least one.
        classes: number of classes.
        rounds: bootstrap samples.
        seed: of the resampling.
    """
    names = sorted({item.patient for item in slices})
    patients = {name: index for index, name in enumerate(names)}
    pools = [_pool(slices, label, patients) for label in range(classes)]
    rng = np.random.default_rng(seed)
    draws = [np.ones(len(names))] + [
        np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names)).astype(float)
        for _ in range(rounds)
    ]
    table = np.array([[_average_precision(pool, draw) for pool in pools] for draw in draws])
    at50, mean = table[:, :, 0], table.mean(axis=2)
    return Precision(
        _percentiles(_nan_mean(at50)),
        _percentiles(_nan_mean(mean)),
        tuple(_percentiles(at50[:, label]) for label in range(classes)),
    )


def _nan_mean(table: Floats) -> Floats:
    known = ~np.isnan(table)
    count = known.sum(axis=1)
    total = np.where(known, table, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _percentiles(values: Floats) -> Interval:
    """The first value is the estimate, the rest its bootstrap samples."""
    sampled = values[1:][~np.isnan(values[1:])]
    if not sampled.size:
        return Interval(float(values[0]), math.nan, math.nan)
    low, high = np.percentile(sampled, [2.5, 97.5])
    return Interval(float(values[0]), float(low), float(high))


@dataclass(frozen=True, slots=True)
class Froc:
    """Free-response ROC: for each threshold, false positives a slice and lesion sensitivity."""

    thresholds: Floats
    false_positives: Floats
    sensitivity: Floats

    def at(self, false_positives: float) -> float:
        """Highest sensitivity with at most that many false positives a slice."""
        allowed = self.false_positives <= false_positives
        return float(self.sensitivity[allowed].max()) if allowed.any() else 0.0


def froc(slices: Sequence[Slice], classes: int, iou: float = 0.5) -> Froc:
    """FROC over all classes; a lesion counts as found at `iou` or more by a box of its class."""
    scores, hits, truths = [], [], 0
    for item in slices:
        truths += len(item.truth)
        for label in range(classes):
            own_scores, own_hits = matches(item, label, np.array([iou]))
            scores.append(own_scores)
            hits.append(own_hits[:, 0])
    all_scores, all_hits = np.concatenate(scores), np.concatenate(hits)
    order = np.argsort(-all_scores, kind="stable")
    hit = all_hits[order]
    return Froc(
        all_scores[order],
        np.asarray(np.cumsum(~hit) / len(slices), np.float64),
        np.asarray(np.cumsum(hit) / max(truths, 1), np.float64),
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scores in bins against the share of true boxes among them."""

    edges: Floats
    score: Floats
    precision: Floats
    count: Ints
    error: float
    """Expected calibration error, weighted by the bins' counts."""


def calibration(slices: Sequence[Slice], classes: int, bins: int = 10) -> Calibration:
    """How well a score says the probability that the box is a lesion at IoU 0.5."""
    pairs = [matches(item, label, np.array([0.5])) for item in slices for label in range(classes)]
    scores = np.concatenate([pair[0] for pair in pairs])
    hits = np.concatenate([pair[1][:, 0] for pair in pairs])
    keep = scores >= 0.05  # below, boxes are numberless and nobody reads their scores
    scores, hits = scores[keep], hits[keep]
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.digitize(scores, edges) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    some = np.maximum(count, 1)
    mean = np.bincount(index, scores, bins) / some
    precision = np.bincount(index, hits.astype(float), bins) / some
    error = float((np.abs(mean - precision) * count).sum()) / max(int(count.sum()), 1)
    return Calibration(edges, mean, precision, count, error)


def f1_by_threshold(
    slices: Sequence[Slice], classes: int, thresholds: Floats
) -> tuple[Floats, Floats]:
    """Recall and F1 of boxes at IoU 0.5 for each threshold, all classes together."""
    pairs = [matches(item, label, np.array([0.5])) for item in slices for label in range(classes)]
    scores = np.concatenate([pair[0] for pair in pairs])
    hits = np.concatenate([pair[1][:, 0] for pair in pairs])
    truths = max(sum(len(item.truth) for item in slices), 1)
    kept = np.array([np.count_nonzero(scores >= t) for t in thresholds], np.float64)
    true = np.array([np.count_nonzero(hits & (scores >= t)) for t in thresholds], np.float64)
    return true / truths, 2 * true / np.maximum(kept + truths, 1)


def wilson(successes: int, trials: int, z: float = 1.959964) -> Interval:
    """Share with its Wilson score interval; NaN without trials."""
    if trials == 0:
        return Interval(math.nan, math.nan, math.nan)
    share = successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    half /= 1 + z**2 / trials
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))
