"""Bundles that somebody forged with effort: other keys, zip tricks, bombs, nonsense."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from slicewatch import custody_chain
from slicewatch.custody_chain import Signer
from slicewatch.evidence_check import check
from slicewatch.evidence_files import Bundle, Unreadable
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from tests.custody_study import Files, new_signer, unzipped, zipped
from tests.evidence_bundles import (
    a_case,
    checked,
    entry_of,
    lines,
    resealed,
    signing,
    with_lines,
)


@pytest.fixture(scope="module")
def made(
    storage: Storage, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Files, Signer, bytes]:
    case, _, data = a_case(storage, signing(settings), 78_001, tmp_path_factory.mktemp("models"))
    assert case.log.signer is not None
    return unzipped(data), case.log.signer, data


@pytest.fixture(scope="module")
def files(made: tuple[Files, Signer, bytes]) -> Files:
    return made[0]


@pytest.fixture(scope="module")
def key(made: tuple[Files, Signer, bytes]) -> bytes:
    return made[1].public_pem


# --- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 3])
def test_a_log_signed_anew_with_another_key_names_the_first_entry_of_it(
    files: Files, key: bytes, tmp_path: Path, start: int
) -> None:
    forger = new_signer()
    forged = resealed(files, lines(files), forger, start)
    report = checked(forged, tmp_path, keys=[key])
    assert report.faults[0].entry == start
    assert "key that is not at hand" in report.faults[0].cause


def test_a_log_signed_anew_with_the_forgers_key_in_the_bundle_is_told_by_its_key(
    files: Files, key: bytes, tmp_path: Path
) -> None:
    forger = new_signer()
    report = checked(resealed(files, lines(files), forger), tmp_path)
    assert not report.trusted
    assert report.keys == (forger.signing,)
    mixed = checked(resealed(files, lines(files), forger, 3) | {
        name: text for name, text in files.items() if name.startswith("keys/")
    }, tmp_path)  # fmt: skip
    assert len(mixed.keys) == 2  # both are named, and the original's file is not in the manifest
    assert not mixed.holds


def test_a_replaced_public_key_names_the_first_entry_that_it_signed(
    made: tuple[Files, Signer, bytes], key: bytes, tmp_path: Path
) -> None:
    files, signer, _ = made
    name = f"keys/{signer.fingerprint}.pem"
    report = checked({**files, name: new_signer().public_pem}, tmp_path)
    assert report.faults[0].entry == 0
    # With the key from elsewhere the log holds; the file of the bundle is named.
    report = checked({**files, name: new_signer().public_pem}, tmp_path, keys=[key])
    assert [(fault.entry, fault.file) for fault in report.faults] == [(None, name)]


def test_an_entry_put_in_with_another_key_is_named(
    files: Files, key: bytes, tmp_path: Path
) -> None:
    entries = lines(files)
    before = json.loads(entries[3])
    body = json.loads(entries[4])["body"]
    body |= {"sequence": 4, "previous": before["hash"], "key": "put-in"}
    for signer in (new_signer(), None):
        line, _ = custody_chain.state("entry", body, signer)
        forged = with_lines(files, [*entries[:4], line, *entries[4:]])
        assert checked(forged, tmp_path, keys=[key]).faults[0].entry == 4


def test_an_entry_of_another_study_is_named(files: Files, key: bytes, tmp_path: Path) -> None:
    entries = lines(files)
    body = json.loads(entries[2])["body"] | {"study": "1.2.3"}
    line, _ = custody_chain.state("entry", body, None)
    entries[2] = line
    assert checked(with_lines(files, entries), tmp_path, keys=[key]).faults[0].entry == 2


# --- zip tricks ---------------------------------------------------------------------------------


def written(
    path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, text in members:
            archive.writestr(name, text)
    return path


def hidden_member(data: bytes) -> bytes:
    """A file between the last file and the directory, that the directory does not list."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("originals/hidden.dcm", b"hidden")
    local = out.getvalue()[: out.getvalue().index(b"PK\x01\x02")]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.start_dir
    end = data.rindex(b"PK\x05\x06")
    moved = (start + len(local)).to_bytes(4, "little")
    return data[:start] + local + data[start : end + 16] + moved + data[end + 20 :]


