"""Digital signatures inside DICOM objects (PS3.3 section C.12.1.1.3, PS3.15 annex C).

Verified: that the signed elements have the bytes that the certificate's key signed. Not verified:
the chain of the certificate to an authority, its revocation, its period of validity, certified
timestamps, and signatures inside of sequence items. Nor is everything covered: only the elements
that the signer listed are signed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from slicewatch import tags
from slicewatch.checks import Check, Evidence, Study, objects
from slicewatch.elements import EXPLICIT_LITTLE, Dataset, Element, Encoding, Scanner
from slicewatch.limits import Rejected

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

VALID, INVALID, UNCHECKED = "signature:valid", "signature:invalid", "signature:unchecked"

_EXPLICIT_LITTLE_UID = "1.2.840.10008.1.2.1"
_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0"
_UNSIGNED = frozenset(
    {
        tags.CERTIFICATE_OF_SIGNER,
        tags.SIGNATURE,
        tags.CERTIFIED_TIMESTAMP_TYPE,
        tags.CERTIFIED_TIMESTAMP,
    }
)
"""Elements of a signature's own item that it does not cover."""
_LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_MAX_SIGNATURES = 16
_MAX_ELEMENTS = 100_000


class _Unchecked(Exception):
    """A signature of a form that is not read here."""


class _EveryTag(frozenset[int]):
    def __contains__(self, tag: object) -> bool:
        return True


def notes(dataset: Dataset) -> tuple[str, ...]:
    """What became of the object's signatures, each answer once; empty where there are none."""
    if tags.MAC_PARAMETERS_SEQUENCE not in dataset:
        return ()
    scanner = Scanner(dataset.scanner.data, _EveryTag(), _MAX_ELEMENTS)
    try:
        start = scanner.file_meta(132 if scanner.data[128:132] == b"DICM" else 0).end
        before = scanner.dataset(start, dataset.end, dataset.encoding)
        after = scanner.dataset(dataset.end, len(scanner.data), dataset.encoding)
        parameters = {
            item.unsigned(tags.MAC_ID_NUMBER): item
            for item in before.items(tags.MAC_PARAMETERS_SEQUENCE)
        }
        found = []
        for number, signature in enumerate(after.items(tags.DIGITAL_SIGNATURES_SEQUENCE)):
            if number == _MAX_SIGNATURES:
                found.append(UNCHECKED)
                break
            mac = parameters.get(signature.unsigned(tags.MAC_ID_NUMBER))
            found.append(UNCHECKED if mac is None else _verify(before, mac, signature))
    except Rejected:  # the structure is damaged
        return (INVALID,)
    return tuple(dict.fromkeys(found)) or (UNCHECKED,)


def _verify(dataset: Dataset, mac: Dataset, signature: Dataset) -> str:
    try:
        return VALID if _holds(dataset, mac, signature) else INVALID
    except _Unchecked:
        return UNCHECKED


