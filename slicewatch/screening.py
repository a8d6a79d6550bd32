"""Screening: a batch of objects to results, one for each frame. Bytes in, results out.

Bad data is a result with a reason; only what another attempt may cure raises (storage), and a
model that cannot be used.
"""

from __future__ import annotations

import logging
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from slicewatch.detector import MAX_BATCH, detector_for
from slicewatch.dicom import Frame, Header, Limits, Rejected, read
from slicewatch.forensics import evidence
from slicewatch.model_registry import Choice, Model, Registry
from slicewatch.pixels import to_gray
from slicewatch.records import UNIFORM_PIXELS, BatchResult, Outcome, Reason, SliceResult

type Source = tuple[str, str, Callable[[], bytes]]
"""Name of an object's blob, SHA-256 of its bytes, and what fetches them."""

_FETCHERS = 4
_LOOK_AHEAD = 8
_LOOK_AHEAD_BYTES = 256 << 20
_PENDING_BYTES = 64 << 20

_logger = logging.getLogger(__name__)


def screen(
    objects: Iterable[Source],
    registry: Registry,
    limits: Limits,
    *,
    threads: int = 0,
    forensics: bool = True,
) -> list[SliceResult]:
    """Screen objects: fetch, decode, window, detect.

    Fetching runs ahead in a few threads, so that storage latency hides behind decoding and
    inference. At most `_LOOK_AHEAD` objects (fewer where they are large) and the frames of one
    inference call are in memory.

    Args:
        threads: of an inference call; 0: one for each core.
        forensics: measure the pixels for the forensic checks (`slicewatch.forensics`), too.

    Returns:
        A result for each frame, and one for each object that gave none, in the order of
        `objects`. What no model covers is decoded all the same: that it can be read, where it
        lies and its pixels' hash matter to the integrity of the study.

    Raises:
        ModelError: a model that is needed cannot be loaded.
        Exception: whatever fetching raises.
    """
    batch = _Batch(registry, threads, forensics)
    for blob, sha256, data in _fetched(objects):
        batch.add(SliceResult(blob, sha256, Outcome.REJECTED), data, limits)
    return batch.finish()


def count(batch: int, slices: Iterable[SliceResult]) -> BatchResult:
    """The compact answer for a batch."""
    slices = list(slices)
    outcomes = Counter(result.outcome for result in slices)
    return BatchResult(
        batch=batch,
        screened=outcomes[Outcome.SCREENED],
        not_screened=outcomes[Outcome.NOT_SCREENED],
        rejected=outcomes[Outcome.REJECTED],
        with_detections=sum(bool(result.detections) for result in slices),
    )


