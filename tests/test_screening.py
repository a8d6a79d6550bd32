"""Screening: bytes in, results out, in order; bad data is a result, storage faults raise."""

from __future__ import annotations

import dataclasses
import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid

from slicewatch import screening
from slicewatch.detector import MAX_BATCH
from slicewatch.dicom import Limits, read, read_frames, read_header
from slicewatch.model_registry import ModelError, Registry
from slicewatch.records import Outcome, Reason, SliceResult
from slicewatch.screening import Source, count, screen
from tests import studies
from tests.tiny_model import LABEL, write_tiny_model


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder)
    return Registry.load(folder)


def sources(*objects: bytes) -> list[Source]:
    def fetcher(data: bytes) -> Callable[[], bytes]:
        return lambda: data

    return [(f"object-{n}", f"sha-{n}", fetcher(data)) for n, data in enumerate(objects)]


def run(registry: Registry, *objects: bytes, limits: Limits | None = None) -> list[SliceResult]:
    return screen(sources(*objects), registry, limits or Limits(), threads=1)


def test_slices_with_a_lesion_are_detected_and_others_are_not(registry: Registry) -> None:
    series = studies.ct_series(2 * MAX_BATCH + 3, lesion=range(5, 9))
    results = run(registry, *map(studies.to_bytes, series))
    assert [result.blob for result in results] == [f"object-{n}" for n in range(len(series))]
    assert {result.outcome for result in results} == {Outcome.SCREENED}
    assert [n for n, result in enumerate(results, 1) if result.detections] == [5, 6, 7, 8]
    (found,) = results[4].detections
    assert found.label == LABEL
    # The lesion's centre is at (0.65, 0.42) of the frame.
    x1, y1, x2, y2 = found.box
    assert abs((x1 + x2) / 2 - 0.65 * 80) < 2
    assert abs((y1 + y2) / 2 - 0.42 * 96) < 2


def test_result_holds_what_header_and_frame_say(registry: Registry) -> None:
    data = studies.to_bytes(studies.ct_image(number=3), preamble=b"MZ".ljust(128, b"\0"))
    (result,) = run(registry, data)
    header, (frame,) = read_header(data), read_frames(data)
    assert result.acquisition["Manufacturer"] == "Slicewatch test factory"
    assert result.traces is not None
    assert dataclasses.replace(result, acquisition={}, traces=None) == SliceResult(
        blob="object-0",
        content_sha256="sha-0",
        outcome=Outcome.SCREENED,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        frame=1,
        modality="CT",
        rows=96,
        columns=80,
        instance_number=3,
        geometry=frame.geometry,
        pixel_sha256=frame.pixel_sha256,
        patient_hash=header.patient_hash,
        times=header.times,
        notes=("preamble:pe",),
        model="tiny-bright@1.0.0",
    )
    assert SliceResult.from_json(result.to_json()) == result


def test_each_frame_of_an_object_is_a_slice(registry: Registry) -> None:
    results = run(registry, studies.to_bytes(studies.enhanced_image(5), uid.JPEG2000Lossless))
    assert [result.frame for result in results] == [1, 2, 3, 4, 5]
    assert [result.geometry.position for result in results] == [
        (-10.0, 2.5 * n, 30.0) for n in range(5)
    ]
    assert {result.outcome for result in results} == {Outcome.SCREENED}


