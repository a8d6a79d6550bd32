"""``stow_store``: the Store transaction of DICOMweb (STOW-RS, PS3.18 section 10.5)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import azure.durable_functions as df
import azure.functions as func

from slicewatch import multipart, settings, storage, stow
from slicewatch.arrival import Offered
from slicewatch.identity import Role
from slicewatch.limits import Rejected
from slicewatch.multipart import BadMultipart, Part, TooManyParts
from slicewatch.records import Reason
from triggers import access
from triggers.admission import admit, refuse
from triggers.responses import Problem, answers_problems, as_json, body_of, study_of

bp = df.Blueprint()

_SOURCE = "stow-rs"
_DICOM = "application/dicom"
_EXPECTED = 'multipart/related; type="application/dicom"; boundary=…'


@bp.route("dicomweb/studies/{study?}", methods=["POST"])
@bp.durable_client_input(client_name="client")
@answers_problems
def stow_store(req: func.HttpRequest, client: df.SyncDurableFunctionsClient) -> func.HttpResponse:
    """Store the instances of a ``multipart/related`` body; answer with what became of each.

    200: all stored; 202: some, or with warnings; 409: none; 400: the body is empty or no
    multipart message; 413: too large; 415: another media type; 503: storage is away.
    """
    identity = access.require(req, Role.UPLOADER)
    config, store = settings.current(), storage.current()
    study = study_of(req) if req.route_params.get("study") else None
    sender = access.actor_of(req, identity)
    body = body_of(req, config.max_request_bytes)
    keep = partial(refuse, store, config, body, source=_SOURCE, sender=sender)
    try:
        boundary = _boundary(req.headers.get("Content-Type", ""))
        count = multipart.check(body, boundary, max_parts=config.max_archive_entries)
    except _NotAccepted as error:
        keep(Rejected(Reason.WRONG_MEDIA_TYPE, "not multipart/related"))
        raise Problem(415, "wrong-media-type", str(error), f"send {_EXPECTED}") from None
    except TooManyParts as error:
        keep(Rejected(Reason.BAD_ARCHIVE, f"multipart: {error}"))
        raise Problem(
            413,
            "too-many-parts",
            str(error),
            "send the study in several requests, or raise SLICEWATCH_MAX_ARCHIVE_ENTRIES",
        ) from None
    except BadMultipart as error:
        keep(Rejected(Reason.BAD_ARCHIVE, f"multipart: {error}"))
        raise Problem(400, "bad-multipart", str(error), f"send {_EXPECTED}") from None
    if count == 0:
        raise Problem(400, "empty-body", "the body has no parts", "send at least one instance")
    parts = multipart.parts(body, boundary, max_parts=count)
    receipts = admit(
        client,
        store,
        config,
        _offered(parts),
        source=_SOURCE,
        study=study,
        sender=sender,
    )
    module = stow.response(receipts, _service_url(req.url))
    return as_json(module, stow.status_code(receipts), media_type=stow.MEDIA_TYPE)


class _NotAccepted(Exception):
    """The Content-Type is not one of this door; the text says what it is not."""


def _boundary(content_type: str) -> str:
    """The boundary of the Content-Type; empty when it names none."""
    media_type, parameters = multipart.media_type(content_type)
    if media_type != "multipart/related":
        raise _NotAccepted("the Content-Type is not multipart/related")
    # RFC 2387 section 3.1 asks for the type; without it, the parts' own types decide.
    if parameters.get("type", _DICOM).lower() != _DICOM:
        raise _NotAccepted("the type parameter of the Content-Type is not application/dicom")
    return parameters.get("boundary", "")


def _offered(parts: Iterator[Part]) -> Iterator[Offered]:
    for part in parts:
        if part.media_type in ("", _DICOM):
            yield Offered(part.data)
        else:
            yield Offered(
                part.data, Rejected(Reason.WRONG_MEDIA_TYPE, "the part is not application/dicom")
            )


def _service_url(url: str) -> str:
    """The DICOMweb service's base URL, of the URL of a Store request."""
    before, found, _ = url.partition("/dicomweb/")
    return before + found.rstrip("/")
