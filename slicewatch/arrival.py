"""Objects that arrive: check them, keep their bytes unchanged, say what became of each.

An object that passes is stored as ``incoming/{study}/{series}/{sop}.dcm``; other bytes under the
same SOP instance UID are kept beside it as ``{sop}~{first 16 hex digits of SHA-256}.dcm``. One
that does not pass goes to ``quarantine/{yyyy-mm-dd}/{sha256}.bin`` with the reason. Storing the
same bytes again changes nothing, so a sender may repeat whatever failed.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache

from slicewatch import catalogue, holdings, inventory, unfinished
from slicewatch.catalogue import Cataloguer
from slicewatch.limits import Limits, Rejected
from slicewatch.records import Outcome, Reason, SliceResult
from slicewatch.reporting import uids
from slicewatch.settings import Settings
from slicewatch.storage import INCOMING, QUARANTINE, Conflict, Storage, StorageUnavailable
from slicewatch.uids import stated_uids

_WORKERS = 16
_MOST_IN_FLIGHT = 16  # of one request
_BYTES_IN_FLIGHT = 64 << 20
_MAX_REASON = 1000  # of the 8 KiB that the metadata of a blob may have


@dataclass(frozen=True, slots=True)
class Offered:
    """One object as a door got it.

    `refused` says why it is not to be read at all; `data` is empty where there are no bytes of
    its own to keep (an entry of an archive that cannot be unpacked).
    """

    data: bytes
    refused: Rejected | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one object.

    Attributes:
        position: of the object in its request, from 1.
        blob: its name in ``incoming``; empty when it was rejected, or is a result that was made
            here and comes back.
        duplicate: the same bytes were there already, or the result is.
        conflicting: other bytes are there under its SOP instance UID; both are kept.
        quarantine: its name in ``quarantine`` when it was rejected and its bytes could be had.
        reason: why it was rejected; ``None`` when it is stored.
        sha256: of its bytes, hexadecimal; empty where there were none to keep.
    """

    position: int
    size: int
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    blob: str = ""
    duplicate: bool = False
    conflicting: bool = False
    quarantine: str = ""
    reason: Reason | None = None
    detail: str = ""
    sha256: str = ""


