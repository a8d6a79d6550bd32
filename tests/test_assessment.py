"""Assessing a study: a flag stays, and nothing reads as screened that was not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from slicewatch import inventory, triage
from slicewatch.assessment import RAISED_EARLIER, assess
from slicewatch.messages import Assessment, AssessRequest, InventoryRequest
from slicewatch.model_registry import Registry
from slicewatch.records import (
    BatchResult,
    Detection,
    Geometry,
    Lane,
    Outcome,
    Reason,
    SliceResult,
    StudyStatus,
)
from slicewatch.settings import Settings
from slicewatch.storage import INCOMING, Conflict, Storage
from tests.tiny_model import write_tiny_model

NOW = "2026-01-01T00:00:00"


@pytest.fixture
def study(seed: int) -> str:
    return f"1.2.826.1.{seed}"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    write_tiny_model(tmp_path)
    return Registry.load(tmp_path)


def screen(storage: Storage, study: str, registry: Registry, masses: dict[int, bool]) -> None:
    """Store objects by slice number and screen them: a mass where the value says so."""
    for number in masses:
        digest = hashlib.sha256(f"{study}{number}".encode()).hexdigest()
        name = f"{study}/{study}.1/{study}.1.{number}.dcm"
        storage.write(INCOMING, name, b"x", metadata={"sha256": digest})
    taken = inventory.take(
        storage,
        InventoryRequest(study, flush=True),
        models_digest=registry.digest,
        batch_size=32,
        batch_wait_s=0,
    )
    for batch in taken.batches:
        entries = inventory.manifest(storage, study, batch)
        slices = [one_slice(study, e.blob, e.sha256, registry, masses) for e in entries]
        counts = BatchResult(batch, len(slices), 0, 0, 0)
        inventory.write_results(storage, study, batch, registry.digest, slices, counts)


def one_slice(
    study: str, blob: str, sha256: str, registry: Registry, masses: dict[int, bool]
) -> SliceResult:
    number = int(blob.removesuffix(".dcm").rsplit(".", 1)[-1])
    found = (Detection("bright_region", 0.9, (10, 10, 40, 40)),) if masses[number] else ()
    return SliceResult(
        blob,
        sha256,
        Outcome.SCREENED,
        study_instance_uid=study,
        series_instance_uid=f"{study}.1",
        sop_instance_uid=f"{study}.1.{number}",
        frame=1,
        modality="CT",
        rows=64,
        columns=64,
        geometry=Geometry((0, 0, 3.0 * number), (1, 0, 0, 0, 1, 0), (1, 1), 3, "1.9"),
        pixel_sha256=sha256,
        model=registry.models[0].key,
        detections=found,
    )


def assessed(storage: Storage, study: str, registry: Registry, **changes: Any) -> Assessment:
    policy = changes.get("policy") or triage.load_policy(Settings().policy)
    return assess(storage, AssessRequest(study, NOW, NOW, NOW), registry=registry, policy=policy)


def test_assessing_again_makes_no_new_generation(
    storage: Storage, study: str, registry: Registry
) -> None:
    screen(storage, study, registry, {n: n in (4, 5, 6) for n in range(10)})
    first = assessed(storage, study, registry)
    again = assessed(storage, study, registry)
    assert (first.generation, first.status) == (1, StudyStatus.FLAGGED)
    assert (again.generation, again.content_digest) == (1, first.content_digest)


def test_late_slices_never_take_a_flag_away(
    storage: Storage, study: str, registry: Registry
) -> None:
    # With every second slice the two detections are neighbours, with all of them they are not.
    masses = {n: n in (2, 6) for n in range(20)}
    screen(storage, study, registry, {n: masses[n] for n in range(0, 20, 2)})
    first = assessed(storage, study, registry)
    screen(storage, study, registry, {n: masses[n] for n in range(1, 20, 2)})
    second = assessed(storage, study, registry)
    assert first.status is StudyStatus.FLAGGED
    assert (second.generation, second.status) == (2, StudyStatus.FLAGGED)
    clinical = next(flag for flag in second.lanes if flag.lane is Lane.CLINICAL)
    assert clinical.priority >= first.lanes[0].priority
    assert RAISED_EARLIER in clinical.rules


def test_a_refused_slice_makes_the_study_incomplete(
    storage: Storage, study: str, registry: Registry
) -> None:
    screen(storage, study, registry, dict.fromkeys(range(5), False))
    refused = SliceResult(
        "quarantine/x",
        "00",
        Outcome.REJECTED,
        study_instance_uid=study,
        sop_instance_uid=f"{study}.1.5",
        reason=Reason.TRUNCATED,
    )
    inventory.note_rejection(storage, refused)
    result = assessed(storage, study, registry)
    assert result.status is StudyStatus.INCOMPLETE
    assert inventory.covers(storage, study, result.content_digest)
    review = inventory.read_review(storage, study, 1)
    assert [one.reason for one in review.coverage.rejected] == [Reason.TRUNCATED]


def test_a_study_that_other_models_screened_is_not_assessed(
    storage: Storage, study: str, registry: Registry, tmp_path: Path
) -> None:
    screen(storage, study, registry, {1: False})
    other = tmp_path / "other"
    other.mkdir()
    write_tiny_model(other, version="2.0.0")
    with pytest.raises(Conflict, match="wait for these models"):
        assessed(storage, study, Registry.load(other))