def _holds(dataset: Dataset, mac: Dataset, signature: Dataset) -> bool:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    if mac.ascii(tags.MAC_CALCULATION_TRANSFER_SYNTAX_UID) != _EXPLICIT_LITTLE_UID:
        raise _Unchecked
    if signature.ascii(tags.CERTIFICATE_TYPE) != "X509_1993_SIG":
        raise _Unchecked
    algorithm = _hash(mac.ascii(tags.MAC_ALGORITHM))
    stream = b"".join(_signed_bytes(dataset, mac, signature))
    try:
        certificate = x509.load_der_x509_certificate(
            _der(signature.raw(tags.CERTIFICATE_OF_SIGNER))
        )
        key: Any = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            size = key.key_size // 8
            key.verify(signature.raw(tags.SIGNATURE)[:size], stream, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(_der(signature.raw(tags.SIGNATURE)), stream, ec.ECDSA(algorithm))
        else:
            raise _Unchecked
    except InvalidSignature:
        return False
    except (UnsupportedAlgorithm, ValueError) as error:
        raise _Unchecked from error
    return True


def _hash(name: str) -> HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    known: dict[str, type[HashAlgorithm]] = {
        "MD5": hashes.MD5,
        "SHA1": hashes.SHA1,
        "SHA256": hashes.SHA256,
        "SHA384": hashes.SHA384,
        "SHA512": hashes.SHA512,
    }
    if name not in known:
        raise _Unchecked
    return known[name]()


def _der(value: bytes) -> bytes:
    """A DER value without the byte that made its length even."""
    if len(value) < 4 or value[0] != 0x30:
        return value
    first = value[1]
    if first < 0x80:
        return value[: 2 + first]
    count = first & 0x7F
    return value[: 2 + count + int.from_bytes(value[2 : 2 + count], "big")]


# --- the byte stream --------------------------------------------------------------------------


def _signed_bytes(dataset: Dataset, mac: Dataset, signature: Dataset) -> Iterator[bytes]:
    """The elements that are signed as Explicit VR Little Endian: first those of the dataset,
    then those of the signature's own item. Sequences and items have no lengths in it."""
    signed = mac.words(tags.DATA_ELEMENTS_SIGNED)
    for group, number in zip(signed[::2], signed[1::2], strict=False):
        tag = group << 16 | number
        if tag in dataset.elements:
            yield from _element(dataset, tag)
    for tag in sorted(signature.elements):
        if tag not in _UNSIGNED:
            yield from _element(signature, tag)


def _element(dataset: Dataset, tag: int) -> Iterator[bytes]:
    if dataset.encoding.order != "<":
        raise _Unchecked
    element = dataset.elements[tag]
    if tag == tags.PIXEL_DATA and element.undefined:
        raise _Unchecked  # encapsulated
    vr = element.vr or _vr(tag, dataset)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr == b"SQ":
        yield head + b"\0\0"
        yield from _items(dataset, element)
        yield _SEQUENCE_DELIMITER
        return
    if element.undefined:
        raise _Unchecked
    size = element.stop - element.start
    if vr in _LONG_VRS:
        yield head + b"\0\0" + struct.pack("<L", size)
    elif size > 0xFFFF:
        raise _Unchecked
    else:
        yield head + struct.pack("<H", size)
    yield dataset.raw(tag)


def _items(dataset: Dataset, element: Element) -> Iterator[bytes]:
    encoding: Encoding = dataset.encoding if element.vr != b"UN" else EXPLICIT_LITTLE
    for item in dataset.scanner.items(element, encoding):
        yield _ITEM
        inner = dataset.scanner.dataset(item.start, item.stop, encoding)
        for tag in sorted(inner.elements):
            yield from _element(inner, tag)


def _vr(tag: int, dataset: Dataset) -> bytes:
    """The VR of an element that was written without one."""
    from pydicom.datadict import dictionary_VR

    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return b"UN"
    if vr == "US or SS":
        return b"SS" if dataset.unsigned(tags.PIXEL_REPRESENTATION) == 1 else b"US"
    return b"OW" if " or " in vr else vr.encode()


# --- checks -----------------------------------------------------------------------------------


def _invalid(study: Study) -> Iterator[Evidence]:
    if frames := [one for one in study.frames if INVALID in one.notes]:
        yield Evidence(
            f"The digital signature of {objects(frames)} does not fit their content: they were"
            " changed after they were signed.",
            frames,
        )


def _unchecked(study: Study) -> Iterator[Evidence]:
    if frames := [one for one in study.frames if UNCHECKED in one.notes]:
        yield Evidence(
            f"{objects(frames)} bear a digital signature of a form that is not checked here.",
            frames,
        )


def _partly_signed(study: Study) -> Iterator[Evidence]:
    for frames in study.series.values():
        signed = {one.blob for one in frames if any(n.startswith("signature:") for n in one.notes)}
        bare = [one for one in frames if one.blob not in signed]
        if 0 < len({one.blob for one in bare}) < len(signed):
            yield Evidence(
                f"{objects(bare)} bear no digital signature, unlike the rest of the series.", bare
            )


CHECKS = (
    Check("signature-invalid", _invalid),
    Check("signature-missing", _partly_signed),
    Check("signature-unchecked", _unchecked),
)
