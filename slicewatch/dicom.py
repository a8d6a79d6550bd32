"""Reading DICOM objects that arrive from outside: one parse gives the header and lazy frames.

Bounds are checked before anything is decoded, and whatever the bytes are, the only exception is
`Rejected`. What is odd but readable becomes a note of the header, for the integrity checks:

=======================  ======================================================================
``preamble:KIND``        the 128 bytes before ``DICM`` begin like another file: ``pe``, ``elf``,
                         ``macho``, ``script``, ``archive``, ``markup``, ``tiff`` (legal: dual
                         personality, PS3.10 section 7.1), or ``other`` content
``no-preamble``          no preamble and no ``DICM``
``no-transfer-syntax``   the transfer syntax was guessed
``vr-mismatch``          written with (without) VRs where its transfer syntax says otherwise
``meta-uid-mismatch``    the file meta names another SOP instance or class than the dataset
``lossy:RATIO``          lossy compression, at some time; ``lossy:?`` where no ratio is given
``trailing-data``        bytes after the pixel data that are no data elements
``excess-pixel-data``    native pixel data is longer than its description says
=======================  ======================================================================
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicewatch import tags
from slicewatch.dicom_file import open_file
from slicewatch.elements import Dataset
from slicewatch.frames import (
    Frame,
    check_pixel_data,
    decode_frame_number,
    decode_frames,
    rgb_frame,
    uncompressed_frames,
)
from slicewatch.image_pixel import PixelDescription, dimensions
from slicewatch.limits import DEFAULT_LIMITS, Limits, Rejected
from slicewatch.records import Reason
from slicewatch.transfer_syntaxes import DECODABLE, LOSSY, NATIVE
from slicewatch.uids import is_uid

__all__ = [
    "Frame",
    "Header",
    "Instance",
    "Limits",
    "Rejected",
    "read",
    "read_frames",
    "read_header",
]

_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

_IMAGE_STORAGE = re.compile(
    r"1\.2\.840\.10008\.5\.1\.4\.1\.1"
    r"\.(1|1\.[1-3](\.1)?|2|2\.[12]|3\.1|4|4\.[134]|6\.[12]|7|7\.[1-4]|12\.[12](\.1)?"
    r"|13\.1\.[1-5]|20|77\.1\.[1-6](\.1)?|128|130)"
)
"""SOP classes whose objects are images even where their pixel data is gone (PS3.4 table B.5-1)."""

_DERIVED_STORAGE = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{suffix}"
    for suffix in (
        "66.4",  # Segmentation
        "66.7",  # Label Map Segmentation
        "481.2",  # RT Dose
        "30",  # Parametric Map
    )
)
"""Pixel data that no camera saw: results about images, nothing for a detector."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an object says of itself.

    Attributes:
        rows, columns, frames: as declared; rows and columns are 0 for what is no image.
        is_image: it is an image (pixel data or not): not so for SR, RTSTRUCT, presentation states,
            and for segmentations and RT Dose, whose pixels are results about images.
        has_pixel_data: pixel data is there, and not shorter than declared.
        patient_hash: first 16 hex digits of SHA-256 over study instance UID, issuer and patient
            id. The birth date stays out of it: it is often missing from some of a study's series,
            and they would read as another patient's. The study's UID is in it so that hashes
            compare within a study and nowhere else. Empty without a patient id.
        times: StudyDateTime, SeriesDateTime, AcquisitionDateTime, ContentDateTime: DA and TM
            joined, or DT, as written; absent where the date is.
        notes: see the module's text.
        attributes: keyword → text of what models are chosen by (`tags.MODEL_SELECTION`); several
            values stay joined by backslashes; empty ones are left out.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str
    rows: int
    columns: int
    frames: int
    is_image: bool
    has_pixel_data: bool
    instance_number: int | None
    patient_hash: str
    times: dict[str, str]
    notes: tuple[str, ...]
    attributes: dict[str, str]
    bits_allocated: int | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """A parsed object: its header, and its frames, decoded as they are asked for."""

    header: Header
    _dataset: Dataset
    _pixels: PixelDescription | Rejected

    @property
    def dataset(self) -> Dataset:
        """The elements that were kept (`tags.READ`), up to the pixel data."""
        return self._dataset

    def frames(self) -> Iterator[Frame]:
        """The frames, first to last.

        Raises:
            Rejected: at once when the object holds no image that can be decoded here, and at the
                first frame that is damaged.
        """
        header, pixels = self.header, self._decodable()
        return decode_frames(self._dataset, header.transfer_syntax_uid, header.modality, pixels)

    def frame(self, number: int) -> Frame:
        """One frame, from 1 to the header's `frames`, without decoding others; see `frames`."""
        header, pixels = self.header, self._decodable()
        return decode_frame_number(
            self._dataset, header.transfer_syntax_uid, header.modality, pixels, number
        )

    def uncompressed(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """Frames by number as Explicit VR Little Endian pixel data has them; see `frames`."""
        pixels = self._decodable()
        return uncompressed_frames(self._dataset, self.header.transfer_syntax_uid, pixels, numbers)

    def rgb(self, number: int) -> NDArray[np.uint8] | None:
        """A colour frame, (rows, columns, 3); ``None`` for what is shown as gray; see `frames`."""
        pixels = self._decodable()
        return rgb_frame(self._dataset, self.header.transfer_syntax_uid, pixels, number)

    @property
    def uncompressed_frame_bytes(self) -> int:
        """About what a frame of `uncompressed` needs. Raises `Rejected` as `frames` does."""
        return -(-self._decodable().frame_bits // 8)

    def _decodable(self) -> PixelDescription:
        if isinstance(self._pixels, Rejected):
            raise self._pixels
        syntax = self.header.transfer_syntax_uid
        if syntax not in DECODABLE:
            raise Rejected(Reason.UNSUPPORTED_TRANSFER_SYNTAX, syntax)
        return self._pixels


def read_header(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Parse an object without decoding pixels; see `read`."""
    return read(data, limits).header


def read_frames(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Iterator[Frame]:
    """Parse an object and decode its frames; see `read` and `Instance.frames`."""
    return read(data, limits).frames()


def read(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Instance:
    """Parse an object.

    What can be known without decoding is checked here: that the bytes are DICOM and whole, that
    its UIDs can become a path, and that its size is in bounds. A transfer syntax or a pixel
    description that cannot be decoded is refused by `Instance.frames`: such an object belongs to
    its study, and is to be reported with it.

    Args:
        data: a file, with or without preamble (PS3.10).

    Raises:
        Rejected: NOT_DICOM, TRUNCATED, TOO_LARGE, BAD_UID or BAD_HEADER (its structure is
            damaged), NOT_AN_IMAGE for a media directory.
    """
    if len(data) > limits.max_bytes:
        raise Rejected(Reason.TOO_LARGE, f"{len(data)} bytes, at most {limits.max_bytes}")
    syntax, dataset, meta, notes = open_file(data, limits)
    if meta.ascii(tags.MEDIA_STORAGE_SOP_CLASS_UID) == _MEDIA_STORAGE_DIRECTORY:
        raise Rejected(Reason.NOT_AN_IMAGE, "a media directory (DICOMDIR) is no instance")
    uids = _uids(dataset)
    _note_meta(meta, uids, notes)
    is_image = _is_image(dataset, uids[3])
    rows, columns, frames = dimensions(dataset, limits) if is_image else (0, 0, 1)
    pixels = (
        _describe_pixels(dataset, syntax, limits, notes)
        if is_image
        else Rejected(Reason.NOT_AN_IMAGE, f"SOP class {uids[3]}")
    )
    if not dataset.scanner.trailing_is_sound(dataset.end, dataset.encoding):
        notes.append("trailing-data")
    if is_image:
        _note_lossy(dataset, syntax, notes)
    header = Header(
        *uids,
        transfer_syntax_uid=syntax,
        modality=_code(dataset.ascii(tags.MODALITY)),
        rows=rows,
        columns=columns,
        frames=frames,
        is_image=is_image,
        has_pixel_data=dataset.pixel_data is not None,
        instance_number=dataset.integer(tags.INSTANCE_NUMBER),
        patient_hash=_patient_hash(dataset, uids[0]),
        times=_times(dataset),
        notes=tuple(notes),
        attributes=_attributes(dataset),
        bits_allocated=dataset.unsigned(tags.BITS_ALLOCATED) if is_image else None,
    )
    return Instance(header, dataset, pixels)


# --- identity -----------------------------------------------------------------------------------


def _uids(dataset: Dataset) -> tuple[str, str, str, str]:
    """Study, series and SOP instance UID, SOP class UID."""

    def read_uid(tag: int, name: str) -> str:
        text = dataset.ascii(tag)
        if not text:
            raise Rejected(Reason.BAD_UID, f"{name} is missing")
        if not is_uid(text):
            raise Rejected(
                Reason.BAD_UID, f"{name} is not digits and dots of at most 64 characters"
            )
        return text

    return (
        read_uid(tags.STUDY_INSTANCE_UID, "StudyInstanceUID"),
        read_uid(tags.SERIES_INSTANCE_UID, "SeriesInstanceUID"),
        read_uid(tags.SOP_INSTANCE_UID, "SOPInstanceUID"),
        read_uid(tags.SOP_CLASS_UID, "SOPClassUID"),
    )


def _note_meta(meta: Dataset, uids: tuple[str, str, str, str], notes: list[str]) -> None:
    for tag, uid in (
        (tags.MEDIA_STORAGE_SOP_INSTANCE_UID, uids[2]),
        (tags.MEDIA_STORAGE_SOP_CLASS_UID, uids[3]),
    ):
        if tag in meta and meta.ascii(tag) != uid:
            notes.append("meta-uid-mismatch")
            return


def _patient_hash(dataset: Dataset, study_instance_uid: str) -> str:
    patient_id = dataset.raw(tags.PATIENT_ID).strip(b" \0")
    if not patient_id:
        return ""
    issuer = dataset.raw(tags.ISSUER_OF_PATIENT_ID).strip(b" \0")
    parts = (study_instance_uid.encode(), issuer, patient_id)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


# --- pixel data ---------------------------------------------------------------------------------


def _is_image(dataset: Dataset, sop_class_uid: str) -> bool:
    if sop_class_uid in _DERIVED_STORAGE:
        return False
    described = tags.ROWS in dataset and tags.COLUMNS in dataset
    return (
        described
        or dataset.pixel_data is not None
        or _IMAGE_STORAGE.fullmatch(sop_class_uid) is not None
    )


def _describe_pixels(
    dataset: Dataset, syntax: str, limits: Limits, notes: list[str]
) -> PixelDescription | Rejected:
    """The pixels' description, or why there is none.

    Raises:
        Rejected: native pixel data is shorter than declared, or more than the bounds allow.
    """
    if dataset.pixel_data is None:
        return Rejected(Reason.NO_PIXEL_DATA, "it is an image object but holds none")
    try:
        pixels = PixelDescription.of(dataset, limits)
        check_pixel_data(dataset, syntax, pixels)
    except Rejected as rejected:
        if rejected.reason in (Reason.TOO_LARGE, Reason.TRUNCATED):
            raise
        return rejected
    # One byte more makes the length even.
    if syntax in NATIVE and dataset.pixel_bytes > pixels.decoded_bytes + 1:
        notes.append("excess-pixel-data")
    return pixels


def _note_lossy(dataset: Dataset, syntax: str, notes: list[str]) -> None:
    if dataset.ascii(tags.LOSSY_IMAGE_COMPRESSION) == "01" or syntax in LOSSY:
        ratios = dataset.decimals(tags.LOSSY_IMAGE_COMPRESSION_RATIO)
        notes.append(f"lossy:{ratios[-1]:.4g}" if ratios else "lossy:?")


# --- attributes ---------------------------------------------------------------------------------

_DATE_TIMES = (
    ("StudyDateTime", tags.STUDY_DATE, tags.STUDY_TIME),
    ("SeriesDateTime", tags.SERIES_DATE, tags.SERIES_TIME),
    ("AcquisitionDateTime", tags.ACQUISITION_DATE, tags.ACQUISITION_TIME),
    ("ContentDateTime", tags.CONTENT_DATE, tags.CONTENT_TIME),
)


def _times(dataset: Dataset) -> dict[str, str]:
    times = {}
    for name, date, time in _DATE_TIMES:
        text = dataset.ascii(date)
        if name == "AcquisitionDateTime" and tags.ACQUISITION_DATE_TIME in dataset:
            text = dataset.ascii(tags.ACQUISITION_DATE_TIME)
        elif text:
            text += dataset.ascii(time)
        if text:
            times[name] = "".join(char for char in text if char in "0123456789.+-")[:26]
    return times


def _code(text: str) -> str:
    """A CS value: at most 16 of its characters (PS3.5 section 6.2), nothing else."""
    return re.sub(r"[^A-Z0-9_ ]", "", text.upper())[:16]


def _attributes(dataset: Dataset) -> dict[str, str]:
    charset = dataset.ascii(tags.SPECIFIC_CHARACTER_SET)
    found = {
        keyword: _text(dataset.raw(tag), charset)
        for keyword, tag in tags.MODEL_SELECTION.items()
        if tag in dataset
    }
    return {keyword: text for keyword, text in found.items() if text}


def _text(value: bytes, charset: str) -> str:
    value = value[:1024]
    if value.isascii():
        return value.decode("ascii").strip(" \0")
    from pydicom import charset as charsets

    # Warns, with the text, about what it cannot decode: replacing is quiet.
    codes = [charsets.python_encoding.get(code, "") for code in charset.split("\\")]
    encoding = next((code for code in codes if code), "latin-1")
    return value.decode(encoding, "replace").strip(" \0")
