"""Retrieve transactions of DICOMweb (WADO-RS, PS3.18 section 10.4)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from slicewatch import catalogue, dicom_json, holdings
from slicewatch.holdings import Held
from slicewatch.media_types import DICOM, OCTET_STREAM, Accepted, NotAcceptable
from slicewatch.storage import Storage
from slicewatch.transfer_syntaxes import NATIVE

if TYPE_CHECKING:
    from pydicom import Dataset

    from slicewatch.dicom import Instance
    from slicewatch.limits import Limits

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"

_DESCRIBED_AT_ONCE = 256

_FRAME_LIST = re.compile(r"[0-9]{1,9}(?:,[0-9]{1,9})*")


class TooLarge(Exception):
    """The answer would be over the bound; the text says by how much."""


class BadFrameList(ValueError):
    """The frame list of the URL is malformed."""


class NoSuchFrame(KeyError):
    """The object has fewer frames; the argument says how many."""


class Multipart:
    """A ``multipart/related`` message that is being written (PS3.18 section 8.6.1.2).

    Args:
        part_type: media type of the parts.
        max_bytes: bound on the message, which is held in memory.
    """

    def __init__(self, part_type: str, max_bytes: int) -> None:
        self._boundary = uuid.uuid4().hex
        self._body = bytearray()
        self._max_bytes = max_bytes
        self.content_type = f'multipart/related; type="{part_type}"; boundary={self._boundary}'

    def add(self, data: bytes, content_type: str) -> None:
        """Append a part. Raises `TooLarge`."""
        check_size(len(self._body) + len(data), self._max_bytes)
        head = f"--{self._boundary}\r\nContent-Type: {content_type}\r\n\r\n"
        self._body += b"\r\n" * bool(self._body) + head.encode() + data

    def close(self) -> bytes:
        """The message."""
        return bytes(self._body + f"\r\n--{self._boundary}--\r\n".encode())


def check_size(size: int, max_bytes: int) -> None:
    """Raises `TooLarge` for an answer over the bound."""
    if size > max_bytes:
        raise TooLarge(f"the answer has {size} bytes or more, at most {max_bytes} are sent")


def instances(
    storage: Storage, objects: Sequence[Held], accepted: Accepted, max_bytes: int
) -> tuple[bytes, str, bool]:
    """The objects as they came, each in the transfer syntax it is stored in. Bytes are unchanged;
    what came without preamble, which a client could not read, gets one (`dicom_json.as_file`).

    Returns:
        The body, its Content-Type, and whether objects were left out because the request accepts
        other transfer syntaxes only (status 206).

    Raises:
        NotAcceptable: none of the objects is in a form that is accepted.
        TooLarge: before anything is read.
        NotHeld: an object is gone.
    """
    single = len(objects) == 1 and accepted.prefers_single(DICOM)
    syntaxes = accepted.transfer_syntaxes(DICOM, single=single)
    check_size(sum(one.size for one in objects), max_bytes)
    message = Multipart(DICOM, max_bytes)
    sent = 0
    for syntax, data in holdings.map_objects(storage, objects, _with_syntax):
        if syntaxes is not None and syntax not in syntaxes:
            continue
        sent += 1
        part_type = f"{DICOM}; transfer-syntax={syntax}"
        if single:
            return data, part_type, False
        message.add(data, part_type)
    if not sent:
        raise NotAcceptable(
            "objects come in the transfer syntax they are stored in: leave the parameter "
            "transfer-syntax out, or ask for *"
        )
    return message.close(), message.content_type, sent < len(objects)


def _with_syntax(one: Held, data: bytes) -> tuple[str, bytes]:
    dataset = dicom_json.read(data)
    return dicom_json.transfer_syntax(dataset), dicom_json.as_file(data, dataset)


def metadata(
    storage: Storage, objects: Sequence[Held], base_url: str, max_bytes: int, limits: Limits
) -> bytes:
    """The objects' attributes, a DICOM JSON array (annex F).

    Of an object whose pixel data is native only the beginning is read. Objects are read a few at
    a time and only their JSON is kept.

    Args:
        base_url: of the DICOMweb service, without a slash at its end.

    Raises:
        TooLarge: the answer is over the bound.
        NotHeld: an object is gone.
    """
    body = bytearray(b"[")
    for first in range(0, len(objects), _DESCRIBED_AT_ONCE):
        some = objects[first : first + _DESCRIBED_AT_ONCE]
        for text in _described(storage, some, base_url, limits):
            body += b"," * (len(body) > 1) + text
            check_size(len(body), max_bytes)
    return bytes(body + b"]")


def _described(
    storage: Storage, objects: Sequence[Held], base_url: str, limits: Limits
) -> Iterator[bytes]:
    """The JSON of each object, in order."""

    def text_of(one: Held, dataset: Dataset) -> bytes:
        uri = f"{instance_url(base_url, one)}/bulkdata"
        return dicom_json.dumps(dicom_json.metadata(dataset, uri))

    def by_beginning(one: Held, data: bytes) -> bytes | None:
        dataset = dicom_json.read_beginning(data, one.size, limits)
        return None if dataset is None else text_of(one, dataset)

    native = [one for one in objects if _is_native(one)]
    by_instance = dict(
        zip(
            ((one.series, one.instance) for one in native),
            holdings.map_beginnings(storage, native, by_beginning),
            strict=True,
        )
    )
    texts = [by_instance.get((one.series, one.instance)) for one in objects]
    whole = [one for one, text in zip(objects, texts, strict=True) if text is None]
    rest = holdings.map_objects(
        storage, whole, lambda one, data: text_of(one, dicom_json.read(data))
    )
    for text in texts:
        yield next(rest) if text is None else text


def _is_native(one: Held) -> bool:
    """Whether the object's note says that its pixel data is native, and it is large."""
    noted = one.metadata.get(catalogue.NOTE, "").split(";")
    return one.size > 2 * holdings.BEGINNING and noted[1:2] != [] and noted[1] in NATIVE


