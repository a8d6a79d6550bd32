"""What senders send to the doors, and what their answers are read for."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from typing import Any

import azure.functions as func

from slicewatch.records import Coverage, Review, StudyStatus
from slicewatch.storage import DROPBOX, QUARANTINE, Storage
from tests import studies
from tests.doors import body_of, request

BOUNDARY = "a-boundary"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def related(*objects: bytes, part_type: str = "application/dicom") -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: {part_type}\r\n\r\n".encode()
    return b"".join(head + one + b"\r\n" for one in objects) + f"--{BOUNDARY}--".encode()


def stow(body: bytes, study: str = "", content_type: str = RELATED) -> func.HttpRequest:
    path = f"dicomweb/studies/{study}".rstrip("/")
    route = {"study": study} if study else {}
    return request("POST", path, body, headers={"Content-Type": content_type}, **route)


def zipped(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return buffer.getvalue()


def upload(body: bytes, content_type: str = "application/zip") -> func.HttpRequest:
    return request("POST", "studies", body, headers={"Content-Type": content_type})


def quarantined(storage: Storage, data: bytes) -> bool:
    return any(
        storage.read(QUARANTINE, blob.name) == data
        for blob in storage.listing(QUARANTINE)
        if blob.size == len(data)
    )


def error_of(response: func.HttpResponse) -> dict[str, str]:
    """The error of a response, which is of the one form that all doors have."""
    error: dict[str, str] = body_of(response)["error"]
    assert error.keys() == {"code", "message", "remedy"}
    assert all(error.values())
    assert response.mimetype == "application/json"
    return error


def a_study(seed: int, slices: int = 3) -> tuple[str, dict[str, bytes]]:
    return studies.new_uid("study", seed), studies.study_bytes(slices, seed=seed)


def drop(storage: Storage, data: bytes) -> Any:
    """Put a blob into the dropbox; the trigger's argument for it."""
    name = f"ward 3/{uuid.uuid4()}"
    storage.write(DROPBOX, name, data)
    return func.blob.InputStream(data=data, name=f"{DROPBOX}/{name}")


def name_of(blob: Any) -> str:
    return str(blob.name).removeprefix(f"{DROPBOX}/")


def close(study: str, body: Any = None) -> func.HttpRequest:
    data = b"" if body is None else json.dumps(body).encode()
    return request("POST", f"studies/{study}/close", data, study=study)


def a_review(study: str, content_digest: str = "") -> Review:
    return Review(
        study_instance_uid=study,
        generation=2,
        status=StudyStatus.NOT_FLAGGED,
        lanes=(),
        coverage=Coverage(received_objects=3, images=3, screened=3),
        findings=(),
        integrity=(),
        models=(),
        policy_name="default",
        policy_sha256="0" * 64,
        content_digest=content_digest,
        supersedes=1,
    )