def _fetched(objects: Iterable[Source]) -> Iterator[tuple[str, str, bytes]]:
    """Each object with its bytes, in order, fetched ahead."""
    flying: deque[tuple[str, str, Future[bytes]]] = deque()
    largest = 1
    pool = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="screening-fetch")
    try:
        for blob, sha256, fetch in objects:
            flying.append((blob, sha256, pool.submit(fetch)))
            while len(flying) >= min(_LOOK_AHEAD, max(1, _LOOK_AHEAD_BYTES // largest)):
                name, digest, future = flying.popleft()
                data = future.result()
                largest = max(largest, len(data))
                yield name, digest, data
        while flying:
            name, digest, future = flying.popleft()
            yield name, digest, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(slots=True)
class _Pending[Number: (np.uint8, np.float32)]:
    """Frames that wait for an inference call or to be measured, and where their results belong."""

    places: list[int] = field(default_factory=list)
    images: list[NDArray[Number]] = field(default_factory=list)
    size: int = 0

    def add(self, place: int, image: NDArray[Number]) -> bool:
        """Whether that is enough of them."""
        self.places.append(place)
        self.images.append(image)
        self.size += image.nbytes
        return len(self.images) >= MAX_BATCH or self.size >= _PENDING_BYTES


class _Batch:
    def __init__(self, registry: Registry, threads: int, forensics: bool) -> None:
        self._registry = registry
        self._threads = threads
        self._forensics = forensics
        self._results: list[SliceResult] = []
        self._pending: dict[Model, _Pending[np.uint8]] = {}
        self._unmeasured = _Pending[np.float32]()

    def add(self, blank: SliceResult, data: bytes, limits: Limits) -> None:
        """Read one object; its frames join the next inference call."""
        for known, header, frame in _read(blank, data, limits):
            place = len(self._results)
            self._results.append(known)
            if frame is None or header is None:
                continue
            if (choice := self._registry.choose(header.attributes)) is None:
                self._results[place] = replace(
                    known, outcome=Outcome.NOT_SCREENED, reason=Reason.NO_MODEL
                )
            else:
                self._await_detection(place, frame, choice)
            if self._forensics:
                self._await_measurement(place, frame)

    def finish(self) -> list[SliceResult]:
        for model in list(self._pending):
            self._detect(model)
        self._measure()
        return self._results

    def _await_measurement(self, place: int, frame: Frame) -> None:
        """Frames are measured several in a row: in between inference calls, each takes half as
        long again, with nothing of it left in the processor's caches.
        """
        if self._unmeasured.add(place, frame.values):
            self._measure()

    def _measure(self) -> None:
        pending, self._unmeasured = self._unmeasured, _Pending[np.float32]()
        for place, values in zip(pending.places, pending.images, strict=True):
            self._results[place] = evidence.with_pixels(self._results[place], values)

    def _await_detection(self, place: int, frame: Frame, choice: Choice) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # damaged values, not a bug
            gray = to_gray(frame.values, choice.intensity, frame.voi)
        pending = self._pending.setdefault(choice.model, _Pending[np.uint8]())
        if pending.add(place, gray):
            self._detect(choice.model)

    def _detect(self, model: Model) -> None:
        pending = self._pending.pop(model)
        found = detector_for(model, threads=self._threads).detect(pending.images)
        for place, detections in zip(pending.places, found, strict=True):
            self._results[place] = replace(
                self._results[place],
                outcome=Outcome.SCREENED,
                model=model.key,
                detections=detections,
            )


def _read(
    blank: SliceResult, data: bytes, limits: Limits
) -> Iterator[tuple[SliceResult, Header | None, Frame | None]]:
    """What is known of each frame; last, without a frame, why there are no more of them."""
    known, header, number = blank, None, 0
    try:
        instance = read(data, limits)
        header = instance.header
        known = _with_header(blank, header)
        known = evidence.with_object(known, data, instance)
        for frame in instance.frames():
            yield _with_frame(known, frame), header, frame
            number = frame.number
        return
    except Rejected as error:
        rejected = error
    except MemoryError:
        raise
    except Exception as error:  # a fault of ours must not sink the study with it
        _log_fault(error)
        rejected = Rejected(Reason.DECODE_FAILED, f"{type(error).__name__} while reading it")
    stored = rejected.reason is Reason.NOT_AN_IMAGE and header is not None
    result = replace(
        known,
        outcome=Outcome.NOT_SCREENED if stored else Outcome.REJECTED,
        frame=number + 1 if number else 0,
        reason=rejected.reason,
        detail=rejected.detail,
    )
    yield result, header, None


def _with_header(blank: SliceResult, header: Header) -> SliceResult:
    return replace(
        blank,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        modality=header.modality,
        rows=header.rows,
        columns=header.columns,
        instance_number=header.instance_number,
        patient_hash=header.patient_hash,
        times=header.times,
        notes=header.notes,
    )


def _with_frame(known: SliceResult, frame: Frame) -> SliceResult:
    uniform = frame.values.min() == frame.values.max()
    return replace(
        known,
        frame=frame.number,
        geometry=frame.geometry,
        pixel_sha256=frame.pixel_sha256,
        notes=(*known.notes, UNIFORM_PIXELS) if uniform else known.notes,
    )


def _log_fault(error: Exception) -> None:
    """Where it happened; not the message, which may repeat what the object says."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
    _logger.error("unexpected %s while reading an object: %s", type(error).__name__, where)
