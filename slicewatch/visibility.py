"""What of a review is shown to whom: the forensic lane is invisible to those without its role."""

from __future__ import annotations

import dataclasses

from slicewatch.identity import Identity
from slicewatch.records import Lane, Review, StudyStatus
from slicewatch.review import unflagged_status


def shown(review: Review, identity: Identity) -> Review:
    """The review as this identity may see it.

    Without the forensic lane: no flag of it, no integrity issue, no rule of it at a finding; and
    the status of a study that this lane alone flagged is what its coverage says.
    """
    if identity.sees_forensic:
        return review
    lanes = tuple(flag for flag in review.lanes if flag.lane is not Lane.FORENSIC)
    rules = {rule for flag in lanes for rule in flag.rules}
    status = review.status
    if review.lanes and not lanes and status is StudyStatus.FLAGGED:
        status = unflagged_status(review.coverage)
    findings = tuple(
        dataclasses.replace(finding, rules=tuple(rule for rule in finding.rules if rule in rules))
        for finding in review.findings
    )
    folded = review.folded_findings
    if not lanes:
        folded = tuple(dataclasses.replace(one, flagged=0) for one in folded)
    return dataclasses.replace(
        review, lanes=lanes, status=status, findings=findings, integrity=(), folded_findings=folded
    )
