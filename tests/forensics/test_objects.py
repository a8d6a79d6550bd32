"""Signatures, private data and attributes: what an object's bytes tell, and a series of them."""

from __future__ import annotations

import dataclasses
import datetime
import gzip
import io
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydicom import Dataset, uid
from pydicom.sequence import Sequence as ItemSequence

from slicewatch import dicom
from slicewatch.forensics.evidence import with_object
from slicewatch.integrity import check
from slicewatch.records import IntegrityIssue, Outcome, SliceResult
from tests.slice_results import STUDY, axial_series
from tests.studies import ct_image, to_bytes


def seen(data: bytes) -> SliceResult:
    """What screening keeps of an object's bytes and attributes."""
    return with_object(SliceResult("b", "", Outcome.REJECTED), data, dicom.read(data))


def codes(slices: list[SliceResult]) -> list[str]:
    return [issue.code for issue in check(slices, study_instance_uid=STUDY)]


def noted(notes: tuple[str, ...]) -> IntegrityIssue:
    first, *rest = axial_series(5)
    (issue,) = check([dataclasses.replace(first, notes=notes), *rest], study_instance_uid=STUDY)
    assert issue.blobs == (first.blob,)
    return issue


# --- signatures -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an RSA key and a certificate of it."""
    folder = tmp_path_factory.mktemp("signer")
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Signer")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2024, 1, 1))
        .not_valid_after(datetime.datetime(2044, 1, 1))
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    (folder / "certificate").write_bytes(certificate.public_bytes(pem))
    return folder


