"""Zip files: good entries come out whatever is beside them, bombs are refused unopened."""

from __future__ import annotations

import dataclasses
import io
import stat
import struct
import zipfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from slicewatch import archive
from slicewatch.archive import ArchiveTooLarge, BadArchive
from slicewatch.arrival import Offered
from slicewatch.records import Reason
from slicewatch.settings import Settings

SETTINGS = Settings()


def zipped(
    entries: dict[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in entries.items():
            file.writestr(name, data, method)
    return buffer.getvalue()


def unpacked(data: bytes, **changes: Any) -> list[Offered]:
    return list(archive.unpack(data, dataclasses.replace(SETTINGS, **changes)))


def refusal(offered: Offered) -> tuple[Reason, str]:
    assert offered.refused is not None
    return offered.refused.reason, offered.refused.detail


@given(
    st.lists(st.binary(max_size=2000), min_size=1, max_size=8),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]),
)
def test_entries_come_out_byte_for_byte_and_in_order(contents: list[bytes], method: int) -> None:
    data = zipped({f"s/{n}.dcm": content for n, content in enumerate(contents)}, method)
    assert [offered.data for offered in unpacked(data)] == contents


@given(st.binary(max_size=300))
def test_any_bytes_are_an_archive_or_a_clear_error(data: bytes) -> None:
    try:
        offered = unpacked(b"PK\x03\x04" + data)
    except BadArchive:
        return
    assert offered


@hypothesis_settings(max_examples=400)
@given(st.data())
def test_a_damaged_archive_gives_right_bytes_or_a_reason(data: st.DataObject) -> None:
    contents = [b"first" * 40, b"second" * 40]
    body = bytearray(zipped({"a.dcm": contents[0], "b.dcm": contents[1]}))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        offered = unpacked(bytes(body))
    except BadArchive:
        return
    for one in offered:
        assert one.refused is not None or one.data in (*contents, b"")


