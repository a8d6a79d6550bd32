"""Send studies as a scanner's gateway does: STOW-RS in requests of a few objects, then close."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pydicom
from pydicom.errors import InvalidDicomError

OBJECTS_A_REQUEST = 16


@dataclass(frozen=True, slots=True)
class Object:
    """A DICOM file on disk and the study it belongs to."""

    path: Path
    study: str
    sop_instance: str


class NothingToSend(Exception):
    """There is no such path, or no DICOM file at or below it; the text says which."""


def find(path: Path) -> dict[str, list[Object]]:
    """The DICOM files at or below a path, by StudyInstanceUID. Raises `NothingToSend`."""
    if not path.exists():
        raise NothingToSend(f"{path}: no such file or folder")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    studies: dict[str, list[Object]] = {}
    for file in files:
        try:
            header = pydicom.dcmread(
                file, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "SOPInstanceUID"]
            )
        except InvalidDicomError:
            continue
        if "StudyInstanceUID" in header and "SOPInstanceUID" in header:
            study = str(header.StudyInstanceUID)
            studies.setdefault(study, []).append(Object(file, study, str(header.SOPInstanceUID)))
    if not studies:
        what = "is no DICOM file" if path.is_file() else f"no DICOM file among {len(files)} files"
        raise NothingToSend(f"{path}: {what}")
    return studies


def send(
    client: httpx.Client,
    objects: Sequence[Object],
    told: Callable[[int], None] = lambda sent: None,
    *,
    close: bool = True,
) -> list[dict[str, Any]]:
    """Store the objects of one study, then close it with the list of what was sent.

    Returns:
        The items of the responses' FailedSOPSequence: what the server refused, and why.
    """
    refused: list[dict[str, Any]] = []
    for start in range(0, len(objects), OBJECTS_A_REQUEST):
        chunk = objects[start : start + OBJECTS_A_REQUEST]
        content_type, body = multipart(one.path.read_bytes() for one in chunk)
        answer = client.post(
            "/api/dicomweb/studies", content=body, headers={"Content-Type": content_type}
        )
        if answer.status_code not in (200, 202, 409):
            answer.raise_for_status()
        refused += answer.json().get("00081198", {}).get("Value", [])
        told(start + len(chunk))
    if close:
        closing = {"instances": [one.sop_instance for one in objects]}
        client.post(f"/api/studies/{objects[0].study}/close", json=closing).raise_for_status()
    return refused


def multipart(objects: Iterator[bytes]) -> tuple[str, bytes]:
    """Content type and body of a STOW-RS request (PS3.18 section 10.5.1)."""
    boundary = uuid.uuid4().hex
    parts = [
        b"--%s\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % (boundary.encode(), data)
        for data in objects
    ]
    content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return content_type, b"".join(parts) + b"--%s--\r\n" % boundary.encode()
