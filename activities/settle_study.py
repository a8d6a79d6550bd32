"""``settle_study``: whether a review covers all that came, and the study is finished."""

from __future__ import annotations

import azure.durable_functions as df

from activities.faults import only_transient_faults_raise
from slicewatch import storage, unfinished
from slicewatch.messages import Settlement, SettleRequest

bp = df.Blueprint()


@bp.activity_trigger(input_name="request")
@only_transient_faults_raise
def settle_study(request: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `SettleRequest`; output: `Settlement`."""
    wanted = SettleRequest.from_json(request)
    covered = unfinished.settle(
        storage.current(), wanted.study, wanted.content_digest, finished=wanted.finished
    )
    return Settlement(covered).to_json()
