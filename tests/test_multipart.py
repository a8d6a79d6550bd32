"""Multipart bodies: what a sender wrote comes out, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicewatch import multipart
from slicewatch.multipart import BadMultipart, TooManyParts

BOUNDARY = "b0und"


def message(
    parts: list[bytes], *, boundary: str = BOUNDARY, header: str = "Content-Type: application/dicom"
) -> bytes:
    """A body as RFC 2046 has it."""
    body = b""
    for part in parts:
        body += f"--{boundary}\r\n{header}\r\n\r\n".encode() + part + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


def read(body: bytes, boundary: str = BOUNDARY, max_parts: int = 100) -> list[multipart.Part]:
    return list(multipart.parts(body, boundary, max_parts=max_parts))


def said(reading: Callable[[], object]) -> str:
    """What a reader says of a body: "read", or the text of its own error. All else fails."""
    try:
        reading()
    except BadMultipart as error:
        return str(error)
    return "read"


@given(
    st.lists(st.binary(max_size=300).filter(lambda data: BOUNDARY.encode() not in data)),
    st.sampled_from([b"", b"\r\n", b"preamble\r\n"]),
    st.sampled_from([b"", b"epilogue", b"\r\n--" + BOUNDARY.encode()]),
)
def test_parts_come_out_byte_for_byte_and_in_order(
    parts: list[bytes], before: bytes, after: bytes
) -> None:
    body = before + message(parts) + after
    assert [part.data for part in read(body)] == parts
    assert multipart.check(body, BOUNDARY, max_parts=100) == len(parts)


@given(st.binary(max_size=400), st.text(max_size=80))
def test_any_bytes_are_parts_or_a_clear_error(body: bytes, boundary: str) -> None:
    assert said(lambda: read(body, boundary))


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=3), st.data())
def test_a_damaged_message_is_parts_or_a_clear_error(
    parts: list[bytes], data: st.DataObject
) -> None:
    body = bytearray(message(parts))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    assert said(lambda: read(bytes(body)))


@given(st.data())
def test_a_message_that_is_cut_anywhere_is_refused(data: st.DataObject) -> None:
    body = message([b"first", b"second"]).removesuffix(b"--\r\n")
    cut = data.draw(st.integers(0, len(body)))
    with pytest.raises(BadMultipart, match=r"does not (occur in|close) the body"):
        multipart.check(body[:cut], BOUNDARY, max_parts=10)


def test_a_wrong_boundary_is_named() -> None:
    with pytest.raises(BadMultipart, match="does not occur in the body"):
        read(message([b"x"]), "other")


def test_a_missing_boundary_is_named() -> None:
    with pytest.raises(BadMultipart, match="no boundary"):
        read(message([b"x"]), "")


def test_more_parts_than_the_bound_are_refused() -> None:
    assert len(read(message([b"x"] * 3), max_parts=3)) == 3
    with pytest.raises(TooManyParts, match="more than 2"):
        read(message([b"x"] * 3), max_parts=2)


def test_a_part_tells_its_media_type_and_file_name() -> None:
    body = message(
        [b"zip"],
        header='content-disposition: form-data; name="file"; filename="a.zip"\r\n'
        "Content-Type: Application/ZIP; charset=x",
    )
    assert read(body) == [multipart.Part("application/zip", "a.zip", b"zip")]


def test_a_part_may_have_no_headers() -> None:
    assert read(f"--{BOUNDARY}\r\n\r\nx\r\n--{BOUNDARY}--".encode())[0].media_type == ""


@pytest.mark.parametrize(
    "header",
    [
        'multipart/related; type="application/dicom"; boundary="a b"',
        'Multipart/Related;TYPE="application/dicom";Boundary="a b"',
        'multipart/related; boundary="a b"; type=application/dicom',
        'multipart/related ; boundary = "a b" ; type = "application/dicom"',
    ],
)
def test_a_content_type_is_read_however_it_is_spelt(header: str) -> None:
    name, parameters = multipart.media_type(header)
    assert (name, parameters["type"], parameters["boundary"]) == (
        "multipart/related",
        "application/dicom",
        "a b",
    )


@given(st.text(max_size=80))
def test_any_content_type_is_read(header: str) -> None:
    name, parameters = multipart.media_type(header)
    assert name == name.lower()
    assert all(isinstance(value, str) for value in parameters.values())
