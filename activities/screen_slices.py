"""``screen_slices``: one batch of objects through the detector."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import azure.durable_functions as df

from activities.faults import only_transient_faults_raise
from slicewatch import inventory, settings, storage
from slicewatch.messages import BatchRequest

bp = df.Blueprint()


@bp.activity_trigger(input_name="request")
@only_transient_faults_raise
def screen_slices(request: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `BatchRequest`; output: `BatchResult`. The slice results go to a blob."""
    from slicewatch import custody_record, model_registry, screening
    from slicewatch.limits import Limits

    wanted = BatchRequest.from_json(request)
    store, registry = storage.current(), model_registry.current()
    done = inventory.result_counts(store, wanted.study, wanted.batch, registry.digest)
    if done is not None:
        # An earlier run may have ended between the results and their entry.
        custody_record.screening(store, settings.current(), wanted.study, done, registry)
        return done.to_json()
    entries = inventory.manifest(store, wanted.study, wanted.batch)
    load: Callable[[str], bytes] = partial(store.read, storage.INCOMING)
    slices = screening.screen(
        [(entry.blob, entry.sha256, partial(load, entry.blob)) for entry in entries],
        registry,
        Limits.of(settings.current()),
        threads=settings.current().onnx_threads,
        forensics=settings.current().forensic_features == "on",
    )
    counts = screening.count(wanted.batch, slices)
    inventory.write_results(store, wanted.study, wanted.batch, registry.digest, slices, counts)
    custody_record.screening(store, settings.current(), wanted.study, counts, registry)
    return counts.to_json()