def test_bad_objects_are_results_and_sink_nothing_else(registry: Registry) -> None:
    good = studies.to_bytes(studies.ct_image(studies.body_slice(lesion=True)))
    results = run(
        registry,
        good,
        b"no DICOM",
        good[: len(good) // 2],
        studies.with_transfer_syntax(
            studies.to_bytes(studies.ultrasound_loop(), uid.RLELossless), "1.2.840.10008.1.2.4.100"
        ),
        studies.to_bytes(studies.ct_image(BitsAllocated=12)),
        good,
    )
    assert [(result.outcome, result.reason) for result in results] == [
        (Outcome.SCREENED, None),
        (Outcome.REJECTED, Reason.NOT_DICOM),
        (Outcome.REJECTED, Reason.TRUNCATED),
        (Outcome.REJECTED, Reason.UNSUPPORTED_TRANSFER_SYNTAX),
        (Outcome.REJECTED, Reason.BAD_HEADER),
        (Outcome.SCREENED, None),
    ]
    assert results[0].detections
    assert results[0].detections == results[5].detections
    assert all(result.detail for result in results[1:5])
    assert results[3].study_instance_uid
    assert results[3].frame == 0


def test_objects_that_are_no_images_are_not_screened(registry: Registry) -> None:
    results = run(
        registry,
        studies.to_bytes(studies.structured_report()),
        studies.to_bytes(studies.rt_structure_set()),
        studies.to_bytes(studies.segmentation()),
    )
    for result in results:
        assert (result.outcome, result.reason) == (Outcome.NOT_SCREENED, Reason.NOT_AN_IMAGE)
        assert result.sop_instance_uid
        assert result.frame == 0


def test_series_without_a_model_are_read_but_not_screened(registry: Registry) -> None:
    results = run(registry, studies.to_bytes(studies.ultrasound_loop(3)))
    assert [result.frame for result in results] == [1, 2, 3]
    assert {(r.outcome, r.reason) for r in results} == {(Outcome.NOT_SCREENED, Reason.NO_MODEL)}
    assert len({result.pixel_sha256 for result in results}) == 3
    assert not any(result.model for result in results)


def test_object_damaged_in_the_middle_gives_the_frames_before(registry: Registry) -> None:
    data = bytearray(studies.to_bytes(studies.enhanced_image(5), uid.RLELossless))
    # The RLE header of the fourth frame claims another number of segments.
    starts = [n for n in range(len(data) - 8) if data[n : n + 8] == b"\2\0\0\0\x40\0\0\0"]
    assert len(starts) == 5
    data[starts[3]] = 9
    results = run(registry, bytes(data))
    assert [(result.frame, result.outcome) for result in results] == [
        (1, Outcome.SCREENED),
        (2, Outcome.SCREENED),
        (3, Outcome.SCREENED),
        (4, Outcome.REJECTED),
    ]
    assert results[3].reason is Reason.DECODE_FAILED


def test_limits_are_the_callers(registry: Registry) -> None:
    data = studies.to_bytes(studies.ct_image())
    (result,) = run(registry, data, limits=Limits(max_pixels_per_frame=100))
    assert (result.outcome, result.reason) == (Outcome.REJECTED, Reason.TOO_LARGE)


def test_storage_faults_raise(registry: Registry) -> None:
    def unreachable() -> bytes:
        raise ConnectionError("storage is away")

    objects = sources(*[studies.to_bytes(studies.ct_image(number=n)) for n in range(1, 12)])
    objects[6] = ("object-6", "sha-6", unreachable)
    before = threading.active_count()
    with pytest.raises(ConnectionError):
        screen(objects, registry, Limits(), threads=1)
    assert threading.active_count() == before


def test_model_that_cannot_be_used_raises(tmp_path: Path) -> None:
    description = write_tiny_model(tmp_path)
    description.with_suffix(".onnx").write_bytes(b"swapped")
    with pytest.raises(ModelError, match="swapped"):
        run(Registry.load(tmp_path), studies.to_bytes(studies.ct_image()))


def test_unused_model_is_not_loaded(tmp_path: Path) -> None:
    description = write_tiny_model(tmp_path)
    description.with_suffix(".onnx").write_bytes(b"swapped")
    (result,) = run(Registry.load(tmp_path), studies.to_bytes(studies.ultrasound_loop(1)))
    assert result.reason is Reason.NO_MODEL


def test_fault_of_ours_sinks_one_object_and_is_logged_without_its_text(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:

    def faulty(data: bytes, limits: Limits) -> object:
        if data == b"trigger":
            raise ZeroDivisionError("Secret^Name")
        return read(data, limits)

    monkeypatch.setattr(screening, "read", faulty)
    with caplog.at_level(logging.ERROR):
        results = run(registry, b"trigger", studies.to_bytes(studies.ct_image()))
    assert [result.outcome for result in results] == [Outcome.REJECTED, Outcome.SCREENED]
    assert results[0].detail == "ZeroDivisionError while reading it"
    assert "ZeroDivisionError" in caplog.text
    assert "faulty" in caplog.text
    assert "Secret" not in caplog.text + str(results[0])


def test_fetching_overlaps_and_keeps_order(registry: Registry) -> None:
    """Each pair of fetches waits for the other: one after the other they would wait forever."""
    data = studies.to_bytes(studies.ct_image())
    pairs = [threading.Barrier(2, timeout=60) for _ in range(6)]

    def fetch(n: int) -> bytes:
        pairs[n // 2].wait()
        return data

    objects = [(f"b{n}", "", partial(fetch, n)) for n in range(12)]
    results = screen(objects, registry, Limits(), threads=1)
    assert [result.blob for result in results] == [f"b{n}" for n in range(12)]


class Blob(bytes):
    """Bytes that can be watched."""


def test_memory_holds_a_few_objects_whatever_the_number(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screening, "_LOOK_AHEAD_BYTES", 40_000)
    data = studies.to_bytes(studies.ct_image())
    assert len(data) < 20_000
    alive: weakref.WeakSet[Tracked] = weakref.WeakSet()
    most = 0

    class Tracked:
        def __init__(self) -> None:
            nonlocal most
            alive.add(self)
            most = max(most, len(alive))

    def fetch() -> bytes:
        fetched = Blob(data)
        fetched.tracker = Tracked()  # type: ignore[attr-defined]
        return fetched

    results = screen([(f"b{n}", "", fetch) for n in range(60)], registry, Limits(), threads=1)
    assert len(results) == 60
    # Two ahead by size (eight before the first one is known), and the one that is read.
    assert most <= 12
    assert not alive


def test_count_sums_a_batch(registry: Registry) -> None:
    lesion = studies.to_bytes(studies.ct_image(studies.body_slice(lesion=True)))
    results = run(
        registry,
        lesion,
        lesion,
        studies.to_bytes(studies.ct_image()),
        b"x",
        studies.to_bytes(studies.structured_report()),
    )
    summary = count(7, results)
    assert (summary.batch, summary.screened, summary.with_detections) == (7, 3, 2)
    assert (summary.not_screened, summary.rejected) == (1, 1)


def test_results_do_not_depend_on_how_objects_are_batched(registry: Registry) -> None:
    objects = [
        studies.to_bytes(image) for image in studies.ct_series(MAX_BATCH + 3, lesion=[2, 9, 10])
    ]
    together = run(registry, *objects)
    alone = [run(registry, data)[0] for data in objects]
    for one, other in zip(together, alone, strict=True):
        assert one == replace(other, blob=one.blob, content_sha256=one.content_sha256)


def test_damaged_values_do_not_stop_screening(registry: Registry) -> None:
    pixels = np.full((32, 32), np.nan, np.float64)
    pixels[4:8] = 1e300
    dataset = studies.ct_image(np.zeros((32, 32), np.int16))
    del dataset["PixelData"]
    dataset.BitsAllocated = 64
    dataset.DoubleFloatPixelData = pixels.tobytes()
    (result,) = run(registry, studies.to_bytes(dataset))
    assert result.outcome is Outcome.SCREENED
