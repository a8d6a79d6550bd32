"""What the doors of DICOMweb share: UIDs of the route, the query, negotiation, refusals."""

from __future__ import annotations

import functools
from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

import azure.functions as func

from slicewatch import custody_record, media_types, settings, storage
from slicewatch.media_types import Accepted, NotAcceptable
from slicewatch.uids import is_uid
from triggers import access
from triggers.responses import Problem, answers_problems

_MAX_QUERY = 64
# The Functions host takes its key from the query; it is none of the transaction's.
_HOST_PARAMETERS = frozenset({"code", "clientid"})
_LEVELS = (
    ("study", "StudyInstanceUID"),
    ("series", "SeriesInstanceUID"),
    ("instance", "SOPInstanceUID"),
)


def uids_of(request: func.HttpRequest) -> list[str]:
    """Study, series and SOP instance UID of the route, as many as it has.

    Raises `Problem` (400) for what is no UID.
    """
    found = []
    for name, keyword in _LEVELS:
        if name not in request.route_params:
            break
        uid = request.route_params[name] or ""
        if not is_uid(uid):
            raise Problem(
                400,
                f"bad-{name}-uid",
                f"the {name} in the URL is not a UID: digits and dots, at most 64 characters",
                f"use the {keyword}",
            )
        found.append(uid)
    return found


def query_of(request: func.HttpRequest) -> list[tuple[str, str]]:
    """The query's parameters in their order, repeated ones too. Raises `Problem` (400)."""
    text = urlsplit(request.url).query
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_QUERY)
    except ValueError:
        raise Problem(
            400,
            "bad-query",
            f"the query has more than {_MAX_QUERY} parameters",
            "ask for less at once",
        ) from None
    return [pair for pair in pairs if pair[0].lower() not in _HOST_PARAMETERS]


def accepted_by(request: func.HttpRequest) -> Accepted:
    """What the request accepts."""
    parameter = dict(query_of(request)).get("accept", "")
    return media_types.accepted(request.headers.get("Accept", ""), parameter)


def service_url(request: func.HttpRequest) -> str:
    """The DICOMweb service's base URL, without a slash at its end."""
    return str(request.url).partition("/dicomweb/")[0] + "/dicomweb"


def warning(service: str, *texts: str) -> str:
    """The value of a ``Warning`` header as PS3.18 section 8.4 has it."""
    return ", ".join(f"299 {service}: {text}" for text in texts)


def answer(
    body: bytes, content_type: str, status: int = 200, headers: dict[str, str] | None = None
) -> func.HttpResponse:
    """A response with the body as it is."""
    return func.HttpResponse(body, status_code=status, mimetype=content_type, headers=headers)


def logs_viewing(
    door: Callable[[func.HttpRequest], func.HttpResponse],
) -> Callable[[func.HttpRequest], func.HttpResponse]:
    """Tell the study's custody log who was given its pixels or metadata, before they are given."""

    @functools.wraps(door)
    def logging(req: func.HttpRequest) -> func.HttpResponse:
        given = door(req)
        study = uids_of(req)[0]
        viewer = access.actor_of(req, access.identity_of(req))
        custody_record.viewing(storage.current(), settings.current(), study, viewer)
        return given

    return logging


def answers_dicomweb[**P](
    door: Callable[P, func.HttpResponse],
) -> Callable[P, func.HttpResponse]:
    """`answers_problems`, and what the retrieve transactions refuse (PS3.18 table 10.4.3-1)."""

    @functools.wraps(door)
    def answering(*args: P.args, **kwargs: P.kwargs) -> func.HttpResponse:
        # Not at the module's top: they load numpy, and this module is loaded at the app's start.
        from slicewatch.dicom_json import NoSuchBulkData
        from slicewatch.holdings import NotHeld
        from slicewatch.limits import Rejected
        from slicewatch.rendering import BadRendering
        from slicewatch.wado import BadFrameList, NoSuchFrame, TooLarge

        try:
            return door(*args, **kwargs)
        except NotHeld:
            raise Problem(
                404, "not-held", "nothing is held under these UIDs", "search for what is there"
            ) from None
        except NoSuchFrame as error:
            raise Problem(
                404,
                "no-such-frame",
                f"the object has {error.args[0]} frames",
                "ask for frames that it has",
            ) from None
        except NoSuchBulkData:
            raise Problem(
                404,
                "no-such-bulk-data",
                "the object has no bulk data at this path",
                "take the BulkDataURI from the object's metadata",
            ) from None
        except BadFrameList as error:
            raise Problem(
                400, "bad-frame-list", str(error), "send frame numbers from 1, as in frames/1,2,5"
            ) from None
        except BadRendering as error:
            raise Problem(
                400, "bad-rendering", str(error), "see PS3.18 section 8.3.5 for the parameters"
            ) from None
        except NotAcceptable as error:
            raise Problem(
                406, "not-acceptable", str(error), "send an Accept header that has it"
            ) from None
        except Rejected as rejected:
            raise Problem(
                406,
                "not-decodable",
                f"frames of this object cannot be given: {rejected}",
                "retrieve the instance itself: it is given as it is stored",
            ) from None
        except TooLarge as error:
            raise Problem(
                413,
                "too-large",
                str(error),
                "retrieve less at once, or raise SLICEWATCH_MAX_REQUEST_BYTES",
            ) from None

    return answers_problems(answering)
