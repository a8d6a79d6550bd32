"""How the doors answer: JSON, and one form of error."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from typing import Any

import azure.functions as func
import grpc

from slicewatch.storage import StorageUnavailable
from slicewatch.uids import is_uid

_log = logging.getLogger(__name__)

_RETRY_AFTER_S = 10
_ENGINE_IS_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Problem(Exception):
    """A request that a door refuses: becomes ``{"error": {"code", "message", "remedy"}}``.

    Args:
        status: HTTP status code.
        code: kebab-case name of the cause, for programs.
        message: the cause, remedy: what the sender can do; both free of patient data.
        extra: further keys of the body, beside ``error``.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        remedy: str,
        *,
        headers: dict[str, str] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {"code": code, "message": message, "remedy": remedy},
            **(extra or {}),
        }
        self.headers = headers or {}


def as_json(
    body: Any,
    status: int = 200,
    *,
    media_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> func.HttpResponse:
    """A JSON response."""
    text = json.dumps(body, separators=(",", ":"))
    return func.HttpResponse(text, status_code=status, mimetype=media_type, headers=headers)


def answers_problems[**P](
    door: Callable[P, func.HttpResponse],
) -> Callable[P, func.HttpResponse]:
    """Make a door answer a `Problem` as such, and 503 when storage or the durable engine is away.

    Other exceptions go through: the host answers 500 and records a failed invocation.
    """

    @functools.wraps(door)
    def answering(*args: P.args, **kwargs: P.kwargs) -> func.HttpResponse:
        try:
            return door(*args, **kwargs)
        except Problem as problem:
            answer = problem
        except StorageUnavailable as error:
            _log.warning("%s answers 503: %s", door.__name__, error)
            answer = _unavailable("storage-unavailable", "the storage account does not answer")
        except grpc.RpcError as error:
            if error.code() not in _ENGINE_IS_AWAY:
                raise
            _log.warning("%s answers 503: durable engine: %s", door.__name__, error.code().name)
            answer = _unavailable("engine-unavailable", "the durable engine does not answer")
        return as_json(answer.body, answer.status, headers=answer.headers)

    return answering


def study_of(request: func.HttpRequest) -> str:
    """The StudyInstanceUID in the request's route. Raises `Problem` (400) for what is no UID."""
    study = request.route_params.get("study") or ""
    if not is_uid(study):
        raise Problem(
            400,
            "bad-study-uid",
            "the study in the URL is not a UID: digits and dots, at most 64 characters",
            "use the StudyInstanceUID of the study",
        )
    return study


def unknown_study() -> Problem:
    """404: storage has nothing of the study."""
    return Problem(
        404,
        "unknown-study",
        "nothing was received of this study",
        "check the StudyInstanceUID, or send the study first",
    )


def body_of(request: func.HttpRequest, max_bytes: int) -> bytes:
    """The request's body. Raises `Problem`: 400 when empty, 413 when over `max_bytes`, 415 when
    it is compressed.
    """
    body = plain_body(request)
    if not body:
        raise Problem(400, "empty-body", "the request has no body", "send the objects in the body")
    if len(body) > max_bytes:
        raise Problem(
            413,
            "too-large",
            f"the body has {len(body)} bytes; at most {max_bytes} are accepted",
            "send the study in several requests, or raise SLICEWATCH_MAX_REQUEST_BYTES",
        )
    return body


def plain_body(request: func.HttpRequest) -> bytes:
    """The request's body, empty or not. Raises `Problem` (415) when it is compressed, which would
    read as a body that is damaged, and could grow without bound.
    """
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise Problem(
            415,
            "content-encoding",
            "the body has a Content-Encoding, and none is accepted",
            "send the body as it is, without Content-Encoding",
            headers={"Accept-Encoding": "identity"},
        )
    return request.get_body()


def _unavailable(code: str, message: str) -> Problem:
    return Problem(
        503,
        code,
        message,
        "send the request again later: what was stored already is not stored twice",
        headers={"Retry-After": str(_RETRY_AFTER_S)},
    )
