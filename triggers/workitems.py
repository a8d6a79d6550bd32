"""What the doors of UPS-RS share: the workitem of the route, the payload, what is refused."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import azure.functions as func

from slicewatch import multipart
from slicewatch.identity import Identity, Role
from slicewatch.media_types import DICOM_JSON, JSON
from slicewatch.records import Lane
from slicewatch.uids import is_uid
from triggers import access
from triggers.dicomweb import answers_dicomweb, query_of, service_url, warning
from triggers.responses import Problem, plain_body

_MAX_BODY = 1 << 16
_TRANSACTION = ("transaction-uid", "transactionuid")


def uid_of(request: func.HttpRequest) -> str:
    """The workitem's UID in the route. Raises `Problem` (400) for what is no UID."""
    uid = request.route_params.get("workitem") or ""
    if not is_uid(uid):
        raise Problem(
            400,
            "bad-workitem-uid",
            "the workitem in the URL is not a UID: digits and dots, at most 64 characters",
            "use the SOP Instance UID of the workitem",
        )
    return uid


def seen_uid(request: func.HttpRequest, identity: Identity) -> str:
    """`uid_of` of a workitem that this identity sees. Raises `Problem` (400), `NoSuchWorkitem`."""
    from slicewatch.workitems import NoSuchWorkitem, lane_of

    uid = uid_of(request)
    if lane_of(uid) is Lane.FORENSIC and not identity.sees_forensic:
        raise NoSuchWorkitem(uid)
    return uid


def reviewed_uid(request: func.HttpRequest) -> tuple[Identity, str]:
    """Who reviews the workitem of the route, with the role of its lane, and its UID.

    Raises `Problem`: 503, 401, 403, 400; `NoSuchWorkitem`.
    """
    from slicewatch.workitems import lane_of

    identity = access.require(request, *access.REVIEWERS.values(), Role.ADMINISTRATOR)
    uid = seen_uid(request, identity)
    return access.require(request, access.REVIEWERS[lane_of(uid)]), uid


def payload_of(request: func.HttpRequest) -> dict[str, Any]:
    """The dataset of the body. Raises `Problem`: 413 too large, 415 other than JSON; 400 where
    it is no dataset comes of `answers_ups`.
    """
    from slicewatch import workitems

    media_type, _ = multipart.media_type(request.headers.get("Content-Type", ""))
    if media_type not in (DICOM_JSON, JSON):
        raise Problem(
            415, "wrong-media-type", f"the body is not {DICOM_JSON}", f"send {DICOM_JSON}"
        )
    body = plain_body(request)
    if len(body) > _MAX_BODY:
        raise Problem(
            413, "too-large", f"the body is over {_MAX_BODY} bytes", "send what has changed alone"
        )
    return workitems.read_payload(body)


def transaction_of(request: func.HttpRequest, payload: Mapping[str, Any]) -> str:
    """The Transaction UID, of the payload or the query; empty where there is none.

    Raises `Problem` (400) for what is no UID.
    """
    from slicewatch import workitems

    query = {name.lower(): value for name, value in query_of(request)}
    uid = workitems.first(payload.get(workitems.TRANSACTION_UID, {}))
    uid = uid or next((query[name] for name in _TRANSACTION if name in query), "")
    if uid and not (isinstance(uid, str) and is_uid(uid)):
        raise Problem(400, "bad-transaction-uid", "the Transaction UID is no UID", "send a UID")
    return str(uid)


def done(request: func.HttpRequest, said: str = "", status: int = 200) -> func.HttpResponse:
    """An answer without a body; `said` goes into its Warning header."""
    headers = {"Warning": warning(service_url(request), said)} if said else {}
    return func.HttpResponse(status_code=status, headers=headers)


def answers_ups[**P](
    door: Callable[P, func.HttpResponse],
) -> Callable[P, func.HttpResponse]:
    """`answers_dicomweb`, and what the worklist's transactions refuse (PS3.18 chapter 11)."""

    @functools.wraps(door)
    def answering(*args: P.args, **kwargs: P.kwargs) -> func.HttpResponse:
        from slicewatch.ups import Refused
        from slicewatch.workitems import BadDataset, NoSuchWorkitem

        try:
            return door(*args, **kwargs)
        except NoSuchWorkitem:
            raise Problem(
                404,
                "unknown-workitem",
                "the worklist has no such workitem",
                "search for the workitems that there are",
            ) from None
        except BadDataset as error:
            raise Problem(
                400, "bad-dataset", str(error), "see docs/dicomweb.md for what is understood"
            ) from None
        except Refused as error:
            given = (*args, *kwargs.values())
            request = next(one for one in given if isinstance(one, func.HttpRequest))
            raise Problem(
                error.status,
                "workitem-refused",
                str(error),
                error.remedy,
                headers={"Warning": warning(service_url(request), error.warning)},
            ) from None

    return answers_dicomweb(answering)
