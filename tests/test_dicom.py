"""Headers, notes, UIDs and hostile bytes: whatever arrives, only `Rejected` comes out."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, uid
from pydicom.data import get_testdata_file

from slicewatch.dicom import Header, Limits, Rejected, read, read_frames, read_header
from slicewatch.records import Reason
from slicewatch.transfer_syntaxes import unpack_bits
from tests import studies

SHARED = Path(__file__).parents[2] / "shared" / "data" / "soft-tissue"


def refusal(data: bytes, limits: Limits | None = None) -> Rejected:
    with pytest.raises(Rejected) as caught:
        read_header(data, limits or Limits())
    return caught.value


# --- header -------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", studies.LOSSLESS.values(), ids=studies.LOSSLESS)
def test_header_says_what_the_object_says(syntax: str) -> None:
    dataset = studies.ct_image(number=4, ProtocolName="Thigh", ContrastBolusAgent="Iohexol")
    header = read_header(studies.to_bytes(dataset, syntax))
    assert header.study_instance_uid == dataset.StudyInstanceUID
    assert header.series_instance_uid == dataset.SeriesInstanceUID
    assert header.sop_instance_uid == dataset.SOPInstanceUID
    assert header.sop_class_uid == studies.CT_STORAGE
    assert header.transfer_syntax_uid == syntax
    assert (header.rows, header.columns, header.frames) == (96, 80, 1)
    assert (header.modality, header.instance_number) == ("CT", 4)
    assert header.is_image
    assert header.has_pixel_data
    assert header.notes == ()
    assert header.times == {
        "StudyDateTime": "20240305101500",
        "SeriesDateTime": "20240305102001",
        "ContentDateTime": "20240305102130.5",
    }
    wanted = {
        "Modality": "CT",
        "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
        "BodyPartExamined": "EXTREMITY",
        "ProtocolName": "Thigh",
        "ContrastBolusAgent": "Iohexol",
        "SeriesDescription": "CT 1",
    }
    assert header.attributes.items() >= wanted.items()
    assert "ScanningSequence" not in header.attributes


@pytest.mark.parametrize(
    ("charset", "written"),
    [("ISO_IR 192", "Schädel ✓"), ("ISO_IR 100", "Schädel"), ("ISO_IR 144", "Череп")],
)
def test_attributes_are_decoded_by_the_character_set(charset: str, written: str) -> None:
    dataset = studies.ct_image(SpecificCharacterSet=charset, SeriesDescription=written)
    assert read_header(studies.to_bytes(dataset)).attributes["SeriesDescription"] == written


@pytest.mark.parametrize("charset", [b"ISO_IR 192", b"ISO_IR 999", b"ISO 2022 B", b"\\ISO_IR144"])
def test_undecodable_text_is_replaced(charset: bytes) -> None:
    data = studies.to_bytes(studies.ct_image(StudyDescription="AB"))
    damaged = data.replace(b"LO\x02\x00AB", b"LO\x02\x00A\xff").replace(b"ISO_IR 192", charset)
    assert b"A\xff" in damaged
    assert read_header(damaged).attributes["StudyDescription"].startswith("A")


def test_acquisition_time_prefers_the_combined_attribute() -> None:
    dataset = studies.ct_image(AcquisitionDate="20240101", AcquisitionTime="0102")
    assert read_header(studies.to_bytes(dataset)).times["AcquisitionDateTime"] == "202401010102"
    dataset.AcquisitionDateTime = "20240102030405.25+0100"
    times = read_header(studies.to_bytes(dataset)).times
    assert times["AcquisitionDateTime"] == "20240102030405.25+0100"


def test_patient_hash_tells_patients_apart_within_a_study_only() -> None:
    def digest(**attributes: Any) -> str:
        return read_header(studies.to_bytes(studies.ct_image(**attributes))).patient_hash

    same = digest()
    assert re.fullmatch("[0-9a-f]{16}", same)
    assert digest(PatientName="Other^Name", PatientBirthDate="") == same
    assert digest(PatientID="GEN-0 ") == same
    assert digest(PatientID="GEN-1") != same
    assert digest(IssuerOfPatientID="Elsewhere") != same
    assert digest(StudyInstanceUID="2.25.99") != same
    assert digest(PatientID="") == ""


@pytest.mark.parametrize(
    ("factory", "is_image", "has_pixel_data"),
    [
        (studies.ct_image, True, True),
        (studies.enhanced_image, True, True),
        (studies.structured_report, False, False),
        (studies.rt_structure_set, False, False),
        (studies.segmentation, False, True),
    ],
)
def test_images_are_told_from_other_objects(
    factory: Callable[[], Dataset], is_image: bool, has_pixel_data: bool
) -> None:
    header = read_header(studies.to_bytes(factory()))
    assert (header.is_image, header.has_pixel_data) == (is_image, has_pixel_data)


def test_image_whose_pixels_are_gone_is_still_an_image() -> None:
    dataset = studies.ct_image()
    for keyword in ("PixelData", "Rows", "Columns"):
        del dataset[keyword]
    header = read_header(studies.to_bytes(dataset))
    assert (header.is_image, header.has_pixel_data) == (True, False)


def test_one_parse_serves_header_and_frames() -> None:
    instance = read(studies.to_bytes(studies.enhanced_image(3)))
    assert instance.header.frames == 3
    assert [frame.number for frame in instance.frames()] == [1, 2, 3]
    assert len(list(instance.frames())) == 3


# --- notes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beginning", "note"),
    [
        (b"", None),
        (b"MZ\x90\x00", "preamble:pe"),
        (b"\x7fELF\x02", "preamble:elf"),
        (b"\xcf\xfa\xed\xfe", "preamble:macho"),
        (b"#!/bin/sh\n", "preamble:script"),
        (b" \n<?PHP ", "preamble:script"),
        (b"PK\x03\x04", "preamble:archive"),
        (b"<!DOCTYPE html>", "preamble:markup"),
        (b"II*\x00\x08", "preamble:tiff"),
        (b"MM\x00*", "preamble:tiff"),
        (b"anything", "preamble:other"),
    ],
)
def test_preamble_is_examined(beginning: bytes, note: str | None) -> None:
    data = studies.to_bytes(studies.ct_image(), preamble=beginning.ljust(128, b"\0"))
    assert read_header(data).notes == ((note,) if note else ())


def test_file_without_preamble_reads_with_a_note() -> None:
    data = studies.to_bytes(studies.ct_image())
    assert read_header(data[132:]).notes == ("no-preamble",)


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
)
def test_bare_dataset_reads_in_each_encoding(syntax: str) -> None:
    dataset = studies.ct_image()
    data = studies.to_bytes(dataset, syntax)
    group_length = int.from_bytes(data[140:144], "little")
    bare = data[144 + group_length :]
    header = read_header(bare)
    assert header.notes == ("no-preamble", "no-transfer-syntax")
    assert header.transfer_syntax_uid == syntax
    (one,), (other,) = read_frames(bare), read_frames(data)
    np.testing.assert_array_equal(one.values, other.values)


def test_other_encoding_than_claimed_is_read_and_noted() -> None:
    data = studies.to_bytes(studies.ct_image(), uid.ImplicitVRLittleEndian)
    lying = studies.with_transfer_syntax(data, uid.ExplicitVRLittleEndian)
    assert read_header(lying).notes == ("vr-mismatch",)
    (one,), (other,) = read_frames(lying), read_frames(data)
    np.testing.assert_array_equal(one.values, other.values)


def test_meta_that_names_another_instance_is_noted() -> None:
    dataset = studies.ct_image()
    data = studies.to_bytes(dataset)
    first = data.index(str(dataset.SOPInstanceUID).encode())
    renamed = data[:first] + b"3" + data[first + 1 :]
    assert read_header(renamed).notes == ("meta-uid-mismatch",)


@pytest.mark.parametrize(
    ("attributes", "note"),
    [
        ({"LossyImageCompression": "01", "LossyImageCompressionRatio": "12.5"}, "lossy:12.5"),
        ({"LossyImageCompression": "01"}, "lossy:?"),
        ({"LossyImageCompression": "00"}, None),
    ],
)
def test_lossy_history_is_noted(attributes: dict[str, Any], note: str | None) -> None:
    header = read_header(studies.to_bytes(studies.ct_image(**attributes)))
    assert header.notes == ((note,) if note else ())


def test_lossy_transfer_syntax_is_noted_where_the_object_is_silent() -> None:
    assert read_header(studies.to_bytes(studies.ct_image(), uid.JPEG2000)).notes == ("lossy:?",)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless])
def test_what_follows_the_pixel_data_is_examined(syntax: str) -> None:
    data = studies.to_bytes(studies.ct_image(), syntax)
    padding = struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, 4) + bytes(4)
    assert read_header(data + padding).notes == ()
    assert read_header(data + bytes(512)).notes == ()
    assert read_header(data + b"MZ\x90 something else entirely").notes == ("trailing-data",)


def test_longer_pixel_data_than_described_is_noted() -> None:
    dataset = studies.ct_image()
    dataset.PixelData += bytes(64)
    assert read_header(studies.to_bytes(dataset)).notes == ("excess-pixel-data",)


# --- identity -----------------------------------------------------------------------------------

UIDS = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]


def with_uid(keyword: str, value: bytes) -> bytes:
    """An object with raw bytes in place of one UID (pydicom would refuse to write them)."""
    dataset = studies.ct_image()
    placeholder = b"2.25.777" + b"7" * 8
    setattr(dataset, keyword, placeholder.decode())
    data = studies.to_bytes(dataset)
    tag = struct.pack("<HH", *divmod(int(dataset[keyword].tag), 1 << 16))
    element = tag + b"UI" + struct.pack("<H", 16) + placeholder
    assert data.count(element) == 1
    value += bytes(len(value) % 2)
    return data.replace(element, tag + b"UI" + struct.pack("<H", len(value)) + value)


@pytest.mark.parametrize("keyword", UIDS)
@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"1.2/3", b"..", b"../../etc", b"1.2\\3", b"1..2", b".1", b"1.2.", b"1.2a"),
        *(b"1.2\n3", b"1.2\x003", b"1." + b"2" * 63, b"%2e%2e", b"1.2 .3"),
    ],
)
def test_uids_that_could_not_be_a_path_are_refused(keyword: str, value: bytes) -> None:
    rejected = refusal(with_uid(keyword, value))
    assert rejected.reason is Reason.BAD_UID
    assert keyword in rejected.detail
    if value:
        assert value.decode("latin-1") not in rejected.detail


@pytest.mark.parametrize("value", [b"1.2.03", b"1.2.3 ", b"1.2.3\0", b"1." + b"2" * 62])
def test_uids_as_scanners_write_them_pass(value: bytes) -> None:
    header = read_header(with_uid("SeriesInstanceUID", value))
    assert header.series_instance_uid == value.decode().rstrip(" \0")


def test_refusals_say_nothing_of_the_patient() -> None:
    dataset = studies.ct_image(PatientName="Secret^Name", PatientID="SECRET-ID")
    whole = studies.to_bytes(dataset)
    for data in (
        whole[: len(whole) // 2],
        studies.to_bytes(_without(dataset, "StudyInstanceUID")),
        whole.replace(str(dataset.StudyInstanceUID).encode()[:20], b"SECRET-ID/Secret^Nam"),
    ):
        text = str(refusal(data))
        assert "secret" not in text.lower()
        assert dataset.SOPInstanceUID not in text


def _without(dataset: Dataset, keyword: str) -> Dataset:
    copied = Dataset()
    copied.update({e.tag: e for e in dataset if e.keyword != keyword})
    return copied


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"", b"x", b"DICM", bytes(132), b"\x89PNG\r\n\x1a\n" * 40, b"GIF89a" * 99, b"{}" * 200]
)
def test_other_files_are_not_dicom(data: bytes) -> None:
    assert refusal(data).reason is Reason.NOT_DICOM


def test_media_directory_is_no_instance() -> None:
    path = get_testdata_file("dicomdirtests/DICOMDIR", download=False)
    assert isinstance(path, str)
    assert refusal(Path(path).read_bytes()).reason is Reason.NOT_AN_IMAGE


TRUNCATABLE = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEG2000Lossless,
]


@pytest.mark.parametrize("syntax", TRUNCATABLE)
@pytest.mark.parametrize("enhanced", [False, True])
def test_every_cut_of_an_image_is_noticed(syntax: str, enhanced: bool) -> None:
    """Cut anywhere, an image is refused, or (cut between elements) known to lack its pixels."""
    pixels = studies.body_slice(10, 8)
    dataset = studies.enhanced_image(2) if enhanced else studies.ct_image(pixels)
    data = studies.to_bytes(dataset, syntax)
    for size in range(140, len(data) - 1, 7 if enhanced else 3):
        with pytest.raises(Rejected) as caught:
            list(read_frames(data[:size]))
        assert caught.value.reason in {
            Reason.TRUNCATED,
            Reason.NO_PIXEL_DATA,
            Reason.BAD_UID,
            Reason.NOT_AN_IMAGE,
        }
        if size > data.find(b"\xe0\x7f\x10\x00") + 12 and syntax == uid.ExplicitVRLittleEndian:
            assert caught.value.reason is Reason.TRUNCATED


def test_missing_sequence_delimiters_are_noticed() -> None:
    dataset = studies.structured_report()
    dataset["ContentSequence"].is_undefined_length = True
    data = studies.to_bytes(dataset)
    assert read_header(data).modality == "SR"
    assert data.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0")
    assert refusal(data[:-8]).reason is Reason.TRUNCATED
    assert refusal(data[:-3]).reason is Reason.TRUNCATED


def test_deflate_bomb_is_not_inflated() -> None:
    data = studies.to_bytes(studies.ct_image(), uid.DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(data[140:144], "little")
    bomb = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(256)) + bomb.flush()
    assert len(packed) < 300_000
    tracemalloc.start()
    rejected = refusal(data[:start] + packed)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rejected.reason is Reason.TOO_LARGE
    assert peak < 200 << 20
    assert refusal(data[:start] + packed, Limits(max_bytes=1 << 20)).reason is Reason.TOO_LARGE


def test_deflated_garbage_is_refused() -> None:
    data = studies.to_bytes(studies.ct_image(), uid.DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(data[140:144], "little")
    assert refusal(data[:start] + b"\xff" * 99).reason is Reason.DECODE_FAILED
    assert refusal(data[:-20]).reason is Reason.TRUNCATED


def test_deep_nesting_is_refused() -> None:
    data = studies.to_bytes(studies.structured_report())
    sequence = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    rejected = refusal(data + (sequence + item) * 5000)
    assert rejected.reason is Reason.BAD_HEADER
    assert "nested" in rejected.detail


def test_countless_elements_fill_neither_memory_nor_time() -> None:
    data = studies.to_bytes(studies.structured_report())
    sequence = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    hostile = data + sequence + item * 300_000
    tracemalloc.start()
    assert refusal(hostile, Limits(max_elements=200_000)).reason is Reason.TOO_LARGE
    assert refusal(hostile).reason is Reason.TRUNCATED
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


# --- fuzzing ------------------------------------------------------------------------------------

_SMALL = Limits(max_pixels_per_frame=1 << 16, max_decoded_bytes=1 << 22, max_elements=50_000)


@cache
def _corpus() -> tuple[bytes, ...]:
    small = np.clip(studies.body_slice(24, 20), -1024, 2047)
    ct = studies.ct_image(small, bits_stored=12)
    enhanced = studies.enhanced_image(2)
    others = [
        studies.palette_image(segmented=True),
        studies.palette_image(bits=8, segmented=True),
        studies.ybr_422_image(),
        studies.cr_image(),
        studies.structured_report(),
        studies.rt_structure_set(references=[ct]),
    ]
    return (
        *(studies.to_bytes(ct, syntax) for syntax in studies.LOSSLESS.values()),
        *(studies.to_bytes(enhanced, syntax) for syntax in studies.LOSSLESS.values()),
        *(
            studies.to_bytes(studies.rgb_image(), studies.LOSSY[name])
            for name in ("jpeg-baseline", "jpeg-ls-near", "jpeg-2000-lossy", "htj2k-lossy")
        ),
        studies.to_bytes(ct, uid.JPEGExtended12Bit),
        *map(studies.to_bytes, others),
    )


_EDIT = st.tuples(
    st.sampled_from(["set", "flip", "cut", "insert", "word", "end", "repeat"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 255),
)


def _edited(data: bytes, edits: list[tuple[str, float, int]]) -> bytes:
    changed = bytearray(data)
    for kind, place, value in edits:
        at = int(place * len(changed))
        match kind:
            case "set":
                changed[at : at + 1] = bytes([value])
            case "flip" if at < len(changed):
                changed[at] ^= 1 << value % 8
            case "cut":
                del changed[at : at + 1 + value]
            case "insert":
                changed[at:at] = bytes([value]) * (1 + value % 9)
            case "word":
                word = (0xFFFFFFFF, 0, 0x7FFFFFFF, 0x00010000, 0xFFFE)[value % 5]
                changed[at : at + 4] = struct.pack("<L", word)
            case "end":
                del changed[at:]
            case "repeat":
                changed[at:at] = changed[max(0, at - 8 * value) : at]
    return bytes(changed)


@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 34), st.lists(_EDIT, min_size=1, max_size=6))
def test_damaged_objects_raise_nothing_but_rejected(
    which: int, edits: list[tuple[str, float, int]]
) -> None:
    data = _edited(_corpus()[which % len(_corpus())], edits)
    values = 0
    with contextlib.suppress(Rejected):
        for frame in read_frames(data, _SMALL):
            assert frame.values.ndim == 2
            values += frame.values.size
    assert values <= _SMALL.max_decoded_bytes


@settings(max_examples=300)
@given(st.binary(max_size=400))
@example(bytes(128) + b"DICM")
def test_arbitrary_bytes_raise_nothing_but_rejected(noise: bytes) -> None:
    for data in (noise, bytes(128) + b"DICM" + noise, b"\x08\x00\x05\x00CS" + noise):
        with pytest.raises(Rejected):
            read_header(data, _SMALL)


@given(st.binary(min_size=1, max_size=300))
def test_packed_bits_unpack_to_what_was_packed(octets: bytes) -> None:
    assert unpack_bits(studies.pack_bits(octets), len(octets)) == octets


# --- real data ----------------------------------------------------------------------------------

REAL = sorted(SHARED.glob("*/*/*"))[::4] if SHARED.is_dir() else []


@pytest.mark.parametrize("folder", REAL, ids=lambda path: "-".join(path.parts[-3:]))
def test_real_objects_have_sound_headers(folder: Path) -> None:
    for file in sorted(folder.glob("*.dcm"))[:5]:
        data = file.read_bytes()
        header = read_header(data)
        assert isinstance(header, Header)
        dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        assert header.sop_instance_uid == dataset.SOPInstanceUID
        assert header.modality == dataset.Modality
        assert header.is_image == (dataset.Modality in {"CT", "MR"})
        assert header.notes == ()
        assert header.patient_hash