def frame_numbers(text: str, frames: int) -> list[int]:
    """The frame list of a URL, ``1,3,4``: numbers from 1, in the order asked for.

    Raises:
        BadFrameList: it is no such list, or names more frames than the object has.
        NoSuchFrame: a number is beyond the object's frames.
    """
    if not _FRAME_LIST.fullmatch(text):
        raise BadFrameList("the frame list is not numbers with commas between them")
    numbers = [int(part) for part in text.split(",")]
    if 0 in numbers:
        raise BadFrameList("frames are counted from 1")
    if max(numbers) > frames:
        raise NoSuchFrame(frames)
    if len(numbers) > frames:
        raise BadFrameList(f"the list names {len(numbers)} frames of an object that has {frames}")
    return numbers


def frames(
    instance: Instance, numbers: Sequence[int], accepted: Accepted, max_bytes: int
) -> tuple[bytes, str]:
    """Frames as uncompressed pixel data, Explicit VR Little Endian; the body and Content-Type.

    Raises:
        NotAcceptable: another media type or transfer syntax is asked for.
        TooLarge: before anything is decoded.
        Rejected: a frame cannot be decoded.
    """
    single = len(numbers) == 1 and accepted.prefers_single(OCTET_STREAM)
    _check_uncompressed(accepted, single=single)
    check_size(len(numbers) * instance.uncompressed_frame_bytes, max_bytes)
    parts = instance.uncompressed(numbers)
    return _octets(parts, single=single, max_bytes=max_bytes)


def bulk_data(
    data: bytes, path: str, accepted: Accepted, max_bytes: int, limits: Limits
) -> tuple[bytes, str]:
    """A binary value that the metadata name by URI, little endian; the body and Content-Type.

    Pixel data comes as its frames, uncompressed, one after the other.

    Raises:
        NoSuchBulkData: the object has none at this path.
        NotAcceptable, TooLarge, Rejected: as of `frames`.
    """
    from slicewatch.dicom import read

    single = accepted.prefers_single(OCTET_STREAM)
    _check_uncompressed(accepted, single=single)
    if path in dicom_json.PIXEL_DATA:
        instance = read(data, limits)
        if not instance.header.has_pixel_data:
            raise dicom_json.NoSuchBulkData(path)
        count = instance.header.frames
        check_size(count * instance.uncompressed_frame_bytes, max_bytes)
        value = b"".join(instance.uncompressed(range(1, count + 1)))
    else:
        value = dicom_json.bulk_data(dicom_json.read(data), path)
    return _octets([value], single=single, max_bytes=max_bytes)


def instance_url(base_url: str, one: Held) -> str:
    """Where the object is retrieved."""
    return f"{base_url}/studies/{one.study}/series/{one.series}/instances/{one.instance}"


def _check_uncompressed(accepted: Accepted, *, single: bool) -> None:
    syntaxes = accepted.transfer_syntaxes(OCTET_STREAM, single=single)
    if syntaxes is not None and EXPLICIT_LITTLE not in syntaxes:
        raise NotAcceptable(f"frames come uncompressed, in transfer syntax {EXPLICIT_LITTLE}")


def _octets(parts: Iterable[bytes], *, single: bool, max_bytes: int) -> tuple[bytes, str]:
    if single:
        return b"".join(parts), OCTET_STREAM
    message = Multipart(OCTET_STREAM, max_bytes)
    for part in parts:
        message.add(part, f"{OCTET_STREAM}; transfer-syntax={EXPLICIT_LITTLE}")
    return message.close(), message.content_type
