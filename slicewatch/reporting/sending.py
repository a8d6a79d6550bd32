"""Send results to a PACS: the STOW-RS Store transaction (PS3.18 section 10.5), as its client.

`requests` speaks HTTP here: it is deployed already (the storage SDK's transport), and the message
is one multipart body. dicomweb-client would write the objects anew and try again by a policy of its
own; here the bytes that are stored are the bytes that are sent, and the orchestration's retry
policy says how often.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from slicewatch.media_types import DICOM
from slicewatch.settings import Settings
from slicewatch.stow import MEDIA_TYPE

if TYPE_CHECKING:
    from requests import Response

_MAX_ANSWER = 1 << 20
_TRY_LATER = frozenset({408, 425, 429})
_OUT_OF_RESOURCES = range(0xA700, 0xA800)  # PS3.18 table I.2-2

_FAILED_SOP_SEQUENCE = "00081198"
_REFERENCED_SOP_SEQUENCE = "00081199"
_REFERENCED_SOP_INSTANCE_UID = "00081155"
_FAILURE_REASON = "00081197"


class PacsUnavailable(OSError):
    """The PACS does not answer, or says that it cannot take anything now; worth another try.

    Attributes:
        refused: what it answered on some of the objects all the same, as `store` has it.
    """

    def __init__(self, cause: str, refused: Mapping[str, str] | None = None) -> None:
        super().__init__(cause)
        self.refused = refused or {}


def store(settings: Settings, objects: Mapping[str, bytes]) -> dict[str, str]:
    """Store the objects, SOP instance UID → DICOM file, in one transaction.

    Storing the same again changes nothing: the UIDs and the bytes are the same.

    Returns:
        For each SOP instance UID why the PACS refused it; empty where it took it.

    Raises:
        PacsUnavailable: it does not answer in time, breaks off, or answers that it is not able to
            (408, 425, 429, 5xx, or "out of resources" for an object).
    """
    import requests

    boundary = uuid.uuid4().hex
    deadline = time.monotonic() + settings.pacs_timeout_s
    try:
        with requests.post(
            f"{settings.pacs_url.rstrip('/')}/studies",
            data=_message(objects, boundary),
            headers=_headers(settings, boundary),
            timeout=settings.pacs_timeout_s,
            # A redirect would turn the POST into a GET, or take the token elsewhere.
            allow_redirects=False,
            stream=True,
        ) as answer:
            body = _body(answer, deadline)
            return _outcome(answer.status_code, body, list(objects))
    except requests.RequestException as error:
        raise PacsUnavailable(f"it does not answer: {type(error).__name__}") from None


def _headers(settings: Settings, boundary: str) -> dict[str, str]:
    found = {
        "Content-Type": f'multipart/related; type="{DICOM}"; boundary={boundary}',
        "Accept": MEDIA_TYPE,
    }
    if settings.pacs_token:
        has_scheme = " " in settings.pacs_token
        found["Authorization"] = (
            settings.pacs_token if has_scheme else f"Bearer {settings.pacs_token}"
        )
    return found


def _message(objects: Mapping[str, bytes], boundary: str) -> bytes:
    body = bytearray()
    for data in objects.values():
        body += f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode() + data + b"\r\n"
    return bytes(body + f"--{boundary}--\r\n".encode())


def _body(answer: Response, deadline: float) -> bytes:
    """The answer's body, up to a bound; the timeout of a read alone bounds no slow dripping."""
    body = bytearray()
    for part in answer.iter_content(1 << 14):
        body += part
        if time.monotonic() > deadline:
            raise PacsUnavailable("its answer takes too long")
        if len(body) > _MAX_ANSWER:
            break
    return bytes(body)


def _outcome(status: int, body: bytes, instances: list[str]) -> dict[str, str]:
    if status in _TRY_LATER or status >= 500:
        raise PacsUnavailable(f"it answers {status}")
    if status not in (200, 202, 409):
        return dict.fromkeys(instances, f"the PACS answers {status}")
    module = _module(body)
    if module is None:
        # 200 says that all are stored. The other two name what is not, and this is not legible.
        reason = "" if status == 200 else f"the PACS answers {status}, and does not say of what"
        return dict.fromkeys(instances, reason)
    failed = dict(_failed(module))
    taken = set(_references(module, _REFERENCED_SOP_SEQUENCE))
    outcome = {}
    for one in instances:
        if one in failed:
            outcome[one] = f"the PACS answers {status}, failure reason {failed[one]:04X}"
        elif one in taken or status == 200 or (status == 202 and not taken):
            outcome[one] = ""
        else:
            outcome[one] = f"the PACS answers {status}"
    if any(reason in _OUT_OF_RESOURCES for reason in failed.values()):
        final = {
            one: why for one, why in outcome.items() if failed.get(one) not in _OUT_OF_RESOURCES
        }
        raise PacsUnavailable("it is out of resources", final)
    return outcome


def _module(body: bytes) -> dict[str, Any] | None:
    """The Store Instances Response Module (PS3.18 annex I); ``None`` where it is not DICOM JSON."""
    import json

    try:
        found = json.loads(body)
    except ValueError:
        return None
    if isinstance(found, list):
        found = found[0] if len(found) == 1 else None
    return found if isinstance(found, dict) else None


def _failed(module: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for item in _items(module, _FAILED_SOP_SEQUENCE):
        reason = _value(item, _FAILURE_REASON)
        yield (
            str(_value(item, _REFERENCED_SOP_INSTANCE_UID)),
            reason if isinstance(reason, int) else 0,
        )


def _references(module: dict[str, Any], sequence: str) -> Iterator[str]:
    for item in _items(module, sequence):
        yield str(_value(item, _REFERENCED_SOP_INSTANCE_UID))


def _items(module: dict[str, Any], sequence: str) -> list[dict[str, Any]]:
    value = module.get(sequence)
    items = value.get("Value") if isinstance(value, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _value(item: dict[str, Any], tag: str) -> Any:
    value = item.get(tag)
    values = value.get("Value") if isinstance(value, dict) else None
    return values[0] if isinstance(values, list) and values else None