def signed(folder: Path, syntax: str, *options: str) -> bytes:
    """An image with a sequence, signed by DCMTK."""
    dcmsign = shutil.which("dcmsign")
    if dcmsign is None:
        pytest.skip("dcmsign (DCMTK) is not installed")
    dataset = ct_image()
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99X", "odd"
    dataset.AnatomicRegionSequence = ItemSequence([item, item])
    plain, result = folder / "plain.dcm", folder / "signed.dcm"
    plain.write_bytes(to_bytes(dataset, syntax))
    command: list[str | Path] = [
        dcmsign,
        "+s",
        folder / "key",
        folder / "certificate",
        *options,
        plain,
        result,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return result.read_bytes()


SYNTAXES = {"explicit": uid.ExplicitVRLittleEndian, "implicit": uid.ImplicitVRLittleEndian}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("algorithm", ["+ms", "+m2", "+m5"])
def test_signature_of_dcmtk_holds_until_a_bit_changes(
    signer: Path, syntax: str, algorithm: str
) -> None:
    data = signed(signer, SYNTAXES[syntax], algorithm)
    assert seen(data).notes == ("signature:valid",)
    pixel = data.index(b"\xe0\x7f\x10\x00") + 500
    changed = data[:pixel] + bytes([data[pixel] ^ 1]) + data[pixel + 1 :]
    assert seen(changed).notes == ("signature:invalid",)


def test_signature_over_some_elements_is_silent_on_the_others(signer: Path) -> None:
    data = signed(signer, uid.ExplicitVRLittleEndian, "+m2", "-t", "PatientName", "-t", "Rows")
    assert seen(data.replace(b"EXTREMITY", b"EXTRAMITY")).notes == ("signature:valid",)
    assert seen(data.replace(b"Test^Gen", b"Best^Gen")).notes == ("signature:invalid",)


def test_signature_of_an_algorithm_that_is_not_read_says_so(signer: Path) -> None:
    assert seen(signed(signer, uid.ExplicitVRLittleEndian, "+mr")).notes == ("signature:unchecked",)


def test_signature_taken_off_is_noticed_and_a_damaged_one_is_no_fault(signer: Path) -> None:
    data = signed(signer, uid.ExplicitVRLittleEndian, "+m2")
    at = data.index(b"\xfa\xff\xfa\xff")
    assert seen(data[:at]).notes == ("signature:unchecked",)
    for cut in range(at + 9, len(data), 97):
        assert seen(data[:cut]).notes != ("signature:valid",)


def test_what_signatures_tell_becomes_issues() -> None:
    assert noted(("signature:invalid",)).severity == "error"
    assert noted(("signature:unchecked",)).code == "signature-unchecked"
    slices = [dataclasses.replace(one, notes=("signature:valid",)) for one in axial_series(5)]
    assert codes(slices) == []
    slices[2] = dataclasses.replace(slices[2], notes=())
    assert codes(slices) == ["signature-missing"]


# --- private data and other files -------------------------------------------------------------

RANDOM = np.random.default_rng(1).bytes(100_000)
PROGRAM = b"MZ" + bytes(58) + b"\x80\0\0\0" + bytes(64) + b"PE\0\0" + bytes(200)


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("a.txt", "text " * 40)
    return file.getvalue()


def with_private(value: bytes, creator: str = "VENDOR", element: int = 0x01) -> bytes:
    dataset = ct_image()
    block = dataset.private_block(0x0025, creator, create=True)
    block.add_new(element, "OB", value + bytes(len(value) % 2))
    return to_bytes(dataset)


@pytest.mark.parametrize(
    ("value", "note"),
    [
        (PROGRAM, "private:program"),
        (b"\x7fELF\x02\x01\x01" + bytes(200), "private:program"),
        (b"#!/bin/sh\n" + b"rm -rf x\n" * 20, "private:program"),
        (b"prefix" * 20 + b"\x7fELF\x02\x01\x01" + bytes(200), "private:program"),
        (archive(), "private:archive"),
        (gzip.compress(RANDOM[:500]), "private:archive"),
        (RANDOM, "private:opaque"),
    ],
)
def test_what_hides_in_a_private_element_is_found(value: bytes, note: str) -> None:
    notes = seen(with_private(value)).notes
    # A small file is an archive as a whole, too, wherever in it the archive lies.
    assert notes in ((note,), ("polyglot:zip", note))


@pytest.mark.parametrize("value", [b"MZ" + bytes(200), b"text " * 40_000, bytes(200_000)])
def test_private_data_without_marks_is_let_be(value: bytes) -> None:
    assert seen(with_private(value)).notes == ()


def test_compressed_protocol_of_a_known_vendor_is_let_be() -> None:
    packed = gzip.compress(RANDOM[:500])
    assert seen(with_private(packed, "GEMS_SERS_01", 0x1B)).notes == ()
    assert seen(with_private(packed, "GEMS_SERS_01", 0x1C)).notes == ("private:archive",)


def test_archive_at_the_end_makes_a_polyglot() -> None:
    data = to_bytes(ct_image())
    assert "polyglot:zip" in seen(data + archive()).notes
    assert seen(data).notes == ()
    # The mark alone occurs by chance in pixels.
    assert "polyglot:zip" not in seen(data[:-40] + b"PK\x05\x06" + data[-36:]).notes


def test_pdf_in_the_preamble_makes_a_polyglot() -> None:
    data = to_bytes(ct_image(), preamble=b"x%PDF-1.7\n".ljust(128, b" "))
    assert "polyglot:pdf" in seen(data).notes


@pytest.mark.parametrize(
    ("note", "code", "severity"),
    [
        ("polyglot:zip", "polyglot-file", "error"),
        ("private:program", "private-program", "error"),
        ("private:archive", "private-archive", "warning"),
        ("private:opaque", "private-opaque", "info"),
        ("private:oversized", "private-oversized", "info"),
        ("not-measured", "not-measured", "info"),
    ],
)
def test_notes_become_issues(note: str, code: str, severity: str) -> None:
    issue = noted((note,))
    assert (issue.code, issue.severity) == (code, severity)


# --- attributes -------------------------------------------------------------------------------

SOUND = {
    "Manufacturer": "A", "ManufacturerModelName": "One", "DeviceSerialNumber": "s1",
    "SoftwareVersions": "1.0", "KVP": "120", "ConvolutionKernel": "SOFT", "TableHeight": "150",
    "XRayTubeCurrent": "100", "ExposureTime": "500", "Exposure": "50", "CTDIvol": "4",
}  # fmt: skip


def acquired(count: int = 9, **changes: str) -> list[SliceResult]:
    """A series in which the slice of number 4 has other attributes."""
    slices = [
        dataclasses.replace(one, acquisition=SOUND | {"SliceLocation": str(-2.0 * number)})
        for number, one in enumerate(axial_series(count))
    ]
    slices[4] = dataclasses.replace(slices[4], acquisition=slices[4].acquisition | changes)
    return slices


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"DeviceSerialNumber": "s2"}, ["mixed-equipment"]),
        ({"SoftwareVersions": "2.0"}, ["mixed-equipment"]),
        ({"SoftwareVersions": ""}, []),
        ({"ManufacturerModelName": "Two"}, ["mixed-equipment", "serial-number-shared"]),
        ({"KVP": "80"}, ["mixed-settings"]),
        ({"TableHeight": "158"}, ["table-outlier"]),
        ({"SliceLocation": "33"}, ["table-outlier"]),
        ({"SliceLocation": "x"}, []),
        # Tube current modulation: both follow.
        ({"XRayTubeCurrent": "200", "Exposure": "100", "CTDIvol": "8"}, []),
        ({"Exposure": "200"}, ["exposure-contradiction", "exposure-contradiction"]),
        ({"CTDIvol": "9"}, ["exposure-contradiction"]),
        ({"LossyImageCompression": "00", "LossyImageCompressionRatio": "12"},
         ["lossy-contradiction"]),
        ({"LossyImageCompression": "00", "LossyImageCompressionRatio": "1"}, []),
    ],
)  # fmt: skip
def test_attributes_that_contradict_each_other(
    changes: dict[str, Any], expected: list[str]
) -> None:
    assert codes(acquired(**changes)) == expected


def test_lossy_syntax_that_the_tags_deny_is_found() -> None:
    slices = acquired()
    odd = slices[4].acquisition | {"LossyImageCompression": "00"}
    slices[4] = dataclasses.replace(slices[4], acquisition=odd, notes=("lossy:?",),
                                    transfer_syntax_uid=uid.JPEGBaseline8Bit)  # fmt: skip
    assert codes(slices) == ["lossy-mixed", "lossy-undeclared"]


def test_slice_of_another_day_is_found() -> None:
    slices = [dataclasses.replace(one, times={"AcquisitionDateTime": "20240301101500"})
              for one in axial_series(9)]  # fmt: skip
    assert codes(slices) == []
    slices[4] = dataclasses.replace(slices[4], times={"AcquisitionDateTime": "20240302101500"})
    assert codes(slices) == ["time-outlier"]


def test_serial_numbers_are_kept_as_digests_only() -> None:
    data = to_bytes(ct_image(DeviceSerialNumber="SN-4711", StationName="ROOM 3", CTDIvol=4.25))
    acquisition = seen(data).acquisition
    assert "SN-4711" not in str(acquisition)
    assert "ROOM 3" not in str(acquisition)
    assert acquisition["CTDIvol"] == "4.25"
    implicit = to_bytes(ct_image(CTDIvol=4.25), uid.ImplicitVRLittleEndian)
    assert seen(implicit).acquisition["CTDIvol"] == "4.25"
