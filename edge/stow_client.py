"""Sending to the cloud: STOW-RS (PS3.18 section 10.5) and the closing of studies, over keep-alive
connections. A request is streamed, so its size never lies in memory.
"""

from __future__ import annotations

import json
import re
import secrets
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import httpx

from edge.config import Cloud

_CHUNK = 1 << 20
_MAX_ANSWER_BYTES = 16 << 20

_ERROR_COMMENT = "00000902"
_REFERENCED_SOP_INSTANCE_UID = "00081155"
_FAILURE_REASON = "00081197"
_FAILED_SOP_SEQUENCE = "00081198"
_REFERENCED_SOP_SEQUENCE = "00081199"

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1

_PROCESSING_FAILURE = 0x0110
"""The one failure reason of PS3.18 table I.2-2 that says nothing about the object."""


@dataclass(frozen=True, slots=True)
class Part:
    """One object of a request: its SOP instance UID, its size, and its bytes, as often as asked."""

    sop_instance: str
    size: int
    read: Callable[[], Iterator[bytes]]


class Verdict(Enum):
    """What the answer means for the request.

    READ: it says what became of each object. UNREADABLE: it says nothing usable of them.
    NOT_THESE: this request was refused; smaller or alone they may pass. BROKEN: the server failed
    on it. LATER: nothing is known, and it is not the objects' doing. MISCONFIGURED: nobody's
    objects would be accepted.
    """

    READ = auto()
    UNREADABLE = auto()
    NOT_THESE = auto()
    BROKEN = auto()
    LATER = auto()
    MISCONFIGURED = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request.

    Attributes:
        stored, failed: SOP instance UIDs; of a failed one, why.
        failing_for_now: those that the cloud may accept another time.
        text: the cause, for people; free of patient data.
        wait_s: how long the cloud asked to be left alone.
    """

    verdict: Verdict
    text: str = ""
    wait_s: float = 0.0
    stored: frozenset[str] = frozenset()
    failed: dict[str, str] = field(default_factory=dict)
    failing_for_now: frozenset[str] = frozenset()


class CloudClient:
    """One per thread of uploads; `close` ends its connections."""

    def __init__(self, config: Cloud) -> None:
        headers = {"User-Agent": "slicewatch-edge", **config.headers}
        if config.key_file is not None:
            headers["x-functions-key"] = config.key_file.read_text(encoding="utf-8").strip()
        verify: ssl.SSLContext | bool = True
        if config.ca_file is not None:
            verify = ssl.create_default_context(cafile=str(config.ca_file))
        self._url = config.url
        self._token_file = config.token_file
        self._http = httpx.Client(
            headers=headers,
            verify=verify,
            timeout=httpx.Timeout(config.answer_s, connect=config.connect_s),
            limits=httpx.Limits(max_connections=1, keepalive_expiry=60.0),
        )

    def close(self) -> None:
        self._http.close()

    def store(self, parts: Sequence[Part]) -> Answer:
        """Offer objects to the cloud in one request. Never raises for what the network does."""
        boundary = secrets.token_hex(16)
        heads = b"--%s\r\nContent-Type: application/dicom\r\n\r\n" % boundary.encode()
        tail = b"--%s--\r\n" % boundary.encode()
        length = sum(len(heads) + part.size + 2 for part in parts) + len(tail)

        def body() -> Iterator[bytes]:
            for part in parts:
                yield heads
                yield from part.read()
                yield b"\r\n"
            yield tail

        media_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
        headers = {
            "Content-Type": media_type,
            "Content-Length": str(length),
            "Accept": "application/dicom+json",
        }
        return self._exchange(f"{self._url}/dicomweb/studies", headers, body(), _read_store)

    def close_study(
        self,
        study: str,
        instances: Sequence[str] | None,
        screened: Sequence[dict[str, Any]] = (),
    ) -> Answer:
        """Tell the cloud that a study is complete, with the list of its instances where it is
        known, and what was screened on site. READ: noted; NOT_THESE: the cloud does not know the
        study, or the list is refused.
        """
        told: dict[str, Any] = {}
        if instances is not None:
            told["instances"] = instances
        if screened:
            told["screened_at_edge"] = screened
        body = json.dumps(told).encode() if told else b""
        url = f"{self._url}/studies/{study}/close"
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        return self._exchange(url, headers, iter([body]), lambda _: Answer(Verdict.READ))

    def _authorization(self) -> dict[str, str]:
        """Read each time: tokens live about an hour, and something on site renews them."""
        if self._token_file is None:
            return {}
        token = self._token_file.read_text(encoding="ascii").strip()
        if not _TOKEN.fullmatch(token):
            raise ValueError("no token")
        return {"Authorization": f"Bearer {token}"}

    def _exchange(
        self,
        url: str,
        headers: dict[str, str],
        body: Iterator[bytes],
        read: Callable[[bytes], Answer],
    ) -> Answer:
        try:
            headers |= self._authorization()
        except (OSError, ValueError) as error:
            text = f"cloud.token_file holds no token: {type(error).__name__}"
            return Answer(Verdict.MISCONFIGURED, text)
        try:
            with self._http.stream("POST", url, headers=headers, content=body) as response:
                content = _bounded(response)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return Answer(Verdict.LATER, f"{type(error).__name__}: the cloud cannot be reached")
        except httpx.HTTPError as error:
            # Whether it was stored is not known. Counted, so that one object whose requests
            # always end like this goes alone, and last.
            return Answer(Verdict.BROKEN, f"{type(error).__name__}: the request had no answer")
        except OSError as error:
            return Answer(Verdict.BROKEN, f"reading the spool failed: {error.strerror}")
        except httpx.InvalidURL:
            return Answer(Verdict.MISCONFIGURED, "cloud.url is no URL")
        code = response.status_code
        text = f"HTTP {code}{_error_code(content)}"
        # 409 has the same body as 200: none of the objects was stored (PS3.18 table 10.5.3-1).
        if code in (200, 202, 409):
            return read(content)
        if code in (401, 403, 404, 405, 407) or 300 <= code < 400:
            verdict = Verdict.MISCONFIGURED
            if code == 404 and b'"unknown-study"' in content:
                verdict = Verdict.NOT_THESE
            return Answer(verdict, text)
        if code in (408, 425, 429, 503):
            return Answer(Verdict.LATER, text, _retry_after(response))
        if code >= 500:
            return Answer(Verdict.BROKEN, text, _retry_after(response))
        return Answer(Verdict.NOT_THESE, text)


def file_part(sop_instance: str, path: Any, size: int) -> Part:
    """A part that is read from a file, a chunk at a time."""

    def read() -> Iterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    return Part(sop_instance, size, read)


def bytes_part(sop_instance: str, data: bytes) -> Part:
    """A part that is in memory."""
    return Part(sop_instance, len(data), lambda: iter([data]))


def _bounded(response: httpx.Response) -> bytes:
    """The body, up to a bound: a hostile server must not fill memory either."""
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > _MAX_ANSWER_BYTES:
            raise httpx.DecodingError("the answer is too large")
    return bytes(content)


def _read_store(content: bytes) -> Answer:
    """Read a Store Instances Response Module (PS3.18 annex I)."""
    unreadable = Answer(Verdict.UNREADABLE, "the answer is no Store Instances Response")
    try:
        module = json.loads(content)
        stored = frozenset(
            _text(item, _REFERENCED_SOP_INSTANCE_UID)
            for item in _items(module, _REFERENCED_SOP_SEQUENCE)
        )
        failed: dict[str, str] = {}
        for_now = set()
        for item in _items(module, _FAILED_SOP_SEQUENCE):
            uid = _text(item, _REFERENCED_SOP_INSTANCE_UID)
            code = int(item.get(_FAILURE_REASON, {}).get("Value", [0])[0])
            comment = _text(item, _ERROR_COMMENT) if _ERROR_COMMENT in item else ""
            failed[uid] = f"failure reason {code:04X}H" + (f" ({comment})" if comment else "")
            if code == _PROCESSING_FAILURE:
                for_now.add(uid)
    except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RecursionError):
        return unreadable
    if not stored and not failed:
        return unreadable  # it says nothing of what was sent; a proxy's page, perhaps
    return Answer(Verdict.READ, stored=stored, failed=failed, failing_for_now=frozenset(for_now))


def _items(module: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    items = module.get(tag, {}).get("Value", [])
    if not isinstance(items, list):
        raise TypeError(tag)
    return items


def _text(item: dict[str, Any], tag: str) -> str:
    value = item[tag]["Value"][0]
    if not isinstance(value, str):
        raise TypeError(tag)
    return value


def _error_code(content: bytes) -> str:
    """The service's name of the cause, such as ``too-large``; nothing else of its text."""
    try:
        code = json.loads(content)["error"]["code"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return ""
    safe = isinstance(code, str) and len(code) <= 64 and code.replace("-", "").isalnum()
    return f" {code}" if safe else ""


def _retry_after(response: httpx.Response) -> float:
    """Seconds of Retry-After (RFC 9110 section 10.2.3); a date is not worth a clock's trust."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0
