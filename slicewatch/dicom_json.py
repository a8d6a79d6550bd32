"""DICOM objects as DICOM JSON (PS3.18 annex F), with bulk data left out and named by URI."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import struct
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from slicewatch.dicom_file import open_file
from slicewatch.limits import Limits, Rejected
from slicewatch.transfer_syntaxes import NATIVE

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

type Json = dict[str, Any]

MAX_INLINE_BYTES = 1024
"""Binary values up to this size stand in the JSON, Base64; larger ones are bulk data."""

AVAILABLE_TRANSFER_SYNTAX_UID = "00083002"
PIXEL_DATA = ("7FE00008", "7FE00009", "7FE00010")

# Words of the binary VRs (PS3.5 section 6.2): their bytes are swapped where the file is big endian.
_WORD_BYTES = {"OB": 1, "UN": 1, "OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}
_EXTENDED_OFFSETS = ("7FE00001", "7FE00002")


class NoSuchBulkData(KeyError):
    """The object has no binary value at this path."""


def read(data: bytes) -> Dataset:
    """An object's dataset, for its attributes.

    The bytes are those of a stored object, so `slicewatch.dicom.read` found them sound: bounds
    were checked there.
    """
    from pydicom import dcmread

    _silence_pydicom()
    return dcmread(io.BytesIO(data), force=True)


# VRs, and none, after which the length of a value is 32 bits (PS3.5 section 7.1).
_PIXEL_VRS = (b"", b"OB", b"OW", b"OF", b"OD")


def read_beginning(data: bytes, size: int, limits: Limits) -> Dataset | None:
    """`read` from the first bytes of an object that has `size` bytes, its pixel data left empty.

    ``None`` where the rest of the object is needed: it is more than native pixel data.
    """
    try:
        _, found, _, _ = open_file(data, limits, size)
    except (Rejected, struct.error):
        return None
    pixels = found.pixel_data
    if pixels is None or found.scanner.data is not data or pixels.vr not in _PIXEL_VRS:
        return None
    if pixels.undefined or found.end != size or pixels.start > len(data):
        return None
    return read(data[: pixels.start - 4] + bytes(4))


def as_file(data: bytes, dataset: Dataset) -> bytes:
    """The object as a DICOM file (PS3.10 section 7): its own bytes, and before them the preamble
    and the file meta information where it came without.
    """
    if data[128:132] == b"DICM":
        return data
    head = bytes(128) + b"DICM"
    if data.startswith(b"\x02\x00"):
        return head + data
    from pydicom import uid
    from pydicom.dataset import FileMetaDataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_file_meta_info

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.UID(dataset.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = uid.UID(dataset.SOPInstanceUID)
    meta.TransferSyntaxUID = uid.UID(transfer_syntax(dataset))
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta)
    return head + buffer.getvalue() + data


@cache
def _silence_pydicom() -> None:
    """What pydicom says of bad values quotes them: patients' names and dates would be logged."""
    from pydicom import config

    config.settings.reading_validation_mode = config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")


def metadata(dataset: Dataset, bulk_data_uri: str) -> Json:
    """The object's attributes, those of the file meta information left out.

    The Image Pixel module describes the frames as they are retrieved: colour that is compressed
    in the file comes as RGB by pixel (`slicewatch.frames.uncompressed_frames`). A value that the
    JSON model cannot hold (a DS that is no number) is left out with its attribute.

    Args:
        bulk_data_uri: under which the object's bulk data is retrieved, without a slash at its end.
    """
    found = dict(_attributes(dataset, bulk_data_uri))
    syntax = transfer_syntax(dataset)
    found[AVAILABLE_TRANSFER_SYNTAX_UID] = {"vr": "UI", "Value": [syntax]}
    if syntax not in NATIVE:
        for tag in _EXTENDED_OFFSETS:
            found.pop(tag, None)
        if found.get("00280002", {}).get("Value") == [3]:
            found["00280006"] = {"vr": "US", "Value": [0]}
            if found.get("00280100", {}).get("Value") == [8]:
                found["00280004"] = {"vr": "CS", "Value": ["RGB"]}
    return dict(sorted(found.items()))


def pick(dataset: Dataset, attributes: Mapping[str, str], max_value: int) -> Json:
    """Some attributes of a dataset, by tag and the VR they are to have.

    A value that is too long (`max_value` characters of JSON) or of another VR is left out.
    """
    found: Json = {}
    for name, vr in attributes.items():
        # As in `_attributes`.
        with contextlib.suppress(Exception):
            attribute = _attribute(dataset[int(name, 16)], dataset, "")
            if attribute["vr"] == vr and len(dumps(attribute)) <= max_value:
                found[name] = attribute
    return found


def transfer_syntax(dataset: Dataset) -> str:
    """The transfer syntax that the dataset was read in."""
    named = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if named:
        return str(named)
    implicit, little = dataset.original_encoding
    if implicit:
        return "1.2.840.10008.1.2"
    return "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"


def bulk_data(dataset: Dataset, path: str) -> bytes:
    """A binary value, little endian: ``{tag}``, or ``{tag}/{item}/{tag}`` inside sequences.

    Pixel data is not given here: its frames are.

    Raises:
        NoSuchBulkData: there is none at this path.
    """
    *outer, last = path.split("/")
    try:
        for tag, index in zip(outer[::2], outer[1::2], strict=True):
            dataset = dataset[int(tag, 16)].value[int(index)]
        element = dataset[int(last, 16)]
        value = _binary(element, dataset)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        raise NoSuchBulkData(path) from None
    if value is None or _name(element) in PIXEL_DATA:
        raise NoSuchBulkData(path)
    return value


def dumps(body: Any) -> bytes:
    """JSON as DICOM JSON wants it: UTF-8, no NaN."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _attributes(dataset: Dataset, uri: str) -> Iterator[tuple[str, Json]]:
    for tag in sorted(dataset.keys()):
        if tag.element == 0 or tag.group in (0x0000, 0x0002):
            continue
        # pydicom converts a value when it is asked for it, and raises many things at bad ones.
        with contextlib.suppress(Exception):
            element = dataset[tag]
            yield _name(element), _attribute(element, dataset, f"{uri}/{_name(element)}")


def _attribute(element: DataElement, dataset: Dataset, uri: str) -> Json:
    if element.VR == "SQ":
        items = [
            dict(_attributes(item, f"{uri}/{index}")) for index, item in enumerate(element.value)
        ]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    value = _binary(element, dataset)
    if value is None:
        found: Json = element.to_json_dict(None, 0)
        dumps(found)  # raises where JSON has no such value: NaN, half a surrogate pair
        return found
    vr = "OW" if element.VR == "OB or OW" else element.VR
    if not value and _name(element) not in PIXEL_DATA:
        return {"vr": vr}
    if len(value) > MAX_INLINE_BYTES or _name(element) in PIXEL_DATA:
        return {"vr": vr, "BulkDataURI": uri}
    return {"vr": vr, "InlineBinary": base64.b64encode(value).decode()}


def _binary(element: DataElement, dataset: Dataset) -> bytes | None:
    """The value of an element with a binary VR, little endian; ``None`` for other VRs."""
    width = 2 if element.VR == "OB or OW" else _WORD_BYTES.get(element.VR)
    if width is None:
        return None
    value = bytes(element.value or b"")
    if width == 1 or dataset.original_encoding[1] is not False or len(value) % width:
        return value
    import numpy as np

    return np.frombuffer(value, f">u{width}").astype(f"<u{width}").tobytes()


def _name(element: DataElement) -> str:
    return f"{int(element.tag):08X}"