TRICKS: dict[str, Callable[[bytes], bytes]] = {
    "another zip file before it": lambda data: data[: len(data) // 2] + data,
    "bytes before it": lambda data: b"#!/bin/sh\n" + data,
    "a file that the directory does not list": hidden_member,
    "a comment": lambda data: data[:-2] + b"\x04\x00more",
    "cut in the middle": lambda data: data[: len(data) // 2],
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_zip_file_that_programs_may_read_differently_is_refused(
    made: tuple[Files, Signer, bytes], tmp_path: Path, trick: str
) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(made[2])
    Bundle(path)
    path.write_bytes(TRICKS[trick](made[2]))
    with pytest.raises(Unreadable):
        Bundle(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("order", [1, -1])
def test_two_members_of_one_name_are_refused(files: Files, tmp_path: Path, order: int) -> None:
    name = "log.jsonl"
    members = [*files.items(), (name, b"other")]
    path = written(tmp_path / "bundle.zip", members[::order])
    with pytest.raises(Unreadable, match=r"more than once: 'log\.jsonl'"):
        Bundle(path)


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.txt",
        "/etc/evil",
        "originals/../log.jsonl",
        "./log.jsonl",
        "..\\evil",
        "LOG.JSONL",
    ],
)
def test_paths_that_lead_elsewhere_are_named_and_not_followed(
    files: Files, tmp_path: Path, name: str
) -> None:
    path = written(tmp_path / "bundle.zip", [*files.items(), (name, b"evil")])
    report = check(Bundle(path))
    assert [fault.file for fault in report.faults] == [name]
    assert {one.name for one in tmp_path.iterdir()} == {"bundle.zip"}


def test_a_bomb_is_refused_before_it_is_unpacked(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        with archive.open("originals/zeros", "w", force_zip64=True) as target:
            for _ in range(1100):
                target.write(bytes(1 << 20))
    with pytest.raises(Unreadable, match="bomb"):
        Bundle(path)


@pytest.mark.parametrize("how", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_packing_that_is_not_read_is_refused(files: Files, tmp_path: Path, how: int) -> None:
    path = written(tmp_path / "bundle.zip", [*files.items()], compression=how)
    with pytest.raises(Unreadable, match="packed in a way"):
        Bundle(path)


def test_a_bundle_that_was_packed_again_with_compression_holds(
    files: Files, key: bytes, tmp_path: Path
) -> None:
    path = written(tmp_path / "b.zip", [*files.items()], compression=zipfile.ZIP_DEFLATED)
    assert check(Bundle(path), keys=[key]).holds


def test_an_encrypted_or_damaged_member_does_not_hold(files: Files, tmp_path: Path) -> None:
    path = zipped(files, tmp_path / "bundle.zip")
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02")
    data[place + 8] |= 1  # "is encrypted", of the first file
    path.write_bytes(data)
    assert next(iter(files)) in {fault.file for fault in check(Bundle(path)).faults}


@pytest.mark.parametrize("target", ["/dev/zero", "../outside"])
def test_a_folder_with_a_link_is_refused(files: Files, tmp_path: Path, target: str) -> None:
    folder = tmp_path / "bundle"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)
    (folder / "log.jsonl").unlink()
    (folder / "log.jsonl").symlink_to(target)
    with pytest.raises(Unreadable, match=r"no file: 'log\.jsonl'"):
        Bundle(folder)


def test_a_pipe_in_a_folder_does_not_keep_the_check_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(Unreadable, match="no file"):
        Bundle(tmp_path)


@pytest.mark.parametrize("thing", [["x"], {"x": 1}, 7, None])
def test_hashes_that_are_none_are_told(files: Files, tmp_path: Path, thing: object) -> None:
    for event, key in (("stored", "objects"), ("screened", "results"), ("decided", "item")):
        entries, number = lines(files), entry_of(files, event)
        statement = json.loads(entries[number])
        data = statement["body"]["data"]
        if event == "decided":
            data[key] = thing
        else:
            name = sorted(data[key])[0]
            data[key][name] = [thing, 1] if event == "stored" else thing
        entries[number] = json.dumps(statement).encode()
        report = checked(resealed(files, entries), tmp_path)
        assert number in [fault.entry for fault in report.faults]


def test_a_missing_manifest_does_not_hide_which_entry_was_changed(
    files: Files, tmp_path: Path
) -> None:
    entries = lines(files)
    entries[5] = entries[5].replace(b'"time":"20', b'"time":"19')
    forged = {**with_lines(files, entries)}
    del forged["manifest.json"]
    report = checked(forged, tmp_path)
    assert report.faults[0].entry == 5


# --- nonsense that is sealed well ---------------------------------------------------------------

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["objects", "results", "x", "item"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@examples(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_nonsense_makes_the_check_fail_or_pass(
    files: Files, tmp_path: Path, data: st.DataObject
) -> None:
    """Somebody without the key may seal what they like: it is told, by a report."""
    entries = lines(files)
    number = data.draw(st.integers(0, len(entries) - 1))
    statement = json.loads(entries[number])
    body = statement["body"]
    key = data.draw(st.sampled_from(sorted(body)))
    inner = body["data"] if key == "data" and data.draw(st.booleans()) else body
    key = data.draw(st.sampled_from(sorted(inner)))
    inner[key] = data.draw(_VALUES.filter(lambda value: value != inner[key]))
    entries[number] = json.dumps(statement).encode()
    manifest = json.loads(files["manifest.json"])
    if data.draw(st.booleans()):
        place = data.draw(st.sampled_from(sorted(manifest["body"])))
        manifest["body"][place] = data.draw(_VALUES)
    forged = resealed({**files, "manifest.json": json.dumps(manifest).encode()}, entries)
    checked(forged, tmp_path)
    signer = new_signer()
    assert not checked(forged, tmp_path, keys=[signer.public_pem]).holds