def test_folders_are_no_entries() -> None:
    assert [one.data for one in unpacked(zipped({"s/": b"", "s/a": b"x"}))] == [b"x"]


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("../up.dcm", "its name leads out of the archive"),
        ("a/../../up.dcm", "its name leads out of the archive"),
        ("a\\..\\up.dcm", "its name leads out of the archive"),
        ("/etc/passwd", "its name is absolute"),
        ("\\\\server\\share", "its name is absolute"),
        ("C:\\slice.dcm", "its name is absolute"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused_alone(name: str, detail: str) -> None:
    bad, good = unpacked(zipped({name: b"bad", "good.dcm": b"good"}))
    assert refusal(bad) == (Reason.REFUSED_ENTRY, detail)
    assert bad.data == b"bad", "its bytes are kept for quarantine"
    assert good == Offered(b"good")


@pytest.mark.parametrize("name", ["..dcm", "a..b/c.dcm", "a/...", "Z.dcm"])
def test_dots_in_a_name_are_no_way_out(name: str) -> None:
    assert unpacked(zipped({name: b"x"})) == [Offered(b"x")]


@pytest.mark.parametrize(
    ("kind", "detail"),
    [(stat.S_IFLNK, "a link"), (stat.S_IFIFO, "a device or another special file")],
)
def test_a_link_is_refused_alone(kind: int, detail: str) -> None:
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = (kind | 0o777) << 16
    bad, good = unpacked(zipped({link: b"/etc/passwd", "good.dcm": b"good"}))
    assert refusal(bad) == (Reason.REFUSED_ENTRY, detail)
    assert good == Offered(b"good")


@pytest.mark.parametrize(
    "inner",
    [zipped({"a": b"x"}), zipped({}), b"\x1f\x8b\x08rest", b"7z\xbc\xaf\x27\x1crest",
     bytes(257) + b"ustar" + bytes(250)],
)  # fmt: skip
def test_an_archive_inside_is_refused_alone(inner: bytes) -> None:
    bad, good = unpacked(zipped({"inner": inner, "good.dcm": b"good"}))
    assert refusal(bad) == (Reason.REFUSED_ENTRY, "an archive inside the archive")
    assert good == Offered(b"good")


def test_a_dicom_file_whose_preamble_is_an_archive_is_a_dicom_file() -> None:
    polyglot = b"PK\x03\x04".ljust(128, b"\0") + b"DICM" + b"rest"
    assert unpacked(zipped({"a.dcm": polyglot})) == [Offered(polyglot)]
    assert not archive.is_archive(polyglot)


def test_an_encrypted_entry_is_refused_alone() -> None:
    data = bytearray(zipped({"secret.dcm": b"bad", "good.dcm": b"good"}))
    data[6] |= 1  # general purpose flags of the first local header
    directory = data.index(b"PK\x01\x02")
    data[directory + 8] |= 1
    bad, good = unpacked(bytes(data))
    assert refusal(bad) == (Reason.REFUSED_ENTRY, "encrypted")
    assert good == Offered(b"good")


def test_an_entry_over_the_object_bound_is_refused_alone() -> None:
    bad, good = unpacked(zipped({"big": bytes(2000), "good": b"good"}), max_object_bytes=1024)
    assert refusal(bad) == (Reason.TOO_LARGE, "2000 bytes, at most 1024")
    assert good == Offered(b"good")


def test_an_entry_with_a_wrong_checksum_is_refused_alone() -> None:
    data = bytearray(zipped({"a": b"damaged!", "b": b"good"}, zipfile.ZIP_STORED))
    data[data.index(b"damaged!")] ^= 1
    bad, good = unpacked(bytes(data))
    assert refusal(bad)[0] is Reason.BAD_ARCHIVE
    assert good == Offered(b"good")


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = zipped({"slice.dcm": b"x", "bomb": bytes(100 << 20)})
    assert len(bomb) < 200_000
    with pytest.raises(ArchiveTooLarge, match="200 times"):
        archive.unpack(bomb, SETTINGS)


def test_many_entries_that_unpack_a_thousandfold_together_are_a_bomb() -> None:
    bomb = zipped({str(n): bytes(20 << 20) for n in range(4)})
    with pytest.raises(ArchiveTooLarge, match="200 times"):
        archive.unpack(bomb, SETTINGS)


def test_a_bomb_that_lies_about_its_packed_size_is_refused() -> None:
    bomb = bytearray(zipped({"bomb": bytes(70 << 20)}))
    directory = bomb.index(b"PK\x01\x02")
    struct.pack_into("<L", bomb, directory + 20, 1 << 30)
    with pytest.raises(BadArchive, match="more bytes than the archive has"):
        archive.unpack(bytes(bomb), SETTINGS)


def test_an_empty_slice_may_deflate_a_thousandfold() -> None:
    empty = bytes(512 * 512 * 2)
    assert [one.refused for one in unpacked(zipped({"empty": empty}))] == [None]


def test_more_entries_than_the_bound_are_refused() -> None:
    data = zipped({str(n): b"x" for n in range(3)})
    assert len(unpacked(data, max_archive_entries=3)) == 3
    with pytest.raises(ArchiveTooLarge, match="3 entries; at most 2"):
        unpacked(data, max_archive_entries=2)


def test_a_directory_over_its_bound_is_not_even_read() -> None:
    data = zipped({f"{n:04}" + "x" * 300: b"" for n in range(1000)})
    with pytest.raises(ArchiveTooLarge, match="directory"):
        unpacked(data, max_archive_entries=10)


def test_more_unpacked_bytes_than_the_bound_are_refused() -> None:
    with pytest.raises(ArchiveTooLarge, match="unpacks to 4000 bytes; at most 2048"):
        unpacked(zipped({"a": bytes(2000), "b": bytes(2000)}), max_archive_bytes=2048)


def test_an_empty_archive_is_refused() -> None:
    with pytest.raises(BadArchive, match="empty"):
        unpacked(zipped({}))


def test_a_reason_names_no_entry() -> None:
    name = "../DOE^JANE.dcm"
    assert all("DOE" not in str(one.refused) for one in unpacked(zipped({name: b"x"})))
