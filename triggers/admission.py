"""What every door does with the objects it got: store them, and see that their study is reviewed.

The order makes that no slice is lost: store, then mark the study unfinished, then look for its
orchestration. The orchestration looks the other way round before it ends (it reads the mark, then
lists what came, then takes the mark off unless it changed), so one of the two sees the other. A
door that dies in between leaves the mark, and `sweep` starts the orchestration.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import azure.durable_functions as df
import grpc
from durabletask.client import OrchestrationState, OrchestrationStatus
from durabletask.internal.orchestrator_service_pb2 import OrchestrationIdReusePolicy

from slicewatch import archive, arrival, custody_record, inventory, unfinished
from slicewatch.arrival import Intake, Offered, Receipt
from slicewatch.limits import Rejected
from slicewatch.records import Reason
from slicewatch.settings import Settings
from slicewatch.storage import DROPBOX, INCOMING, BlobMissing, Conflict, Storage

_log = logging.getLogger(__name__)

ENDED = (
    OrchestrationStatus.COMPLETED,
    OrchestrationStatus.FAILED,
    OrchestrationStatus.TERMINATED,
)
"""Statuses of an orchestration whose instance id may be used again."""
GONE = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)


def admit(
    client: df.SyncDurableFunctionsClient,
    storage: Storage,
    settings: Settings,
    objects: Iterable[Offered],
    *,
    source: str,
    study: str | None = None,
    sender: Mapping[str, str] | None = None,
) -> list[Receipt]:
    """Store the objects, log their custody, and see that each study they belong to is reviewed.

    Args:
        sender: who sent them, as far as the door can tell, for the custody log.
        study: the one study that the request is for, if it names one.

    Raises:
        StorageUnavailable: to be tried again; what was stored stays.
    """
    intake = Intake(storage, settings, source, study)
    receipts = intake.receive_all(objects)
    # Nothing is acknowledged that is not in the log; what is stored by now is stored once, and
    # what its sender never sends again is logged as found when its study is published.
    custody_record.arrivals(storage, settings, receipts, door=source, sender=sender or {})
    for one in intake.studies:
        unfinished.open_study(storage, one)
        try:
            ensure_review(client, settings, one)
        except grpc.RpcError as error:
            # The objects are safe and the study is marked: the sweep starts what this could not.
            _log.warning(
                "%s is left to the sweep: durable engine: %s",
                inventory.instance_id(one),
                error.code().name,
            )
    _log_receipts(source, receipts)
    return receipts


def admit_archive(
    client: df.SyncDurableFunctionsClient,
    storage: Storage,
    settings: Settings,
    data: bytes,
    *,
    source: str,
    sender: Mapping[str, str] | None = None,
) -> list[Receipt]:
    """`admit` the entries of a zip file.

    Raises:
        BadArchive: it is refused as a whole, and is in quarantine.
        StorageUnavailable: to be tried again; what was stored stays.
    """
    try:
        objects = archive.unpack(data, settings)
    except archive.BadArchive as error:
        rejected = Rejected(Reason.BAD_ARCHIVE, str(error))
        refuse(storage, settings, data, rejected, source=source, sender=sender)
        raise
    receipts = admit(client, storage, settings, objects, source=source, sender=sender)
    lost = [r for r in receipts if r.reason is not None and not r.quarantine]
    if lost:
        # Entries that do not unpack can only be kept as part of their archive.
        detail = f"{len(lost)} of {len(receipts)} entries cannot be unpacked"
        rejected = Rejected(Reason.BAD_ARCHIVE, detail)
        refuse(storage, settings, data, rejected, source=source, sender=sender)
    return receipts


def refuse(
    storage: Storage,
    settings: Settings,
    data: bytes,
    rejected: Rejected,
    *,
    source: str,
    sender: Mapping[str, str] | None,
) -> None:
    """Put what came in one piece and cannot be taken apart into quarantine, and log that.

    Raises:
        StorageUnavailable: to be tried again.
    """
    receipt = arrival.refuse_whole(storage, data, rejected, source)
    custody_record.arrivals(storage, settings, [receipt], door=source, sender=sender or {})


def admit_dropped(
    client: df.SyncDurableFunctionsClient, storage: Storage, settings: Settings, name: str
) -> None:
    """Admit a blob of the dropbox, a DICOM file or a zip file, and remove it.

    An event that is repeated, or overtaken by another, finds no blob and does nothing. The blob
    is removed only in the version that was read: one that was replaced meanwhile stays, and has
    an event of its own.

    Raises:
        StorageUnavailable: to be tried again; the blob is still there.
    """
    found = storage.info(DROPBOX, name)
    if found is None:
        return
    try:
        data = storage.read(DROPBOX, name)
    except BlobMissing:
        return
    if archive.is_archive(data):
        try:
            admit_archive(client, storage, settings, data, source="dropbox")
        except archive.BadArchive as error:
            _log.warning("an archive of the dropbox is in quarantine: %s", error)
    else:
        admit(client, storage, settings, [Offered(data)], source="dropbox")
    try:
        storage.delete(DROPBOX, name, etag=found.etag)
    except Conflict:
        _log.info("a blob of the dropbox was replaced while it was read; its event follows")


def ensure_review(
    client: df.SyncDurableFunctionsClient, settings: Settings, study: str
) -> OrchestrationState | None:
    """See that the study's orchestration runs and knows, or will find, what came last.

    One that has not published yet lists the study again by itself; one that has is told.

    Returns:
        The state of the orchestration that runs already; ``None`` when this started it.
    """
    instance = inventory.instance_id(study)
    state = client.get_orchestration_state(instance)
    if state is None or not is_running(state):
        start_review(client, settings, study)
        return None
    if progress_of(state).get("published") and not tell_review(client, study, "late"):
        start_review(client, settings, study)
        return None
    return state


def start_review(client: df.SyncDurableFunctionsClient, settings: Settings, study: str) -> None:
    """Start the study's orchestration unless it runs; one that ended is replaced."""
    # On Azure, host.json's overridableExistingInstanceStates says the same.
    policy = OrchestrationIdReusePolicy(replaceableStatus=[status.value for status in ENDED])
    try:
        client.schedule_new_orchestration(
            "review_study",
            input=inventory.review_plan(settings, study).to_json(),
            instance_id=inventory.instance_id(study),
            reuse_id_policy=policy,
        )
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise


def tell_review(client: df.SyncDurableFunctionsClient, study: str, event: str) -> bool:
    """Raise an event for the study's orchestration; ``False`` when it ended meanwhile."""
    try:
        client.raise_orchestration_event(inventory.instance_id(study), event)
    except grpc.RpcError as error:
        if error.code() not in GONE:
            raise
        return False
    return True


def is_running(state: OrchestrationState | None) -> bool:
    """Whether the orchestration is there and has not ended."""
    return state is not None and state.runtime_status not in ENDED


def progress_of(state: OrchestrationState | None) -> dict[str, Any]:
    """The orchestration's custom status, a `messages.Progress` as JSON; empty before its first."""
    status = state.get_custom_status(dict[str, Any]) if state is not None else None
    return status or {}


def is_known(storage: Storage, study: str) -> bool:
    """Whether anything of the study was received."""
    return next(storage.listing(INCOMING, f"{study}/"), None) is not None


def _log_receipts(source: str, receipts: list[Receipt]) -> None:
    rejected = sum(receipt.reason is not None for receipt in receipts)
    _log.info("%s: %d objects, %d rejected", source, len(receipts), rejected)