class Intake:
    """Receives the objects of one request.

    Args:
        source: the door, for the blobs' metadata; ASCII.
        study_uid: the study that the request names; objects of other studies are rejected.
    """

    def __init__(
        self, storage: Storage, settings: Settings, source: str, study_uid: str | None = None
    ) -> None:
        self._storage = storage
        self._limits = Limits.of(settings)
        self._source = source
        self._study_uid = study_uid
        self._opened: set[str] = set()
        self._gone: StorageUnavailable | None = None
        self._cataloguer = Cataloguer(storage)
        self._lock = threading.Lock()

    def receive_all(self, objects: Iterable[Offered]) -> list[Receipt]:
        """Receive the objects, several at a time; receipts in their order.

        `objects` is read only as fast as they are stored, so that memory stays bounded.

        Raises:
            StorageUnavailable: what was stored until then stays, and its study stays open.
        """
        receipts: list[Receipt] = []
        flying: deque[tuple[Future[Receipt], int]] = deque()
        in_flight = 0
        try:
            for position, offered in enumerate(objects, start=1):
                size = len(offered.data)
                while flying and (
                    len(flying) >= _MOST_IN_FLIGHT or in_flight + size > _BYTES_IN_FLIGHT
                ):
                    future, freed = flying.popleft()
                    receipts.append(future.result())
                    in_flight -= freed
                flying.append((_pool().submit(self.receive, offered, position), size))
                in_flight += size
            receipts.extend(future.result() for future, _ in flying)
        except BaseException:
            # What runs already may still store its object; a sender that repeats finds it.
            wait([future for future, _ in flying if not future.cancel()])
            raise
        self._note_arrivals(receipts)
        return receipts

    def _note_arrivals(self, receipts: Iterable[Receipt]) -> None:
        came: dict[str, list[inventory.Arrived]] = {}
        for one in receipts:
            if one.blob:
                arrived = inventory.Arrived(one.blob, one.sha256, one.size)
                came.setdefault(one.study_instance_uid, []).append(arrived)
        for study, objects in came.items():
            inventory.note_arrival(self._storage, study, objects)

    def receive(self, offered: Offered, position: int = 1) -> Receipt:
        """Check one object and store it. Raises `StorageUnavailable`."""
        from slicewatch.dicom import read_header

        data = offered.data
        blank = Receipt(position, len(data))
        try:
            if offered.refused is not None:
                raise offered.refused
            header = read_header(data, self._limits)
            known = Receipt(
                position,
                len(data),
                header.study_instance_uid,
                header.series_instance_uid,
                header.sop_instance_uid,
                header.sop_class_uid,
            )
        except Rejected as rejected:
            refused = self._reject(
                blank, data, rejected, keep=bool(data) or offered.refused is None
            )
            return self._note(refused, data)
        if self._study_uid not in (None, known.study_instance_uid):
            return self._reject(
                known, data, Rejected(Reason.WRONG_STUDY, "StudyInstanceUID differs")
            )
        if self._is_own_result(known):
            return replace(known, duplicate=True)
        self._open(known.study_instance_uid)
        self._cataloguer.enter(header, data)
        return self._store(known, data, catalogue.note(header))

    def _is_own_result(self, known: Receipt) -> bool:
        """Whether a PACS, or a router behind it, sends back what was made here and sent to it: it
        is held, and it is nothing that came of the study. Taken as such, it would open a new
        generation, whose results would be sent and come back in turn.
        """
        study, series = known.study_instance_uid, known.series_instance_uid
        return uids.is_ours(study, series) and any(
            one.instance == known.sop_instance_uid for one in holdings.results(self._storage, study)
        )

    def _note(self, refused: Receipt, data: bytes) -> Receipt:
        """Tell the study, where the object still says to which it belongs."""
        uids = stated_uids(data)
        if uids is None or refused.reason is None:
            return refused
        study, series, instance = uids
        self._open(study)
        rejection = SliceResult(
            blob=f"quarantine/{refused.quarantine}",
            content_sha256=refused.sha256,
            outcome=Outcome.REJECTED,
            study_instance_uid=study,
            series_instance_uid=series,
            sop_instance_uid=instance,
            reason=refused.reason,
            detail=refused.detail,
        )
        inventory.note_rejection(self._storage, rejection)
        return replace(refused, study_instance_uid=study)

    @property
    def studies(self) -> tuple[str, ...]:
        """The studies that anything was stored of, or refused."""
        return tuple(sorted(self._opened))

    def _open(self, study: str) -> None:
        """Mark the study unfinished before its first object is stored: whatever ends this
        process between here and the end of the request, the sweep finds the study.
        """
        with self._lock:
            if self._gone is not None:
                raise self._gone
            if study not in self._opened:
                try:
                    unfinished.open_study(self._storage, study)
                except StorageUnavailable as error:
                    # It was tried long enough: the other threads need not try, one by one.
                    self._gone = error
                    raise
                self._opened.add(study)

    def _store(self, known: Receipt, data: bytes, noted: dict[str, str]) -> Receipt:
        digest = hashlib.sha256(data).hexdigest()
        known = replace(known, sha256=digest)
        metadata = {
            "sha256": digest,
            "source": self._source,
            "received": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **noted,
        }
        stem = "/".join(
            (known.study_instance_uid, known.series_instance_uid, known.sop_instance_uid)
        )
        for name, conflicting in ((f"{stem}.dcm", False), (f"{stem}~{digest[:16]}.dcm", True)):
            try:
                self._storage.write(
                    INCOMING,
                    name,
                    data,
                    metadata=metadata,
                    content_type="application/dicom",
                    if_absent=True,
                )
            except Conflict:
                if self._stored_digest(name) != digest:
                    continue
                return replace(known, blob=name, duplicate=True, conflicting=conflicting)
            return replace(known, blob=name, conflicting=conflicting)
        raise Conflict(f"{INCOMING}: two objects with one name and other bytes")

    def _stored_digest(self, name: str) -> str:
        info = self._storage.info(INCOMING, name)
        if info is None:
            return ""
        # A blob that something else than a door wrote has no metadata.
        return (
            info.metadata.get("sha256")
            or hashlib.sha256(self._storage.read(INCOMING, name)).hexdigest()
        )

    def _reject(
        self, receipt: Receipt, data: bytes, rejected: Rejected, *, keep: bool = True
    ) -> Receipt:
        receipt = replace(receipt, reason=rejected.reason, detail=rejected.detail)
        if not keep:
            return receipt
        name, sha256 = quarantine(self._storage, data, rejected, self._source)
        return replace(receipt, quarantine=name, sha256=sha256)


def refuse_whole(storage: Storage, data: bytes, rejected: Rejected, source: str) -> Receipt:
    """Keep what came in one piece and cannot be taken apart. Raises `StorageUnavailable`."""
    name, sha256 = quarantine(storage, data, rejected, source)
    return Receipt(
        1, len(data), quarantine=name, sha256=sha256, reason=rejected.reason, detail=rejected.detail
    )


@cache
def _pool() -> ThreadPoolExecutor:
    """The threads of all requests of this process: starting some for each one costs more."""
    return ThreadPoolExecutor(_WORKERS, thread_name_prefix="arrival")


def quarantine(storage: Storage, data: bytes, rejected: Rejected, source: str) -> tuple[str, str]:
    """Keep bytes that were rejected; their name in ``quarantine``, and their SHA-256.

    Raises `StorageUnavailable`.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{datetime.now(UTC):%Y-%m-%d}/{sha256}.bin"
    # Metadata travel in HTTP headers: printable ASCII only.
    reason = "".join(char if " " <= char <= "~" else "?" for char in str(rejected))
    metadata = {"reason": reason[:_MAX_REASON], "source": source}
    storage.write(QUARANTINE, name, data, metadata=metadata)
    return name, sha256
