"""Quality of the flag: what triage would say of whole studies, as a function of the threshold.

The flag is made by the very code that serves: detections at or above the threshold are linked
into findings (`slicewatch.findings`) and judged by a triage policy (`slicewatch.triage`). A unit
is one modality of one study.

* sensitivity: units with a lesion where a finding that the policy flags touches the lesion;
* false flags: findings that the policy flags and that touch no lesion, per unit;
* specificity: units without a lesion that raise no flag;
* free stretches: runs of at least `STRETCH` slices without a lesion, judged as if each were a
  study; the `MARGIN` slices next to a lesion are left out, for its poles fade and who outlined it
  stopped somewhere. Where every study holds a lesion, they are the only evidence of specificity.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from slicewatch.findings import link
from slicewatch.records import Finding, Lane
from slicewatch.triage import Policy, triage
from training.cases import Case, with_detections
from training.metrics import Floats, Interval, iou_matrix, wilson

STRETCH = 6
MARGIN = 2
THRESHOLDS: Floats = np.round(np.arange(0.05, 0.951, 0.025), 3)
_TOUCH = 0.1
"""IoU from which a finding's box on a slice touches a lesion."""


@dataclass(frozen=True, slots=True)
class Flags:
    """Counts at one threshold."""

    threshold: float
    with_lesion: int
    found: int
    free: int
    free_flagged: int
    units: int
    false_flags: int
    stretches: int
    stretches_flagged: int

    @property
    def sensitivity(self) -> Interval:
        return wilson(self.found, self.with_lesion)

    @property
    def specificity(self) -> Interval:
        return wilson(self.free - self.free_flagged, self.free)

    @property
    def stretch_specificity(self) -> Interval:
        return wilson(self.stretches - self.stretches_flagged, self.stretches)

    @property
    def false_flags_per_study(self) -> float:
        return self.false_flags / max(self.units, 1)


def flags_at(cases: Sequence[Case], policy: Policy, threshold: float) -> Flags:
    """Judge every unit at one threshold."""
    units: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        kept = tuple(d for d in case.result.detections if d.score >= threshold)
        units[case.unit].append(with_detections(case, kept))
    found = with_lesion = free_flagged = false_flags = stretches = stretches_flagged = 0
    for members in units.values():
        flagged = _flagged(members, policy)
        true = [finding for finding in flagged if _touches(finding, members)]
        false_flags += len(flagged) - len(true)
        if any(case.truth for case in members):
            with_lesion += 1
            found += bool(true)
        else:
            free_flagged += bool(flagged)
        for stretch in free_stretches(members):
            stretches += 1
            stretches_flagged += bool(_flagged(stretch, policy))
    free = len(units) - with_lesion
    return Flags(
        threshold,
        with_lesion,
        found,
        free,
        free_flagged,
        len(units),
        false_flags,
        stretches,
        stretches_flagged,
    )


def _flagged(members: Sequence[Case], policy: Policy) -> list[Finding]:
    """Findings that bring a unit to the clinical lane."""
    findings = link([case.result for case in members])
    modalities = {case.result.series_instance_uid: case.modality for case in members}
    clinical = {rule.name for rule in policy.rules if rule.lane is Lane.CLINICAL}
    judged = triage(policy, findings, (), modalities)
    pairs = zip(findings, judged.rules_met, strict=True)
    return [finding for finding, rules in pairs if clinical.intersection(rules)]


def _touches(finding: Finding, members: Sequence[Case]) -> bool:
    truth = {
        (case.result.sop_instance_uid, case.result.frame): case.truth
        for case in members
        if case.truth
    }
    for item in finding.slices:
        boxes = truth.get((item.sop_instance_uid, item.frame), ())
        if boxes:
            lesions = np.array([lesion.box for lesion in boxes], np.float64)
            if iou_matrix(np.array([item.box], np.float64), lesions).max() >= _TOUCH:
                return True
    return False


def free_stretches(unit: Sequence[Case]) -> Iterator[list[Case]]:
    """Runs of at least `STRETCH` neighbouring slices of a series without a lesion."""
    series: dict[str, list[Case]] = defaultdict(list)
    for case in unit:
        series[case.result.series_instance_uid].append(case)
    for slices in series.values():
        ordered = sorted(slices, key=lambda item: item.order)
        lesions = [place for place, case in enumerate(ordered) if case.truth]
        near = {place + step for place in lesions for step in range(-MARGIN, MARGIN + 1)}
        runs = groupby(enumerate(ordered), key=lambda item: item[0] in near)
        for beside_lesion, run in runs:
            members = [case for _, case in run]
            if not beside_lesion and len(members) >= STRETCH:
                yield members


def choose_threshold(curve: Sequence[Flags]) -> tuple[Flags, str]:
    """The shipped threshold, and the rule in words.

    The highest study sensitivity less false flags a study; of several the middle. A bound on the
    false flags alone would hang on a single one where there are few studies.
    """
    worth = [point.sensitivity.value - point.false_flags_per_study for point in curve]
    best = [point for point, value in zip(curve, worth, strict=True) if value >= max(worth) - 1e-9]
    rule = (
        "validation patients: highest study sensitivity less false flags a study, "
        "the middle of several"
    )
    return best[len(best) // 2], rule
