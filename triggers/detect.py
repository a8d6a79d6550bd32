"""``detect``: one image in, what is in it out; an alert only when it calls for one."""

from __future__ import annotations

import json
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from slicewatch import settings, single_image, storage
from slicewatch.identity import Role
from slicewatch.limits import Rejected
from slicewatch.records import Reason
from slicewatch.single_image import UnknownModel
from triggers import access
from triggers.responses import Problem, answers_problems, as_json, body_of

bp = df.Blueprint()


@bp.route("detect", methods=["POST"])
@answers_problems
def detect(req: func.HttpRequest) -> func.HttpResponse:
    """Look at one image.

    Body: a JPEG, PNG or DICOM file, or, with ``Content-Type: application/json``,
    ``{"blob": "container/name"}``. Query: ``model``. 200: ``{"statusCode": 200, "body":
    {"objects_detected", "top_class", "detections", "alert"}}``; 400: no such model, or a malformed
    reference; 403: a container that is not named in ``SLICEWATCH_DETECT_CONTAINERS``; 404: no such
    blob; 413: over a bound; 415: not an image; 422: an image that does not decode, or that no
    model fits.
    """
    from slicewatch import model_registry

    access.require(req, Role.UPLOADER, Role.READER)
    config, store = settings.current(), storage.current()
    data, source = _image(req, config, store)
    try:
        seen = single_image.look(
            data, model_registry.current(), config, model=req.params.get("model")
        )
    except Rejected as rejected:
        raise _refused(rejected) from rejected
    except UnknownModel as error:
        named = "model" in req.params
        raise Problem(
            400 if named else 422,
            "unknown-model" if named else "no-model",
            str(error),
            "name a model of the registry: ?model=…",
        ) from error
    if seen.alert:
        single_image.send_alert(store, config, seen, source)
    return as_json({"statusCode": 200, "body": seen.body()})


def _image(
    req: func.HttpRequest, config: settings.Settings, store: storage.Storage
) -> tuple[bytes, str]:
    """The image's bytes and where they came from."""
    body = body_of(req, config.max_request_bytes)
    if not req.headers.get("Content-Type", "").lower().startswith("application/json"):
        return body, "upload"
    container, name = _reference(body)
    if container not in config.detect_containers:
        raise Problem(
            403,
            "container-not-open",
            "blobs of this container are not looked at",
            f"use one of {', '.join(config.detect_containers)}, or SLICEWATCH_DETECT_CONTAINERS",
        )
    found = store.info(container, name)
    if found is None:
        raise Problem(404, "no-such-blob", "there is no such blob", "check its name")
    if found.size > config.max_request_bytes:
        raise Problem(
            413,
            "too-large",
            f"the blob has {found.size} bytes; at most {config.max_request_bytes} are looked at",
            "raise SLICEWATCH_MAX_REQUEST_BYTES, or make the image smaller",
        )
    return store.read(container, name), f"{container}/{name}"


def _reference(body: bytes) -> tuple[str, str]:
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    blob = given.get("blob") if isinstance(given, dict) and given.keys() == {"blob"} else None
    if not isinstance(blob, str) or "://" in blob:
        blob = ""
    container, _, name = blob.partition("/")
    if not container or not name or not _is_blob_name(name):
        raise Problem(
            400,
            "bad-reference",
            "the body is no reference to a blob",
            'send {"blob": "container/name"}; URLs are not fetched',
        )
    return container, name


def _is_blob_name(name: str) -> bool:
    """A name that addresses itself alone.

    HTTP clients resolve the segments . and .. before they send, so that a name with them would
    address another blob, and another container than the one that was checked.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return len(name) <= 1024 and not {".", ".."} & set(name.replace("\\", "/").split("/"))


def _refused(rejected: Rejected) -> Problem:
    """The HTTP status for why an image was refused."""
    status = {
        Reason.NOT_DICOM: 415,
        Reason.NOT_AN_IMAGE: 415,
        Reason.TOO_LARGE: 413,
    }.get(rejected.reason, 422)
    return Problem(
        status,
        rejected.reason.name.lower().replace("_", "-"),
        str(rejected),
        "send a JPEG, PNG or DICOM image within the bounds",
    )
