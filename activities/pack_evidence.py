"""``pack_evidence``: one part of an evidence bundle, staged as blocks of its blob."""

from __future__ import annotations

import azure.durable_functions as df

from activities.faults import only_transient_faults_raise
from slicewatch import storage
from slicewatch.evidence_messages import EvidencePart

bp = df.Blueprint()


@bp.activity_trigger(input_name="part")
@only_transient_faults_raise
def pack_evidence(part: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `EvidencePart`; output: the same. Where its files are goes to a blob."""
    from slicewatch import evidence

    wanted = EvidencePart.from_json(part)
    evidence.pack(storage.current(), wanted)
    return wanted.to_json()
