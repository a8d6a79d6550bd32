"""``studies_upload``: a study, or several, as a zip file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from slicewatch import archive, multipart, settings, storage
from slicewatch.arrival import Receipt
from slicewatch.identity import Role
from slicewatch.limits import Rejected
from slicewatch.multipart import BadMultipart, TooManyParts
from slicewatch.records import Reason
from triggers import access
from triggers.admission import admit_archive, refuse
from triggers.responses import Problem, answers_problems, as_json, body_of

bp = df.Blueprint()

_SOURCE = "upload"
_ZIP = frozenset({"application/zip", "application/x-zip-compressed", "application/octet-stream"})
_EXPECTED = "send a zip file, as application/zip or as the file of a multipart/form-data form"
_MAX_FORM_PARTS = 100
_MAX_LISTED = 1000


@bp.route("studies", methods=["POST"])
@bp.durable_client_input(client_name="client")
@answers_problems
def studies_upload(
    req: func.HttpRequest, client: df.SyncDurableFunctionsClient
) -> func.HttpResponse:
    """Store the DICOM files of a zip file; answer with what became of them.

    Body: ``application/zip``, or ``multipart/form-data`` with one file. 200: all stored; 202:
    some, or with conflicts; 400: none, or not a zip file; 413: too large, or a bomb; 415: another
    media type; 503: storage is away. An entry is told by its number in the archive's directory,
    folders not counted.
    """
    identity = access.require(req, Role.UPLOADER)
    config, store = settings.current(), storage.current()
    sender = access.actor_of(req, identity)
    body = body_of(req, config.max_request_bytes)
    keep = partial(refuse, store, config, body, source=_SOURCE, sender=sender)
    data = _zip_file(req.headers.get("Content-Type", ""), body, keep)
    try:
        receipts = admit_archive(client, store, config, data, source=_SOURCE, sender=sender)
    except archive.ArchiveTooLarge as error:
        raise Problem(
            413,
            "archive-too-large",
            f"the archive is refused and in quarantine: {error}",
            "split the archive, or raise the SLICEWATCH_MAX_ARCHIVE_… settings",
        ) from None
    except archive.BadArchive as error:
        raise Problem(
            400,
            "bad-archive",
            f"the archive is refused and in quarantine: {error}",
            "make the zip file again and send it again",
        ) from None
    report = _report(receipts)
    if not report["studies"]:
        raise Problem(
            400,
            "nothing-stored",
            "the archive holds no DICOM object that could be stored",
            "see `rejected` for the reason of each entry",
            extra=report,
        )
    whole = all(receipt.reason is None and not receipt.conflicting for receipt in receipts)
    return as_json(report, 200 if whole else 202)


def _zip_file(content_type: str, body: bytes, keep: Callable[[Rejected], None]) -> bytes:
    """The zip file in the body, which is kept where there is none. Raises `Problem`: 415, 400."""
    media_type, parameters = multipart.media_type(content_type)
    if media_type in _ZIP:
        return body
    if media_type != "multipart/form-data":
        keep(Rejected(Reason.WRONG_MEDIA_TYPE, "neither a zip file nor a form"))
        raise Problem(415, "wrong-media-type", "the Content-Type is not accepted", _EXPECTED)
    boundary = parameters.get("boundary", "")
    try:
        parts = list(multipart.parts(body, boundary, max_parts=_MAX_FORM_PARTS))
    except (BadMultipart, TooManyParts) as error:
        keep(Rejected(Reason.BAD_ARCHIVE, f"multipart: {error}"))
        raise Problem(400, "bad-multipart", str(error), _EXPECTED) from None
    files = [part.data for part in parts if part.filename is not None]
    if len(files) != 1:
        keep(Rejected(Reason.BAD_ARCHIVE, f"a form with {len(files)} files"))
        raise Problem(400, "bad-form", f"the form has {len(files)} files, not one", _EXPECTED)
    return files[0]


def _report(receipts: list[Receipt]) -> dict[str, Any]:
    studies: dict[str, Counter[str]] = {}
    series: dict[str, set[str]] = {}
    for receipt in receipts:
        if receipt.reason is None:
            study = receipt.study_instance_uid
            series.setdefault(study, set()).add(receipt.series_instance_uid)
            counts = studies.setdefault(study, Counter())
            counts["objects"] += 1
            counts["duplicates"] += receipt.duplicate
            counts["conflicting"] += receipt.conflicting
    rejected = [receipt for receipt in receipts if receipt.reason is not None]
    return {
        "entries": len(receipts),
        "studies": [
            {"study": study, "series": len(series[study]), **counts}
            for study, counts in studies.items()
        ],
        "rejected_entries": len(rejected),
        "rejected": [
            {
                "entry": receipt.position,
                "reason": receipt.reason,
                "detail": receipt.detail,
                "quarantine": receipt.quarantine or "with its archive",
            }
            for receipt in rejected[:_MAX_LISTED]
        ],
    }
